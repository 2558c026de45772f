"""How much memory the batches and the replay take, worked out before any of it is allocated."""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gymnasium import Space, spaces

from rrd_lightning.disk import human
from rrd_lightning.errors import ParameterError
from rrd_lightning.frames import StackedFrames, frame_space
from rrd_lightning.free_memory import free_memory
from rrd_lightning.replay.buffer import ring_size
from rrd_lightning.replay.sampler import Draws

# Bytes of a transition beside its step: true reward, done, terminated, demonstration, episode return, episode
# length, success.
TRANSITION_FACTS = 4 + 1 + 1 + 1 + 4 + 8 + 1
# Of a subsequence: episode return, episode length, success, with replacement.
SUBSEQUENCE_FACTS = 4 + 8 + 1 + 1
# Of a row of a whole episode: episode return, episode length, success, episode; and of each step: mask.
ROW_FACTS = 4 + 8 + 1 + 8
MASK = 1
# Whole episodes are as long as the environment lets them be, which the plan does not know.
ASSUMED_LENGTH = 1000


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of a run in bytes, from the shapes and dtypes of its spaces.

    Args:
        observation_space: of a single environment.
        action_space: of a single environment.
        train_batches: batches per iteration.
        batch_size: transitions per batch.
        num_subsequences: subsequences, or whole episodes, per batch.
        rrd_sample_size: steps per subsequence, or per row of a whole episode.
        capacity: transitions in the replay, over all processes.
        processes: number of processes of the job.
        processes_here: number of those on this machine.
        draws: what is drawn for the reward model, as in `PairedSampler`. Whole episodes are assumed to
            have `ASSUMED_LENGTH` steps.
        feedback_every: steps of which the return is given, if not of whole episodes.
    """

    observation_space: Space[Any]
    action_space: Space[Any]
    train_batches: int
    batch_size: int
    num_subsequences: int
    rrd_sample_size: int
    capacity: int
    processes: int = 1
    processes_here: int = 1
    draws: Draws = "steps"
    feedback_every: int | None = None

    @property
    def assumed_length(self) -> int:
        """Steps of a whole episode, or of a bag of it."""
        return min(ASSUMED_LENGTH, self.feedback_every or ASSUMED_LENGTH)

    @property
    def step(self) -> int:
        """Bytes of a step in a batch: observation, next observation, action.

        A stack of frames shares all of them but one with the next.
        """
        pair = sum(_pair_bytes(part) for part in _parts(self.observation_space))
        return pair + space_bytes(self.action_space)

    @property
    def transitions(self) -> int:
        """Bytes of a batch's transitions."""
        return self.batch_size * (self.step + TRANSITION_FACTS)

    @property
    def rows(self) -> int:
        """Rows of `rrd_sample_size` steps in a batch: subsequences, or pieces of whole episodes."""
        if self.draws == "nothing":
            return 0
        whole = self.draws == "episodes"
        return self.num_subsequences * (-(-self.assumed_length // self.rrd_sample_size) if whole else 1)

    @property
    def subsequences(self) -> int:
        """Bytes of a batch's subsequences, or of its whole episodes."""
        if self.draws == "episodes":
            return self.rows * (self.rrd_sample_size * (self.step + MASK) + ROW_FACTS)
        return self.rows * (self.rrd_sample_size * self.step + SUBSEQUENCE_FACTS)

    @property
    def record(self) -> int:
        """Bytes of a record in the replay: observation, or a frame of it, action, true reward."""
        return space_bytes(frame_space(self.observation_space)) + space_bytes(self.action_space) + 4

    @property
    def replay(self) -> int:
        """Bytes of the full replay, of all processes on this machine."""
        return self.processes_here * ring_size(-(-self.capacity // self.processes)) * self.record

    def __str__(self) -> str:
        """The plan in a few lines, for the start of a run."""
        batch = self.transitions + self.subsequences
        steps = self.batch_size + self.rows * self.rrd_sample_size
        observations = steps * space_bytes(self.observation_space)
        lines = [
            f"Paired batch: {human(batch)}",
            f"  {self.batch_size} transitions: {human(self.transitions)}",
            *self._describe_subsequences(),
            f"Iteration of {self.train_batches} batches: {human(self.train_batches * batch)}",
            f"Observations alone, each counted once: {human(observations)} a batch, "
            f"{human(self.train_batches * observations)} an iteration",
            f"Full replay of {self.capacity:,} transitions: {human(self.replay)}",
        ]
        if self.processes > 1:
            lines[-1] += f" on this machine, {-(-self.capacity // self.processes):,} in each process"
            lines.append(self._describe_processes())
        return "\n".join(lines)

    def _describe_subsequences(self) -> list[str]:
        size = human(self.subsequences)
        if self.draws == "episodes":
            return [
                f"  {self.num_subsequences} whole episodes in rows of {self.rrd_sample_size} steps: {size}, "
                f"assuming {self.assumed_length:,} steps per episode"
            ]
        if self.draws == "steps":
            return [f"  {self.num_subsequences} subsequences of {self.rrd_sample_size} steps: {size}"]
        return []

    def _describe_processes(self) -> str:
        updates = f"updates from {self.processes * self.batch_size:,} transitions"
        if self.draws != "nothing":
            kind = "whole episodes" if self.draws == "episodes" else "subsequences"
            updates += f" and {self.processes * self.num_subsequences:,} {kind}"
        return f"Together, {self.processes} processes: {updates}"

    def choose_storage(self) -> Literal["memory", "memmap"]:
        """Return ``"memory"`` if the full replay fits in the free memory, else ``"memmap"``."""
        return "memory" if self.replay <= free_memory() else "memmap"

    def check(self, storage: str, scratch_dir: str | None) -> None:
        """Make sure that the full replay fits.

        Raises:
            ParameterError: if it does not, naming the largest capacity that would.
        """
        if storage == "memory":
            place, free = "free memory", free_memory()
        else:
            folder = scratch_dir or tempfile.gettempdir()
            while not Path(folder).exists():
                folder = str(Path(folder).parent)
            place, free = f"free disk space of {folder}", shutil.disk_usage(folder).free
        if self.replay > free:
            fitting = int(free / self.record / 1.05 * self.processes / self.processes_here)
            raise ParameterError(
                "data.capacity",
                self.capacity,
                f"the full replay takes {human(self.replay)}, the {place} is {human(free)}: "
                f"a capacity of {fitting} fits",
                section="memory-and-disk",
            )


def _parts(space: Space[Any]) -> list[Space[Any]]:
    if isinstance(space, spaces.Dict):
        return [each for part in space.spaces.values() for each in _parts(part)]
    return [space]


def _pair_bytes(space: Space[Any]) -> int:
    """Bytes of an observation and the next one in a batch."""
    frames = space.count + 1 if isinstance(space, StackedFrames) else 2
    return frames * space_bytes(frame_space(space))


def space_bytes(space: Space[Any]) -> int:
    """Return the bytes of one element of a space, as the replay stores it."""
    if isinstance(space, spaces.Dict):
        return sum(space_bytes(part) for part in space.spaces.values())
    return math.prod(space.shape or ()) * np.dtype(space.dtype).itemsize
