"""Collection: the agent acts in environments and fills the replay with finished episodes."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_warn
from tensordict import TensorDict

from rrd_lightning import keys
from rrd_lightning.data import ReplayDataModule, nothing
from rrd_lightning.distributed import summed
from rrd_lightning.envs import Environment, Rollout
from rrd_lightning.envs.environment import Vectorization
from rrd_lightning.errors import ParameterError, require_positive
from rrd_lightning.replay import EpisodeReplay
from rrd_lightning.seeding import derive_seed


class Collect(Callback):
    """Collects episodes before each iteration of `train_batches` updates.

    During the warm-up, until the finished episodes have `warmup_steps` steps, actions are
    uniformly random and no update is made. The run ends after the updates of the iteration in which
    `total_env_steps` are reached. Steps are counted over the whole job: with several processes each
    makes its share of them, in its own environments. Where the environment repeats actions, each counts as
    `Environment.action_repeat` steps, also the last one of an episode that ends within it.

    Before each iteration's steps, also in the warm-up, it calls ``on_collection(trainer, pl_module)`` of
    every callback that has this method. All processes have then made the same number of steps and
    updates. After the steps it calls ``on_episodes(trainer, pl_module, episodes)`` with the episodes that
    have ended, as they were observed.

    Args:
        env: the environment to collect in.
        num_envs: number of environments that each process steps together.
        vectorization: ``"sync"`` steps them one after another, ``"async"`` each in a worker process. A
            worker that fails is replaced, and its episode dropped.
        env_steps_per_iteration: steps per iteration, over all environments.
        warmup_steps: steps of finished episodes before the first update.
        total_env_steps: the run's budget, over all environments, including the warm-up.
        worker_timeout: seconds that a step or reset of a worker may take before it counts as failed.

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
        worker_timeout: float = 300.0,
    ) -> None:
        require_positive(
            num_envs=num_envs,
            env_steps_per_iteration=env_steps_per_iteration,
            warmup_steps=warmup_steps,
            total_env_steps=total_env_steps,
            worker_timeout=worker_timeout,
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
        self.worker_timeout = worker_timeout
        self._rollout: Rollout | None = None
        self._to_restore: dict[str, Any] | None = None
        self._episodes = 0
        self._dropped = 0
        self._latest: dict[str, float] = {}
        # Sums over finished episodes, and time spent collecting, since metrics were last logged.
        self._finished = dict.fromkeys(("episodes", "return", "length"), 0.0)
        self._spent = dict.fromkeys(("steps", "seconds"), 0.0)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check, before any work, that the numbers are consistent with each other."""
        if trainer.world_size > 1 and not isinstance(trainer.strategy, DDPStrategy):
            name = type(trainer.strategy).__name__
            raise ParameterError("trainer.strategy", name, "does not support several processes: use ddp")
        if stage == "fit":
            self.check(trainer.datamodule, trainer.world_size)
            if self.env.feedback_every:
                trainer.datamodule.expect_feedback_every(self.env.feedback_every)

    def check(self, data: ReplayDataModule, processes: int = 1) -> None:
        """Check that warm-up, batch size, capacity and episode length are consistent.

        Raises:
            ParameterError: if they are not.
        """
        repeat = self.env.action_repeat
        each = "" if processes == 1 else f" divided by {processes} processes"
        repeated = "" if repeat == 1 else f" divided by env.action_repeat={repeat}"
        if self.env_steps_per_iteration % (self.num_envs * processes * repeat):
            raise ParameterError(
                "collect.env_steps_per_iteration",
                self.env_steps_per_iteration,
                f"must be a multiple of num_envs={self.num_envs}"
                + ("" if processes == 1 else f" times {processes} processes")
                + ("" if repeat == 1 else f" times env.action_repeat={repeat}"),
            )
        if data.batch_size > self.warmup_steps // processes // repeat:
            raise ParameterError(
                "data.batch_size",
                data.batch_size,
                f"must be at most collect.warmup_steps={self.warmup_steps}{each}{repeated}, "
                "from which the first batch is drawn",
            )
        if data.capacity < self.warmup_steps // repeat:
            raise ParameterError(
                "data.capacity",
                data.capacity,
                f"must be at least collect.warmup_steps={self.warmup_steps}{repeated}, "
                "or part of the warm-up is lost",
            )
        data.longest_episode = -(-(self.env.max_episode_steps or 0) // repeat)
        if data.capacity // processes < data.longest_episode:
            raise ParameterError(
                "data.capacity",
                data.capacity,
                f"{each} must be at least the {self.env.max_episode_steps} steps of an episode "
                f"of {self.env.id}{repeated}".lstrip(),
            )

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the environments, restore them if the run is resumed, and collect whenever data is needed."""
        envs = self.env.make_vector(self.num_envs, self.vectorization, self.worker_timeout)
        self._rollout = rollout = Rollout(envs, self.env.frame_stack)
        rollout.dropped = self._dropped
        moment = trainer.global_rank, pl_module.env_steps
        rollout.envs.action_space.seed(derive_seed("warm-up", *moment))
        if self._to_restore and len(self._to_restore["partial"]) != self.num_envs:
            rank_zero_warn(
                f"num_envs={self.num_envs} differs from the checkpoint's {len(self._to_restore['partial'])}: "
                "all environments start new episodes"
            )
            self._to_restore = None
        if self._to_restore is None:
            rollout.reset(derive_seed("collect", *moment))
        elif diverged := rollout.load_state_dict(self._to_restore):
            rank_zero_warn(
                f"environments {diverged} could not be fast-forwarded to the checkpoint's state (they are not "
                "deterministic given seed and actions): they start new episodes"
            )
        self._to_restore = None
        pl_module.collects = True
        trainer.datamodule.refill = lambda: self._refill(rollout, trainer, pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """End at once if a run is resumed whose budget was already spent."""
        if not trainer.datamodule.batches_left and pl_module.env_steps >= self.total_env_steps:
            trainer.should_stop = True

    def _refill(self, rollout: Rollout, trainer: Any, module: Any) -> None:
        replay = trainer.datamodule.replay
        _call(trainer, "on_collection", module)
        while not self._warmed_up(trainer, module, replay):
            self._collect(rollout, trainer, module, random=True)
            _call(trainer, "on_collection", module)
        self._collect(rollout, trainer, module)

    def _warmed_up(self, trainer: Any, module: Any, replay: EpisodeReplay) -> bool:
        steps = replay.episodes.appended_transitions * self.env.action_repeat
        finished, empty = summed(trainer, [steps, not len(replay)])
        if finished >= self.warmup_steps and not empty:
            return True
        if module.env_steps >= self.total_env_steps:
            endless = not finished and self.env.max_episode_steps is None
            raise ParameterError(
                "collect.total_env_steps",
                self.total_env_steps,
                f"is spent with {finished:.0f} steps of finished episodes collected, "
                f"fewer than warmup_steps={self.warmup_steps}"
                + (f": {self.env.id} has no time limit, set env.max_episode_steps" if endless else ""),
            )
        return False

    def _collect(self, rollout: Rollout, trainer: Any, module: Any, *, random: bool = False) -> None:
        """Take this process's share of an iteration's steps."""
        start = time.perf_counter()
        finished: list[TensorDict] = []
        observed: list[Any] = []
        together = self.num_envs * trainer.world_size * self.env.action_repeat
        for _ in range(self.env_steps_per_iteration // together):
            if random:
                action = rollout.envs.action_space.sample()
            else:
                observation = rollout.observation.to(module.device)
                action = module.explore(observation).cpu().numpy()
            for episode in rollout.step(action):
                finished.append(episode)
                encoded = module.encoded(episode)
                observed.append(encoded[keys.OBSERVATION])
                trainer.datamodule.replay.add_episode(encoded)
                self._episodes += 1
                self._finished["episodes"] += 1
                self._finished["return"] += float(episode.get(keys.EPISODE_RETURN))
                self._finished["length"] += len(episode.get(keys.ACTION))
        module.observe(observed)
        _call(trainer, "on_episodes", module, finished)
        self._dropped = rollout.dropped
        module.env_steps += self.env_steps_per_iteration
        self._spent["steps"] += self.env_steps_per_iteration
        self._spent["seconds"] += time.perf_counter() - start

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the episodes collected since the last log, and end the run once its budget is spent."""
        if not trainer.datamodule.batches_left and pl_module.env_steps >= self.total_env_steps:
            trainer.should_stop = True
        if pl_module.logs_now():
            pl_module.log_dict({**self._statistics(trainer), "step": pl_module.clock()})

    def _statistics(self, trainer: Any) -> dict[str, float]:
        """Return the metrics over all processes, and reset the sums."""
        replay = trainer.datamodule.replay
        ends = replay.episodes["ends"]
        counts = [self._episodes, self._dropped, len(replay), int(ends.sum()), self._spent["seconds"]]
        success = replay.episodes["success"][ends]
        counts += [int((success == 1).sum()), int((success >= 0).sum())]
        counts = summed(trainer, [*counts, *self._finished.values()])
        episodes, dropped, transitions, stored, seconds, successes, known, finished, returns, lengths = counts
        # A metric without new data keeps its value, as Lightning's do within an epoch.
        statistics = self._latest
        statistics["collect/episodes"] = episodes
        statistics["collect/dropped_episodes"] = dropped
        statistics["collect/replay_transitions"] = transitions
        statistics["collect/replay_episodes"] = stored
        if known:
            statistics["collect/replay_success"] = successes / known
        if seconds:
            statistics["collect/env_steps_per_second"] = self._spent["steps"] * trainer.world_size / seconds
        if finished:
            statistics["collect/return_mean"] = returns / finished
            statistics["collect/length_mean"] = lengths / finished
        self._finished = dict.fromkeys(self._finished, 0.0)
        self._spent = dict.fromkeys(self._spent, 0.0)
        return statistics

    def state_dict(self) -> dict[str, Any]:
        """Return the id of the environment."""
        return {"env": self.env.id}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another environment.

        Raises:
            ParameterError: naming the file and both environments.
        """
        # A checkpoint that was written without this callback does not know the environment.
        trained_on = checkpoint["callbacks"].get(self.state_key, {}).get("env", self.env.id)
        if trained_on != self.env.id:
            raise ParameterError("env.id", self.env.id, f"{trainer.ckpt_path} was trained on {trained_on}")

    def process_state_dict(self) -> dict[str, Any]:
        """Return this process's environments in mid-episode, and the statistics not logged yet."""
        rollout = self._rollout
        return {
            "rollout": rollout and rollout.state_dict(),
            "finished": self._finished,
            "episodes": self._episodes,
            "dropped": self._dropped,
            "latest": self._latest,
        }

    def load_process_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the environments' state until there are environments."""
        self._to_restore = state_dict["rollout"]
        self._finished, self._episodes = state_dict["finished"], state_dict["episodes"]
        self._dropped, self._latest = state_dict["dropped"], state_dict["latest"]

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
            trainer.datamodule.refill = nothing


def _call(trainer: Any, name: str, *args: Any) -> None:
    for callback in trainer.callbacks:
        if hook := getattr(callback, name, None):
            hook(trainer, *args)
