"""Environments: what the wrapper withholds, and whole episodes out of vectorised steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tensordict import TensorDict
from torch.utils._pytree import tree_flatten

from rrd_lightning import Environment, ParameterError, keys
from rrd_lightning.envs import Rollout
from rrd_lightning.spaces import space_from_dict, space_to_dict

PAPER = ["Ant", "HalfCheetah", "Walker2d", "Humanoid", "Reacher", "Swimmer", "Hopper", "HumanoidStandup"]


@pytest.mark.parametrize("task", PAPER)
def test_tasks_of_the_paper(task: str) -> None:
    """The wrapped task is Gymnasium's own: same states and rewards, action for action."""
    wrapped, plain = Environment(f"{task}-v5").make(), gymnasium.make(f"{task}-v5")
    first, info = wrapped.reset(seed=3)
    reference, _ = plain.reset(seed=3)
    assert first.dtype == np.float32
    assert info == {}
    middle = (plain.action_space.high + plain.action_space.low) / 2
    half = (plain.action_space.high - plain.action_space.low) / 2
    wrapped.action_space.seed(0)
    episode_return = 0.0
    for _ in range(60):
        action = wrapped.action_space.sample()
        observation, feedback, terminated, truncated, info = wrapped.step(action)
        reference, reward, *ends, _ = plain.step(middle + half * action)
        np.testing.assert_allclose(observation, reference, rtol=1e-5, atol=1e-5)
        episode_return += reward
        assert info["true_reward"] == pytest.approx(reward, rel=1e-4, abs=1e-4)
        assert [terminated, truncated] == ends
        if terminated or truncated:
            assert feedback == pytest.approx(episode_return, rel=1e-4)
            break
        assert feedback == 0
    wrapped.close()
    plain.close()


def test_time_limit_can_be_changed() -> None:
    env = Environment("Reacher-v5", max_episode_steps=70)
    assert env.max_episode_steps == 70
    single = env.make()
    single.reset(seed=0)
    ends = [single.step(single.action_space.sample())[3] for _ in range(70)]
    assert ends == [False] * 69 + [True]


