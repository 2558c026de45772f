"""Which episodes lie in the ring, oldest first."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrd_lightning import keys


class EpisodeTable:
    """A queue of episodes, stored by columns.

    Where feedback is the return of every few steps, each such bag of steps has a row of its own, with its own
    return and length. The rows of an episode follow one another, and leave together.

    Rows are appended at the back and removed at the front, so the live rows are one slice of each
    column, and looking up a transition takes time logarithmic in their number. Columns:

    * ``begin``: transitions ever stored before this row (so it is sorted),
    * ``start``: position of its first record in the ring,
    * ``length``: T, its number of transitions,
    * ``episode_return``: R,
    * ``terminated``: whether its last step terminated the task,
    * ``success``: 1 if the task succeeded, 0 if not, -1 where that is not known,
    * ``demonstration``: whether it is a demonstration, rather than collected,
    * ``offset``: steps of the episode before the row's, 0 but for a later bag,
    * ``ends``: whether the row is the last of its episode, always but for an earlier bag.

    Attributes:
        live: the live rows of each column, ``[len(self)]``, as NumPy views, which on a few rows are
            twice as fast as torch's.
        transitions: transitions of all live rows.
        removed_transitions: transitions of the rows that were removed.
        appended: rows ever appended; the live ones are the latest of them.
        appended_transitions: transitions of all rows ever appended.
    """

    def __init__(self) -> None:
        self._columns: dict[str, NDArray[Any]] = {
            "begin": np.zeros(1024, np.int64),
            "start": np.zeros(1024, np.int64),
            "length": np.zeros(1024, np.int64),
            "episode_return": np.zeros(1024, np.float32),
            "terminated": np.zeros(1024, np.bool_),
            "success": np.zeros(1024, np.int8),
            "demonstration": np.zeros(1024, np.bool_),
            "offset": np.zeros(1024, np.int64),
            "ends": np.zeros(1024, np.bool_),
        }
        self._first = 0
        self._last = 0
        self._statistics: dict[str, Tensor] | None = None
        self._update_views()
        self.transitions = 0
        self.removed_transitions = 0
        self.appended = 0
        self.appended_transitions = 0

    def __len__(self) -> int:
        """The number of rows: of episodes, or of their bags."""
        return self._last - self._first

    def __getitem__(self, column: str) -> Tensor:
        """The live rows of a column, ``[len(self)]``, as a view."""
        return torch.from_numpy(self.live[column])

    def statistics(self) -> dict[str, Tensor]:
        """Summarise the live episodes, of which there must be at least one.

        Returns:
            ``return_min``, ``return_max``, ``mean_reward_min`` and ``mean_reward_max`` (of R / T), float32,
            and ``num_episodes``, ``num_successes`` and ``num_failures``, int64, all ``[]``. They are computed
            once per change of the table and shared by all callers: do not write into them.
        """
        if self._statistics is None:
            returns = self.live["episode_return"]
            # In single precision, as a batch's R / T is.
            mean_rewards = returns / self.live["length"].astype(np.float32)
            self._statistics = {
                keys.RETURN_MIN: torch.tensor(returns.min()),
                keys.RETURN_MAX: torch.tensor(returns.max()),
                keys.MEAN_REWARD_MIN: torch.tensor(mean_rewards.min()),
                keys.MEAN_REWARD_MAX: torch.tensor(mean_rewards.max()),
                keys.NUM_EPISODES: torch.tensor(len(self)),
                keys.NUM_SUCCESSES: torch.tensor(np.count_nonzero(self.live["success"] == 1)),
                keys.NUM_FAILURES: torch.tensor(np.count_nonzero(self.live["success"] == 0)),
            }
        return self._statistics

    def append(
        self,
        *,
        start: int,
        length: int,
        episode_return: float,
        terminated: bool,
        success: int,
        demonstration: bool = False,
        offset: int = 0,
        ends: bool = True,
    ) -> None:
        """Add the newest row."""
        if self._last == len(self._columns["begin"]):
            self._grow()
        row = {
            "begin": self.removed_transitions + self.transitions,
            "start": start,
            "length": length,
            "episode_return": episode_return,
            "terminated": terminated,
            "success": success,
            "demonstration": demonstration,
            "offset": offset,
            "ends": ends,
        }
        for name, value in row.items():
            self._columns[name][self._last] = value
        self._last += 1
        self._update_views()
        self.transitions += length
        self.appended += 1
        self.appended_transitions += length

    def oldest_length(self) -> int:
        """The length of the oldest episode, over all of its rows."""
        return int(self.live["length"][: self._oldest_rows()].sum())

    def _oldest_rows(self) -> int:
        return 1 + int(self.live["ends"].argmax())

    def pop_oldest(self) -> int:
        """Remove the oldest episode, with all of its rows, and return its length."""
        length = self.oldest_length()
        self._first += self._oldest_rows()
        self._update_views()
        self.transitions -= length
        self.removed_transitions += length
        return length

    def renew_oldest(self, start: int) -> int:
        """Make the oldest episode the newest, its records now at `start`, and return its length.

        Its rows count as appended again, but not its transitions, which are not new.
        """
        rows = self._oldest_rows()
        columns = {name: column[:rows].tolist() for name, column in self.live.items() if name != "begin"}
        length = self.pop_oldest()
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            self.append(**{**row, "start": start})
            start += row["length"]
        self.appended_transitions -= length
        return length

    def _update_views(self) -> None:
        self.live = {name: column[self._first : self._last] for name, column in self._columns.items()}
        self._statistics = None

    def _grow(self) -> None:
        # A copy at most every len(self) appends: constant cost per append.
        rows = max(1024, 2 * len(self))
        for name, live in self.live.items():
            column = np.zeros(rows, live.dtype)
            column[: len(live)] = live
            self._columns[name] = column
        self._first, self._last = 0, self._last - self._first
