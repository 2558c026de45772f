"""What is drawn for the reward model: whole episodes, or nothing."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from rrd_lightning import keys
from rrd_lightning.replay import EpisodeReplay, LazyBatches, PairedSampler
from tests.episodes import check_batch, make_episode, make_replay


def check_whole_episodes(part: TensorDict, lengths: dict[int, int], size: int) -> list[int]:
    """Each drawn episode against the stored ones, and return their identities in order."""
    mask, row_episode = part[keys.MASK], part[keys.EPISODE]
    assert part.batch_size == row_episode.shape == (len(mask),)
    assert mask.shape == (len(mask), size)
    identities = []
    for drawn in range(int(row_episode.max()) + 1):
        rows = part[row_episode == drawn]
        observation = rows[keys.OBSERVATION][rows[keys.MASK]]
        identity = int(observation[0, 0])
        episode = make_episode(identity, lengths[identity])
        assert torch.equal(observation, episode[keys.OBSERVATION][:-1])
        assert torch.equal(rows[keys.NEXT_OBSERVATION][rows[keys.MASK]], episode[keys.OBSERVATION][1:])
        assert torch.equal(rows[keys.ACTION][rows[keys.MASK]], episode[keys.ACTION])
        assert (rows[keys.EPISODE_LENGTH] == lengths[identity]).all()
        assert (rows[keys.EPISODE_RETURN] == episode[keys.EPISODE_RETURN]).all()
        # The padding, less than a row, stands at the end and repeats a step of the episode.
        assert (~rows[keys.MASK]).sum() < size
        assert rows[keys.MASK].flatten().int().diff().le(0).all()
        assert (rows[keys.OBSERVATION][..., 0] == identity).all()
        assert (rows[keys.OBSERVATION][..., 1] < lengths[identity]).all()
        identities.append(identity)
    return identities


def test_whole_episodes_by_hand() -> None:
    """Episodes of five and three steps, in rows of three."""
    replay = make_replay(rrd_batch_size=6, rrd_sample_size=3)
    replay.sampler.draws = "episodes"
    replay.add_episode(make_episode(0, 5))
    replay.add_episode(make_episode(1, 3))
    part = replay.sample()[keys.SUBSEQUENCES]
    if part[keys.OBSERVATION][0, 0, 0] == 1:
        part = part[[1, 2, 0]]
        part[keys.EPISODE] = 1 - part[keys.EPISODE]
    assert part[keys.OBSERVATION][..., 0].tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1]]
    assert part[keys.OBSERVATION][..., 1].tolist() == [[0, 1, 2], [3, 4, 4], [0, 1, 2]]
    assert part[keys.MASK].tolist() == [[True, True, True], [True, True, False], [True, True, True]]
    assert part[keys.EPISODE].tolist() == [0, 0, 1]
    assert part[keys.EPISODE].dtype == torch.int64
    assert part[keys.EPISODE_LENGTH].tolist() == [5, 5, 3]
    assert part[keys.EPISODE_RETURN].tolist() == [5, 5, 13]
    assert keys.WITH_REPLACEMENT not in part


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    size=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
def test_all_steps_of_stored_episodes_in_order_after_any_wraps(
    lengths: list[int], size: int, seed: int
) -> None:
    replay = make_replay(100, rrd_batch_size=3 * size, rrd_sample_size=size, seed=seed)
    replay.sampler.draws = "episodes"
    stored: deque[tuple[int, int]] = deque()
    for identity, length in enumerate(lengths):
        replay.add_episode(make_episode(identity, length))
        stored.append((identity, length))
        while len(stored) > len(replay.episodes):
            stored.popleft()
        part = replay.sample()[keys.SUBSEQUENCES]
        identities = check_whole_episodes(part, dict(stored), size)
        assert len(identities) == 3
        assert len(stored) < 3 or len(set(identities)) == 3


def test_several_batches_are_those_of_as_many_calls() -> None:
    together, apart = (make_replay() for _ in range(2))
    for replay in (together, apart):
        replay.sampler.draws = "episodes"
        for identity in range(20):
            replay.add_episode(make_episode(identity, 3 + 5 * identity % 17))
    batches = together.sample_several(5)
    assert isinstance(batches, LazyBatches)
    assert len({len(batch[keys.SUBSEQUENCES]) for batch in batches}) > 1  # rows vary
    for batch in batches:
        assert (batch == apart.sample()).all()
    assert (together.sample() == apart.sample()).all()


def test_a_sampler_may_choose_the_episodes() -> None:
    class TheOldest(PairedSampler):
        def episodes(self, lead: tuple[int, ...]) -> np.ndarray:
            return np.zeros((*lead, 1), np.int64)

    replay = EpisodeReplay(100, TheOldest(8, 8, 4, True))
    replay.sampler.draws = "episodes"
    for identity in range(3):
        replay.add_episode(make_episode(identity, 10 + identity))
    for batch in [replay.sample(), *replay.sample_several(2)]:
        assert check_whole_episodes(batch[keys.SUBSEQUENCES], {0: 10}, 4) == [0]


@pytest.mark.parametrize("draws", ["steps", "episodes"])
def test_subsequences_tell_the_success_of_their_episode(draws: str) -> None:
    """By turns it is not known, a failure, a success."""
    replay = make_replay()
    replay.sampler.draws = draws
    for identity in range(9):
        episode = make_episode(identity, 5)
        if identity % 3:
            episode[keys.SUCCESS] = torch.tensor(identity % 3 == 2)
        replay.add_episode(episode)
    for batch in [replay.sample(), *replay.sample_several(2)]:
        part, statistics = batch[keys.SUBSEQUENCES], batch[keys.STATISTICS]
        assert part[keys.SUCCESS].dtype == torch.int8
        assert torch.equal(part[keys.SUCCESS], part[keys.OBSERVATION][:, 0, 0].to(torch.int8) % 3 - 1)
        assert statistics[keys.NUM_SUCCESSES] == statistics[keys.NUM_FAILURES] == 3


@pytest.mark.parametrize("draws", ["nothing", "episodes"])
def test_the_transitions_do_not_depend_on_what_else_is_drawn(draws: str) -> None:
    other, steps = make_replay(), make_replay()
    other.sampler.draws = draws
    for identity in range(8):
        other.add_episode(make_episode(identity, 10))
        steps.add_episode(make_episode(identity, 10))
    lengths = dict.fromkeys(range(8), 10)
    mine = [other.sample(), *other.sample_several(3), other.sample()]
    theirs = [steps.sample(), *steps.sample_several(3), steps.sample()]
    for batch, expected in zip(mine, theirs, strict=True):
        check_batch(expected, lengths)
        assert (keys.SUBSEQUENCES in batch) == (draws == "episodes")
        assert batch.batch_size == expected.batch_size == ()
        assert (batch[keys.TRANSITIONS] == expected[keys.TRANSITIONS]).all()
        assert (batch[keys.STATISTICS] == expected[keys.STATISTICS]).all()
