"""From steps of vectorised environments to finished episodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.envs.episodic import TRUE_REWARD

Observation = Any


class PartialEpisode:
    """The steps of one environment since its last reset."""

    def __init__(self, observation: Observation) -> None:
        self.observations = [observation]
        self.actions: list[np.ndarray[Any, Any]] = []
        self.true_rewards: list[float] = []

    def finish(self, episode_return: float, terminated: bool, success: bool | None) -> TensorDict:
        """Return the episode in the form that `EpisodeReplay.add_episode` takes."""
        episode = TensorDict(
            {
                keys.OBSERVATION: _stack(self.observations),
                keys.ACTION: torch.from_numpy(np.stack(self.actions)),
                keys.REWARD: torch.tensor(self.true_rewards, dtype=torch.float32),
                keys.EPISODE_RETURN: torch.tensor(episode_return, dtype=torch.float32),
                keys.TERMINATED: torch.tensor(terminated),
            },
            [],
        )
        if success is not None:
            episode.set(keys.SUCCESS, torch.tensor(success))
        return episode


class Rollout:
    """Steps environments wrapped in `EpisodicFeedback` and puts their episodes together.

    Args:
        envs: vectorised environments that restart an ended episode within the same step.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        self.envs = envs
        self._observation: Observation = None
        self._partial: list[PartialEpisode] = []

    def reset(self, seed: int) -> None:
        """Start an episode in every environment, from successive seeds."""
        self._observation, _ = self.envs.reset(seed=seed)
        self._partial = [PartialEpisode(_row(self._observation, env)) for env in range(self.envs.num_envs)]

    @property
    def observation(self) -> Tensor | TensorDictBase:
        """The current observation of every environment, ``[num_envs, ...]``."""
        return _to_tensor(self._observation)

    def step(self, action: np.ndarray[Any, Any]) -> Iterator[TensorDict]:
        """Take a step in every environment.

        Args:
            action: ``[num_envs, ...]``.

        Returns:
            The episodes that this step ended.
        """
        self._observation, feedback, terminated, truncated, info = self.envs.step(action)
        done = terminated | truncated
        for env, partial in enumerate(self._partial):
            partial.actions.append(action[env])
            if not done[env]:
                partial.observations.append(_row(self._observation, env))
                partial.true_rewards.append(info[TRUE_REWARD][env])
                continue
            final = info["final_info"]
            partial.observations.append(info["final_obs"][env])
            partial.true_rewards.append(final[TRUE_REWARD][env])
            success = bool(final["success"][env]) if "success" in final else None
            yield partial.finish(float(feedback[env]), bool(terminated[env]), success)
            self._partial[env] = PartialEpisode(_row(self._observation, env))


def _row(observation: Observation, env: int) -> Observation:
    if isinstance(observation, dict):
        return {key: _row(value, env) for key, value in observation.items()}
    return observation[env]


def _stack(observations: list[Observation]) -> Tensor | TensorDict:
    if isinstance(observations[0], dict):
        parts = {key: _stack([each[key] for each in observations]) for key in observations[0]}
        return TensorDict(parts, [len(observations)])
    return torch.from_numpy(np.stack(observations))


def _to_tensor(observation: Observation) -> Tensor | TensorDict:
    if isinstance(observation, dict):
        parts = {key: _to_tensor(value) for key, value in observation.items()}
        return TensorDict(parts, [len(next(iter(observation.values())))])
    return torch.from_numpy(observation)
