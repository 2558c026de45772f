"""What networks see of observations and actions: images, and vectors of numbers."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium import Space, spaces
from tensordict import TensorDictBase
from torch import Tensor
from torch.nn import functional

from rrd_lightning.errors import ParameterError
from rrd_lightning.frames import StackedFrames, frame_space, is_image

# A tensor, or several by name: a TensorDict in training, a plain dictionary elsewhere.
Observation: TypeAlias = Tensor | TensorDictBase | dict[str, Any]


class ObservationParts:
    """Takes observations apart into one stack of images and one vector.

    Args:
        space: a vector of floating numbers, a uint8 image with its channels first, last or absent, a stack of
            these, a Discrete, which becomes one-hot, or a Dict of these whose images have one size.
        reader: who reads them, for the error.

    Attributes:
        channels: of all images together; 0 without images.
        image_size: height and width of the images.
        vector_size: numbers of all vectors together.

    Raises:
        ParameterError: if the space is another one.
    """

    def __init__(self, space: Space[Any], reader: object) -> None:
        parts: dict[Any, Any] = dict(space.spaces) if isinstance(space, spaces.Dict) else {None: space}
        self._images = {key: part for key, part in parts.items() if is_image(frame_space(part))}
        self._vectors = {key: part for key, part in parts.items() if is_vector(part) or _is_discrete(part)}
        shapes = [_channels_first(torch.zeros(part.shape), part).shape for part in self._images.values()]
        sizes = {(shape[1], shape[2]) for shape in shapes}
        if len(self._images) + len(self._vectors) < len(parts) or not parts or len(sizes) > 1:
            raise ParameterError(
                "observation_space",
                space,
                f"{type(reader).__name__} serves vectors of numbers, uint8 images [channels, height, width], "
                "[height, width, channels] or [height, width] of one size, Discrete, and a Dict of these; "
                "env.wrappers gymnasium.wrappers.FlattenObservation makes vectors of others",
            )
        self.channels = sum(shape[0] for shape in shapes)
        self.image_size: tuple[int, int] = next(iter(sizes), (0, 0))
        self.vector_size = sum(_width(part) for part in self._vectors.values())

    def images(self, observation: Observation) -> Tensor:
        """The images ``[..., channels, height, width]``, scaled to [0, 1] where they are."""
        parts = [_channels_first(_part(observation, key), space) for key, space in self._images.items()]
        return torch.cat(parts, -3).float().div_(255)

    def vector(self, observation: Observation) -> Tensor:
        """The numbers ``[..., vector_size]``."""
        if not self._vectors:
            key, space = next(iter(self._images.items()))
            image = _part(observation, key)
            return torch.zeros(*image.shape[: image.dim() - len(space.shape)], 0, device=image.device)
        numbers = [_numbers(_part(observation, key), space) for key, space in self._vectors.items()]
        return numbers[0] if len(numbers) == 1 else torch.cat(numbers, -1)


class ActionVector:
    """Actions as vectors of numbers: continuous ones as they are, those of a Discrete as one-hot.

    Args:
        space: a vector of floating numbers, or a Discrete.
        reader: who reads them, for the error.

    Attributes:
        size: numbers of an action.

    Raises:
        ParameterError: if the space is another one.
    """

    def __init__(self, space: Space[Any], reader: object) -> None:
        if not (is_vector(space) or _is_discrete(space)):
            raise ParameterError(
                "action_space",
                space,
                f"{type(reader).__name__} serves vectors of floating numbers, and Discrete",
            )
        self._space = space
        self.size = _width(space)

    def __call__(self, action: Tensor) -> Tensor:
        """Return ``[..., size]``."""
        return _numbers(action, self._space)


def batch_shape(observation: Any, space: Space[Any]) -> torch.Size:
    """Return the batch dimensions of observations of a space."""
    while isinstance(space, spaces.Dict):
        key, space = next(iter(space.spaces.items()))
        observation = observation[key]
    dimensions = observation.dim() - len(space.shape or ())
    shape: torch.Size = observation.shape[:dimensions]
    return shape


def is_vector(space: Space[Any]) -> bool:
    """Tell whether a space is one of vectors of floating numbers."""
    return isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating) and len(space.shape) == 1


def _is_discrete(space: Space[Any]) -> bool:
    return isinstance(space, spaces.Discrete)


def _channels_first(image: Tensor, space: Space[Any]) -> Tensor:
    """Return images of a space, or stacks of them, as ``[..., channels, height, width]``."""
    shape = frame_space(space).shape or ()
    if len(shape) == 2:
        image = image.unsqueeze(-3)
    elif shape[0] > min(shape):  # the channels, the few, are last, unless the first dimension is as small
        image = image.movedim(-1, -3)
    return image.flatten(-4, -3) if isinstance(space, StackedFrames) else image


def _width(space: Any) -> int:
    return int(space.n) if _is_discrete(space) else int(space.shape[0])


def _numbers(part: Tensor, space: Any) -> Tensor:
    if _is_discrete(space):
        return functional.one_hot(part.long() - int(space.start), int(space.n)).float()
    return part


def _part(observation: Any, key: str | None) -> Tensor:
    part: Tensor = observation if key is None else observation[key]
    return part
