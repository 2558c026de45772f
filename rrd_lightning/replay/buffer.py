"""The episode replay: a TorchRL buffer that admits finished episodes and yields paired batches."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import LazyMemmapStorage, LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers.writers import RoundRobinWriter

from rrd_lightning import keys
from rrd_lightning.disk import discard, reserve, temporary_folder
from rrd_lightning.errors import ParameterError, require_positive
from rrd_lightning.frames import stack_counts
from rrd_lightning.replay.bags import bags
from rrd_lightning.replay.batches import BatchIndices, BatchMaker, LazyBatches, Nested, Stacks
from rrd_lightning.replay.memory_pool import MemoryPool
from rrd_lightning.replay.sampler import PairedSampler, StepDraw, before

# Bytes of several batches, up to which their observations are gathered at once. For larger allocations the
# operating system hands out new pages each time, and the page faults take longer than the copy.
GATHERED_TOGETHER = 2**25
# Of the table, in the order of `add_episodes`; where the records are is up to the ring.
COLUMNS = ("length", "episode_return", "terminated", "success", "demonstration", "offset", "ends")


def ring_size(capacity: int) -> int:
    """Number of records that hold `capacity` transitions: each episode takes one more, its last observation.

    A twentieth on top is room for episodes of 20 steps on average; shorter ones leave the ring a
    little earlier than the capacity alone asks. Small rings have room for any length.
    """
    return capacity + min(capacity, max(64, capacity // 20))


class EpisodeReplay:
    """A ring of finished episodes in which each observation is stored once.

    An episode of T steps takes T + 1 successive records of (observation, action, true reward): the
    next observation of step t is the observation of record t + 1, and the last record holds an
    observation alone. Episodes come in finished, through `add_episode`; `sample` draws a paired batch.
    When the ring is full, the oldest episodes leave as a whole. Demonstrations that are to be kept are stored
    anew as the newest when their turn comes.

    Where observations are stacks of frames, episodes and the ring hold single frames, and a batch gets stacks,
    which never reach beyond an episode's start.

    Args:
        capacity: largest number of transitions in the replay.
        sampler: draws the steps of each batch.
        storage: ``"memory"``, or ``"memmap"`` for files on disk.
        scratch_dir: folder in which the temporary folder of these files is made; the system's by default.
        keep_demonstrations: never let demonstrations leave.
        observation_space: of the observations in a batch, for its stacks; by default there are none.
        feedback_every: give the return of every so many steps, as an episode of its own; by default the whole
            episode's.

    Attributes:
        capacity: as given.
        sampler: as given.
        episodes: the table of the stored episodes.
        buffer: the TorchRL buffer with the records. Read it as you like; writing to it would lose track
            of the episodes.
        storage: the buffer's storage.

    Raises:
        ParameterError: if the capacity or the storage is not valid.
    """

    def __init__(
        self,
        capacity: int,
        sampler: PairedSampler,
        storage: str = "memory",
        scratch_dir: str | None = None,
        keep_demonstrations: bool = False,
        observation_space: Space[Any] | None = None,
        feedback_every: int | None = None,
    ) -> None:
        require_positive(capacity=capacity)
        if storage not in {"memory", "memmap"}:
            raise ParameterError("storage", storage, "must be 'memory' or 'memmap'")
        self.capacity = capacity
        self.sampler = sampler
        self.keep_demonstrations = keep_demonstrations
        self.episodes = sampler.table
        self.feedback_every = feedback_every
        self._stacks = Stacks(stack_counts(observation_space))
        self._records = ring_size(capacity)
        self._folder: Path | None = None
        self._reserved = False
        self.storage = (
            LazyTensorStorage(self._records) if storage == "memory" else self._storage_on_disk(scratch_dir)
        )
        # TorchRL's default writer would store an index beside every record.
        self.buffer = TensorDictReplayBuffer(storage=self.storage, writer=RoundRobinWriter())
        self._used_records = 0
        self._next_record = 0
        self._record_bytes = 0
        self._stored: TensorDictBase = TensorDict({}, [])
        self._pool = MemoryPool()
        self._maker = BatchMaker({}, self._records, self._pool, self._stacks)

    def _storage_on_disk(self, scratch_dir: str | None) -> LazyMemmapStorage:
        """Make a storage in a folder of its own, which is deleted with the replay."""
        parent = None if scratch_dir is None else Path(scratch_dir)
        try:
            if parent is not None:
                parent.mkdir(parents=True, exist_ok=True)
            self._folder, owner = temporary_folder("replay-", parent)
        except OSError as error:
            raise ParameterError("data.scratch_dir", scratch_dir, f"cannot be written to ({error})") from error
        weakref.finalize(self, discard, self._folder, owner)
        return LazyMemmapStorage(self._records, scratch_dir=str(self._folder))

    def reserve(self, record: TensorDictBase) -> None:
        """Take the disk space of the full replay, if it is kept on disk; nothing must be stored yet.

        Args:
            record: ``[1]``, any record, with observation, action and true reward.

        Raises:
            ParameterError: if the disk is too full, with what is missing.
        """
        if self._folder is not None and not self._reserved:
            self.buffer.extend(record)  # makes the files
            self.buffer.empty()
            reserve(self._folder, "data.scratch_dir")
        self._reserved = True

    def __len__(self) -> int:
        """The number of stored transitions."""
        return self.episodes.transitions

    def add_episode(self, episode: TensorDictBase, *, demonstration: bool = False) -> None:
        """Store a finished episode; the oldest episodes make room for it.

        Args:
            episode: ``observation`` ``[T + 1, ...]``, ``action`` ``[T, ...]``, ``reward`` ``[T]``
                (the true ones), ``episode_return`` and ``terminated`` ``[]``, and ``success`` ``[]`` where
                it is known.
            demonstration: it was not collected.

        Raises:
            ParameterError: if the episode has no step, is longer than the capacity, lacks a part, has
                parts of different lengths, or holds a number that is not finite; if the returns of its
                bags are not known; or if kept demonstrations leave no room for it.
        """
        length = self._check(episode)
        rows = bags(episode, self.feedback_every)
        while len(self) + length > self.capacity:
            self._drop_oldest()
        records = TensorDict(
            {
                keys.OBSERVATION: episode.get(keys.OBSERVATION),
                keys.ACTION: _pad_last(episode.get(keys.ACTION)),
                keys.REWARD: _pad_last(episode.get(keys.REWARD)),
            },
            [length + 1],
        )
        self.add_episodes(records, **rows, demonstration=torch.full_like(rows["ends"], demonstration))

    def add_episodes(
        self,
        records: TensorDictBase,
        *,
        length: Tensor,
        episode_return: Tensor,
        terminated: Tensor,
        success: Tensor,
        demonstration: Tensor,
        offset: Tensor,
        ends: Tensor,
    ) -> None:
        """Store the records of one or several valid episodes, as `records` returns them.

        They may exceed the capacity by as much as the ring has room for, until the next `add_episode`.

        Args:
            records: ``[sum of (T + ends)]``, observations, actions and true rewards.
            length: ``[rows]``, T.
            episode_return: ``[rows]``, R.
            terminated: ``[rows]``.
            success: ``[rows]``: 1, 0, or -1 where it is not known.
            demonstration: ``[rows]``.
            offset: ``[rows]``, steps of the episode before these.
            ends: ``[rows]``: whether the episode ends with these.

        Raises:
            ParameterError: if the records are more than the ring's, or than kept demonstrations leave room for.
        """
        if len(records) > self._records:
            raise ParameterError(
                "capacity",
                self.capacity,
                f"is less than the {int(length.sum())} transitions to be stored at once",
            )
        while self._used_records + len(records) > self._records:
            self._drop_oldest()
        self._write(records)
        columns = length, episode_return, terminated, success, demonstration, offset, ends
        for row in zip(*(column.tolist() for column in columns), strict=True):
            facts = dict(zip(COLUMNS, row, strict=True))
            self.episodes.append(start=self._next_record, **facts)
            self._advance(facts["length"] + facts["ends"])

    def _write(self, records: TensorDictBase) -> None:
        self.reserve(records[:1].contiguous())
        self.buffer.extend(records.contiguous())  # the first records decide the memory layout of the ring
        self._stored = self.storage[:]
        self._maker = BatchMaker(self._stored.to_dict(), self._records, self._pool, self._stacks)
        self._record_bytes = int(self._stored[:1].bytes())

    def _advance(self, count: int) -> None:
        self._used_records += count
        self._next_record = (self._next_record + count) % self._records

    def _drop_oldest(self) -> None:
        demonstration = self.episodes.live["demonstration"]
        if not (self.keep_demonstrations and demonstration[0]):
            self._used_records -= self.episodes.pop_oldest() + 1
            return
        if demonstration.all():
            raise ParameterError(
                "data.capacity",
                self.capacity,
                f"has no room for an episode beside the {len(self)} transitions of the demonstrations, "
                "which are kept",
            )
        first, length = self.episodes["start"][:1], self.episodes.oldest_length()
        count = length + 1
        self._used_records -= count
        self._write(TensorDict.from_dict(self.records(first, torch.tensor([length])), batch_size=[count]))
        self.episodes.renew_oldest(self._next_record)
        self._advance(count)

    @property
    def record_bytes(self) -> int:
        """Bytes of a record; zero while nothing is stored."""
        return self._record_bytes if len(self.episodes) else 0

    def observations(self) -> Iterator[Any]:
        """Copy the observations of each row of the table, ``[T + ends, ...]``, oldest first."""
        for row in range(len(self.episodes)):
            place = (self.episodes[column][row : row + 1] for column in ("start", "length", "ends"))
            yield self.records(*place)[keys.OBSERVATION]

    def records(self, start: Tensor, length: Tensor, ends: Tensor | None = None) -> dict[str, Any]:
        """Copy the records of rows of the table, one after another, as plain nested tensors.

        Args:
            start: ``[rows]``, the ring position of each row's first record.
            length: ``[rows]``, T.
            ends: ``[rows]``, whether an episode ends there, with one more observation; all do by default.
        """
        counts = length + (1 if ends is None else ends.long())
        first = torch.repeat_interleave(start - (counts.cumsum(0) - counts), counts)
        index = (first + torch.arange(len(first))).remainder_(self._records)
        copied: dict[str, Any] = self._stored[index].to_dict()
        return copied

    def sample(self) -> TensorDict:
        """Draw a paired batch, with the keys of `rrd_lightning.keys`.

        Returns:
            ``transitions`` of batch size ``[batch_size]``; ``subsequences`` of batch size
            ``[num_subsequences]``, or ``[rows]`` of whole episodes, whose steps are the second dimension
            of observation, next observation and action, unless the sampler draws nothing for them; and
            ``statistics`` of the stored episodes, of batch size ``[]``. Nothing of it lies in the ring,
            but its tensors share blocks of memory, so clone what is to be kept for long. Batches share
            the tensors of the statistics, which are not to be written into.

        Raises:
            RuntimeError: if the replay is empty.
        """
        return self._maker.batch(self._draw(()))

    def sample_several(self, count: int) -> Sequence[TensorDict]:
        """Draw the batches that as many calls of `sample` would, in less time.

        Args:
            count: number of batches.

        Returns:
            The batches, the same to the last bit. Large ones, and those with whole episodes, are gathered
            when they are accessed, each time anew: access each of them once, and before another episode is
            added.

        Raises:
            ParameterError: if the count is not positive.
            RuntimeError: if the replay is empty.
        """
        require_positive(count=count)
        if self.sampler.draws == "episodes":
            # The number of rows differs from batch to batch, so that they do not stack.
            return LazyBatches([self._draw(()) for _ in range(count)], self._maker.batch)
        drawn = self._draw((count,))
        if drawn.positions.numel() * self._stacks.window * self._record_bytes > GATHERED_TOGETHER:
            return self._maker.lazy_batches(drawn)
        return self._maker.batches(drawn)

    def _draw(self, lead: tuple[int, ...]) -> BatchIndices:
        """Draw one batch, or several, whose number is then the leading dimension of all shapes."""
        positions, draws = self.sampler.sample(self.storage, lead)
        steps = {name: draws[name] for name in (keys.TRANSITIONS, keys.SUBSEQUENCES) if name in draws}
        others = {name: each for name, each in draws.items() if name not in steps}
        parts = {name: self._facts(draw) for name, draw in steps.items()}
        parts[keys.TRANSITIONS] |= self._flags(steps[keys.TRANSITIONS])
        sizes = {name: draw.step.shape[len(lead) :] for name, draw in steps.items()}
        age = self._age(list(steps.values()), lead) if self._stacks else None
        return BatchIndices(positions, sizes, parts, others, self.episodes.statistics(), age)

    def _age(self, draws: list[StepDraw], lead: tuple[int, ...]) -> Tensor:
        """Find how many steps of its episode were before each step that was drawn, ``[*lead, steps]``."""
        offset = self.episodes.live["offset"]
        found = [before(offset.take(draw.episode), draw.step) for draw in draws]
        return torch.from_numpy(np.concatenate([each.reshape(*lead, -1) for each in found], axis=-1))

    def _facts(self, draw: StepDraw) -> dict[str, Nested]:
        live = self.episodes.live
        return {
            keys.EPISODE_RETURN: torch.from_numpy(live["episode_return"].take(draw.episode)),
            keys.EPISODE_LENGTH: torch.from_numpy(live["length"].take(draw.episode)),
            keys.SUCCESS: torch.from_numpy(live["success"].take(draw.episode)),
            **draw.facts,
        }

    def _flags(self, transitions: StepDraw) -> dict[str, Nested]:
        live = self.episodes.live
        done = transitions.step == live["length"].take(transitions.episode) - 1
        return {
            keys.DONE: torch.from_numpy(done),
            keys.TERMINATED: torch.from_numpy(done & live["terminated"].take(transitions.episode)),
            keys.DEMONSTRATION: torch.from_numpy(live["demonstration"].take(transitions.episode)),
        }

    def _check(self, episode: TensorDictBase) -> int:
        """Return the length of an episode, or raise a `ParameterError` if it is not valid."""
        for key in (keys.OBSERVATION, keys.ACTION, keys.REWARD, keys.EPISODE_RETURN, keys.TERMINATED):
            if key not in episode:
                raise ParameterError("episode", sorted(map(str, episode.keys())), f"lacks {key!r}")
        length, rewards = len(episode.get(keys.ACTION)), len(episode.get(keys.REWARD))
        observations = len(episode.get(keys.OBSERVATION))
        if length == 0 or rewards != length or observations != length + 1:
            raise ParameterError(
                "episode",
                {"observations": observations, "actions": length, "rewards": rewards},
                "an episode of T >= 1 steps has T + 1 observations, T actions and T rewards",
            )
        if length > self.capacity:
            raise ParameterError(
                "capacity", self.capacity, f"must be at least the length of every episode, here {length} steps"
            )
        for key, value in episode.items(include_nested=True, leaves_only=True):
            if value.is_floating_point() and not value.isfinite().all():
                raise ParameterError("episode", key, "holds a number that is not finite")
        return length


def _pad_last(steps: Tensor) -> Tensor:
    """Pad ``[T, ...]`` with zeros to the T + 1 records of an episode."""
    return torch.cat([steps, torch.zeros_like(steps[:1])])
