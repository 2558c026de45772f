"""Half of the transitions come from the ten best episodes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tensordict import TensorDict

from rrd_lightning import keys
from rrd_lightning.replay import BestEpisodesSampler, EpisodeReplay
from tests.episodes import check_batch, make_episode


def make_replay(lengths: list[int], batch_size: int = 64, capacity: int = 1000) -> EpisodeReplay:
    """Episodes whose returns rise with their identity, by ten and by their lengths."""
    replay = EpisodeReplay(capacity, BestEpisodesSampler(batch_size, 12, 4, True))
    for identity, length in enumerate(lengths):
        replay.add_episode(make_episode(identity, length))
    return replay


def steps(transitions: TensorDict) -> Counter[tuple[float, ...]]:
    return Counter(map(tuple, transitions[keys.OBSERVATION].tolist()))


def test_each_half_is_uniform() -> None:
    """Of fifteen episodes of equal lengths the last ten are the best."""
    replay = make_replay([4] * 15, batch_size=1001)
    every: Counter[tuple[float, ...]] = Counter()
    best: Counter[tuple[float, ...]] = Counter()
    for _ in range(50):
        transitions = replay.sample()[keys.TRANSITIONS]
        every += steps(transitions[:501])
        best += steps(transitions[501:])
    assert len(every) == 60
    assert chisquare(list(every.values())).pvalue > 1e-3
    assert {identity for identity, _ in best} == set(range(5, 15))
    assert len(best) == 40
    assert chisquare(list(best.values())).pvalue > 1e-3


def test_the_best_are_those_of_the_largest_returns() -> None:
    """R is 10 i + T here, so that long episodes overtake later ones; equal returns go by age."""
    replay = make_replay([1, 100, 1, 1, 51, 1, 31, 1, 1, 1, 1, 1, 11])
    returns = replay.episodes["episode_return"].tolist()
    assert returns == [1, 110, 21, 31, 91, 51, 91, 71, 81, 91, 101, 111, 131]
    # All but 1, 21 and 31.
    assert replay.sampler._best().tolist() == [1, *range(4, 13)]


@settings(deadline=None, max_examples=30)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=40), batch_size=st.integers(1, 33))
def test_stored_steps_whatever_left_the_replay(lengths: list[int], batch_size: int) -> None:
    replay = make_replay(lengths, batch_size, capacity=100)
    stored = range(len(lengths) - len(replay.episodes), len(lengths))
    batch = replay.sample()
    assert batch[keys.TRANSITIONS].batch_size == (batch_size,)
    check_batch(batch, {identity: lengths[identity] for identity in stored})
    returns = replay.episodes["episode_return"]
    smallest = returns.sort(descending=True).values[:10][-1]
    half = batch_size - batch_size // 2
    assert (batch[keys.TRANSITIONS][keys.EPISODE_RETURN][half:] >= smallest).all()


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_several_batches_are_those_of_as_many_calls(batch_size: int) -> None:
    together, apart = (make_replay([3 + 5 * i % 17 for i in range(20)], batch_size) for _ in range(2))
    for batch in together.sample_several(5):
        assert (batch == apart.sample()).all()
    assert torch.equal(*(replay.sampler.state_dict()["transitions"] for replay in (together, apart)))
