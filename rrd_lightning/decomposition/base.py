"""What the training loop asks of a decomposition."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning.component import Component
from rrd_lightning.losses import Losses
from rrd_lightning.replay import PairedSampler


class Decomposition(Component):
    """Turns episodic returns into per-step rewards. It knows nothing of agents.

    Args:
        observation_space: of a single environment.
        action_space: of a single environment; the bounds of continuous actions are -1 and 1.

    Attributes:
        draws: what it learns from, and so what a batch has as ``subsequences``: random ``"steps"`` of
            episodes, whole ``"episodes"``, or ``"nothing"``.
        sampler: what draws its batches, unless the user chooses another.
        needs: what its `reward` looks at of a transition beside observation, action and next observation, such
            as facts of the episode.
    """

    draws: ClassVar[Literal["steps", "episodes", "nothing"]] = "steps"
    sampler: ClassVar[type[PairedSampler]] = PairedSampler
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        super().__init__()

    def check(self, num_subsequences: int, rrd_sample_size: int) -> None:
        """Raise a `ParameterError` where so many subsequences of so many steps are of no use.

        All are by default.
        """

    @abstractmethod
    def reward(self, transitions: TensorDictBase) -> Tensor:
        """Return the agent's reward of each transition, ``[batch]``."""

    def losses(self, batch: TensorDictBase) -> Losses:
        """Return the losses of an update, each named like the parameter group that it trains.

        Nothing is learned by default.

        Args:
            batch: the whole paired batch: ``subsequences``, ``transitions``, ``statistics`` of the replay, and
                what a sampler adds, with the keys of `rrd_lightning.keys`.
        """
        return Losses()
