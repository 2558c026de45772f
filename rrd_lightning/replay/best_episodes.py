"""Half of the transitions from the best episodes, as IRCR has it."""

from __future__ import annotations

import numpy as np
import torch

from rrd_lightning.replay.gather import Integers
from rrd_lightning.replay.sampler import PairedSampler, StepDraw

BEST = 10


class BestEpisodesSampler(PairedSampler):
    """Draws half of the transitions from the ten stored episodes of the largest returns.

    The first half of a batch is uniform over all stored transitions, the second over those of the ten. While
    there are no more than ten episodes, both halves are drawn alike. What is drawn for the reward model does
    not change.

    The code of Gangwani et al. (2020) keeps the best episodes in a buffer of their own, for ever. Here they
    are the best of the replay, and leave with it.
    """

    def transitions(self, lead: tuple[int, ...]) -> StepDraw:
        """Draw transitions ``[*lead, batch_size]``: first those of all episodes, then those of the best."""
        shape = (*lead, self.batch_size)
        # A number per transition, so that several batches drawn at once equal batches drawn one after another.
        uniform = torch.rand(shape, dtype=torch.float64, generator=self.generators["transitions"]).numpy()
        half = self.batch_size - self.batch_size // 2
        best = self._best()
        draws = [
            self._among(np.arange(len(self.table)), uniform[..., :half]),
            self._among(best, uniform[..., half:]),
        ]
        episode, step = (np.concatenate(each, axis=-1) for each in zip(*draws, strict=True))
        return StepDraw(episode, step, {})

    def _best(self) -> Integers:
        """Find the rows of the best episodes, in the order of the table."""
        returns = self.table.live["episode_return"]
        best: Integers = np.sort(np.argsort(-returns, kind="stable")[:BEST])
        return best
