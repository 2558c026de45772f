"""SAC against TorchRL's SACLoss, by hand, and for what each loss may reach."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from tensordict import TensorDict
from tensordict.nn import InteractionType, TensorDictModule
from torch import Tensor, nn
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import SACLoss, SoftUpdate

from rrd_lightning import ParameterError, RRDModule, keys
from rrd_lightning.agents import SAC
from rrd_lightning.agents.squashed_gaussian import SquashedGaussian
from tests.agents.reference import (
    ACTION,
    BATCH,
    OBSERVATION,
    Perceptron,
    as_torchrl,
    copy_of,
    copy_values,
    linear,
    make_transitions,
    same_gradients,
)
from tests.updates import check_groups


class Policy(nn.Module):
    def __init__(self, actor: nn.Module) -> None:
        super().__init__()
        self.actor = actor

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(observation).chunk(2, -1)
        return mean, log_std.clamp(-20, 2).exp()


def make_reference(agent: SAC) -> SACLoss:
    """TorchRL's loss, with copies of the agent's weights."""
    policy = TensorDictModule(
        Policy(copy_of(agent.actor, 5, 256, 256, 6)), in_keys=["observation"], out_keys=["loc", "scale"]
    )
    actor = ProbabilisticActor(
        policy,
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        distribution_kwargs={"low": -1, "high": 1, "tanh_loc": False, "safe_tanh": False},
        default_interaction_type=InteractionType.RANDOM,
        return_log_prob=True,
    )
    loss = SACLoss(
        actor,
        ValueOperator(Perceptron(8, 256, 256, 1), in_keys=["observation", "action"]),
        num_qvalue_nets=2,
        loss_function="l2",
        alpha_init=agent.log_temperature.exp().item(),
        target_entropy=agent.target_entropy,
        action_spec=None,
        delay_qvalue=True,
        skip_done_states=False,
    )
    loss.make_value_estimator(gamma=agent.gamma)
    SoftUpdate(loss, tau=0.005)  # TorchRL warns of targets that nothing updates
    for name, critic in (("qvalue", agent.critic), ("target_qvalue", agent.target_critic)):
        copy_values(critic, getattr(loss, f"{name}_network_params"))
    return loss


def test_losses_and_gradients_equal_those_of_torchrl() -> None:
    agent = SAC(OBSERVATION, ACTION, initial_temperature=0.3, gamma=0.95)
    with torch.no_grad():
        for parameter in agent.target_critic.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
        agent.log_temperature.fill_(math.log(0.3))
    transitions, reward = make_transitions(), torch.randn(BATCH)
    reference = make_reference(agent)
    data = as_torchrl(transitions, reward)
    torch.manual_seed(7)
    expected = reference(data)
    (expected["loss_qvalue"] + expected["loss_actor"] + expected["loss_alpha"]).backward()
    torch.manual_seed(7)
    found = agent.losses(transitions, reward)
    found.backward()
    metrics = found.logged()

    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(metrics["loss/critic"], expected["loss_qvalue"].detach(), **tolerance)
    torch.testing.assert_close(metrics["loss/actor"], expected["loss_actor"].detach(), **tolerance)
    torch.testing.assert_close(metrics["loss/temperature"], expected["loss_alpha"].detach(), **tolerance)
    torch.testing.assert_close(agent.log_temperature.grad, reference.log_alpha.grad, **tolerance)
    same_gradients(agent.critic, reference.qvalue_network_params)
    same_gradients(agent.actor, reference.actor_network_params)


def test_time_limits_bootstrap_and_terminations_do_not() -> None:
    """The reward alone is the target where the task ended; `done` alone changes nothing."""
    agent = SAC(OBSERVATION, ACTION, gamma=0.9)
    transitions, reward = make_transitions(), torch.randn(BATCH)
    transitions[keys.TERMINATED] = torch.ones(BATCH, dtype=torch.bool)
    metrics = agent.losses(transitions, reward).logged()
    inputs = torch.cat([transitions[keys.OBSERVATION], transitions[keys.ACTION]], -1)
    errors = agent.critic(inputs).squeeze(-1) - reward
    torch.testing.assert_close(metrics["loss/critic"], errors.square().mean(-1).sum().detach())
    transitions[keys.TERMINATED] = torch.zeros(BATCH, dtype=torch.bool)
    values = []
    for done in (True, False):
        transitions[keys.DONE] = torch.full((BATCH,), done)
        torch.manual_seed(1)
        values.append(agent.losses(transitions, reward).losses["critic"])
    assert values[0] == values[1]


def test_log_density_of_squashed_actions_integrates_to_one() -> None:
    """By hand: the density of tanh(u) over (-1, 1), for μ = 0.4 and σ = 0.7."""
    policy = SquashedGaussian(torch.tensor([0.4, math.log(0.7)]).expand(200_000, 2))
    action, log_prob = policy.sample_with_log_prob()
    # E[1 / p(a)] over a ~ p is the length of the interval, here between -0.9 and 0.9.
    inside = action.abs().squeeze(-1) < 0.9
    length = ((-log_prob).exp() * inside).mean().item()
    assert length == pytest.approx(1.8, abs=0.02)
    assert policy.mode()[0].item() == pytest.approx(math.tanh(0.4))
    mean = policy.sample().atanh().mean().item()
    assert mean == pytest.approx(0.4, abs=0.01)


def test_each_loss_reaches_the_parameters_of_its_own_group_only() -> None:
    image = Dict({"image": Box(0, 255, (3, 36, 36), np.uint8), "vector": OBSERVATION})
    for space, seen in ((OBSERVATION, torch.randn(2, BATCH, 5)), (image, None)):
        agent = SAC(space, ACTION, num_critics=3, critics_in_target=2, layer_norm=True)
        transitions = make_transitions()
        for place, key in enumerate((keys.OBSERVATION, keys.NEXT_OBSERVATION)):
            pixels = torch.randint(256, (BATCH, 3, 36, 36), dtype=torch.uint8)
            nested = TensorDict({"image": pixels, "vector": torch.randn(BATCH, 5)}, [BATCH])
            transitions[key] = nested if seen is None else seen[place]
        check_groups(agent, agent.losses(transitions, torch.randn(BATCH)))


def test_the_critics_of_a_target_are_drawn_anew_and_their_minimum_is_taken() -> None:
    agent = SAC(OBSERVATION, ACTION, num_critics=5, critics_in_target=2)
    values = torch.arange(5.0)[:, None].expand(5, 3)
    lowest = torch.stack([agent.pessimistic(values)[0] for _ in range(4000)])
    # Of two of five the minimum is k with probability (4 - k) / 10.
    shares = [(lowest == k).float().mean().item() for k in range(5)]
    assert shares == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0], abs=0.03)
    assert SAC(OBSERVATION, ACTION, num_critics=5).pessimistic(values).tolist() == [0, 0, 0]
    assert SAC(OBSERVATION, ACTION, num_critics=5, actor_value="mean").combine(values).tolist() == [2, 2, 2]
    assert agent.combine(values).tolist() == [0, 0, 0]


def test_targets_move_by_a_share() -> None:
    agent = SAC(OBSERVATION, ACTION, polyak=0.9)
    before = [parameter.clone() for parameter in agent.target_critic.parameters()]
    with torch.no_grad():
        for parameter in agent.critic.parameters():
            parameter.add_(1.0)
    agent.after_update(1)
    for old, new in zip(before, agent.target_critic.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)


def test_twin_critics_are_two_independent_perceptrons() -> None:
    critic = SAC(OBSERVATION, ACTION).critic
    inputs = torch.randn(10, 8)
    for member in range(2):
        hidden = inputs
        for index, layer in enumerate(linear(critic)):
            hidden = hidden @ layer.weight[member] + layer.bias[member]
            hidden = hidden.relu() if index < 2 else hidden
        torch.testing.assert_close(critic(inputs)[member], hidden)
    assert not torch.equal(*linear(critic)[0].weight)


def test_actions_explore_or_do_not() -> None:
    agent = SAC(OBSERVATION, ACTION)
    observation = torch.randn(4, 5)
    first = agent.act(observation, explore=False)
    assert first.shape == (4, 3)
    assert torch.equal(first, agent.act(observation, explore=False))
    assert not torch.equal(agent.act(observation, explore=True), agent.act(observation, explore=True))
    assert agent.act(100 * observation, explore=True).abs().max() <= 1


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        ((OBSERVATION, Discrete(4)), r"action_space=Discrete\(4\): SAC serves continuous vectors"),
        ((OBSERVATION, Box(-1, 1, (2, 2))), "action_space=Box.*SAC serves continuous vectors"),
        ((OBSERVATION, Box(-torch.inf, 1, (2,))), "SAC needs finite bounds on every action"),
        ((OBSERVATION, Box(0, 5, (2,), "int64")), "action_space=Box.*floating numbers"),
        ((Box(0, 255, (5,), "uint8"), ACTION), "observation_space=Box.*vectors of numbers"),
        ((MultiBinary(4), ACTION), r"observation_space=MultiBinary\(4\): SAC serves vectors of numbers"),
        ((Dict({"a": OBSERVATION, "b": MultiBinary(2)}), ACTION), "observation_space=Dict.*SAC serves vectors"),
    ],
)
def test_spaces_it_cannot_serve(spaces: tuple, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        SAC(*spaces)


def test_numbers_out_of_range() -> None:
    with pytest.raises(ParameterError, match=r"gamma=1.5: must be between 0 and 1"):
        SAC(OBSERVATION, ACTION, gamma=1.5)
    with pytest.raises(ParameterError, match=r"initial_temperature=0.0: must be greater than zero"):
        SAC(OBSERVATION, ACTION, initial_temperature=0.0)
    for options, message in (
        ({"num_critics": 0}, "num_critics=0: must be greater than zero"),
        ({"critics_in_target": 3}, "critics_in_target=3: must be from 1 to num_critics=2"),
        ({"actor_value": "max"}, "actor_value='max': must be 'min', 'mean' or 'first'"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and less than 1"),
        ({"activation": "swish"}, "activation='swish': must be one of relu"),
    ):
        with pytest.raises(ParameterError, match=message):
            SAC(OBSERVATION, ACTION, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounds_whose_range_overflows_are_as_good_as_none(dtype: torch.dtype) -> None:
    large = 0.9 * torch.finfo(dtype).max
    kind = np.float32 if dtype == torch.float32 else np.float64
    for low, high in ((-large, large), (large, large)):
        space = Box(low, high, (2,), kind)
        with pytest.raises(
            ParameterError, match="SAC needs finite bounds on every action: wrap the environment"
        ):
            RRDModule(OBSERVATION, space)
    assert RRDModule(OBSERVATION, Box(-large / 2, large / 2, (2,), kind)).model_spaces[1] == Box(-1, 1, (2,))
