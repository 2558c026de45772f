"""The same reward for every step of an episode: what a decomposition that learns nothing can do."""

from __future__ import annotations

from typing import ClassVar, Literal

from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.decomposition.base import Decomposition


class UniformRedistribution(Decomposition):
    """R / T for every step of an episode. It learns nothing.

    The rewards of an episode add up to its return, and a step's expected reward is the mean of R / T over the
    episodes that it occurs in. It is not a function of the step alone: transitions must have their episode's
    return and length.
    """

    draws: ClassVar[Literal["nothing"]] = "nothing"
    needs: ClassVar[tuple[str, ...]] = (keys.EPISODE_RETURN, keys.EPISODE_LENGTH)

    def reward(self, transitions: TensorDictBase) -> Tensor:
        """Return R / T of each transition, ``[batch]``."""
        reward: Tensor = transitions[keys.EPISODE_RETURN] / transitions[keys.EPISODE_LENGTH]
        return reward
