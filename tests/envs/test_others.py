"""Environments of other packages, and of other habits: collected from, resumed, or refused with a reason."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import Env, spaces

from rrd_lightning import Environment, ParameterError, RRDModule
from rrd_lightning.agents import DQN, SAC
from rrd_lightning.envs import Rollout
from rrd_lightning.export import export
from tests.runs import run

SMALL = {"hidden_sizes": (8,)}
robotics = pytest.mark.skipif(
    find_spec("gymnasium_robotics") is None, reason="gymnasium-robotics is not installed"
)
metaworld = pytest.mark.skipif(find_spec("metaworld") is None, reason="metaworld is not installed")
FLAT = "gymnasium.wrappers.FlattenObservation"
FETCH, MAZE = "gymnasium_robotics:FetchReach-v4", "gymnasium_robotics:PointMaze_UMaze-v3"


class Deaf(Env[Any, Any]):
    """Does not hear of seeds, and looks actions up in a dictionary, where an array is none."""

    observation_space = spaces.MultiDiscrete([9, 9])
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self._steps = 0
        return self.np_random.integers(9, size=2), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        reward = {0: 1.0, 1: 2.0}[action]
        return self.np_random.integers(9, size=2), reward, False, self._steps == 10, {}


class Counted(Deaf):
    """The same, as a vector of integers."""

    observation_space = spaces.Box(0, 9, (2,), np.int64)


gymnasium.register("Deaf-v0", Deaf)
gymnasium.register("Counted-v0", Counted)


def check(env: Environment, steps: int = 30, **options: Any) -> list[Any]:
    """A policy acts, a rollout is resumed in fresh environments, and goes on alike."""
    kind = SAC if isinstance(env.action_space, spaces.Box) else DQN
    module = RRDModule(env.observation_space, env.action_space, agent=partial(kind, **SMALL))
    first, second = (Rollout(env.make_vector(1)) for _ in range(2))
    episodes = []
    first.reset(3)
    for _ in range(steps):
        episodes += first.step(module.act(first.observation, explore=True).numpy())
    assert second.load_state_dict(first.state_dict()) == []
    for _ in range(5):
        action = first.envs.action_space.sample()
        first.step(action)
        second.step(action)
        assert torch.equal(flat(first.observation), flat(second.observation))
    for rollout in (first, second):
        rollout.envs.close()
    return episodes


def flat(observation: Any) -> torch.Tensor:
    parts = (
        observation.values()
        if hasattr(observation, "values") and not torch.is_tensor(observation)
        else [observation]
    )
    return torch.cat([part.flatten() for part in parts])


def test_an_environment_that_ignores_seeds_and_numbers_that_are_integers() -> None:
    env = Environment("Counted-v0")
    assert len(check(env)) == 3
    rollouts = [Rollout(env.make_vector(1)) for _ in range(2)]
    for rollout in rollouts:
        rollout.reset(5)
    assert torch.equal(*(rollout.observation for rollout in rollouts))
    assert rollouts[0].observation.dtype == torch.float32


def test_what_networks_cannot_see_says_what_they_can() -> None:
    env = Environment("Deaf-v0")
    with pytest.raises(ParameterError, match=r"observation_space=MultiDiscrete.*FlattenObservation"):
        RRDModule(env.observation_space, env.action_space, agent=DQN)
    check(Environment("Deaf-v0", wrappers=[FLAT]))
    nested = spaces.Dict({"goal": spaces.Dict({"x": spaces.Box(-1, 1, (1,))})})
    with pytest.raises(ParameterError, match=r"observation_space=.*FlattenObservation"):
        RRDModule(nested, spaces.Discrete(2), agent=DQN)


@robotics
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("env_id", "limit"), [(FETCH, None), (MAZE, 20)])
def test_goals_of_gymnasium_robotics(env_id: str, limit: int | None) -> None:
    env = Environment(env_id, max_episode_steps=limit)
    assert set(env.observation_space.spaces) == {"achieved_goal", "desired_goal", "observation"}
    episodes = check(env, steps=60)
    assert "success" in episodes[0]


@robotics
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_run_on_a_goal() -> None:
    _, module, _ = run(FETCH, collect={"total_env_steps": 140}, evaluate={"episodes": 1})
    assert module.trainer.callback_metrics["evaluate/return_mean"] == -50


@metaworld
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_task_of_meta_world() -> None:
    kwargs = {"env_name": "reach-v3", "seed": 1}
    episodes = check(Environment("metaworld:Meta-World/MT1", 20, kwargs), steps=50)
    assert [len(each["action"]) for each in episodes] == [20, 20]
    assert not episodes[0]["success"]


def test_a_policy_of_integers_is_exported() -> None:
    trainer, module, _ = run(
        "Counted-v0", module={"agent": partial(DQN, **SMALL)}, collect={"total_env_steps": 140}
    )
    trainer.save_checkpoint("trained.ckpt")
    policy = torch.export.load(export("trained.ckpt")[0]).module()
    numbers = np.arange(8).reshape(4, 2)
    assert set(policy(torch.from_numpy(numbers)).tolist()) <= {0, 1}
    assert module.predict(numbers).shape == (4,)
    assert module.reward(numbers[0], 1, numbers[1]).shape == ()
