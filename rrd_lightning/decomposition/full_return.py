"""Least squares over whole episodes: the loss that randomized return decomposition approximates."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rrd_lightning import keys
from rrd_lightning.decomposition.learned import LearnedReward
from rrd_lightning.decomposition.rrd import Scale, require_scale
from rrd_lightning.errors import require_positive
from rrd_lightning.losses import Losses


def full_return_loss(
    predicted_return: Tensor, episode_return: Tensor, episode_length: Tensor, *, scale: Scale = "per_step"
) -> Tensor:
    r"""Least squares of returns (the loss of return decomposition in Ren et al., 2022).

    With :math:`\hat R_i` the sum of the predictions for all :math:`T_i` steps of an episode of return
    :math:`R_i`, on the per-step scale

    .. math:: L = \frac{1}{N} \sum_i \Big(\frac{\hat R_i - R_i}{T_i}\Big)^2,

    and on the episode scale without :math:`T_i`. It is the expectation of `rrd_loss` with bias correction.

    Args:
        predicted_return: ``[N]``.
        episode_return: ``[N]``.
        episode_length: ``[N]``, in steps.
        scale: ``"per_step"`` compares rewards, ``"episode"`` returns.
    """
    error = predicted_return - episode_return
    return (error / episode_length if scale == "per_step" else error).square().mean()


class FullReturnDecomposition(LearnedReward):
    """A reward model r̂(s, a, s') whose sums over whole episodes are to be their returns.

    A batch has all steps of ``rrd_batch_size // rrd_sample_size`` episodes, so that learning takes
    T / `rrd_sample_size` times as long as RRD's. What the gradients need of long episodes is kept for some rows
    at a time: each prediction is then made twice.

    Args:
        observation_space: a vector, an image, a Discrete, or a Dict of these.
        action_space: a vector, or a Discrete.
        scale: of the loss, ``"per_step"`` or ``"episode"``, as `RRD`'s.
        rows_at_once: rows of `rrd_sample_size` steps that gradients are worked out for at once. Fewer take
            less memory, and change results by rounding alone.
        options: of the reward model, as `LearnedReward` has them.

    Raises:
        ParameterError: if it cannot serve a space, or an option is out of range.
    """

    metrics: ClassVar[dict[str, str]] = {
        "loss/reward": "mean over the batch's episodes of ((Σ predicted reward − R) / T)², times T² with "
        "`scale: episode`",
        "reward/predicted_mean": "mean predicted reward over all steps of the batch's episodes",
        "reward/predicted_std": "standard deviation of the same",
    }
    draws: ClassVar[Literal["episodes"]] = "episodes"

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        scale: Scale = "per_step",
        rows_at_once: int = 128,
        **options: Any,
    ) -> None:
        super().__init__(observation_space, action_space, **options)
        require_scale(scale)
        require_positive(rows_at_once=rows_at_once)
        self.scale: Scale = scale
        self.rows_at_once = rows_at_once

    def losses(self, batch: TensorDictBase) -> Losses:
        """`full_return_loss` of the batch's episodes."""
        rows = batch[keys.SUBSEQUENCES]
        predicted = self._predict(rows)
        mask, episode = rows[keys.MASK], rows[keys.EPISODE]
        first = torch.cat([episode.new_ones(1), episode.diff()]).bool()  # of each episode's rows
        episode_return, length = rows[keys.EPISODE_RETURN][first], rows[keys.EPISODE_LENGTH][first]
        sums = torch.where(mask, predicted, 0).sum(-1, dtype=episode_return.dtype)
        predicted_return = sums.new_zeros(len(length)).index_add(0, episode, sums)
        loss = full_return_loss(predicted_return, episode_return, length, scale=self.scale)
        seen = predicted.detach()[mask]
        metrics = {"reward/predicted_mean": seen.mean(), "reward/predicted_std": seen.std()}
        return Losses({"reward": loss}, metrics)

    def _predict(self, rows: TensorDictBase) -> Tensor:
        """Predict the reward of each step, ``[rows, rrd_sample_size]``, in memory for some rows at a time."""
        if len(rows) <= self.rows_at_once:
            return self.reward(rows)
        parts = rows.split(self.rows_at_once)
        # The backward pass predicts each part again, instead of keeping what it needs of all of them.
        return torch.cat([checkpoint(self.reward, part, use_reentrant=False) for part in parts])
