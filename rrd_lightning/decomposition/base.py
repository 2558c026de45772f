"""What the training loop asks of a decomposition."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning.component import Component, Metrics


class Decomposition(Component):
    """Turns episodic returns into per-step rewards. It knows nothing of agents.

    Args:
        observation_space: of a single environment.
        action_space: of a single environment.

    Attributes:
        draws: what a batch's subsequences are: random ``"steps"`` of some episodes, whole ``"episodes"`` in
            rows of successive steps, or ``"nothing"``, for a batch without subsequences.
    """

    draws: ClassVar[Literal["steps", "episodes", "nothing"]] = "steps"

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        super().__init__()

    def check(self, rrd_sample_size: int) -> None:
        """Raise a `ParameterError` where subsequences of so many steps are of no use. All are by default."""

    @abstractmethod
    def reward(self, transitions: TensorDictBase) -> Tensor:
        """Return the agent's reward of each transition, ``[batch]``."""

    def loss(self, subsequences: TensorDictBase | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar to minimise and detached scalars to log. Nothing is learned by default."""
        return torch.zeros((), device=None if subsequences is None else subsequences.device), {}

    def learn(self, subsequences: TensorDictBase) -> Metrics:
        """Set the gradient of each parameter, and return what there is to log.

        By default autograd works the gradient of `loss` out. A decomposition that knows it by hand
        has this method instead.
        """
        return self.differentiate(*self.loss(subsequences))
