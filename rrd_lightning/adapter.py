"""Between what an environment gives and takes, and what networks see."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import Space
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
        self._spaces = observation_space, action_space
        self.model_spaces = single_precision(observation_space)[0], unit_actions(action_space)[0]

    def observation(self, value: Any) -> tuple[Any, bool]:
        """Return observations ``[several, ...]``, and whether there were several.

        Args:
            value: an array, or a dictionary of arrays; several have one dimension in front.
        """
        _, cast = single_precision(self._spaces[0])
        return _batched(cast(_arrays(value)), self._spaces[0])

    def action(self, value: Any) -> Tensor:
        """Return actions ``[several, ...]``, of one or several of the environment's."""
        actions: Tensor = _batched(unscaled(_arrays(value), self._spaces[1]), self._spaces[1])[0]
        return actions

    def native_action(self, action: Tensor) -> np.ndarray[Any, Any]:
        """Return the model's actions ``[several, ...]`` as the environment takes them."""
        _, scale = unit_actions(self._spaces[1])
        native: np.ndarray[Any, Any] = scale(action.cpu().numpy())
        return native


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _arrays(part) for key, part in value.items()}
    return np.asarray(value)


def _batched(arrays: Any, space: Space[Any]) -> tuple[Any, bool]:
    tensors = _tensors(arrays)
    several = len(batch_shape(tensors, space)) == 1
    batched = tensors if several else tensors[None]
    return batched.auto_batch_size_(1) if isinstance(batched, TensorDict) else batched, several


def _tensors(arrays: Any) -> Any:
    if isinstance(arrays, dict):
        return TensorDict({key: _tensors(part) for key, part in arrays.items()}, [])
    return torch.from_numpy(np.ascontiguousarray(arrays))
