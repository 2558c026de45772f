"""Demonstrations as if each action had been held for several steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict

from rrd_lightning import ParameterError, keys
from rrd_lightning.datasets import Demonstrations, make_episode
from rrd_lightning.datasets.repeat import repeat_actions


def make_one(steps: int) -> TensorDict:
    number = torch.arange(steps + 1, dtype=torch.float32)
    return make_episode(
        {"a": number[:, None]},
        number[:-1, None] / 10,
        number[:-1],
        episode_return=3.0,
        terminated=True,
        success=True,
    )


@pytest.mark.parametrize(
    ("steps", "observations", "actions", "rewards"),
    [
        (4, [0, 2, 4], [0.05, 0.25], [1, 5]),
        (5, [0, 2, 4, 5], [0.05, 0.25, 0.4], [1, 5, 4]),
        (1, [0, 1], [0.0], [0]),
    ],
)
def test_a_demonstration_is_joined(steps: int, observations: Any, actions: Any, rewards: Any) -> None:
    episode = make_one(steps)
    joined = repeat_actions(episode, 2)
    assert joined[keys.OBSERVATION].batch_size == (len(observations),)
    assert joined[keys.OBSERVATION, "a"].flatten().tolist() == observations
    assert joined[keys.ACTION].flatten().tolist() == pytest.approx(actions)
    assert joined[keys.REWARD].tolist() == rewards
    for key in (keys.EPISODE_RETURN, keys.TERMINATED, keys.SUCCESS):
        assert joined[key] == episode[key]
    assert len(episode[keys.ACTION]) == steps
    assert repeat_actions(episode, 1) is episode


def test_lengths_are_those_of_the_joined_demonstrations(pendulum: str) -> None:
    demonstrations = Demonstrations(pendulum, action_repeat=4)
    spaces_of_all = demonstrations.observation_space, demonstrations.action_space
    entries = demonstrations.entries(spaces_of_all)
    assert {entry.facts.length for entry in entries} == {8}  # of 30 steps
    ((_, episode),) = demonstrations.read(entries[:1], spaces_of_all)
    assert len(episode[keys.ACTION]) == 8
    discrete = spaces_of_all[0], spaces.Discrete(3)
    with pytest.raises(
        ParameterError, match=r"env.action_repeat=4: takes the mean of a demonstration's actions"
    ):
        demonstrations.entries(discrete)
