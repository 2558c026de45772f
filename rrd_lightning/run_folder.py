"""The folder of a run, which no other run shares, whatever the logger."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from rrd_lightning.errors import ParameterError
from rrd_lightning.paths import local_path

NAME = "lightning_logs"  # as Lightning calls it
_folders: WeakKeyDictionary[Any, Path] = WeakKeyDictionary()
_claimed: WeakKeyDictionary[Any, Path] = WeakKeyDictionary()


def run_folder(trainer: Any) -> Path:
    """Return the folder of a trainer's run; a collective call, so every process makes it.

    It is the one that the command line made, else that of a first logger of CSV or TensorBoard files, else a
    new one under ``default_root_dir``.
    """
    if trainer.fast_dev_run:
        return Path(trainer.default_root_dir)
    if trainer not in _folders:
        folder = _of_first_process(trainer) if trainer.is_global_zero else None
        _folders[trainer] = Path(trainer.strategy.broadcast(str(folder)))
    return _folders[trainer]


def set_run_folder(trainer: Any, folder: Path) -> None:
    """Let the run of a trainer have this folder; only what the first process says counts."""
    _claimed[trainer] = folder


def _of_first_process(trainer: Any) -> Path:
    if trainer in _claimed:
        return _claimed[trainer]
    if logger := _file_logger(trainer):
        return local_path("logger", logger.log_dir)
    return new_folder(local_path("default_root_dir", trainer.default_root_dir), NAME)


def folder_of_runs(trainer: Any) -> Path:
    """Return the folder with the runs beside a trainer's, in Python."""
    if logger := _file_logger(trainer):
        return Path(logger.log_dir).parent
    return Path(trainer.default_root_dir) / NAME


def _file_logger(trainer: Any) -> CSVLogger | TensorBoardLogger | None:
    first = trainer.loggers[0] if trainer.loggers else None
    return first if isinstance(first, CSVLogger | TensorBoardLogger) else None


def new_folder(root: Path, name: str) -> Path:
    """Make the folder ``root/name/version_N`` with the next number; of several starts each gets its own.

    Raises:
        ParameterError: if it cannot be made.
    """
    parent = root / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        versions = (path.name.removeprefix("version_") for path in parent.glob("version_*"))
        number = 1 + max((int(version) for version in versions if version.isdecimal()), default=-1)
        while True:
            try:
                folder = parent / f"version_{number}"
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder
    except OSError as error:
        raise ParameterError(
            "trainer.default_root_dir", str(root), f"cannot be written to ({error.strerror})"
        ) from error
