"""What every agent with an actor has as options: its numbers by hand, or against the agent without it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gymnasium.spaces import Box, Discrete
from tensordict import TensorDict

from rrd_lightning import ParameterError, keys
from rrd_lightning.agents import DDPG, DQN, SAC, TD3, ActorCritic, DiscreteSAC
from rrd_lightning.agents.actor_critic import cloning_metrics
from rrd_lightning.losses import Losses

OBSERVATION, ACTION, CHOICES = Box(-1, 1, (3,)), Box(-1, 1, (2,)), Discrete(4, start=2)
AGENTS: dict[type[ActorCritic], Any] = {SAC: ACTION, TD3: ACTION, DDPG: ACTION, DiscreteSAC: CHOICES}
ROWS = 6


def make(kind: type[Any], **options: Any) -> Any:
    """The same weights whatever the options."""
    torch.manual_seed(0)
    return kind(OBSERVATION, AGENTS.get(kind, CHOICES), hidden_sizes=(8,), **options)


def transitions(kind: type[Any]) -> TensorDict:
    """Of the six rows the first three are demonstrations: a success, a failure, and one of unknown success."""
    torch.manual_seed(1)
    discrete = AGENTS.get(kind, CHOICES) is CHOICES
    action = torch.randint(2, 6, (ROWS,)) if discrete else 2 * torch.rand(ROWS, 2) - 1
    batch = {
        keys.OBSERVATION: torch.randn(ROWS, 3),
        keys.NEXT_OBSERVATION: torch.randn(ROWS, 3),
        keys.ACTION: action,
        keys.TERMINATED: torch.tensor([True] + [False] * (ROWS - 1)),
        keys.DEMONSTRATION: torch.arange(ROWS) < 3,
        keys.SUCCESS: torch.tensor([1, 0, -1] * 2, dtype=torch.int8),
    }
    return TensorDict(batch, [ROWS])


def losses(agent: Any, reward: float = 1.0, updates: int = 1) -> Losses:
    torch.manual_seed(2)
    return agent.losses(transitions(type(agent)), torch.full((ROWS,), reward), updates)


@pytest.mark.parametrize("kind", [*AGENTS, DQN])
def test_the_reward_is_scaled(kind: type[Any]) -> None:
    scaled, plain = losses(make(kind, reward_scale=10)), losses(make(kind), reward=10.0)
    for name, loss in plain.losses.items():
        torch.testing.assert_close(scaled.losses[name], loss)
    assert scaled.losses.keys() == plain.losses.keys()
    with pytest.raises(ParameterError, match="reward_scale=0"):
        make(kind, reward_scale=0)


@pytest.mark.parametrize("kind", AGENTS)
def test_the_actor_s_loss_is_divided_by_the_mean_absolute_value(kind: type[Any]) -> None:
    agent = make(kind, normalize_value=True)
    plain = losses(make(kind))
    seen = []
    combine = agent.combine
    agent.combine = lambda values: seen.append(combine(values)) or seen[-1]
    found = losses(agent)
    (value,) = seen
    torch.testing.assert_close(found.losses["actor"], plain.losses["actor"] / value.abs().mean())
    torch.testing.assert_close(found.losses["critic"], plain.losses["critic"])
    # The divisor has no gradient.
    found.losses["actor"].backward()
    reference = make(kind)
    (losses(reference).losses["actor"] / value.detach().abs().mean()).backward()
    for own, other in zip(agent.actor.parameters(), reference.actor.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


@pytest.mark.parametrize("kind", [SAC, DiscreteSAC])
def test_entropy_is_left_out_of_the_target(kind: type[Any]) -> None:
    """What is left out is γ (1 − terminated) α log π."""
    batch, reward = transitions(kind), torch.zeros(ROWS)
    temperature = torch.tensor(0.5)
    targets = []
    for soft in (True, False):
        agent = make(kind, gamma=0.9, entropy_in_target=soft)
        torch.manual_seed(2)
        targets.append(agent.target(batch, reward, temperature))
    torch.manual_seed(2)
    following = batch[keys.NEXT_OBSERVATION]
    if kind is SAC:
        _, entropy = agent.policy(following).sample_with_log_prob()
    else:
        log_prob = agent.log_policy(following)
        entropy = (log_prob.exp() * log_prob).sum(-1)
    left_out = (0.9 * 0.5 * entropy).masked_fill(batch[keys.TERMINATED], 0)
    torch.testing.assert_close(targets[0], targets[1] - left_out)
    assert left_out.abs().max() > 0.1


@pytest.mark.parametrize("kind", [SAC, DiscreteSAC])
def test_the_policy_has_an_update_in_every_third_of_the_critics(kind: type[Any]) -> None:
    agent = make(kind, policy_delay=3)
    for updates in range(7):
        trains = updates % 3 == 2
        assert losses(agent, updates=updates).losses.keys() == (
            {"critic", "actor", "temperature"} if trains else {"critic"}
        )
        assert agent.phase(updates) is trains
    with pytest.raises(ParameterError, match="policy_delay=0"):
        make(kind, policy_delay=0)


@pytest.mark.parametrize("kind", AGENTS)
def test_cloning_by_hand(kind: type[Any]) -> None:
    """Of the rows 0 and 2: the demonstrations but for the failure."""
    agent, batch = make(kind, cloning_weight=0.5), transitions(kind)
    policy, action = agent.actor(batch[keys.OBSERVATION]), batch[keys.ACTION]
    if kind is DiscreteSAC:
        errors = [-policy[row].log_softmax(-1)[int(action[row]) - 2] for row in (0, 2)]
    else:
        errors = [(policy[row, :2].tanh() - action[row]).square().mean() for row in (0, 2)]
    found = agent.cloning(batch)
    torch.testing.assert_close(found.losses["cloning"], 0.5 * (errors[0] + errors[1]) / 2)
    assert found.metrics["agent/cloning_weight"] == 0.5
    assert found.logged().keys() == cloning_metrics("").keys() <= kind.metrics.keys()
    assert "cloning" in agent.loss_names()
    found.losses["cloning"].backward()
    reached = {id(each) for each in agent.parameters() if each.grad is not None}
    assert reached == {id(each) for each in agent.actor.parameters()}
    batch[keys.DEMONSTRATION] = torch.zeros(ROWS, dtype=torch.bool)
    assert agent.cloning(batch).losses["cloning"] == 0


@pytest.mark.parametrize("kind", AGENTS)
def test_the_weight_of_cloning_falls(kind: type[Any]) -> None:
    agent, batch = make(kind, cloning_weight=2.0, cloning_steps=1000), transitions(kind)
    first = agent.cloning(batch).losses["cloning"]
    for env_steps, share in ((0, 1), (250, 0.75), (999, 0.001)):
        agent.begin(env_steps)
        torch.testing.assert_close(agent.cloning(batch).losses["cloning"], share * first)
    for env_steps in (1000, 5000):
        agent.begin(env_steps)
        assert agent.cloning(batch) == Losses()
    constant = make(kind, cloning_weight=2.0)
    constant.begin(10**6)
    torch.testing.assert_close(constant.cloning(batch).losses["cloning"], first)
    assert make(kind).cloning(batch) == Losses()
    assert "cloning" not in make(kind).loss_names()
    # Nothing of it is in a checkpoint: the environment steps are.
    assert agent.state_dict().keys() == make(kind).state_dict().keys()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SAC, {"cloning_weight": -1.0}, "cloning_weight=-1.0: must not be negative"),
        (SAC, {"cloning_steps": 5}, "cloning_steps=5: needs a cloning_weight"),
        (TD3, {"cloning_weight": 1.0, "cloning_steps": 0}, "cloning_steps=0: must be greater than zero"),
    ],
)
def test_senseless_options(kind: type[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make(kind, **options)


class NoImitator(SAC):
    cloning_error = ActorCritic.cloning_error


def test_an_agent_that_cannot_imitate() -> None:
    with pytest.raises(ParameterError, match="NoImitator has no cloning_error"):
        NoImitator(OBSERVATION, ACTION, cloning_weight=1.0)
