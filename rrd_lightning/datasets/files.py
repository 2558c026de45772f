"""Finding the HDF5 files that paths stand for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rrd_lightning.errors import ParameterError
from rrd_lightning.paths import local_path

SUFFIXES = (".hdf5", ".h5")


def find_files(paths: Sequence[str]) -> list[Path]:
    """Return the files among `paths`, and those in its folders and their subfolders, each once.

    Raises:
        ParameterError: if a path does not exist, a folder holds no HDF5 file, or there is no path.
    """
    if not paths:
        raise ParameterError("data.demonstrations", list(paths), "give a file or a folder of HDF5 files")
    found: list[Path] = []
    for name in paths:
        path = local_path("data.demonstrations", name)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
            if not files:
                raise ParameterError("data.demonstrations", name, f"holds no {' or '.join(SUFFIXES)} file")
            found += files
        elif path.is_file():
            found.append(path)
        else:
            raise ParameterError("data.demonstrations", name, "is neither a file nor a folder")
    return list(dict.fromkeys(found))
