"""Collection, evaluation, pictures and the progress bar, on real runs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gymnasium
import matplotlib.image
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from rrd_lightning import Environment, ParameterError, keys
from rrd_lightning.agents import SAC
from rrd_lightning.callbacks import Collect, EnvStepProgressBar, Evaluate, Plots
from tests.runs import make_collect, make_data, make_module, make_trainer, run


def read_csv(folder: Path = Path("logs/version_0")) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


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
    with pytest.raises(ParameterError, match="total_env_steps=250: is spent with 200 transitions"):
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


def test_actions_are_random_until_the_warmup_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    explored: list[int] = []
    act = SAC.act

    def spy(self: SAC, observation: torch.Tensor, *, explore: bool) -> torch.Tensor:
        explored.append(1)
        return act(self, observation, explore=explore)

    monkeypatch.setattr(SAC, "act", spy)
    _, _, data = run(collect={"warmup_steps": 100, "total_env_steps": 160})
    assert len(explored) == 60
    warmup = data.replay.storage[:][keys.ACTION][:110]
    # Uniform in [-1, 1]: variance 1/3, over 100 draws within 0.1.
    assert float(warmup.var()) == pytest.approx(1 / 3, abs=0.1)


def test_callbacks_serve_one_run_after_another() -> None:
    env = Environment("Follow-v0")
    evaluate, plots = Evaluate(env, episodes=1, every_n_env_steps=100), Plots()
    for version in range(2):
        torch.manual_seed(0)
        collect = Collect(env, env_steps_per_iteration=20, warmup_steps=100, total_env_steps=300)
        make_trainer(collect, evaluate, plots).fit(make_module(env), make_data())
        evaluations = [
            row for row in read_csv(Path(f"logs/version_{version}")) if "evaluate/return_mean" in row
        ]
        assert [row["step"] for row in evaluations] == ["120", "200", "300"]
        assert len(plots.state_dict()["curve"]) == 3


def test_nothing_is_left_behind_in_the_data() -> None:
    _, module, data = run(evaluate={"episodes": 1})
    make_trainer(max_steps=3, max_epochs=1, logger=False).fit(module, data)
    assert not list(data.val_dataloader())
    assert make_trainer(logger=False).validate(module, data, verbose=False) == [{}]


@pytest.mark.parametrize("limit", [{"max_steps": 10}, {"max_epochs": 1}])
def test_the_end_of_a_run_is_evaluated_whatever_ends_it(limit: dict[str, int]) -> None:
    run(evaluate={"episodes": 1, "every_n_env_steps": 10_000}, **limit)
    evaluations = [row for row in read_csv() if "evaluate/return_mean" in row]
    assert len(evaluations) == 1


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


def test_evaluate_needs_the_data_module() -> None:
    env = Environment("Follow-v0")
    with pytest.raises(ParameterError, match="datamodule=None: Evaluate needs a ReplayDataModule"):
        make_trainer(Evaluate(env), logger=False).validate(make_module(env), [0], verbose=False)


def test_logging_can_be_turned_off() -> None:
    run(log_every_n_steps=0, logger=False)


def test_evaluation_is_the_same_whenever_it_is_played() -> None:
    env = Environment("Pendulum-v1")
    module, data = make_module(env), make_data()
    trainer = make_trainer(Evaluate(env, episodes=3, seed=4), logger=False)
    first = trainer.validate(module, data, verbose=False)[0]
    torch.rand(5)
    assert first == trainer.validate(module, data, verbose=False)[0]
    tested = trainer.test(module, data, verbose=False)[0]
    assert tested == first
    other = make_trainer(Evaluate(env, episodes=3, seed=5), logger=False).validate(module, data, verbose=False)[
        0
    ]
    assert other["evaluate/return_mean"] != first["evaluate/return_mean"]
    assert first["evaluate/length_mean"] == 200


def test_evaluation_changes_nothing_in_training() -> None:
    plain = run()[1].state_dict()
    evaluated = run(evaluate={"episodes": 1, "every_n_env_steps": 50})[1].state_dict()
    assert all(torch.equal(plain[name], evaluated[name]) for name in plain)


def test_evaluation_uses_the_mode_of_the_policy() -> None:
    env = Environment("Follow-v0")
    module = make_module(env)
    trainer = make_trainer(Evaluate(env, episodes=1), logger=False)
    trainer.validate(module, make_data(), verbose=False)
    single = env.make()
    observation, _ = single.reset(seed=0)
    done, feedback = False, 0.0
    while not done:
        action = module.agent.act(torch.from_numpy(observation)[None], explore=False)[0].numpy()
        observation, feedback, _, done, _ = single.step(action)
    assert trainer.callback_metrics["evaluate/return_mean"] == pytest.approx(feedback, rel=1e-5)


def test_bad_evaluation() -> None:
    env = Environment("Follow-v0")
    for name in ("episodes", "every_n_env_steps"):
        with pytest.raises(ParameterError, match=f"{name}=0: must be greater than zero"):
            Evaluate(env, **{name: 0})
    with pytest.raises(ParameterError, match=r"evaluate.seed=-1: must not be negative"):
        Evaluate(env, seed=-1)


def test_pictures_are_drawn_and_sent_to_tensorboard() -> None:
    tensorboard = TensorBoardLogger(".", "board", version=0)
    run(
        evaluate={"episodes": 2, "every_n_env_steps": 100},
        callbacks=[Plots()],
        logger=[CSVLogger(".", name="logs"), tensorboard],
    )
    pictures = sorted(Path("logs/version_0/plots").glob("*.png"))
    assert [path.name for path in pictures] == [f"evaluation-{step:09d}.png" for step in (120, 200, 300)]
    for path in pictures:
        pixels = matplotlib.image.imread(path)
        assert pixels.shape == (400, 1100, 4)
        # Both halves show something but white.
        assert (pixels[:, :550, :3].min(), pixels[:, 550:, :3].min()) < (0.5, 0.5)
    event_file = next(Path("board/version_0").glob("events*"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(event_file), size_guidance={"images": 0})
    events.Reload()
    assert [image.step for image in events.Images("evaluation")] == [120, 200, 300]
    assert "evaluate/return_mean" in events.Tags()["scalars"]


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
