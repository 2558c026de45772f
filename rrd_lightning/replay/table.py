"""Which episodes lie in the ring, oldest first."""

from __future__ import annotations

import torch
from torch import Tensor


class EpisodeTable:
    """A queue of episodes as columns of tensors.

    Rows are appended at the back and leave at the front, so the live rows are one slice of each
    column and drawing from them costs the logarithm of their number. Columns:

    * ``end``: transitions ever stored up to and including this episode (so it is sorted),
    * ``start``: position of the episode's first record in the ring,
    * ``length``: T, its number of transitions,
    * ``episode_return``: R,
    * ``terminated``: whether its last step ended the task,
    * ``success``: 1 if the task was done, 0 if not, -1 where that is not known.

    Attributes:
        transitions: of all live episodes together.
        appended: episodes that were ever appended; the live ones are the latest of them.
        appended_transitions: their transitions.
    """

    def __init__(self) -> None:
        self._columns = {
            "end": torch.zeros(1024, dtype=torch.int64),
            "start": torch.zeros(1024, dtype=torch.int64),
            "length": torch.zeros(1024, dtype=torch.int64),
            "episode_return": torch.zeros(1024, dtype=torch.float32),
            "terminated": torch.zeros(1024, dtype=torch.bool),
            "success": torch.zeros(1024, dtype=torch.int8),
        }
        self._first = 0
        self._last = 0
        self.transitions = 0
        self.appended = 0
        self.appended_transitions = 0

    def __len__(self) -> int:
        """The number of episodes."""
        return self._last - self._first

    def __getitem__(self, column: str) -> Tensor:
        """The live rows of a column, ``[len(self)]``, as a view."""
        return self._columns[column][self._first : self._last]

    def append(self, *, start: int, length: int, episode_return: float, terminated: bool, success: int) -> None:
        """Add the newest episode."""
        if self._last == len(self._columns["end"]):
            self._make_room()
        newest_end = int(self._columns["end"][self._last - 1]) if self._last else 0
        row = {
            "end": newest_end + length,
            "start": start,
            "length": length,
            "episode_return": episode_return,
            "terminated": terminated,
            "success": success,
        }
        for name, value in row.items():
            self._columns[name][self._last] = value
        self._last += 1
        self.transitions += length
        self.appended += 1
        self.appended_transitions += length

    def pop_oldest(self) -> int:
        """Remove the oldest episode and return its length."""
        length = int(self._columns["length"][self._first])
        self._first += 1
        self.transitions -= length
        return length

    def _make_room(self) -> None:
        # A copy at most every len(self) appends: constant cost per append.
        rows = max(1024, 2 * len(self))
        for name in self._columns:
            live = self[name]
            column = live.new_zeros(rows)
            column[: len(live)] = live
            self._columns[name] = column
        self._first, self._last = 0, self._last - self._first
