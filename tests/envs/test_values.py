"""What environments give: copied, read in the one way there is, or refused with step and episode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

import tests.odd_environments  # noqa: F401 - registers the environments
from rrd_lightning import Environment, ParameterError, keys
from rrd_lightning.envs import Rollout
from rrd_lightning.spaces import single_precision
from rrd_lightning.success import follow_success, read_success

# Gymnasium's own checker remarks on what is unusual.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")
NAN = float("nan")


def play(episodes: int, vectorization: Any = "sync", num_envs: int = 1, **kwargs: Any) -> list[Any]:
    success_of = kwargs.pop("success_of", "last")
    env = Environment("Odd-v0", kwargs=kwargs, success_of=success_of)
    rollout = Rollout(env.make_vector(num_envs, vectorization))
    try:
        rollout.reset(seed=0)
        finished: list[Any] = []
        while len(finished) < episodes:
            finished += rollout.step(rollout.envs.action_space.sample())
        return finished
    finally:
        rollout.envs.close()


@pytest.mark.parametrize(
    ("vectorization", "precision"), [("sync", "float32"), ("sync", "float64"), ("async", "float32")]
)
def test_an_array_that_is_given_again_and_again_is_copied(vectorization: str, precision: str) -> None:
    for episode in play(4, vectorization, 2, precision=precision):
        assert episode[keys.OBSERVATION][:, 0].tolist() == list(range(21))
        assert episode[keys.OBSERVATION].dtype == torch.float32


@pytest.mark.parametrize(
    "reward", [np.ones(1), np.float32(1), np.ones((1, 1)), True, torch.ones(1), np.array(1)]
)
def test_rewards_that_are_one_number(reward: Any) -> None:
    (episode,) = play(1, reward=reward)
    assert episode[keys.REWARD].tolist() == [1.0] * 20
    assert episode[keys.EPISODE_RETURN] == 20


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (None, "the reward None, must be a number"),
        (np.ones(2), r"the reward array\(\[1., 1.\]\), must be a number"),
        ("1", "the reward '1', must be a number"),
        (NAN, "the reward nan, must be finite"),
        (-float("inf"), "the reward -inf, must be finite"),
    ],
)
def test_rewards_that_are_none(reward: Any, message: str) -> None:
    with pytest.raises(
        ParameterError, match=rf"environment=0: gave {message}; step 3 of its episode 1 \(seed 0\)"
    ):
        play(1, reward=[1.0, 1.0, reward])


def test_processes_tell_of_it_alike() -> None:
    with pytest.raises(
        ParameterError, match=r"gave the reward nan, must be finite; step 2 of its episode 1 \(seed 0\)"
    ):
        play(1, "async", reward=[1.0, NAN])


def test_an_episode_after_the_first_is_told_by_its_number() -> None:
    rollout = Rollout(Environment("Odd-v0").make_vector(1))
    rollout.reset(seed=0)
    while not rollout.step(np.zeros((1, 2), np.float32)):
        pass
    rollout.envs.envs[0].unwrapped._rewards = [NAN]
    with pytest.raises(ParameterError, match=r"step 1 of its episode 2$"):
        rollout.step(np.zeros((1, 2), np.float32))


@pytest.mark.parametrize(
    ("space", "value", "message"),
    [
        (Box(-1, 1, (2,)), [1, NAN], "with nan, must be finite"),
        (Box(-1, 1, (2,)), np.array([np.inf, 0]), "with inf, must be finite"),
        (Box(-1, 1, (2,)), np.zeros((1, 2)), r"of shape \(1, 2\), must have shape \(2,\)"),
        (Box(-1, 1, (1,)), 0.5, r"of shape \(\), must have shape \(1,\)"),
        (Box(0, 255, (1, 2), np.uint8), np.array([[0.5, 1]]), "of float64, must be of uint8"),
        (Box(0, 255, (1, 2), np.uint8), np.array([[256, 1]]), "of int64, must be of uint8"),
        (Discrete(3, start=5), 8, r"of 8, must be in Discrete\(3, start=5\)"),
        (Dict({"a": Discrete(2)}), {"b": 1}, r"dict, must be a dictionary of \['a'\]"),
        (Dict({"a": Discrete(2)}), 3, r"int, must be a dictionary of \['a'\]"),
    ],
)
def test_observations_that_are_not_of_the_space(space: Any, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        single_precision(space)[1](value)


def test_large_numbers_are_finite() -> None:
    assert single_precision(Box(-np.inf, np.inf, (2,)))[1]([3e38, -3e38]).tolist() == pytest.approx(
        [3e38, -3e38]
    )


@pytest.mark.parametrize(
    ("value", "success"),
    [
        (True, True),
        (np.bool_(False), False),
        (1.0, True),
        (np.float32(0), False),
        (np.array([True]), True),
        (np.array([1, 0]), False),
        ({"task": False}, False),
        ({"task": True, "grasp": np.array(1)}, True),
        ({"task": True, "grasp": False}, False),
        (None, None),
    ],
)
def test_what_success_means(value: Any, success: bool | None) -> None:
    assert read_success(value) is success


@pytest.mark.parametrize("value", ["False", "True", NAN, 0.3, 2, {}, [], {"task": "no"}, b"1", object()])
def test_success_that_cannot_be_read(value: Any) -> None:
    with pytest.raises(
        ValueError, match=r"success .* must be true or false, 1 or 0, or an array or dictionary"
    ):
        read_success(value)


@pytest.mark.parametrize(
    ("steps", "last", "any"),
    [
        ([None, None], None, None),
        ([None, True], True, True),
        ([True, None], False, True),
        ([True, False], False, True),
        ([False, None], False, False),
        ([False, True], True, True),
    ],
)
def test_success_of_an_episode_is_that_of_its_last_step_or_of_any(steps: Any, last: Any, any: Any) -> None:
    for success_of, expected in (("last", last), ("any", any)):
        found = None
        for step in steps:
            found = follow_success(found, step, success_of)  # type: ignore[arg-type]
        assert found is expected


def test_success_out_of_an_environment() -> None:
    def successes(**kwargs: Any) -> list[Any]:
        return [bool(episode[keys.SUCCESS]) for episode in play(2, **kwargs) if keys.SUCCESS in episode]

    assert successes(success={"task": False}) == [False, False]
    assert successes(success=[True, "absent"]) == [False, False]
    assert successes(success=[True, "absent"], success_of="any") == [True, True]
    assert successes(success="absent") == []
    with pytest.raises(
        ParameterError, match=r"environment=0: gave success 'False', must be true or false.*; step 2"
    ):
        play(1, success=[True, "False"])


def test_an_environment_that_tells_successes_alone() -> None:
    rollout = Rollout(Environment("Odd-v0").make_vector(1))
    rollout.reset(seed=0)
    told = []
    for success in ("absent", True, "absent"):
        rollout.envs.envs[0].unwrapped._successes = [success]
        for _ in range(20):
            told += [episode.get(keys.SUCCESS, None) for episode in rollout.step(np.zeros((1, 2), np.float32))]
    assert told == [None, True, False]
    # A resumed run knows it, too.
    again = Rollout(Environment("Odd-v0").make_vector(1))
    again.load_state_dict(rollout.state_dict())
    (episode,) = [each for _ in range(20) for each in again.step(np.zeros((1, 2), np.float32))]
    assert not episode[keys.SUCCESS]


def test_an_old_generator_is_wound_forward() -> None:
    rollout = Rollout(Environment("OddTypes-v0").make_vector(1))
    rollout.reset(seed=3)
    for _ in range(25):
        rollout.step(np.zeros((1, 2), np.float32))
    again = Rollout(Environment("OddTypes-v0").make_vector(1))
    assert again.load_state_dict(rollout.state_dict()) == []
    for _ in range(20):
        mine, theirs = (each.step(np.zeros((1, 2), np.float32)) for each in (rollout, again))
        assert [each[keys.REWARD].tolist() for each in mine] == [each[keys.REWARD].tolist() for each in theirs]


def test_an_episode_without_an_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded never ends; where a limit is set, that one holds."""
    monkeypatch.setattr("rrd_lightning.envs.episodic.ENDLESS", 50)
    rollout = Rollout(Environment("Bounded-v0").make_vector(1))
    rollout.reset(seed=0)
    for _ in range(49):
        rollout.step(np.zeros((1, 2), np.float32))
    message = r"an episode without an end, .*: set env.max_episode_steps; step 50"
    with pytest.raises(ParameterError, match=message):
        rollout.step(np.zeros((1, 2), np.float32))
    rollout = Rollout(Environment("Bounded-v0", max_episode_steps=60).make_vector(1))
    rollout.reset(seed=0)
    assert [len(rollout.step(np.zeros((1, 2), np.float32))) for _ in range(60)] == [0] * 59 + [1]
