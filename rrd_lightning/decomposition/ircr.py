"""Iterative relative credit refinement: the return of the episode as a reward, between 0 and 1.

Gangwani et al., "Learning Guidance Rewards with Trajectory-space Smoothing", NeurIPS 2020, arXiv 2010.12718.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.decomposition.base import Decomposition
from rrd_lightning.decomposition.rrd import Scale, require_scale
from rrd_lightning.losses import Losses
from rrd_lightning.replay import BestEpisodesSampler, PairedSampler

# The statistics of the replay that give the bounds on each scale.
BOUNDS = {
    "per_step": (keys.MEAN_REWARD_MIN, keys.MEAN_REWARD_MAX),
    "episode": (keys.RETURN_MIN, keys.RETURN_MAX),
}


def guidance_reward(value: Tensor, smallest: Tensor, largest: Tensor) -> Tensor:
    """(R − R_min) / (R_max − R_min) (Gangwani et al., 2020, algorithm 2, line 18); 0 where all are equal."""
    span = (largest - smallest).clamp_min(torch.finfo(value.dtype).tiny)
    return ((value - smallest) / span).clamp(0, 1)


class IRCR(Decomposition):
    """The episode's return, min-max normalised over the replay, at each of its steps. It learns nothing.

    What a step is worth is then the mean normalised return of the episodes that it occurs in, which the
    critic works out. Episodes that are not in the replay, as in an evaluation, are measured by the bounds of
    the latest batch, and what lies beyond them gets 0 or 1.

    As the method has it, half of the transitions of each batch are of the ten best episodes, by
    `rrd_lightning.replay.BestEpisodesSampler`; ``--data.sampler rrd_lightning.replay.PairedSampler`` does
    without.

    Args:
        observation_space: any.
        action_space: any.
        scale: ``"per_step"`` normalises R / T, as the authors' code does; ``"episode"`` normalises R, as the
            baseline in the code of Ren et al. does. They are the same where all episodes have one length.

    Attributes:
        smallest: what gets 0: R / T or R of the worst stored episode, ``[]``; 0 before the first update.
        largest: what gets 1, of the best one, ``[]``; 1 before the first update.

    Raises:
        ParameterError: if there is no such scale.
    """

    metrics: ClassVar[dict[str, str]] = {
        "reward/smallest": "what gets reward 0: smallest R / T in the replay, smallest R with `scale: episode`",
        "reward/largest": "what gets reward 1: largest R / T in the replay, largest R with `scale: episode`",
    }
    draws: ClassVar[Literal["nothing"]] = "nothing"
    sampler: ClassVar[type[PairedSampler]] = BestEpisodesSampler
    needs: ClassVar[tuple[str, ...]] = (keys.EPISODE_RETURN, keys.EPISODE_LENGTH)
    smallest: Tensor
    largest: Tensor

    def __init__(
        self, observation_space: Space[Any], action_space: Space[Any], *, scale: Scale = "per_step"
    ) -> None:
        super().__init__(observation_space, action_space)
        require_scale(scale)
        self.scale: Scale = scale
        # Buffers, so that evaluations and resumed runs know them.
        self.register_buffer("smallest", torch.tensor(0.0))
        self.register_buffer("largest", torch.tensor(1.0))

    def reward(self, transitions: TensorDictBase) -> Tensor:
        """Return the normalised return of each transition's episode, in [0, 1], ``[batch]``."""
        value = transitions[keys.EPISODE_RETURN]
        if self.scale == "per_step":
            value = value / transitions[keys.EPISODE_LENGTH]
        return guidance_reward(value, self.smallest, self.largest)

    def losses(self, batch: TensorDictBase) -> Losses:
        """Take over the bounds of the replay; there is no loss."""
        smallest, largest = (batch[keys.STATISTICS][key] for key in BOUNDS[self.scale])
        self.smallest.copy_(smallest)
        self.largest.copy_(largest)
        return Losses(metrics={"reward/smallest": self.smallest, "reward/largest": self.largest})
