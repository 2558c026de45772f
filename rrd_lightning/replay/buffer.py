"""The episode replay: a TorchRL buffer that admits finished episodes and yields paired batches."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import LazyMemmapStorage, LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers.writers import RoundRobinWriter

from rrd_lightning import keys
from rrd_lightning.errors import ParameterError, require_positive
from rrd_lightning.replay.batches import BatchIndices, BatchMaker, Nested
from rrd_lightning.replay.gather import Integers
from rrd_lightning.replay.memory_pool import MemoryPool
from rrd_lightning.replay.sampler import PairedSampler, StepDraw

# What a sampler must draw; any other tensor `[*lead, ...]` that it adds is passed on in the batch.
OWN_DRAWS = {"transitions", "subsequences", "with_replacement"}

# Bytes of all steps, with both observations of each. For a larger piece of memory the system hands out new
# pages each time, which takes longer than the copy.
GATHERED_TOGETHER = 2**25


def ring_size(capacity: int) -> int:
    """Records that hold `capacity` transitions: each episode takes one more, its last observation.

    A twentieth on top is room for episodes of 20 steps in the mean; shorter ones leave the ring a
    little earlier than the capacity alone asks. Small rings have room for any length.
    """
    return capacity + min(capacity, max(64, capacity // 20))


class EpisodeReplay(TensorDictReplayBuffer):
    """A ring of finished episodes in which each observation is stored once.

    An episode of T steps takes T + 1 records of (observation, action, true reward) in a row: the
    next observation of step t is the observation of record t + 1, and the last record holds an
    observation alone. `add_episode` is the only way in, `sample` draws a paired batch. When the
    ring is full the oldest whole episodes leave.

    Args:
        capacity: transitions that the replay holds at most.
        sampler: draws the steps of each batch.
        storage: ``"memory"``, or ``"memmap"`` for files on disk.
        scratch_dir: where the files' temporary folder is made; the system's place by default.

    Raises:
        ParameterError: if the capacity or the storage is not valid.
    """

    def __init__(
        self,
        capacity: int,
        sampler: PairedSampler,
        storage: str = "memory",
        scratch_dir: str | None = None,
    ) -> None:
        require_positive(capacity=capacity)
        if storage not in {"memory", "memmap"}:
            raise ParameterError("storage", storage, "must be 'memory' or 'memmap'")
        records = ring_size(capacity)
        if storage == "memmap":
            if scratch_dir is not None:
                Path(scratch_dir).mkdir(parents=True, exist_ok=True)
            # A folder of its own, which goes when the replay goes.
            own_folder = mkdtemp(prefix="replay-", dir=scratch_dir)
            weakref.finalize(self, shutil.rmtree, own_folder, ignore_errors=True)
        super().__init__(
            storage=LazyTensorStorage(records)
            if storage == "memory"
            else LazyMemmapStorage(records, scratch_dir=own_folder),
            sampler=sampler,
            # TorchRL's default writer would store an index beside every record.
            writer=RoundRobinWriter(),
            batch_size=sampler.batch_size,
        )
        self.capacity = capacity
        self.episodes = sampler.table
        self._paired_sampler = sampler
        self._records = records
        self._used_records = 0
        self._next_record = 0
        self._record_bytes = 0
        self._stored: TensorDictBase = TensorDict({}, [])
        self._blocks = MemoryPool()
        self._maker = BatchMaker({}, records, self._blocks)

    def __len__(self) -> int:
        """The number of stored transitions."""
        return self.episodes.transitions

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse what would let a batch see an unfinished episode, or lose track of the episodes."""
        raise TypeError(
            "the replay admits finished episodes only, through add_episode; "
            "rrd_lightning.checkpoint.replay writes and reads it"
        )

    add = extend = empty = state_dict = load_state_dict = dumps = loads = _refuse

    def add_episode(self, episode: TensorDictBase) -> None:
        """Store a finished episode, in place of the oldest ones where there is no room.

        Args:
            episode: ``observation`` ``[T + 1, ...]``, ``action`` ``[T, ...]``, ``reward`` ``[T]``
                (the true ones), ``episode_return`` and ``terminated`` ``[]``, and ``success`` ``[]`` where
                it is known.

        Raises:
            ParameterError: if the episode has no step, is longer than the capacity, has parts of
                different lengths, or holds a number that is not finite.
        """
        length = self._check(episode)
        while len(self) + length > self.capacity:
            self._drop_oldest()
        records = TensorDict(
            {
                keys.OBSERVATION: episode.get(keys.OBSERVATION),
                keys.ACTION: _one_more(episode.get(keys.ACTION)),
                keys.REWARD: _one_more(episode.get(keys.REWARD)),
            },
            [length + 1],
        )
        self.add_episodes(
            records,
            length=torch.tensor([length]),
            episode_return=episode.get(keys.EPISODE_RETURN)[None],
            terminated=episode.get(keys.TERMINATED)[None],
            success=torch.tensor([int(episode.get(keys.SUCCESS)) if keys.SUCCESS in episode else -1]),
        )

    def add_episodes(
        self,
        records: TensorDictBase,
        *,
        length: Tensor,
        episode_return: Tensor,
        terminated: Tensor,
        success: Tensor,
    ) -> None:
        """Store the records of one or several valid episodes, as `records` returns them.

        They may exceed the capacity by what the ring has room for, until the next `add_episode`.

        Args:
            records: ``[sum of (T + 1)]``, observations, actions and true rewards.
            length: ``[episodes]``, T.
            episode_return: ``[episodes]``, R.
            terminated: ``[episodes]``.
            success: ``[episodes]``: 1, 0, or -1 where it is not known.
        """
        if len(records) > self._records:
            raise ParameterError(
                "capacity",
                self.capacity,
                f"is less than the {int(length.sum())} transitions to be stored at once",
            )
        while self._used_records + len(records) > self._records:
            self._drop_oldest()
        super().extend(records.contiguous())  # the ring has the layout of the first records
        self._stored = self.storage[:]
        self._maker = BatchMaker(self._stored.to_dict(), self._records, self._blocks)
        self._record_bytes = int(self._stored[:1].bytes())
        facts = zip(
            length.tolist(), episode_return.tolist(), terminated.tolist(), success.tolist(), strict=True
        )
        for steps, feedback, ended, done in facts:
            self.episodes.append(
                start=self._next_record,
                length=steps,
                episode_return=feedback,
                terminated=ended,
                success=done,
            )
            self._used_records += steps + 1
            self._next_record = (self._next_record + steps + 1) % self._records

    def _drop_oldest(self) -> None:
        self._used_records -= self.episodes.pop_oldest() + 1

    @property
    def record_bytes(self) -> int:
        """Bytes of a stored step; zero while nothing is stored."""
        return self._record_bytes if len(self.episodes) else 0

    def records(self, start: Tensor, length: Tensor) -> dict[str, Any]:
        """Copy the records of episodes, one after another, as plain nested tensors.

        Args:
            start: ``[episodes]``, the ring position of each episode's first record.
            length: ``[episodes]``, T.
        """
        counts = length + 1
        first = torch.repeat_interleave(start - (counts.cumsum(0) - counts), counts)
        index = (first + torch.arange(len(first))).remainder_(self._records)
        copied: dict[str, Any] = self._stored[index].to_dict()
        return copied

    def sample(self, *args: Any, **kwargs: Any) -> TensorDict:
        """Draw a paired batch.

        Returns:
            ``transitions`` of batch size ``[batch_size]`` and ``subsequences`` of batch size
            ``[num_subsequences]`` whose steps are the second dimension of observation, action and
            next observation, with the keys of `rrd_lightning.keys`. Nothing of it lies in the replay;
            its tensors share pieces of memory, so clone what is to be kept for long.
        """
        return self._maker.batch(self._draw(()))

    def sample_several(self, count: int) -> Sequence[TensorDict]:
        """Draw the batches of as many calls of `sample`, in less time.

        Args:
            count: how many batches.

        Returns:
            The batches, the same to the last bit. Large ones are gathered when they are asked for, each time
            anew: take each of them once, and before another episode comes in.

        Raises:
            ParameterError: if the count is not positive.
        """
        require_positive(count=count)
        drawn = self._draw((count,))
        if 2 * drawn.positions.numel() * self._record_bytes > GATHERED_TOGETHER:
            return self._maker.later(drawn)
        return list(self._maker.batch(drawn).unbind(0))

    def _draw(self, lead: tuple[int, ...]) -> BatchIndices:
        positions, draws = self._paired_sampler.sample(self.storage, lead)
        transitions, subsequences = draws["transitions"], draws["subsequences"]
        return BatchIndices(
            positions,
            tuple(each.step.shape[len(lead) :] for each in (transitions, subsequences)),
            {**self._facts(transitions.episode), **self._flags(transitions)},
            {**self._facts(subsequences.episode), keys.WITH_REPLACEMENT: draws["with_replacement"]},
            {key: value for key, value in draws.items() if key not in OWN_DRAWS},
        )

    def _facts(self, episode: Integers) -> dict[str, Nested]:
        live = self.episodes.live
        return {
            keys.EPISODE_RETURN: torch.from_numpy(live["episode_return"].take(episode)),
            keys.EPISODE_LENGTH: torch.from_numpy(live["length"].take(episode)),
        }

    def _flags(self, transitions: StepDraw) -> dict[str, Nested]:
        live = self.episodes.live
        done = transitions.step == live["length"].take(transitions.episode) - 1
        return {
            keys.DONE: torch.from_numpy(done),
            keys.TERMINATED: torch.from_numpy(done & live["terminated"].take(transitions.episode)),
        }

    def _check(self, episode: TensorDictBase) -> int:
        """Return the length of a valid episode."""
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


def _one_more(steps: Tensor) -> Tensor:
    """Lengthen ``[T, ...]`` to the T + 1 records of an episode."""
    return torch.cat([steps, torch.zeros_like(steps[:1])])
