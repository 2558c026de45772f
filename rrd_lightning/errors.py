"""The one error for what a user passed in."""

from __future__ import annotations


class ParameterError(ValueError):
    """A parameter has a value that cannot work.

    The message is one line: the parameter, its value, and what would be right. The command line
    prints it without a traceback.

    Args:
        name: the parameter (``batch_size``), with its section where that helps (``data.batch_size``).
        value: what was given.
        problem: what is wrong and what would be right.
    """

    def __init__(self, name: str, value: object, problem: str) -> None:
        # One line, also where a value's text, such as a space's, has several.
        super().__init__(" ".join(f"{name}={value!r}: {problem}".split()))
        self.name = name


def require_positive(**parameters: float) -> None:
    """Raise a `ParameterError` for the first parameter that is zero or less."""
    for name, value in parameters.items():
        if value <= 0:
            raise ParameterError(name, value, "must be greater than zero")


def require_not_negative(**parameters: float) -> None:
    """Raise a `ParameterError` for the first parameter that is less than zero."""
    for name, value in parameters.items():
        if value < 0:
            raise ParameterError(name, value, "must not be negative")
