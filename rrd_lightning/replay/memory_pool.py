"""Memory for batches that is used again when nobody has the batch any longer."""

from __future__ import annotations

import weakref
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT = 64
KEPT = 3  # free blocks of a size: as in training, where one is in use and one is written


class MemoryPool:
    """Pieces of memory, lent as tensors of bytes.

    For large pieces the system hands out new pages each time, and writing to those takes longer than the copy
    of a batch. A piece comes back when the last tensor that shows some of it is gone.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[NDArray[Any]]] = defaultdict(list)

    def take(self, size: int) -> Tensor:
        """Return ``[size]`` bytes of any content."""
        free = self._free[size]
        try:
            block = free.pop()
        except IndexError:
            block = _aligned(size)
        lent = block[:]  # the tensor, and each view of it, keeps this array alive
        weakref.finalize(lent, _reclaim, free, block).atexit = False
        return torch.from_numpy(lent)


def _reclaim(free: list[NDArray[Any]], block: NDArray[Any]) -> None:
    if len(free) < KEPT:
        free.append(block)


def _aligned(size: int) -> NDArray[Any]:
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.__array_interface__["data"][0] % ALIGNMENT
    return room[start : start + size]
