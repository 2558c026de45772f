"""DQN against TorchRL's DQNLoss, by hand: double, dueling, the schedules of exploration and copies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from tensordict import TensorDict
from torch import nn
from torchrl.modules import QValueActor
from torchrl.objectives import DQNLoss, HardUpdate

from rrd_lightning import ParameterError, keys
from rrd_lightning.agents import DQN
from rrd_lightning.agents.dqn import double_value, dueling_values, value_loss
from tests.agents.reference import (
    ACTION,
    BATCH,
    OBSERVATION,
    TOLERANCE,
    Perceptron,
    as_torchrl,
    copy_values,
    make_transitions,
    same_gradients,
)
from tests.agents.test_td3 import disturb
from tests.updates import check_groups

CHOICES = Discrete(4, start=-2)
IMAGE = Box(0, 255, (3, 36, 36), np.uint8)


def make_choices() -> TensorDict:
    transitions = make_transitions()
    transitions[keys.ACTION] = torch.randint(-2, 2, (BATCH,))
    return transitions


def make_reference(agent: DQN) -> DQNLoss:
    """TorchRL's loss, with copies of the agent's weights."""
    network = QValueActor(Perceptron(5, 256, 256, 4), in_keys=["observation"], action_space="categorical")
    loss = DQNLoss(
        network,
        loss_function="smooth_l1",
        delay_value=True,
        double_dqn=agent.double_q,
        action_space="categorical",
    )
    loss.make_value_estimator(gamma=agent.gamma)
    HardUpdate(loss, value_network_update_interval=8000)  # TorchRL warns of targets that nothing updates
    copy_values(agent.network.actions, loss.value_network_params)
    copy_values(agent.target_network.actions, loss.target_value_network_params)
    return loss


@pytest.mark.parametrize("double", [False, True])
def test_losses_and_gradients_equal_those_of_torchrl(double: bool) -> None:
    agent = DQN(OBSERVATION, CHOICES, gamma=0.95, double=double)
    disturb(agent.target_network)
    transitions, reward = make_choices(), 2 * torch.randn(BATCH)
    reference = make_reference(agent)
    data = as_torchrl(transitions, reward)
    data["action"] = data["action"] + 2
    expected = reference(data)["loss"]
    expected.backward()
    found = agent.losses(transitions, reward)
    found.backward()
    torch.testing.assert_close(found.losses["value"], expected, **TOLERANCE)
    same_gradients(agent.network.actions, reference.value_network_params)


def test_losses_and_values_by_hand() -> None:
    # Errors of 0.5 and 3: 0.5² / 2, and 3 - 1 / 2.
    assert value_loss(torch.tensor([0.5, 3.0]), torch.zeros(2)).item() == pytest.approx((0.125 + 2.5) / 2)
    values, target_values = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[10.0, 20.0, 30.0]])
    assert double_value(values, target_values).tolist() == [20.0]
    assert dueling_values(torch.tensor([[5.0]]), values).tolist() == [[4.0, 6.0, 5.0]]


def test_targets_by_hand() -> None:
    """Of networks that give the same values everywhere."""
    transitions, reward = make_choices(), torch.full((BATCH,), 0.5)
    transitions[keys.TERMINATED] = torch.arange(BATCH) < 1
    for double, following in ((False, 30.0), (True, 20.0)):
        agent = DQN(OBSERVATION, CHOICES, gamma=0.5, double=double, hidden_sizes=())
        for network, values in (
            (agent.network, [1.0, 3.0, 2.0, 0.0]),
            (agent.target_network, [10.0, 20.0, 30.0, 0.0]),
        ):
            constant(network.actions, values)
        target = agent.target(transitions, reward)
        assert target[0] == 0.5
        assert (target[1:] == 0.5 + 0.5 * following).all()


def constant(head: nn.Module, values: list[float]) -> None:
    with torch.no_grad():
        head.layers[-1].weight.zero_()
        head.layers[-1].bias.copy_(torch.tensor(values))


def test_dueling_values_are_of_two_streams() -> None:
    agent = DQN(OBSERVATION, CHOICES, dueling=True)
    constant(agent.network.actions, [1.0, 2.0, 3.0, 6.0])
    constant(agent.network.state, [10.0])
    assert agent.network(torch.randn(2, 5)).tolist() == 2 * [[8.0, 9.0, 10.0, 13.0]]
    assert agent.network.state is not agent.network.actions
    assert DQN(OBSERVATION, CHOICES).network.state is None


def test_images_go_through_the_network_of_the_paper() -> None:
    network = DQN(Box(0, 255, (84, 84, 4), np.uint8), Discrete(6)).network
    shapes = [tuple(each.shape) for each in network.parameters() if each.dim() > 1]
    assert shapes == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136), (512, 6)]
    mixed = DQN(Dict({"image": IMAGE, "vector": OBSERVATION}), CHOICES, hidden_sizes=(7,)).network
    assert mixed.actions.layers[0].weight.shape == (517, 7)


def test_exploration_falls_in_even_steps() -> None:
    agent = DQN(OBSERVATION, CHOICES, exploration_steps=100)
    assert [agent.epsilon(steps) for steps in (0, 50, 100, 10**6)] == pytest.approx([1, 0.505, 0.01, 0.01])
    constant(agent.network.actions, [0.0, 0.0, 1.0, 0.0])
    observation = torch.randn(20_000, 5)
    for steps, explore, epsilon in ((0, True, 1.0), (50, True, 0.505), (0, False, 0.001)):
        actions = agent.act(observation, explore=explore, env_steps=steps)
        assert actions.unique().tolist() == [-2, -1, 0, 1]
        other = (actions != 0).float().mean().item()
        assert other == pytest.approx(0.75 * epsilon, abs=0.01 if explore else 0.0006)
    still = DQN(OBSERVATION, CHOICES, evaluation_epsilon=0.0)
    constant(still.network.actions, [0.0, 0.0, 0.0, 1.0])
    assert (still.act(observation, explore=False) == 1).all()


def test_the_ends_of_exploration_and_adam_s_epsilon_are_options() -> None:
    agent = DQN(
        OBSERVATION, CHOICES, exploration_steps=100, first_epsilon=0.5, last_epsilon=0.1, adam_epsilon=0.2
    )
    assert [agent.epsilon(steps) for steps in (0, 50, 100)] == pytest.approx([0.5, 0.3, 0.1])
    (group,) = agent.parameter_groups()
    assert group["eps"] == 0.2


def test_dropout_and_layer_norm_are_of_hidden_layers() -> None:
    agent = DQN(OBSERVATION, CHOICES, dropout=0.5, layer_norm=True)
    observation = torch.randn(64, 5)
    assert not torch.equal(agent.network(observation), agent.network(observation))
    agent.eval()
    assert torch.equal(agent.network(observation), agent.network(observation))
    for option in ({"dropout": 0.5}, {"layer_norm": True}):
        with pytest.raises(ParameterError, match="is of hidden layers, and there are none: set hidden_sizes"):
            DQN(IMAGE, CHOICES, **option)
        DQN(IMAGE, CHOICES, **option, hidden_sizes=(8,))


def test_the_network_is_copied_every_so_many_updates() -> None:
    agent = DQN(OBSERVATION, CHOICES, target_update=3)
    for updates in range(1, 8):
        before = [each.clone() for each in agent.target_network.parameters()]
        disturb(agent.network)
        assert agent.phase(updates - 1) is (updates in (3, 6))
        agent.after_update(updates)
        source = agent.network.parameters() if updates in (3, 6) else before
        for target, expected in zip(agent.target_network.parameters(), source, strict=True):
            assert torch.equal(target, expected)


def test_the_loss_reaches_the_network_and_nothing_else() -> None:
    for dueling in (False, True):
        agent = DQN(IMAGE, CHOICES, dueling=dueling, random_shift=2, layer_norm=True, hidden_sizes=(8,))
        transitions = make_choices()
        for key in (keys.OBSERVATION, keys.NEXT_OBSERVATION):
            transitions[key] = torch.randint(256, (BATCH, 3, 36, 36), dtype=torch.uint8)
        check_groups(agent, agent.losses(transitions, torch.randn(BATCH)))
    (group,) = agent.parameter_groups()
    optimizer = torch.optim.Adam([group], fused=True)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["eps"]) == (6.25e-5, 1.5e-4)


class Wide(nn.Linear):
    """A user's, with an argument of its own."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)


