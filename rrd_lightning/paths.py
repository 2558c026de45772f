"""Paths that a user gives."""

from __future__ import annotations

import re
from pathlib import Path

from rrd_lightning.errors import ParameterError

# A drive of Windows has one letter; `Path` makes one slash of two.
REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(parameter: str, path: str | Path) -> Path:
    """Return a path with ``~`` replaced by the home folder.

    Raises:
        ParameterError: if it is on another machine, or there is no such home folder.
    """
    if REMOTE.match(str(path)):
        raise ParameterError(
            parameter,
            str(path),
            "is remote, must be a folder or file of this machine: mount it, or copy it",
            section="folders-and-files",
        )
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ParameterError(parameter, str(path), "there is no such home folder") from error
