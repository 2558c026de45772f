"""A pool of memory for batches, which reuses a block as soon as no tensor refers to it."""

from __future__ import annotations

import weakref
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT = 64
FREE_BLOCKS = 3  # kept of each size: in training one batch is in use while the next is written


class MemoryPool:
    """Lends blocks of memory as tensors of bytes.

    For large allocations the operating system hands out new pages each time, and the page faults take
    longer than the copy of a batch. A block returns to the pool when the last tensor that views it is
    gone. Its size is rounded up to a power of two, so that batches of varying size share few sizes; the
    unused pages at its end are never touched and take no memory.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[NDArray[Any]]] = defaultdict(list)

    def take(self, size: int) -> Tensor:
        """Return ``[size]`` uninitialised bytes; the size must be positive."""
        rounded = 1 << (size - 1).bit_length()
        free = self._free[rounded]
        try:
            block = free.pop()
        except IndexError:
            block = _aligned(rounded)
        lent = block[:size]  # the tensor, and each view of it, keeps this array alive
        weakref.finalize(lent, _reclaim, free, block).atexit = False
        return torch.from_numpy(lent)


def _reclaim(free: list[NDArray[Any]], block: NDArray[Any]) -> None:
    if len(free) < FREE_BLOCKS:
        free.append(block)


def _aligned(size: int) -> NDArray[Any]:
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.__array_interface__["data"][0] % ALIGNMENT
    return room[start : start + size]
