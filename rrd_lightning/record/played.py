"""Episodes that a policy plays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rrd_lightning.checkpoint.format import read_checkpoint
from rrd_lightning.datasets.libero import IMAGES
from rrd_lightning.envs.libero import Libero
from rrd_lightning.envs.libero_task import find_task
from rrd_lightning.errors import ParameterError
from rrd_lightning.module import RRDModule
from rrd_lightning.networks import find_class
from rrd_lightning.record.job import Job, make_recording
from rrd_lightning.record.policy import Policy, Trained
from rrd_lightning.record.writer import Recording
from rrd_lightning.seeding import seed_generators


class PlayedEpisodes(Job):
    """Episodes of consecutive seeds, each of a policy made for it.

    Args:
        folder: where to write a file named like the task.
        make_policy: makes it from the environment and a generator.
        source: what it is, as text.
        task: id of the task.
        kind: what to record: ``images``, ``state`` or ``both``.
        kwargs: of the environment.
        episodes: how many.
        seed: of the first.
        limit: time limit in steps; the task's by default.

    Raises:
        ParameterError: if there is no such task, or the environment cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        make_policy: Callable[[Libero, np.random.Generator], Any],
        source: str,
        task: str | None,
        kind: str,
        kwargs: dict[str, Any],
        episodes: int,
        seed: int,
        limit: int | None,
    ) -> None:
        found = find_task(task or "")
        if found is None:
            raise ParameterError("task", task, "must be a LIBERO task, such as libero_goal:8")
        self.path = folder / f"{found.name}.hdf5"
        self.env = Libero(found.id, **{"initial_states": "cycled", **kwargs, "proprioception": True})
        self.episodes = [f"demo_{number}" for number in range(episodes)]
        self._limit = limit or found.spec().max_episode_steps or 0
        self._make_policy, self._kind, self._seed = make_policy, kind, seed
        self.options = {
            **{"source": source, "task": found.id, "observations": kind, "kwargs": kwargs},
            **{"episodes": episodes, "seed": seed, "max_episode_steps": self._limit},
        }

    def record(self, episode: str) -> Recording:
        """Play until success or the time limit; a last row holds the observation after the last action."""
        number = self.episodes.index(episode)
        seed_generators(self._seed + number)
        observation, info = self.env.reset(seed=self._seed + number)
        attributes = {
            "seed": self._seed + number,
            "benchmark_init_state_index": info["initial_state"],
            "init_state": self.env.simulator_state,
            "fixture_poses": json.dumps(self.env.fixtures),
        }
        policy = self._make_policy(self.env, np.random.default_rng([self._seed, number]))
        seen, states = [observation], [self.env.simulator_state]
        actions: list[Any] = []
        success, rewards = False, [0.0]
        while not success and len(actions) < self._limit:
            actions.append(np.asarray(policy.act(observation), np.float64).clip(-1, 1))
            observation, reward, success, _, _ = self.env.step(actions[-1])
            seen.append(observation)
            states.append(self.env.simulator_state)
            rewards.append(reward)
        return make_recording(
            seen,
            self._kind,
            actions=[*actions, np.zeros(7)],
            rewards=[*rewards[1:], rewards[-1]],
            states=states,
            attributes={**attributes, "success": success},
        )

    def attributes(self) -> dict[str, Any]:
        """Describe the task as LIBERO does."""
        task = self.env.task
        bddl = task.file("bddl_files", "bddl")
        return {
            "bddl_file_name": f"libero/libero/bddl_files/{task.suite}/{bddl.name}",
            "bddl_file_content": bddl.read_text(),
            "problem_info": json.dumps({"language_instruction": self.env.instruction.lower()}),
            "last_row": "holds the observation after the last action; its own action was not taken",
            "tag": "libero-v1",
        }


def scripted(folder: Path, policy: str, kind: str, kwargs: dict[str, Any], **options: Any) -> PlayedEpisodes:
    """Let a `Policy` play, named by its class path."""
    return PlayedEpisodes(
        folder,
        find_class(policy, Policy, "policy"),
        policy,
        kind=kind,
        kwargs={**kwargs, "observations": "state" if kind == "state" else "both"},
        **options,
    )


def trained(
    folder: Path, ckpt_path: str, kind: str, kwargs: dict[str, Any], explore: bool, **options: Any
) -> PlayedEpisodes:
    """Let the policy of a checkpoint play, in the environment of its configuration where it has one."""
    path = Path(ckpt_path).expanduser()
    module = RRDModule.load_from_checkpoint(path)
    config = (read_checkpoint(str(path)).get("config") or {}).get("env") or {}
    for option, setting in (("task", "id"), ("limit", "max_episode_steps")):
        options[option] = options[option] or config.get(setting)
    space: Any = module.observation_space
    images = kind != "state" or set(IMAGES) & set(space.spaces)
    return PlayedEpisodes(
        folder,
        lambda env, generator: Trained(module, explore, config.get("action_repeat", 1)),
        f"{path}, {'with' if explore else 'without'} exploration",
        kind=kind,
        kwargs={**(config.get("kwargs") or {}), **kwargs, "observations": "both" if images else "state"},
        **options,
    )
