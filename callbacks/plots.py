"""Plots of a run: the learning curve, and the predicted reward of an episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from matplotlib.figure import Figure
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.callbacks.monitor import Monitor
from rrd_lightning.pictures import drawing
from rrd_lightning.run_folder import run_folder


class Plots(Callback):
    """Plots each evaluation into ``plots/`` of the run, and to TensorBoard and Weights & Biases.

    Left: mean and range of the evaluation returns against environment steps. Right: predicted and true
    reward of each step of the first episode. With a `Monitor`, and where success is known, a third shows its
    success rate and predicted returns, and when it warned.
    """

    def __init__(self) -> None:
        self._curve: list[list[float]] = []
        self._episode: tuple[Tensor, Tensor] | None = None
        self._folder = Path()
        self._path: Path | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Start a new curve in the run's folder; a collective call, so every process makes it."""
        self._curve = []
        self._folder = run_folder(trainer) / "plots"

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first episode's rewards."""
        if batch_idx == 0:
            self._episode = outputs.cpu(), batch.get(keys.REWARD).cpu()

    @rank_zero_only
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw the figure."""
        if trainer.sanity_checking or self._episode is None:
            return
        steps = pl_module.env_steps
        returns = (trainer.callback_metrics[f"evaluate/return_{name}"] for name in ("mean", "min", "max"))
        self._curve.append([steps, *map(float, returns)])
        monitor = next((each for each in trainer.callbacks if isinstance(each, Monitor)), None)
        collected = (monitor.curve, monitor.warned) if monitor and monitor.curve else None
        figure = draw(self._curve, *self._episode, collected)
        path = self._folder / f"evaluation-{steps:09d}.png"
        with drawing(path):
            figure.savefig(path, dpi=100)
            self._path = path
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure("evaluation", figure, steps, close=False)
                elif isinstance(logger, WandbLogger):
                    logger.log_image("evaluation", [str(path)])

    on_test_batch_end = on_validation_batch_end
    on_test_end = on_validation_end

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Tell where the latest figure is."""
        if self._path is not None:
            rank_zero_info(f"Picture of the run: {self._path}")

    def state_dict(self) -> dict[str, Any]:
        """Return the curve so far."""
        return {"curve": self._curve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the curve."""
        self._curve = state_dict["curve"]


def draw(
    curve: list[list[float]],
    predicted: Tensor,
    true: Tensor,
    collected: tuple[list[list[float]], list[int]] | None = None,
) -> Figure:
    """Draw learning curve and rewards.

    Args:
        curve: ``[evaluation, 4]``: environment steps, and mean, smallest and largest return.
        predicted: ``[T]``, the reward model's rewards of an episode's steps.
        true: ``[T]``, the environment's rewards.
        collected: ``[logging, 3]``, environment steps, success rate and mean predicted return of the episodes
            collected last; and environment steps of warnings.
    """
    figure = Figure(figsize=(16 if collected else 11, 4), layout="constrained")
    returns, rewards, *others = figure.subplots(1, 3 if collected else 2)
    steps, mean, low, high = zip(*curve, strict=True)
    returns.fill_between(steps, low, high, alpha=0.2, linewidth=0, label="range over episodes")
    returns.plot(steps, mean, marker="o", markersize=3, label="mean")
    returns.set(xlabel="environment steps", ylabel="episode return", title="Evaluation")
    returns.legend(frameon=False)
    rewards.plot(true.numpy(), linewidth=1, color="0.6", label="true (never seen in training)")
    rewards.plot(predicted.numpy(), linewidth=1, color="C1", label="predicted")
    rewards.set(xlabel="step of the episode", ylabel="reward per step", title="Reward of one episode")
    rewards.legend(frameon=False)
    if collected:
        draw_collected(others[0], *collected)
    return figure


def draw_collected(axes: Any, curve: list[list[float]], warned: list[int]) -> None:
    """Draw success rate and predicted return against environment steps, and a line for each warning."""
    steps, success, predicted = zip(*curve, strict=True)
    axes.plot(steps, success, color="C2")
    axes.set(xlabel="environment steps", ylim=(-0.05, 1.05), title="Episodes collected last")
    axes.set_ylabel("success rate", color="C2")
    right = axes.twinx()
    right.plot(steps, predicted, color="C1")
    right.set_ylabel("predicted return", color="C1")
    for place in warned:
        axes.axvline(place, color="C3", linestyle=":")
