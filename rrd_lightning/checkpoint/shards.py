"""The folder beside a checkpoint, with a shard of each process: its replay, generators and callbacks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rrd_lightning.checkpoint.files import read, sync_folder, write
from rrd_lightning.checkpoint.generators import get_generators
from rrd_lightning.checkpoint.replay import save_replay

STATE = "process.pt"


def shard(folder: Path, rank: int) -> Path:
    """Return the folder of one process's shard."""
    return folder / f"rank-{rank}"


def write_shards(trainer: Any, folder: Path, previous: Path | None) -> None:
    """Write this process's shard; the folder appears once all processes have written theirs.

    Args:
        trainer: the run's; all processes must call this together.
        folder: the folder to write. One of this name is replaced.
        previous: an earlier folder of this run, whose unchanged files are linked to.

    Raises:
        ParameterError: naming the file that cannot be written.
    """
    # The first process may still be removing what the save before left behind.
    trainer.strategy.barrier("replay begins")
    staged = folder.with_name(f"{folder.name}.part")
    own = shard(staged, trainer.global_rank)
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    previous_shard = previous and shard(previous, trainer.global_rank)
    save_replay(
        trainer.datamodule.replay,
        own,
        previous_shard if previous_shard and previous_shard.is_dir() else None,
    )
    callbacks = {each.state_key: each.process_state_dict() for each in _stateful(trainer)}
    write({"generators": get_generators(), "callbacks": callbacks}, own / STATE)
    sync_folder(staged)
    trainer.strategy.barrier("replay")
    if trainer.is_global_zero:
        shutil.rmtree(folder, ignore_errors=True)
        staged.rename(folder)
        sync_folder(folder.parent)


def read_shard(trainer: Any, folder: Path) -> dict[str, Any]:
    """Give the callbacks the state of this process's shard, and return the state of its generators.

    Raises:
        ParameterError: if the file is missing or damaged.
    """
    state = read(shard(folder, trainer.global_rank) / STATE)
    for callback in _stateful(trainer):
        if saved := state["callbacks"].get(callback.state_key):
            callback.load_process_state_dict(saved)
    generators: dict[str, Any] = state["generators"]
    return generators


def _stateful(trainer: Any) -> list[Any]:
    """Return the callbacks whose state differs from process to process."""
    return [callback for callback in trainer.callbacks if hasattr(callback, "process_state_dict")]
