"""Collection: the agent acts in environments and fills the replay with finished episodes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_warn

from rrd_lightning import keys
from rrd_lightning.data import ReplayDataModule, leave
from rrd_lightning.envs import Environment, Rollout
from rrd_lightning.envs.environment import Vectorization
from rrd_lightning.errors import ParameterError, require_positive
from rrd_lightning.seeding import derive_seed


class Collect(Callback):
    """Collects episodes before each iteration of `train_batches` updates.

    Until episodes with `warmup_steps` transitions are finished, actions are uniformly random and no update is
    made. The run ends after the updates of the iteration in which `total_env_steps` are reached.

    Args:
        env: which environment.
        num_envs: environments that are stepped together.
        vectorization: ``"sync"`` steps them one after another, ``"async"`` in a process each.
        env_steps_per_iteration: steps per iteration, over all environments.
        warmup_steps: transitions of finished episodes before the first update.
        total_env_steps: the run's budget, over all environments, with the warm-up.

    Raises:
        ParameterError: if a number is not positive, or the numbers do not fit each other.
    """

    def __init__(
        self,
        env: Environment,
        num_envs: int = 1,
        vectorization: Vectorization = "sync",
        env_steps_per_iteration: int = 100,
        warmup_steps: int = 10_000,
        total_env_steps: int = 1_000_000,
    ) -> None:
        require_positive(
            num_envs=num_envs,
            env_steps_per_iteration=env_steps_per_iteration,
            warmup_steps=warmup_steps,
            total_env_steps=total_env_steps,
        )
        if env_steps_per_iteration % num_envs:
            raise ParameterError(
                "collect.env_steps_per_iteration",
                env_steps_per_iteration,
                f"must be a multiple of num_envs={num_envs}",
            )
        if warmup_steps >= total_env_steps:
            raise ParameterError(
                "collect.warmup_steps",
                warmup_steps,
                f"must be less than total_env_steps={total_env_steps}, or no update is ever made",
            )
        self.env = env
        self.num_envs = num_envs
        self.vectorization = vectorization
        self.env_steps_per_iteration = env_steps_per_iteration
        self.warmup_steps = warmup_steps
        self.total_env_steps = total_env_steps
        self._finished: list[dict[str, float]] = []
        self._rollout: Rollout | None = None
        self._to_restore: dict[str, Any] | None = None
        self._seconds = 0.0
        self._steps = 0
        self._episodes = 0

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check, before any work, that warm-up, batch, capacity and episodes fit each other."""
        if trainer.world_size > 1:
            raise ParameterError(
                "trainer.devices", trainer.world_size, "must be 1: runs are of one process yet"
            )
        if stage == "fit":
            self.check(trainer.datamodule)

    def check(self, data: ReplayDataModule) -> None:
        """Make sure that warm-up, batch, capacity and the length of episodes fit each other.

        Raises:
            ParameterError: if they do not.
        """
        if data.batch_size > self.warmup_steps:
            raise ParameterError(
                "data.batch_size",
                data.batch_size,
                f"must be at most collect.warmup_steps={self.warmup_steps}, what the first batch is drawn from",
            )
        if data.capacity < self.warmup_steps:
            raise ParameterError(
                "data.capacity",
                data.capacity,
                f"must be at least collect.warmup_steps={self.warmup_steps}, or part of the warm-up is lost",
            )
        if self.env.max_episode_steps and data.capacity < self.env.max_episode_steps:
            raise ParameterError(
                "data.capacity",
                data.capacity,
                f"must be at least the {self.env.max_episode_steps} steps of an episode of {self.env.id}",
            )

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the environments, and stand by for the data's call for more."""
        self._rollout = rollout = Rollout(self.env.make_vector(self.num_envs, self.vectorization))
        rollout.envs.action_space.seed(derive_seed("warm-up", trainer.global_rank))
        if self._to_restore and len(self._to_restore["partial"]) != self.num_envs:
            rank_zero_warn(f"num_envs={self.num_envs} is not the checkpoint's: every environment begins anew")
            self._to_restore = None
        if self._to_restore is None:
            rollout.reset(derive_seed("collect", trainer.global_rank))
        elif astray := rollout.load_state_dict(self._to_restore):
            rank_zero_warn(
                f"environments {astray} do not repeat their episode from their generator and their "
                "actions: they begin a new one"
            )
        self._to_restore = None
        data = trainer.datamodule
        data.refill = lambda: self._refill(rollout, pl_module, data)

    def _refill(self, rollout: Rollout, module: Any, data: Any) -> None:
        start = time.perf_counter()
        while (collected := data.replay.episodes.appended_transitions) < self.warmup_steps:
            if module.env_steps >= self.total_env_steps:
                raise ParameterError(
                    "collect.total_env_steps",
                    self.total_env_steps,
                    f"is spent with {collected} transitions of finished episodes collected, "
                    f"fewer than warmup_steps={self.warmup_steps}",
                )
            self._step(rollout, module, data, rollout.envs.action_space.sample())
        for _ in range(self.env_steps_per_iteration // self.num_envs):
            observation = rollout.observation.to(module.device)
            action = module.agent.act(observation, explore=True)
            self._step(rollout, module, data, action.cpu().numpy())
        self._seconds += time.perf_counter() - start

    def _step(self, rollout: Rollout, module: Any, data: Any, action: np.ndarray[Any, Any]) -> None:
        for episode in rollout.step(action):
            data.replay.add_episode(episode)
            self._episodes += 1
            length = len(episode.get(keys.ACTION))
            self._finished.append({"return": float(episode.get(keys.EPISODE_RETURN)), "length": length})
        module.env_steps += self.num_envs
        self._steps += self.num_envs

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the episodes collected since the last time, and end the run with its budget."""
        data = trainer.datamodule
        if not data.batches_left and pl_module.env_steps >= self.total_env_steps:
            trainer.should_stop = True
        if pl_module.logs_now():
            pl_module.log_dict({**self._statistics(data), "step": pl_module.clock()})

    def _statistics(self, data: Any) -> dict[str, float]:
        statistics: dict[str, float] = {
            "collect/episodes": self._episodes,
            "collect/replay_transitions": len(data.replay),
            "collect/replay_episodes": len(data.replay.episodes),
        }
        if self._seconds:
            statistics["collect/env_steps_per_second"] = self._steps / self._seconds
        if self._finished:
            for name in ("return", "length"):
                values = [episode[name] for episode in self._finished]
                statistics[f"collect/{name}_mean"] = float(np.mean(values))
        self._finished.clear()
        self._seconds, self._steps = 0.0, 0
        return statistics

    def state_dict(self) -> dict[str, Any]:
        """Return the environments in mid-episode, and the statistics that are not logged yet."""
        return {
            "rollout": self._rollout.state_dict() if self._rollout else None,
            "finished": self._finished,
            "episodes": self._episodes,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the environments' state until there are environments."""
        self._to_restore = state_dict["rollout"]
        self._finished, self._episodes = state_dict["finished"], state_dict["episodes"]

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Close the environments."""
        self._close(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the environments."""
        self._close(trainer)

    def _close(self, trainer: Any) -> None:
        if self._rollout is not None:
            self._rollout.envs.close()
            self._rollout = None
            trainer.datamodule.refill = leave
