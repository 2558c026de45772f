"""What networks see of an observation: its images and its numbers."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium import Space, spaces
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning.errors import ParameterError

Observation: TypeAlias = Tensor | TensorDictBase


class ObservationParts:
    """Takes observations apart into one stack of images and one vector.

    Args:
        space: a vector of floating numbers, a uint8 image ``[channels, height, width]``, or a Dict of
            these whose images have one size.
        reader: who reads them, for the error.

    Attributes:
        channels: of all images together; 0 without images.
        image_size: height and width of the images.
        vector_size: numbers of all vectors together.

    Raises:
        ParameterError: if the space is another one.
    """

    def __init__(self, space: Space[Any], reader: object) -> None:
        parts = space.spaces if isinstance(space, spaces.Dict) else {None: space}
        images = {key: part for key, part in parts.items() if _is_image(part)}
        vectors = {key: part for key, part in parts.items() if _is_vector(part)}
        sizes = {(part.shape[1], part.shape[2]) for part in images.values() if part.shape}
        if len(images) + len(vectors) < len(parts) or not parts or len(sizes) > 1:
            raise ParameterError(
                "observation_space",
                space,
                f"{type(reader).__name__} serves vectors of floating numbers, uint8 images [channels, height, "
                "width] of one size, and a Dict of these",
            )
        self._images, self._vectors = list(images), list(vectors)
        self.channels = sum(part.shape[0] for part in images.values() if part.shape)
        self.image_size: tuple[int, int] = next(iter(sizes), (0, 0))
        self.vector_size = sum(part.shape[0] for part in vectors.values() if part.shape)

    def images(self, observation: Observation) -> Tensor:
        """The images ``[..., channels, height, width]``, scaled to [0, 1] where they are."""
        stacked = torch.cat([_part(observation, key) for key in self._images], -3)
        return stacked.float().div_(255)

    def vector(self, observation: Observation) -> Tensor:
        """The numbers ``[..., vector_size]``."""
        if self._vectors == [None]:
            return _part(observation, None)
        if not self._vectors:
            image = _part(observation, self._images[0])
            return torch.zeros(*image.shape[:-3], 0, device=image.device)
        return torch.cat([_part(observation, key) for key in self._vectors], -1)


def _part(observation: Any, key: str | None) -> Tensor:
    part: Tensor = observation if key is None else observation[key]
    return part


def _is_image(space: Space[Any]) -> bool:
    # Height and width first would have the few channels last.
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) == 3
        and space.shape[0] <= min(space.shape)
    )


def _is_vector(space: Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating) and len(space.shape) == 1
