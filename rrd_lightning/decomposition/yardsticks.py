"""The bounds between which a decomposition is judged. They learn nothing."""

from __future__ import annotations

from typing import ClassVar, Literal

from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.decomposition.base import Decomposition


class EnvironmentReward(Decomposition):
    """The environment's own per-step reward, which the others never see: the upper bound."""

    draws: ClassVar[Literal["nothing"]] = "nothing"
    needs: ClassVar[tuple[str, ...]] = (keys.REWARD,)

    def reward(self, transitions: TensorDictBase) -> Tensor:
        """Return the true reward of each transition, ``[batch]``."""
        reward: Tensor = transitions[keys.REWARD]
        return reward


class EpisodicReward(Decomposition):
    """Zero until an episode's last step, then its return: the lower bound, no decomposition."""

    draws: ClassVar[Literal["nothing"]] = "nothing"
    needs: ClassVar[tuple[str, ...]] = (keys.EPISODE_RETURN, keys.DONE)

    def reward(self, transitions: TensorDictBase) -> Tensor:
        """Return R at last steps and 0 elsewhere, ``[batch]``."""
        reward: Tensor = transitions[keys.EPISODE_RETURN] * transitions[keys.DONE]
        return reward
