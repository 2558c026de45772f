"""The replay: every row of every batch is a step of one stored, finished episode."""

from __future__ import annotations

import gc
from collections import deque
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from rrd_lightning import ParameterError, keys
from rrd_lightning.episode import episode_transitions
from rrd_lightning.replay import EpisodeReplay, PairedSampler
from rrd_lightning.replay.buffer import GATHERED_TOGETHER, ring_size
from tests.episodes import check_batch, make_episode, make_replay


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=300),
    capacity=st.integers(40, 120),
    replacement=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_rows_belong_to_stored_episodes_after_any_wraps(
    lengths: list[int], capacity: int, replacement: bool, seed: int
) -> None:
    replay = make_replay(capacity, replacement=replacement, seed=seed)
    stored: deque[tuple[int, int]] = deque()
    for identity, length in enumerate(lengths):
        replay.add_episode(make_episode(identity, length))
        stored.append((identity, length))
        records = ring_size(capacity)
        while sum(n for _, n in stored) > capacity or sum(n + 1 for _, n in stored) > records:
            stored.popleft()
        assert len(replay) == sum(n for _, n in stored)
        assert replay.episodes["length"].tolist() == [n for _, n in stored]
        if identity % 7 == 0 or identity == len(lengths) - 1:
            check_batch(replay.sample(), dict(stored))


def test_thousands_of_inserts_and_many_wraps() -> None:
    replay = make_replay(5000, batch_size=256, rrd_batch_size=64, rrd_sample_size=8)
    generator = torch.Generator().manual_seed(1)
    stored: deque[tuple[int, int]] = deque()
    for identity in range(4000):
        length = int(torch.randint(1, 200, (), generator=generator))
        replay.add_episode(make_episode(identity, length))
        stored.append((identity, length))
        while sum(n for _, n in stored) > 5000:
            stored.popleft()
        if identity % 100 == 99:
            assert replay.episodes["length"].tolist() == [n for _, n in stored]
            check_batch(replay.sample(), dict(stored))


def test_capacity_is_exact_down_to_mean_lengths_of_twenty_and_for_small_rings() -> None:
    replay = make_replay(2000)
    for identity in range(300):
        replay.add_episode(make_episode(identity, 20))
    assert len(replay) == 2000
    tiny = make_replay(60)
    for identity in range(300):
        tiny.add_episode(make_episode(identity, 1))
    assert len(tiny) == 60


def test_success_is_kept_with_the_episode_where_it_is_known() -> None:
    replay = make_replay(1000)
    for identity, success in enumerate([True, False, None]):
        episode = make_episode(identity, 5)
        if success is not None:
            episode[keys.SUCCESS] = torch.tensor(success)
        replay.add_episode(episode)
    assert replay.episodes["success"].tolist() == [1, 0, -1]


def test_each_observation_is_stored_once() -> None:
    replay = make_replay(1000)
    for identity in range(50):
        replay.add_episode(make_episode(identity, 100))
    stored = replay.storage[:]
    assert set(stored.keys()) == {keys.OBSERVATION, keys.ACTION, keys.REWARD}
    assert len(stored) == ring_size(1000) == 1064


def test_memory_mapped_storage(tmp_path: Path) -> None:
    replay = make_replay(100, storage="memmap", scratch_dir=str(tmp_path / "replay"))
    for identity in range(40):
        replay.add_episode(make_episode(identity, 9))
    check_batch(replay.sample(), {identity: 9 for identity in range(29, 40)})
    assert any((tmp_path / "replay").rglob("*.memmap"))
    # Another replay may use the same folder at the same time, and each clears up after itself.
    other = make_replay(100, storage="memmap", scratch_dir=str(tmp_path / "replay"))
    other.add_episode(make_episode(0, 9))
    check_batch(replay.sample(), {identity: 9 for identity in range(29, 40)})
    del replay, other
    gc.collect()
    assert not list((tmp_path / "replay").iterdir())


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("episodes", [2, 4, 45])
@pytest.mark.parametrize("bytes_at_once", [GATHERED_TOGETHER, 0])
def test_batches_drawn_together_are_those_drawn_one_by_one(
    monkeypatch: pytest.MonkeyPatch, replacement: bool, episodes: int, bytes_at_once: int
) -> None:
    """With fewer episodes than subsequences, with hardly more, and round the ring's end; one by one too."""
    monkeypatch.setattr("rrd_lightning.replay.buffer.GATHERED_TOGETHER", bytes_at_once)
    together, apart = (make_replay(replacement=replacement) for _ in range(2))
    for identity in range(episodes):
        for replay in (together, apart):
            replay.add_episode(make_episode(identity, 3 + 5 * identity % 17))
    last = together.episodes["start"] + together.episodes["length"]
    assert bool((last >= together.storage.max_size).any()) == (episodes == 45)
    for count in (1, 2, 7):
        for batch in together.sample_several(count):
            alone = apart.sample()
            assert (batch == alone).all()
            assert all(
                batch[part].batch_size == alone[part].batch_size
                for part in (keys.TRANSITIONS, keys.SUBSEQUENCES)
            )


