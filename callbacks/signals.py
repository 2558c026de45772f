"""Signals that wait until the run can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch.utilities import rank_zero_info


class DeferredSignals:
    """Takes note of SIGINT, SIGTERM and the scheduler's requeue signal, and acts on them later.

    Lightning acts at once: in the middle of an update, where nothing can be saved, and, with several
    processes, where the others are in the middle of something else. A second SIGINT ends the run at
    once.

    Attributes:
        received: the number of the latest signal, 0 for none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._handlers: dict[int, Any] = {}

    def install(self) -> None:
        """Stand in for the handlers of Lightning; in the main thread, which alone may do that."""
        self.received = 0
        if threading.current_thread() is not threading.main_thread():
            return
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if number == signal.SIGINT or type(handler).__module__.startswith("lightning."):
                self._handlers[number] = handler
                signal.signal(number, self._receive)

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._receive:  # Lightning may have been first
                signal.signal(number, handler)
        self._handlers = {}

    def act(self, number: int, *, quiet: bool) -> None:
        """Do what a signal asks for, now that the run is saved.

        Args:
            number: of the signal.
            quiet: exit with status 0 all the same, where another process tells of the signal.

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
        hint = " A second Ctrl-C stops at once." if number == signal.SIGINT else ""
        rank_zero_info(f"\n{name}: the run ends when the update is finished and saved.{hint}")
