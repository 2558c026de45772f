"""Success, as environments and files report it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

# Names under which the infos of a step may tell it; the first that is there counts.
SUCCESS_KEYS = ("success", "is_success")

# Of the last step of an episode, or of any.
SuccessOf = Literal["last", "any"]


def read_success(value: Any) -> bool | None:
    """Return whether a task has succeeded; None if that is not known.

    Args:
        value: true or false, 1 or 0; an array or a dictionary of these, which all must be true; or None.

    Raises:
        ValueError: if it is anything else, such as a text, a share or not a number.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if value is None:
        return None
    if isinstance(value, Mapping) and value:
        parts = [read_success(part) for part in value.values()]
        return None if None in parts else all(parts)
    array = np.asarray(value)
    if not (array.size and array.dtype.kind in "biuf" and np.isin(array, (0, 1)).all()):
        raise ValueError(
            f"success {value!r}, must be true or false, 1 or 0, or an array or dictionary of these"
        )
    return bool(array.all())


def find_success(infos: Mapping[str, Any]) -> bool | None:
    """Return what the infos of a step tell of success; None if nothing.

    Raises:
        ValueError: as `read_success` does.
    """
    for key in SUCCESS_KEYS:
        if key in infos:
            return read_success(infos[key])
    return None


def follow_success(before: bool | None, now: bool | None, success_of: SuccessOf) -> bool | None:
    """Return the success of an episode up to a step.

    Args:
        before: up to the step before; None if nothing was known.
        now: as the step tells; None if it tells nothing, which means false once something was known.
        success_of: the step that decides.
    """
    if before is None or now is None:
        return now if before is None else before and success_of == "any"
    return now or (before and success_of == "any")
