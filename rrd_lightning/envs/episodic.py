"""The episodic-reward wrapper."""

from __future__ import annotations

from typing import Any

from gymnasium import Env, Wrapper

TRUE_REWARD = "true_reward"
SUCCESS_KEYS = ("success", "is_success")


class EpisodicFeedback(Wrapper[Any, Any, Any, Any]):
    """Withholds the reward until the episode ends, and then gives its sum, the return.

    The environment's own reward of each step is in ``info["true_reward"]``, for evaluation. Of the
    environment's other information only success passes, as ``info["success"]``: the rest would be
    gathered at each step for nobody. An environment that rewards the last step alone is unchanged.
    """

    def __init__(self, env: Env[Any, Any]) -> None:
        super().__init__(env)
        self._return = 0.0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self._return = 0.0
        observation, _ = self.env.reset(**kwargs)
        return observation, {}

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
