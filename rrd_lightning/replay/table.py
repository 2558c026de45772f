"""Which episodes lie in the ring, oldest first."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class EpisodeTable:
    """A queue of episodes as columns.

    Rows are appended at the back and leave at the front, so the live rows are one slice of each
    column and drawing from them costs the logarithm of their number. Columns:

    * ``begin``: transitions ever stored before this episode (so it is sorted),
    * ``start``: position of the episode's first record in the ring,
    * ``length``: T, its number of transitions,
    * ``episode_return``: R,
    * ``terminated``: whether its last step ended the task,
    * ``success``: 1 if the task was done, 0 if not, -1 where that is not known.

    Attributes:
        live: the live rows of each column, ``[len(self)]``, as views. They are NumPy's, which works
            on a few rows in half of torch's time.
        transitions: of all live episodes together.
        left: transitions of the episodes that have left.
        appended: episodes that were ever appended; the live ones are the latest of them.
        appended_transitions: their transitions.
    """

    def __init__(self) -> None:
        self._columns: dict[str, NDArray[Any]] = {
            "begin": np.zeros(1024, np.int64),
            "start": np.zeros(1024, np.int64),
            "length": np.zeros(1024, np.int64),
            "episode_return": np.zeros(1024, np.float32),
            "terminated": np.zeros(1024, np.bool_),
            "success": np.zeros(1024, np.int8),
        }
        self._first = 0
        self._last = 0
        self._look()
        self.transitions = 0
        self.left = 0
        self.appended = 0
        self.appended_transitions = 0

    def __len__(self) -> int:
        """The number of episodes."""
        return self._last - self._first

    def __getitem__(self, column: str) -> Tensor:
        """The live rows of a column, ``[len(self)]``, as a view."""
        return torch.from_numpy(self.live[column])

    def append(self, *, start: int, length: int, episode_return: float, terminated: bool, success: int) -> None:
        """Add the newest episode."""
        if self._last == len(self._columns["begin"]):
            self._make_room()
        row = {
            "begin": self.left + self.transitions,
            "start": start,
            "length": length,
            "episode_return": episode_return,
            "terminated": terminated,
            "success": success,
        }
        for name, value in row.items():
            self._columns[name][self._last] = value
        self._last += 1
        self._look()
        self.transitions += length
        self.appended += 1
        self.appended_transitions += length

    def pop_oldest(self) -> int:
        """Remove the oldest episode and return its length."""
        length = int(self._columns["length"][self._first])
        self._first += 1
        self._look()
        self.transitions -= length
        self.left += length
        return length

    def _look(self) -> None:
        self.live = {name: column[self._first : self._last] for name, column in self._columns.items()}

    def _make_room(self) -> None:
        # A copy at most every len(self) appends: constant cost per append.
        rows = max(1024, 2 * len(self))
        for name, live in self.live.items():
            column = np.zeros(rows, live.dtype)
            column[: len(live)] = live
            self._columns[name] = column
        self._first, self._last = 0, self._last - self._first
