"""What decompositions with a reward model have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning.decomposition.base import Decomposition
from rrd_lightning.decomposition.reward_model import RewardModel
from rrd_lightning.errors import require_not_negative, require_positive
from rrd_lightning.networks import NetworkConfig


class LearnedReward(Decomposition):
    """A `RewardModel` r̂(s, a, s') and its parameter group ``reward``; how it learns, a subclass says.

    Args:
        observation_space: a vector, an image, a Discrete, or a Dict of these.
        action_space: a vector, or a Discrete.
        hidden_sizes: widths of the hidden layers.
        activation: between them; see `rrd_lightning.networks.MLP`.
        layer_norm: normalise the hidden layers.
        learning_rate: Adam's.
        output_scale: what the network's output is multiplied by. Below 1 it lets predictions begin near zero,
            and stay there where nothing was learned: for sparse returns, whose reward of a step is small.
        encoder: class path of a module that maps observations to features, in place of the convolutions for
            images; made with the observation space.
        network: class path of a module that maps what the reward model sees to one number, in place of the
            perceptron; made with the widths of input and output.

    Raises:
        ParameterError: if it cannot serve a space, or an option is out of range.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: str = "relu",
        layer_norm: bool = False,
        learning_rate: float = 3e-4,
        output_scale: float = 1.0,
        encoder: NetworkConfig | None = None,
        network: NetworkConfig | None = None,
    ) -> None:
        super().__init__(observation_space, action_space)
        require_not_negative(learning_rate=learning_rate)
        require_positive(output_scale=output_scale)
        options = {"hidden_sizes": hidden_sizes, "activation": activation, "layer_norm": layer_norm}
        self.model = RewardModel(
            observation_space, action_space, self, encoder, network, output_scale, **options
        )
        self.learning_rate = learning_rate

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group, ``reward``."""
        return [{"name": "reward", "params": list(self.parameters()), "lr": self.learning_rate}]

    def reward(self, transitions: TensorDictBase) -> Tensor:
        """Predict the reward of each step, for any batch shape."""
        reward: Tensor = self.model(transitions)
        return reward
