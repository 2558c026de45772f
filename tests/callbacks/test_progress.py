"""The progress bar."""

from __future__ import annotations

import pytest

from rrd_lightning.callbacks import EnvStepProgressBar
from tests.runs import run


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    run(
        evaluate={"episodes": 1, "every_n_env_steps": 100},
        callbacks=[EnvStepProgressBar()],
        enable_progress_bar=True,
    )
    shown = capsys.readouterr().err
    assert "300/300" in shown
    assert "env steps" in shown
    assert "updates/s=" in shown
    assert "return=-" in shown
