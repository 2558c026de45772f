"""The error for bad input."""

from __future__ import annotations

from math import inf


class ParameterError(ValueError):
    """A parameter has an invalid value.

    The message is one line: the parameter, its value, and what would be valid. The command line prints
    it without a traceback.

    Args:
        name: the parameter, such as ``batch_size`` or, with its section, ``data.batch_size``.
        value: the value given.
        problem: what is wrong, and what would be valid.
        section: of docs/troubleshooting.md, if it has more to say.
    """

    def __init__(self, name: str, value: object, problem: str, *, section: str | None = None) -> None:
        more = f" (docs/troubleshooting.md#{section})" if section else ""
        # The text of some values, such as spaces, has several lines.
        super().__init__(" ".join(f"{name}={value!r}: {problem}{more}".split()))
        self.name = name


def require_positive(**parameters: float) -> None:
    """Raise a `ParameterError` for the first parameter that is zero or less."""
    for name, value in parameters.items():
        if not 0 < value < inf:  # nor is what is not a number
            raise ParameterError(
                name, value, "must be greater than zero" + (", and finite" if value > 0 else "")
            )


def require_share(**parameters: float) -> None:
    """Raise a `ParameterError` for the first parameter that is not between 0 and 1."""
    for name, value in parameters.items():
        if not 0 <= value <= 1:
            raise ParameterError(name, value, "must be between 0 and 1")


def require_not_negative(**parameters: float) -> None:
    """Raise a `ParameterError` for the first parameter that is less than zero."""
    for name, value in parameters.items():
        if not 0 <= value < inf:
            raise ParameterError(name, value, "must be finite" if value > 0 else "must not be negative")
