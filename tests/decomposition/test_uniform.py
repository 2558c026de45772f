"""The return, spread over the steps of its episode."""

from __future__ import annotations

import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st

from rrd_lightning import keys
from rrd_lightning.decomposition import UniformRedistribution
from rrd_lightning.episode import episode_transitions
from tests.decomposition.training import check_resumes_and_loads, follow, make_transitions
from tests.episodes import make_episode
from tests.updates import check_groups, make_batch

VECTOR, ACTION = Box(-1, 1, (2,)), Box(-1, 1, (1,))


def test_reward_by_hand() -> None:
    decomposition = UniformRedistribution(VECTOR, ACTION)
    transitions = make_transitions([6.0, -5.0, 0.0], [3, 10, 1])
    assert decomposition.reward(transitions).tolist() == [2, -0.5, 0]


@settings(deadline=None, max_examples=40)
@given(length=st.integers(1, 2000), identity=st.integers(0, 100))
def test_the_rewards_of_an_episode_add_up_to_its_return(length: int, identity: int) -> None:
    episode = make_episode(identity, length)
    reward = UniformRedistribution(VECTOR, ACTION).reward(episode_transitions(episode))
    assert reward.shape == (length,)
    torch.testing.assert_close(reward.sum(), episode[keys.EPISODE_RETURN])


def test_it_learns_nothing() -> None:
    decomposition = UniformRedistribution(VECTOR, ACTION)
    check_groups(decomposition, decomposition.losses(make_batch(2, 1, 4, (2, 3))))


def test_it_trains_an_agent() -> None:
    # Seeds 0 to 2 reached -1.5, -0.5 and -1.2, where the undecomposed return reached -5.7, -2.0 and -1.9.
    assert follow(UniformRedistribution) > -3


def test_it_resumes_and_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = check_resumes_and_loads(UniformRedistribution, monkeypatch)
    assert loaded.rewards(make_transitions([6.0], [3])) == 2
