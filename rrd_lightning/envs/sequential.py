"""Environments stepped one after another in this process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space

from rrd_lightning.envs.episodic import TRUE_REWARD, EpisodicFeedback
from rrd_lightning.envs.failures import DROPPED, Failures
from rrd_lightning.spaces import unit_actions


class SequentialVectorEnv(SyncVectorEnv[Any, Any]):
    """Steps environments in turn; an ended episode restarts within the same step.

    A step returns what Gymnasium's `SyncVectorEnv` returns, except that success is reported only at an
    episode's last step. It is faster: Gymnasium's general way of collecting results takes nearly as
    long as a fast simulator, and scaling all actions at once takes as long as scaling one.

    An environment that raises an error is made again, as in `Workers`: the step or reset reports
    ``info["dropped"][environment]`` and the first observation of a new episode, which has no seed.

    Args:
        makers: functions that each make an environment.

    Raises:
        FailedEnvironmentError: if an environment fails more than 5 times without finishing an episode in
            between, or gives what nothing can be learned from.
    """

    def __init__(self, makers: list[Callable[[], EpisodicFeedback]]) -> None:
        super().__init__(makers, autoreset_mode=AutoresetMode.SAME_STEP)
        first: Any = self.envs[0]
        _, self._to_native = unit_actions(batch_space(first.env.action_space, self.num_envs))
        self._failures = Failures(self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every environment, or in those of ``options["reset_mask"]``."""
        options = dict(options or {})
        mask = options.pop("reset_mask", np.ones(self.num_envs, dtype=bool))
        seeds: Any = [seed + index for index in range(self.num_envs)] if isinstance(seed, int) else seed
        infos: dict[str, Any] = {}
        for index in np.flatnonzero(mask).tolist():
            try:
                self._env_obs[index], _ = self.envs[index].reset(
                    seed=seeds and seeds[index], options=options or None
                )
            except Exception as error:  # environments may raise anything
                self._restart(index, error)
                infos = self._add_info(infos, {DROPPED: True}, index)
        return self._observed(), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a step in every environment."""
        rewards, true_rewards = np.zeros((2, self.num_envs))
        terminated, truncated = np.zeros((2, self.num_envs), dtype=bool)
        infos: dict[str, Any] = {}
        envs: list[Any] = self.envs
        actions = self._to_native(actions)
        for index, env in enumerate(envs):
            try:
                observation, reward, ends, cut, info = env.step_native(actions[index])
                self._env_obs[index] = env.reset()[0] if ends or cut else observation
            except Exception as error:
                self._restart(index, error)
                infos = self._add_info(infos, {DROPPED: True}, index)
                continue
            rewards[index], true_rewards[index] = reward, info[TRUE_REWARD]
            if ends or cut:
                self._failures.forget(index)
                terminated[index], truncated[index] = ends, cut
                infos = self._add_info(infos, {"final_obs": observation, "final_info": info}, index)
        infos[TRUE_REWARD] = true_rewards
        return self._observed(), rewards, terminated, truncated, infos

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every environment, or get an attribute."""
        results: list[Any] = []
        while len(results) < self.num_envs:
            found = self.envs[len(results)].get_wrapper_attr(name)
            try:
                results.append(found(*args, **kwargs) if callable(found) else found)
            except Exception as error:
                self._restart(len(results), error)
        return tuple(results)

    def _restart(self, index: int, cause: Exception) -> None:
        """Make an environment again that has failed, and start an episode in it."""
        while True:
            self._failures.add(index, cause)
            try:
                with suppress(Exception):  # whatever is wrong with it, it is not needed any more
                    self.envs[index].close()
                self.envs[index] = self.env_fns[index]()
                self._env_obs[index], _ = self.envs[index].reset()
            except Exception as error:
                cause = error
            else:
                return

    def _observed(self) -> Any:
        return _batched(self.single_observation_space, self._env_obs)


def _batched(space: Space[Any], rows: list[Any]) -> Any:
    """Stack observations into one array, or a dictionary of arrays, of the space's dtype."""
    if isinstance(space, spaces.Dict):
        return {key: _batched(part, [row[key] for row in rows]) for key, part in space.items()}
    return np.array(rows, space.dtype)
