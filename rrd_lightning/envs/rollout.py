"""Assembling finished episodes from the steps of vectorised environments."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.envs.episodic import TRUE_REWARD
from rrd_lightning.envs.failures import DROPPED
from rrd_lightning.frames import latest, stack_space
from rrd_lightning.private import tree_leaves, tree_map

Observation = Any


class PartialEpisode:
    """The steps of one environment since its last reset."""

    def __init__(self, observation: Observation) -> None:
        self.observations = [observation]
        self.actions: list[np.ndarray[Any, Any]] = []
        self.true_rewards: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the steps as tensors."""
        observations = _stack(self.observations)
        return {
            "observations": observations if isinstance(observations, Tensor) else observations.to_dict(),
            "actions": [torch.as_tensor(action) for action in self.actions],
            "true_rewards": list(map(float, self.true_rewards)),
        }

    @classmethod
    def from_state_dict(cls, state_dict: dict[str, Any]) -> PartialEpisode:
        """Build the partial episode that `state_dict` describes."""
        length = len(state_dict["actions"]) + 1
        observations = [_index_numpy(state_dict["observations"], step) for step in range(length)]
        partial = cls(observations[0])
        partial.observations = observations
        partial.actions = [action.numpy()[()] for action in state_dict["actions"]]  # a Discrete's as numbers
        partial.true_rewards = state_dict["true_rewards"]
        return partial

    def finish(self, terminated: bool, success: bool | None) -> TensorDict:
        """Return the episode, as `EpisodeReplay.add_episode` takes it."""
        episode_return = float(sum(self.true_rewards))
        episode = TensorDict(
            {
                keys.OBSERVATION: _stack(self.observations),
                keys.ACTION: _stack(self.actions),
                keys.REWARD: torch.from_numpy(np.array(self.true_rewards, np.float32)),
                keys.EPISODE_RETURN: torch.tensor(episode_return, dtype=torch.float32),
                keys.TERMINATED: torch.tensor(terminated),
            },
            [],
        )
        if success is not None:
            episode.set(keys.SUCCESS, torch.tensor(success))
        return episode


class Rollout:
    """Steps environments wrapped in `EpisodicFeedback` and assembles their episodes.

    Args:
        envs: vectorised environments that restart an ended episode within the same step.
        frame_stack: how many of the latest images an observation has.

    Attributes:
        dropped: episodes lost so far because their environment failed and was replaced.
        knows_success: whether an episode has told its success. From then on, one that does not is none.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any], frame_stack: int = 1) -> None:
        self.envs: Any = envs
        self._frame_stack = frame_stack
        self._space = stack_space(envs.single_observation_space, frame_stack)
        self.dropped = 0
        self.knows_success = False
        self._observation: Observation = None
        self._partial: list[PartialEpisode] = []

    def reset(self, seed: int) -> None:
        """Start an episode in every environment, with consecutive seeds from `seed`.

        One that fails is dropped, and another begins in its place, without a seed.
        """
        self._observation, info = self.envs.reset(seed=seed)
        self.dropped += int(np.sum(info.get(DROPPED, 0)))
        self._partial = [PartialEpisode(_row(self._observation, env)) for env in range(self.envs.num_envs)]

    @property
    def observation(self) -> Tensor | TensorDictBase:
        """The current observation of every environment, ``[num_envs, ...]``."""
        if self._frame_stack == 1:
            return _to_tensor(self._observation)
        return _stack([latest(each.observations[-self._frame_stack :], self._space) for each in self._partial])

    def step(self, action: np.ndarray[Any, Any]) -> list[TensorDict]:
        """Take a step in every environment.

        Args:
            action: ``[num_envs, ...]``.

        Returns:
            The episodes that ended with this step.
        """
        self._observation, _, terminated, truncated, info = self.envs.step(action)
        done = (terminated | truncated).tolist()
        true_rewards = info[TRUE_REWARD].tolist() if TRUE_REWARD in info else []
        dropped = np.flatnonzero(info[DROPPED]).tolist() if DROPPED in info else []
        self.dropped += len(dropped)
        finished = []
        for env, partial in enumerate(self._partial):
            if env in dropped:
                self._partial[env] = PartialEpisode(_row(self._observation, env))
                continue
            partial.actions.append(np.array(action[env]))
            if not done[env]:
                partial.observations.append(_row(self._observation, env))
                partial.true_rewards.append(true_rewards[env])
                continue
            final = info["final_info"]
            partial.observations.append(info["final_obs"][env])
            partial.true_rewards.append(final[TRUE_REWARD][env])
            told = "success" in final and bool(final["_success"][env])
            self.knows_success |= told
            success = bool(final["success"][env]) if told else False if self.knows_success else None
            finished.append(partial.finish(bool(terminated[env]), success))
            self._partial[env] = PartialEpisode(_row(self._observation, env))
        return finished

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to fast-forward each environment: its last reset and the steps since."""
        return {
            "starts": list(self.envs.get_attr("episode_start")),
            "partial": [partial.state_dict() for partial in self._partial],
            "knows_success": self.knows_success,
            "action_space": json.dumps(self.envs.action_space.np_random.bit_generator.state),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> list[int]:
        """Fast-forward each environment to its saved state.

        Returns:
            Indices of the environments that diverged from what was saved. They start a new episode.
        """
        self.envs.action_space.np_random.bit_generator.state = json.loads(state_dict["action_space"])
        self.knows_success = state_dict.get("knows_success", False)
        self._partial = [PartialEpisode.from_state_dict(partial) for partial in state_dict["partial"]]
        pasts = [
            (start, partial.actions) for start, partial in zip(state_dict["starts"], self._partial, strict=True)
        ]
        self.envs.reset()
        self.envs.set_attr("past", pasts)
        diverged = []
        for env, (observation, rewards) in enumerate(self.envs.call("fast_forward")):
            partial = self._partial[env]
            same = tree_map(np.array_equal, observation, partial.observations[-1])
            if not (all(tree_leaves(same)) and rewards == partial.true_rewards):
                diverged.append(env)
        if diverged:
            mask = np.isin(np.arange(self.envs.num_envs), diverged)
            observation, _ = self.envs.reset(options={"reset_mask": mask})
            for env in diverged:
                self._partial[env] = PartialEpisode(_row(observation, env))
        latest = [partial.observations[-1] for partial in self._partial]
        self._observation = tree_map(lambda *rows: np.stack(rows), *latest)
        return diverged


def _index_numpy(observations: Any, step: int) -> Observation:
    return tree_map(lambda tensor: tensor[step].numpy(), observations)


def _row(observation: Observation, env: int) -> Observation:
    if isinstance(observation, dict):
        return {key: _row(value, env) for key, value in observation.items()}
    return observation[env]


def _stack(rows: list[Any]) -> Tensor | TensorDict:
    if isinstance(rows[0], dict):
        parts = {key: _stack([each[key] for each in rows]) for key in rows[0]}
        return TensorDict(parts, [len(rows)])
    return torch.from_numpy(np.array(rows))  # much faster than np.stack


def _to_tensor(observation: Observation) -> Tensor | TensorDict:
    if isinstance(observation, dict):
        parts = {key: _to_tensor(value) for key, value in observation.items()}
        return TensorDict(parts, [len(next(iter(observation.values())))])
    return torch.from_numpy(observation)
