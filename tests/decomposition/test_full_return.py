"""Least squares over whole episodes, however they are cut, and the loss of RRD as its estimate."""

from __future__ import annotations

from functools import partial
from itertools import permutations, product

import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from rrd_lightning import ParameterError, keys
from rrd_lightning.decomposition import FullReturnDecomposition, full_return_loss, rrd_loss
from rrd_lightning.episode import episode_transitions
from tests.decomposition.training import check_resumes_and_loads, follow
from tests.episodes import make_episode, make_replay
from tests.updates import check_groups, gradients

VECTOR, ACTION = Box(-1, 1, (2,)), Box(-1, 1, (1,))
SMALL = {"hidden_sizes": (32, 32)}
SCALES = ["per_step", "episode"]


def make_batch(lengths: list[int], size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> TensorDict:
    """All steps of three of some episodes, in rows of `size`."""
    replay = make_replay(10_000, rrd_batch_size=3 * size, rrd_sample_size=size, seed=seed)
    replay.sampler.draws = "episodes"
    for identity, length in enumerate(lengths):
        replay.add_episode(make_episode(identity, length))
    return to(replay.sample(), dtype)


def to(steps: TensorDict, dtype: torch.dtype) -> TensorDict:
    return steps.apply(lambda each: each.to(dtype) if each.is_floating_point() else each)


def test_loss_by_hand() -> None:
    """Σ r̂ is 3 and 5, R is 1 and 6, T is 2 and 4."""
    arguments = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 6.0]), torch.tensor([2, 4])
    assert full_return_loss(*arguments) == (1 + 1 / 16) / 2
    assert full_return_loss(*arguments, scale="episode") == (4 + 1) / 2


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    size=st.integers(1, 12),
    rows_at_once=st.integers(1, 30),
    seed=st.integers(0, 2**31),
)
@pytest.mark.parametrize("scale", SCALES)
def test_it_is_the_least_squares_over_whole_episodes(
    scale: str, lengths: list[int], size: int, rows_at_once: int, seed: int
) -> None:
    """Loss and gradients, whatever the rows and however many of them at once."""
    torch.manual_seed(seed)
    options = {"hidden_sizes": (8,), "scale": scale, "rows_at_once": rows_at_once}
    decomposition = FullReturnDecomposition(VECTOR, ACTION, **options).double()
    batch = make_batch(lengths, size, seed)
    found = decomposition.losses(batch)
    found.backward()
    loss, mine = found.losses["reward"].detach(), gradients(decomposition)
    decomposition.zero_grad()
    rows = batch[keys.SUBSEQUENCES]
    terms, every = [], []
    for drawn in range(3):
        identity = int(rows[keys.OBSERVATION][rows[keys.EPISODE] == drawn][0, 0, 0])
        episode = to(episode_transitions(make_episode(identity, lengths[identity])), torch.float64)
        reward = decomposition.reward(episode)
        every.append(reward.detach())
        weight = 1 if scale == "episode" else lengths[identity] ** -2
        terms.append(weight * (reward.sum() - episode[keys.EPISODE_RETURN][0]).square())
    expected = torch.stack(terms).mean()
    torch.testing.assert_close(loss, expected.detach())
    expected.backward()
    for name, gradient in gradients(decomposition).items():
        torch.testing.assert_close(mine[name], gradient)
    steps = torch.cat(every)
    torch.testing.assert_close(found.metrics["reward/predicted_mean"], steps.mean())
    torch.testing.assert_close(found.metrics["reward/predicted_std"], steps.std())


numbers = st.floats(-10, 10)


@settings(deadline=None, max_examples=60)
@given(prediction=st.lists(numbers, min_size=1, max_size=5), size=st.integers(2, 4), episode_return=numbers)
@pytest.mark.parametrize("with_replacement", [True, False])
@pytest.mark.parametrize("scale", SCALES)
def test_it_is_the_expectation_of_rrd_s_corrected_loss(
    scale: str, with_replacement: bool, prediction: list[float], size: int, episode_return: float
) -> None:
    """The mean over all subsequences that there are."""
    length = len(prediction)
    again = with_replacement or size > length
    drawn = torch.tensor(
        list(product(prediction, repeat=size) if again else permutations(prediction, size)), dtype=torch.float64
    )
    returns = torch.full((len(drawn),), episode_return, dtype=torch.float64)
    lengths = torch.full((len(drawn),), length)
    expectation = rrd_loss(
        drawn, returns, lengths, bias_correction=True, with_replacement=with_replacement, scale=scale
    )
    whole = torch.tensor([sum(prediction)], dtype=torch.float64)
    torch.testing.assert_close(expectation, full_return_loss(whole, returns[:1], lengths[:1], scale=scale))


@pytest.mark.parametrize("rows_at_once", [1, 128])
def test_its_loss_trains_its_group(rows_at_once: int) -> None:
    decomposition = FullReturnDecomposition(VECTOR, ACTION, rows_at_once=rows_at_once, **SMALL)
    found = decomposition.losses(make_batch([5, 9, 30], 4, dtype=torch.float32))
    check_groups(decomposition, found)


def test_it_keeps_what_some_rows_need_alone() -> None:
    """Of the hidden layers of 25 rows of 4 steps, nothing is kept for the backward pass."""
    kept: list[torch.Size] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.shape)
        return tensor

    batch = make_batch([100, 100, 100], 4, dtype=torch.float32)
    for rows_at_once, most in ((128, 75 * 4 * 32), (5, 75 * 4)):
        decomposition = FullReturnDecomposition(VECTOR, ACTION, rows_at_once=rows_at_once, **SMALL)
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            decomposition.losses(batch)
        assert max(shape.numel() for shape in kept) == most


def test_bad_input() -> None:
    with pytest.raises(ParameterError, match="scale='other': must be 'per_step' or 'episode'"):
        FullReturnDecomposition(VECTOR, ACTION, scale="other")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="rows_at_once=0: must be greater than zero"):
        FullReturnDecomposition(VECTOR, ACTION, rows_at_once=0)
    with pytest.raises(ParameterError, match="learning_rate=-1: must not be negative"):
        FullReturnDecomposition(VECTOR, ACTION, learning_rate=-1)


def test_follow_is_learned_from_its_return() -> None:
    # Seeds 0 to 2 reached -0.2, -0.2 and -0.3.
    assert follow(partial(FullReturnDecomposition, learning_rate=3e-3, **SMALL)) > -1


def test_it_resumes_and_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = check_resumes_and_loads(
        partial(FullReturnDecomposition, rows_at_once=3, **SMALL), monkeypatch, updates_per_step=3
    )
    assert loaded.decomposition.rows_at_once == 3
    assert loaded.reward(torch.zeros(1).numpy(), torch.zeros(1).numpy(), torch.ones(1).numpy()).shape == ()
