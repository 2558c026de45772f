"""Action repeat: an action that is held for several steps."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from gymnasium import Env, Wrapper
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

EARLIER = "earlier"
ITS_OWN = (TimeLimit, OrderEnforcing, PassiveEnvChecker)  # wrappers that Gymnasium adds by itself


@runtime_checkable
class Sparing(Protocol):
    """An environment that can save the work for an observation.

    Attributes:
        unseen: let steps return an earlier observation.
    """

    unseen: bool

    def observe(self) -> Any:
        """Return the observation of this moment."""


class ActionRepeat(Wrapper[Any, Any, Any, Any]):
    """Takes every action several times, until the episode ends, and returns the sum of the rewards.

    Observation and infos are those of the last of these steps; the infos of the others are in
    ``info[EARLIER]``. A time limit within `env` counts each of them.

    One that is `Sparing` observes the last of these steps alone, unless there is a wrapper of the user's in
    between, which may look at each.

    Args:
        env: the environment.
        repeat: how many times.
    """

    def __init__(self, env: Env[Any, Any], repeat: int) -> None:
        super().__init__(env)
        self.repeat = repeat
        self._spares = isinstance(env.unwrapped, Sparing) and _has_no_wrapper(env)

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


def _has_no_wrapper(env: Env[Any, Any]) -> bool:
    while isinstance(env, Wrapper):
        if type(env) not in ITS_OWN:
            return False
        env = env.env
    return True
