"""Paired batches, from what was drawn for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias, overload

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.replay.gather import Part, gather
from rrd_lightning.replay.memory_pool import MemoryPool

Nested: TypeAlias = Tensor | TensorDictBase
RECORDED = (keys.OBSERVATION, keys.ACTION, keys.REWARD)
LARGE = 2**16  # bytes, from which on the system may take memory back in between


@dataclass(frozen=True, slots=True)
class BatchIndices:
    """What a batch is made of, or several batches, whose number then stands in front of all shapes.

    Attributes:
        positions: of the transitions' records in the ring, and then of the subsequences'.
        sizes: how many of each, ``(batch_size,)`` and ``(num_subsequences, rrd_sample_size)``.
        transitions: what belongs to them beside their records.
        subsequences: the same.
        others: what else is in the batch.
    """

    positions: Tensor
    sizes: tuple[tuple[int, ...], ...]
    transitions: dict[str, Nested]
    subsequences: dict[str, Nested]
    others: dict[str, Nested]

    def unbind(self) -> Callable[[int], BatchIndices]:
        """Take several apart: return what gives the one at a place."""
        positions = self.positions.unbind(0)
        parts = [
            {key: each.unbind(0) for key, each in part.items()}
            for part in (self.transitions, self.subsequences, self.others)
        ]

        def one(place: int) -> BatchIndices:
            return BatchIndices(
                positions[place],
                self.sizes,
                *({key: each[place] for key, each in part.items()} for part in parts),
            )

        return one


class BatchMaker:
    """Gathers the records of what was drawn.

    Args:
        stored: the ring, as plain nested tensors.
        records: that it has room for.
        blocks: memory for what is large.
    """

    def __init__(self, stored: dict[str, Any], records: int, blocks: MemoryPool) -> None:
        self._stored = stored
        self._records = records
        self._blocks = blocks

    def batch(self, drawn: BatchIndices, names: Sequence[str] = RECORDED) -> TensorDict:
        """Make one batch, or one TensorDict of several.

        Args:
            drawn: what it is made of.
            names: what is to be gathered of each record; all by default.
        """
        lead = tuple(drawn.positions.shape[:-1])
        drawn = self.gather(drawn, names)
        parts = {
            keys.TRANSITIONS: _tensordict(drawn.transitions, (*lead, *drawn.sizes[0])),
            keys.SUBSEQUENCES: _tensordict(drawn.subsequences, (*lead, *drawn.sizes[1][:1])),
        }
        return _tensordict({**drawn.others, **parts}, lead)

    def later(self, drawn: BatchIndices) -> LazyBatches:
        """Gather actions and rewards of several batches, and observations when a batch is asked for."""
        one = self.gather(drawn, (keys.ACTION, keys.REWARD)).unbind()
        places = range(len(drawn.positions))
        return LazyBatches(places, lambda place: self.batch(one(place), (keys.OBSERVATION,)))

    def gather(self, drawn: BatchIndices, names: Sequence[str]) -> BatchIndices:
        """Add some of what there is of each step, ``[*lead, *size, ...]``: s and s', a, the true reward."""
        records = _Records(tuple(drawn.positions.shape[:-1]), drawn.sizes, self._blocks)
        first, second = dict(drawn.transitions), dict(drawn.subsequences)
        for name in names:
            if name == keys.REWARD:
                first[name] = records.rewards(self._stored[name])
                continue
            both = name == keys.OBSERVATION
            now, later = records.take(self._stored[name], both=both)
            first[name], second[name] = now
            if both:
                first[keys.NEXT_OBSERVATION], second[keys.NEXT_OBSERVATION] = later
        gather(records.parts, drawn.positions, self._records)
        return replace(drawn, transitions=first, subsequences=second)


class LazyBatches(Sequence[TensorDict]):
    """Batches that were drawn together, and are made when they are asked for.

    Args:
        places: of the batches; or the batches, with which Lightning makes one of this class after it has
            converted each to another precision.
        make: makes the one at a place.
    """

    def __init__(self, places: Sequence[Any], make: Callable[[Any], TensorDict] = lambda made: made) -> None:
        self._places = places
        self._make = make

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> TensorDict: ...

    @overload
    def __getitem__(self, place: slice) -> LazyBatches: ...

    def __getitem__(self, place: int | slice) -> TensorDict | LazyBatches:
        """Make a batch."""
        if isinstance(place, slice):
            return LazyBatches(self._places[place], self._make)
        return self._make(self._places[place])

    def to(self, device: torch.device) -> LazyBatches:
        """Make batches on a device."""
        return LazyBatches(self._places, lambda place: self._make(place).to(device))


class _Records:
    """What is to be gathered, and where it goes.

    Args:
        lead: ``()`` for one batch, ``(batches,)`` for several.
        sizes: of the transitions and of the subsequences of each.
        blocks: memory for what is large.

    Attributes:
        parts: of each leaf, for `gather`.
    """

    def __init__(self, lead: tuple[int, ...], sizes: tuple[tuple[int, ...], ...], blocks: MemoryPool) -> None:
        self.parts: list[Part] = []
        self._blocks = blocks
        self._lead = lead
        self._sizes = sizes

    def take(self, stored: Any, *, both: bool = False) -> tuple[list[Any], list[Any]]:
        """Make room for the records ``[*lead, *size, ...]`` of all steps.

        Args:
            stored: one part of the ring.
            both: for the records after them, too.

        Returns:
            The records of the transitions and of the subsequences, and those after them.
        """
        if isinstance(stored, dict):
            found = {key: self.take(value, both=both) for key, value in stored.items()}
            now, later = (
                [
                    _tensordict({key: pair[half][place] for key, pair in found.items()}, (*self._lead, *size))
                    for place, size in enumerate(self._sizes)
                ]
                for half in (0, int(both))
            )
            return now, later
        shapes = [(*self._lead, *size) for size in self._sizes] * (1 + both)
        counts = [prod(shape) for shape in shapes]
        room = self._room(sum(counts), stored).split_with_sizes(counts)
        views = [rows.view(*shape, *stored.shape[1:]) for rows, shape in zip(room, shapes, strict=True)]
        first = 0
        for place, size in enumerate(self._sizes):
            steps = prod(size)
            self.parts.append(Part(stored, views[place], views[place + 2] if both else None, first, steps))
            first += steps
        return views[:2], views[-2:]

    def _room(self, rows: int, stored: Tensor) -> Tensor:
        numbers = rows * prod(stored.shape[1:])
        size = numbers * stored.element_size()
        if size < LARGE:
            return torch.empty(rows, *stored.shape[1:], dtype=stored.dtype)
        return self._blocks.take(size).view(stored.dtype).view(rows, *stored.shape[1:])

    def rewards(self, stored: Tensor) -> Tensor:
        """Make room for the transitions' true rewards."""
        size = self._sizes[0]
        rows = torch.empty(*self._lead, *size, dtype=stored.dtype)
        self.parts.append(Part(stored, rows, None, 0, prod(size)))
        return rows


def _tensordict(parts: dict[str, Nested], shape: tuple[int, ...]) -> TensorDict:
    """Make a TensorDict of parts that fit, without the check of each: 2 µs instead of 14."""
    return TensorDict._new_unsafe(parts, torch.Size(shape))
