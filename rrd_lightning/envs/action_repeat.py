"""Action repeat: an action that is held for several steps."""

from __future__ import annotations

from typing import Any

from gymnasium import Env, Wrapper
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

EARLIER = "earlier"
LOOKS_AT_NOTHING = (TimeLimit, OrderEnforcing, PassiveEnvChecker)


class ActionRepeat(Wrapper[Any, Any, Any, Any]):
    """Takes every action several times, until the episode ends, and returns the sum of the rewards.

    Observation and infos are those of the last of these steps; the infos of the others are in
    ``info[EARLIER]``. A time limit within `env` counts each of them.

    An environment may save the work for observations that nobody will see: its attribute `unseen` is set in all
    steps but the last, unless a wrapper of the user's looks at them, and `observe` gives what was left out.

    Args:
        env: the environment.
        repeat: how many times.
    """

    def __init__(self, env: Env[Any, Any], repeat: int) -> None:
        super().__init__(env)
        self.repeat = repeat
        self._spares = hasattr(env.unwrapped, "unseen") and _nobody_looks(env)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take the action."""
        total: Any = 0.0
        infos: list[dict[str, Any]] = []
        simulator: Any = self.unwrapped
        for number in range(1, self.repeat + 1):
            if self._spares:
                simulator.unseen = number < self.repeat
            observation, reward, terminated, truncated, info = self.env.step(action)
            total = total + reward
            infos.append(info)
            if terminated or truncated:
                break
        if self._spares and simulator.unseen:
            observation = simulator.observe()
        return observation, total, terminated, truncated, {**info, EARLIER: infos[:-1]}


def _nobody_looks(env: Env[Any, Any]) -> bool:
    while isinstance(env, Wrapper):
        if type(env) not in LOOKS_AT_NOTHING:
            return False
        env = env.env
    return True
