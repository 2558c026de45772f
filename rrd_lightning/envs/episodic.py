"""The wrapper of every environment: episodic feedback, scaled actions and float32."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from gymnasium import Env, Wrapper
from gymnasium.utils.seeding import np_random

from rrd_lightning.spaces import single_precision, unit_actions

TRUE_REWARD = "true_reward"
SUCCESS_KEYS = ("success", "is_success")
INITIAL_STATE = "initial_state"
NO_EPISODE_START = "[null, null]"  # `episode_start` before the first reset

Step = tuple[Any, float, bool, bool, dict[str, Any]]


class EpisodicFeedback(Wrapper[Any, Any, Any, Any]):
    """Withholds the reward until the episode ends, and then gives the sum of all rewards, the return.

    With `feedback_every` it gives the sum of the rewards since the last feedback, every so many steps and at
    the end.

    The environment's own reward of each step is in ``info["true_reward"]``, for evaluation. Of the
    environment's other infos only success is passed on, as ``info["success"]``: collecting unused infos
    at every step would take time. An environment that rewards only the last step is unchanged.

    Bounded continuous actions are float32 in [-1, 1] and scaled to the environment's bounds; float64
    observations become float32, the networks' precision. Separate wrappers for this would take a tenth
    of a fast simulator's time.

    Args:
        env: the environment.
        feedback_every: steps from one feedback to the next; by default the whole episode.

    Attributes:
        to_native: scales an action to the environment's bounds.
        to_single: casts an observation of the environment to float32.
        episode_start: JSON of the generator's state, or the seed, at the last reset, and of the initial
            state, from which `fast_forward` repeats the reset.
        past: an `episode_start` and the actions since, for `fast_forward`.
    """

    def __init__(self, env: Env[Any, Any], feedback_every: int | None = None) -> None:
        super().__init__(env)
        self.action_space, self.to_native = unit_actions(env.action_space)
        self.observation_space, self.to_single = single_precision(env.observation_space)
        self._every = feedback_every or math.inf
        self._return, self._steps = 0.0, 0  # since the last feedback
        self.episode_start = NO_EPISODE_START
        self.past: tuple[str, list[Any]] = (NO_EPISODE_START, [])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, and record how to repeat this reset.

        That is the generator's state or the seed and, if the environment reports ``info["initial_state"]``,
        the value to pass to ``reset(options={"initial_state": ...})``.
        """
        if seed is not None:
            # Some environments, such as Meta-World's, leave it to the caller.
            self.unwrapped.np_random, _ = np_random(seed)
        start = seed if seed is not None else self.unwrapped.np_random.bit_generator.state
        self._return, self._steps = 0.0, 0
        observation, info = self.env.reset(seed=seed, options=options)
        chosen = {name: info[name] for name in (INITIAL_STATE,) if name in info}
        self.episode_start = json.dumps([start, chosen or None], default=_plain)
        return self.to_single(observation), {}

    def fast_forward(self) -> tuple[Any, list[float]]:
        """Repeat the reset and the actions of `past`.

        An environment that is deterministic given its generator's state and the actions reaches the same
        state to the last bit. The caller compares the result with what was recorded.

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
        """Take a step; the reward is zero where there is no feedback."""
        observation, *rest = self.step_native(self.to_native(action))
        return self.to_single(observation), *rest

    def step_native(self, action: Any) -> Step:
        """Take a step with an unscaled action, and return the observation without casting it."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        true_reward = float(reward)
        self._return += true_reward
        self._steps += 1
        feedback = 0.0
        if terminated or truncated or self._steps == self._every:
            feedback, self._return, self._steps = self._return, 0.0, 0
        passed: dict[str, Any] = {TRUE_REWARD: true_reward}
        for key in SUCCESS_KEYS:
            if key in info:
                passed["success"] = bool(info[key])
        return observation, feedback, terminated, truncated, passed


def _plain(value: Any) -> Any:
    """Convert the arrays and NumPy integers in the state of some bit generators."""
    return value.tolist()
