"""Action repeat: an action that is held for several steps."""

from __future__ import annotations

from typing import Any

from gymnasium import Env, Wrapper

EARLIER = "earlier"


class ActionRepeat(Wrapper[Any, Any, Any, Any]):
    """Takes every action several times, until the episode ends, and returns the sum of the rewards.

    Observation and infos are those of the last of these steps; the infos of the others are in
    ``info[EARLIER]``. A time limit within `env` counts each of them.

    Args:
        env: the environment.
        repeat: how many times.
    """

    def __init__(self, env: Env[Any, Any], repeat: int) -> None:
        super().__init__(env)
        self.repeat = repeat

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take the action."""
        total: Any = 0.0
        infos: list[dict[str, Any]] = []
        for _ in range(self.repeat):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total = total + reward
            infos.append(info)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, {**info, EARLIER: infos[:-1]}
