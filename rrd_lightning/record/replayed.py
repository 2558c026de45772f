"""Episodes of files, observed anew in the simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from rrd_lightning.datasets.libero import LiberoFile
from rrd_lightning.datasets.libero_scene import fixtures_of, task_of
from rrd_lightning.envs.libero import Libero
from rrd_lightning.errors import ParameterError
from rrd_lightning.record.job import Job, make_recording
from rrd_lightning.record.writer import Recording


class ReplayedEpisodes(Job):
    """The episodes of a file: the simulator is put into each of their states, before each of their actions.

    That needs no physics, and gives the same numbers as when they were played, to the last bit. Files of LIBERO
    and those made from them hold these states.

    Args:
        path: the file to replay.
        target: the file to write.
        task: id of the task; by default what the file says.
        kind: what to record: ``images``, ``state`` or ``both``.
        kwargs: of the environment.

    Raises:
        ParameterError: if the file does not say of which task it is, or the environment cannot be made.
    """

    def __init__(self, path: Path, target: Path, task: str | None, kind: str, kwargs: dict[str, Any]) -> None:
        if target.exists() and target.samefile(path):
            raise ParameterError("output", str(target), "is the file to replay: choose another folder")
        self.path = target
        self._file = LiberoFile(path)
        self.env = Libero(task or self._task(), **{**kwargs, "proprioception": True, "observations": kind})
        self._kind = kind
        self._is_reset = False
        self.episodes = self._file.episodes()
        self.options = {
            **{"source": str(path), "size": path.stat().st_size, "task": self.env.task.id},
            **{"observations": kind, "kwargs": kwargs},
        }

    def _task(self) -> str:
        with self._file.open() as file:
            task = task_of(file["data"])
        if task is None:
            raise self._file.bad("", "data.bddl_file_name", "is missing: say with --task of which task it is")
        return task

    def record(self, episode: str) -> Recording:
        """Observe each state of an episode."""
        if not self._is_reset:
            self.env.reset(seed=0)  # builds the scene
            self._is_reset = True
        size = len(self.env.simulator_state)
        file_of = self._file
        with file_of.open() as file:
            actions = file_of.numbers(file, episode, "actions", (None, 7), np.float64)
            states = file_of.numbers(file, episode, "states", (len(actions), size), np.float64)
            rewards = file_of.numbers(file, episode, "rewards", (len(actions),))
            success = file_of.success(file, episode)
            attributes = dict(file["data"][episode].attrs)
        fixtures = fixtures_of(attributes, self.env)
        if fixtures is None:
            unknown = ", ".join(self.env.fixtures)
            raise file_of.bad(
                episode, "model_file", f"is missing, and so is fixture_poses: where {unknown} are is unknown"
            )
        seen = [self.env.restore(state, fixtures) for state in states]
        kept = {key: value for key, value in attributes.items() if key not in ("num_samples", "model_file")}
        kept |= {"success": success, "init_state": states[0], "fixture_poses": json.dumps(fixtures)}
        return make_recording(
            seen, self._kind, actions=actions, rewards=rewards, states=states, attributes=kept
        )

    def attributes(self) -> dict[str, Any]:
        """Return those of the file that it comes from."""
        with self._file.open() as file:
            return dict(file["data"].attrs)
