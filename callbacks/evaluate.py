"""Evaluation: episodes of the deterministic policy on fixed seeds, also used to judge the reward model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict

from rrd_lightning import keys
from rrd_lightning.callbacks.judge import Judge
from rrd_lightning.dataloaders import NoEpisodes
from rrd_lightning.envs import Environment, Rollout
from rrd_lightning.envs.sequential import SequentialVectorEnv
from rrd_lightning.errors import ParameterError, require_not_negative, require_positive

NEVER = 2**62


class Evaluate(Judge):
    """Plays episodes without exploration, during fit and under ``rrd validate`` and ``rrd test``.

    Several processes divide the episodes among themselves.

    Args:
        env: the environment to evaluate in.
        episodes: number of episodes, played with the seeds `seed`, `seed` + 1, ….
        every_n_env_steps: environment steps between evaluations during fit; the end of a run is
            evaluated as well, and what phases have made before the first environment step.
        seed: seed of the first episode.
        filmed_episodes: take pictures of so many of the first episodes by the environment's own renderer, for
            `Videos`. It needs none where images are observed.

    Raises:
        ParameterError: if a number is not positive, the seed is negative, or the environment cannot be filmed.
    """

    def __init__(
        self,
        env: Environment,
        episodes: int = 10,
        every_n_env_steps: int = 10_000,
        seed: int = 0,
        filmed_episodes: int = 0,
    ) -> None:
        super().__init__()
        require_positive(episodes=episodes, every_n_env_steps=every_n_env_steps)
        require_not_negative(**{"evaluate.filmed_episodes": filmed_episodes})
        if seed < 0:
            raise ParameterError("evaluate.seed", seed, "must not be negative")
        self.env = env
        self.episodes = episodes
        self.every_n_env_steps = every_n_env_steps
        self.seed = seed
        self.filmed_episodes = filmed_episodes
        self._evaluations_done = 0
        self._knows_success = False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Provide the episodes that Lightning validates and tests with."""
        if trainer.datamodule is None:
            raise ParameterError("datamodule", None, "Evaluate needs a ReplayDataModule")
        if self.filmed_episodes:
            self._check_film()
        if stage == "fit":
            self._evaluations_done = 0
        trainer.datamodule.evaluation_episodes = EvaluationEpisodes(self, pl_module)

    def _check_film(self) -> None:
        """Take a picture now rather than fail at the first evaluation."""
        try:
            env = self.env.make(film=True)
            env.reset(seed=self.seed)
            env.close()
        except Exception as error:  # environments and renderers may raise anything
            raise ParameterError(
                "evaluate.filmed_episodes",
                self.filmed_episodes,
                f"{self.env.id} cannot be filmed, must be 0: {error!r}",
            ) from error

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Remove the episodes from the DataModule."""
        trainer.datamodule.evaluation_episodes = NoEpisodes()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Disable Lightning's own validation schedule."""
        trainer.val_check_batch = NEVER

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Trigger validation after this batch if it ends an iteration and an evaluation is due."""
        due = pl_module.env_steps // self.every_n_env_steps > self._evaluations_done or (
            not pl_module.env_steps and trainer.global_step == pl_module.phases.before_collection
        )
        time_to = (due and not trainer.datamodule.batches_left) or _ends(trainer)
        # Lightning validates after every batch whose index is a multiple of val_check_batch.
        trainer.val_check_batch = 1 if time_to and trainer.enable_validation else NEVER

    def of_all_processes(self, trainer: Any) -> list[dict[str, float]]:
        """Return the figures of the first `episodes` episodes, ordered by seed.

        An episode that says nothing of success is none, in an environment that has ever told it.
        """
        judged = super().of_all_processes(trainer)[: self.episodes]
        self._knows_success |= any("success" in figures for figures in judged)
        return [{"success": 0.0, **figures} for figures in judged] if self._knows_success else judged

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Count the evaluation."""
        self._evaluations_done = pl_module.env_steps // self.every_n_env_steps

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the schedule, and whether the environment tells success."""
        return {"evaluations_done": self._evaluations_done, "knows_success": self._knows_success}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._evaluations_done = state_dict["evaluations_done"]
        self._knows_success = state_dict.get("knows_success", False)


class EvaluationEpisodes:
    """Plays one episode after another, as Lightning iterates.

    Every process plays the same number of episodes, since Lightning synchronises the processes after
    each; where they do not divide evenly, the surplus episodes are not counted.
    """

    def __init__(self, evaluate: Evaluate, module: Any) -> None:
        self._evaluate = evaluate
        self._module = module

    def __len__(self) -> int:
        """The number of this process's episodes."""
        processes: int = self._module.trainer.world_size
        return -(-self._evaluate.episodes // processes)

    def __iter__(self) -> Iterator[TensorDict]:
        """Play the episodes, each with its seed."""
        env, filmed = self._evaluate.env, self._evaluate.filmed_episodes
        envs = SequentialVectorEnv([partial(env.make, film=filmed > 0)])
        rollout = Rollout(envs, env.frame_stack)
        try:
            trainer = self._module.trainer
            for number in range(len(self)):
                place = number * trainer.world_size + trainer.global_rank
                if filmed:
                    envs.set_attr("rolling", number < filmed)
                episode = self._play(rollout, self._evaluate.seed + place)
                if number < filmed:
                    (film,) = envs.get_attr("film")
                    episode[keys.FILM] = torch.from_numpy(film)
                yield episode
        finally:
            envs.close()

    def _play(self, rollout: Rollout, seed: int) -> TensorDict:
        dropped = -1
        while True:
            if rollout.dropped != dropped:  # with the same seed again, as often as failures are allowed
                dropped = rollout.dropped
                rollout.reset(seed)
                continue
            observation = rollout.observation.to(self._module.device)
            action = self._module.act(observation, explore=False)
            if finished := rollout.step(action.cpu().numpy()):
                return finished[0]


def _ends(trainer: Any) -> bool:
    """Whether `max_epochs` or `max_steps` of the trainer end the run after this batch."""
    last_epoch = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs
    last_step = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    return last_step or (last_epoch and trainer.is_last_batch)
