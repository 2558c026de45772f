"""TD3 against TorchRL's TD3Loss, by hand, and for what each loss may reach."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.modules import ValueOperator
from torchrl.objectives import SoftUpdate, TD3Loss

from rrd_lightning import ParameterError, keys
from rrd_lightning.agents import TD3
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
from tests.updates import check_groups


class Tanh(nn.Module):
    def __init__(self, actor: nn.Module) -> None:
        super().__init__()
        self.actor = actor

    def forward(self, observation: Tensor) -> Tensor:
        return self.actor(observation).tanh()


def make_reference(agent: TD3) -> TD3Loss:
    """TorchRL's loss, with copies of the agent's weights."""
    actor = Tanh(copy_of(agent.actor, 5, 256, 256, 3))
    loss = TD3Loss(
        TensorDictModule(actor, in_keys=["observation"], out_keys=["action"]),
        ValueOperator(Perceptron(8, 256, 256, 1), in_keys=["observation", "action"]),
        bounds=(-1.0, 1.0),
        num_qvalue_nets=2,
        policy_noise=agent.target_noise,
        noise_clip=agent.target_noise_clip,
        loss_function="l2",
    )
    loss.make_value_estimator(gamma=agent.gamma)
    SoftUpdate(loss, tau=0.005)  # TorchRL warns of targets that nothing updates
    copy_values(agent.target_actor, loss.target_actor_network_params)
    for name, critic in (("qvalue", agent.critic), ("target_qvalue", agent.target_critic)):
        copy_values(critic, getattr(loss, f"{name}_network_params"))
    return loss


def disturb(*networks: nn.Module) -> None:
    """Let target networks differ from their sources."""
    with torch.no_grad():
        for network in networks:
            for parameter in network.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))


def test_losses_and_gradients_equal_those_of_torchrl() -> None:
    agent = TD3(OBSERVATION, ACTION, gamma=0.95, target_noise=0.4)
    disturb(agent.target_actor, agent.target_critic)
    transitions, reward = make_transitions(), torch.randn(BATCH)
    reference = make_reference(agent)
    torch.manual_seed(7)
    expected = reference(as_torchrl(transitions, reward))
    (expected["loss_qvalue"] + expected["loss_actor"]).backward()
    torch.manual_seed(7)
    found = agent.losses(transitions, reward, updates=1)
    found.backward()
    metrics = found.logged()
    torch.testing.assert_close(metrics["loss/critic"], expected["loss_qvalue"].detach(), **TOLERANCE)
    torch.testing.assert_close(metrics["loss/actor"], expected["loss_actor"].detach(), **TOLERANCE)
    same_gradients(agent.critic, reference.qvalue_network_params)
    same_gradients(agent.actor, reference.actor_network_params)


def test_the_noise_of_targets_is_clipped_and_so_are_their_actions() -> None:
    agent = TD3(OBSERVATION, ACTION, target_noise=0.4, target_noise_clip=0.5)
    noise = agent.smoothed(torch.zeros(100_000, 3))
    assert noise.abs().max() == 0.5
    # A normal variable is beyond 1.25 standard deviations with a probability of 0.2113.
    assert (noise.abs() == 0.5).float().mean().item() == pytest.approx(0.2113, abs=0.005)
    assert noise[noise.abs() < 0.1].shape[0] / 300_000 == pytest.approx(0.1974, abs=0.005)
    near = agent.smoothed(torch.full((1000, 3), 0.9))
    assert near.max() == 1
    assert near.min() == pytest.approx(0.4)
    still = TD3(OBSERVATION, ACTION, target_noise=0.0)
    assert torch.equal(still.smoothed(near), near)


def test_the_actor_is_delayed_and_so_are_all_targets() -> None:
    """By a delay of 3: in the third, sixth, … update."""
    agent = TD3(OBSERVATION, ACTION, policy_delay=3, polyak=0.9)
    transitions, reward = make_transitions(), torch.randn(BATCH)
    for updates in range(7):
        trains = updates in (2, 5)
        assert ("actor" in agent.losses(transitions, reward, updates).losses) is trains
        assert agent.phase(updates) is trains
        targets, sources = pairs(agent)
        before = [target.clone() for target in targets]
        disturb(agent.actor, agent.critic)
        agent.after_update(updates + 1)
        for old, target, source in zip(before, targets, sources, strict=True):
            torch.testing.assert_close(target, old.lerp(source, 0.1) if trains else old)


def pairs(agent: TD3) -> tuple[list[Tensor], list[Tensor]]:
    """A weight of each target network, and that of its source."""
    networks = ((agent.target_actor, agent.target_critic), (agent.actor, agent.critic))
    targets, sources = ([next(network.parameters()) for network in each] for each in networks)
    return targets, sources


def test_an_update_without_the_actor_leaves_it_and_its_moments_alone() -> None:
    agent = TD3(OBSERVATION, ACTION)
    optimizer = torch.optim.Adam(agent.parameter_groups(), fused=True)
    weights = [next(network.parameters()) for network in (agent.actor, agent.critic)]
    for updates in range(4):
        before = [weight.clone() for weight in weights]
        optimizer.zero_grad()
        agent.losses(make_transitions(), torch.randn(BATCH), updates).backward()
        optimizer.step()
        moved = [not torch.equal(*pair) for pair in zip(before, weights, strict=True)]
        assert moved == [updates % 2 == 1, True]
    assert [optimizer.state[weight]["step"].item() for weight in weights] == [2, 4]


def test_each_loss_reaches_the_parameters_of_its_own_group_only() -> None:
    image = Dict({"image": Box(0, 255, (3, 36, 36), np.uint8), "vector": OBSERVATION})
    for space in (OBSERVATION, image):
        options = {"critics_in_target": 2, "layer_norm": True, "actor_value": "min"}
        agent = TD3(space, ACTION, num_critics=3, random_shift=0 if space is OBSERVATION else 2, **options)
        transitions = make_transitions()
        if space is image:
            for key in (keys.OBSERVATION, keys.NEXT_OBSERVATION):
                pixels = torch.randint(256, (BATCH, 3, 36, 36), dtype=torch.uint8)
                transitions[key] = TensorDict({"image": pixels, "vector": transitions[key]}, [BATCH])
        check_groups(agent, agent.losses(transitions, torch.randn(BATCH), updates=1))


def test_actions_explore_with_noise_or_do_not() -> None:
    agent = TD3(OBSERVATION, ACTION, exploration_noise=0.3)
    with torch.no_grad():
        agent.actor.layers[-1].weight.zero_()
    observation = torch.randn(20_000, 5)
    assert agent.act(observation, explore=False).abs().max() == 0
    noise = agent.act(observation, explore=True)
    assert noise.std().item() == pytest.approx(0.3, abs=0.01)
    assert noise.abs().max() == 1
    actor = agent.actor.layers[-1]
    actor.bias.data.fill_(0.5)
    torch.testing.assert_close(agent.act(observation, explore=False), torch.full((20_000, 3), 0.5).tanh())


def test_the_actor_listens_to_the_first_critic_unless_told_otherwise() -> None:
    values = torch.tensor([[2.0], [1.0], [6.0]])
    for actor_value, expected in (("first", 2.0), ("min", 1.0), ("mean", 3.0)):
        agent = TD3(OBSERVATION, ACTION, num_critics=3, actor_value=actor_value)
        assert agent.combine(values).item() == expected
    assert TD3(OBSERVATION, ACTION).actor_value == "first"


def test_numbers_and_spaces_that_cannot_be() -> None:
    with pytest.raises(
        ParameterError, match=r"action_space=Discrete\(4\): TD3 serves continuous.*; DQN and DiscreteSAC"
    ):
        TD3(OBSERVATION, Discrete(4))
    for options, message in (
        ({"policy_delay": 0}, "policy_delay=0: must be greater than zero"),
        ({"target_noise": -0.1}, "target_noise=-0.1: must not be negative"),
        ({"exploration_noise": -1.0}, "exploration_noise=-1.0: must not be negative"),
        ({"polyak": 1.5}, "polyak=1.5: must be between 0 and 1"),
    ):
        with pytest.raises(ParameterError, match=message):
            TD3(OBSERVATION, ACTION, **options)
