"""Environments stepped one after another in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space

from rrd_lightning.envs.episodic import TRUE_REWARD, EpisodicFeedback
from rrd_lightning.spaces import unit_actions


class SequentialVectorEnv(SyncVectorEnv[Any, Any]):
    """Steps environments in turn; an ended episode restarts within the same step.

    A step returns what Gymnasium's `SyncVectorEnv` returns, except that success is reported only at an
    episode's last step. It is faster: Gymnasium's general way of collecting results takes nearly as
    long as a fast simulator, and scaling all actions at once takes as long as scaling one.

    Args:
        makers: functions that each make an environment.
    """

    def __init__(self, makers: list[Callable[[], EpisodicFeedback]]) -> None:
        super().__init__(makers, autoreset_mode=AutoresetMode.SAME_STEP)
        first: Any = self.envs[0]
        _, self._to_native = unit_actions(batch_space(first.env.action_space, self.num_envs))

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a step in every environment."""
        rewards, true_rewards = np.zeros((2, self.num_envs))
        terminated, truncated = np.zeros((2, self.num_envs), dtype=bool)
        infos: dict[str, Any] = {}
        envs: list[Any] = self.envs
        actions = self._to_native(actions)
        for index, env in enumerate(envs):
            observation, rewards[index], ends, cut, info = env.step_native(actions[index])
            true_rewards[index] = info[TRUE_REWARD]
            if ends or cut:
                terminated[index], truncated[index] = ends, cut
                final = {"final_obs": env.to_single(observation), "final_info": info}
                infos = self._add_info(infos, final, index)
                observation, _ = env.reset()
            self._env_obs[index] = observation
        infos[TRUE_REWARD] = true_rewards
        observations = _batched(self.single_observation_space, self._env_obs)
        return observations, rewards, terminated, truncated, infos


def _batched(space: Space[Any], rows: list[Any]) -> Any:
    """Stack observations into one array, or a dictionary of arrays, of the space's dtype."""
    if isinstance(space, spaces.Dict):
        return {key: _batched(part, [row[key] for row in rows]) for key, part in space.items()}
    return np.array(rows, space.dtype)
