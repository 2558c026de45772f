"""Several reward models that know where they disagree."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor, nn

from rrd_lightning import keys
from rrd_lightning.decomposition.base import Decomposition
from rrd_lightning.decomposition.rrd import RRD
from rrd_lightning.errors import require_not_negative, require_positive
from rrd_lightning.losses import Losses


class RRDEnsemble(Decomposition):
    """Independent `RRD` reward models of the same subsequences, which differ by their initial weights.

    The reward of a step is the mean of their predictions, less `pessimism` standard deviations, which keeps an
    agent from steps whose reward is a guess.

    Args:
        observation_space: a vector, an image, a Discrete, or a Dict of these.
        action_space: a vector, or a Discrete.
        members: how many reward models.
        pessimism: how many standard deviations over the members are taken off their mean.
        options: of each, as `RRD` has them.

    Raises:
        ParameterError: if it cannot serve a space, or an option is out of range.
    """

    metrics: ClassVar[dict[str, str]] = {
        "loss/reward": "sum over the members of RRD's loss",
        "reward/predicted_mean": "mean predicted reward, the members' mean less `pessimism` standard "
        "deviations, over the steps of all subsequences of the batch",
        "reward/predicted_std": "standard deviation of the same over these steps",
        "reward/spread": "standard deviation of the predicted reward over the members, mean over these steps",
    }

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        members: int = 5,
        pessimism: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(observation_space, action_space)
        require_positive(members=members)
        require_not_negative(pessimism=pessimism)
        self.members = nn.ModuleList(RRD(observation_space, action_space, **options) for _ in range(members))
        self.pessimism = pessimism

    def check(self, num_subsequences: int, rrd_sample_size: int) -> None:
        """Make sure that each member can use the subsequences."""
        for member in self._members():
            member.check(num_subsequences, rrd_sample_size)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group, ``reward``, of all members."""
        return [{"name": "reward", "params": list(self.parameters()), "lr": self._members()[0].learning_rate}]

    def reward(self, transitions: TensorDictBase) -> Tensor:
        """Return the mean prediction for each step, less `pessimism` standard deviations, ``[...]``."""
        return self._combine(self._predict(transitions))

    def losses(self, batch: TensorDictBase) -> Losses:
        """`rrd_loss` of each member on the batch's subsequences, summed: each learns as it would alone."""
        subsequences = batch[keys.SUBSEQUENCES]
        predicted = self._predict(subsequences)
        pairs = zip(self._members(), predicted, strict=True)
        loss = torch.stack([member.loss(own, subsequences) for member, own in pairs]).sum()
        seen = predicted.detach()
        reward = self._combine(seen)
        metrics = {
            "reward/predicted_mean": reward.mean(),
            "reward/predicted_std": reward.std(),
            "reward/spread": seen.std(0, correction=0).mean(),
        }
        return Losses({"reward": loss}, metrics)

    def _predict(self, steps: TensorDictBase) -> Tensor:
        """Predict the reward of each step by each member, ``[members, ...]``."""
        return torch.stack([member.reward(steps) for member in self._members()])

    def _combine(self, predicted: Tensor) -> Tensor:
        return predicted.mean(0) - self.pessimism * predicted.std(0, correction=0)

    def _members(self) -> list[RRD]:
        return list(self.members)  # type: ignore[arg-type]
