"""Action repeat: in environments, and in what a run counts."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import Env, spaces

from rrd_lightning import Environment, ParameterError, keys
from rrd_lightning.envs import Rollout
from tests.runs import make_collect, make_data, make_module, make_trainer


class Adding(Env[Any, Any]):
    """Adds up its actions; the reward is the step's number. Of seven steps the last succeeds, or another."""

    def __init__(self, success_at: int = 7) -> None:
        self._success_at = success_at
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._sum, self._time = np.zeros(1, np.float32), 0
        return self._sum.copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._sum += action
        self._time += 1
        done = self._time == 7
        infos = {"is_success": self._time == self._success_at}
        return self._sum.copy(), float(self._time), done, False, infos


gymnasium.register("Adding-v0", Adding)
HALF = np.array([0.5], np.float32)


def play(env: Any) -> list[Any]:
    env.reset(seed=0)
    steps = [env.step(HALF)]
    while not (steps[-1][2] or steps[-1][3]):
        steps.append(env.step(HALF))
    return steps


def test_an_action_is_taken_until_the_episode_ends_and_rewards_are_summed() -> None:
    steps = play(Environment("Adding-v0", action_repeat=3).make())
    assert [float(step[0][0]) for step in steps] == [1.5, 3.0, 3.5]
    assert [step[4]["true_reward"] for step in steps] == [1 + 2 + 3, 4 + 5 + 6, 7]
    assert [step[1] for step in steps] == [0, 0, 28]
    assert [step[2] for step in steps] == [False, False, True]
    assert [step[4]["success"] for step in steps] == [False, False, True]


@pytest.mark.parametrize(("success_of", "success"), [("last", False), ("any", True)])
def test_success_of_a_step_that_is_not_the_last_of_its_action(success_of: Any, success: bool) -> None:
    env = Environment("Adding-v0", action_repeat=3, success_of=success_of, kwargs={"success_at": 4})
    assert play(env.make())[-1][4]["success"] is success


def test_a_time_limit_counts_each_of_them() -> None:
    steps = play(Environment("Adding-v0", max_episode_steps=5, action_repeat=3).make())
    assert [float(step[0][0]) for step in steps] == [1.5, 2.5]
    assert steps[-1][1:4] == (15.0, False, True)


class Drawing(Adding):
    """Draws only what is seen, and counts it."""

    drawn = 0
    unseen = False

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        _, reward, terminated, truncated, info = super().step(action)
        observation = np.full(1, -1000, np.float32) if self.unseen else self.observe()
        return observation, reward, terminated, truncated, info

    def observe(self) -> Any:
        self.drawn += 1
        return self._sum.copy()


gymnasium.register("Drawing-v0", Drawing)


@pytest.mark.parametrize("limit", [None, 5])
def test_what_nobody_sees_is_not_drawn(limit: int | None) -> None:
    options: Any = {"max_episode_steps": limit, "action_repeat": 3}
    env = Environment("Drawing-v0", **options).make()
    steps, expected = play(env), play(Environment("Adding-v0", **options).make())
    assert [step[0].tolist() for step in steps] == [step[0].tolist() for step in expected]
    assert [step[1:4] for step in steps] == [step[1:4] for step in expected]
    assert env.unwrapped.drawn == len(steps)


def test_a_wrapper_that_may_look_sees_every_step() -> None:
    wrapper = {"class_path": "gymnasium.wrappers.RecordEpisodeStatistics"}
    env = Environment("Drawing-v0", action_repeat=3, wrappers=[wrapper]).make()
    play(env)
    assert env.unwrapped.drawn == 7


def test_a_repeat_of_nothing_is_refused() -> None:
    with pytest.raises(ParameterError, match="action_repeat=0: must be greater than zero"):
        Environment("Adding-v0", action_repeat=0)


def test_a_rollout_goes_on_from_the_middle_of_an_episode() -> None:
    env = Environment("Adding-v0", action_repeat=2)
    rollout, resumed = (Rollout(env.make_vector(2)) for _ in range(2))
    rollout.reset(seed=0)
    action = np.full((2, 1), 0.5, np.float32)
    rollout.step(action)
    assert resumed.load_state_dict(copy.deepcopy(rollout.state_dict())) == []
    episodes = [[each for _ in range(3) for each in one.step(action)] for one in (rollout, resumed)]
    for episode in (*episodes[0], *episodes[1]):
        assert episode[keys.OBSERVATION].flatten().tolist() == [0, 1, 2, 3, 3.5]
        assert episode[keys.REWARD].tolist() == [3, 7, 11, 7]
    assert len(episodes[0]) == len(episodes[1]) == 2
    rollout.envs.close()
    resumed.envs.close()


def test_the_budget_and_the_warm_up_are_in_steps_of_the_environment() -> None:
    env = Environment("Adding-v0", action_repeat=2)
    collect = make_collect(env, warmup_steps=80, total_env_steps=120)
    module, data = make_module(env), make_data(action_repeat=2)
    make_trainer(collect).fit(module, data)
    assert module.env_steps == 120
    # Of 60 actions, and of seven steps an episode: the fourth action of each takes only one.
    assert data.replay.episodes["length"].tolist() == [4] * 15
    with pytest.raises(
        ParameterError, match=r"=30: must be a multiple of num_envs=2 times env.action_repeat=2"
    ):
        make_collect(env, env_steps_per_iteration=30, num_envs=2).check(data)
    with pytest.raises(ParameterError, match=r"at most collect.warmup_steps=60 divided by env.action_repeat=2"):
        make_collect(env, warmup_steps=60).check(data)
