from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from rrd_lightning.cli import main
from rrd_lightning.report.page import readable, write_number, write_time
from tests.report.folders import write_run


def write_campaign(folder: Path) -> None:
    for task in ("Pendulum-v1", "Hopper-v5"):
        for seed in (0, 1):
            for decomposition in ("RRD", "EnvironmentReward", "EpisodicReward"):
                given = {"decomposition": decomposition, "task": task, "seed": seed, "correlation": 0.5}
                write_run(folder / f"{task}-{decomposition}-{seed}", [1.0, 2.0 + seed], budget=2000, **given)


def test_a_report_has_pictures_tables_and_a_page_of_its_own(tmp_path: Path) -> None:
    write_campaign(tmp_path / "runs")
    write_run(tmp_path / "runs/short", [1.0], seed=2)
    main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "report")])
    pictures = {f"{name}.{kind}" for name in ("curves", "Hopper-v5", "Pendulum-v1") for kind in ("png", "svg")}
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert written == {"index.html", "report.md", "report.csv", *pictures}
    page = (tmp_path / "report/index.html").read_text()
    assert page.count("<svg") == 3
    assert "src=" not in page  # it opens from disk and can be sent as it is
    assert "<link" not in page
    assert "short: at 1,000 of 3,000 env steps, not in the table yet" in page
    text = (tmp_path / "report/report.md").read_text()
    assert "| RRD | 2 | 2.5 [2, 3] |" in text
    table = pd.read_csv(tmp_path / "report/report.csv")
    assert table["task"].tolist() == ["Hopper-v5"] * 3 + ["Pendulum-v1"] * 3
    assert table["final"].tolist() == [2.5] * 6


def test_runs_of_other_tasks_are_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_run(tmp_path / "a", [1.0])
    write_run(tmp_path / "b", [1.0], task="Hopper-v5")
    with caplog.at_level("INFO"):
        main(["report", str(tmp_path), "--output", str(tmp_path / "report"), "--task", "Pendulum-v1"])
    assert "Left out: b: is of Hopper-v5" in caplog.text
    assert "Hopper" not in (tmp_path / "report/report.csv").read_text()


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("nowhere", "nowhere': does not exist"),
        (".", "hold no run with an evaluation: empty: there is no config.yaml"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, runs: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/metrics.csv").write_text("")
    with pytest.raises(SystemExit, match=message):
        main(["report", str(tmp_path / runs), "--output", str(tmp_path / "report")])
    assert not (tmp_path / "report").exists()


def test_numbers_for_readers() -> None:
    assert [write_number(value) for value in (-1234.5, 0.12345, float("nan"))] == ["−1,234", "0.123", "–"]
    assert [write_time(minutes) for minutes in (0.5, 42.3, 150)] == ["0.5 min", "42 min", "2.5 h"]


def test_columns_that_say_nothing_are_left_out() -> None:
    row = {"method": "RRD", "seeds": 1, "final": 3.0, "final_low": 3.0, "final_high": 3.0, "iqm": 3.0}
    row |= {"best": 3.0, "minutes": 1.0, "commits": ""}
    row |= dict.fromkeys(("share", "share_low", "share_high", "reward_pearson"), float("nan"))
    written = readable(pd.DataFrame([row]))
    assert list(written.columns) == [
        "method",
        "seeds",
        "final return",
        "interquartile mean",
        "best return",
        "wall time a run",
    ]
