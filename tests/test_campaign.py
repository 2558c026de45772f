"""Campaigns: which runs there are, in which order, and what is kept of them."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import yaml

from benchmarks.campaign import __main__ as campaign
from benchmarks.campaign import results
from benchmarks.campaign.matrix import Job, read_matrix
from benchmarks.campaign.run import CampaignRun
from rrd_lightning.report.runs import PROVENANCE, Run

MATRIX = """
budgets: [2000, 1000]
seeds: [3, 4]
arguments: --config debug
tasks: {Pendulum-v1: "--evaluate.episodes 2"}
methods: {RRD: "--model.decomposition RRD", "RRD, TD3": [--seed 1, --model.agent TD3]}
"""


def write_matrix(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(MATRIX), **changes}))
    return path


def test_smaller_budgets_come_first_then_seeds_then_methods(tmp_path: Path) -> None:
    jobs = read_matrix(write_matrix(tmp_path))
    assert [(job.budget, job.seed, job.method) for job in jobs] == [
        (budget, seed, method) for budget in (1000, 2000) for seed in (3, 4) for method in ("RRD", "RRD, TD3")
    ]
    assert jobs[1].path == jobs[5].path == "Pendulum-v1/RRD_TD3/3"
    assert jobs[1].arguments[-4:] == ("--seed", "1", "--model.agent", "TD3")
    assert jobs[0].arguments == (
        *("--config", "debug", "--evaluate.episodes", "2"),
        *("--model.decomposition", "RRD"),
    )


def test_arguments_may_name_the_seed(tmp_path: Path) -> None:
    jobs = read_matrix(write_matrix(tmp_path, arguments="--model.encoder encoders/{seed}/last.ckpt"))
    assert [job.arguments[1] for job in jobs[:3]] == [f"encoders/{seed}/last.ckpt" for seed in (3, 3, 4)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "needs budgets, seeds, tasks and methods"),
        ({"budgets": [1000.5]}, "budgets: .* no list of numbers"),
        ({"budgets": [0]}, "budgets: .* no list of numbers"),
        ({"budgets": []}, "budgets: .* no list of numbers"),
        ({"seeds": 3}, "seeds: 3 is no list"),
        ({"methods": []}, "methods: needs names"),
        ({"arguments": [3]}, "arguments: .* no text"),
        ({"tasks": {"Pendulum-v1": {"id": ""}}}, "Pendulum-v1: .* no text"),
        ({"methods": {"RRD, TD3": "", "RRD TD3": ""}}, "two runs of the same name"),
    ],
)
def test_a_matrix_that_is_none_is_named(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_matrix(write_matrix(tmp_path, **changes))


def test_packaged_matrices_can_be_read() -> None:
    found = list((Path(results.ROOT) / "benchmarks/campaigns").glob("*.yaml"))
    assert len(found) >= 1
    for path in found:
        assert read_matrix(path)


def make_run(steps: list[int]) -> Run:
    table = pd.DataFrame({"step": steps, "return_mean": [float(step) for step in steps], "odd": 1.0})
    config = {
        "seed_everything": 0,
        "model": {"agent": "SAC"},
        "env": {"id": "Pendulum-v1"},
        "collect": {"total_env_steps": 2000},
        "trainer": {"default_root_dir": "somewhere"},
    }
    return Run(Path("nowhere"), "nowhere", config, table.set_index("step"))


def test_what_is_kept_can_be_read_again_and_says_nothing_of_folders(tmp_path: Path) -> None:
    results.keep(make_run([500, 1000]), tmp_path, {"seconds": 90, "parts": [{"commit": "abc"}]})
    kept = results.furthest(tmp_path)
    assert kept is not None
    assert kept.evaluations.to_dict() == {"return_mean": {500: 500.0, 1000: 1000.0}}
    assert (kept.seconds, kept.commits) == (90.0, ["abc"])
    assert "somewhere" not in (tmp_path / "config.yaml").read_text()


def test_a_run_begun_anew_elsewhere_does_not_replace_a_longer_one(tmp_path: Path) -> None:
    results.keep(make_run([500, 1000]), tmp_path, {"finished": 1000})
    results.keep(make_run([500]), tmp_path, {})
    assert results.read_provenance(tmp_path) == {"finished": 1000}
    results.keep(make_run([500, 1000, 1500]), tmp_path, {})
    assert results.furthest(tmp_path).env_steps == 1500


def test_finished_runs_are_known_by_what_is_kept(tmp_path: Path) -> None:
    job = Job("Pendulum-v1", "RRD", 0, 1000, ("--config", "debug"))
    run = CampaignRun(job, tmp_path / "runs", tmp_path / "results", "")
    assert not run.finished()
    results.write(run.results / PROVENANCE, yaml.safe_dump({"finished": 999}))
    assert not run.finished()
    results.write(run.results / PROVENANCE, yaml.safe_dump({"finished": 1000}))
    assert run.finished()


def test_a_run_of_other_arguments_is_not_continued(tmp_path: Path) -> None:
    run = CampaignRun(
        Job("Pendulum-v1", "RRD", 0, 1000, ("--config", "debug")), tmp_path, tmp_path / "results", ""
    )
    run.check()
    results.write(run.folder / PROVENANCE, yaml.safe_dump({"arguments": ["--config", "mujoco"]}))
    with pytest.raises(ValueError, match="was made with other arguments"):
        run.check()


def test_a_run_that_another_process_has_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = CampaignRun(Job("Pendulum-v1", "RRD", 0, 1000, ()), tmp_path, tmp_path / "results", "")
    run.folder.mkdir(parents=True)
    with (run.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not run.start()
        assert not run.start()
    assert capsys.readouterr().out == "Pendulum-v1, RRD, seed 0: runs already: waiting for it\n"


class FakeRun:
    """A run that ends at its second look, with a status."""

    active: ClassVar[list[FakeRun]] = []
    events: ClassVar[list[str]] = []

    def __init__(self, folder: str, name: str, status: int = 0, *, done: bool = False) -> None:
        self.folder, self.name, self.status, self.done, self.looks = folder, name, status, done, 0

    def finished(self) -> bool:
        return self.done

    def start(self) -> bool:
        self.active.append(self)
        self.events.append(f"{self.name} of {len(self.active)}")
        return True

    def look(self) -> int | None:
        self.looks += 1
        if self.looks < 2:
            return None
        self.active.remove(self)
        return self.status


def test_so_many_at_a_time_and_the_budgets_of_a_run_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(campaign, "SECONDS_BETWEEN_LOOKS", 0)
    monkeypatch.setattr(FakeRun, "events", [])
    runs = [
        FakeRun("a", "a, finished before", done=True),
        FakeRun("b", "b", status=1),
        FakeRun("c", "c"),
        FakeRun("b", "b, next budget"),
        FakeRun("c", "c, next budget"),
    ]
    failed = campaign.work(list(runs), at_once=2)
    assert FakeRun.events == ["b of 1", "c of 2", "c, next budget of 1"]
    assert failed == [runs[1]]


@contextmanager
def started(matrix: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.campaign", str(matrix)]
    options = ["--runs", str(folder / "runs"), "--results", str(folder / "results")]
    with subprocess.Popen([*command, *options], cwd=results.ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process


@pytest.mark.slow
def test_a_campaign_goes_on_where_it_was_stopped_or_killed(tmp_path: Path) -> None:
    matrix = write_matrix(tmp_path, seeds=[0], budgets=[8000], methods={"RRD": ""})
    made, kept = (tmp_path / name / "small/Pendulum-v1/RRD/0" for name in ("runs", "results"))
    with started(matrix, tmp_path) as campaign:
        while results.furthest(made) is None and campaign.poll() is None:
            time.sleep(0.2)
        campaign.send_signal(signal.SIGINT)
        output, _ = campaign.communicate()
        assert campaign.returncode == 128 + signal.SIGINT
        assert output.splitlines()[-1] == "[1/1] Pendulum-v1, RRD, seed 0: stopped"
    reached = results.furthest(kept)
    assert reached is not None
    assert "finished" not in results.read_provenance(kept)
    with started(matrix, tmp_path) as campaign:
        while len(results.read_provenance(made)["parts"]) < 2:
            time.sleep(0.2)
        campaign.kill()
    # The run itself may go on: who comes now waits for it, and ends it if it has to.
    with started(matrix, tmp_path) as campaign:
        assert campaign.wait() == 0
    provenance = results.read_provenance(kept)
    assert provenance["finished"] == 8000
    assert provenance["parts"][1]["from"] == reached.env_steps
    assert results.furthest(kept).env_steps == 8000
    with started(matrix, tmp_path) as campaign:
        assert campaign.communicate()[0] == ""
