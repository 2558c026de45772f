"""Collection on real runs: iterations, warm-up, budget, failing workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from lightning.pytorch import Callback

from rrd_lightning import Environment, ParameterError, RRDModule, keys
from rrd_lightning.callbacks import EnvStepProgressBar
from tests.logs import read_csv
from tests.runs import make_collect, make_data, make_module, make_trainer, run


class Watch(Callback):
    """Notes the clocks before each update."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append((trainer.global_step, pl_module.env_steps, len(trainer.datamodule.replay)))


def test_iterations_of_collection_and_updates() -> None:
    watch = Watch()
    run(
        collect={"num_envs": 2, "env_steps_per_iteration": 20, "warmup_steps": 100, "total_env_steps": 200},
        callbacks=[watch],
    )
    # Warm-up: 2 environments finish 10 episodes of 10 steps; then 20 steps before every 4 updates,
    # 3 iterations per epoch.
    assert watch.seen == [(update, 120 + 20 * (update // 4), 120 + 20 * (update // 4)) for update in range(20)]


def test_only_finished_episodes_reach_the_replay() -> None:
    watch = Watch()
    _, _, data = run(
        "Counter-v0",
        collect={"num_envs": 4, "env_steps_per_iteration": 4, "warmup_steps": 50, "total_env_steps": 120},
        callbacks=[watch],
    )
    assert all(stored <= env_steps for _, env_steps, stored in watch.seen)
    stored = data.replay.storage[:][keys.OBSERVATION]
    starts = data.replay.episodes["start"]
    assert (stored[starts, 1] == 0).all()
    ends = starts + data.replay.episodes["length"]
    assert (stored[ends, 1] == data.replay.episodes["length"]).all()


def test_one_environment_of_each_kind_collects_the_same() -> None:
    returns = []
    for vectorization in ("sync", "async"):
        _, _, data = run(collect={"num_envs": 2, "vectorization": vectorization})
        returns.append(data.replay.episodes["episode_return"])
    assert torch.equal(*returns)


@pytest.mark.parametrize(
    ("collect", "data", "message"),
    [
        ({"num_envs": 0}, {}, "num_envs=0: must be greater than zero"),
        ({"env_steps_per_iteration": -1}, {}, "env_steps_per_iteration=-1: must be greater"),
        ({"worker_timeout": 0}, {}, "worker_timeout=0: must be greater than zero"),
        ({"total_env_steps": 0}, {}, "total_env_steps=0: must be greater than zero"),
        ({"num_envs": 3}, {}, "env_steps_per_iteration=20: must be a multiple of num_envs=3"),
        ({"warmup_steps": 300}, {}, "warmup_steps=300: must be less than total_env_steps=300"),
        ({"warmup_steps": 20}, {}, "batch_size=32: must be at most collect.warmup_steps=20"),
        ({}, {"capacity": 99}, "capacity=99: must be at least collect.warmup_steps=100"),
    ],
)
def test_numbers_that_do_not_fit(collect: dict, data: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        run(collect=collect, data=data)


def test_capacity_below_one_episode() -> None:
    with pytest.raises(ParameterError, match=r"capacity=150: must be at least the 200 steps .* Pendulum-v1"):
        run("Pendulum-v1", data={"capacity": 150})


def test_budget_spent_in_warmup() -> None:
    """Counting finished episodes only, 190 of 200 steps are not there in time."""
    with pytest.raises(ParameterError, match="total_env_steps=250: is spent with 200 steps"):
        run(
            "Pendulum-v1",
            data={"capacity": 5000},
            collect={"warmup_steps": 240, "total_env_steps": 250},
        )


def test_warmup_ends_where_the_replay_keeps_fewer_transitions() -> None:
    """Whole episodes of 200 steps: a capacity of 500 keeps 400."""
    trainer, module, data = run(
        "Pendulum-v1",
        data={"capacity": 500},
        collect={"warmup_steps": 450, "total_env_steps": 700},
    )
    assert len(data.replay) == 400
    assert module.env_steps == 700
    assert trainer.global_step == 20


def test_training_goes_on_where_a_worker_fails() -> None:
    tickets = Path("tickets")
    tickets.mkdir()

    class Fail(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step in (4, 9):
                (tickets / str(trainer.global_step)).touch()

    env = Environment("Failing-v0", kwargs={"way": "exit", "tickets": str(tickets.absolute())})
    collect = make_collect(env, num_envs=2, vectorization="async")
    trainer = make_trainer(collect, Fail(), log_every_n_steps=4)
    trainer.fit(make_module(env), make_data())
    rows = read_csv()
    dropped = [float(row["collect/dropped_episodes"]) for row in rows]
    assert dropped[0] == 0
    assert dropped[-1] == 2
    assert int(rows[-1]["step"]) == 300
    again = make_collect(env)
    again.load_process_state_dict(collect.process_state_dict())
    assert again.process_state_dict()["dropped"] == 2


@pytest.mark.parametrize("engine", ["eager", "auto"])
def test_actions_are_random_until_the_warmup_ends(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    explored: list[int] = []
    explore = RRDModule.explore

    def spy(self: RRDModule, observation: torch.Tensor) -> torch.Tensor:
        explored.append(self.env_steps)
        return explore(self, observation)

    monkeypatch.setattr(RRDModule, "explore", spy)
    _, _, data = run(collect={"warmup_steps": 100, "total_env_steps": 160}, module={"engine": engine})
    # Told the steps of the run before the iteration.
    assert explored == [100] * 20 + [120] * 20 + [140] * 20
    warmup = data.replay.storage[:][keys.ACTION][:110]
    # Uniform in [-1, 1]: variance 1/3, over 100 draws within 0.1.
    assert float(warmup.var()) == pytest.approx(1 / 3, abs=0.1)


def test_environments_are_closed_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fail(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("stop here")

    closed: list[int] = []
    close = gymnasium.vector.SyncVectorEnv.close

    def spy(envs: Any) -> None:
        closed.append(1)
        close(envs)

    monkeypatch.setattr(gymnasium.vector.SyncVectorEnv, "close", spy)
    with pytest.raises(RuntimeError, match="stop here"):
        run(callbacks=[Fail(), EnvStepProgressBar()], enable_progress_bar=True)
    assert closed == [1]
