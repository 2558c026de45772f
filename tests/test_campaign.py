"""Campaigns: which runs there are, in which order, and what is kept of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from benchmarks.campaign import results
from benchmarks.campaign.matrix import Job, read_matrix
from benchmarks.campaign.run import CampaignRun
from rrd_lightning.report.runs import PROVENANCE, Run

MATRIX = """
budgets: [2000, 1000]
seeds: [3, 4]
arguments: --config debug
tasks: {Pendulum-v1: "--evaluate.episodes 2"}
methods: {RRD: "--model.decomposition RRD", "RRD, TD3": "--model.agent TD3"}
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
    assert jobs[0].arguments == (
        *("--config", "debug", "--evaluate.episodes", "2"),
        *("--model.decomposition", "RRD"),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "needs budgets, seeds, tasks and methods"),
        ({"budgets": [1000.5]}, "budgets: .* no list of numbers"),
        ({"budgets": [0]}, "budgets: .* no list of numbers"),
        ({"budgets": []}, "budgets: .* no list of numbers"),
        ({"seeds": 3}, "seeds: 3 is no list"),
        ({"methods": []}, "methods: needs names"),
        ({"arguments": ["--config"]}, "arguments: .* no text"),
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
    return Run(Path("nowhere"), config, table.set_index("step"))


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
