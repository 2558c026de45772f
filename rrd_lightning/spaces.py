"""Gymnasium spaces: as plain data for checkpoints, and as networks observe and act in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
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
    return is_continuous(space) and has_finite_range(space)  # type: ignore[arg-type]


def has_finite_range(space: spaces.Box) -> bool:
    """Tell whether a space has bounds between which numbers can be scaled: finite, as is their difference."""
    with np.errstate(over="ignore"):
        return space.is_bounded() and bool(np.isfinite([space.high - space.low, space.high + space.low]).all())


def is_continuous(space: Space[Any]) -> bool:
    """Tell whether a space is one of floating numbers."""
    return isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)


def single_precision(space: Space[Any]) -> tuple[Space[Any], Convert]:
    """Return the observation space with numbers made float32, and the function that reads an observation.

    Numbers are all of floating precision, and vectors of integers, which are no image.

    It returns a copy in the new space's precision, since environments may write into what they gave. It raises
    a `ValueError` for what is not of the space's shape, not finite, or another number in its precision.
    """
    if isinstance(space, spaces.Dict):
        parts = {key: single_precision(part) for key, part in space.spaces.items()}
        readers = {key: read for key, (_, read) in parts.items()}
        return spaces.Dict({key: part for key, (part, _) in parts.items()}), partial(_read_parts, readers)
    if isinstance(space, spaces.Box) and (np.issubdtype(space.dtype, np.floating) or len(space.shape) == 1):
        if space.dtype != np.float32:
            # Gymnasium's DtypeObservation would warn about casting the bounds.
            space = spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
        return space, partial(_read_floats, space.shape)
    if isinstance(space, spaces.Box | spaces.Discrete):
        return space, partial(_read_integers, space)
    return space, deepcopy


def _read_floats(shape: tuple[int, ...], value: Any) -> np.ndarray[Any, Any]:
    array = np.array(value, np.float32)
    if array.shape != shape:
        raise ValueError(f"of shape {array.shape}, must have shape {shape}")
    # The product is finite where all numbers are, unless they are large, and takes a third of the time.
    if not math.isfinite(np.vdot(array, array)) and not np.isfinite(array).all():
        raise ValueError(f"with {array[~np.isfinite(array)][0]}, must be finite")
    return array


def _read_integers(space: Any, value: Any) -> np.ndarray[Any, Any]:
    given = np.asarray(value)
    array = given.astype(space.dtype)
    if array.shape != space.shape:
        raise ValueError(f"of shape {array.shape}, must have shape {space.shape}")
    if given.dtype != space.dtype and not np.array_equal(array, given):
        raise ValueError(f"of {given.dtype}, must be of {space.dtype}")
    if isinstance(space, spaces.Discrete) and not space.start <= array < space.start + space.n:
        raise ValueError(f"of {array}, must be in {space}")
    return array


def _read_parts(readers: dict[str, Convert], value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value.keys() >= readers.keys():
        raise ValueError(f"{type(value).__name__}, must be a dictionary of {list(readers)}")
    return {key: read(value[key]) for key, read in readers.items()}


def zeros(space: Space[Any], count: int) -> Any:
    """Return observations ``[count, ...]`` of zeros, or of a Discrete's first element."""
    if isinstance(space, spaces.Dict):
        return TensorDict({key: zeros(part, count) for key, part in space.spaces.items()}, [count])
    first = int(space.start) if isinstance(space, spaces.Discrete) else 0
    return torch.from_numpy(np.full((count, *(space.shape or ())), first, space.dtype))


def _unchanged(value: Any) -> Any:
    return value