def test_a_user_s_network_has_the_values_of_all_actions() -> None:
    given = {"class_path": f"{__name__}.Wide", "init_args": {"bias": False}}
    agent = DQN(OBSERVATION, CHOICES, network=given, dueling=True)
    assert [tuple(each.shape) for each in agent.network.parameters()] == [(4, 5), (1, 5)]
    with pytest.raises(ParameterError, match=r"network='torch.nn.Identity': must map .* to .*, and maps it to"):
        DQN(OBSERVATION, CHOICES, network="torch.nn.Identity")


def test_numbers_and_spaces_that_cannot_be() -> None:
    with pytest.raises(ParameterError, match=r"action_space=Box.*: DQN serves Discrete; SAC, TD3 and DDPG"):
        DQN(OBSERVATION, ACTION)
    for options, message in (
        ({"target_update": 0}, "target_update=0: must be greater than zero"),
        ({"exploration_steps": 0}, "exploration_steps=0: must be greater than zero"),
        ({"evaluation_epsilon": 1.5}, "evaluation_epsilon=1.5: must be between 0 and 1"),
        ({"last_epsilon": -1.0}, "last_epsilon=-1.0: must be between 0 and 1"),
        ({"gamma": -0.1}, "gamma=-0.1: must be between 0 and 1"),
    ):
        with pytest.raises(ParameterError, match=message):
            DQN(OBSERVATION, CHOICES, **options)
