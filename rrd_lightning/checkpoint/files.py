"""Files of tensors and plain data: written so that they are whole or not there, read without pickle."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from rrd_lightning.errors import ParameterError


def write(content: Any, path: Path) -> None:
    """Write a file aside, wait until the disk has it, and let it take its name.

    Raises:
        ParameterError: if it cannot be written. What had the name before is still there.
    """
    staged = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch turns some of the disk's errors into its own
        staged.unlink(missing_ok=True)
        first: BaseException = error
        while first.__context__ is not None:
            first = first.__context__
        raise ParameterError(
            "checkpoint",
            str(path),
            f"cannot be written ({_line(first)}); earlier checkpoints are as they were",
        ) from error


def read(path: Path, map_location: Any = "cpu") -> Any:
    """Read a file, without unpickling anything but tensors and plain data.

    Raises:
        ParameterError: if it is not there, or damaged, or holds something else.
    """
    if not path.is_file():
        raise ParameterError("ckpt_path", str(path), "there is no such file")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        # torch.load raises anything from RuntimeError to UnicodeDecodeError on a damaged file.
        problem = f"is damaged or not a checkpoint ({_line(error)})"
        raise ParameterError("ckpt_path", str(path), problem) from error


def link(source: Path, target: Path) -> None:
    """Let a file have a second name, in place of what had it; a copy where links cannot be."""
    staged = target.with_name(target.name + ".part")
    staged.unlink(missing_ok=True)
    try:
        os.link(source, staged)
    except OSError:  # no hard links on this file system, or from one to another
        shutil.copy2(source, staged)
    staged.replace(target)
    staged.unlink(missing_ok=True)  # still there if both were names of one file already


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's entries."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_writable(parameter: str, folder: Path) -> None:
    """Make a folder, and make sure that files can be written into it.

    Raises:
        ParameterError: with the parameter that named the folder, if they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ParameterError(parameter, str(folder), f"cannot be written to ({_line(error)})") from error


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
