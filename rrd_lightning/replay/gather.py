"""The work per step of a batch: in C++, or in NumPy and torch where there is no compiler."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Structure, c_int64, c_void_p
from math import prod
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrd_lightning.kernels import library_here

Integers: TypeAlias = NDArray[np.int64]


def locate(begin: Integers, transition: Integers) -> tuple[Integers, Integers]:
    """Find the episode of each transition, and its step within that episode.

    Args:
        begin: number of the first transition of each episode, sorted.
        transition: numbers of transitions, of any shape; none is before the first episode.

    Returns:
        Rows of `begin`, and steps, both of the shape of `transition`.
    """
    library = library_here()
    if library is None:
        # NumPy searches in this thread; waking torch's threads would take longer than the search.
        episode = begin.searchsorted(transition, side="right") - 1
        return episode, transition - begin.take(episode)
    transition = np.ascontiguousarray(transition, np.int64)
    episode, step = np.empty_like(transition), np.empty_like(transition)
    library.replay_find(
        c_int64(len(begin)),
        _pointer(begin),
        c_int64(transition.size),
        *map(_pointer, (transition, episode, step)),
    )
    return episode, step


def distinct_steps(length: Integers, uniform: NDArray[np.float64]) -> Integers:
    """Draw steps of each episode without replacement, or with, from an episode of fewer than ``size`` steps.

    Args:
        length: steps of each episode, ``[...]``.
        uniform: uniform random numbers in [0, 1), ``[..., size]``.

    Returns:
        The steps, ``[..., size]``.
    """
    steps = np.empty(uniform.shape, np.int64)
    size = uniform.shape[-1]
    library = library_here()
    if library is None:
        for episode, (row, numbers) in enumerate(
            zip(length.ravel().tolist(), uniform.reshape(-1, size).tolist(), strict=True)
        ):
            steps.reshape(-1, size)[episode] = _shuffled(row, numbers)
        return steps
    arrays = np.ascontiguousarray(length, np.int64), np.ascontiguousarray(uniform), steps
    library.replay_distinct(c_int64(length.size), c_int64(size), *map(_pointer, arrays))
    return steps


def _pointer(array: NDArray[Any]) -> c_void_p:
    """Return the pointer to a contiguous array's data, six times as fast as `array.ctypes`."""
    return c_void_p(array.__array_interface__["data"][0])


def _shuffled(length: int, uniform: list[float]) -> list[int]:
    """Return the first steps of a Fisher-Yates shuffle."""
    if length < len(uniform):
        return [int(each * length) for each in uniform]
    swapped: dict[int, int] = {}  # the shuffled array, where it differs from 0, 1, 2, ...
    steps = []
    for index, each in enumerate(uniform):
        other = index + int(each * (length - index))
        steps.append(swapped.get(other, other))
        swapped[other] = swapped.get(index, index)
    return steps


class Copy(NamedTuple):
    """Records to be copied out of one leaf of the ring, for some of the steps of each batch.

    Attributes:
        stored: the leaf, ``[records, ...]``.
        target: where the record of each step goes, ``[*lead, *size, ...]``.
        next_target: where the record after it goes, of the same shape, if that is wanted.
        first: first of the steps, among the positions of a batch.
        steps: their number, the product of ``size``.
    """

    stored: Tensor
    target: Tensor
    next_target: Tensor | None
    first: int
    steps: int


class _Part(Structure):
    """`Copy`, as the C++ function takes it."""

    _fields_: ClassVar[Any] = [
        *((name, c_void_p) for name in ("stored", "target", "next_target")),
        *((name, c_int64) for name in ("record_bytes", "first", "steps")),
    ]


def gather(copies: Sequence[Copy], positions: Tensor, records: int) -> None:
    """Copy records out of a ring.

    Args:
        copies: what to copy, and where.
        positions: ring positions of the steps of each batch, ``[*lead, steps]``.
        records: the ring's size.

    Raises:
        IndexError: if there is no record at a position, or none after it, or if there are too few positions.
    """
    steps = positions.shape[-1]
    if steps < max(copy.first + copy.steps for copy in copies):
        raise IndexError(f"{steps} positions were drawn for a batch, fewer than its steps")
    library = library_here()
    if library is None or not all(copy.stored.is_contiguous() for copy in copies):
        _gather_with_torch(copies, positions, records)
        return
    parts = [
        _Part(
            copy.stored.data_ptr(),
            copy.target.data_ptr(),
            None if copy.next_target is None else copy.next_target.data_ptr(),
            prod(copy.stored.shape[1:]) * copy.stored.element_size(),
            copy.first,
            copy.steps,
        )
        for copy in copies
    ]
    positions = positions.to(torch.int64).contiguous()
    done = library.replay_gather(
        len(parts),
        (_Part * len(parts))(*parts),
        c_int64(positions.numel() // steps),
        c_int64(steps),
        c_void_p(positions.data_ptr()),
        c_int64(records),
        c_int64(len(copies[0].stored)),
    )
    if not done:
        raise IndexError("a position that was drawn is outside of the records that the replay holds")


def _gather_with_torch(copies: Sequence[Copy], positions: Tensor, records: int) -> None:
    for copy in copies:
        rows = positions[..., copy.first : copy.first + copy.steps].reshape(-1)
        for target, wanted in ((copy.target, rows), (copy.next_target, (rows + 1).remainder_(records))):
            if target is not None:
                target.copy_(copy.stored.index_select(0, wanted).view(target.shape))
