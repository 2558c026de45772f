"""The loss against numbers worked out by hand, and its expectation against the full-episode loss."""

from __future__ import annotations

import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary
from tensordict import TensorDict

from rrd_lightning import ParameterError, keys
from rrd_lightning.decomposition import RRD, EnvironmentReward, EpisodicReward, rrd_loss
from rrd_lightning.losses import Losses
from rrd_lightning.networks import Linear
from tests.updates import check_groups

# Two subsequences of two steps. Means 2 and 1; unbiased variances 2 and 2.
PREDICTED = torch.tensor([[1.0, 3.0], [0.0, 2.0]])
# R / T is 1 and 2, so both squared differences are 1.
RETURN = torch.tensor([4.0, 6.0])
LENGTH = torch.tensor([4, 3])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (1 + 1) / 2),
        # T² is 16 and 9.
        ({"scale": "episode"}, (16 * 1 + 9 * 1) / 2),
        # With replacement c = 1: each term loses 2 · 1 / 2 = 1.
        ({"bias_correction": True}, 0.0),
        ({"bias_correction": True, "scale": "episode"}, 0.0),
        # Without, c = 1 - 2/4 and 1 - 2/3: the terms lose 1/2 and 1/3.
        ({"bias_correction": True, "with_replacement": False}, (1 / 2 + 2 / 3) / 2),
        ({"bias_correction": True, "with_replacement": False, "scale": "episode"}, (8 + 6) / 2),
        # One of each.
        ({"bias_correction": True, "with_replacement": torch.tensor([True, False])}, (0 + 2 / 3) / 2),
    ],
)
def test_loss_by_hand(options: dict, expected: float) -> None:
    assert rrd_loss(PREDICTED, RETURN, LENGTH, **options).item() == pytest.approx(expected, abs=1e-6)


def test_loss_gradient_by_hand() -> None:
    predicted = PREDICTED.clone().requires_grad_()
    rrd_loss(predicted, RETURN, LENGTH).backward()
    # dL/dp_ij = (1/N) · 2 · (mean - R/T) · (1/K): ±(1/2 · 2 · 1 · 1/2).
    torch.testing.assert_close(predicted.grad, torch.tensor([[0.5, 0.5], [-0.5, -0.5]]))


def test_episode_of_one_step_needs_no_correction() -> None:
    predicted = torch.tensor([[3.0, 3.0]])
    for with_replacement in (True, False):
        loss = rrd_loss(
            predicted,
            torch.tensor([1.0]),
            torch.tensor([1]),
            bias_correction=True,
            with_replacement=with_replacement,
        )
        assert loss.item() == pytest.approx(4.0)


@pytest.mark.parametrize("scale", ["per_step", "episode"])
@pytest.mark.parametrize("with_replacement", [True, False])
@pytest.mark.parametrize("length", [9, 4, 3, 1], ids=["T>K", "T=K", "T<K", "T=1"])
def test_corrected_loss_is_unbiased(length: int, with_replacement: bool, scale: str) -> None:
    draws, sample_size = 400_000, 4
    prediction = torch.randn(length, dtype=torch.float64)
    episode_return = torch.tensor(1.5, dtype=torch.float64)
    if with_replacement or sample_size > length:
        steps = torch.randint(length, (draws, sample_size))
    else:
        steps = torch.rand(draws, length).argsort(-1)[:, :sample_size]
    terms = [
        rrd_loss(
            prediction[steps],
            episode_return.expand(draws),
            torch.full((draws,), length),
            bias_correction=correction,
            with_replacement=with_replacement,
            scale=scale,
        ).item()
        for correction in (True, False)
    ]
    weight = length**2 if scale == "episode" else 1
    full = weight * (prediction.mean() - episode_return / length).square().item()
    # Standard error of the mean of these draws is below 0.005 on the per-step scale.
    assert terms[0] == pytest.approx(full, abs=0.02 * weight)
    if length > sample_size or (length > 1 and with_replacement):
        # The uncorrected loss is biased by far more than that.
        assert terms[1] > full + 0.03 * weight


def test_correction_needs_two_steps() -> None:
    with pytest.raises(ParameterError, match="rrd_sample_size=1: must be at least 2"):
        rrd_loss(torch.ones(3, 1), torch.ones(3), torch.ones(3), bias_correction=True)


VECTOR, ACTION = Box(-1, 1, (3,)), Box(-1, 1, (2,))


def linear(decomposition: RRD) -> list[Linear]:
    return [layer for layer in decomposition.modules() if isinstance(layer, Linear)]


