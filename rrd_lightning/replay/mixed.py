"""Batches with a set share of demonstrations, and of successes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from rrd_lightning.errors import ParameterError
from rrd_lightning.replay.gather import Integers
from rrd_lightning.replay.sampler import PairedSampler, StepDraw

Rows = NDArray[np.bool_]


class MixedSampler(PairedSampler):
    """Draws a set share of a batch from demonstrations, and half of its subsequences from successes.

    Each part of a batch is drawn as `PairedSampler` draws the whole: transitions are uniform, and the reward
    model's episodes distinct while there are enough. Where one of two kinds is missing, such as collected
    episodes at the beginning, the other has its share too.

    Ball et al., "Efficient Online Reinforcement Learning with Offline Data", 2023, arXiv 2302.02948, section
    4.1: symmetric sampling, a share of one half.

    Attributes:
        demonstration_share: of each batch's transitions, or None.
        demonstration_subsequences: let the share hold for subsequences, too.
        balance_success: draw half of the subsequences from successes and half from failures. Episodes of
            unknown success are left out while there are both.
    """

    demonstration_share: float | None = None
    demonstration_subsequences = False
    balance_success = False
    _said = False

    def mix(
        self, demonstration_share: float | None, demonstration_subsequences: bool, balance_success: bool
    ) -> None:
        """Set the shares.

        Raises:
            ParameterError: if the share is not between 0 and 1, or there are too few subsequences to share out.
        """
        share = demonstration_share
        if share is not None and not 0 < share < 1:
            raise ParameterError("data.demonstration_share", share, "must be between 0 and 1, and neither")
        if share is not None and self.batch_size < 2:
            raise ParameterError("data.batch_size", self.batch_size, "must be at least 2 to be shared out")
        if demonstration_subsequences and share is None:
            raise ParameterError("data.demonstration_subsequences", True, "needs data.demonstration_share")
        kinds = (2 if demonstration_subsequences else 1) * (2 if balance_success else 1)
        if self.num_subsequences < kinds:
            problem = f"makes {self.num_subsequences} subsequences a batch, must make {kinds}: one of each kind"
            raise ParameterError("data.rrd_batch_size", self.num_subsequences * self.rrd_sample_size, problem)
        self.demonstration_share = share
        self.demonstration_subsequences = demonstration_subsequences
        self.balance_success = balance_success

    def transitions(self, lead: tuple[int, ...]) -> StepDraw:
        """Draw transitions ``[*lead, batch_size]``, those of demonstrations first."""
        if self.demonstration_share is None:
            return super().transitions(lead)
        parts = self._share_out(self._every(), self.batch_size)
        uniform = self._numbers("transitions", (*lead, self.batch_size))
        draws, first = [], 0
        for rows, count in parts:
            draws.append(self._among(np.flatnonzero(rows), uniform[..., first : first + count]))
            first += count
        episode, step = (np.concatenate(each, axis=-1) for each in zip(*draws, strict=True))
        return StepDraw(episode, step, {})

    def episodes(self, lead: tuple[int, ...]) -> Integers:
        """Draw the reward model's episodes, as rows of the table ``[*lead, num_subsequences]``."""
        parts = list(self._parts())
        if len(parts) == 1 and parts[0][0].all():
            return super().episodes(lead)
        # Twice as many as are wanted, since some are drawn twice.
        uniform = self._numbers("episodes", (*lead, 2 * self.num_subsequences))
        drawn, first = [], 0
        for rows, count in parts:
            episodes = np.flatnonzero(rows)
            found, _ = self._among(episodes, uniform[..., 2 * first : 2 * (first + count)])
            drawn.append((episodes, count, found.reshape(-1, 2 * count).tolist()))
            first += count
        batches = [
            [each for episodes, count, found in drawn for each in self._some(found[batch], count, episodes)]
            for batch in range(len(drawn[0][2]))
        ]
        return np.array(batches).reshape(*lead, self.num_subsequences)

    def _some(self, drawn: list[int], count: int, episodes: Integers) -> list[int]:
        return drawn[:count] if len(episodes) < count else self._distinct(drawn, count, episodes)

    def _parts(self) -> Iterator[tuple[Rows, int]]:
        """Return the kinds of episodes that subsequences are drawn from, and how many from each."""
        halves = [(self._every(), self.num_subsequences)]
        if self.balance_success:
            success = self.table.live["success"]
            halves = _split(*halves[0], success == 1, success == 0, 0.5)
            if len(halves) == 1 and not self._said:
                kind = "failure" if (success == 1).any() else "success"
                rank_zero_warn(
                    f"data.balance_success: no {kind} is known in the replay, so subsequences are drawn from "
                    "all episodes until there is one"
                )
                self._said = True
        for rows, count in halves:
            yield from self._share_out(rows, count) if self.demonstration_subsequences else [(rows, count)]

    def _share_out(self, rows: Rows, count: int) -> list[tuple[Rows, int]]:
        demonstration = self.table.live["demonstration"]
        assert self.demonstration_share is not None
        return _split(rows, count, demonstration, ~demonstration, self.demonstration_share)

    def _every(self) -> Rows:
        return np.ones(len(self.table), np.bool_)

    def _numbers(self, generator: str, shape: tuple[int, ...]) -> NDArray[Any]:
        # A number for each draw, so that several batches drawn at once equal batches drawn one after another.
        return torch.rand(shape, dtype=torch.float64, generator=self.generators[generator]).numpy()


def _split(rows: Rows, count: int, first: Rows, second: Rows, share: float) -> list[tuple[Rows, int]]:
    """Split some draws between two kinds of episodes, at least one for each; or let one kind have them all."""
    if count < 2 or not (first & rows).any() or not (second & rows).any():
        return [(rows, count)]
    of_first = min(max(round(share * count), 1), count - 1)
    return [(rows & first, of_first), (rows & second, count - of_first)]
