from __future__ import annotations

from pathlib import Path

import yaml

from rrd_lightning.report.curves import BOUNDS, looks
from rrd_lightning.report.methods import differences, group, name_apart, settings_of
from rrd_lightning.report.runs import read_runs
from tests.report.folders import write_run


def test_runs_that_differ_in_seed_and_budget_alone_are_one_method(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0], seed=1)
    write_run(tmp_path / "b", [1.0, 2.0], seed=0, budget=9000)
    (method,), left_out = group(read_runs([tmp_path])[0])
    assert method.name == method.decomposition == "RRD"
    assert [run.seed for run in method.runs] == [0, 1]
    assert left_out == []


def test_each_seed_may_have_an_encoder_of_its_own(tmp_path: Path) -> None:
    for number, encoder in enumerate(("a/0/last.ckpt", "a/1/last.ckpt", "b/0/last.ckpt")):
        path = write_run(tmp_path / str(number), [1.0], seed=number % 2) / "config.yaml"
        config = yaml.safe_load(path.read_text())
        config["model"]["encoder"] = encoder
        path.write_text(yaml.safe_dump(config))
    methods, left_out = group(read_runs([tmp_path])[0])
    assert left_out == []
    assert {method.name: len(method.runs) for method in methods} == {
        "RRD, encoder a/{seed}/last.ckpt": 2,
        "RRD, encoder b/{seed}/last.ckpt": 1,
    }


def test_arguments_of_a_task_are_said_where_they_differ(tmp_path: Path) -> None:
    for number, limit in enumerate((50, 50, 100)):
        folder = write_run(tmp_path / str(number), [1.0], seed=number)
        path = folder / "config.yaml"
        config = yaml.safe_load(path.read_text())
        config["env"] |= {"max_episode_steps": limit, "kwargs": {"size": 3}}
        path.write_text(yaml.safe_dump(config))
    runs, _ = read_runs([tmp_path])
    same, _ = group([run for run in runs if run.seed < 2])
    assert [method.task for method in same] == ["Pendulum-v1"]
    different, _ = group(runs)
    assert sorted(method.task for method in different) == [
        f"Pendulum-v1 size=3 max_episode_steps={limit}" for limit in (100, 50)
    ]


def test_methods_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0], bias_correction=False)
    write_run(tmp_path / "b", [1.0], bias_correction=True)
    write_run(tmp_path / "c", [1.0], agent="TD3", bias_correction=False)
    write_run(tmp_path / "d", [1.0], decomposition="IRCR")
    write_run(tmp_path / "e", [1.0], task="Hopper-v5", bias_correction=True)
    methods, _ = group(read_runs([tmp_path])[0])
    assert [(method.task, method.name) for method in methods] == [
        ("Hopper-v5", "RRD"),
        ("Pendulum-v1", "RRD, SAC"),
        ("Pendulum-v1", "RRD, SAC, bias correction"),
        ("Pendulum-v1", "RRD, TD3"),
        ("Pendulum-v1", "IRCR, SAC"),
    ]


def test_other_values_are_said_and_arguments_of_other_classes_are_not() -> None:
    def settings(kind: str, **arguments: object) -> dict:
        part = {"class_path": f"package.{kind}", "init_args": arguments}
        return settings_of({"model": {"decomposition": part}, "data": {"sampler": "a.b.Sampler"}})

    several = [
        settings("RRD", rate=0.1, hidden_sizes=[8, 8]),
        settings("RRD", rate=0.2, hidden_sizes=[8, 8]),
        settings("RRD", rate=0.2, hidden_sizes=[4]),
        settings("IRCR", rate=7.0),
    ]
    assert several[3]["data.sampler"] == "Sampler"
    assert name_apart(several) == [
        "RRD, rate 0.1, hidden sizes 8 × 8",
        "RRD, rate 0.2, hidden sizes 8 × 8",
        "RRD, rate 0.2, hidden sizes 4",
        "IRCR",
    ]


def test_a_setting_that_no_name_needs_is_said_beside_them(tmp_path: Path) -> None:
    """DQN and SAC may want other batches: the name says the agent, and the reader gets to know the batch."""
    write_run(tmp_path / "a", [1.0], agent="DQN", batch_size=64)
    write_run(tmp_path / "b", [1.0], agent="SAC", batch_size=32)
    write_run(tmp_path / "c", [1.0], agent="SAC", batch_size=32, decomposition="IRCR")
    methods, _ = group(read_runs([tmp_path])[0])
    assert [method.name for method in methods] == ["RRD, DQN", "RRD, SAC", "IRCR, SAC"]
    assert differences(methods) == ["data.batch_size: 64 (RRD, DQN), 32 (RRD, SAC; IRCR, SAC)"]


def test_the_same_seed_twice_counts_once(tmp_path: Path) -> None:
    """A copy of a run, or a line that a kill cut off, would make the interval too small."""
    write_run(tmp_path / "a", [1.0])
    write_run(tmp_path / "b", [1.0, 2.0])
    (method,), left_out = group(read_runs([tmp_path])[0])
    assert [run.folder.name for run in method.runs] == ["b"]
    assert left_out == ["a: has seed 0 as b, which goes as far"]


def test_bounds_are_of_the_same_task_and_agent(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0], hidden_sizes=[4])
    write_run(tmp_path / "b", [1.0], decomposition="EnvironmentReward")
    write_run(tmp_path / "c", [1.0], decomposition="EpisodicReward", agent="TD3")
    write_run(tmp_path / "d", [1.0], decomposition="EpisodicReward", task="Hopper-v5")
    methods, _ = group(read_runs([tmp_path])[0])
    rrd = next(method for method in methods if method.decomposition == "RRD")
    upper = rrd.bound("EnvironmentReward", methods)
    assert upper is not None
    assert upper.runs[0].folder.name == "b"
    assert rrd.bound("EpisodicReward", methods) is None


def test_bounds_are_grey_unless_several_of_a_kind_are_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0], decomposition="EnvironmentReward")
    write_run(tmp_path / "b", [1.0])
    grey = looks(group(read_runs([tmp_path])[0])[0])["EnvironmentReward"]
    assert grey == BOUNDS["EnvironmentReward"]
    write_run(tmp_path / "c", [1.0], decomposition="EnvironmentReward", batch_size=64)
    assert grey not in looks(group(read_runs([tmp_path])[0])[0]).values()
