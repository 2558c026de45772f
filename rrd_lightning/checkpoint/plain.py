"""What can be read back without unpickling objects: plain data, tensors, and NumPy as tensors."""

from __future__ import annotations

import copy
import io
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rrd_lightning.errors import ParameterError

ARRAY, SCALAR = "numpy array", "numpy scalar"
READABLE = {type(None), bool, int, float, complex, str, bytes, Tensor, nn.Parameter}
CONTAINERS = {dict, OrderedDict, list, tuple}


def to_plain(value: Any, name: str = "") -> Any:
    """Replace NumPy's scalars and arrays by tensors that `from_plain` turns into what they were.

    Args:
        value: what is to be written. It is copied as far as anything in it is replaced.
        name: what it is called in an error.

    Raises:
        ParameterError: naming what is no plain data, so that `torch.load` would refuse the whole file.
    """
    kind = type(value)
    if kind in CONTAINERS:
        return _mapped(value, lambda part, key: to_plain(part, f"{name}.{key}" if name else str(key)))
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufc":
        try:
            # A copy in C order and of native byte order, which `astype` makes; a scalar has no dimension.
            tensor = torch.from_numpy(np.asarray(value).astype(value.dtype.newbyteorder("="), order="C"))
            return {ARRAY if isinstance(value, np.ndarray) else SCALAR: tensor}
        except TypeError:  # of more digits than torch has
            pass
    if kind not in READABLE and not _can_be_read(value):
        raise ParameterError(
            name,
            value,
            f"is {kind.__module__}.{kind.__qualname__}, which a checkpoint cannot hold: let state_dict return "
            "numbers, text, lists, dictionaries, tensors and NumPy arrays of numbers",
            section="checkpoints",
        )
    return value


def from_plain(value: Any) -> Any:
    """Turn what `to_plain` returned into what it was given."""
    if type(value) not in CONTAINERS:
        return value
    if type(value) is dict and len(value) == 1:
        if isinstance(array := value.get(ARRAY), Tensor):
            return array.numpy()
        if isinstance(scalar := value.get(SCALAR), Tensor):
            return scalar.numpy()[()]
    return _mapped(value, lambda part, key: from_plain(part))


def _mapped(container: Any, change: Any) -> Any:
    """Return a container with its parts changed: the same one if none does."""
    named = isinstance(container, dict)
    parts = list(container.items()) if named else list(enumerate(container))
    # A key that is NumPy's is equal to the plain one.
    changed = [(_plain_key(key), change(part, key)) for key, part in parts]
    if all(new is old and key is known for (known, old), (key, new) in zip(parts, changed, strict=True)):
        return container
    if not named:
        return type(container)(part for _, part in changed)
    mapped = copy.copy(container)  # with the attributes that a module's state has
    mapped.clear()
    mapped.update(changed)
    return mapped


def _plain_key(key: Any) -> Any:
    return key.item() if isinstance(key, np.generic) else key


def _can_be_read(value: Any) -> bool:
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception:  # pickle and what it calls raise anything
        return False
    return True
