"""The wrapper of every environment: single precision in and out, and the reward withheld."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from gymnasium import Env, Wrapper

from rrd_lightning.spaces import single_precision, unit_actions

TRUE_REWARD = "true_reward"
SUCCESS_KEYS = ("success", "is_success")
INITIAL_STATE = "initial_state"
NO_EPISODE_START = "[null, null]"  # an `episode_start` that says nothing

Step = tuple[Any, float, bool, bool, dict[str, Any]]


class EpisodicFeedback(Wrapper[Any, Any, Any, Any]):
    """Withholds the reward until the episode ends, and then gives its sum, the return.

    The environment's own reward of each step is in ``info["true_reward"]``, for evaluation. Of the
    environment's other information only success passes, as ``info["success"]``: the rest would be
    gathered at each step for nobody. An environment that rewards the last step alone is unchanged.

    Bounded continuous actions are float32 in [-1, 1] and scaled to the environment's bounds, float64
    observations become float32, the precision of the networks. Wrappers of their own would take a
    tenth of the time of a fast simulator.

    Attributes:
        to_native: scales an action to the environment's bounds.
        to_single: gives an observation of the environment its precision.
    """

    def __init__(self, env: Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space, self.to_native = unit_actions(env.action_space)
        self.observation_space, self.to_single = single_precision(env.observation_space)
        self._return = 0.0
        self.episode_start = NO_EPISODE_START
        self.past: tuple[str, list[Any]] = (NO_EPISODE_START, [])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, and remember from which state of the generator.

        And from which initial state, where the environment names it in ``info["initial_state"]``: it is
        one that ``reset(options={"initial_state": ...})`` takes.
        """
        start = seed if seed is not None else self.unwrapped.np_random.bit_generator.state
        self._return = 0.0
        observation, info = self.env.reset(seed=seed, options=options)
        chosen = {name: info[name] for name in (INITIAL_STATE,) if name in info}
        self.episode_start = json.dumps([start, chosen or None], default=_plain)
        return self.to_single(observation), {}

    def fast_forward(self) -> tuple[Any, list[float]]:
        """Bring the environment to where `past`, an `episode_start` and the actions since, had led.

        Deterministic environments whose randomness is all in their generator get there to the last
        bit; the caller compares what comes back with what was seen then.

        Returns:
            The observation after the last action, and the true reward of each step.
        """
        (start, options), actions = json.loads(self.past[0]), self.past[1]
        if isinstance(start, dict):
            generator = getattr(np.random, start["bit_generator"])()
            generator.state = start
            self.unwrapped.np_random = np.random.Generator(generator)
            observation, _ = self.reset(options=options)
        else:
            observation, _ = self.reset(seed=start, options=options)
        rewards = []
        for action in actions:
            observation, _, _, _, info = self.step(action)
            rewards.append(info[TRUE_REWARD])
        return observation, rewards

    def step(self, action: Any) -> Step:
        """Take a step; the reward is zero unless it is the episode's last."""
        observation, *rest = self.step_native(self.to_native(action))
        return self.to_single(observation), *rest

    def step_native(self, action: Any) -> Step:
        """Take a step by an action within the environment's bounds, to an observation as it gives it."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        true_reward = float(reward)
        self._return += true_reward
        feedback = self._return if terminated or truncated else 0.0
        passed: dict[str, Any] = {TRUE_REWARD: true_reward}
        for key in SUCCESS_KEYS:
            if key in info:
                passed["success"] = bool(info[key])
        return observation, feedback, terminated, truncated, passed


def _plain(value: Any) -> Any:
    """Some bit generators keep their state in arrays and NumPy integers."""
    return value.tolist()
