"""Several reward models, each of which learns as it would alone."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from rrd_lightning import ParameterError, keys
from rrd_lightning.cli import main
from rrd_lightning.decomposition import RRD, RRDEnsemble
from tests.decomposition.training import check_resumes_and_loads, follow
from tests.runs import SMALL
from tests.updates import check_groups, gradients, make_batch

VECTOR, ACTION = Box(-1, 1, (5,)), Box(-1, 1, (3,))


def batch() -> TensorDict:
    return make_batch(5, 3, 32, (4, 8))


def constant(ensemble: RRDEnsemble, *rewards: float) -> RRDEnsemble:
    """Let the members predict the same reward for every step."""
    for member, reward in zip(ensemble.members, rewards, strict=True):
        last = member.model.network.layers[-1]
        with torch.no_grad():
            last.weight.zero_()
            last.bias.fill_(reward)
    return ensemble


def test_reward_by_hand() -> None:
    """Predictions of 1, 2 and 6: mean 3, variance (4 + 1 + 9) / 3."""
    for pessimism in (0, 0.5, 2):
        ensemble = constant(RRDEnsemble(VECTOR, ACTION, members=3, pessimism=pessimism, **SMALL), 1, 2, 6)
        expected = 3 - pessimism * (14 / 3) ** 0.5
        assert ensemble.reward(batch()[keys.TRANSITIONS]).tolist() == pytest.approx([expected] * 32)
        logged = ensemble.losses(batch()).logged()
        assert logged["reward/spread"] == pytest.approx((14 / 3) ** 0.5)
        assert logged["reward/predicted_mean"] == pytest.approx(expected)
        assert logged["reward/predicted_std"] == pytest.approx(0, abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(
    members=st.integers(1, 4),
    pessimism=st.floats(0, 3),
    bias_correction=st.booleans(),
    scale=st.sampled_from(["per_step", "episode"]),
    seed=st.integers(0, 2**31),
)
def test_each_member_learns_as_it_would_alone(
    members: int, pessimism: float, bias_correction: bool, scale: str, seed: int
) -> None:
    torch.manual_seed(seed)
    options = {"bias_correction": bias_correction, "scale": scale, **SMALL}
    ensemble = RRDEnsemble(VECTOR, ACTION, members=members, pessimism=pessimism, **options)
    paired = batch()
    found = ensemble.losses(paired)
    found.backward()
    together = [gradients(member) for member in ensemble.members]
    alone = [member.losses(paired).losses["reward"] for member in ensemble.members]
    torch.testing.assert_close(found.losses["reward"], torch.stack(alone).sum())
    for member, loss, mine in zip(ensemble.members, alone, together, strict=True):
        member.zero_grad()
        loss.backward()
        for name, gradient in gradients(member).items():
            torch.testing.assert_close(mine[name], gradient)
    rewards = torch.stack([member.reward(paired[keys.TRANSITIONS]) for member in ensemble.members])
    mean, reward = rewards.mean(0), ensemble.reward(paired[keys.TRANSITIONS])
    torch.testing.assert_close(reward, mean - pessimism * (rewards - mean).square().mean(0).sqrt())
    assert (rewards.min(0).values <= mean + 1e-6).all()
    if pessimism == 0 or members == 1:
        torch.testing.assert_close(reward, mean)


def test_one_member_is_rrd() -> None:
    torch.manual_seed(0)
    alone = RRD(VECTOR, ACTION, **SMALL)
    torch.manual_seed(0)
    ensemble = RRDEnsemble(VECTOR, ACTION, members=1, pessimism=3, **SMALL)
    paired = batch()
    assert torch.equal(ensemble.reward(paired[keys.TRANSITIONS]), alone.reward(paired[keys.TRANSITIONS]))
    logged = ensemble.losses(paired).logged()
    assert logged.pop("reward/spread") == 0
    assert logged == alone.losses(paired).logged()


def test_its_loss_trains_its_group() -> None:
    ensemble = RRDEnsemble(VECTOR, ACTION, members=3, learning_rate=0.1, **SMALL)
    check_groups(ensemble, ensemble.losses(batch()))
    (group,) = ensemble.parameter_groups()
    assert (group["name"], group["lr"], len(group["params"])) == ("reward", 0.1, 3 * 6)


def test_members_begin_differently() -> None:
    first, second = RRDEnsemble(VECTOR, ACTION, members=2, **SMALL).members
    transitions = batch()[keys.TRANSITIONS]
    assert not torch.equal(first.reward(transitions), second.reward(transitions))


def test_bad_input() -> None:
    with pytest.raises(ParameterError, match="members=0: must be greater than zero"):
        RRDEnsemble(VECTOR, ACTION, members=0)
    with pytest.raises(ParameterError, match="pessimism=-1: must not be negative"):
        RRDEnsemble(VECTOR, ACTION, pessimism=-1)
    with pytest.raises(ParameterError, match="rrd_sample_size=1: must be at least 2"):
        RRDEnsemble(VECTOR, ACTION, bias_correction=True, **SMALL).check(2, 1)


def test_follow_is_learned_from_its_return() -> None:
    decomposition = partial(RRDEnsemble, members=3, pessimism=1.0, learning_rate=3e-3, **SMALL)
    # Seeds 0 to 2 reached -0.5, -0.6 and -0.5.
    assert follow(decomposition) > -1.5


def test_it_resumes_and_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = check_resumes_and_loads(partial(RRDEnsemble, members=2, pessimism=0.5, **SMALL), monkeypatch)
    assert len(loaded.decomposition.members) == 2
    zero = torch.zeros(1).numpy()
    assert loaded.reward(zero, zero, zero).shape == ()


def test_its_members_options_from_the_command_line() -> None:
    options = ["--model.decomposition.members=2", "--model.decomposition.bias_correction=true"]
    main(["fit", "--config=debug", "--model.decomposition=RRDEnsemble", *options])
    main(["test", "--ckpt_path=runs/Pendulum-v1/version_0/checkpoints/last.ckpt"])
