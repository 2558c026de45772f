"""Small environments: one to be learned in seconds, one whose observations tell where they are."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Env, spaces

from rrd_lightning import ParameterError

STEPS = 10


class Follow(Env[Any, Any]):
    """The best action is the observation: a return of 0. Zero actions get -5 in the mean."""

    length = STEPS

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Box(-2, 2, (1,), np.float32)
        self._time = 0

    def _observe(self) -> Any:
        self._target = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self._target

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        # Actions arrive scaled to the bounds: 2 a.
        error = float(np.abs(action / 2 - self._target).sum())
        self._time += 1
        return self._observe(), -error, False, self._time == self.length, {"is_success": error < 0.1}


class Counter(Env[Any, Any]):
    """The observation is (episode, step); episodes end after 1 to 7 steps, some by termination."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        self._episode = -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._episode += 1
        self._time = 0
        self._length = int(self.np_random.integers(1, 8))
        return np.array([self._episode, 0.0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._time += 1
        last = self._time == self._length
        even = self._episode % 2 == 0
        observation = np.array([self._episode, float(self._time)])
        return observation, float(self._time), last and even, last and not even, {}


class Reach(Env[Any, Any]):
    """A point in a square must reach a corner: random actions hardly ever do. A success ends the episode."""

    goal = np.array([0.8, 0.8], np.float32)

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._position = self.np_random.uniform(-0.9, -0.5, 2).astype(np.float32)
        return self._position, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._position = np.clip(self._position + 0.1 * np.asarray(action, np.float32), -1, 1)
        success = bool(np.abs(self._position - self.goal).max() < 0.15)
        return self._position, float(success), success, False, {"is_success": success}


ACTION_DTYPE = np.float32


class Bounded(Env[Any, Any]):
    """The observation is the last action, within the bounds [0, 4] and [-3, 9]."""

    def __init__(self) -> None:
        low, high = np.array([0, -3], ACTION_DTYPE), np.array([4, 9], ACTION_DTYPE)
        self.action_space = spaces.Box(low, high, dtype=ACTION_DTYPE)
        self.observation_space = spaces.Box(-10, 10, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action.dtype == ACTION_DTYPE
        return action.astype(np.float32), 0.0, False, False, {}


class BrokenError(BaseException):
    """An error that no one catches."""


class Fragile(Follow):
    """Breaks after some steps in the process of rank FRAGILE_RANK; FRAGILE_ONCE: only the first time."""

    steps = 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        broken, rank = Path("broken"), os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
        if self.steps == 400 and rank == os.environ["FRAGILE_RANK"] and not broken.exists():
            if "FRAGILE_ONCE" in os.environ:
                broken.touch()
            raise BrokenError("the simulator broke")
        return super().step(action)


class Pixels(Env[Any, Any]):
    """Two images and a number: a bright column stands where the action should be, as the number says."""

    size = 36

    def __init__(self) -> None:
        image = spaces.Box(0, 255, (3, self.size, self.size), np.uint8)
        number = spaces.Box(-1, 1, (1,), np.float32)
        self.observation_space = spaces.Dict({"front": image, "side": image, "number": number})
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def _observe(self) -> Any:
        column = int(self.np_random.integers(self.size))
        image = self.np_random.integers(0, 100, (3, self.size, self.size), np.uint8)
        image[:, :, column] = 255
        self._target = np.array([2 * column / (self.size - 1) - 1], np.float32)
        return {"front": image, "side": image[:, ::-1].copy(), "number": self._target}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        error = float(np.abs(action - self._target).sum())
        self._time += 1
        return self._observe(), -error, False, self._time == STEPS, {}


gymnasium.register("Pixels-v0", Pixels)


class Choose(Env[Any, Any]):
    """The best of three actions, from 5, says in which third of [-1, 1] the observation is: a return of 10."""

    observation_space: Any = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self) -> None:
        self.action_space = spaces.Discrete(3, start=5)

    def _observe(self) -> Any:
        self._best = int(self.np_random.integers(3))
        return np.array([(2 * self._best - 2 + self.np_random.uniform(-0.9, 0.9)) / 3], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        right = int(action) == self._best + 5
        self._time += 1
        return self._observe(), float(right), False, self._time == STEPS, {}


class ChooseByImage(Choose):
    """The same of an image, a third of which is bright."""

    observation_space = spaces.Box(0, 255, (1, 36, 36), np.uint8)

    def _observe(self) -> Any:
        image = self.np_random.integers(0, 100, (1, 36, 36), np.uint8)
        self._best = int(self.np_random.integers(3))
        image[:, :, 12 * self._best : 12 * self._best + 12] += 150
        return image


class FollowByImage(Follow):
    """The best action is towards the bright half of an image: a return of 0. Uniform ones get -5."""

    length = 5  # warm-ups of 50 and 100 steps end with an episode

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (1, 36, 36), np.uint8)

    def _observe(self) -> Any:
        image = self.np_random.integers(0, 100, (1, 36, 36), np.uint8)
        half = int(self.np_random.integers(2))
        self._target = np.array([2 * half - 1], np.float32)
        image[:, :, 18 * half : 18 * half + 18] += 150
        return image


gymnasium.register("FollowByImage-v0", FollowByImage)
gymnasium.register("Choose-v0", Choose)
gymnasium.register("ChooseByImage-v0", ChooseByImage)


class Failing(Counter):
    """Fails in one of several ways, at the first steps that find a file `ticket` to take."""

    def __init__(self, way: str, tickets: str) -> None:
        super().__init__()
        self._way, self._tickets = way, Path(tickets)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        for ticket in self._tickets.iterdir():
            try:
                ticket.unlink()
            except FileNotFoundError:
                continue  # another process took it
            self._fail()
        return super().step(action)

    def _fail(self) -> None:
        if self._way == "raise":
            raise ParameterError("simulator", "x", "an error that cannot be pickled and made again")
        if self._way == "exit":
            os._exit(3)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)


gymnasium.register("Failing-v0", Failing)
gymnasium.register("Fragile-v0", Fragile)
gymnasium.register("Twin-v0", Follow)
gymnasium.register("OtherTwin-v0", Follow)
gymnasium.register("Bounded-v0", Bounded)
gymnasium.register("Follow-v0", Follow)
gymnasium.register("Reach-v0", Reach, max_episode_steps=40)
gymnasium.register("Counter-v0", Counter, max_episode_steps=100)
