"""Signals, deferred until the run can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch.utilities import rank_zero_info


class DeferredSignals:
    """Records SIGINT, SIGTERM and the scheduler's requeue signal, and handles them later.

    Lightning handles them immediately: in the middle of an update, when nothing can be saved, and while
    other processes are at another point of the run. A second SIGINT ends the run immediately.

    Attributes:
        received: number of the latest signal, 0 for none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._handlers: dict[int, Any] = {}

    def install(self) -> None:
        """Replace Lightning's handlers; only the main thread may do that, in others nothing happens."""
        self.received = 0
        if threading.current_thread() is not threading.main_thread():
            return
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if number == signal.SIGINT or type(handler).__module__.startswith("lightning."):
                self._handlers[number] = handler
                signal.signal(number, self._receive)

    def restore(self) -> None:
        """Restore the original handlers."""
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._receive:  # unless Lightning has restored it already
                signal.signal(number, handler)
        self._handlers = {}

    def act(self, number: int, *, quiet: bool) -> None:
        """Handle a signal, now that the run is saved.

        Args:
            number: the signal's number.
            quiet: exit with status 0, since another process reports the signal.

        Raises:
            SystemExit: with 128 + `number`, for SIGINT and SIGTERM.
        """
        self.received = 0
        if number in (signal.SIGINT, signal.SIGTERM):
            raise SystemExit(0 if quiet else 128 + number)
        self._handlers[number](number, None)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT == self.received:
            raise KeyboardInterrupt
        self.received = number
        name = signal.Signals(number).name
        hint = " Press Ctrl-C again to stop now, without saving." if number == signal.SIGINT else ""
        rank_zero_info(f"\n{name} received: the run ends after finishing and saving this update.{hint}")
