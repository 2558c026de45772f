"""Between what an environment gives and takes, and what networks see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from tensordict import TensorDict
from torch import Tensor

from rrd_lightning.errors import ParameterError
from rrd_lightning.networks.observations import batch_shape
from rrd_lightning.spaces import single_precision, unit_actions, unscaled


class SpaceAdapter:
    """Turns arrays of an environment into tensors of the model, and actions back.

    The model sees observations in single precision, and continuous actions in [-1, 1].

    Args:
        observation_space: of a single environment.
        action_space: of a single environment, in its own bounds.

    Attributes:
        spaces: both spaces as they are then.
    """

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        self._action_space = action_space
        self.spaces = single_precision(observation_space)[0], unit_actions(action_space)[0]

    def observation(self, value: Any, parameter: str = "observation") -> tuple[Any, bool]:
        """Return observations ``[several, ...]``, and whether there were several.

        Args:
            value: numbers, or a dictionary of them; several have one dimension in front.
            parameter: named by errors.

        Raises:
            ParameterError: if they are not of the observation space.
        """
        return _batched(value, self.spaces[0], parameter)

    def action(self, value: Any) -> Tensor:
        """Return actions ``[several, ...]``, of one or several of the environment's.

        Raises:
            ParameterError: if they are not of the action space.
        """
        space = self.spaces[1]
        array = unscaled(_array(value, space, "action"), self._action_space)
        actions = torch.from_numpy(np.array(array, space.dtype))
        return actions if len(batch_shape(actions, space)) == 1 else actions[None]

    def native_action(self, action: Tensor) -> np.ndarray[Any, Any]:
        """Return the model's actions ``[several, ...]`` as the environment takes them."""
        _, scale = unit_actions(self._action_space)
        native: np.ndarray[Any, Any] = scale(action.cpu().numpy())
        return native


def _batched(value: Any, space: Space[Any], parameter: str) -> tuple[Any, bool]:
    tensors = _tensors(value, space, parameter)
    several = len(batch_shape(tensors, space)) == 1
    batched = tensors if several else tensors[None]
    return batched.auto_batch_size_(1) if isinstance(batched, TensorDict) else batched, several


def _tensors(value: Any, space: Space[Any], parameter: str) -> Any:
    """Return numbers as tensors of the precision of a space, those of a dictionary as a TensorDict."""
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping) or not value.keys() >= space.spaces.keys():
            raise ParameterError(parameter, type(value).__name__, f"must have the keys {list(space.spaces)}")
        parts = {key: _tensors(value[key], part, f"{parameter}[{key!r}]") for key, part in space.spaces.items()}
        if len({len(batch_shape(part, space.spaces[key])) for key, part in parts.items()}) > 1:
            raise ParameterError(parameter, list(parts), "has one of some parts and several of others")
        return TensorDict(parts, [])
    return torch.from_numpy(np.array(_array(value, space, parameter), space.dtype))


def _array(value: Any, space: Any, parameter: str) -> np.ndarray[Any, Any]:
    """Return one or several elements of a space as an array, or say what is wrong with them."""
    array = np.asarray(value)
    shape = tuple(space.shape or ())
    if array.shape not in (shape, (*array.shape[:1], *shape)):
        raise ParameterError(
            parameter, f"of shape {array.shape}", f"must have shape {shape}, or one dimension more for several"
        )
    if not np.can_cast(array.dtype, space.dtype, "same_kind"):
        raise ParameterError(parameter, f"of {array.dtype}", f"must be of {space.dtype}, as the space is")
    if isinstance(space, spaces.Discrete):
        inside = (array >= space.start) & (array < space.start + space.n)
        if not inside.all():
            raise ParameterError(parameter, array.tolist(), f"must be in {space}")
    return array
