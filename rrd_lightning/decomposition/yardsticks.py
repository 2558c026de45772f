"""The bounds between which a decomposition is judged. They learn nothing."""

from __future__ import annotations

from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.decomposition.base import Decomposition


class EnvironmentReward(Decomposition):
    """The environment's own per-step reward, which the others never see: the upper bound."""

    compilable = True
    draws = "nothing"

    def reward(self, transitions: TensorDictBase) -> Tensor:
        """Return the true reward of each transition, ``[batch]``."""
        reward: Tensor = transitions.get(keys.REWARD)
        return reward


class EpisodicReward(Decomposition):
    """Zero until an episode's last step, then its return: the lower bound, no decomposition."""

    compilable = True
    draws = "nothing"

    def reward(self, transitions: TensorDictBase) -> Tensor:
        """Return R at last steps and 0 elsewhere, ``[batch]``."""
        reward: Tensor = transitions.get(keys.EPISODE_RETURN) * transitions.get(keys.DONE)
        return reward
