"""Episodes of LIBERO in its real simulator: repetition, initial states, success, workers."""

from __future__ import annotations

import json

import gymnasium
import numpy as np
import pytest

from rrd_lightning import Environment, keys
from rrd_lightning.envs import Rollout, libero, libero_task
from tests.envs.libero_tasks import BOWL, DRAWER, SMALL, equal, make, needs_libero, play, simulated

pytestmark = needs_libero


@simulated
@pytest.mark.parametrize("task", [BOWL, DRAWER])
def test_episodes_repeat_to_the_last_bit(task: str) -> None:
    """In the same environment after other episodes, and in a new one that has played none."""
    kwargs = {"wrist": True, "proprioception": True}
    env, other = make(task, **kwargs), make(task, **kwargs)
    env.reset(seed=0)
    before = env.unwrapped.np_random.bit_generator.state
    first = [*env.reset()[0].values(), *play(env)]
    different = [*env.reset()[0].values(), *play(env)]
    assert not equal(first, different)
    for each in (env, other):
        each.unwrapped.np_random = np.random.default_rng()
        each.unwrapped.np_random.bit_generator.state = before
        assert equal(first, [*each.reset()[0].values(), *play(each)])
    # Each draws with its own graphics context, also where the other's was used last.
    env.close()
    assert equal(play(other), play_alone(task, kwargs, before))
    other.close()


def play_alone(task: str, kwargs: dict, generator: dict) -> list[np.ndarray]:
    env = make(task, **kwargs)
    env.unwrapped.np_random = np.random.default_rng()
    env.unwrapped.np_random.bit_generator.state = generator
    env.reset()
    play(env)
    seen = play(env)
    env.close()
    return seen


@simulated
def test_seeds_and_the_global_generator() -> None:
    env = make()
    first, again, other = (env.reset(seed=seed)[0]["agentview"] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    env.reset()
    assert np.random.rand() == expected  # noqa: NPY002
    env.close()


@simulated
def test_initial_states() -> None:
    env = gymnasium.make(libero_task.find_task(BOWL).spec(), **SMALL).unwrapped
    all_states = env._states

    def states(initial_states: str | int, number: int = 3) -> list[int]:
        env.initial_states, env._states = initial_states, all_states[:number]
        return [env.reset(seed=seed)[1]["initial_state"] for seed in (4, None, None, None)]

    assert states("cycled") == [1, 2, 0, 1]
    assert states(2) == [2] * 4
    assert len(set(states("random", 50))) > 1
    env.close()


@simulated
def test_relived_episode_goes_on_through_the_cycle() -> None:
    env, other = make(initial_states="cycled"), make(initial_states="cycled")
    env.reset(seed=5)
    env.reset()
    assert json.loads(env.episode_start)[1] == {"initial_state": 6}
    actions = [env.action_space.sample() for _ in range(3)]
    for action in actions:
        observation, *_ = env.step(action)
    other.reset(seed=0)
    other.past = (env.episode_start, actions)
    relived, _ = other.fast_forward()
    assert np.array_equal(observation["agentview"], relived["agentview"])
    assert np.array_equal(env.reset()[0]["agentview"], other.reset()[0]["agentview"])
    env.close()
    other.close()


@simulated
def test_success_ends_the_episode_with_a_reward_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make()
    env.reset(seed=0)
    action = np.zeros(7, np.float32)
    assert env.step(action)[1:] == (0.0, False, False, {"true_reward": 0.0, "success": False})
    simulator = env.unwrapped._simulator
    bowl, stove = "akita_black_bowl_1_joint0", "flat_stove_1_cook_region"
    x, y, z = simulator.sim.data.get_site_xpos(stove)
    simulator.sim.data.set_joint_qpos(bowl, [x, y, z + 0.05, 1, 0, 0, 0])
    for _ in range(20):
        _, feedback, terminated, truncated, info = env.step(action)
        if terminated:
            break
    assert (feedback, terminated, truncated) == (1.0, True, False)
    assert info == {"true_reward": 1.0, "success": True}
    env.close()


@simulated
def test_resets_are_tried_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make()
    env.reset(seed=0)
    from robosuite.utils.errors import RandomizationError

    tries = []

    def crowded() -> None:
        tries.append(1)
        raise RandomizationError("the table is full")

    monkeypatch.setattr(env.unwrapped._simulator.env, "reset", crowded)
    with pytest.raises(
        RuntimeError, match=f"{BOWL}: objects could not be placed in 10 attempts: the table is full"
    ):
        env.reset()
    assert len(tries) == libero.RESET_ATTEMPTS


@simulated
def test_two_workers_collect_and_resume() -> None:
    environment = Environment(BOWL, max_episode_steps=3, kwargs={**SMALL, "proprioception": True})
    rollout, resumed = (Rollout(environment.make_vector(2, how)) for how in ("async", "sync"))
    rollout.reset(seed=0)
    rollout.envs.action_space.seed(0)
    episodes = [episode for _ in range(4) for episode in rollout.step(rollout.envs.action_space.sample())]
    assert len(episodes) == 2
    assert episodes[0][keys.OBSERVATION]["agentview"].shape == (4, 3, 64, 64)
    assert not episodes[0][keys.SUCCESS]
    assert resumed.load_state_dict(rollout.state_dict()) == []
    action = rollout.envs.action_space.sample()
    rollout.step(action)
    resumed.step(action)
    assert (rollout.observation == resumed.observation).all()
    rollout.envs.close()
    resumed.envs.close()


@simulated
@pytest.mark.slow
@pytest.mark.parametrize("suite", libero_task.TIME_LIMITS)
def test_every_task_builds_resets_and_steps(suite: str) -> None:
    for number, name in enumerate(libero_task.task_names()[suite]):
        env = make(f"{suite}:{number}")
        first, _ = env.reset(seed=0)
        assert first["agentview"].std() > 5, name
        assert env.unwrapped.instruction, name
        for _ in range(3):
            observation, feedback, terminated, _, info = env.step(env.action_space.sample())
            assert observation in env.observation_space, name
            assert (feedback, terminated, info["success"]) == (0, False, False), name
        again, _ = env.reset(seed=0)
        assert np.array_equal(again["agentview"], first["agentview"]), name
        env.close()
