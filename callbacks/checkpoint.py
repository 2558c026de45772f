"""Checkpoints that a run resumes from exactly where it was."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from rrd_lightning.callbacks.signals import DeferredSignals
from rrd_lightning.checkpoint.files import require_writable
from rrd_lightning.checkpoint.generators import set_generators
from rrd_lightning.checkpoint.kept import BEST, KeptCheckpoints
from rrd_lightning.checkpoint.replay import load_replay, redistribute_replays
from rrd_lightning.checkpoint.shards import read_shard, shard, write_shards
from rrd_lightning.data import nothing
from rrd_lightning.envs import FailedEnvironmentError
from rrd_lightning.errors import ParameterError, require_positive
from rrd_lightning.private import FindableCheckpoint
from rrd_lightning.run_folder import folder_of_runs, run_folder

LAST = "last.ckpt"


class Checkpoint(FindableCheckpoint):
    """Writes ``checkpoints/last.ckpt`` and the best checkpoints, each with its replay beside it.

    ``last.ckpt`` is written at the end of an iteration, after its evaluation if there is one. It holds
    everything that determines the rest of the run: with one process on a CPU, a resumed run ends with
    the same bits as an uninterrupted one. The checkpoints of the evaluations with the largest mean
    return are ``env_steps=N.ckpt``, and ``best.ckpt`` is a second name of the best of them. In a run
    without an environment the best have the smallest error of the predicted returns, and are named
    ``updates=N.ckpt``; as is what phases have made before the first environment step.

    Each file is staged, flushed to disk and renamed, so that a valid checkpoint exists at every moment.
    A save writes only the episodes that are new since the last one. On SIGINT and SIGTERM the run
    finishes its update, saves, and exits with status 128 + the signal's number; the scheduler's
    requeue signal is passed on to Lightning after the save.

    ``ckpt_path="last"`` of the trainer is the newest ``last.ckpt`` of this callback's run or, before its first,
    of the runs beside it; ``"best"`` is the ``best.ckpt`` of this callback's run.

    With several processes, each writes a folder of its own: its replay, generators and environments.

    Args:
        every_n_env_steps: environment steps between saves, or updates in a run without an
            environment and before the first step; the end of a run is saved as well.
        save_last: write ``last.ckpt``.
        save_top_k: number of best checkpoints to keep; -1 for all.
        save_replay: save the replay too. Without it, a resumed run fills a new one in a new warm-up.

    Raises:
        ParameterError: if a number is out of range.
    """

    def __init__(
        self,
        every_n_env_steps: int = 10_000,
        save_last: bool = True,
        save_top_k: int = 1,
        save_replay: bool = True,
    ) -> None:
        super().__init__()
        require_positive(every_n_env_steps=every_n_env_steps)
        if save_top_k < -1:
            raise ParameterError("checkpoint.save_top_k", save_top_k, "must be -1, for all, or at least 0")
        self.every_n_env_steps = every_n_env_steps
        self.save_last = save_last
        self.save_replay = save_replay
        self._kept = KeptCheckpoints(save_top_k)
        self._signals = DeferredSignals()
        self._intervals_saved = 0
        self._pending_best: float | None = None  # score of an evaluation that is still to be saved
        self._saving = False
        self._begun = False  # whether there is something to save
        # Environment steps and updates at the latest save of any file, and of last.ckpt.
        self._saved: tuple[int, int] | None = None
        self._saved_last: tuple[int, int] | None = None
        self._newest_replay: Path | None = None
        self._to_restore: dict[str, Any] | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Find the run's folder; a collective call, so every process makes it."""
        self._begun = False
        self._kept.folder = run_folder(trainer) / "checkpoints"
        if stage == "fit" and trainer.is_global_zero and not trainer.fast_dev_run:
            require_writable("checkpoint", self._kept.folder)

    @property
    def best_model_path(self) -> str:  # type: ignore[override]
        """Path of the best checkpoint; empty if there is none."""
        best = self._kept.folder / BEST
        return str(best) if best.is_file() else ""

    def find_last(self, trainer: Any) -> Path | None:
        """Return ``last.ckpt`` of this callback's run or, before it has one, the newest of the runs beside."""
        own = self._kept.folder / LAST
        if own.is_file():
            return own
        found = folder_of_runs(trainer).glob(f"version_*/checkpoints/{LAST}")
        return max(found, key=lambda path: path.stat().st_mtime, default=None)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Replace Lightning's signal handlers, and restore the replay and the generators."""
        self._signals.install()
        trainer.datamodule.before_step = lambda: self._save_between_steps(trainer, pl_module)
        self._begun = True
        if self._to_restore is None:
            # Before the first environment step the clock is negative.
            self._intervals_saved = min(self._intervals_saved, pl_module.progress // self.every_n_env_steps)
            return
        saved, source = self._to_restore, Path(trainer.ckpt_path).parent
        self._to_restore = None
        replay, rank, processes = trainer.datamodule.replay, trainer.global_rank, trainer.world_size
        if saved["replay"] is None:
            rank_zero_warn(
                f"{trainer.ckpt_path} was saved without its replay: a new warm-up fills an empty one"
            )
        elif saved["world_size"] == processes:
            self._newest_replay = source / saved["replay"]
            load_replay(replay, shard(self._newest_replay, rank))
            set_generators(saved["generators"])
        else:
            folders = [shard(source / saved["replay"], each) for each in range(saved["world_size"])]
            redistribute_replays(replay, folders, rank, processes)
            rank_zero_warn(
                f"{trainer.ckpt_path} was saved with a world size of {saved['world_size']}, this run has "
                f"{processes}: stored episodes are redistributed, and all environments start new episodes"
            )
        self._kept.adopt(source, writes=trainer.is_global_zero)
        each = " of each process" if processes > 1 else ""
        rank_zero_info(
            f"Resumed at {pl_module.env_steps} environment steps and {trainer.global_step} updates, "
            f"with {len(replay)} transitions in the replay{each}"
        )

    def on_collection(self, trainer: Any, pl_module: Any) -> None:
        """Save if a signal has arrived, or in the warm-up if a save is due."""
        if received := self._received(trainer):
            self._save_and_act(trainer, pl_module, received)
        elif not trainer.global_step:
            self._save_if_due(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Make the saves of the epoch's last step, after which no other asks for a batch."""
        if not trainer.should_stop:
            self._save_between_steps(trainer, pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep the score if this evaluation is among the best; it is saved before the next step."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        score = _score(trainer, pl_module)
        if self._kept.would_keep(score):
            self._pending_best = score

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the end of the run."""
        self._save_pending_best(trainer, pl_module)
        if self.save_last:
            self._save_last(trainer, pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Restore the signal handlers."""
        self._end(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Restore the signal handlers, and save a run that an environment ends.

        With several processes only the latest regular save is left, since the others do not know of it.
        """
        self._end(trainer)
        ended = self._begun and isinstance(exception, FailedEnvironmentError)
        if ended and self.save_last and trainer.world_size == 1:
            self._save_last(trainer, pl_module)
            rank_zero_info(f"Saved {self._kept.folder / LAST}")

    def _end(self, trainer: Any) -> None:
        self._signals.restore()
        if trainer.datamodule is not None:
            trainer.datamodule.before_step = nothing

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the path of the replay."""
        replay = self._newest_replay if self._saved == _position(trainer, pl_module) else None
        if replay is not None and not self._saving:
            # Lightning itself writes this checkpoint, into another folder: its replay must stay.
            self._kept.replays["elsewhere"] = replay.name
            replay = replay.absolute()
        checkpoint["replay"] = replay and str(replay.name if self._saving else replay)
        checkpoint["world_size"] = trainer.world_size

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Restore the callbacks of this process, and keep the rest for `on_train_start`.

        Raises:
            ParameterError: if the replay folder is missing.
        """
        # A checkpoint that was written without this callback has no such keys.
        saved: dict[str, Any] = {key: checkpoint.get(key) for key in ("replay", "world_size")}
        folder = saved["replay"] and Path(trainer.ckpt_path).parent / saved["replay"]
        if folder and not folder.is_dir():
            raise ParameterError("ckpt_path", str(folder), "is missing: keep this folder with its checkpoint")
        if folder and saved["world_size"] == trainer.world_size:
            saved["generators"] = read_shard(trainer, folder)
        self._to_restore = saved

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the schedule, and which checkpoints are kept."""
        return {"saves_due": self._intervals_saved, **self._kept.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the position in the schedule, and which checkpoints are kept."""
        self._intervals_saved = state_dict["saves_due"]
        self._kept.load_state_dict(state_dict)

    def _save_between_steps(self, trainer: Any, module: Any) -> None:
        """Make the saves that are due, and end the run if a signal has arrived.

        Lightning has then written the metrics of the step before, so that a kill loses none of them.
        """
        data = trainer.datamodule
        self._save_pending_best(trainer, module)
        if not data.batches_left:
            self._save_if_due(trainer, module)
        # Several processes that collect exchange signals before collecting, and so not here.
        exchanges = trainer.world_size == 1 or (data.refill is nothing and not data.batches_left)
        if exchanges and (received := self._received(trainer)):
            self._save_and_act(trainer, module, received)

    def _received(self, trainer: Any) -> int:
        """Return the signal that any of the processes has received; a collective call."""
        received = self._signals.received
        if trainer.world_size > 1:
            number = torch.tensor(received, device=trainer.strategy.root_device)
            received = int(trainer.strategy.reduce(number, reduce_op="max"))
        return received

    def _save_pending_best(self, trainer: Any, module: Any) -> None:
        if self._pending_best is not None:
            steps = module.env_steps
            name = f"env_steps={steps}.ckpt" if steps else f"updates={trainer.global_step}.ckpt"
            self._kept.scores[name] = self._pending_best
            self._pending_best = None
            self._save(trainer, module, name)

    def _save_if_due(self, trainer: Any, module: Any) -> None:
        intervals = module.progress // self.every_n_env_steps
        if self.save_last and intervals > self._intervals_saved:
            self._intervals_saved = intervals
            self._save_last(trainer, module)

    def _save_last(self, trainer: Any, module: Any) -> None:
        if self._saved_last != _position(trainer, module):
            self._save(trainer, module, LAST)
            self._saved_last = self._saved

    def _save_and_act(self, trainer: Any, module: Any, received: int) -> None:
        self._save_last(trainer, module)
        rank_zero_info(f"Saved {self._kept.folder / LAST}")
        self._signals.act(received, quiet=not trainer.is_global_zero)

    def _save(self, trainer: Any, module: Any, name: str) -> None:
        """Write the replay, then the checkpoint that refers to it, then delete what is not needed."""
        if trainer.fast_dev_run:
            return
        kept, position = self._kept, _position(trainer, module)
        if self.save_replay and self._saved != position:
            folder = kept.folder / "replay-{}-{}".format(*position)
            write_shards(trainer, folder, self._newest_replay)
            self._newest_replay = folder
        self._saved = position
        kept.replays[name] = self._newest_replay.name if self.save_replay and self._newest_replay else None
        self._saving = True
        trainer.save_checkpoint(kept.folder / name, weights_only=False)
        self._saving = False
        kept.prune(writes=trainer.is_global_zero)


def _score(trainer: Any, module: Any) -> float:
    """Return the number by which checkpoints are ranked, larger is better; NaN if it was not measured.

    It is the mean return, or minus the error of the predicted returns in a run without an environment.
    """
    metrics = trainer.callback_metrics
    if module.collects:
        return float(metrics.get("evaluate/return_mean", math.nan))
    return -float(metrics.get("evaluate/return_error", math.nan))


def _position(trainer: Any, module: Any) -> tuple[int, int]:
    return module.env_steps, trainer.global_step
