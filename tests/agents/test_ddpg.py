"""DDPG against TorchRL's DDPGLoss, and the decay of its critic's weights."""

from __future__ import annotations

import pytest
import torch
from gymnasium.spaces import Discrete
from tensordict.nn import TensorDictModule
from torchrl.modules import ValueOperator
from torchrl.objectives import DDPGLoss, SoftUpdate

from rrd_lightning import ParameterError
from rrd_lightning.agents import DDPG
from tests.agents.reference import (
    ACTION,
    BATCH,
    OBSERVATION,
    TOLERANCE,
    Perceptron,
    as_torchrl,
    copy_of,
    copy_values,
    linear,
    make_transitions,
    parameter_of,
)
from tests.agents.test_td3 import Tanh, disturb
from tests.updates import check_groups


def make_reference(agent: DDPG) -> DDPGLoss:
    """TorchRL's loss, with copies of the agent's weights."""
    actor = Tanh(copy_of(agent.actor, 5, 400, 300, 3))
    loss = DDPGLoss(
        TensorDictModule(actor, in_keys=["observation"], out_keys=["action"]),
        ValueOperator(Perceptron(8, 400, 300, 1), in_keys=["observation", "action"]),
        delay_actor=True,
    )
    loss.make_value_estimator(gamma=agent.gamma)
    SoftUpdate(loss, tau=0.001)  # TorchRL warns of targets that nothing updates
    copy_values(agent.target_actor, loss.target_actor_network_params)
    for name, critic in (("value", agent.critic), ("target_value", agent.target_critic)):
        for index, layer in enumerate(linear(critic)):
            parameters = getattr(loss, f"{name}_network_params")
            parameter_of(parameters, index, "weight").data.copy_(layer.weight.data[0].T)
            parameter_of(parameters, index, "bias").data.copy_(layer.bias.data[0, 0])
    return loss


def test_losses_and_gradients_equal_those_of_torchrl() -> None:
    agent = DDPG(OBSERVATION, ACTION, gamma=0.95)
    disturb(agent.target_actor, agent.target_critic)
    transitions, reward = make_transitions(), torch.randn(BATCH)
    reference = make_reference(agent)
    expected = reference(as_torchrl(transitions, reward))
    (expected["loss_value"] + expected["loss_actor"]).backward()
    found = agent.losses(transitions, reward)
    found.backward()
    metrics = found.logged()
    torch.testing.assert_close(metrics["loss/critic"], expected["loss_value"].detach(), **TOLERANCE)
    torch.testing.assert_close(metrics["loss/actor"], expected["loss_actor"].detach(), **TOLERANCE)
    for network, name in ((agent.actor, "actor"), (agent.critic, "value")):
        parameters = getattr(reference, f"{name}_network_params")
        for index, layer in enumerate(linear(network)):
            expected_weight = parameter_of(parameters, index, "weight").grad.T
            torch.testing.assert_close(
                layer.weight.grad.reshape(expected_weight.shape), expected_weight, **TOLERANCE
            )


def test_every_update_moves_everything_without_noise() -> None:
    agent = DDPG(OBSERVATION, ACTION)
    check_groups(agent, agent.losses(make_transitions(), torch.randn(BATCH)))
    assert agent.phase(0) == agent.phase(1)
    action = torch.rand(4, 3)
    assert torch.equal(agent.smoothed(action), action)
    target = next(agent.target_actor.parameters())
    before = target.clone()
    disturb(agent.actor)
    agent.after_update(1)
    torch.testing.assert_close(target, before.lerp(next(agent.actor.parameters()), 0.001))


def test_the_weights_of_the_critic_decay_and_the_actor_s_do_not() -> None:
    """By hand: without another gradient, Adam sees 0.01 times the weights, and makes steps of its rate."""
    agent = DDPG(OBSERVATION, ACTION)
    optimizer = torch.optim.Adam(agent.parameter_groups(), fused=True)
    weights = [next(network.parameters()) for network in (agent.actor, agent.critic)]
    before = [weight.detach().clone() for weight in weights]
    for parameter in agent.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(weights[0], before[0])
    large = before[1].abs() > 1e-2
    torch.testing.assert_close(weights[1][large], (before[1] - 1e-3 * before[1].sign())[large])


def test_numbers_and_spaces_that_cannot_be() -> None:
    with pytest.raises(ParameterError, match=r"action_space=Discrete\(4\): DDPG serves continuous vectors"):
        DDPG(OBSERVATION, Discrete(4))
    with pytest.raises(ParameterError, match=r"critic_weight_decay=-1.0: must not be negative"):
        DDPG(OBSERVATION, ACTION, critic_weight_decay=-1.0)
