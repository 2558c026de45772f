"""Gathering batches: in C++ and without, lazily where they are large, in memory from a pool."""

from __future__ import annotations

import copy
import gc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_utilities.core.apply_func import apply_to_collection
from scipy.stats import chisquare
from tensordict import TensorDict

from rrd_lightning import keys
from rrd_lightning.kernels import library_here
from rrd_lightning.replay import EpisodeReplay, LazyBatches, PairedSampler
from rrd_lightning.replay.gather import distinct_steps
from rrd_lightning.replay.memory_pool import MemoryPool
from tests.episodes import check_batch, make_episode, make_replay


@pytest.mark.skipif(library_here() is None, reason="there is no C++ compiler")
@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    replacement=st.booleans(),
    size=st.integers(1, 5),
    storage=st.sampled_from(["memory", "memmap"]),
    count=st.sampled_from([None, 1, 3]),
    draws=st.sampled_from(["steps", "episodes", "nothing"]),
)
def test_with_a_compiler_or_without_the_batches_are_the_same(
    lengths: list[int], replacement: bool, size: int, storage: str, count: int | None, draws: str
) -> None:
    """Of images and numbers, round the ring's end."""

    def batches() -> list[TensorDict]:
        generator = torch.Generator().manual_seed(0)
        replay = make_replay(100, replacement=replacement, storage=storage)
        replay.sampler.draws = draws
        for identity, length in enumerate(lengths):
            episode = make_episode(identity, length)
            image = torch.randint(256, (length + 1, 3, size, size), dtype=torch.uint8, generator=generator)
            numbers = {"image": image, "numbers": episode[keys.OBSERVATION]}
            episode[keys.OBSERVATION] = TensorDict(numbers, [length + 1])
            replay.add_episode(episode)
        return [replay.sample()] if count is None else list(replay.sample_several(count))

    found = batches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rrd_lightning.replay.gather.library_here", lambda: None)
        expected = batches()
    assert all((mine == other).all() for mine, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("compiled", [True, False])
def test_a_shuffle_by_hand(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the places 0 1 2 3: 0 and 2 change, then 1 and 2, where 0 is now, and then 2 and 3."""
    if not compiled:
        monkeypatch.setattr("rrd_lightning.replay.gather.library_here", lambda: None)
    uniform = np.array([[0.5, 0.5, 0.5], [0.99, 0.0, 0.5], [0.9, 0.4, 0.1]])
    steps = distinct_steps(np.array([4, 3, 2]), uniform)
    # The last has fewer steps than are asked for.
    assert steps.tolist() == [[2, 0, 3], [2, 1, 0], [1, 0, 0]]


def test_each_place_of_a_subsequence_without_replacement_is_uniform() -> None:
    steps = distinct_steps(np.full(20_000, 10), np.random.default_rng(0).random((20_000, 4)))
    assert all(len(set(row)) == 4 for row in steps[:100].tolist())
    for place in range(4):
        assert chisquare(np.bincount(steps[:, place], minlength=10)).pvalue > 1e-3
    pairs = np.bincount(10 * steps[:, 0] + steps[:, 3], minlength=100).reshape(10, 10)
    assert not pairs.diagonal().any()
    assert chisquare(pairs[~np.eye(10, dtype=bool)]).pvalue > 1e-3


def test_large_batches_are_gathered_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrd_lightning.replay.buffer.GATHERED_TOGETHER", 0)
    replay = make_replay()
    replay.add_episode(make_episode(0, 50))
    batches = replay.sample_several(3)
    assert isinstance(batches, LazyBatches)
    assert len(batches) == len(list(batches)) == 3
    assert (batches[1:][-1] == batches[2]).all()
    # What Lightning does for other precisions.
    doubled = apply_to_collection(batches, torch.Tensor, torch.Tensor.double)
    assert isinstance(doubled, LazyBatches)
    assert (doubled[1] == batches[1]).all()
    moved = batches.to(torch.device("meta"))
    assert [each[keys.TRANSITIONS, keys.ACTION].device.type for each in moved] == ["meta"] * 3


def test_memory_of_a_batch_is_used_again_when_nothing_shows_it_any_longer() -> None:
    blocks = MemoryPool()
    first = blocks.take(1000)
    place = first.data_ptr()
    assert place % 64 == 0
    view = first[10:20].view(2, 5)
    del first
    gc.collect()
    second = blocks.take(1000)
    assert second.data_ptr() != place
    copied = copy.deepcopy(view)
    del view
    third = blocks.take(1000)
    assert third.data_ptr() == place
    assert blocks.take(999).data_ptr() not in {place, second.data_ptr()}
    assert copied.shape == (2, 5)
    # No more stay than training needs, and sizes up to the next power of two share them.
    several = [blocks.take(1000) for _ in range(6)]
    places = {each.data_ptr() for each in several}
    del several
    assert len(blocks._free[1024]) == 3
    assert blocks.take(600).data_ptr() in places


@pytest.mark.parametrize("compiled", [True, False])
def test_too_few_positions_are_an_error_and_other_integers_are_none(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr("rrd_lightning.replay.gather.library_here", lambda: None)

    class Short(PairedSampler):
        def sample(self, storage: Any, lead: tuple[int, ...] = ()) -> tuple[torch.Tensor, dict[str, Any]]:
            index, draws = super().sample(storage, lead)
            return index.int() if lead else index[:-1], draws

    replay = EpisodeReplay(100, Short(8, 4, 4, True))
    replay.add_episode(make_episode(0, 50))
    with pytest.raises(IndexError, match="11 positions were drawn for a batch, fewer than its steps"):
        replay.sample()
    for batch in replay.sample_several(2):
        check_batch(batch, {0: 50})


@pytest.mark.parametrize("storage", ["memory", "memmap"])
def test_an_episode_may_have_gaps(storage: str) -> None:
    """As images have whose channels were last: the first episode decides how the ring lies in memory."""
    sampler = PairedSampler(16, 8, 4, True, 0)
    replay = EpisodeReplay(30, sampler, storage)
    frames = torch.randint(256, (11, 5, 7, 3), dtype=torch.uint8)
    replay.add_episode(
        TensorDict(
            {
                keys.OBSERVATION: frames.permute(0, 3, 1, 2),
                keys.ACTION: torch.arange(20.0)[::2, None] / 2,
                keys.REWARD: torch.zeros(10, 2)[:, 0],
                keys.EPISODE_RETURN: torch.tensor(0.0),
                keys.TERMINATED: torch.tensor(False),
            }
        )
    )
    part = replay.sample()[keys.TRANSITIONS]
    position = part[keys.ACTION][:, 0].long()
    assert torch.equal(part[keys.OBSERVATION], frames[position].permute(0, 3, 1, 2))
    assert torch.equal(part[keys.NEXT_OBSERVATION], frames[position + 1].permute(0, 3, 1, 2))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("position", [-1, 51, 164, 10_000])
def test_a_sampler_that_draws_where_nothing_is_stored_is_an_error(
    position: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr("rrd_lightning.replay.gather.library_here", lambda: None)

    class Astray(PairedSampler):
        def sample(self, storage: Any, lead: tuple[int, ...] = ()) -> tuple[torch.Tensor, dict[str, Any]]:
            index, draws = super().sample(storage, lead)
            index[..., -1] = position
            return index, draws

    replay = EpisodeReplay(100, Astray(8, 4, 4, True))
    replay.add_episode(make_episode(0, 50))
    with pytest.raises(IndexError):
        replay.sample()
