"""Environments that fail during a run: dropped and counted, or the end of a run that is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from lightning.pytorch import Callback

import tests.odd_environments  # noqa: F401 - registers the environments
from rrd_lightning import Environment, ParameterError
from rrd_lightning.callbacks import Checkpoint, Evaluate
from tests.environments import Follow
from tests.logs import read_csv
from tests.runs import make_collect, make_data, make_module, make_trainer

LAST = Path("logs/version_0/checkpoints/last.ckpt")


class Breaking(Follow):
    """Raises in reset or step, or gives NaN, at given calls of these; counted over all that are made."""

    calls = 0

    def __init__(self, where: str = "step", at: Any = ()) -> None:
        super().__init__()
        self._where, self._at = where, at

    def _now(self, where: str) -> bool:
        if where == self._where:
            Breaking.calls += 1
        return where == self._where and Breaking.calls in self._at

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if self._now("reset"):
            raise OSError("no scene")
        if self._now("setting"):
            raise ParameterError("env.kwargs.assets", None, "is missing")
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        if self._now("step"):
            raise RuntimeError("the simulator broke")
        observation, reward, *rest = super().step(action)
        return observation, float("nan") if self._now("reward") else reward, *rest


gymnasium.register("Breaking-v0", Breaking)


@pytest.fixture(autouse=True)
def _count_anew() -> None:
    Breaking.calls = 0


def train(where: str, at: Any, *callbacks: Any, evaluate: bool = False) -> Any:
    env = Environment("Breaking-v0", kwargs={"where": where, "at": at})
    collect = make_collect(Environment("Follow-v0") if evaluate else env, num_envs=2)
    more = [Evaluate(env, episodes=3, every_n_env_steps=100)] if evaluate else []
    checkpoint = Checkpoint(every_n_env_steps=10**6, save_top_k=0)
    trainer = make_trainer(
        collect, *more, checkpoint, *callbacks, enable_checkpointing=True, log_every_n_steps=4
    )
    data = make_data()
    trainer.fit(make_module(env), data)
    return data


@pytest.mark.parametrize(("where", "at"), [("step", (5, 95)), ("reset", (1, 4)), ("step", (5, 6, 7, 8, 9))])
def test_an_episode_that_fails_is_dropped_and_counted(
    where: str, at: Any, caplog: pytest.LogCaptureFixture
) -> None:
    data = train(where, at)
    rows = read_csv()
    assert float(rows[-1]["collect/dropped_episodes"]) == len(at)
    assert int(rows[-1]["step"]) == 300
    # Of an episode that was dropped nothing is in the replay: all are of 10 steps.
    assert set(data.replay.episodes["length"].tolist()) == {10}
    assert caplog.text.count("failed and is restarted, its episode is dropped") == len(at)


@pytest.mark.parametrize(
    ("where", "at", "env_steps", "message"),
    [
        (
            "step",
            range(250, 400),
            240,
            "environment=[01]: failed 6 times .*; the last error: RuntimeError: the simulator broke",
        ),
        (
            "reset",
            range(26, 400),
            220,
            "environment=[01]: failed 6 times .*; the last error: OSError: no scene",
        ),
        (
            "setting",
            [26],
            220,
            "environment=[01]: cannot be used: env.kwargs.assets=None: is missing",
        ),
        ("reward", [250], 240, "environment=1: gave the reward nan, must be finite; step 5 of its episode 13"),
    ],
)
def test_the_run_is_saved_before_its_end(where: str, at: Any, env_steps: int, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        train(where, list(at))
    saved = torch.load(LAST, weights_only=True)
    assert (saved["env_steps"], saved["global_step"]) == (env_steps, (env_steps - 100) // 5)
    # It goes on, with new episodes, in an environment that is repaired.
    env = Environment("Breaking-v0")
    data = make_data()
    trainer = make_trainer(make_collect(env, num_envs=2), Checkpoint(), enable_checkpointing=True)
    trainer.fit(make_module(env), data, ckpt_path=LAST)
    assert trainer.lightning_module.env_steps == 300
    assert set(data.replay.episodes["length"].tolist()) == {10}
    assert len(data.replay) >= env_steps


def test_nothing_is_saved_over_a_checkpoint_that_is_not_loaded_yet() -> None:
    first = make_trainer(make_collect(Environment("Follow-v0")), Checkpoint(), enable_checkpointing=True)
    first.fit(make_module(Environment("Follow-v0")), make_data())
    before = LAST.read_bytes()
    env = Environment("Breaking-v0", kwargs={"where": "reset", "at": list(range(100))})
    collect = make_collect(env)
    collect.on_load_checkpoint = lambda *_: None  # type: ignore[method-assign]
    trainer = make_trainer(collect, Checkpoint(), enable_checkpointing=True)
    with pytest.raises(ParameterError, match="failed 6 times"):
        trainer.fit(make_module(env), make_data(), ckpt_path=LAST)
    assert LAST.read_bytes() == before
    assert not Path("logs/version_1/checkpoints/last.ckpt").exists()


def test_nothing_is_saved_of_a_run_that_has_not_begun() -> None:
    with pytest.raises(ParameterError, match="environment=0: failed 6 times"):
        train("reset", list(range(100)))
    assert not LAST.exists()


def test_an_episode_of_an_evaluation_is_played_again_from_its_seed() -> None:
    def evaluated(at: Any) -> Any:
        Breaking.calls = 0
        torch.manual_seed(0)
        env = Environment("Breaking-v0", kwargs={"where": "step", "at": at})
        module = make_module(env)
        return make_trainer(Evaluate(env, episodes=3), logger=False).validate(
            module, make_data(), verbose=False
        )

    assert evaluated((13, 20)) == evaluated(())


def test_a_reward_that_is_no_number_ends_an_evaluation() -> None:
    # In the third episode of the second evaluation.
    with pytest.raises(
        ParameterError, match=r"gave the reward nan, must be finite; step 4 of its episode 3 \(seed 2\)"
    ):
        train("reward", [54], evaluate=True)
    assert torch.load(LAST, weights_only=True)["env_steps"] == 200


class Diverge(Callback):
    """Makes a reward model of NaN."""

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        for parameter in pl_module.decomposition.parameters():
            parameter.data.fill_(float("nan"))


def test_predictions_that_are_no_numbers_are_told_as_such() -> None:
    env = Environment("Follow-v0")
    evaluate = Evaluate(env, episodes=3)
    trainer = make_trainer(evaluate, Diverge(), logger=False)
    (found,) = trainer.validate(make_module(env), make_data(), verbose=False)
    assert found["evaluate/return_error"] != found["evaluate/return_error"]
    assert found["evaluate/return_mean"] < 0
    assert found["evaluate/length_mean"] == 10


def test_success_that_one_episode_tells_is_false_in_the_others() -> None:
    env = Environment("Tells-v0")
    (found,) = make_trainer(Evaluate(env, episodes=4), logger=False).validate(
        make_module(env), make_data(), verbose=False
    )
    assert found["evaluate/success"] == 0.25


class Tells(Follow):
    """Tells success in the episode of seed 1 alone, where it is true."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._tells = seed == 1
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        *step, _ = super().step(action)
        return *step, {"success": True} if self._tells else {}


gymnasium.register("Tells-v0", Tells)


def test_a_budget_without_an_episode_names_the_limit() -> None:
    env = Environment("Bounded-v0")
    with pytest.raises(ParameterError, match=r"total_env_steps=300: is spent .* set env.max_episode_steps"):
        make_trainer(make_collect(env), logger=False).fit(make_module(env), make_data())
