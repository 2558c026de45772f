"""Environments as users bring them: unusual in what they give, and not wrong."""

from __future__ import annotations

from itertools import count
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Env, spaces

STEPS = 20


class Odd(Env[Any, Any]):
    """The observation is the step, twice; the reward is 1. Episodes take 20 steps.

    Args:
        discrete: whether there are three actions, rather than continuous ones.
        reward: of each step, or a list of those of all steps, the last of which is repeated.
        success: what the infos of each step say, likewise; "absent" to say nothing.
        precision: of the observations, whatever the space says.
    """

    observation_space: Any = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(
        self, discrete: bool = False, reward: Any = 1.0, success: Any = "absent", precision: str = "float32"
    ) -> None:
        self.action_space = spaces.Discrete(3, start=-1) if discrete else spaces.Box(-3, 1, (2,), np.float64)
        self._rewards = reward if isinstance(reward, list) else [reward]
        self._successes = success if isinstance(success, list) else [success]
        self._buffer = np.zeros(2, precision)  # the same array each time

    def _observe(self) -> Any:
        self._buffer[:] = self._time
        return self._buffer

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._time += 1
        success = self._successes[min(self._time, len(self._successes)) - 1]
        info = {} if success == "absent" else {"is_success": success}
        reward = self._rewards[min(self._time, len(self._rewards)) - 1]
        return self._observe(), reward, False, self._time == STEPS, info


class OddTypes(Odd):
    """All that is unusual in the types of what an environment gives and keeps, and still has one meaning."""

    def __init__(self, discrete: bool = False) -> None:
        super().__init__(discrete, precision="float64")
        self._reward, self._flag = np.zeros(1, np.float32), np.zeros((), bool)
        self._success = {"task": np.zeros(1)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self.np_random = np.random.RandomState(seed)  # type: ignore[assignment]
        self._time = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        if isinstance(action, np.ndarray) and action.ndim:
            action *= 100
        observation, *_, truncated, _ = super().step(action)
        self._reward[:] = self.np_random.uniform()
        self._flag[...] = truncated
        self._success["task"][:] = self._time % 2
        return observation, self._reward, np.array([False]), self._flag, {"success": self._success}


class OddDict(Odd):
    """A dictionary of several precisions, and with a list."""

    observation_space = spaces.Dict(
        {
            "observation": spaces.Box(-np.inf, np.inf, (2,), np.float64),
            "goal": spaces.Box(-1, 1, (3,), np.float32),
            "mode": spaces.Discrete(4, start=1),
        }
    )

    def _observe(self) -> Any:
        mode = 1 + self._time % 4
        return {"observation": super()._observe(), "goal": [0.5, 0, self._time / STEPS], "mode": mode}


class OddImage(Odd):
    """An image with its channels last, of integers, in the same array each time."""

    observation_space = spaces.Box(0, 255, (36, 40, 1), np.uint8)

    def __init__(self, discrete: bool = False) -> None:
        super().__init__(discrete)
        self._image = np.zeros((36, 40, 1), np.int64)

    def _observe(self) -> Any:
        self._image[:] = self._time
        return self._image


class OddLengths(Odd):
    """Episodes of one step and of several; every 50th step and every 20th reset fails."""

    steps, resets = count(1), count(1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        if next(OddLengths.resets) % 20 == 0:
            raise KeyError("no such scene")
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        if next(OddLengths.steps) % 50 == 0:
            raise RuntimeError("the simulator is unstable")
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, bool(self.np_random.uniform() < 0.4), truncated, info


for each in (Odd, OddTypes, OddDict, OddImage, OddLengths):
    gymnasium.register(f"{each.__name__}-v0", each)