def test_a_count_of_batches_is_positive() -> None:
    with pytest.raises(ParameterError, match="count=0: must be"):
        make_replay().sample_several(0)


@pytest.mark.parametrize("count", [0, 3])
def test_nested_observations_and_images(count: int) -> None:
    replay = make_replay(50)
    for identity in range(9):
        episode = make_episode(identity, 8)
        image = torch.full((9, 3, 4, 4), identity, dtype=torch.uint8) + torch.arange(9)[:, None, None, None]
        episode[keys.OBSERVATION] = TensorDict(
            {"image": image.to(torch.uint8), "vector": episode[keys.OBSERVATION]}, [9]
        )
        replay.add_episode(episode)
    batch = replay.sample_several(count)[-1] if count else replay.sample()
    for part, shape in ((batch[keys.TRANSITIONS], (64,)), (batch[keys.SUBSEQUENCES], (3, 4))):
        image, following = part[keys.OBSERVATION, "image"], part[keys.NEXT_OBSERVATION, "image"]
        assert image.shape == (*shape, 3, 4, 4)
        assert image.dtype == torch.uint8
        assert (following == image + 1).all()
        assert (image[..., 0, 0, 0] == part[keys.OBSERVATION, "vector"].sum(-1)).all()


def test_a_batch_is_a_copy() -> None:
    replay = make_replay()
    replay.add_episode(make_episode(0, 5))
    batch = replay.sample()
    before = batch.clone()
    for identity in range(1, 60):
        replay.add_episode(make_episode(identity, 20))
    assert (batch == before).all()


def test_only_valid_finished_episodes_come_in() -> None:
    replay = make_replay(10)
    with pytest.raises(ParameterError, match=r"capacity=10: must be at least the length .* here 11 steps"):
        replay.add_episode(make_episode(0, 11))
    short = make_episode(0, 5)
    short[keys.OBSERVATION] = short[keys.OBSERVATION][:-1]
    with pytest.raises(ParameterError, match="T \\+ 1 observations, T actions and T rewards"):
        replay.add_episode(short)
    bad = make_episode(0, 5)
    bad[keys.ACTION][2] = torch.nan
    with pytest.raises(ParameterError, match="episode='action': holds a number that is not finite"):
        replay.add_episode(bad)
    for key in (keys.EPISODE_RETURN, keys.TERMINATED, keys.REWARD):
        with pytest.raises(ParameterError, match=f"lacks '{key}'"):
            replay.add_episode(make_episode(0, 5).exclude(key))
    assert not hasattr(replay, "extend")  # nor any other way of TorchRL's to store a single step
    with pytest.raises(RuntimeError, match="the replay is empty"):
        replay.sample()
    assert len(replay) == 0
    replay.add_episode(make_episode(0, 10))
    check_batch(replay.sample(), {0: 10})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": 0}, "capacity=0: must be greater than zero"),
        ({"batch_size": 0}, "batch_size=0: must be greater than zero"),
        ({"rrd_batch_size": -1}, "rrd_batch_size=-1: must be greater than zero"),
        ({"rrd_sample_size": 13}, "rrd_sample_size=13: must be at most rrd_batch_size=12"),
        ({"storage": "tape"}, "storage='tape': must be 'memory' or 'memmap'"),
    ],
)
def test_bad_sizes(options: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make_replay(**options)


def test_episode_as_transitions() -> None:
    transitions = episode_transitions(make_episode(2, 4))
    assert transitions.batch_size == (4,)
    check_batch(TensorDict({keys.TRANSITIONS: transitions, keys.SUBSEQUENCES: make_subsequence()}, []), {2: 4})


def make_subsequence() -> TensorDict:
    replay = make_replay()
    replay.add_episode(make_episode(2, 4))
    return replay.sample()[keys.SUBSEQUENCES]


@pytest.mark.parametrize("storage", ["memory", "memmap"])
@pytest.mark.parametrize("size", [3, 4])
def test_images_come_back_as_they_were(storage: str, size: int) -> None:
    """Round the ring's end too."""
    sampler = PairedSampler(16, 8, 4, True, 0)
    replay = EpisodeReplay(30, sampler, storage)
    frames = torch.randint(256, (100, 3, size, size), dtype=torch.uint8)
    for number in range(9):
        start = 11 * number
        replay.add_episode(
            TensorDict(
                {
                    keys.OBSERVATION: TensorDict({"image": frames[start : start + 11]}, [11]),
                    keys.ACTION: torch.arange(start, start + 10)[:, None].float(),
                    keys.REWARD: torch.zeros(10),
                    keys.EPISODE_RETURN: torch.tensor(0.0),
                    keys.TERMINATED: torch.tensor(False),
                }
            )
        )
    for _ in range(20):
        batch = replay.sample()
        for part in (batch[keys.TRANSITIONS], batch[keys.SUBSEQUENCES]):
            position = part[keys.ACTION][..., 0].long()
            assert position.min() >= 60
            assert torch.equal(part[keys.OBSERVATION]["image"], frames[position])
            assert torch.equal(part[keys.NEXT_OBSERVATION]["image"], frames[position + 1])
