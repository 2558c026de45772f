"""A network that gives a reward to each step."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import Space
from tensordict import TensorDictBase
from torch import Tensor, nn

from rrd_lightning import keys
from rrd_lightning.networks import (
    ActionVector,
    Convolutions,
    CustomEncoder,
    NetworkConfig,
    ObservationParts,
    make_network,
)

IMAGE_FEATURES = 512


class RewardModel(nn.Module):
    """r̂(s, a, s'), from [s, a, s − s'].

    Images go through convolutions first, as the channels [s, s − s']; what comes out stands beside the action
    and the numbers of s and s − s'. A user's encoder replaces both: the network sees [f(s), a, f(s) − f(s')].

    Args:
        observation_space: a vector, an image, a Discrete, or a Dict of these; any that the encoder serves.
        action_space: a vector, or a Discrete, whose actions become one-hot.
        reader: who uses it, for errors.
        encoder: a user's encoder f of observations, if any.
        network: a user's network from [s, a, s − s'] to one number, if any.
        output_scale: what this number is multiplied by.
        options: of the perceptron otherwise.

    Raises:
        ParameterError: if it cannot serve a space, or a module is not such a one.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        reader: object,
        encoder: NetworkConfig | None = None,
        network: NetworkConfig | None = None,
        output_scale: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.output_scale = output_scale
        self._action = ActionVector(action_space, reader)
        self._parts: ObservationParts | None = None
        if encoder is not None:
            self.encoder = CustomEncoder(encoder, observation_space)
            inputs = 2 * self.encoder.features
        else:
            self._parts = parts = ObservationParts(observation_space, reader)
            inputs = 2 * parts.vector_size
            if parts.channels:
                self.convolutions = Convolutions(2 * parts.channels, parts.image_size, IMAGE_FEATURES)
                inputs += IMAGE_FEATURES
        self.network = make_network(network, inputs + self._action.size, 1, "network", **options)

    def forward(self, transitions: TensorDictBase) -> Tensor:
        """Predict the reward of each step, ``[...]``."""
        reward: Tensor = self.network(self._inputs(transitions))
        return reward.squeeze(-1) * self.output_scale

    def _inputs(self, transitions: TensorDictBase) -> Tensor:
        now, action, later = self.vectors(transitions)
        parts = [now, action, now - later]
        if self._parts is not None and self._parts.channels:
            images = self._parts.images(transitions[keys.OBSERVATION])
            change = images - self._parts.images(transitions[keys.NEXT_OBSERVATION])
            parts.append(self.convolutions(torch.cat([images, change], -3)))
        return torch.cat(parts, -1)

    def vectors(self, transitions: TensorDictBase) -> tuple[Tensor, Tensor, Tensor]:
        """Return s, a and s' as vectors of numbers ``[..., numbers]``; images are left out."""
        see = self.encoder if self._parts is None else self._parts.vector
        now, later = see(transitions[keys.OBSERVATION]), see(transitions[keys.NEXT_OBSERVATION])
        return now, self._action(transitions[keys.ACTION]), later
