"""Runs on stacks of frames, and with feedback every few steps: collected, judged, resumed and exported."""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from gymnasium.wrappers import FrameStackObservation

from rrd_lightning import Environment, ParameterError, RRDModule, keys
from rrd_lightning.agents import DQN, SAC
from rrd_lightning.arguments import find_config
from rrd_lightning.callbacks import Monitor
from rrd_lightning.decomposition import RRD
from rrd_lightning.envs import Rollout
from rrd_lightning.episode import episode_transitions
from rrd_lightning.export import Policy, export
from rrd_lightning.frames import StackedFrames
from tests.environments import Choose
from tests.resuming import StopAt, assert_same, fit
from tests.runs import run

STACKED = {"frame_stack": 3, "feedback_every": 4}
PLAIN = {"agent": partial(DQN, hidden_sizes=(8,)), "decomposition": partial(RRD, hidden_sizes=(8,))}
SMALL = {"data": {"batch_size": 8, "rrd_batch_size": 8, "rrd_sample_size": 4, "train_batches": 2}}
needs_atari = pytest.mark.skipif(find_spec("ale_py") is None, reason="ale-py is not installed")


def test_a_resumed_run_sees_the_same_stacks_and_bags_to_the_last_bit() -> None:
    options: dict[str, Any] = {"env_options": STACKED, "total": 160, **SMALL, **PLAIN}
    whole = fit("ChooseByImage-v0", "whole", **options)
    # Episodes of ten steps.
    assert set(whole["lengths"].tolist()) == {4, 2}
    assert fit("ChooseByImage-v0", "first", stop_at=StopAt(3), **options) == {}
    last = Path("first/version_0/checkpoints/last.ckpt")
    assert_same(whole, fit("ChooseByImage-v0", "second", ckpt_path=last, **options))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gymnasium.make", None)
        loaded = RRDModule.load_from_checkpoint("second/version_0/checkpoints/last.ckpt")
    assert isinstance(loaded.observation_space, StackedFrames)
    assert_same(dict(loaded.state_dict()), whole["weights"])
    policy = torch.export.load(export("second/version_0/checkpoints/last.ckpt")[0]).module()
    stacks = torch.randint(256, (5, 3, 1, 36, 36), dtype=torch.uint8)
    torch.testing.assert_close(policy(stacks), Policy(loaded)(stacks))
    assert loaded.predict(stacks[0].numpy()).shape == ()


def test_a_run_collects_frames_and_judges_episodes_by_their_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrd_lightning.inference.STEPS_AT_ONCE", 3)
    monkeypatch.setattr("tests.runs.Environment", partial(Environment, **STACKED))
    _, module, data = run("ChooseByImage-v0", module=PLAIN, evaluate={"episodes": 1}, **SMALL)
    table, batch = data.replay.episodes, data.replay.sample()
    assert batch[keys.TRANSITIONS, keys.OBSERVATION].shape == (8, 3, 1, 36, 36)
    assert set(table["length"].tolist()) == {4, 2}
    # The environment rewards a right choice with one.
    ended = table["ends"].nonzero()[:, 0] + 1
    assert data.replay.record_bytes == 36 * 36 + 8 + 4
    assert (table["episode_return"] <= table["length"]).all()
    assert len(ended) == len(data.replay) / 10
    rollout = Rollout(Environment("ChooseByImage-v0").make_vector(1), 3)
    rollout.reset(1)
    episodes: list[Any] = []
    while not episodes:
        episodes = rollout.step(np.array([5]))
    transitions = episode_transitions(episodes[0], module.observation_space)
    torch.testing.assert_close(module.episode_rewards(episodes[0]), module.rewards(transitions))


