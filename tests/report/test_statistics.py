from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rrd_lightning.report.methods import Method, group
from rrd_lightning.report.runs import read_runs
from rrd_lightning.report.statistics import (
    curve,
    horizon,
    interquartile_mean,
    interval,
    overall,
    probabilities,
    share,
    table,
)
from tests.report.folders import write_run


def methods_in(folder: Path) -> list[Method]:
    return group(read_runs([folder])[0])[0]


def test_interquartile_mean_and_share_by_hand() -> None:
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, 0.0])) == 1.5
    assert share(np.array([50.0, 70.0]), np.array([100.0]), np.array([20.0])) == pytest.approx(0.5)


def test_there_is_no_share_of_a_way_that_does_not_go_up() -> None:
    assert np.isnan(share(np.array([1.0]), np.array([2.0]), np.array([2.0])))
    assert np.isnan(share(np.array([1.0]), np.array([2.0]), np.array([3.0])))
    # Nor an interval, where the bounds of some resamples are the same.
    assert np.isnan(interval(share, np.array([1.0, 2.0]), np.array([2.0, 3.0]), np.array([0.0, 2.0]))).all()


def test_intervals_hold_the_mean_and_are_no_wider_than_the_runs() -> None:
    values = np.array([[0.0, 5.0], [1.0, 5.0], [5.0, 5.0]])
    low, high = interval(np.mean, values)
    assert 0 <= low[0] < 2 < high[0] <= 5
    assert (low[1], high[1]) == (5, 5)
    assert interval(np.mean, np.array([3.0])) == (3.0, 3.0)
    assert np.isnan(interval(share, np.array([1.0, 2.0]), np.array([3.0]), np.array([0.0, 0.5]))).all()


def test_a_curve_goes_as_far_as_all_runs_and_runs_between_evaluations(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0.0, 10.0, 20.0], seed=0)
    write_run(tmp_path / "b", [20.0, 40.0], seed=1, first=1500)
    (method,) = methods_in(tmp_path)
    found = curve(method.runs, "return_mean")
    assert found is not None
    np.testing.assert_allclose(found.steps, [1500, 2000, 2500])
    np.testing.assert_allclose(found.mean, [(5 + 20) / 2, (10 + 30) / 2, (15 + 40) / 2])
    assert curve(method.runs, "reward_pearson") is None


def test_methods_are_compared_where_the_shortest_ended_run_ends(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0, 2.0], budget=2000)
    write_run(tmp_path / "b", [1.0, 2.0, 9.0], seed=1, budget=4000)
    write_run(tmp_path / "c", [1.0], seed=2, budget=2000)
    methods = methods_in(tmp_path)
    assert horizon(methods) == 2000
    rows, shorter = table(methods)
    assert rows[["seeds", "env_steps", "final", "best"]].to_numpy().tolist() == [[2, 2000, 2.0, 2.0]]
    assert shorter == ["c: at 1,000 of 2,000 env steps, not in the table yet"]


def test_runs_that_all_go_on_are_compared_where_the_shortest_is(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0, 2.0])
    write_run(tmp_path / "b", [7.0], seed=1)
    methods = methods_in(tmp_path)
    assert horizon(methods) == 1000
    assert table(methods)[0]["final"].tolist() == [4.0]


def test_a_table_by_hand(tmp_path: Path) -> None:
    for seed, final in enumerate((60.0, 40.0, 80.0)):
        write_run(tmp_path / f"a{seed}", [90.0, 0.0, final], seed=seed, correlation=0.5)
    write_run(tmp_path / "b", [0.0, 0.0, 100.0], decomposition="EnvironmentReward")
    write_run(tmp_path / "c", [0.0, 0.0, 20.0], decomposition="EpisodicReward")
    rows, shorter = table(methods_in(tmp_path))
    assert shorter == []
    assert rows["method"].tolist() == ["EnvironmentReward", "RRD", "EpisodicReward"]
    assert rows["final"].tolist() == [100.0, 60.0, 20.0]
    assert rows["best"].tolist() == [100.0, 90.0, 20.0]
    np.testing.assert_allclose(rows["share"], [1, 0.5, 0])
    np.testing.assert_allclose(rows["reward_pearson"], [np.nan, 0.5, np.nan])
    assert rows["seeds"].tolist() == [1, 3, 1]
    assert 40 <= rows["final_low"][1] < 60 < rows["final_high"][1] <= 80


def test_a_share_needs_both_bounds(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [60.0])
    write_run(tmp_path / "b", [100.0], decomposition="EnvironmentReward")
    assert table(methods_in(tmp_path))[0]["share"].isna().all()


def test_probabilities_by_hand(tmp_path: Path) -> None:
    for seed, (one, other) in enumerate([(1.0, 2.0), (3.0, 2.0), (4.0, 4.0)]):
        write_run(tmp_path / f"a{seed}", [one], seed=seed)
        write_run(tmp_path / f"b{seed}", [other], seed=seed, decomposition="IRCR")
    found = probabilities(methods_in(tmp_path))
    # Of nine pairs RRD wins 3 > 2 twice and 4 > 2 twice, and ties once at 4.
    assert found.loc["RRD", "IRCR"] == pytest.approx(4.5 / 9)
    assert np.isnan(found.loc["RRD", "RRD"])
    assert found.loc["IRCR", "RRD"] == pytest.approx(4.5 / 9)


def test_a_single_pair_of_runs_has_no_probability(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0])
    write_run(tmp_path / "b", [2.0], decomposition="IRCR")
    assert probabilities(methods_in(tmp_path)).isna().all(axis=None)
    write_run(tmp_path / "c", [0.0], seed=1)
    assert probabilities(methods_in(tmp_path)).loc["IRCR", "RRD"] == 1


def test_all_tasks_together_by_hand(tmp_path: Path) -> None:
    for task, (upper, lower, finals) in {"A-v0": (10, 0, (9, 5)), "B-v0": (-100, -200, (-150, -190))}.items():
        for seed, final in enumerate(finals):
            write_run(tmp_path / f"{task}{seed}", [final], task=task, seed=seed)
            write_run(
                tmp_path / f"{task}{seed}-", [upper], task=task, seed=seed, decomposition="EnvironmentReward"
            )
        write_run(tmp_path / task, [lower], task=task, decomposition="EpisodicReward")
    write_run(tmp_path / "c", [3.0], task="C-v0")  # without bounds
    tasks: dict[str, list[Method]] = {}
    for method in methods_in(tmp_path):
        tasks.setdefault(method.task, []).append(method)
    # Shares 0.9, 0.5, 0.5 and 0.1.
    (row,) = overall(tasks).to_dict("records")
    assert (row["method"], row["tasks"], row["runs"], row["share"]) == ("RRD", 2, 4, pytest.approx(0.5))
    assert 0.1 <= row["share_low"] <= 0.5 <= row["share_high"] <= 0.9
