"""Gymnasium spaces as plain data, for checkpoints that are read without unpickling objects."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space, spaces

from rrd_lightning.errors import ParameterError


def space_to_dict(space: Space[Any]) -> dict[str, Any]:
    """Describe a Box, a Discrete, or a Dict of these by numbers, strings and lists.

    Raises:
        ParameterError: for any other space.
    """
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
    raise ParameterError("space.type", kind, "must be 'Box', 'Discrete' or 'Dict'")


def _bound(bound: np.ndarray[Any, Any]) -> Any:
    """Return a bound as nested lists, or as one number if it is the same everywhere."""
    return bound.flat[0].item() if bound.size and (bound == bound.flat[0]).all() else bound.tolist()
