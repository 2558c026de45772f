"""A trained module in public: NumPy in, NumPy out, in the environment's own terms."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from lightning.pytorch import Callback
from tensordict import TensorDict

from rrd_lightning import Environment, ParameterError, RRDModule, keys
from rrd_lightning.agents import SAC, Agent
from rrd_lightning.losses import Losses
from tests.runs import make_collect, make_data, make_module, make_trainer


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


IMAGE = Box(0, 255, (3, 36, 36), np.uint8)


@pytest.mark.parametrize(
    ("space", "value", "message"),
    [
        (
            Box(-1, 1, (3,)),
            np.zeros(2),
            r"'of shape \(2,\)': must have shape \(3,\), or one dimension",
        ),
        (Box(-1, 1, (3,)), None, "observation='of shape"),
        (IMAGE, np.zeros((3, 36, 36)), "observation='of float64': must be of uint8"),
        (IMAGE, np.zeros((3, 36, 30), np.uint8), "must have shape"),
        (Dict({"a": Box(-1, 1, (3,)), "b": IMAGE}), {"a": np.zeros(3)}, r"must have the keys \['a', 'b'\]"),
        (Dict({"a": Box(-1, 1, (3,))}), {"a": np.zeros(4)}, r"observation\['a'\]=.*must have shape \(3,\)"),
        (
            Dict({"a": Box(-1, 1, (3,)), "b": Box(-1, 1, (2,))}),
            {"a": np.zeros((4, 3)), "b": np.zeros(2)},
            "has one of some parts and several of others",
        ),
        (Discrete(3), 3, r"observation=3: must be in Discrete\(3\)"),
        (Discrete(3), 1.7, "observation='of float64': must be of int64"),
    ],
)
def test_what_is_not_of_the_space_is_refused(space: Any, value: Any, message: str) -> None:
    module = RRDModule(space, Box(-1, 1, (2,)), agent=Constant)
    with pytest.raises(ParameterError, match=message):
        module.predict(value)


def test_steps_of_a_reward_belong_together() -> None:
    module = RRDModule(Box(-1, 1, (3,)), Box(-1, 1, (2,)), agent=Constant)
    with pytest.raises(ParameterError, match="1 observations, 4 actions, 1 next observations"):
        module.reward(np.zeros(3), np.zeros((4, 2)), np.zeros(3))
    with pytest.raises(ParameterError, match=r"action='of shape \(3,\)'"):
        module.reward(np.zeros(3), np.zeros(3), np.zeros(3))


class Dropped(torch.nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        layers = torch.nn.Linear(inputs, 32), torch.nn.BatchNorm1d(32), torch.nn.Dropout(0.5)
        super().__init__(*layers, torch.nn.Linear(32, outputs))


def test_networks_are_in_evaluation_mode() -> None:
    """Also in the middle of training, and for a single environment."""
    space = Box(-1, 1, (3,))
    module = RRDModule(space, Box(-1, 1, (2,)), agent=partial(SAC, actor=Dropped)).train()
    before = module.state_dict()
    observation = np.ones(3, np.float32)
    assert np.array_equal(module.predict(observation), module.predict(observation))
    module.explore(torch.ones(1, 3))
    assert module.agent.actor[1].training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_failed_run_leaves_a_module_that_predicts() -> None:
    class Fails(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            raise RuntimeError("stop")

    env = Environment("Follow-v0")
    module = make_module(env)
    with pytest.raises(RuntimeError, match="stop"):
        make_trainer(make_collect(env), Fails()).fit(module, make_data())
    expected = module.predict([0.3])
    doubled = module.double().agent.act(torch.tensor([[0.3]]).double(), explore=False)
    np.testing.assert_allclose(doubled[0], expected / 2, rtol=1e-4)
