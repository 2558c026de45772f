"""DiscreteSAC against TorchRL's DiscreteSACLoss, by hand, and for what each loss may reach."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch.distributions import Categorical
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import DiscreteSACLoss, SoftUpdate

from rrd_lightning import ParameterError, keys
from rrd_lightning.agents import DiscreteSAC
from rrd_lightning.agents.discrete_sac import actor_loss, expectation, soft_value
from tests.agents.reference import (
    ACTION,
    BATCH,
    OBSERVATION,
    TOLERANCE,
    Perceptron,
    as_torchrl,
    copy_of,
    copy_values,
    make_transitions,
    same_gradients,
)
from tests.agents.test_td3 import disturb
from tests.updates import check_groups

CHOICES = Discrete(4, start=-2)


def make_choices() -> TensorDict:
    transitions = make_transitions()
    transitions[keys.ACTION] = torch.randint(-2, 2, (BATCH,))
    return transitions


def make_reference(agent: DiscreteSAC) -> DiscreteSACLoss:
    """TorchRL's loss, with copies of the agent's weights."""
    logits = TensorDictModule(
        copy_of(agent.actor, 5, 256, 256, 4), in_keys=["observation"], out_keys=["logits"]
    )
    loss = DiscreteSACLoss(
        ProbabilisticActor(logits, in_keys=["logits"], distribution_class=Categorical),
        TensorDictModule(Perceptron(5, 256, 256, 4), in_keys=["observation"], out_keys=["action_value"]),
        action_space="categorical",
        num_actions=4,
        num_qvalue_nets=2,
        loss_function="l2",
        alpha_init=agent.log_temperature.exp().item(),
    )
    loss.make_value_estimator(gamma=agent.gamma)
    SoftUpdate(loss, tau=0.005)  # TorchRL warns of targets that nothing updates
    for name, critic in (("qvalue", agent.critic), ("target_qvalue", agent.target_critic)):
        copy_values(critic, getattr(loss, f"{name}_network_params"))
    return loss


def test_losses_and_gradients_equal_those_of_torchrl() -> None:
    agent = DiscreteSAC(OBSERVATION, CHOICES, gamma=0.95, initial_temperature=0.3)
    disturb(agent.target_critic)
    transitions, reward = make_choices(), torch.randn(BATCH)
    reference = make_reference(agent)
    assert reference.target_entropy.item() == pytest.approx(agent.target_entropy)
    data = as_torchrl(transitions, reward)
    data["action"] = data["action"] + 2
    expected = reference(data)
    (expected["loss_qvalue"] + expected["loss_actor"] + expected["loss_alpha"]).backward()
    found = agent.losses(transitions, reward)
    found.backward()
    metrics = found.logged()
    for name, theirs in (
        ("loss/critic", "loss_qvalue"),
        ("loss/actor", "loss_actor"),
        ("loss/temperature", "loss_alpha"),
        ("agent/entropy", "entropy"),
    ):
        torch.testing.assert_close(metrics[name], expected[theirs].detach(), **TOLERANCE)
    torch.testing.assert_close(agent.log_temperature.grad, reference.log_alpha.grad, **TOLERANCE)
    same_gradients(agent.critic, reference.qvalue_network_params)
    same_gradients(agent.actor, reference.actor_network_params)


def test_losses_by_hand() -> None:
    """Of a policy with probabilities 1/4 and 3/4, values 2 and 6, and α = 1/2."""
    log_prob, values = torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[2.0, 6.0]])
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert expectation(log_prob, values).item() == pytest.approx(5.0)
    assert soft_value(torch.tensor(0.5), log_prob, values).item() == pytest.approx(5 + 0.5 * entropy)
    assert actor_loss(torch.tensor(0.5), log_prob, values).item() == pytest.approx(-5 - 0.5 * entropy)
    assert DiscreteSAC(OBSERVATION, CHOICES).target_entropy == pytest.approx(0.98 * math.log(4))
    assert DiscreteSAC(OBSERVATION, CHOICES, target_entropy=0.1).target_entropy == 0.1


def test_critics_are_combined_for_each_action() -> None:
    agent = DiscreteSAC(OBSERVATION, CHOICES, num_critics=3, critics_in_target=2)
    values = torch.tensor([[[0.0, 9.0]], [[5.0, 5.0]], [[7.0, 1.0]]])
    assert agent.combine(values).tolist() == [[0.0, 1.0]]
    found = {tuple(agent.pessimistic(values)[0].tolist()) for _ in range(100)}
    assert found == {(0.0, 5.0), (0.0, 1.0), (5.0, 1.0)}


def test_each_loss_reaches_the_parameters_of_its_own_group_only() -> None:
    for space in (OBSERVATION, Box(0, 255, (3, 36, 36), np.uint8)):
        options = {"num_critics": 3, "critics_in_target": 2, "layer_norm": True, "dropout": 0.1}
        agent = DiscreteSAC(space, CHOICES, random_shift=0 if space is OBSERVATION else 2, **options)
        transitions = make_choices()
        if space is not OBSERVATION:
            for key in (keys.OBSERVATION, keys.NEXT_OBSERVATION):
                transitions[key] = torch.randint(256, (BATCH, 3, 36, 36), dtype=torch.uint8)
        check_groups(agent, agent.losses(transitions, torch.randn(BATCH)))


def test_actions_are_drawn_from_the_policy_or_are_its_mode() -> None:
    agent = DiscreteSAC(OBSERVATION, CHOICES)
    with torch.no_grad():
        agent.actor.layers[-1].weight.zero_()
        agent.actor.layers[-1].bias.copy_(torch.tensor([0.1, 0.2, 0.4, 0.3]).log())
    observation = torch.randn(50_000, 5)
    assert (agent.act(observation, explore=False) == 0).all()
    drawn = agent.act(observation, explore=True)
    shares = [(drawn == action).float().mean().item() for action in (-2, -1, 0, 1)]
    assert shares == pytest.approx([0.1, 0.2, 0.4, 0.3], abs=0.01)


def test_numbers_and_spaces_that_cannot_be() -> None:
    with pytest.raises(ParameterError, match=r"action_space=Box.*: DiscreteSAC serves Discrete; SAC, TD3"):
        DiscreteSAC(OBSERVATION, ACTION)
    with pytest.raises(ParameterError, match=r"initial_temperature=0.0: must be greater than zero"):
        DiscreteSAC(OBSERVATION, CHOICES, initial_temperature=0.0)
    with pytest.raises(ParameterError, match=r"critics_in_target=3: must be from 1 to num_critics=2"):
        DiscreteSAC(OBSERVATION, CHOICES, critics_in_target=3)
