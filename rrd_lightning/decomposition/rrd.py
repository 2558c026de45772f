"""Randomized return decomposition: a reward model learned from a few steps of each episode.

Ren et al., "Learning Long-Term Reward Redistribution via Randomized Return Decomposition",
ICLR 2022, arXiv 2111.13485.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import torch
from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.decomposition.learned import LearnedReward
from rrd_lightning.errors import ParameterError
from rrd_lightning.losses import Losses

Scale = Literal["per_step", "episode"]


def rrd_loss(
    predicted_reward: Tensor,
    episode_return: Tensor,
    episode_length: Tensor,
    *,
    bias_correction: bool = False,
    with_replacement: bool | Tensor = True,
    scale: Scale = "per_step",
) -> Tensor:
    r"""The loss of randomized return decomposition (Ren et al., 2022, equation 5).

    With :math:`K` predictions :math:`p_{ij}` for steps of an episode of length :math:`T_i` and
    return :math:`R_i`, on the per-step scale

    .. math:: L = \frac{1}{N} \sum_i \Big(\frac{1}{K} \sum_j p_{ij} - \frac{R_i}{T_i}\Big)^2,

    and on the episode scale each term times :math:`T_i^2`. The bias correction (RRD-L(RD))
    subtracts :math:`S_i^2 c_i / K`, the variance that drawing adds to the square:
    :math:`S_i^2` is the unbiased variance of :math:`p_{i1} \dots p_{iK}`, and :math:`c_i` is 1
    for draws with replacement, :math:`1 - K / T_i` without, and 0 for :math:`T_i = 1`. In
    expectation the corrected loss is the least-squares loss over whole episodes.

    Args:
        predicted_reward: ``[N, K]``.
        episode_return: ``[N]``.
        episode_length: ``[N]``, in steps.
        bias_correction: subtract the variance of the draw.
        with_replacement: how the steps were drawn, for all episodes or for each ``[N]``. Draws of
            more steps than the episode has count as made with replacement.
        scale: ``"per_step"`` compares rewards, ``"episode"`` returns.

    Returns:
        The scalar loss. With the correction it may be negative.

    Raises:
        ParameterError: if the correction is asked for with a single step per subsequence, which
            has no variance.
    """
    length = episode_length.to(predicted_reward.dtype)
    sample_size = predicted_reward.shape[-1]
    loss = (predicted_reward.mean(-1) - episode_return / length).square()
    if bias_correction:
        _check_variance(sample_size)
        coefficient = _draw_coefficient(length, sample_size, with_replacement)
        loss = loss - predicted_reward.var(-1) * coefficient / sample_size
    if scale == "episode":
        loss = loss * length.square()
    return loss.mean()


def require_scale(scale: str) -> None:
    """Raise a `ParameterError` if there is no such scale."""
    if scale not in get_args(Scale):
        raise ParameterError("scale", scale, "must be 'per_step' or 'episode'")


def _check_variance(sample_size: int) -> None:
    if sample_size < 2:
        raise ParameterError("rrd_sample_size", sample_size, "must be at least 2 for the bias correction")


def _draw_coefficient(length: Tensor, sample_size: int, with_replacement: bool | Tensor) -> Tensor:
    """c_i: the share of the variance of independent draws that the draw has, ``[N]``."""
    independent = (length < sample_size) | torch.as_tensor(with_replacement, device=length.device)
    return torch.where(independent, 1.0, 1.0 - sample_size / length) * (length > 1)


class RRD(LearnedReward):
    """A reward model r̂(s, a, s') trained by `rrd_loss`.

    Args:
        observation_space: a vector, an image, a Discrete, or a Dict of these.
        action_space: a vector, or a Discrete.
        bias_correction: remove the sampling variance from the loss (RRD-L(RD)).
        scale: of the loss, ``"per_step"`` or ``"episode"``. The latter weighs long episodes more
            and is larger by T²: 10⁶ times at T = 1000.
        options: of the reward model, as `LearnedReward` has them.

    Raises:
        ParameterError: if it cannot serve a space, or an option is out of range.
    """

    metrics: ClassVar[dict[str, str]] = {
        "loss/reward": "RRD's loss: mean over subsequences of (mean predicted reward − R / T)², less the "
        "sampling variance with `bias_correction`, times T² with `scale: episode`",
        "reward/predicted_mean": "mean predicted reward over the steps of all subsequences of the batch",
        "reward/predicted_std": "standard deviation of the same",
    }

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        bias_correction: bool = False,
        scale: Scale = "per_step",
        **options: Any,
    ) -> None:
        super().__init__(observation_space, action_space, **options)
        require_scale(scale)
        self.bias_correction = bias_correction
        self.scale: Scale = scale

    def check(self, num_subsequences: int, rrd_sample_size: int) -> None:
        """Make sure that there is a variance to correct for."""
        if self.bias_correction:
            _check_variance(rrd_sample_size)

    def losses(self, batch: TensorDictBase) -> Losses:
        """`rrd_loss` of the batch's subsequences."""
        subsequences = batch[keys.SUBSEQUENCES]
        predicted = self.reward(subsequences)
        seen = predicted.detach()
        metrics = {"reward/predicted_mean": seen.mean(), "reward/predicted_std": seen.std()}
        return Losses({"reward": self.loss(predicted, subsequences)}, metrics)

    def loss(self, predicted_reward: Tensor, subsequences: TensorDictBase) -> Tensor:
        """`rrd_loss` of predictions ``[N, K]`` for subsequences, as configured."""
        return rrd_loss(
            predicted_reward,
            subsequences[keys.EPISODE_RETURN],
            subsequences[keys.EPISODE_LENGTH],
            bias_correction=self.bias_correction,
            with_replacement=subsequences[keys.WITH_REPLACEMENT],
            scale=self.scale,
        )
