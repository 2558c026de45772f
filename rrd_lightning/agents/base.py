"""What the training loop asks of an agent."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning.component import Component
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

    @abstractmethod
    def losses(self, transitions: TensorDictBase, reward: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of all losses, and detached scalars to log.

        Each loss must reach only the parameters that it is meant for: the sum goes through one
        backward pass.

        Args:
            transitions: ``[batch]``, with the keys of `rrd_lightning.keys`.
            reward: ``[batch]``, without gradient.
        """

    def update_targets(self) -> None:
        """Move target networks, after each optimizer step. There are none by default."""
