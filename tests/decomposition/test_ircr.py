"""The return of the episode, between the smallest and the largest of the replay."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from rrd_lightning import Environment, ParameterError, keys
from rrd_lightning.cli import main
from rrd_lightning.decomposition import IRCR
from rrd_lightning.replay import BestEpisodesSampler, EpisodeReplay, MixedSampler, PairedSampler
from tests.decomposition.training import check_resumes_and_loads, follow, make_transitions
from tests.runs import make_data, make_module
from tests.updates import check_groups

VECTOR, ACTION = Box(-1, 1, (2,)), Box(-1, 1, (1,))
SCALES = ["per_step", "episode"]


def make_batch(*episodes: tuple[float, int]) -> TensorDict:
    """A batch of a replay with episodes of these returns and lengths."""
    replay = EpisodeReplay(10_000, PairedSampler(64, 8, 4, True))
    replay.sampler.draws = "nothing"
    for episode_return, length in episodes:
        replay.add_episode(
            TensorDict(
                {
                    keys.OBSERVATION: torch.zeros(length + 1, 2),
                    keys.ACTION: torch.zeros(length, 1),
                    keys.REWARD: torch.zeros(length),
                    keys.EPISODE_RETURN: torch.tensor(episode_return),
                    keys.TERMINATED: torch.tensor(False),
                },
                [],
            )
        )
    return replay.sample()


def test_reward_by_hand() -> None:
    """R is 6, 2, 4 and T is 2, 4, 1; so R / T is 3, 1/2, 4."""
    batch = make_batch((6, 2), (2, 4), (4, 1))
    transitions = make_transitions([6, 2, 4], [2, 4, 1])
    for scale, expected in (("per_step", [2.5 / 3.5, 0, 1]), ("episode", [1, 0, 0.5])):
        decomposition = IRCR(VECTOR, ACTION, scale=scale)
        decomposition.losses(batch)
        torch.testing.assert_close(decomposition.reward(transitions), torch.tensor(expected))


def test_episodes_beyond_the_bounds_get_zero_or_one() -> None:
    decomposition = IRCR(VECTOR, ACTION)
    decomposition.losses(make_batch((-10, 10), (10, 10)))
    reward = decomposition.reward(make_transitions([-30, -5, 0, 30], [10] * 4))
    assert reward.tolist() == [0, 0.25, 0.5, 1]


returns = st.floats(-1e6, 1e6, width=32)


@settings(deadline=None, max_examples=60)
@given(episodes=st.lists(st.tuples(returns, st.integers(1, 300)), min_size=1, max_size=8))
@pytest.mark.parametrize("scale", SCALES)
def test_rewards_lie_between_zero_and_one(scale: str, episodes: list[tuple[float, int]]) -> None:
    decomposition = IRCR(VECTOR, ACTION, scale=scale)
    batch = make_batch(*episodes)
    decomposition.losses(batch)
    reward = decomposition.reward(batch[keys.TRANSITIONS])
    assert reward.shape == (64,)
    assert ((reward >= 0) & (reward <= 1)).all()
    values = [each / length if scale == "per_step" else each for each, length in map(torch.tensor, episodes)]
    best, worst = max(values), min(values)
    every = decomposition.reward(make_transitions(*map(list, zip(*episodes, strict=True))))
    for value, each in zip(values, every, strict=True):
        assert each == 0 if value == worst else each > 0 or best - worst > 1e6 * (value - worst)
        assert each == 1 or value < best or best == worst


@pytest.mark.parametrize("scale", SCALES)
def test_equal_returns_get_zero(scale: str) -> None:
    decomposition = IRCR(VECTOR, ACTION, scale=scale)
    batch = make_batch((7, 3), (7, 3))
    decomposition.losses(batch)
    assert (decomposition.reward(batch[keys.TRANSITIONS]) == 0).all()


def test_it_learns_nothing_and_logs_the_bounds() -> None:
    decomposition = IRCR(VECTOR, ACTION, scale="episode")
    found = decomposition.losses(make_batch((6, 2), (2, 4)))
    check_groups(decomposition, found)
    assert {name: float(value) for name, value in found.logged().items()} == {
        "reward/smallest": 2,
        "reward/largest": 6,
    }


def test_bad_scale() -> None:
    with pytest.raises(ParameterError, match="scale='mean': must be 'per_step' or 'episode'"):
        IRCR(VECTOR, ACTION, scale="mean")  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [{"sampler": PairedSampler}, {}], ids=["uniform", "best episodes"])
def test_it_trains_an_agent(data: dict[str, Any]) -> None:
    # Seeds 0 to 2 reached -1.6, -0.5 and -0.5; with the best episodes -0.5, -0.6 and -0.3. The undecomposed
    # return reached -5.7, -2.0 and -1.9.
    assert follow(IRCR, **data) > -3


@pytest.mark.parametrize("sampler", [PairedSampler, BestEpisodesSampler])
def test_it_resumes_and_loads_with_its_bounds(
    sampler: type[PairedSampler], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = check_resumes_and_loads(partial(IRCR, scale="episode"), monkeypatch, sampler=sampler)
    smallest, largest = loaded.decomposition.smallest, loaded.decomposition.largest
    assert -20 < smallest < largest < 0
    bounds = make_transitions([float(smallest), float(largest)], [10, 10])
    assert loaded.rewards(bounds).tolist() == [0, 1]


def test_it_draws_from_the_best_episodes_unless_told_otherwise() -> None:
    module = make_module(Environment("Follow-v0"), decomposition=IRCR)
    for options, expected in (
        ({}, BestEpisodesSampler),
        ({"sampler": PairedSampler}, PairedSampler),
        ({"balance_success": True}, MixedSampler),
    ):
        data = make_data(**options)
        before = data.replay.sampler
        data.check(module)
        sampler = data.replay.sampler
        assert type(sampler) is expected
        for size in ("batch_size", "num_subsequences", "rrd_sample_size", "rrd_replacement"):
            assert getattr(sampler, size) == getattr(before, size)


def test_from_the_command_line() -> None:
    main(["fit", "--config=debug", "--model.decomposition=IRCR"])
    main(["test", "--ckpt_path=runs/Pendulum-v1/version_0/checkpoints/last.ckpt"])
