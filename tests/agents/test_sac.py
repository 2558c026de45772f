"""SAC against TorchRL's SACLoss, by hand, and for what each loss may reach."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from tensordict.nn import InteractionType, TensorDictModule
from torch import Tensor, nn
from torch.nn import functional
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import SACLoss, SoftUpdate

from rrd_lightning import ParameterError, keys
from rrd_lightning.agents import SAC
from rrd_lightning.agents.squashed import SquashedDraw
from rrd_lightning.networks import MLP

OBSERVATION, ACTION = Box(-torch.inf, torch.inf, (5,)), Box(-1, 1, (3,))
BATCH = 64


def make_transitions() -> TensorDict:
    return TensorDict(
        {
            keys.OBSERVATION: torch.randn(BATCH, 5),
            keys.NEXT_OBSERVATION: torch.randn(BATCH, 5),
            keys.ACTION: torch.rand(BATCH, 3) * 2 - 1,
            keys.TERMINATED: torch.rand(BATCH) < 0.3,
            keys.DONE: torch.rand(BATCH) < 0.5,
        },
        [BATCH],
    )


class Policy(nn.Module):
    def __init__(self, actor: nn.Module) -> None:
        super().__init__()
        self.actor = actor

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(observation).chunk(2, -1)
        return mean, log_std.clamp(-20, 2).exp()


class Perceptron(nn.Module):
    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*size) for size in pairwise(sizes))

    def forward(self, *inputs: Tensor) -> Tensor:
        hidden = torch.cat(inputs, -1)
        for layer in self.layers[:-1]:
            hidden = functional.relu(layer(hidden))
        return self.layers[-1](hidden)


def copy_of(network: MLP) -> Perceptron:
    """The same perceptron of torch's own layers."""
    copied = Perceptron(*network.sizes)
    for linear, layer in zip(copied.layers, network.layers(), strict=True):
        linear.weight.data.copy_(layer.weight.T)
        linear.bias.data.copy_(layer.bias)
    return copied


def make_reference(agent: SAC) -> SACLoss:
    """TorchRL's loss, with copies of the agent's weights."""
    policy = TensorDictModule(Policy(copy_of(agent.actor)), in_keys=["observation"], out_keys=["loc", "scale"])
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
        parameters = getattr(loss, f"{name}_network_params")
        for index, (weight, bias) in enumerate(critic.layers()):
            parameters["module", "layers", str(index), "weight"].data.copy_(weight.data.transpose(1, 2))
            parameters["module", "layers", str(index), "bias"].data.copy_(bias.data.squeeze(1))
    return loss


def test_losses_and_gradients_equal_those_of_torchrl() -> None:
    agent = SAC(OBSERVATION, ACTION, initial_temperature=0.3, gamma=0.95)
    with torch.no_grad():
        for parameter in agent.target_critic.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
        agent.log_temperature.fill_(math.log(0.3))
    transitions, reward = make_transitions(), torch.randn(BATCH)
    reference = make_reference(agent)
    data = TensorDict(
        {
            "observation": transitions[keys.OBSERVATION],
            "action": transitions[keys.ACTION],
            "next": {
                "observation": transitions[keys.NEXT_OBSERVATION],
                "reward": reward[:, None],
                "terminated": transitions[keys.TERMINATED][:, None],
                "done": transitions[keys.TERMINATED][:, None],
            },
        },
        [BATCH],
    )
    torch.manual_seed(7)
    expected = reference(data)
    (expected["loss_qvalue"] + expected["loss_actor"] + expected["loss_alpha"]).backward()
    torch.manual_seed(7)
    metrics = agent.learn(transitions, reward)()

    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(metrics["loss/critic"], expected["loss_qvalue"].detach(), **tolerance)
    torch.testing.assert_close(metrics["loss/actor"], expected["loss_actor"].detach(), **tolerance)
    torch.testing.assert_close(metrics["loss/temperature"], expected["loss_alpha"].detach(), **tolerance)
    torch.testing.assert_close(agent.log_temperature.grad, reference.log_alpha.grad, **tolerance)
    critic = reference.qvalue_network_params
    for index, (weight, bias) in enumerate(agent.critic.layers(agent.critic.vector.grad)):
        expected_weight = critic["module", "layers", str(index), "weight"].grad.transpose(1, 2)
        torch.testing.assert_close(weight, expected_weight, **tolerance)
        expected_bias = critic["module", "layers", str(index), "bias"].grad
        torch.testing.assert_close(bias.squeeze(1), expected_bias, **tolerance)
    actor = reference.actor_network_params.flatten_keys(".")
    for index, (weight, bias) in enumerate(agent.actor.layers(agent.actor.vector.grad)):
        for name, found in (("weight", weight.T), ("bias", bias)):
            matching = [key for key in actor.keys() if key.endswith(f"layers.{index}.{name}")]  # noqa: SIM118
            assert len(matching) == 1
            torch.testing.assert_close(found, actor[matching[0]].grad, **tolerance)


