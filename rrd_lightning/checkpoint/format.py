"""The version of the checkpoint format, and how Lightning reads and writes the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO

from rrd_lightning.checkpoint.files import read, write
from rrd_lightning.errors import ParameterError
from rrd_lightning.paths import local_path

# Incremented whenever old code cannot read new checkpoints, or new code old ones.
FORMAT = 5
FORMAT_KEY = "rrd_lightning_format"
PATH_KEY = "path"
REQUIRED = {FORMAT_KEY, "state_dict", "hyper_parameters", "env_steps"}


class CheckpointFiles(TorchCheckpointIO):
    """Lets Lightning write checkpoints atomically and read them without unpickling objects."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint atomically."""
        write(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; `weights_only` is always true."""
        return read_checkpoint(path, map_location)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint of this package without unpickling anything but tensors and plain data.

    Raises:
        ParameterError: if the file does not exist, is damaged, is no such checkpoint, or has another format.
    """
    checkpoint = read(local_path("ckpt_path", path), map_location)
    if not isinstance(checkpoint, dict) or not checkpoint.keys() >= REQUIRED:
        raise ParameterError("ckpt_path", str(path), "is not a checkpoint of rrd_lightning")
    if checkpoint[FORMAT_KEY] != FORMAT:
        age = "newer" if checkpoint[FORMAT_KEY] > FORMAT else "older"
        raise ParameterError(
            "ckpt_path",
            str(path),
            f"has format {checkpoint[FORMAT_KEY]}, and this version of rrd_lightning reads format {FORMAT}: "
            f"use a{'n' if age == 'older' else ''} {age} version",
        )
    checkpoint[PATH_KEY] = str(path)  # for error messages of whoever finds a mismatch
    return checkpoint