def test_stacks_of_an_environment_that_tells_success_are_monitored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.runs.Environment", partial(Environment, **STACKED))
    monitor = Monitor(episodes=3)
    small = {name: partial(part, hidden_sizes=(8,)) for name, part in (("agent", SAC), ("decomposition", RRD))}
    run("FollowByImage-v0", module=small, callbacks=[monitor], log_every_n_steps=1, **SMALL)
    assert all(0 <= success <= 1 for _, success, _ in monitor.curve)
    assert len(monitor.curve) > 1


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_the_policy_sees_what_gymnasium_stacks(vectorization: Any) -> None:
    env = Environment("ChooseByImage-v0", frame_stack=3)
    rollout = Rollout(env.make_vector(1, vectorization), 3)
    theirs = FrameStackObservation(gymnasium.make("ChooseByImage-v0"), 3, padding_type="reset")
    assert env.observation_space == theirs.observation_space
    rollout.reset(7)
    seen, _ = theirs.reset(seed=7)
    for _ in range(25):
        assert (rollout.observation[0].numpy() == seen).all()
        rollout.step(np.array([6]))
        seen, _, terminated, truncated, _ = theirs.step(6)
        if terminated or truncated:
            seen, _ = theirs.reset()
    rollout.envs.close()


class Rewarding(Choose):
    """Always right: a reward of one each step."""

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, 1.0, *rest


class Doubling(gymnasium.RewardWrapper):
    """Rewards times `by`."""

    def __init__(self, env: Any, by: float = 2.0) -> None:
        super().__init__(env)
        self.by = by

    def reward(self, reward: Any) -> Any:
        return self.by * reward


gymnasium.register("Rewarding-v0", Rewarding)


def test_feedback_every_four_steps_and_at_the_end_with_wrappers() -> None:
    wrappers = [f"{__name__}.Doubling", {"class_path": f"{__name__}.Doubling", "init_args": {"by": 5}}]
    env = Environment("Rewarding-v0", wrappers=wrappers, feedback_every=4, max_episode_steps=9).make()
    env.reset(seed=0)
    steps = [env.step(5) for _ in range(9)]
    assert [feedback for _, feedback, *_ in steps] == [0, 0, 0, 40, 0, 0, 0, 40, 10]
    assert [truncated for *_, truncated, _ in steps] == [False] * 8 + [True]
    assert {info["true_reward"] for *_, info in steps} == {10}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wrappers": [{"path": "x"}]}, "env.wrappers=.*: must be a class path, or a dictionary of class_path"),
        ({"wrappers": ["nowhere.Wrapper"]}, "env.id='Choose-v0': cannot be made: .*nowhere"),
        ({"frame_stack": 4}, "frame_stack=4: is of images of uint8, of which there are none"),
        ({"frame_stack": 0}, "env.frame_stack=0"),
        ({"feedback_every": 0}, "env.feedback_every=0"),
    ],
)
def test_what_cannot_be_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        _ = Environment("Choose-v0", **options).observation_space


def test_a_collector_and_its_data_agree_on_the_feedback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.runs.Environment", partial(Environment, feedback_every=4))
    with pytest.raises(ParameterError, match=r"data.feedback_every=3: differs from the environment's"):
        run("Choose-v0", module=PLAIN, data={"feedback_every": 3})


def test_a_game_that_is_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(ParameterError, match=r"env.id='ALE/Pong-v5': .* pip install 'rrd-lightning\[atari\]'"):
        Environment("ALE/Pong-v5")


def atari(**options: Any) -> Environment:
    settings = yaml.safe_load(Path(find_config("atari")).read_text())["env"]
    settings |= {"max_episode_steps": 20, "kwargs": {**settings["kwargs"], **options}}
    return Environment(**settings)


@needs_atari
@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_atari_is_resumed_with_the_same_stacks(sticky: float) -> None:
    env = atari(repeat_action_probability=sticky)
    assert env.observation_space.shape == (4, 84, 84)
    rollouts = [Rollout(env.make_vector(1), 4) for _ in range(2)]
    actions = np.random.default_rng(0).integers(0, 6, (57, 1))
    rollouts[0].reset(3)
    # In the second episode, whose seed the first one's generator draws.
    for action in actions[:30]:
        rollouts[0].step(action)
    assert rollouts[1].load_state_dict(rollouts[0].state_dict()) == []
    for action in actions[30:]:
        for rollout in rollouts:
            rollout.step(action)
        assert torch.equal(*(rollout.observation for rollout in rollouts))
    assert rollouts[0].observation.shape == (1, 4, 84, 84)
    assert len(rollouts[0].observation[0].unique(dim=0)) > 1
