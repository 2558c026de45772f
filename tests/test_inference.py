"""A trained module in public: NumPy in, NumPy out, in the environment's own terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from tensordict import TensorDict

from rrd_lightning import Environment, RRDModule, keys
from rrd_lightning.agents import Agent
from rrd_lightning.losses import Losses
from tests.runs import make_module


class Constant(Agent):
    """Always the same action, in [-1, 1] or one of a choice; it remembers what it saw."""

    def __init__(self, observation_space: Any, action_space: Any, action: float = 0.5) -> None:
        super().__init__(observation_space, action_space)
        self.action_space, self.action = action_space, action
        self.seen: list[Any] = []

    def act(self, observation: Any, *, explore: bool, env_steps: int = 0) -> torch.Tensor:
        self.seen.append((observation, explore, env_steps))
        count = len(observation)
        if isinstance(self.action_space, Discrete):
            return torch.full((count,), int(self.action))
        return torch.full((count, *self.action_space.shape), self.action)

    def losses(self, transitions: Any, reward: Any, updates: int = 0) -> Losses:
        return Losses()


def test_actions_are_within_the_environment_s_own_bounds() -> None:
    """0.5 of [-1, 1] is 3 of [0, 4], and 6 of [-3, 9]."""
    space = Box(np.array([0.0, -3.0]), np.array([4.0, 9.0]), dtype=np.float64)
    observations = Box(-np.inf, np.inf, (3,), np.float64)
    module = RRDModule(observations, space, agent=Constant)
    action = module.predict(np.array([1.0, 2.0, 3.0]))
    assert action.tolist() == [3.0, 6.0]
    assert action.dtype == np.float64
    assert space.contains(action)
    module.env_steps = 7
    several = module.predict(np.ones((5, 3)), explore=True)
    assert several.tolist() == [[3.0, 6.0]] * 5
    seen, explore, env_steps = module.agent.seen[-1]
    assert (seen.dtype, tuple(seen.shape), explore, env_steps) == (torch.float32, (5, 3), True, 7)


def test_observations_by_name_and_actions_of_a_choice() -> None:
    space = Dict({"image": Box(0, 255, (3, 36, 36), np.uint8), "state": Box(-1, 1, (2,), np.float64)})
    module = RRDModule(space, Discrete(3, start=-1), agent=lambda *spaces: Constant(*spaces, action=1))
    one = space.sample()
    action = module.predict(one)
    assert action == 1
    assert Discrete(3, start=-1).contains(action)
    assert module.agent.seen[-1][0]["state"].dtype == torch.float32
    several = {key: np.stack([value] * 4) for key, value in one.items()}
    assert module.predict(several).tolist() == [1, 1, 1, 1]
    assert module.reward(one, -1, one).shape == ()
    assert module.reward(several, np.array([-1, 0, 1, 0]), several).shape == (4,)


def test_rewards_are_those_that_the_agent_is_trained_on() -> None:
    """Of the environment's actions, as of the replay's in [-1, 1]."""
    module = make_module(Environment("Bounded-v0"))
    steps = {key: torch.randn(6, 2) for key in (keys.OBSERVATION, keys.NEXT_OBSERVATION)}
    transitions = TensorDict({**steps, keys.ACTION: 2 * torch.rand(6, 2) - 1}, [6])
    observation, action, following = (
        transitions[key].numpy() for key in (keys.OBSERVATION, keys.ACTION, keys.NEXT_OBSERVATION)
    )
    low, high = module.action_space.low, module.action_space.high
    native = (low + high) / 2 + (high - low) / 2 * action
    expected = module.rewards(transitions).numpy()
    np.testing.assert_allclose(module.reward(observation, native, following), expected, rtol=1e-4, atol=1e-5)
    first = module.reward(observation[0], native[0], following[0])
    assert first == pytest.approx(expected[0], rel=1e-4, abs=1e-5)