def subsequences(count: int = 4, steps: int = 8) -> TensorDict:
    return TensorDict(
        {
            keys.OBSERVATION: torch.randn(count, steps, 3),
            keys.NEXT_OBSERVATION: torch.randn(count, steps, 3),
            keys.ACTION: torch.randn(count, steps, 2),
            keys.EPISODE_RETURN: torch.randn(count),
            keys.EPISODE_LENGTH: torch.full((count,), 20),
            keys.WITH_REPLACEMENT: torch.ones(count, dtype=torch.bool),
        },
        [count],
    )


def test_reward_network_sees_observation_action_and_change() -> None:
    decomposition = RRD(VECTOR, ACTION)
    batch = subsequences()
    reward = decomposition.reward(batch)
    assert reward.shape == (4, 8)
    observation, following = batch[keys.OBSERVATION], batch[keys.NEXT_OBSERVATION]
    inputs = torch.cat([observation, batch[keys.ACTION], observation - following], -1)
    torch.testing.assert_close(reward, decomposition.model.network(inputs)[..., 0])
    sizes = [tuple(layer.weight.shape) for layer in linear(decomposition)]
    assert sizes == [(8, 256), (256, 256), (256, 1)]


def test_discrete_actions_are_one_hot() -> None:
    decomposition = RRD(VECTOR, Discrete(3, start=-1))
    batch = subsequences()
    batch[keys.ACTION] = torch.randint(-1, 2, (4, 8))
    observation, following = batch[keys.OBSERVATION], batch[keys.NEXT_OBSERVATION]
    one_hot = torch.eye(3)[batch[keys.ACTION] + 1]
    inputs = torch.cat([observation, one_hot, observation - following], -1)
    torch.testing.assert_close(decomposition.reward(batch), decomposition.model.network(inputs)[..., 0])


@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize("scale", ["per_step", "episode"])
def test_it_learns_by_the_function(bias_correction: bool, scale: str) -> None:
    decomposition = RRD(VECTOR, ACTION, bias_correction=bias_correction, scale=scale)
    part = subsequences()
    part[keys.WITH_REPLACEMENT] = torch.tensor([True, False, True, False])
    found = decomposition.losses(TensorDict({keys.SUBSEQUENCES: part}, []))
    expected = rrd_loss(
        decomposition.reward(part),
        part[keys.EPISODE_RETURN],
        part[keys.EPISODE_LENGTH],
        bias_correction=bias_correction,
        with_replacement=part[keys.WITH_REPLACEMENT],
        scale=scale,
    )
    assert found.losses["reward"] == expected != 0
    check_groups(decomposition, found)


def test_initialisation_is_xavier_with_zero_biases() -> None:
    for layer in linear(RRD(VECTOR, ACTION)):
        limit = (6 / sum(layer.weight.shape)) ** 0.5
        assert layer.weight.abs().max() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.15)
        assert not layer.bias.any()


def test_yardsticks() -> None:
    transitions = TensorDict(
        {
            keys.REWARD: torch.tensor([1.0, 2.0, 3.0]),
            keys.EPISODE_RETURN: torch.tensor([6.0, 6.0, 6.0]),
            keys.DONE: torch.tensor([False, False, True]),
        },
        [3],
    )
    assert EnvironmentReward(VECTOR, ACTION).reward(transitions).tolist() == [1, 2, 3]
    assert EpisodicReward(VECTOR, ACTION).reward(transitions).tolist() == [0, 0, 6]
    assert EpisodicReward(VECTOR, ACTION).losses(transitions) == Losses()


def test_the_output_is_scaled() -> None:
    steps = TensorDict({keys.OBSERVATION: torch.randn(5, 3), keys.NEXT_OBSERVATION: torch.randn(5, 3)}, [5])
    space = Box(-torch.inf, torch.inf, (3,))
    steps[keys.ACTION] = torch.rand(5, *ACTION.shape)
    small = RRD(space, ACTION, output_scale=0.1)
    plain = RRD(space, ACTION)
    plain.load_state_dict(small.state_dict())
    assert torch.allclose(small.reward(steps), 0.1 * plain.reward(steps))
    with pytest.raises(ParameterError, match="output_scale=0"):
        RRD(space, ACTION, output_scale=0.0)


def test_bad_input() -> None:
    with pytest.raises(ParameterError, match=r"observation_space=Box.*RRD serves vectors of numbers"):
        RRD(Box(0, 255, (8, 8, 3)), ACTION)
    with pytest.raises(ParameterError, match=r"action_space=MultiBinary\(4\): RRD serves vectors of floating"):
        RRD(VECTOR, MultiBinary(4))
    with pytest.raises(ParameterError, match="scale='other': must be 'per_step' or 'episode'"):
        RRD(VECTOR, ACTION, scale="other")  # type: ignore[arg-type]
