from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from rrd_lightning.errors import ParameterError
from rrd_lightning.report.runs import read_runs
from tests.report.folders import write_run


def returns(run) -> dict[int, float]:  # noqa: ANN001
    return run.evaluations["return_mean"].to_dict()


def test_runs_are_found_at_any_depth(tmp_path: Path) -> None:
    write_run(tmp_path / "a/b/version_0", [1.0, 2.0], seed=1)
    write_run(tmp_path / "version_10", [3.0], seed=2)
    write_run(tmp_path / "version_9", [4.0], seed=3)
    runs, left_out = read_runs([tmp_path, tmp_path / "a/b"])
    assert [(run.seed, run.env_steps) for run in runs] == [(1, 2000), (3, 1000), (2, 1000)]
    assert left_out == []


@pytest.mark.parametrize("moved", [False, True])
def test_a_resumed_run_is_one_run(tmp_path: Path, moved: bool) -> None:
    """What was made before the kill, but after the save, is what the later part made of it."""
    root = tmp_path / "runs/Pendulum-v1"
    first = write_run(root / "version_0", [1.0, 2.0, 3.0])
    second = write_run(root / "version_1", [30.0], first=3000, resumes=first)
    write_run(root / "version_2", [40.0, 50.0], first=4000, resumes=second, budget=5000)
    if moved:
        shutil.move(tmp_path / "runs", tmp_path / "elsewhere")
    (run,), left_out = read_runs([tmp_path])
    assert returns(run) == {1000: 1.0, 2000: 2.0, 3000: 30.0, 4000: 40.0, 5000: 50.0}
    assert (run.budget, left_out) == (5000, [])


def test_a_run_that_starts_from_another_tasks_checkpoint_is_its_own(tmp_path: Path) -> None:
    first = write_run(tmp_path / "version_0", [1.0, 2.0])
    write_run(tmp_path / "version_1", [5.0], task="Hopper-v5", first=3000, resumes=first)
    runs, _ = read_runs([tmp_path])
    assert [returns(run) for run in runs] == [{1000: 1.0, 2000: 2.0}, {3000: 5.0}]


def test_a_part_of_that_name_beside_it_is_not_taken_for_one_that_lies_elsewhere(tmp_path: Path) -> None:
    elsewhere = write_run(tmp_path / "other/version_0", [1.0, 2.0])
    write_run(tmp_path / "runs/version_0", [7.0], seed=5)
    write_run(tmp_path / "runs/version_1", [3.0], first=3000, resumes=elsewhere)
    runs, _ = read_runs([tmp_path / "runs"])
    assert [returns(run) for run in runs] == [{1000: 7.0}, {3000: 3.0}]


def test_damaged_rows_are_named_and_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "version_0", [1.0])
    rows = ["2000,2.0", "x000,3.0,", "4000,nan,", "5000,5.0,", "6000,,0.1", "7000,7"]
    with (folder / "metrics.csv").open("a") as file:
        file.write("\n".join(rows))  # the last one has no end: the run was killed, or writes it now
    (run,), left_out = read_runs([tmp_path])
    assert returns(run) == {1000: 1.0, 5000: 5.0}
    reasons = ["damaged row 3", "damaged row 4", "return nan in row 5", "damaged row 8"]
    assert left_out == [f"version_0: {reason} of metrics.csv" for reason in reasons]


def test_a_number_cut_off_at_the_end_is_not_taken_for_a_number(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "version_0", [1.0, 2345.0])
    path = folder / "metrics.csv"
    path.write_text("step,evaluate/return_mean\n1000,1.0\n2000,23")
    (run,), _ = read_runs([tmp_path])
    assert returns(run) == {1000: 1.0}


def test_runs_that_cannot_be_reported_on_are_named(tmp_path: Path) -> None:
    for name in ("broken", "logs", "other", "sections", "test", "offline", "early", "warming_up", "empty"):
        write_run(tmp_path / name, [1.0])
    (tmp_path / "broken/config.yaml").write_text("model: [")
    (tmp_path / "logs/config.yaml").unlink()
    (tmp_path / "other/config.yaml").write_text("model: 3")
    (tmp_path / "sections/config.yaml").write_text("{model: {}, env: {id: Pendulum-v1}, collect: null}")
    with (tmp_path / "test/config.yaml").open("a") as file:
        file.write("verbose: true\n")
    config = tmp_path / "offline/config.yaml"
    config.write_text(config.read_text().replace("id: Pendulum-v1", "id: null"))
    (tmp_path / "early/metrics.csv").unlink()
    (tmp_path / "warming_up/metrics.csv").write_text("loss/reward,step\n1.0,100\n")
    (tmp_path / "empty/metrics.csv").write_text("")
    runs, left_out = read_runs([tmp_path])
    assert runs == []
    assert left_out == [
        "broken: config.yaml cannot be read",
        "early: has no evaluation: there is no metrics.csv",
        "empty: has no evaluation",
        "logs: there is no config.yaml",
        "offline: has no environment",
        "other: config.yaml is not that of a run",
        "sections: config.yaml is not that of a run",
        "test: evaluates a checkpoint of another run",
        "warming_up: has no evaluation",
    ]


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"runs=.*nowhere.* does not exist"):
        read_runs([tmp_path / "nowhere"])


def test_wall_time_is_that_of_tensorboards_events_over_all_parts(tmp_path: Path) -> None:
    first = write_run(tmp_path / "version_0", [1.0])
    second = write_run(tmp_path / "version_1", [2.0], first=2000, resumes=first)
    for folder, times in ((first, (100.0, 120.0, 160.0)), (second, (1000.0, 1030.0))):
        with (folder / "events.out.tfevents.0").open("wb") as file:
            for time in times:
                RecordWriter(file).write(Event(wall_time=time).SerializeToString())
    (run,), _ = read_runs([tmp_path])
    assert run.seconds == 60 + 30


def test_wall_time_is_unknown_without_tensorboard(tmp_path: Path) -> None:
    write_run(tmp_path, [1.0])
    (run,), _ = read_runs([tmp_path])
    assert math.isnan(run.seconds)
