"""The command line in tests: a short run, its metrics, and the one line of an error."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from rrd_lightning.cli import main

DEBUG = ["fit", "--config", "debug", "--trainer.accelerator=cpu"]


def error_of(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run what must fail, and return its one line of error."""
    with pytest.raises(SystemExit) as stop:
        main(args)
    message = str(stop.value.code) if isinstance(stop.value.code, str) else capsys.readouterr().err
    assert stop.value.code
    lines = [line for line in message.strip().splitlines() if "error:" in line.lower()]
    assert len(lines) == 1, message
    assert not Path("runs").exists(), "the error came after a run had begun"
    return lines[0]


def metrics(version: int = 0, env: str = "Pendulum-v1") -> list[dict[str, str]]:
    with Path(f"runs/{env}/version_{version}/metrics.csv").open() as file:
        return list(csv.DictReader(file))
