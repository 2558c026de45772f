"""Feedback every few steps: bags of steps, each with its return, within episodes that stay whole."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from rrd_lightning import ParameterError, keys
from rrd_lightning.checkpoint.replay import load_replay, redistribute_replays, save_replay
from rrd_lightning.decomposition import EpisodicReward, UniformRedistribution
from rrd_lightning.replay import EpisodeReplay, PairedSampler
from tests.episodes import make_episode

SPACES = Box(-1, 1, (2,)), Box(-1, 1, (1,))


def replay_of_bags(every: int | None, capacity: int = 100) -> EpisodeReplay:
    return EpisodeReplay(capacity, PairedSampler(64, 12, 4, True), feedback_every=every)


def summed(identity: int, length: int) -> TensorDict:
    """Rewards of 0.5, 1.5, 2.5, …, and their sum."""
    episode = make_episode(identity, length)
    return episode.set(keys.EPISODE_RETURN, episode[keys.REWARD].sum())


def test_seven_steps_with_feedback_every_three() -> None:
    replay = replay_of_bags(3)
    episode = summed(2, 7).set(keys.SUCCESS, torch.tensor(True))
    replay.add_episode(episode)
    table = replay.episodes
    assert table["length"].tolist() == [3, 3, 1]
    assert table["episode_return"].tolist() == [0.5 + 1.5 + 2.5, 3.5 + 4.5 + 5.5, 6.5]
    assert table["start"].tolist() == [0, 3, 6]
    assert table["terminated"].tolist() == [False, False, True]
    assert table["success"].tolist() == [1, 1, 1]
    assert table["ends"].tolist() == [False, False, True]
    statistics = {name: each.item() for name, each in table.statistics().items()}
    assert statistics[keys.RETURN_MIN] == 4.5
    assert statistics[keys.RETURN_MAX] == 13.5
    assert statistics[keys.MEAN_REWARD_MIN] == 1.5
    assert statistics[keys.MEAN_REWARD_MAX] == 6.5
    assert statistics[keys.NUM_EPISODES] == 3
    transitions = replay.sample()[keys.TRANSITIONS]
    step = transitions[keys.OBSERVATION][:, 1]
    assert set(step.tolist()) == set(range(7))
    assert torch.equal(transitions[keys.NEXT_OBSERVATION][:, 1], step + 1)
    bag = (step / 3).long()
    assert torch.equal(transitions[keys.EPISODE_RETURN], table["episode_return"][bag])
    # The agent goes on through the end of a bag: only the task's end terminates.
    assert torch.equal(transitions[keys.TERMINATED], step == 6)
    assert torch.equal(
        EpisodicReward(*SPACES).reward(transitions),
        table["episode_return"][bag] * (step % 3 == 2) + 6.5 * (step == 6),
    )
    assert torch.equal(
        UniformRedistribution(*SPACES).reward(transitions), (table["episode_return"] / table["length"])[bag]
    )


def test_the_return_of_a_whole_episode_is_taken_as_it_is() -> None:
    """As that of a demonstration, whose rewards are not known."""
    for every in (None, 5):
        replay = replay_of_bags(every)
        replay.add_episode(make_episode(4, 5))
        assert replay.episodes["episode_return"].tolist() == [45]
    with pytest.raises(
        ParameterError, match=r"env.feedback_every=2: the rewards .* add up to 12.5, not to its return, 45"
    ):
        replay_of_bags(2).add_episode(make_episode(4, 5))


@settings(deadline=None, max_examples=30)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60), every=st.integers(1, 50))
def test_episodes_stay_whole_and_are_saved_and_shared_whole(
    lengths: list[int], every: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    replay = replay_of_bags(every)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rrd_lightning.checkpoint.replay.FILE_BYTES", 300)
        folders: list[Path] = []
        for identity, length in enumerate(lengths):
            replay.add_episode(summed(identity, length))
            if identity in (len(lengths) // 2, len(lengths) - 1):
                folders.append(Path(mkdtemp(dir=".")))
                save_replay(replay, folders[-1], folders[0] if len(folders) > 1 else None)
    table = replay.episodes
    stored, left = [], len(replay)
    for identity in reversed(range(len(lengths))):
        if left:
            stored.insert(0, identity)
            left -= lengths[identity]
    assert left == 0
    bags = [min(every, lengths[each] - first) for each in stored for first in range(0, lengths[each], every)]
    assert table["length"].tolist() == bags
    loaded = replay_of_bags(None)
    load_replay(loaded, folders[-1])
    for column in ("length", "episode_return", "terminated", "success", "offset", "ends"):
        assert torch.equal(loaded.episodes[column], table[column])
    places = [[each.episodes[column] for column in ("start", "length", "ends")] for each in (loaded, replay)]
    assert torch.equal(
        loaded.records(*places[0])[keys.OBSERVATION], replay.records(*places[1])[keys.OBSERVATION]
    )
    shares = [replay_of_bags(None) for _ in range(2)]
    for share, other in enumerate(shares):
        redistribute_replays(other, [folders[-1]], share, 2)
    assert sum(len(each) for each in shares) == len(replay)
    found = [identity for each in shares for identity in identities(each)]
    assert sorted(found) == stored


def identities(replay: EpisodeReplay) -> list[int]:
    """Those of the stored episodes, each of which has all of its observations."""
    if not len(replay):
        return []
    seen = observations(replay)
    numbers = seen[:, 0].unique().int().tolist()
    for each in numbers:
        steps = seen[seen[:, 0] == each][:, 1]
        assert torch.equal(steps, torch.arange(len(steps)).float())
    return numbers


def observations(replay: EpisodeReplay) -> torch.Tensor:
    places = (replay.episodes[column] for column in ("start", "length", "ends"))
    return replay.records(*places)[keys.OBSERVATION]
