"""What is drawn, and how often."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from tensordict import TensorDict

from rrd_lightning import keys
from rrd_lightning.replay import EpisodeReplay, PairedSampler
from tests.episodes import check_batch, make_episode, make_replay


def test_transitions_are_uniform() -> None:
    replay = make_replay(200, batch_size=1000)
    lengths = [1, 2, 3, 5, 8, 13, 21, 34]
    for identity, length in enumerate(lengths):
        replay.add_episode(make_episode(identity, length))
    counts: Counter[tuple[float, ...]] = Counter()
    for _ in range(100):
        counts.update(map(tuple, replay.sample()[keys.TRANSITIONS][keys.OBSERVATION].tolist()))
    assert len(counts) == sum(lengths)
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_subsequence_episodes_are_drawn_in_proportion_to_length() -> None:
    replay = make_replay(200, rrd_batch_size=4, rrd_sample_size=4)
    lengths = [1, 2, 3, 5, 8, 13, 21, 34]
    for identity, length in enumerate(lengths):
        replay.add_episode(make_episode(identity, length))
    counts: Counter[int] = Counter()
    draws = 5000
    for _ in range(draws):
        counts.update(replay.sample()[keys.SUBSEQUENCES][keys.OBSERVATION][:, 0, 0].int().tolist())
    expected = [draws * length / sum(lengths) for length in lengths]
    assert chisquare([counts[i] for i in range(len(lengths))], expected).pvalue > 1e-3


def test_distinct_episodes_are_successive_proportional_draws() -> None:
    """Two of three episodes of lengths 1, 2, 3: probabilities of ordered pairs by hand."""
    sampler = make_replay(10, rrd_batch_size=2, rrd_sample_size=1)
    for identity, length in enumerate([1, 2, 3]):
        sampler.add_episode(make_episode(identity, length))
    counts: Counter[tuple[int, ...]] = Counter()
    draws = 6000
    for _ in range(draws):
        counts[tuple(sampler.sample()[keys.SUBSEQUENCES][keys.OBSERVATION][:, 0, 0].int().tolist())] += 1
    # P(i, j) = w_i · w_j / (1 - w_i) with w = 1/6, 2/6, 3/6.
    weight = [1 / 6, 2 / 6, 3 / 6]
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    expected = [draws * weight[i] * weight[j] / (1 - weight[i]) for i, j in pairs]
    assert chisquare([counts[pair] for pair in pairs], expected).pvalue > 1e-3


@pytest.mark.parametrize(("lengths", "wanted"), [([1, 300, 1, 1], 4), ([50] * 100, 64), ([1] * 9 + [200], 9)])
def test_subsequences_are_of_distinct_episodes_while_there_are_enough(lengths: list[int], wanted: int) -> None:
    replay = make_replay(6000, rrd_batch_size=wanted * 4, rrd_sample_size=4)
    for identity, length in enumerate(lengths):
        replay.add_episode(make_episode(identity, length))
    for _ in range(50):
        identities = replay.sample()[keys.SUBSEQUENCES][keys.OBSERVATION][:, 0, 0]
        assert len(identities) == len(identities.unique()) == wanted


def test_fewer_episodes_than_subsequences_are_used_again() -> None:
    replay = make_replay(rrd_batch_size=40, rrd_sample_size=4)
    replay.add_episode(make_episode(0, 5))
    replay.add_episode(make_episode(1, 6))
    batch = replay.sample()
    assert batch[keys.SUBSEQUENCES].batch_size == (10,)
    check_batch(batch, {0: 5, 1: 6})


def test_steps_of_a_subsequence_are_uniform_with_and_without_replacement() -> None:
    for replacement in (True, False):
        replay = make_replay(100, rrd_batch_size=4, rrd_sample_size=4, replacement=replacement)
        replay.add_episode(make_episode(0, 10))
        counts: Counter[int] = Counter()
        repeats = 0
        for _ in range(3000):
            steps = replay.sample()[keys.SUBSEQUENCES][keys.OBSERVATION][0, :, 1].int().tolist()
            counts.update(steps)
            repeats += len(set(steps)) < 4
        assert chisquare([counts[step] for step in range(10)]).pvalue > 1e-3
        # With replacement 1 - 10·9·8·7/10⁴ = 0.496 of the subsequences repeat a step.
        assert repeats / 3000 == pytest.approx(0.496 if replacement else 0, abs=0.04)


def test_short_episodes_fall_back_to_replacement_and_say_so() -> None:
    replay = make_replay(rrd_batch_size=12, rrd_sample_size=6, replacement=False)
    replay.add_episode(make_episode(0, 3))
    replay.add_episode(make_episode(1, 6))
    part = replay.sample()[keys.SUBSEQUENCES]
    short = part[keys.OBSERVATION][:, 0, 0] == 0
    assert (part[keys.WITH_REPLACEMENT] == short).all()
    full = part[keys.OBSERVATION][~short][0, :, 1]
    assert sorted(full.tolist()) == [0, 1, 2, 3, 4, 5]
    assert make_and_sample(replacement=True)[keys.SUBSEQUENCES][keys.WITH_REPLACEMENT].all()


def make_and_sample(seed: int = 0, **options: object) -> TensorDict:
    replay = make_replay(seed=seed, **options)  # type: ignore[arg-type]
    for identity in range(5):
        replay.add_episode(make_episode(identity, 7 + identity))
    return replay.sample()


def test_one_seed_draws_one_sequence_of_batches_whatever_else_is_random() -> None:
    first = make_and_sample(seed=3)
    torch.rand(17)
    second = make_and_sample(seed=3)
    assert (first == second).all()
    assert not (first == make_and_sample(seed=4)).all()


def test_a_sampler_may_add_to_the_batch() -> None:
    class Longest(PairedSampler):
        def sample(self, storage: Any, lead: tuple[int, ...] = ()) -> tuple[torch.Tensor, dict[str, Any]]:
            index, draws = super().sample(storage, lead)
            return index, {**draws, "return_max": self.table["episode_return"].max().expand(lead)}

    replay = EpisodeReplay(100, Longest(8, 8, 4, True))
    replay.add_episode(make_episode(3, 5))
    assert replay.sample()["return_max"] == 35
    assert [batch["return_max"] for batch in replay.sample_several(3)] == [35, 35, 35]


def test_a_sampler_may_draw_otherwise() -> None:
    class FromTheStart(PairedSampler):
        def steps(self, episodes: Any) -> Any:
            drawn, with_replacement = super().steps(episodes)
            return 0 * drawn, with_replacement

    replay = EpisodeReplay(100, FromTheStart(8, 8, 4, True))
    replay.add_episode(make_episode(3, 5))
    for batch in [replay.sample(), *replay.sample_several(2)]:
        starts = batch[keys.SUBSEQUENCES][keys.OBSERVATION]
        assert (starts == make_episode(3, 5)[keys.OBSERVATION][0]).all()


def test_generator_state_is_restored() -> None:
    replay = make_replay()
    replay.add_episode(make_episode(0, 50))
    state = replay.sampler.state_dict()
    first = replay.sample()
    replay.sampler.load_state_dict(state)
    assert (first == replay.sample()).all()
