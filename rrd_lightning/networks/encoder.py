"""From observations to the features that actor and critics see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor, nn

from rrd_lightning.errors import ParameterError, require_not_negative
from rrd_lightning.networks.convolutions import Convolutions, random_shift
from rrd_lightning.networks.factory import NetworkConfig, evaluate, make_module
from rrd_lightning.networks.observations import Observation, ObservationParts, batch_shape
from rrd_lightning.spaces import zeros

IMAGE_FEATURES = 64
DQN_FEATURES = 512


class ObservationEncoder(nn.Module, ABC):
    """Maps observations to features.

    Attributes:
        features: how many there are.
    """

    features: int

    @abstractmethod
    def forward(self, observation: Observation, *, augment: bool = False) -> Tensor:
        """Map observations ``[...]`` to features ``[..., features]``.

        Args:
            observation: of any batch dimensions.
            augment: in training: vary the images at random.
        """


class Encoder(ObservationEncoder):
    """Passes vectors on, and puts images through the convolutions of DQN, LayerNorm and tanh.

    Args:
        observation_space: of a single environment.
        reader: who uses it, for errors.
        random_shift: shift each image by up to so many pixels in training.
        bottleneck: 64 features of the images, behind LayerNorm and tanh; otherwise the 512 of DQN as they are.

    Attributes:
        sees_images: whether there are images.

    Raises:
        ParameterError: if it cannot serve the space.
    """

    def __init__(
        self, observation_space: Space[Any], reader: object, random_shift: int = 0, bottleneck: bool = True
    ) -> None:
        super().__init__()
        self._parts = parts = ObservationParts(observation_space, reader)
        self.random_shift, self.bottleneck = random_shift, bottleneck
        self.features = parts.vector_size
        if random_shift and not parts.channels:
            raise ParameterError("random_shift", random_shift, "is of images, which the observations have not")
        self.sees_images = parts.channels > 0
        if self.sees_images:
            features = IMAGE_FEATURES if bottleneck else DQN_FEATURES
            self.features += features
            limits = (nn.LayerNorm(features), nn.Tanh()) if bottleneck else ()
            self.images = nn.Sequential(Convolutions(parts.channels, parts.image_size, features), *limits)

    def forward(self, observation: Observation, *, augment: bool = False) -> Tensor:
        """Map observations ``[...]`` to features ``[..., features]``; `augment` shifts images at random."""
        vector = self._parts.vector(observation)
        if not self.sees_images:
            return vector
        images = self._parts.images(observation)
        if augment:
            images = random_shift(images, self.random_shift)
        return torch.cat([self.images(images), vector], -1)


class CustomEncoder(ObservationEncoder):
    """A user's module, whose constructor takes the observation space before its own arguments.

    Args:
        config: of a module that maps observations ``[batch, ...]`` to features ``[batch, features]``.
        observation_space: of a single environment.
        parameter: that the configuration was given as; named by errors.

    Raises:
        ParameterError: if the configuration names no module, or one that does not map so.
    """

    def __init__(
        self, config: NetworkConfig, observation_space: Space[Any], parameter: str = "encoder"
    ) -> None:
        super().__init__()
        self._space = observation_space
        self.network = make_module(config, parameter, observation_space)
        found = evaluate(self.network, zeros(observation_space, 2), parameter, config)
        shape = tuple(getattr(found, "shape", ()))
        if len(shape) != 2 or shape[0] != 2:
            raise ParameterError(
                parameter, config, f"must map two observations to [2, features], and maps them to {list(shape)}"
            )
        self.features = shape[1]

    def forward(self, observation: Observation, *, augment: bool = False) -> Tensor:
        """Map observations ``[...]`` to features ``[..., features]``; augmenting is the module's own task."""
        batch = batch_shape(observation, self._space)
        features: Tensor = self.network(_flattened(observation, len(batch)))
        return features.reshape(*batch, -1)


def make_encoder(
    config: NetworkConfig | None,
    observation_space: Space[Any],
    reader: object,
    random_shift: int,
    bottleneck: bool = True,
) -> ObservationEncoder:
    """Make an encoder: a user's, or one that passes vectors on and has convolutions for images.

    Args:
        config: of a user's, if any.
        observation_space: of a single environment.
        reader: who uses it, for errors.
        random_shift: of an `Encoder`.
        bottleneck: of an `Encoder`.

    Raises:
        ParameterError: if it cannot be made.
    """
    require_not_negative(random_shift=random_shift)
    if config is None:
        return Encoder(observation_space, reader, random_shift, bottleneck)
    if random_shift:
        raise ParameterError("random_shift", random_shift, "is not of an encoder of your own: leave it at 0")
    return CustomEncoder(config, observation_space)


def _flattened(observation: Any, dimensions: int) -> Any:
    if dimensions == 1:
        return observation
    if isinstance(observation, dict):
        return {key: _flattened(part, dimensions) for key, part in observation.items()}
    return observation.flatten(0, dimensions - 1) if dimensions else observation[None]
