"""Checkpoints from which a run goes on as if nothing had happened."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from rrd_lightning.callbacks.signals import DeferredSignals
from rrd_lightning.checkpoint.files import link, read, require_writable, sync_folder, write
from rrd_lightning.checkpoint.replay import load_replay, redistribute_replays, save_replay
from rrd_lightning.data import no_collection
from rrd_lightning.errors import ParameterError, require_positive

LAST, BEST = "last.ckpt", "best.ckpt"


class Checkpoint(LightningCheckpoint):
    """Writes ``checkpoints/last.ckpt`` and the best ones, each with the replay beside it.

    ``last.ckpt`` is written at the end of an iteration, after its evaluation if there is one, and
    holds all that decides what comes next: with one process on a CPU, a run that is resumed from it
    ends with the same bits as one that was never stopped. The checkpoints with the largest mean
    returns of an evaluation are ``env_steps=N.ckpt``, and the best of them has the name ``best.ckpt``
    as well. In a run without an environment the best are those with the smallest error of the predicted
    returns, ``updates=N.ckpt``.

    Files are written aside, flushed to the disk and renamed, so a valid checkpoint is there at every
    moment. A save writes the episodes that are new since the last one. On SIGINT and SIGTERM the run
    finishes its update, saves and exits with status 128 + the signal's number; the scheduler's
    requeue signal is handed to Lightning at such a moment.

    With several processes, each writes a folder of its own: its replay, generators and environments.

    Args:
        every_n_env_steps: environment steps between saves, or updates in a run without an
            environment; the end of a run is saved as well.
        save_last: write ``last.ckpt``.
        save_top_k: how many of the best evaluations to keep; -1 for all of them.
        save_replay: save the replay, too. Resuming without it begins with a new warm-up.

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
        self.save_top_k = save_top_k
        self.save_replay = save_replay
        self._folder = Path()
        self._signals = DeferredSignals()
        self._returns: dict[str, float] = {}
        self._replays: dict[str, str | None] = {}
        self._saves_due = 0
        self._new_best: float | None = None
        self._saving = False
        self._saved: tuple[int, int] | None = None
        self._saved_last: tuple[int, int] | None = None
        self._newest_replay: Path | None = None
        self._to_restore: dict[str, Any] | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Find the run's folder, which all processes must ask for together."""
        self._folder = Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints"
        if stage == "fit" and trainer.is_global_zero and not trainer.fast_dev_run:
            require_writable("checkpoint", self._folder)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take care of signals, after Lightning has, and restore the replay and the generators."""
        self._signals.install()
        if self._to_restore is None:
            return
        saved, source = self._to_restore, Path(trainer.ckpt_path).parent
        self._to_restore = None
        replay, rank, processes = trainer.datamodule.replay, trainer.global_rank, trainer.world_size
        if saved["replay"] is None:
            rank_zero_warn(f"{trainer.ckpt_path} holds no replay: a new one is filled by a new warm-up")
        elif saved["world_size"] == processes:
            self._newest_replay = source / saved["replay"]
            load_replay(replay, self._newest_replay / _rank_folder(rank))
            _set_generators(saved["process"]["generators"])
        else:
            folders = [source / saved["replay"] / _rank_folder(each) for each in range(saved["world_size"])]
            redistribute_replays(replay, folders, rank, processes)
            rank_zero_warn(
                f"{trainer.ckpt_path} is of {saved['world_size']} processes and this run of {processes}: "
                "the stored episodes are dealt out again, and every environment begins anew"
            )
        self._adopt_best(source, trainer.is_global_zero)
        each = " of each process" if processes > 1 else ""
        rank_zero_info(
            f"Resumed at {pl_module.env_steps} environment steps and {trainer.global_step} updates, "
            f"with {len(replay)} transitions in the replay{each}"
        )

    def on_collection(self, trainer: Any, pl_module: Any) -> None:
        """Save, if the run is to end, or if it is time and the first update is still to come."""
        if received := self._received(trainer):
            self._save_and_act(trainer, pl_module, received)
        elif not trainer.global_step:
            self._save_if_due(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, if it is time and no evaluation comes first, or if the run is to end."""
        if trainer.val_check_batch == 1 or trainer.should_stop:
            return
        if not trainer.is_last_batch:
            self._save_at_rest(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Save what would have been saved after the epoch's last batch.

        From there Lightning would resume with one epoch less on its count.
        """
        if not trainer.should_stop:
            self._save_at_rest(trainer, pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Save, if this evaluation is one of the best, it is time, or the run is to end."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        reached = _score(trainer, pl_module)
        if self._among_best(reached):
            self._new_best = reached
        if not trainer.is_last_batch:
            self._save_at_rest(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the end of the run."""
        self._save_new_best(trainer, pl_module)
        if self.save_last:
            self._save_last(trainer, pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Give the signals back."""
        self._signals.restore()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Give the signals back."""
        self._signals.restore()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Say where the replay is."""
        replay = self._newest_replay if self._saved == _position(trainer, pl_module) else None
        if replay is not None and not self._saving:
            # A checkpoint that Lightning writes, somewhere else: its replay has to stay.
            self._replays["elsewhere"] = replay.name
            replay = replay.absolute()
        checkpoint["replay"] = replay and str(replay.name if self._saving else replay)
        checkpoint["world_size"] = trainer.world_size

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Hand this process's state to the callbacks, and keep what has to wait for its turn."""
        # Without this callback, a checkpoint has no replay.
        saved: dict[str, Any] = {key: checkpoint.get(key) for key in ("replay", "world_size")}
        folder = saved["replay"] and Path(trainer.ckpt_path).parent / saved["replay"]
        if folder and not folder.is_dir():
            raise ParameterError("ckpt_path", str(folder), "is missing: keep this folder with its checkpoint")
        if folder and saved["world_size"] == trainer.world_size:
            saved["process"] = read(folder / _rank_folder(trainer.global_rank) / "process.pt")
            for callback in _with_process_state(trainer):
                if state := saved["process"]["callbacks"].get(callback.state_key):
                    callback.load_process_state_dict(state)
        self._to_restore = saved

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's position, and which checkpoints are kept."""
        return {"saves_due": self._saves_due, "returns": self._returns, "replays": self._replays}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the schedule's position, and which checkpoints are kept."""
        self._saves_due, self._returns = state_dict["saves_due"], state_dict["returns"]
        self._replays = state_dict["replays"]

    def _among_best(self, reached: float) -> bool:
        if self.save_top_k == -1 or len(self._returns) < self.save_top_k:
            return not math.isnan(reached)
        return self.save_top_k > 0 and reached > min(self._returns.values())

    def _save_at_rest(self, trainer: Any, module: Any) -> None:
        """Between batches, with no evaluation to come: save what there is to save, and end if asked to."""
        data = trainer.datamodule
        self._save_new_best(trainer, module)
        if not data.batches_left:
            self._save_if_due(trainer, module)
        # Where several processes collect, they ask each other before that, and not here as well.
        together = trainer.world_size == 1 or (data.refill is no_collection and not data.batches_left)
        if together and (received := self._received(trainer)):
            self._save_and_act(trainer, module, received)

    def _received(self, trainer: Any) -> int:
        """Return the signal that has come to any of the processes, which must ask together."""
        received = self._signals.received
        if trainer.world_size > 1:
            number = torch.tensor(received, device=trainer.strategy.root_device)
            received = int(trainer.strategy.reduce(number, reduce_op="max"))
        return received

    def _save_new_best(self, trainer: Any, module: Any) -> None:
        if self._new_best is not None:
            clock = "env_steps" if module.env_steps else "updates"
            name = f"{clock}={module.progress}.ckpt"
            self._returns[name] = self._new_best
            self._new_best = None
            self._save(trainer, module, name)

    def _save_if_due(self, trainer: Any, module: Any) -> None:
        due = module.progress // self.every_n_env_steps
        if self.save_last and due > self._saves_due:
            self._saves_due = due
            self._save_last(trainer, module)

    def _save_last(self, trainer: Any, module: Any) -> None:
        if self._saved_last != _position(trainer, module):
            self._save(trainer, module, LAST)
            self._saved_last = self._saved

    def _save_and_act(self, trainer: Any, module: Any, received: int) -> None:
        self._save_last(trainer, module)
        rank_zero_info(f"Saved {self._folder / LAST}")
        self._signals.act(received, quiet=not trainer.is_global_zero)

    def _save(self, trainer: Any, module: Any, name: str) -> None:
        """Write the replay, and then the checkpoint, which names it; then remove what nobody needs."""
        if trainer.fast_dev_run:
            return
        moment = _position(trainer, module)
        if self.save_replay and self._saved != moment:
            self._newest_replay = self._write_replay(trainer, "replay-{}-{}".format(*moment))
        self._saved = moment
        self._replays[name] = self._newest_replay.name if self.save_replay and self._newest_replay else None
        self._saving = True
        trainer.save_checkpoint(self._folder / name, weights_only=False)
        self._saving = False
        self._tidy(trainer.is_global_zero)

    def _write_replay(self, trainer: Any, name: str) -> Path:
        """Write each process's replay and state; the folder appears when all of them are on disk."""
        # The first process may still be removing what the save before has left.
        trainer.strategy.barrier("replay begins")
        folder, staged = self._folder / name, self._folder / f"{name}.part"
        own = _rank_folder(trainer.global_rank)
        shutil.rmtree(staged / own, ignore_errors=True)
        (staged / own).mkdir(parents=True)
        previous = self._newest_replay and self._newest_replay / own
        save_replay(
            trainer.datamodule.replay, staged / own, previous if previous and previous.is_dir() else None
        )
        callbacks = {each.state_key: each.process_state_dict() for each in _with_process_state(trainer)}
        write({"generators": _get_generators(), "callbacks": callbacks}, staged / own / "process.pt")
        sync_folder(staged)
        trainer.strategy.barrier("replay")
        if trainer.is_global_zero:
            shutil.rmtree(folder, ignore_errors=True)
            staged.rename(folder)
            sync_folder(self._folder)
        return folder

    def _tidy(self, writes: bool) -> None:
        """Drop the worst checkpoints, name the best, and remove the replays that none of them needs."""
        while 0 <= self.save_top_k < len(self._returns):
            worst = min(self._returns, key=lambda name: self._returns[name])
            del self._returns[worst], self._replays[worst]
            if writes:
                (self._folder / worst).unlink(missing_ok=True)
        if not writes:
            return
        if self._returns:
            link(self._folder / max(self._returns, key=lambda name: self._returns[name]), self._folder / BEST)
        for folder in self._folder.glob("replay-*"):
            if folder.name not in self._replays.values():
                shutil.rmtree(folder)

    def _adopt_best(self, source: Path, writes: bool) -> None:
        """Let a resumed run that has a new folder have the best checkpoints of before."""
        self._returns = {name: value for name, value in self._returns.items() if (source / name).is_file()}
        if source.absolute() == self._folder.absolute():
            return
        self._replays = {name: self._replays[name] for name in self._returns}
        if not writes:
            return
        for name, replay in self._replays.items():
            if replay is not None and not (self._folder / replay).exists():
                shutil.copytree(source / replay, self._folder / replay, copy_function=_link_file)
            link(source / name, self._folder / name)
        self._tidy(writes)


def _score(trainer: Any, module: Any) -> float:
    """What the best evaluation has most of: the return, or where nothing is played the fit to returns."""
    metrics = trainer.callback_metrics
    if module.env_steps:
        return float(metrics.get("evaluate/return_mean", math.nan))
    return -float(metrics.get("evaluate/return_error", math.nan))


def _rank_folder(rank: int) -> str:
    return f"rank-{rank}"


def _position(trainer: Any, module: Any) -> tuple[int, int]:
    return module.env_steps, trainer.global_step


def _with_process_state(trainer: Any) -> list[Any]:
    """The callbacks whose state is another one in each process."""
    return [callback for callback in trainer.callbacks if hasattr(callback, "process_state_dict")]


def _link_file(source: str, target: str) -> None:
    link(Path(source), Path(target))


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