def test_time_limits_bootstrap_and_terminations_do_not() -> None:
    """The reward alone is the target where the task ended; `done` alone changes nothing."""
    agent = SAC(OBSERVATION, ACTION, gamma=0.9)
    transitions, reward = make_transitions(), torch.randn(BATCH)
    transitions[keys.TERMINATED] = torch.ones(BATCH, dtype=torch.bool)
    metrics = agent.learn(transitions, reward)()
    inputs = torch.cat([transitions[keys.OBSERVATION], transitions[keys.ACTION]], -1)
    errors = agent.critic(inputs).squeeze(-1) - reward
    torch.testing.assert_close(metrics["loss/critic"], errors.square().mean(-1).sum().detach())
    transitions[keys.TERMINATED] = torch.zeros(BATCH, dtype=torch.bool)
    values = []
    for done in (True, False):
        transitions[keys.DONE] = torch.full((BATCH,), done)
        torch.manual_seed(1)
        values.append(agent.learn(transitions, reward)()["loss/critic"])
    assert values[0] == values[1]


def test_log_density_of_squashed_actions_integrates_to_one() -> None:
    """By hand: the density of tanh(u) over (-1, 1), for μ = 0.4 and σ = 0.7."""
    draw = SquashedDraw(torch.tensor([0.4, math.log(0.7)]).expand(200_000, 2), torch.randn(200_000, 1))
    # E[1 / p(a)] over a ~ p is the length of the interval, here between -0.9 and 0.9.
    inside = draw.action.abs().squeeze(-1) < 0.9
    length = ((-draw.log_prob).exp() * inside).mean().item()
    assert length == pytest.approx(1.8, abs=0.02)


@given(st.integers(0, 10_000))
def test_the_policy_s_gradient_is_autograd_s(seed: int) -> None:
    """At log σ within its bounds, at them and beyond, and where tanh(u) rounds to 1."""
    torch.manual_seed(seed)
    outputs = torch.randn(6, 8, dtype=torch.float64) * 20
    outputs[0, 4:] = torch.tensor([-20.0, 2.0, -21.0, 3.0])
    outputs.requires_grad_()
    noise, weight = torch.randn(2, 6, 4, dtype=torch.float64)
    draw = SquashedDraw(outputs, noise)
    (expected,) = torch.autograd.grad((draw.action * weight).sum() + 0.3 * draw.log_prob.sum(), outputs)
    found = SquashedDraw(outputs.detach(), noise).gradient(weight, torch.tensor(0.3).double())
    torch.testing.assert_close(found, expected)


def test_targets_move_by_a_share() -> None:
    agent = SAC(OBSERVATION, ACTION, polyak=0.9)
    before = [parameter.clone() for parameter in agent.target_critic.parameters()]
    with torch.no_grad():
        for parameter in agent.critic.parameters():
            parameter.add_(1.0)
    agent.update_targets()
    for old, new in zip(before, agent.target_critic.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)


def test_twin_critics_are_two_independent_perceptrons() -> None:
    critic = SAC(OBSERVATION, ACTION).critic
    inputs = torch.randn(10, 8)
    for member in range(2):
        hidden = inputs
        for index in range(3):
            layer = critic.layers()[index]
            hidden = hidden @ layer.weight[member] + layer.bias[member]
            hidden = hidden.relu() if index < 2 else hidden
        torch.testing.assert_close(critic(inputs)[member], hidden)
    assert not torch.equal(*critic.layers()[0].weight)


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
        ((Box(0, 255, (5,), "uint8"), ACTION), "observation_space=Box.*floating numbers"),
        ((Discrete(4), ACTION), r"observation_space=Discrete\(4\): SAC serves vectors of floating"),
        ((Dict({"a": OBSERVATION, "b": Discrete(2)}), ACTION), "observation_space=Dict.*SAC serves vectors"),
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
