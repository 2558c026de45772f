"""Gymnasium spaces: as plain data for checkpoints, and as networks observe and act in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from tensordict import TensorDict

from rrd_lightning.errors import ParameterError
from rrd_lightning.frames import StackedFrames

Convert = Callable[[Any], Any]


def space_to_dict(space: Space[Any]) -> dict[str, Any]:
    """Describe a Box, a Discrete, or a Dict of these by numbers, strings and lists.

    Raises:
        ParameterError: for any other space.
    """
    if isinstance(space, StackedFrames):
        return {"type": "StackedFrames", "frame": space_to_dict(space.frame), "count": space.count}
    if isinstance(space, spaces.Box):
        return {
            "type": "Box",
            "shape": list(space.shape),
            "dtype": str(space.dtype),
            "low": _bound(space.low),
            "high": _bound(space.high),
        }
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "spaces": {key: space_to_dict(part) for key, part in space.spaces.items()}}
    raise ParameterError("space", space, "must be a Box, a Discrete or a Dict of these")


def space_from_dict(description: dict[str, Any]) -> Space[Any]:
    """Build the space that `space_to_dict` described.

    Raises:
        ParameterError: if the type is unknown.
    """
    kind = description["type"]
    if kind == "StackedFrames":
        return StackedFrames(space_from_dict(description["frame"]), description["count"])  # type: ignore[arg-type]
    if kind == "Box":
        shape, dtype = tuple(description["shape"]), np.dtype(description["dtype"])
        low, high = (
            np.broadcast_to(np.asarray(description[key], dtype=dtype), shape).copy() for key in ("low", "high")
        )
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(description["n"], start=description["start"])
    if kind == "Dict":
        return spaces.Dict({key: space_from_dict(part) for key, part in description["spaces"].items()})
    raise ParameterError("space.type", kind, "must be 'Box', 'Discrete', 'Dict' or 'StackedFrames'")


def _bound(bound: np.ndarray[Any, Any]) -> Any:
    """Return a bound as nested lists, or as one number if it is the same everywhere."""
    return bound.flat[0].item() if bound.size and (bound == bound.flat[0]).all() else bound.tolist()


def unit_actions(space: Space[Any]) -> tuple[Space[Any], Convert]:
    """Return the action space scaled to [-1, 1], and the function that scales back; only for bounded spaces."""
    if not is_scaled(space):
        return space, _unchanged
    low, high, dtype = space.low, space.high, space.dtype  # type: ignore[attr-defined]
    # In this form, bounds of [-1, 1] leave an action unchanged to the last bit.
    middle, half = (high + low) / 2, (high - low) / 2

    def scale(action: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        # Faster than np.clip.
        scaled: np.ndarray[Any, Any] = np.minimum(np.maximum(middle + half * action, low), high)
        return scaled.astype(dtype, copy=False)

    return spaces.Box(-1.0, 1.0, space.shape, np.float32), scale


def unscaled(action: Any, space: Space[Any]) -> Any:
    """Scale actions of a space to [-1, 1], the inverse of the function that `unit_actions` returns."""
    if not is_scaled(space):
        return action
    low, high = space.low, space.high  # type: ignore[attr-defined]
    middle, half = (high + low) / 2, (high - low) / 2
    return ((action - middle) / np.where(half > 0, half, 1)).clip(-1, 1).astype(np.float32)


def is_scaled(space: Space[Any]) -> bool:
    """Tell whether actions of a space are scaled to [-1, 1]: continuous ones with finite bounds."""
    return isinstance(space, spaces.Box) and space.is_bounded() and np.issubdtype(space.dtype, np.floating)


def single_precision(space: Space[Any]) -> tuple[Space[Any], Convert]:
    """Return the observation space with numbers made float32, and the function that casts.

    Numbers are all of floating precision, and vectors of integers, which are no image.
    """
    if isinstance(space, spaces.Dict):
        parts = {key: single_precision(part) for key, part in space.spaces.items()}
        if all(cast is _unchanged for _, cast in parts.values()):
            return space, _unchanged
        return (
            spaces.Dict({key: part for key, (part, _) in parts.items()}),
            lambda observation: {key: cast(observation[key]) for key, (_, cast) in parts.items()},
        )
    numbers = isinstance(space, spaces.Box) and (
        np.issubdtype(space.dtype, np.floating) or len(space.shape) == 1
    )
    if not isinstance(space, spaces.Box) or not numbers or space.dtype == np.float32:
        return space, _unchanged
    # Gymnasium's DtypeObservation would warn about casting the bounds.
    single = spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
    return single, lambda observation: observation.astype(np.float32)


def zeros(space: Space[Any], count: int) -> Any:
    """Return observations ``[count, ...]`` of zeros, or of a Discrete's first element."""
    if isinstance(space, spaces.Dict):
        return TensorDict({key: zeros(part, count) for key, part in space.spaces.items()}, [count])
    first = int(space.start) if isinstance(space, spaces.Discrete) else 0
    return torch.from_numpy(np.full((count, *(space.shape or ())), first, space.dtype))


def _unchanged(value: Any) -> Any:
    return value
