"""Evaluation: deterministic episodes on fixed seeds, which the reward model is judged by as well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tensordict import TensorDict

from rrd_lightning.callbacks.judge import Judge
from rrd_lightning.data import NoEpisodes
from rrd_lightning.envs import Environment, Rollout
from rrd_lightning.errors import ParameterError, require_positive

NEVER = 2**62


class Evaluate(Judge):
    """Plays episodes without exploration, during fit and under ``rrd validate`` and ``rrd test``.

    Several processes share the episodes out among themselves.

    Args:
        env: which environment.
        episodes: how many, played on seeds 0, 1, … counted from `seed`.
        every_n_env_steps: environment steps between evaluations during fit; the end of a run is
            evaluated as well.
        seed: of the first episode.

    Raises:
        ParameterError: if a number is not positive, or the seed is negative.
    """

    def __init__(
        self, env: Environment, episodes: int = 10, every_n_env_steps: int = 10_000, seed: int = 0
    ) -> None:
        super().__init__()
        require_positive(episodes=episodes, every_n_env_steps=every_n_env_steps)
        if seed < 0:
            raise ParameterError("evaluate.seed", seed, "must not be negative")
        self.env = env
        self.episodes = episodes
        self.every_n_env_steps = every_n_env_steps
        self.seed = seed
        self._evaluations_done = 0

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Make this callback's episodes the ones that Lightning validates and tests with."""
        if trainer.datamodule is None:
            raise ParameterError("datamodule", None, "Evaluate needs a ReplayDataModule")
        if stage == "fit":
            self._evaluations_done = 0
        trainer.datamodule.evaluation_episodes = EvaluationEpisodes(self, pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Take the episodes away again."""
        trainer.datamodule.evaluation_episodes = NoEpisodes()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Keep Lightning from validating on a schedule of its own."""
        trainer.val_check_batch = NEVER

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let Lightning validate after this batch, if it ends an iteration and it is time."""
        due = pl_module.env_steps // self.every_n_env_steps > self._evaluations_done
        time_to = (due and not trainer.datamodule.batches_left) or _ends(trainer)
        # Lightning validates after each batch whose count is a multiple of this.
        trainer.val_check_batch = 1 if time_to and trainer.enable_validation else NEVER

    def of_all_processes(self, trainer: Any) -> list[dict[str, float]]:
        """Return the figures of the episodes that count, in the order of their seeds."""
        return super().of_all_processes(trainer)[: self.episodes]

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Count the evaluation."""
        self._evaluations_done = pl_module.env_steps // self.every_n_env_steps

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's position."""
        return {"evaluations_done": self._evaluations_done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the schedule's position."""
        self._evaluations_done = state_dict["evaluations_done"]


class EvaluationEpisodes:
    """Plays one episode after another, as Lightning asks for them.

    Each process plays the same number, so that none waits for ever for another's batch: where the
    episodes cannot be shared out evenly, some are played that nobody counts.
    """

    def __init__(self, evaluate: Evaluate, module: Any) -> None:
        self._evaluate = evaluate
        self._module = module

    def __len__(self) -> int:
        """The number of this process's episodes."""
        processes: int = self._module.trainer.world_size
        return -(-self._evaluate.episodes // processes)

    def __iter__(self) -> Iterator[TensorDict]:
        """Play the episodes on their seeds."""
        envs = self._evaluate.env.make_vector(1)
        rollout = Rollout(envs)
        try:
            trainer = self._module.trainer
            for episode in range(len(self)):
                place = episode * trainer.world_size + trainer.global_rank
                rollout.reset(self._evaluate.seed + place)
                yield self._play(rollout)
        finally:
            envs.close()

    def _play(self, rollout: Rollout) -> TensorDict:
        while True:
            observation = rollout.observation.to(self._module.device)
            action = self._module.act(observation, explore=False)
            if finished := rollout.step(action.cpu().numpy()):
                return finished[0]


def _ends(trainer: Any) -> bool:
    """Whether the batch that has just ended is the last that Lightning's own limits leave."""
    last_epoch = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs
    last_step = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    return last_step or (last_epoch and trainer.is_last_batch)
