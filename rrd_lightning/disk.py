"""Disk space that is reserved, and temporary folders that the next run removes if a run is killed."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Any

from rrd_lightning.errors import ParameterError

if sys.platform != "win32":
    import fcntl

OWNER = "owner.lock"
BLOCK = bytes(2**20)


def temporary_folder(prefix: str, parent: Path | None = None) -> tuple[Path, IO[Any]]:
    """Make a temporary folder, and remove those that killed processes have left behind in the same place.

    Args:
        prefix: what its name begins with.
        parent: where to make it; the system's place by default.

    Returns:
        The folder, and an open file: its lock tells that the owner lives, on whatever machine.
    """
    while True:
        folder = Path(mkdtemp(prefix=prefix, dir=parent))
        _remove_abandoned(folder.parent, prefix)
        owner = (folder / OWNER).open("w")
        # Another start may have found the file before it was locked, and have removed the folder.
        if _locked(owner) and (folder / OWNER).exists():
            return folder, owner
        owner.close()


def discard(folder: Path, owner: IO[Any]) -> None:
    """Remove a temporary folder."""
    owner.close()
    shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path, prefix: str) -> None:
    if sys.platform == "win32":
        return  # without locks nothing tells which of them are in use
    for path in parent.glob(f"{prefix}*/{OWNER}"):
        with suppress(OSError), path.open("r+") as owner:
            if _locked(owner):
                shutil.rmtree(path.parent, ignore_errors=True)


def _locked(file: IO[Any]) -> bool:
    """Lock a file, if nobody else has."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def reserve(folder: Path, parameter: str) -> None:
    """Take the disk space of all files in a folder, which have holes.

    A memory-mapped file that grows into a full disk would end the process without a word.

    Args:
        folder: the folder.
        parameter: what determines where it is.

    Raises:
        ParameterError: if the disk is too full, with what is missing.
    """
    free = shutil.disk_usage(folder).free
    files = [path for path in folder.rglob("*") if path.is_file()]
    total = sum(path.stat().st_size for path in files)
    try:
        for path in files:
            _fill(path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise ParameterError(
            parameter,
            str(folder.parent),
            f"the full replay takes {human(total)} of disk space, and {human(free)} are free: make room for "
            f"{human(max(total - free, 0))} more, choose another folder, or a smaller data.capacity",
            section="memory-and-disk",
        ) from error


def _fill(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        if size and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
                return
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
        for start in range(0, size, len(BLOCK)):  # nothing has been written into it yet
            file.write(BLOCK[: size - start])


def human(count: float) -> str:
    """Format a number of bytes in decimal units: 1 MB is 10⁶ bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
