"""Checkpoints from which a run goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from rrd_lightning.errors import require_positive
from rrd_lightning.replay.saving import load_replay, save_replay, sync_folder

MONITOR = "evaluate/return_mean"


class Checkpoint(LightningCheckpoint):
    """Writes ``checkpoints/last.ckpt``, with the replay beside it, and ``checkpoints/best.ckpt``.

    ``last.ckpt`` is written at the end of an iteration, after its evaluation if there is one, and
    holds all that decides what comes next: with one process on a CPU, a run that is resumed from it
    ends with the same bits as one that was never stopped. ``best.ckpt`` has the largest mean return of
    an evaluation so far and is meant for use: it comes without the replay.

    Files are written aside, flushed to the disk and renamed, so a valid checkpoint is there at every
    moment. A save writes the episodes that are new since the last one.

    Args:
        every_n_env_steps: environment steps between saves; the end of a run is saved as well.
        save_replay: save the replay, too. Resuming without it begins with a new warm-up.

    Raises:
        ParameterError: if the number of steps is not positive.
    """

    def __init__(self, every_n_env_steps: int = 10_000, save_replay: bool = True) -> None:
        super().__init__()
        require_positive(every_n_env_steps=every_n_env_steps)
        self.every_n_env_steps = every_n_env_steps
        self.save_replay = save_replay
        self.best_return = float("-inf")
        self._saves_due = 0
        self._saved_step = -1
        self._replay_folder: Path | None = None
        self._replay_written: str | None = None
        self._to_restore: dict[str, Any] | None = None

    def folder(self, trainer: Any) -> Path:
        """Where the checkpoints are."""
        return Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints"

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Restore the replay and, last of all, the random generators."""
        if self._to_restore is None:
            return
        if replay_folder := self._to_restore["replay"]:
            load_replay(trainer.datamodule.replay, Path(trainer.ckpt_path).parent / replay_folder)
        else:
            rank_zero_warn(f"{trainer.ckpt_path} holds no replay: a new one is filled by a new warm-up")
        if self._to_restore["generators"]:
            _set_generators(self._to_restore["generators"])
        rank_zero_info(
            f"Resumed at {pl_module.env_steps} environment steps and {trainer.global_step} updates, "
            f"with {len(trainer.datamodule.replay)} transitions in the replay"
        )
        self._to_restore = None

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, if this batch ends an iteration, it is time, and no evaluation comes first."""
        evaluation_follows = trainer.val_check_batch == 1 or trainer.should_stop
        if not trainer.datamodule.batches_left and not evaluation_follows:
            self._save_if_due(trainer, pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Save, if it is time, and keep the best."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.fast_dev_run:
            return
        if (reached := float(trainer.callback_metrics.get(MONITOR, float("-inf")))) > self.best_return:
            self.best_return = reached
            self._write(trainer, "best.ckpt", replay=None)
        self._save_if_due(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the end of the run."""
        self._save(trainer)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the random generators, and where the replay is."""
        checkpoint["generators"] = _get_generators()
        checkpoint["replay"] = self._replay_written

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep what can be restored when everything else is in place."""
        # Without this callback, a checkpoint has neither.
        self._to_restore = {key: checkpoint.get(key) for key in ("generators", "replay")}

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's position and the best return."""
        return {"saves_due": self._saves_due, "best_return": self.best_return}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the schedule's position and the best return."""
        self._saves_due, self.best_return = state_dict["saves_due"], state_dict["best_return"]

    def _save_if_due(self, trainer: Any, module: Any) -> None:
        due = module.env_steps // self.every_n_env_steps
        if due > self._saves_due:
            self._saves_due = due
            self._save(trainer)

    def _save(self, trainer: Any) -> None:
        """Write the replay and then ``last.ckpt``, which names it; then drop the one before."""
        if trainer.global_step == self._saved_step or trainer.fast_dev_run:
            return
        self._saved_step = trainer.global_step
        previous = self._replay_folder
        if self.save_replay:
            replay_folder = self.folder(trainer) / f"replay-{trainer.global_step}"
            shutil.rmtree(replay_folder, ignore_errors=True)
            save_replay(trainer.datamodule.replay, replay_folder, previous)
            self._replay_folder = replay_folder
        self._write(trainer, "last.ckpt", replay=self._replay_folder)
        if previous is not None:
            shutil.rmtree(previous)

    def _write(self, trainer: Any, name: str, *, replay: Path | None) -> None:
        path = self.folder(trainer) / name
        staged = path.with_suffix(".part")
        self._replay_written = replay.name if replay else None
        trainer.save_checkpoint(staged, weights_only=False)
        self._replay_written = None
        with staged.open("rb") as file:
            os.fsync(file.fileno())
        staged.replace(path)
        sync_folder(path.parent)


def _get_generators() -> dict[str, Any]:
    """The state of every process-wide generator, as tensors and text: nothing to unpickle."""
    return {
        "python": json.dumps(random.getstate()),
        "numpy": json.dumps(np.random.get_state(legacy=False), default=np.ndarray.tolist),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_generators(generators: dict[str, Any]) -> None:
    version, internal, gauss = json.loads(generators["python"])
    random.setstate((version, tuple(internal), gauss))
    state = json.loads(generators["numpy"])
    state["state"]["key"] = np.array(state["state"]["key"], dtype=np.uint32)
    np.random.set_state(state)  # noqa: NPY002
    torch.set_rng_state(generators["torch"])
    if len(generators["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(generators["cuda"])
