"""What to do when an environment fails."""

from __future__ import annotations

import logging

from rrd_lightning.errors import ParameterError

DROPPED = "dropped"
MAX_FAILURES = 5
_log = logging.getLogger(__name__)


class UnusableValueError(Exception):
    """An environment gave what nothing can be learned from, such as a reward that is not a number."""


class FailedEnvironmentError(ParameterError):
    """An environment failed again and again, or gave what nothing can be learned from.

    It is raised between updates, so that the run can be saved.
    """


class Failures:
    """Counts how often each environment has failed since it last finished an episode.

    Args:
        num_envs: number of environments.
    """

    def __init__(self, num_envs: int) -> None:
        self._counts = [0] * num_envs

    def add(self, index: int, cause: Exception, reason: str = "") -> None:
        """Count a failure after which the environment is made again, and its episode dropped.

        Args:
            index: of the environment.
            cause: what it raised.
            reason: what to tell of it; the cause itself by default.

        Raises:
            FailedEnvironmentError: if the environment has failed more than 5 times in a row, or another try
                would not help: it gave an unusable value, or has an unusable setting.
        """
        if isinstance(cause, UnusableValueError):
            raise FailedEnvironmentError("environment", index, f"gave {cause}") from cause
        if isinstance(cause, ParameterError):
            raise FailedEnvironmentError("environment", index, f"cannot be used: {cause}") from cause
        self._counts[index] += 1
        reason = reason or f"{type(cause).__name__}: {cause}"
        if self._counts[index] > MAX_FAILURES:
            raise FailedEnvironmentError(
                "environment",
                index,
                f"failed {self._counts[index]} times without finishing an episode in between; "
                f"the last error: {reason}",
            ) from cause
        _log.warning("Environment %d failed and is restarted, its episode is dropped: %s", index, reason)

    def forget(self, index: int) -> None:
        """Forget the failures of an environment that has finished an episode."""
        self._counts[index] = 0
