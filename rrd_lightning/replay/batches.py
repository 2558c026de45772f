"""Paired batches, gathered from what was drawn for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple, TypeAlias, overload

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.private import unchecked_tensordict
from rrd_lightning.replay.gather import Copy, gather
from rrd_lightning.replay.memory_pool import MemoryPool

Nested: TypeAlias = Tensor | TensorDictBase
Shape: TypeAlias = tuple[int, ...]
RECORDED = (keys.OBSERVATION, keys.ACTION, keys.REWARD)
LARGE = 2**16  # bytes; from about this size on the pool is faster than the allocator


class BatchIndices(NamedTuple):
    """What one batch, or several, are gathered from.

    Shapes begin with the leading dimensions ``lead``: ``()`` for one batch, ``(batches,)`` for several.

    Attributes:
        positions: ring positions of all steps, ``[*lead, steps]``.
        sizes: shapes of the steps of transitions and subsequences, such as ``(batch_size,)`` and
            ``(num_subsequences, rrd_sample_size)``, in the order of their positions.
        parts: transitions and subsequences, without what is to be gathered from the ring.
        others: what else a sampler adds to the batch.
        statistics: of the stored episodes, ``[]`` each, the same for all batches.
        age: steps of its episode before each step, ``[*lead, steps]``; None where no frames are stacked.
    """

    positions: Tensor
    sizes: dict[str, Shape]
    parts: dict[str, dict[str, Nested]]
    others: dict[str, Nested]
    statistics: dict[str, Tensor]
    age: Tensor | None = None

    def unbind(self) -> list[BatchIndices]:
        """Split the indices of several batches into those of each."""
        positions = self.positions.unbind(0)
        parts = zip(*(_unbind(part, len(positions)) for part in self.parts.values()), strict=True)
        others = _unbind(self.others, len(positions))
        ages = [None] * len(positions) if self.age is None else self.age.unbind(0)
        return [
            self._replace(
                positions=position, parts=dict(zip(self.parts, part, strict=True)), others=other, age=age
            )
            for position, part, other, age in zip(positions, parts, others, ages, strict=True)
        ]


class Stacks:
    """How many frames the observations in a batch have.

    Args:
        counts: of each part, as `rrd_lightning.frames.stack_counts` returns them.

    Attributes:
        counts: as given.
        window: the most frames of a step, together with those of the next observation.
    """

    def __init__(self, counts: Any) -> None:
        self.counts = counts
        self.window = 1 + _largest(counts)

    def __bool__(self) -> bool:
        """Whether there are stacks."""
        return self.window > 2

    @staticmethod
    def positions(drawn: BatchIndices, count: int, records: int) -> Tensor:
        """Find the frames of steps and of the observations after them, the latest ``count + 1``.

        Before its episode's start, the first frame is repeated.

        Returns:
            Ring positions, ``[*lead, steps * (count + 1)]``.
        """
        assert drawn.age is not None
        back = torch.arange(count, -1, -1).minimum(drawn.age[..., None] + 1)
        return (drawn.positions[..., None] + 1 - back).remainder_(records).flatten(-2)


class BatchMaker:
    """Gathers batches from the ring.

    Args:
        stored: the ring's tensors ``[records, ...]``, as nested dictionaries.
        records: the ring's size.
        pool: memory for large tensors.
        stacks: the stacks of frames in a batch.
    """

    def __init__(self, stored: dict[str, Any], records: int, pool: MemoryPool, stacks: Stacks) -> None:
        self._stored = stored
        self._records = records
        self._pool = pool
        self._stacks = stacks

    def batch(self, drawn: BatchIndices, names: Sequence[str] = RECORDED) -> TensorDict:
        """Gather one batch.

        Args:
            drawn: its indices.
            names: which parts of its records are not gathered yet; all by default.
        """
        return _assemble(self.gather(drawn, names))

    def batches(self, drawn: BatchIndices) -> list[TensorDict]:
        """Gather several batches at once."""
        return [_assemble(each) for each in self.gather(drawn, RECORDED).unbind()]

    def lazy_batches(self, drawn: BatchIndices) -> LazyBatches:
        """Gather the actions and rewards of several batches at once, and the observations of each on access."""
        gathered = self.gather(drawn, (keys.ACTION, keys.REWARD)).unbind()
        return LazyBatches(gathered, lambda each: self.batch(each, (keys.OBSERVATION,)))

    def gather(self, drawn: BatchIndices, names: Sequence[str]) -> BatchIndices:
        """Add some of the records of all steps to the parts, ``[*lead, *size, ...]`` each.

        Args:
            drawn: the indices.
            names: ``observation``, which adds ``next_observation`` too; ``action``; and ``reward``, the true
                one, which the transitions alone get.
        """
        targets = _Targets(drawn, self._pool)
        parts = {name: dict(part) for name, part in drawn.parts.items()}
        for name in names:
            if name == keys.REWARD:
                parts[keys.TRANSITIONS][name] = targets.rewards(self._stored[name])
                continue
            with_next = name == keys.OBSERVATION
            counts = self._stacks.counts if with_next else 1
            found = targets.add(self._stored[name], counts, with_next=with_next)
            for part, records, next_records in zip(parts.values(), *found, strict=True):
                part[name] = records
                if with_next:
                    part[keys.NEXT_OBSERVATION] = next_records
        for count, copies in targets.copies.items():
            positions = drawn.positions if count == 1 else self._stacks.positions(drawn, count, self._records)
            gather(copies, positions, self._records)
        return drawn._replace(parts=parts)


class LazyBatches(Sequence[TensorDict]):
    """Batches that were drawn together, each of which is gathered when it is accessed.

    Args:
        drawn: what each batch is made from. When Lightning converts batches to another precision it
            passes a list of batches instead.
        make: makes a batch.
    """

    def __init__(self, drawn: Sequence[Any], make: Callable[[Any], TensorDict] = lambda made: made) -> None:
        self._drawn = drawn
        self._make = make

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._drawn)

    @overload
    def __getitem__(self, index: int) -> TensorDict: ...

    @overload
    def __getitem__(self, index: slice) -> LazyBatches: ...

    def __getitem__(self, index: int | slice) -> TensorDict | LazyBatches:
        """Gather a batch."""
        if isinstance(index, slice):
            return LazyBatches(self._drawn[index], self._make)
        return self._make(self._drawn[index])

    def to(self, device: torch.device) -> LazyBatches:
        """Move each batch to a device once it is gathered."""
        return LazyBatches(self._drawn, lambda each: self._make(each).to(device))


class _Targets:
    """Allocates the tensors that records are copied to.

    Args:
        drawn: the indices, for their shapes.
        pool: memory for large tensors.

    Attributes:
        copies: the copies that fill them, by the number of frames in an observation.
    """

    def __init__(self, drawn: BatchIndices, pool: MemoryPool) -> None:
        self.copies: dict[int, list[Copy]] = defaultdict(list)
        self._sizes = list(drawn.sizes.values())
        self._lead = tuple(drawn.positions.shape[:-1])
        self._pool = pool

    def add(self, stored: Any, counts: Any, *, with_next: bool) -> tuple[list[Any], list[Any]]:
        """Allocate the records ``[*lead, *size, ...]`` of the steps of each part.

        Args:
            stored: one entry of the ring, a tensor or a dictionary of them.
            counts: how many frames it has in a batch, or a dictionary of such numbers.
            with_next: allocate the record after each step, too.

        Returns:
            The records of each part, and those after them.
        """
        shapes = [(*self._lead, *size) for size in self._sizes]
        if isinstance(stored, dict):
            of_key = counts if isinstance(counts, dict) else dict.fromkeys(stored, counts)
            found = {key: self.add(value, of_key[key], with_next=with_next) for key, value in stored.items()}
            records, next_records = (
                [
                    unchecked_tensordict({key: pair[which][part] for key, pair in found.items()}, shape)
                    for part, shape in enumerate(shapes)
                ]
                for which in (0, 1)
            )
            return records, next_records
        if counts > 1:
            return self._add_stacks(stored, counts)
        targets = self._allocate(shapes * (1 + with_next), stored)
        records, next_records = targets[: len(shapes)], targets[-len(shapes) :]
        first = 0
        for size, target, next_target in zip(self._sizes, records, next_records, strict=True):
            steps = prod(size)
            self.copies[1].append(Copy(stored, target, next_target if with_next else None, first, steps))
            first += steps
        return records, next_records

    def _add_stacks(self, stored: Tensor, count: int) -> tuple[list[Tensor], list[Tensor]]:
        """Allocate the stacks of each step and of the observation after it, which share all frames but one."""
        shapes = [(*self._lead, *size, count + 1) for size in self._sizes]
        windows, first = self._allocate(shapes, stored), 0
        for shape, window in zip(shapes, windows, strict=True):
            frames = prod(shape[len(self._lead) :])
            self.copies[count].append(Copy(stored, window, None, first, frames))
            first += frames
        axes = [len(shape) - 1 for shape in shapes]
        now, later = (
            [window.narrow(axis, start, count) for axis, window in zip(axes, windows, strict=True)]
            for start in (0, 1)
        )
        return now, later

    def rewards(self, stored: Tensor) -> Tensor:
        """Allocate the true rewards of the transitions, whose steps come first."""
        size = self._sizes[0]
        target = torch.empty(*self._lead, *size, dtype=stored.dtype)
        self.copies[1].append(Copy(stored, target, None, 0, prod(size)))
        return target

    def _allocate(self, shapes: list[Shape], stored: Tensor) -> list[Tensor]:
        of_record = stored.shape[1:]
        counts = [prod(shape) for shape in shapes]
        size = sum(counts) * prod(of_record) * stored.element_size()
        if size < LARGE:
            return [torch.empty((*shape, *of_record), dtype=stored.dtype) for shape in shapes]
        # One block of the pool for all of them.
        rows = self._pool.take(size).view(stored.dtype).view(-1, *of_record).split_with_sizes(counts)
        return [each.view(*shape, *of_record) for each, shape in zip(rows, shapes, strict=True)]


def _assemble(gathered: BatchIndices) -> TensorDict:
    """Make one batch of indices whose records have been gathered."""
    # The steps of a subsequence are no batch dimension: its return and length have none.
    parts = {
        name: unchecked_tensordict(part, gathered.sizes[name][:1]) for name, part in gathered.parts.items()
    }
    parts[keys.STATISTICS] = unchecked_tensordict(gathered.statistics, ())
    return unchecked_tensordict({**parts, **gathered.others}, ())


def _unbind(part: dict[str, Nested], count: int) -> list[dict[str, Nested]]:
    if not part:
        return [{}] * count
    rows = zip(*(each.unbind(0) for each in part.values()), strict=True)
    return [dict(zip(part, row, strict=True)) for row in rows]


def _largest(counts: Any) -> int:
    return max(map(_largest, counts.values())) if isinstance(counts, dict) else int(counts)
