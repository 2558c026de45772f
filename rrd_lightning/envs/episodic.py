"""The episodic-reward wrapper."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from gymnasium import Env, Wrapper

TRUE_REWARD = "true_reward"
SUCCESS_KEYS = ("success", "is_success")
INITIAL_STATE = "initial_state"
ANYWHERE = "[null, null]"  # an `episode_start` that says nothing


class EpisodicFeedback(Wrapper[Any, Any, Any, Any]):
    """Withholds the reward until the episode ends, and then gives its sum, the return.

    The environment's own reward of each step is in ``info["true_reward"]``, for evaluation. Of the
    environment's other information only success passes, as ``info["success"]``: the rest would be
    gathered at each step for nobody. An environment that rewards the last step alone is unchanged.
    """

    def __init__(self, env: Env[Any, Any]) -> None:
        super().__init__(env)
        self._return = 0.0
        self.episode_start = ANYWHERE
        self.past: tuple[str, list[Any]] = (ANYWHERE, [])

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
        return observation, {}

    def relive(self) -> tuple[Any, list[float]]:
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

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step; the reward is zero unless it is the episode's last."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._return += float(reward)
        feedback = self._return if terminated or truncated else 0.0
        passed: dict[str, Any] = {TRUE_REWARD: float(reward)}
        for key in SUCCESS_KEYS:
            if key in info:
                passed["success"] = bool(info[key])
        return observation, feedback, terminated, truncated, passed


def _plain(value: Any) -> Any:
    """Some bit generators keep their state in arrays and NumPy integers."""
    return value.tolist()
