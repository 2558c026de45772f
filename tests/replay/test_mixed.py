"""Shares of demonstrations and of successes, and demonstrations that never leave."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tensordict import TensorDict

from rrd_lightning import ParameterError, ReplayDataModule, keys
from rrd_lightning.checkpoint.replay import load_replay, redistribute_replays, save_replay
from rrd_lightning.replay import BestEpisodesSampler, EpisodeReplay, MixedSampler
from tests.episodes import check_batch, make_episode


def make_replay(
    batch_size: int = 64,
    subsequences: int = 8,
    capacity: int = 1000,
    share: float | None = None,
    of_subsequences: bool = False,
    balance: bool = False,
    replacement: bool = True,
) -> EpisodeReplay:
    sampler = MixedSampler(batch_size, 4 * subsequences, 4, replacement)
    sampler.mix(share, of_subsequences, balance)
    return EpisodeReplay(capacity, sampler, keep_demonstrations=share is not None)


def add(replay: EpisodeReplay, identity: int, length: int, success: bool | None = None, **options: Any) -> None:
    episode = make_episode(identity, length)
    if success is not None:
        episode[keys.SUCCESS] = torch.tensor(success)
    replay.add_episode(episode, **options)


def identities(part: TensorDict) -> list[int]:
    observation = part[keys.OBSERVATION]
    return (observation[:, 0] if observation.dim() == 2 else observation[:, 0, 0]).int().tolist()


def test_the_share_of_the_transitions_is_exact_and_each_part_uniform() -> None:
    """Of 40 transitions a quarter are of demonstrations, however few these are."""
    replay = make_replay(40, share=0.25)
    for identity, length in enumerate([2, 5, 30, 50, 60]):
        add(replay, identity, length, demonstration=identity < 2)
    counts: Counter[tuple[float, ...]] = Counter()
    for _ in range(200):
        transitions = replay.sample()[keys.TRANSITIONS]
        demonstration = transitions[keys.DEMONSTRATION]
        assert demonstration.tolist() == [True] * 10 + [False] * 30
        assert torch.equal(demonstration, transitions[keys.OBSERVATION][:, 0] < 2)
        counts.update(map(tuple, transitions[keys.OBSERVATION].tolist()))
    demonstrated = [count for (identity, _), count in counts.items() if identity < 2]
    collected = [count for (identity, _), count in counts.items() if identity >= 2]
    assert (len(demonstrated), sum(demonstrated)) == (7, 2000)
    assert (len(collected), sum(collected)) == (140, 6000)
    assert chisquare(demonstrated).pvalue > 1e-3
    assert chisquare(collected).pvalue > 1e-3


def test_before_anything_is_collected_all_is_of_demonstrations() -> None:
    replay = make_replay(share=0.5, of_subsequences=True)
    add(replay, 0, 5, demonstration=True)
    batch = replay.sample()
    assert batch[keys.TRANSITIONS][keys.DEMONSTRATION].all()
    check_batch(batch, {0: 5})


def test_transitions_tell_the_success_of_their_episode() -> None:
    replay = make_replay()
    for identity, success in enumerate((False, True, None)):
        add(replay, identity, 9, success)
    for batch in [replay.sample(), *replay.sample_several(2)]:
        transitions = batch[keys.TRANSITIONS]
        expected = torch.tensor([0, 1, -1], dtype=torch.int8)[identities(transitions)]
        assert torch.equal(transitions[keys.SUCCESS], expected)
        assert not transitions[keys.DEMONSTRATION].any()


def test_half_of_the_subsequences_are_of_successes() -> None:
    """Three successes among ten times as many failures, and unknown ones, which have no part in it."""
    replay = make_replay(subsequences=6, balance=True)
    for identity in range(36):
        add(replay, identity, 5, None if identity >= 33 else identity < 3)
    for batch in [replay.sample(), *replay.sample_several(20)]:
        part = batch[keys.SUBSEQUENCES]
        assert part[keys.SUCCESS].tolist() == [1, 1, 1, 0, 0, 0]
        # Distinct where there are as many.
        assert sorted(identities(part)[:3]) == [0, 1, 2]
        assert len(set(identities(part)[3:])) == 3


def test_the_episodes_of_each_kind_are_drawn_in_proportion_to_their_length() -> None:
    replay = make_replay(subsequences=2, balance=True)
    lengths = [1, 2, 7, 3, 30, 57]
    for identity, length in enumerate(lengths):
        add(replay, identity, length, identity < 3)
    counts = Counter(each for _ in range(2000) for each in identities(replay.sample()[keys.SUBSEQUENCES]))
    assert chisquare([counts[i] for i in range(3)], [2000 * i / 10 for i in lengths[:3]]).pvalue > 1e-3
    assert chisquare([counts[i] for i in range(3, 6)], [2000 * i / 90 for i in lengths[3:]]).pvalue > 1e-3


def test_both_shares_together() -> None:
    """Of eight subsequences, four of successes; a quarter of each four are demonstrations."""
    replay = make_replay(subsequences=8, share=0.25, of_subsequences=True, balance=True)
    for identity in range(40):
        add(replay, identity, 5, identity % 2 == 0, demonstration=identity < 20)
    found = identities(replay.sample()[keys.SUBSEQUENCES])
    assert [each % 2 for each in found] == [0] * 4 + [1] * 4
    assert [each < 20 for each in found] == [True, False, False, False] * 2


@pytest.mark.parametrize(("success", "missing"), [(True, "failure"), (False, "success"), (None, "success")])
def test_a_missing_kind_is_said_once_and_left_out(success: bool | None, missing: str) -> None:
    replay = make_replay(subsequences=4, balance=True)
    add(replay, 0, 9, success)
    with pytest.warns(UserWarning, match=f"balance_success: no {missing} is known in the replay") as said:
        replay.sample()
    replay.sample()
    assert len(said) == 1
    add(replay, 1, 3, success is not True)
    add(replay, 2, 3, success is True)
    assert replay.sample()[keys.SUBSEQUENCES][keys.SUCCESS].tolist() == [1, 1, 0, 0]


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    kinds=st.integers(0, 2**40),
    batch_size=st.integers(2, 33),
    subsequences=st.integers(4, 9),
    balance=st.booleans(),
)
@pytest.mark.filterwarnings("ignore:data.balance_success")
def test_several_batches_are_those_of_as_many_calls(
    lengths: list[int], kinds: int, batch_size: int, subsequences: int, balance: bool
) -> None:
    options = {"batch_size": batch_size, "subsequences": subsequences, "share": 0.3, "balance": balance}
    replays = [make_replay(**options, of_subsequences=True, capacity=2000) for _ in range(2)]
    for replay in replays:
        for identity, length in enumerate(lengths):
            kind = kinds >> identity & 3
            add(replay, identity, length, kind % 2 == 0, demonstration=kind >= 2)
    together, apart = replays
    for batch in together.sample_several(3):
        check_batch(batch, dict(enumerate(lengths)))
        assert (batch == apart.sample()).all()
    for name, state in together.sampler.state_dict().items():
        assert torch.equal(state, apart.sampler.state_dict()[name]), name


@settings(deadline=None, max_examples=50)
@given(
    demonstrations=st.lists(st.integers(1, 15), min_size=1, max_size=4),
    collected=st.lists(st.integers(1, 30), max_size=60),
    mixed=st.booleans(),
)
def test_demonstrations_never_leave_and_the_oldest_of_the_others_do(
    demonstrations: list[int], collected: list[int], mixed: bool
) -> None:
    replay = make_replay(share=0.5, capacity=100)
    lengths = dict(enumerate(demonstrations + collected))
    for identity, length in lengths.items():
        # Some demonstrations come later than what is collected, as on another number of processes.
        late = mixed and len(collected) > 10 and identity < min(2, len(demonstrations))
        if not late:
            add(replay, identity, length, demonstration=identity < len(demonstrations))
        if mixed and identity == 10 and len(collected) > 10:
            for each in range(min(2, len(demonstrations))):
                add(replay, each, lengths[each], demonstration=True)
    table, kept = replay.episodes, len(demonstrations)
    records = replay.records(table["start"], table["length"])
    first = (table["length"] + 1).cumsum(0) - (table["length"] + 1)
    stored = records[keys.OBSERVATION][first, 0].int().tolist()
    assert torch.equal(table["demonstration"], torch.tensor(stored) < kept)
    assert sorted(each for each in stored if each < kept) == list(range(kept))
    others = [each for each in stored if each >= kept]
    assert all(second - first == 1 for first, second in pairwise(others))
    assert not collected or max(others) == len(lengths) - 1
    # The next one would not have fitted, or the ring was too small for its many short episodes.
    assert len(replay) <= 100
    assert len(replay) == sum(lengths[each] for each in stored)
    check_batch(replay.sample(), lengths)
    assert table.appended_transitions == sum(lengths.values())


def test_a_demonstration_that_stays_keeps_its_bags() -> None:
    sampler = MixedSampler(64, 32, 4, True)
    sampler.mix(0.5, False, False)
    replay = EpisodeReplay(100, sampler, keep_demonstrations=True, feedback_every=4)
    for identity in range(30):
        episode = make_episode(identity, 10)
        episode[keys.EPISODE_RETURN] = episode[keys.REWARD].sum()
        replay.add_episode(episode, demonstration=identity == 0)
    table = replay.episodes
    row = int(table["demonstration"].int().argmax())
    assert table["demonstration"].sum() == 3
    assert row > 0, "it has been stored anew"
    rows = slice(row, row + 3)
    assert table["length"][rows].tolist() == [4, 4, 2]
    assert table["offset"][rows].tolist() == [0, 4, 8]
    assert table["ends"][rows].tolist() == [False, False, True]
    expected = make_episode(0, 10)
    records = replay.records(table["start"][rows], table["length"][rows], table["ends"][rows])
    assert torch.equal(records[keys.OBSERVATION], expected[keys.OBSERVATION])
    assert torch.equal(records[keys.ACTION][:-1], expected[keys.ACTION])
    returns = [part.sum() for part in expected[keys.REWARD].split(4)]
    assert torch.allclose(table["episode_return"][rows], torch.stack(returns))
    assert table.transitions == 100


def test_without_a_share_demonstrations_leave_like_all_others() -> None:
    replay = make_replay(balance=True, capacity=100)
    for identity in range(12):
        add(replay, identity, 10, demonstration=identity < 5)
    assert replay.episodes["demonstration"].tolist() == [True] * 3 + [False] * 7


def test_no_room_beside_the_demonstrations() -> None:
    replay = make_replay(share=0.5, capacity=100)
    for identity in range(9):
        add(replay, identity, 10, demonstration=True)
    add(replay, 9, 10)
    with pytest.raises(ParameterError, match=r"data.capacity=100: has no room .* 90 transitions"):
        add(replay, 10, 11)


def test_a_saved_replay_goes_on_as_it_was(tmp_path: Path) -> None:
    """With demonstrations that have been renewed, incrementally saved; and shared out between two."""
    replay = make_replay(share=0.5, capacity=100)
    folders = [tmp_path / "first", tmp_path / "second"]
    for number, folder in enumerate(folders):
        for identity in range(8 * number, 8 * number + 8):
            add(replay, identity, 10 + identity % 3, identity % 2 == 0, demonstration=identity < 3)
        folder.mkdir()
        save_replay(replay, folder, folders[0] if number else None)
    loaded = make_replay(share=0.5, capacity=100)
    load_replay(loaded, folders[1])
    for identity in range(16, 30):
        for each in (replay, loaded):
            add(each, identity, 11)
        assert (replay.sample() == loaded.sample()).all()
        assert torch.equal(replay.episodes["demonstration"], loaded.episodes["demonstration"])
    assert loaded.episodes["demonstration"].sum() == 3
    halves = [make_replay(share=0.5, capacity=60) for _ in range(2)]
    for share, half in enumerate(halves):
        redistribute_replays(half, [folders[1]], share, 2)
    assert sum(int(half.episodes["demonstration"].sum()) for half in halves) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"demonstration_share": 0.5}, "data.demonstration_share=0.5: needs data.demonstrations"),
        ({"demonstration_share": 0.0}, "data.demonstration_share=0.0: must be between 0 and 1"),
        ({"demonstration_share": 1.0}, "data.demonstration_share=1.0: must be between 0 and 1"),
        (
            {"demonstration_subsequences": True},
            "data.demonstration_subsequences=True: needs",
        ),
        ({"balance_success": True, "rrd_sample_size": 256}, "makes 1 subsequences a batch, must make 2"),
        (
            {"balance_success": True, "sampler": BestEpisodesSampler},
            "data.sampler='BestEpisodesSampler': draws",
        ),
    ],
)
def test_senseless_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        ReplayDataModule(**options)
