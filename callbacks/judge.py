"""Evaluation of the reward model on the episodes of a validation."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback

from rrd_lightning.distributed import interleaved
from rrd_lightning.judging import FIGURES, judge, summarize
from rrd_lightning.private import stop_by_evaluations


class Judge(Callback):
    """Logs how well the reward model explains the validation and test episodes."""

    def __init__(self) -> None:
        self._judged: list[dict[str, float]] = []

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Let `EarlyStopping` count evaluations if it watches one of their figures."""
        stop_by_evaluations(trainer)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Discard the figures of the previous evaluation."""
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
        """Compare the reward model's prediction for one episode with the truth."""
        self._judged.append(judge(batch, outputs))

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the figures over all episodes."""
        if not (judged := self.of_all_processes(trainer)):
            return
        summary = summarize(judged)
        metrics = {f"evaluate/{name}": value for name, value in summary.items()}
        # Equal in all processes, so averaging changes nothing; without it, Lightning would warn.
        pl_module.log_dict({**metrics, "step": pl_module.clock()}, sync_dist=True)

    def of_all_processes(self, trainer: Any) -> list[dict[str, float]]:
        """Return the figures of all episodes, the first of every process before the second of every process."""
        # A figure may be missing or not a number, which is not the same.
        rows = [
            [figures.get(name, 0.0) for name in FIGURES] + [float(name in figures) for name in FIGURES]
            for figures in self._judged
        ]
        table = interleaved(trainer, torch.tensor(rows, dtype=torch.float64).reshape(-1, 2 * len(FIGURES)))
        judged = [
            {name: value for name, value, there in zip(FIGURES, *row, strict=True) if there == 1}
            for row in table.reshape(-1, 2, len(FIGURES)).tolist()
        ]
        return [figures for figures in judged if figures]

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end
