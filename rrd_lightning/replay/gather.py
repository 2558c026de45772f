"""What is done for each step of a batch: in C++, or by NumPy and torch where that is not compiled."""

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


def find(begin: Integers, transition: Integers) -> tuple[Integers, Integers]:
    """Find the episode that each transition belongs to, and which step of it it is.

    Args:
        begin: the first transition of each episode, in order.
        transition: of any shape; none is before the first episode.

    Returns:
        Rows of `begin`, and steps, both of the transitions' shape.
    """
    library = library_here()
    if library is None:
        # NumPy searches in this thread. torch would wake others, which takes longer than all the rest.
        episode = begin.searchsorted(transition, side="right") - 1
        return episode, transition - begin.take(episode)
    transition = np.ascontiguousarray(transition, np.int64)
    episode, step = np.empty_like(transition), np.empty_like(transition)
    library.replay_find(
        c_int64(len(begin)), _place(begin), c_int64(transition.size), *map(_place, (transition, episode, step))
    )
    return episode, step


def distinct(length: Integers, uniform: NDArray[np.float64]) -> Integers:
    """Draw distinct steps of episodes, all orders of them as probable, or independent ones if there are fewer.

    Args:
        length: steps of each episode, ``[...]``.
        uniform: numbers in [0, 1), ``[..., size]``.

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
    library.replay_distinct(c_int64(length.size), c_int64(size), *map(_place, arrays))
    return steps


def _place(array: NDArray[Any]) -> c_void_p:
    """Where an array without gaps begins. `array.ctypes` takes six times as long."""
    return c_void_p(array.__array_interface__["data"][0])


def _shuffled(length: int, uniform: list[float]) -> list[int]:
    """The first steps of a shuffle by Fisher and Yates."""
    if length < len(uniform):
        return [int(each * length) for each in uniform]
    moved: dict[int, int] = {}
    steps = []
    for place, each in enumerate(uniform):
        other = place + int(each * (length - place))
        steps.append(moved.get(other, other))
        moved[other] = moved.get(place, place)
    return steps


class _Part(Structure):
    _fields_: ClassVar[Any] = [
        *((name, c_void_p) for name in ("stored", "now", "later")),
        *((name, c_int64) for name in ("record_bytes", "first", "count")),
    ]


class Part(NamedTuple):
    """Some of a batch's steps, and where their records go.

    ``now`` and ``later`` are ``[*lead, *size, ...]``, for the record of each step, and for the one after it if
    that is wanted. Of each batch they take so many steps, from ``first`` on.
    """

    stored: Tensor
    now: Tensor
    later: Tensor | None
    first: int
    steps: int


def gather(parts: Sequence[Part], positions: Tensor, records: int) -> None:
    """Copy records out of a ring.

    Args:
        parts: what to copy, and where.
        positions: of the steps of each batch, ``[*lead, steps]``.
        records: that the ring has room for.

    Raises:
        IndexError: if there is no record at a position, or none after it, or if there are too few positions.
    """
    steps = positions.shape[-1]
    if steps < max(part.first + part.steps for part in parts):
        raise IndexError(f"{steps} positions were drawn for a batch, fewer than its steps")
    library = library_here()
    if library is None or not all(part.stored.is_contiguous() for part in parts):
        for part in parts:
            rows = positions[..., part.first : part.first + part.steps].reshape(-1)
            for target, wanted in ((part.now, rows), (part.later, (rows + 1).remainder_(records))):
                if target is not None:
                    target.copy_(part.stored.index_select(0, wanted).view(target.shape))
        return
    described = [
        _Part(
            part.stored.data_ptr(),
            part.now.data_ptr(),
            None if part.later is None else part.later.data_ptr(),
            prod(part.stored.shape[1:]) * part.stored.element_size(),
            part.first,
            part.steps,
        )
        for part in parts
    ]
    positions = positions.to(torch.int64).contiguous()
    done = library.replay_gather(
        len(parts),
        (_Part * len(parts))(*described),
        c_int64(positions.numel() // steps),
        c_int64(steps),
        c_void_p(positions.data_ptr()),
        c_int64(records),
        c_int64(len(parts[0].stored)),
    )
    if not done:
        raise IndexError("a position that was drawn is outside of the records that the replay holds")
