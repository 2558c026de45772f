"""What the training loop asks of an agent."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from typing import Any

from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning.component import Component
from rrd_lightning.losses import Losses
from rrd_lightning.networks import Observation


class Agent(Component):
    """A policy and how it learns. It knows nothing of decompositions.

    Args:
        observation_space: of a single environment.
        action_space: of a single environment; the bounds of continuous actions are -1 and 1.
    """

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        super().__init__()

    @abstractmethod
    def act(self, observation: Observation, *, explore: bool, env_steps: int = 0) -> Tensor:
        """Choose actions ``[num_envs, ...]`` for observations ``[num_envs, ...]``, without gradient.

        Args:
            observation: of several environments.
            explore: as for training; otherwise as well as the agent can.
            env_steps: environment steps of the run so far, for a schedule of the exploration.
        """

    @abstractmethod
    def losses(self, transitions: TensorDictBase, reward: Tensor, updates: int = 0) -> Losses:
        """Return the losses of an update, each named like the parameter group that it trains.

        One backward pass goes through their sum: each must reach the parameters of its own group only.

        Args:
            transitions: ``[batch]``, with the keys of `rrd_lightning.keys`.
            reward: ``[batch]``, without gradient.
            updates: the number of updates made before this one.
        """

    def begin(self, env_steps: int) -> None:
        """Look at a schedule before the updates of a training step. Nothing by default.

        What changes from step to step must be a tensor that is filled anew: an engine may have recorded it.

        Args:
            env_steps: environment steps of the run so far.
        """

    def cloning(self, transitions: TensorDictBase) -> Losses:
        """Return the loss ``cloning``, which trains the actor to imitate demonstrations, if there is one."""
        return Losses()

    def after_update(self, updates: int) -> None:
        """Do what follows an optimizer step, such as moving target networks. Nothing by default.

        Args:
            updates: the number of updates made, this one included.
        """

    def phase(self, updates: int) -> Hashable:
        """Tell updates apart that do different things, such as those that leave a delayed actor out.

        An engine may record an update once and repeat it for all updates of the same phase: what `losses`
        and `after_update` do must depend on `updates` in no other way. By default nothing is known, and
        nothing is recorded.

        Args:
            updates: the number of updates made before this one.
        """
        return None