def test_constructor_arguments_are_passed() -> None:
    env = Environment("HalfCheetah-v5", kwargs={"exclude_current_positions_from_observation": False})
    assert env.observation_space.shape == (18,)
    with pytest.raises(ParameterError, match=r"env.id='HalfCheetah-v5': cannot be made: .*no_such_option"):
        _ = Environment("HalfCheetah-v5", kwargs={"no_such_option": 1}).observation_space


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actions_are_scaled_to_the_bounds(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.environments.ACTION_DTYPE", dtype)
    env = Environment("Bounded-v0").make()
    assert env.action_space == Box(-1, 1, (2,), np.float32)
    env.reset(seed=0)
    for action, expected in (((-1, -1), (0, -3)), ((1, 1), (4, 9)), ((0, 0), (2, 3)), ((0.5, -0.5), (3, 0))):
        received, *_ = env.step(np.array(action, np.float32))
        assert received.tolist() == list(expected)


def test_unknown_ids_list_near_matches() -> None:
    with pytest.raises(ParameterError, match=r"env.id='HalfCheeta-v5'.*near matches: HalfCheetah-v5"):
        Environment("HalfCheeta-v5")
    with pytest.raises(ParameterError, match=r"env.id='pendulum'.*near matches: Pendulum-v1"):
        Environment("pendulum")
    with pytest.raises(ParameterError, match="the module before the colon cannot be imported"):
        Environment("no_such_module:Task-v0")
    with pytest.raises(ParameterError, match="max_episode_steps=0: must be greater than zero"):
        Environment("Pendulum-v1", max_episode_steps=0)


def test_module_prefix_registers_a_users_environment() -> None:
    assert Environment("tests.environments:Follow-v0").id == "Follow-v0"


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_rollout_puts_whole_episodes_together(vectorization: str) -> None:
    """Counter's observations tell episode and step; its reward counts 1, 2, … up."""
    rollout = Rollout(Environment("Counter-v0").make_vector(3, vectorization))
    rollout.reset(seed=5)
    assert rollout.observation.shape == (3, 2)
    finished = []
    for step in range(60):
        finished += list(rollout.step(np.full((3, 1), step / 100, dtype=np.float32)))
    rollout.envs.close()
    assert len(finished) > 20
    for episode in finished:
        length = len(episode[keys.ACTION])
        identity = episode[keys.OBSERVATION][0, 0]
        expected = torch.stack([identity.expand(length + 1), torch.arange(length + 1.0)], -1)
        torch.testing.assert_close(episode[keys.OBSERVATION], expected)
        assert episode[keys.REWARD].tolist() == list(range(1, length + 1))
        assert episode[keys.EPISODE_RETURN] == length * (length + 1) / 2
        assert episode[keys.TERMINATED] == (identity % 2 == 0)
        # Successive actions are successive steps of the loop.
        steps = (episode[keys.ACTION][:, 0] * 100).round()
        torch.testing.assert_close(steps, steps[0] + torch.arange(length))
        assert keys.SUCCESS not in episode


@pytest.mark.parametrize("id", ["Counter-v0", "Bounded-v0", "Pixels-v0", "CartPole-v1"])
def test_environments_in_turn_give_what_those_of_gymnasium_give(id: str) -> None:
    env = Environment(id)
    ours = env.make_vector(3)
    theirs = SyncVectorEnv([env.make] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    ours.action_space.seed(0)
    assert_same(ours.reset(seed=1), theirs.reset(seed=1))
    ended = 0
    for _ in range(40):
        action = ours.action_space.sample()
        *results, info = ours.step(action)
        *expected, expected_info = theirs.step(action)
        assert_same(results, expected)
        done = expected[2] | expected[3]
        if not done.all():
            assert_same(info["true_reward"][~done], expected_info["true_reward"][~done])
        if done.any():
            ended += 1
            for key in ("final_obs", "_final_obs"):
                assert_same(list(info[key]), list(expected_info[key]))
            assert_same(info["final_info"], expected_info["final_info"])
    assert ended or id == "Bounded-v0"
    ours.close()
    theirs.close()


def assert_same(actual: Any, expected: Any) -> None:
    """Of one structure, and with the same types and bits."""
    leaves, structure = tree_flatten(actual)
    expected_leaves, expected_structure = tree_flatten(expected)
    assert structure == expected_structure
    for one, other in zip(leaves, expected_leaves, strict=True):
        assert type(one) is type(other)
        np.testing.assert_array_equal(one, other, strict=True)


def failing_rollout(way: str, num_envs: int, timeout: float = 60.0) -> Rollout:
    Path("tickets").mkdir()
    kwargs = {"way": way, "tickets": str(Path("tickets").absolute())}
    rollout = Rollout(Environment("Failing-v0", kwargs=kwargs).make_vector(num_envs, "async", timeout))
    rollout.reset(seed=0)
    return rollout


def step_all(rollout: Rollout, value: float = 0.0) -> list[TensorDict]:
    return rollout.step(np.full((rollout.envs.num_envs, 1), value, dtype=np.float32))


@pytest.mark.parametrize("way", ["raise", "exit", "hang"])
def test_failed_worker_is_replaced_and_its_episode_dropped(way: str, caplog: pytest.LogCaptureFixture) -> None:
    rollout = failing_rollout(way, 2, timeout=5.0)
    finished = [episode for _ in range(10) for episode in step_all(rollout)]
    before = rollout.observation
    Path("tickets/one").touch()
    finished += step_all(rollout, 1.0)
    assert rollout.dropped == 1
    (new,) = torch.nonzero((rollout.observation == 0).all(-1) & (before[:, 0] > 0))
    reasons = {
        "raise": "ParameterError: simulator='x'",
        "exit": "its worker process died",
        "hang": "timed out after",
    }
    assert reasons[way] in caplog.text
    # Its first episode in the new process begins at its first step.
    for _ in range(10):
        finished += step_all(rollout, 2.0)
    rollout.envs.close()
    for episode in finished:
        steps = torch.arange(len(episode[keys.OBSERVATION]), dtype=torch.float32)
        torch.testing.assert_close(episode[keys.OBSERVATION][:, 1], steps)
        assert len(episode[keys.ACTION]) == len(steps) - 1
    anew = [
        episode
        for episode in finished
        if (episode[keys.OBSERVATION][0, 0] == 0) and (episode[keys.ACTION] == 2).any()
    ]
    assert len(anew) == 1
    assert (anew[0][keys.ACTION] == 2).all()
    assert len(new) == 1


def test_worker_that_dies_between_steps_is_noticed_by_whatever_comes_first() -> None:
    rollout = failing_rollout("exit", 2)

    def kill() -> None:
        (process,) = rollout.envs._workers[1].processes
        process.kill()
        process.join()

    kill()
    # What is asked for a checkpoint is answered by the new one, and its first step reports the loss.
    assert len(rollout.state_dict()["starts"]) == 2
    assert rollout.dropped == 0
    for dropped in (1, 1):
        step_all(rollout)
        assert rollout.dropped == dropped
    kill()
    step_all(rollout)
    assert rollout.dropped == 2
    rollout.envs.close()


def test_worker_that_fails_again_and_again_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrd_lightning.envs.failures.MAX_FAILURES", 1)
    rollout = failing_rollout("raise", 1)

    def fail() -> None:
        Path("tickets/one").touch()
        step_all(rollout)

    fail()
    while not step_all(rollout):  # an episode that ends makes good for it
        pass
    fail()
    assert rollout.dropped == 2
    message = r"environment=0: failed 2 times .* last error: ParameterError: simulator='x'"
    with pytest.raises(ParameterError, match=message):
        fail()
    rollout.envs.close()


def test_success_is_passed_on() -> None:
    rollout = Rollout(Environment("Follow-v0").make_vector(1))
    rollout.reset(seed=0)
    episodes = []
    for _ in range(20):
        episodes += list(rollout.step(rollout.observation.numpy()))
    assert [bool(episode[keys.SUCCESS]) for episode in episodes] == [True, True]
    assert episodes[0][keys.EPISODE_RETURN] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    "space",
    [
        Box(-np.inf, np.inf, (3,), np.float64),
        Box(np.array([-1, -2], np.float32), np.array([3, np.inf], np.float32)),
        Box(0, 255, (2, 4, 3), np.uint8),
        Discrete(5, start=1),
        Dict({"image": Box(0, 255, (2, 2), np.uint8), "more": Dict({"n": Discrete(3)})}),
    ],
)
def test_spaces_survive_as_plain_data(space: gymnasium.Space) -> None:
    assert space_from_dict(space_to_dict(space)) == space


def test_spaces_that_are_not_served() -> None:
    with pytest.raises(ParameterError, match="must be a Box, a Discrete or a Dict of these"):
        space_to_dict(MultiBinary(3))
    with pytest.raises(ParameterError, match=r"space.type='Graph'"):
        space_from_dict({"type": "Graph"})


def normalized(**options: Any) -> Any:
    env = gymnasium.wrappers.NormalizeReward(gymnasium.make("Pendulum-v1", **options))
    return gymnasium.wrappers.NormalizeObservation(env)


gymnasium.register("Normalized-v0", normalized, max_episode_steps=200)


def test_wrappers_with_running_statistics_are_named() -> None:
    message = (
        r"env.id='Normalized-v0': NormalizeObservation, NormalizeReward keeps .* model.normalize_observations"
    )
    with pytest.warns(UserWarning, match=message):
        assert Environment("Normalized-v0").observation_space.shape == (3,)
