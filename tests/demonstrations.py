"""Demonstrations of the environment Reach, by a script: successes that swerve, failures that turn away."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from rrd_lightning.datasets import Facts, Reader, Source, make_episode
from tests.environments import Reach


class ScriptedReader(Reader):
    def __init__(self, successes: int = 3, failures: int = 3, seed: int = 0) -> None:
        self.successes, self.failures, self.seed = successes, failures, seed

    def sources(self) -> list[Source]:
        return [Scripted(self.successes, self.failures, self.seed)]


class Scripted(Source):
    name = "scripted"

    def __init__(self, successes: int, failures: int, seed: int) -> None:
        self._played = {
            f"{success}-{number}": play(success, 1000 * seed + number)
            for success, count in ((True, successes), (False, failures))
            for number in range(count)
        }

    def episodes(self) -> list[str]:
        return list(self._played)

    def spaces(self) -> Any:
        env = Reach()
        return env.observation_space, env.action_space

    def facts(self, episode: str, spaces: Any) -> Facts:
        played = self._played[episode]
        return Facts(len(played["action"]), bool(played["success"]))

    def read(self, episode: str, spaces: Any) -> TensorDict:
        return self._played[episode]


def play(success: bool, seed: int) -> TensorDict:
    env, generator = Reach(), np.random.default_rng(seed)
    observations, actions, rewards = [env.reset(seed=seed)[0]], [], []
    terminated = False
    while not terminated and len(actions) < 40:
        towards = np.array([1.0, 1.0]) if success else np.array([1.0, -1.0])
        actions.append(np.clip(0.7 * towards + generator.normal(0, 0.3, 2), -1, 1).astype(np.float32))
        observation, reward, terminated, _, _ = env.step(actions[-1])
        observations.append(observation)
        rewards.append(reward)
    assert terminated == success
    return make_episode(
        torch.tensor(np.array(observations)),
        torch.tensor(np.array(actions)),
        torch.tensor(rewards),
        episode_return=float(success),
        terminated=terminated,
        success=success,
    )
