"""Writing LIBERO's HDF5 files, one episode at a time."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rrd_lightning.checkpoint.files import require_writable
from rrd_lightning.datasets.libero import IMAGES, VECTORS
from rrd_lightning.datasets.source import INSTALL
from rrd_lightning.errors import ParameterError

Array = np.ndarray[Any, Any]
ALIGNMENT = "obs[t] and states[t] are before actions[t]"
ORIENTATION = "as rendered (OpenGL): upside down"


class Recording(NamedTuple):
    """An episode of T rows, each with what was seen before its action.

    Args:
        observations: ``[T, ...]`` by their names in the environment; images upright, ``[T, 3, size, size]``.
        actions: ``[T, 7]``. The last observation may be from after the last action; its own is then zero.
        rewards: ``[T]``.
        states: of the simulator, ``[T, state size]``.
        robot_states: ``[T, 9]``, fingers first, as LIBERO stores them.
        attributes: of the episode; ``success`` at least.
    """

    observations: dict[str, Array]
    actions: Array
    rewards: Array
    states: Array
    robot_states: Array
    attributes: dict[str, Any]


class LiberoWriter:
    """Writes a file of episodes, and goes on with one that was interrupted.

    Each episode is a file of its own in ``<path>.parts/`` first; `finish` joins them.

    Args:
        path: the file.
        options: everything that decides what is recorded; its text is stored with the file.

    Attributes:
        finished: whether the file is there, with these options.

    Raises:
        ParameterError: if h5py is missing, the folder cannot be written to, or the file is there with other
            options.
    """

    def __init__(self, path: Path, options: object) -> None:
        try:
            import h5py
        except ModuleNotFoundError as error:
            raise ParameterError("output", str(path), f"needs h5py: {INSTALL}") from error
        self._h5py: Any = h5py
        self._path = path
        self._options = repr(options)
        digest = hashlib.sha256(self._options.encode()).hexdigest()[:8]
        self._parts = path.with_name(f"{path.name}.parts-{digest}")
        self.finished = path.exists()
        if self.finished:
            with h5py.File(path) as file:
                if file["data"].attrs.get("recorded_with") != self._options:
                    raise ParameterError(
                        "output", str(path), "is there, recorded with other options: choose another folder"
                    )
        else:
            require_writable("output", self._parts)

    def success_of(self, name: str) -> bool | None:
        """Return the outcome of an episode that was written; None if it was not."""
        if not self._part(name).exists():
            return None
        with self._h5py.File(self._part(name)) as file:
            return bool(file["episode"].attrs["success"])

    def add(self, name: str, recording: Recording, names: Mapping[str, list[str]]) -> None:
        """Write an episode.

        Args:
            name: such as ``demo_0``.
            recording: the episode.
            names: what each number of the state is, by observation.
        """
        staged = self._part(name).with_suffix(".staged")
        with self._h5py.File(staged, "w") as file:
            group = file.create_group("episode")
            rows = len(recording.actions)
            group.attrs.update({"num_samples": rows, "model_file": "", **recording.attributes})
            group["actions"] = recording.actions.astype(np.float64)
            group["rewards"] = recording.rewards.astype(np.uint8)
            group["dones"] = (np.arange(rows) == rows - 1).astype(np.uint8)
            group["states"] = recording.states
            group[VECTORS["proprioception"]] = recording.robot_states
            for key, values in recording.observations.items():
                if key in IMAGES:
                    as_rendered = values.transpose(0, 2, 3, 1)[:, ::-1]
                    group.create_dataset(IMAGES[key], data=as_rendered, compression="gzip")
                else:
                    group[VECTORS[key]] = values
                    group[VECTORS[key]].attrs["names"] = names[key]
        staged.replace(self._part(name))

    def finish(self, names: list[str], attributes: Mapping[str, Any]) -> None:
        """Join the episodes of these names into the file, and remove the parts."""
        staged = self._path.with_name(self._path.name + ".staged")
        with self._h5py.File(staged, "w") as file:
            data = file.create_group("data")
            for name in names:
                with self._h5py.File(self._part(name)) as part:
                    part.copy("episode", data, name)
            rows = sum(int(data[name].attrs["num_samples"]) for name in names)
            data.attrs.update(
                {
                    **attributes,
                    "num_demos": len(names),
                    "total": rows,
                    "obs_alignment": ALIGNMENT,
                    "image_orientation": ORIENTATION,
                    "recorded_with": self._options,
                }
            )
        staged.replace(self._path)
        shutil.rmtree(self._parts)
        self.finished = True

    def _part(self, name: str) -> Path:
        return self._parts / f"{name}.hdf5"
