"""The progress bar."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from rrd_lightning.callbacks import EnvStepProgressBar
from tests.runs import run


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(monkeypatch: pytest.MonkeyPatch, file: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", file)
    run(
        evaluate={"episodes": 1, "every_n_env_steps": 100},
        callbacks=[EnvStepProgressBar()],
        enable_progress_bar=True,
    )
    shown = file.getvalue()
    assert "300/300" in shown
    assert "env steps" in shown
    assert "updates/s=" in shown
    assert "return=-" in shown
    return shown


def test_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\r" in show(monkeypatch, Terminal())


def test_a_log_file_has_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run takes less: a line at its start, and one at its end."""
    shown = show(monkeypatch, io.StringIO())
    assert "\r" not in shown
    lines = [line for line in shown.splitlines() if "env steps" in line and "/300" in line]
    assert [line.split()[0] for line in lines] == ["0.00/300", "300/300"]


def test_notebooks_have_their_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shell: Any = SimpleNamespace(get_ipython=lambda: SimpleNamespace(config={"IPKernelApp": {}}))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert "\r" in show(monkeypatch, io.StringIO())
