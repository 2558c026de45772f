"""Classes by their import path, as configurations and checkpoints name them."""

from __future__ import annotations

from importlib import import_module
from typing import TypeVar

from rrd_lightning.errors import ParameterError

Base = TypeVar("Base")


def find_class(class_path: str, base: type[Base]) -> type[Base]:
    """Import a class such as ``my_package.MyReader``.

    Raises:
        ParameterError: if there is no such class, or it is not a subclass of `base`.
    """
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        found = None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ParameterError("class_path", class_path, f"must name a subclass of {base.__qualname__}")
    return found
