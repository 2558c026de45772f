"""Files of tensors and plain data, written atomically and read without unpickling objects."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from rrd_lightning.checkpoint.plain import from_plain, to_plain
from rrd_lightning.errors import ParameterError


def write(content: Any, path: Path) -> None:
    """Write a file atomically: stage it, flush it to disk, and rename it.

    Raises:
        ParameterError: if it cannot be written, or holds what could not be read back. An earlier file of this
            name is unchanged.
    """
    staged = path.with_name(path.name + ".part")
    plain = to_plain(content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("wb") as file:
            torch.save(plain, file)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch turns some disk errors into RuntimeErrors
        staged.unlink(missing_ok=True)
        first: BaseException = error
        while first.__context__ is not None:
            first = first.__context__
        raise ParameterError(
            "checkpoint",
            str(path),
            f"cannot be written ({_first_line(first)}); earlier checkpoints are unchanged",
            section="memory-and-disk",
        ) from error


def read(path: Path, map_location: Any = "cpu") -> Any:
    """Read a file without unpickling anything but tensors and plain data.

    Raises:
        ParameterError: if it does not exist, is damaged, even by a bit, or contains other objects.
    """
    if not path.is_file():
        raise ParameterError("ckpt_path", str(path), "there is no such file")
    try:
        with ZipFile(path) as parts:  # torch writes checksums, and does not compare them
            if damaged := parts.testzip():
                raise BadZipFile(f"the checksum of {damaged} differs")
        return from_plain(torch.load(path, map_location=map_location, weights_only=True))
    except Exception as error:
        # For a damaged file, torch.load raises anything from RuntimeError to UnicodeDecodeError.
        problem = f"is damaged or not a checkpoint ({_first_line(error)})"
        raise ParameterError("ckpt_path", str(path), problem) from error


def link(source: Path, target: Path) -> None:
    """Hard-link a file to a second name, replacing what is there; copy it where links are not supported."""
    staged = target.with_name(target.name + ".part")
    staged.unlink(missing_ok=True)
    try:
        os.link(source, staged)
    except OSError:  # no hard links on this file system, or across two of them
        shutil.copy2(source, staged)
    staged.replace(target)
    staged.unlink(missing_ok=True)  # renaming does nothing if both are links to one file


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, where that is possible: not on Windows nor on some network disks."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def require_writable(parameter: str, folder: Path) -> None:
    """Create a folder, and check that files can be written into it.

    Raises:
        ParameterError: naming `parameter`, which set the folder, if they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ParameterError(parameter, str(folder), f"cannot be written to ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
