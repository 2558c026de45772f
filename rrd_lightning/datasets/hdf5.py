"""HDF5 files with one group per episode, whose arrays are checked as they are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rrd_lightning.datasets.source import INSTALL, Source
from rrd_lightning.errors import ParameterError
from rrd_lightning.success import read_success


class Hdf5Source(Source):
    """An HDF5 file whose arrays are ``data/<episode>/<key>``, as robomimic and LIBERO lay them out.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.path = path

    def episodes(self) -> list[str]:
        """Return the names of the episodes, ordered by the numbers in them."""
        with self.open() as file:
            if "data" not in file:
                raise self.bad("", "data", "is missing: episodes must be groups of data")
            names = list(file["data"])
        return sorted(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)] or [-1])

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Open the file to read.

        Raises:
            ParameterError: if h5py is not installed, or this is not an intact HDF5 file.
        """
        try:
            import h5py
        except ModuleNotFoundError as error:
            raise ParameterError("data.demonstrations", self.name, f"needs h5py: {INSTALL}") from error
        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise ParameterError(
                "data.demonstrations", self.name, f"is damaged or not an HDF5 file ({error})"
            ) from error
        with file:
            yield file

    def dataset(self, file: Any, episode: str, key: str) -> Any:
        """Look up an array without reading it.

        Raises:
            ParameterError: if there is none of this name.
        """
        try:
            dataset = file["data"][episode][key]
        except (KeyError, ValueError, RuntimeError, AttributeError) as error:
            raise self.bad(episode, key, "is missing") from error
        if not hasattr(dataset, "dtype"):
            raise self.bad(episode, key, "is a group, must be an array")
        return dataset

    def array(self, file: Any, episode: str, key: str) -> np.ndarray[Any, Any]:
        """Read an array.

        Raises:
            ParameterError: if it is missing or damaged.
        """
        dataset = self.dataset(file, episode, key)
        try:
            values: np.ndarray[Any, Any] = dataset[()]
        except (OSError, RuntimeError) as error:
            raise self.bad(episode, key, f"is damaged ({error})") from error
        return values

    def numbers(
        self,
        file: Any,
        episode: str,
        key: str,
        shape: tuple[int | None, ...],
        dtype: type[np.floating[Any]] = np.float32,
    ) -> np.ndarray[Any, Any]:
        """Read finite numbers.

        Args:
            file: the open file.
            episode: name of the episode.
            key: name of the array.
            shape: its shape; None for any size.
            dtype: what to convert them to.

        Raises:
            ParameterError: if they are missing, damaged, not finite or of another shape.
        """
        values = self.array(file, episode, key)
        self.require_shape(episode, key, values.shape, shape)
        if not np.issubdtype(values.dtype, np.number):
            raise self.bad(episode, key, f"holds {values.dtype}, not numbers")
        values = values.astype(dtype)
        if not np.isfinite(values).all():
            raise self.bad(episode, key, "holds a number that is not finite")
        return values

    def told_success(self, file: Any, episode: str) -> bool | None:
        """Return the attribute ``success`` of an episode; None if it has none.

        Raises:
            ParameterError: if it is neither true nor false.
        """
        try:
            return read_success(file["data"][episode].attrs.get("success"))
        except ValueError as error:
            raise self.bad(episode, "success", f"has the {error}") from error

    def require_shape(
        self, episode: str, key: str, shape: tuple[int, ...], expected: tuple[int | None, ...]
    ) -> None:
        """Check a shape; None in `expected` stands for any size.

        Raises:
            ParameterError: if it does not match.
        """
        if len(shape) != len(expected) or any(
            size not in (None, actual) for size, actual in zip(expected, shape, strict=True)
        ):
            sizes = ", ".join("any" if size is None else str(size) for size in expected)
            raise self.bad(episode, key, f"has shape {list(shape)}, must be [{sizes}]")
