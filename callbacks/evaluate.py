"""Evaluation: deterministic episodes on fixed seeds, and the reward model on these episodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from tensordict import TensorDict
from torch import Tensor
from torchmetrics.functional import pearson_corrcoef, spearman_corrcoef

from rrd_lightning import keys
from rrd_lightning.data import NoEpisodes
from rrd_lightning.distributed import interleaved
from rrd_lightning.envs import Environment, Rollout
from rrd_lightning.errors import ParameterError, require_positive

NEVER = 2**62
FIGURES = (
    "return",
    "length",
    "predicted_return",
    "reward_rmse",
    "reward_rmse_constant",
    "reward_pearson",
    "reward_spearman",
    "success",
)


class Evaluate(Callback):
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
        require_positive(episodes=episodes, every_n_env_steps=every_n_env_steps)
        if seed < 0:
            raise ParameterError("evaluate.seed", seed, "must not be negative")
        self.env = env
        self.episodes = episodes
        self.every_n_env_steps = every_n_env_steps
        self.seed = seed
        self._evaluations_done = 0
        self._judged: list[dict[str, float]] = []

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

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the episodes of the evaluation before."""
        self._judged = []

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Judge the reward model's prediction for one episode."""
        self._judged.append(judge(batch, outputs))

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the figures of the whole evaluation."""
        summary = summarize(self._of_all_processes(trainer))
        metrics = {f"evaluate/{name}": value for name, value in summary.items()}
        # Alike in all processes: averaging them changes nothing and keeps Lightning from a warning.
        pl_module.log_dict({**metrics, "step": pl_module.clock()}, sync_dist=True)

    def _of_all_processes(self, trainer: Any) -> list[dict[str, float]]:
        """Return the figures of all episodes, in the order of their seeds."""
        missing = float("nan")
        rows = [[figures.get(name, missing) for name in FIGURES] for figures in self._judged]
        table = interleaved(trainer, torch.tensor(rows, dtype=torch.float64))
        return [
            {name: value for name, value in zip(FIGURES, row, strict=True) if value == value}
            for row in table[: self.episodes].tolist()
        ]

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Count the evaluation."""
        self._evaluations_done = pl_module.env_steps // self.every_n_env_steps

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

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
            action = self._module.agent.act(observation, explore=False)
            if finished := rollout.step(action.cpu().numpy()):
                return finished[0]


def _ends(trainer: Any) -> bool:
    """Whether the batch that has just ended is the last that Lightning's own limits leave."""
    last_epoch = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs
    last_step = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    return last_step or (last_epoch and trainer.is_last_batch)


def judge(episode: TensorDict, predicted: Tensor) -> dict[str, float]:
    """Figures of one episode, and of the rewards ``[T]`` predicted for its steps.

    Correlations are left out where the prediction or the true reward is constant.
    """
    true = episode.get(keys.REWARD)
    episode_return, length = float(episode.get(keys.EPISODE_RETURN)), len(true)
    constant = torch.full_like(true, episode_return / length)
    figures = {
        "return": episode_return,
        "length": float(length),
        "predicted_return": float(predicted.sum()),
        "reward_rmse": _rmse(predicted, true),
        "reward_rmse_constant": _rmse(constant, true),
    }
    if keys.SUCCESS in episode:
        figures["success"] = float(episode.get(keys.SUCCESS))
    if predicted.min() < predicted.max() and true.min() < true.max():
        figures["reward_pearson"] = float(pearson_corrcoef(predicted.double(), true.double()))
        figures["reward_spearman"] = float(spearman_corrcoef(predicted, true))
    return figures


def summarize(judged: list[dict[str, float]]) -> dict[str, float]:
    """Figures of a whole evaluation, from those of its episodes."""

    def column(name: str) -> np.ndarray[Any, Any]:
        return np.array([figures[name] for figures in judged if name in figures])

    returns, lengths, predicted = column("return"), column("length"), column("predicted_return")
    # The constant per-step reward that comes nearest to all returns knows no step from another.
    constant = returns.sum() / lengths.sum()
    summary = {
        "return_mean": returns.mean(),
        "return_std": returns.std(),
        "return_min": returns.min(),
        "return_max": returns.max(),
        "length_mean": lengths.mean(),
        "return_error": np.abs(predicted - returns).mean(),
        "return_error_constant": np.abs(constant * lengths - returns).mean(),
    }
    averaged = ("reward_rmse", "reward_rmse_constant", "reward_pearson", "reward_spearman", "success")
    summary.update({name: column(name).mean() for name in averaged if len(column(name))})
    return {name: float(value) for name, value in summary.items()}


def _rmse(predicted: Tensor, true: Tensor) -> float:
    return float((predicted - true).square().mean().sqrt())
