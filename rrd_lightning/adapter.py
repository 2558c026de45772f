"""Between what an environment gives and takes, and what networks see."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from tensordict import TensorDict
from torch import Tensor

from rrd_lightning.networks.observations import batch_shape
from rrd_lightning.spaces import single_precision, unit_actions, unscaled


class SpaceAdapter:
    """Turns arrays of an environment into tensors of the model, and actions back.

    The model sees observations in single precision, and continuous actions in [-1, 1].

    Args:
        observation_space: of a single environment.
        action_space: of a single environment, in its own bounds.

    Attributes:
        model_spaces: both spaces as the model, and the replay, have them.
    """

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        self._action_space = action_space
        self.model_spaces = single_precision(observation_space)[0], unit_actions(action_space)[0]

    def observation(self, value: Any) -> tuple[Any, bool]:
        """Return observations ``[several, ...]``, and whether there were several.

        Args:
            value: numbers, or a dictionary of them; several have one dimension in front.
        """
        return _batched(value, self.model_spaces[0])

    def action(self, value: Any) -> Tensor:
        """Return actions ``[several, ...]``, of one or several of the environment's."""
        actions: Tensor = _batched(unscaled(np.asarray(value), self._action_space), self.model_spaces[1])[0]
        return actions

    def native_action(self, action: Tensor) -> np.ndarray[Any, Any]:
        """Return the model's actions ``[several, ...]`` as the environment takes them."""
        _, scale = unit_actions(self._action_space)
        native: np.ndarray[Any, Any] = scale(action.cpu().numpy())
        return native


def _batched(value: Any, space: Space[Any]) -> tuple[Any, bool]:
    tensors = _tensors(value, space)
    several = len(batch_shape(tensors, space)) == 1
    batched = tensors if several else tensors[None]
    return batched.auto_batch_size_(1) if isinstance(batched, TensorDict) else batched, several


def _tensors(value: Any, space: Space[Any]) -> Any:
    """Return numbers as tensors of the precision of a space, those of a dictionary as a TensorDict."""
    if isinstance(space, spaces.Dict):
        return TensorDict({key: _tensors(value[key], part) for key, part in space.spaces.items()}, [])
    return torch.from_numpy(np.array(value, space.dtype))
