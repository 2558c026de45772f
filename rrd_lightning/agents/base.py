"""What the training loop asks of an agent."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning.component import Component, Metrics
from rrd_lightning.networks import Observation


class Agent(Component):
    """A policy and how it learns. It knows nothing of decompositions.

    Args:
        observation_space: of a single environment.
        action_space: of a single environment.
    """

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        super().__init__()

    @abstractmethod
    def act(self, observation: Observation, *, explore: bool) -> Tensor:
        """Choose actions ``[num_envs, ...]`` for observations ``[num_envs, ...]``, without gradient."""

    def losses(self, transitions: TensorDictBase, reward: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of all losses, and detached scalars to log.

        Each loss must reach only the parameters that it is meant for: the sum goes through one
        backward pass. An agent has this method or `learn`.

        Args:
            transitions: ``[batch]``, with the keys of `rrd_lightning.keys`.
            reward: ``[batch]``, without gradient.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither `losses` nor `learn`")

    def learn(self, transitions: TensorDictBase, reward: Tensor) -> Metrics:
        """Set the gradient of each parameter, and return what there is to log.

        By default autograd works the gradient of `losses` out. An agent that knows it by hand has
        this method instead.

        Args:
            transitions: ``[batch]``, with the keys of `rrd_lightning.keys`.
            reward: ``[batch]``, without gradient.
        """
        return self.differentiate(*self.losses(transitions, reward))

    def update_targets(self) -> None:
        """Move target networks, after each optimizer step. There are none by default."""
