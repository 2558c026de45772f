"""The reader of plain paths, for demonstrations given without a class."""

from __future__ import annotations

from collections.abc import Sequence

from rrd_lightning.datasets.libero import LiberoReader
from rrd_lightning.datasets.minari import PREFIX, MinariDataset
from rrd_lightning.datasets.reader import Reader
from rrd_lightning.datasets.source import Source


class PathReader(Reader):
    """Reads Minari's data sets by ``minari:<id>``, and any other path as `LiberoReader` does.

    Args:
        paths: files, folders of files, and data sets.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths

    def sources(self) -> list[Source]:
        """Find the files and data sets.

        Raises:
            ParameterError: if a path does not exist, or a folder holds no HDF5 file.
        """
        sources: list[Source] = []
        for path in self._paths:
            if path.startswith(PREFIX):
                sources.append(MinariDataset(path.removeprefix(PREFIX)))
            else:
                sources += LiberoReader(path).sources()
        return sources
