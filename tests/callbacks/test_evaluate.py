"""Evaluation: its episodes, its schedule, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from rrd_lightning import Environment, ParameterError
from rrd_lightning.callbacks import Collect, Evaluate, Plots
from tests.logs import read_csv
from tests.runs import make_data, make_module, make_trainer, run


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


def test_evaluate_needs_the_data_module() -> None:
    env = Environment("Follow-v0")
    with pytest.raises(ParameterError, match="datamodule=None: Evaluate needs a ReplayDataModule"):
        make_trainer(Evaluate(env), logger=False).validate(make_module(env), [0], verbose=False)


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


def test_early_stopping_counts_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs of one iteration of 20 steps; evaluations at 180, 200 and 300, the third of which is worse."""
    returns = iter([1.0, 5.0, 4.0, 3.0])
    monkeypatch.setattr(
        "rrd_lightning.callbacks.judge.summarize", lambda judged: {"return_mean": next(returns)}
    )
    stopping = EarlyStopping("evaluate/return_mean", patience=1, mode="max")
    trainer, module, _ = run(
        collect={"warmup_steps": 160, "total_env_steps": 1000},
        data={"iterations_per_epoch": 1},
        evaluate={"episodes": 1, "every_n_env_steps": 100},
        callbacks=[stopping],
    )
    assert module.env_steps == 300
    assert stopping.best_score == 5
    assert trainer.current_epoch > 3


def test_early_stopping_on_another_metric_counts_epochs() -> None:
    stopping = EarlyStopping("loss/reward", patience=1, mode="max")
    run(callbacks=[stopping, Evaluate(Environment("Follow-v0"), episodes=1)], log_every_n_steps=1)
    assert stopping._check_on_train_epoch_end
