"""Commands as a user would start them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
# Two processes on two cores have one thread each.
SOLE = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


class Job:
    """A command that runs beside the test, with its output in a file."""

    def __init__(self, *command: str, log: str = "log.txt", **environment: str) -> None:
        self.log = Path(log)
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env={**os.environ, **SOLE, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        return self.log.read_text()

    def others(self) -> list[psutil.Process]:
        """The processes that Lightning has started."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "fit" in child.cmdline()]

    def wait_until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 90
        while not true():
            assert self.process.poll() is None, self.output()[-3000:]
            assert time.monotonic() < deadline, self.output()[-3000:]
            time.sleep(0.05)

    def exit_status(self) -> int:
        try:
            return self.process.wait(180)
        finally:
            self.process.kill()
