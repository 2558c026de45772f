"""The steps of successful episodes against those of failed ones."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import gymnasium
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from rrd_lightning import Environment, ParameterError, keys
from rrd_lightning.decomposition import SuccessDiscriminator, discriminator_loss
from rrd_lightning.replay import EpisodeReplay, PairedSampler
from tests.decomposition.training import check_resumes_and_loads, follow
from tests.environments import Follow
from tests.episodes import make_episode
from tests.runs import SMALL, make_data, make_module
from tests.updates import check_groups, gradients

VECTOR, ACTION = Box(-1, 1, (2,)), Box(-1, 1, (1,))


def make_batch(*success: bool | None) -> TensorDict:
    """A batch of a replay with episodes of these ends, each of which is drawn."""
    replay = EpisodeReplay(1000, PairedSampler(8, 4 * len(success), 4, True))
    for identity, each in enumerate(success):
        episode = make_episode(identity, 6)
        if each is not None:
            episode[keys.SUCCESS] = torch.tensor(each)
        replay.add_episode(episode)
    return replay.sample()


def test_loss_by_hand() -> None:
    """Log-odds of log 3 are D = 3/4; the two failures of D = 1/2 and 1/4 weigh as much as the success."""
    log_odds = torch.tensor([[math.log(3)] * 2, [0.0, 0.0], [-math.log(3)] * 2, [9.0, -9.0]])
    success = torch.tensor([1, 0, 0, -1], dtype=torch.int8)
    expected = (-math.log(3 / 4) + (-math.log(1 / 2) - math.log(3 / 4)) / 2) / 2
    assert discriminator_loss(log_odds, success).item() == pytest.approx(expected)
    assert discriminator_loss(0 * log_odds, success).item() == pytest.approx(math.log(2))


kinds = st.lists(st.integers(0, 3), min_size=4, max_size=8).map(lambda more: [0, 1, 2, 3, *more])


@settings(deadline=None, max_examples=60)
@given(st.tuples(kinds, kinds), st.integers(1, 7))
def test_the_best_log_odds_are_how_much_likelier_a_step_is_in_a_success(
    steps: tuple[list[int], list[int]], failures: int
) -> None:
    """Whatever the share of successes: of four kinds of steps, some more often in one than in the other."""
    size = min(map(len, steps))
    success, failure = (torch.tensor(each[:size]) for each in steps)
    best = (success.bincount(minlength=4) / failure.bincount(minlength=4)).double().log().requires_grad_()
    log_odds = best[torch.stack([success, *[failure] * failures])]
    loss = discriminator_loss(log_odds, torch.tensor([1] + [0] * failures, dtype=torch.int8))
    (gradient,) = torch.autograd.grad(loss, best)
    assert gradient.abs().max() < 1e-6


@settings(deadline=None, max_examples=30)
@given(
    success=st.lists(st.sampled_from([1, 0, -1]), min_size=1, max_size=6),
    values=st.floats(-100, 100),
    seed=st.integers(0, 2**31),
)
def test_unknown_episodes_do_not_count_and_one_kind_teaches_nothing(
    success: list[int], values: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_odds = 3 * torch.randn(len(success), 4, generator=generator, dtype=torch.float64)
    kind = torch.tensor(success, dtype=torch.int8)
    log_odds[kind == -1] = values
    log_odds.requires_grad_()
    loss = discriminator_loss(log_odds, kind)
    loss.backward()
    assert not log_odds.grad[kind == -1].any()
    if {0, 1} <= set(success):
        torch.testing.assert_close(loss, discriminator_loss(log_odds[kind >= 0], kind[kind >= 0]))
        assert log_odds.grad[kind >= 0].all()
    else:
        assert loss == 0
        assert not log_odds.grad.any()


def test_reward_is_clipped() -> None:
    decomposition = SuccessDiscriminator(VECTOR, ACTION, **SMALL)
    steps = make_batch(True, False)[keys.SUBSEQUENCES]
    log_odds = decomposition.model(steps)
    assert log_odds.abs().max() > 5  # the actions are up to 1000
    assert torch.equal(decomposition.reward(steps), log_odds.clamp(-5, 5))


def test_its_loss_trains_its_group() -> None:
    decomposition = SuccessDiscriminator(VECTOR, ACTION, **SMALL)
    batch = make_batch(True, False, None, False)
    found = decomposition.losses(batch)
    part = batch[keys.SUBSEQUENCES]
    log_odds = decomposition.model(part).detach()
    assert found.losses["reward"] == discriminator_loss(log_odds, part[keys.SUCCESS]) != 0
    logged = found.logged()
    assert logged["reward/both_kinds"] == 1
    assert logged["reward/success_mean"] == pytest.approx(log_odds[part[keys.SUCCESS] == 1].mean().item())
    assert logged["reward/failure_mean"] == pytest.approx(log_odds[part[keys.SUCCESS] == 0].mean().item())
    check_groups(decomposition, found)


@pytest.mark.parametrize("success", [True, False])
def test_it_warns_once_while_there_is_one_kind_alone_and_learns_nothing(success: bool) -> None:
    decomposition = SuccessDiscriminator(VECTOR, ACTION, **SMALL)
    batch = make_batch(success, success, None)
    counts = (2, 0) if success else (0, 2)
    with pytest.warns(match=rf"of the 3 stored episodes {counts[0]} succeeded and {counts[1]} failed\. It"):
        found = decomposition.losses(batch)
    assert decomposition.losses(batch).losses["reward"] == found.losses["reward"] == 0
    assert found.metrics["reward/both_kinds"] == 0
    found.backward()
    assert not any(gradient.any() for gradient in gradients(decomposition).values())


def test_it_asks_for_success() -> None:
    with pytest.raises(ParameterError, match="none of the 2 stored episodes says whether it succeeded"):
        SuccessDiscriminator(VECTOR, ACTION).losses(make_batch(None, None))


def test_a_batch_must_have_room_for_both_kinds() -> None:
    decomposition = SuccessDiscriminator(VECTOR, ACTION)
    decomposition.check(2, 32)
    with pytest.raises(
        ParameterError, match=r"data.rrd_sample_size=32: must be at most half of data.rrd_batch"
    ):
        make_data(rrd_batch_size=32, rrd_sample_size=32).check(
            make_module(Environment("Judged-v0"), decomposition=SuccessDiscriminator)
        )


class Judged(Follow):
    """Success is a return of more than -5: one in ten episodes of uniform actions."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._total = 0.0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, _ = super().step(action)
        self._total += reward
        return observation, reward, terminated, truncated, {"success": self._total > -5}


gymnasium.register("Judged-v0", Judged)


def test_judged_is_learned_from_success_alone() -> None:
    # Seeds 0 to 2 reached -1.2, -0.5 and -0.7. On Follow-v0, whose success is that of the last step alone, they
    # reached -7.5, -0.3 and -3.9: some twenty steps of successes to learn from are too few.
    assert follow(partial(SuccessDiscriminator, learning_rate=3e-3, **SMALL), env_id="Judged-v0") > -2.5


def test_it_resumes_and_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = check_resumes_and_loads(partial(SuccessDiscriminator, **SMALL), monkeypatch)
    zero = torch.zeros(1).numpy()
    assert -5 <= loaded.reward(zero, zero, zero) <= 5
