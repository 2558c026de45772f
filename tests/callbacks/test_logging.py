"""The x axis of logged metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback

from rrd_lightning.private import SafeCSVLogger
from tests.logs import read_csv
from tests.runs import run


def test_metrics_are_logged_against_env_steps() -> None:
    run(evaluate={"episodes": 2, "every_n_env_steps": 100}, log_every_n_steps=4)
    rows = read_csv()
    training = [row for row in rows if "loss/critic" in row]
    assert [int(row["step"]) for row in training] == list(range(120, 301, 20))
    assert all("collect/return_mean" in row and "collect/env_steps_per_second" in row for row in training)
    assert [row["collect/replay_transitions"] for row in training] == [row["step"] + ".0" for row in training]
    evaluations = [row for row in rows if "evaluate/return_mean" in row]
    assert [int(row["step"]) for row in evaluations] == [120, 200, 300]


def test_clock_is_exact_beyond_single_precision() -> None:
    class Late(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            pl_module.env_steps = 2**24 + 1

    late = Late()
    run(
        callbacks=[late],
        collect={"total_env_steps": 2**24 + 200},
        evaluate={"episodes": 1, "every_n_env_steps": 2**24},
        log_every_n_steps=4,
    )
    steps = {int(row["step"]) for row in read_csv()}
    assert 2**24 + 121 in steps
    assert all(step % 20 == (2**24 + 1) % 20 for step in steps)


def test_logging_can_be_turned_off() -> None:
    run(log_every_n_steps=0, logger=False)


def test_a_kill_while_columns_are_added_leaves_the_rows_before(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = SafeCSVLogger(".", "logs", flush_logs_every_n_steps=1)
    for step in range(3):
        logger.log_metrics({"a": step}, step)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("csv.DictWriter.writerows", killed)
        with pytest.raises(KeyboardInterrupt):
            logger.log_metrics({"b": 1}, 3)
    assert read_csv() == [{"a": str(step), "step": str(step)} for step in range(3)]
    later = SafeCSVLogger(".", "logs", flush_logs_every_n_steps=1)
    later.log_metrics({"a": 0}, 0)
    later.log_metrics({"b": 1, "c": 2}, 1)
    assert read_csv(Path("logs/version_1")) == [{"a": "0", "step": "0"}, {"b": "1", "c": "2", "step": "1"}]
