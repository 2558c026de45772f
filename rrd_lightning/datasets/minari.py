"""Data sets of Farama's Minari, read through its package."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Dict
from tensordict import TensorDict

from rrd_lightning.datasets.reader import Reader
from rrd_lightning.datasets.source import INSTALL, Facts, Source, Spaces, make_episode
from rrd_lightning.errors import ParameterError
from rrd_lightning.spaces import unscaled
from rrd_lightning.success import SUCCESS_KEYS, SuccessOf, follow_success, read_success

PREFIX = "minari:"
ARRAYS = ("observations", "actions", "rewards")


class MinariDataset(Source):
    """A data set on this machine, by its id, such as ``mujoco/halfcheetah/medium-v0``.

    Observations become float32, and bounded actions are scaled to [-1, 1], as in the environments of this
    package. An episode's return is the sum of its rewards, and its success is ``success`` or ``is_success`` of
    its infos; an episode without, in a data set that has them, is no success.

    Args:
        dataset_id: Minari's id.
        success_of: the step that decides whether an episode is a success.
    """

    def __init__(self, dataset_id: str, success_of: SuccessOf = "last") -> None:
        self.name = PREFIX + dataset_id
        self._id = dataset_id
        self._success_of: SuccessOf = success_of
        self._knows_success = False

    @cached_property
    def _dataset(self) -> Any:
        try:
            import minari
        except ModuleNotFoundError as error:
            raise ParameterError("data.demonstrations", self.name, f"needs minari: {INSTALL}") from error
        try:
            return minari.load_dataset(self._id)
        except Exception as error:
            # Minari raises anything from FileNotFoundError to a ValueError for a malformed id.
            command = f"minari download {self._id}"
            raise ParameterError(
                "data.demonstrations", self.name, f"cannot be loaded ({error}); to download it: {command}"
            ) from error

    def spaces(self) -> Spaces:
        """Return the data set's own spaces; the model converts them as it does an environment's."""
        return self._dataset.observation_space, self._dataset.action_space

    def episodes(self) -> list[str]:
        """Return the numbers of the episodes."""
        return [str(index) for index in self._dataset.episode_indices]

    def facts(self, episode: str, spaces: Spaces) -> Facts:
        """Check the spaces, and return the length; success is unknown before the episode is read."""
        for name, own, asked in zip(("observation", "action"), self.spaces(), spaces, strict=True):
            if _shapes(own) != _shapes(asked):
                raise self.bad(episode, name, f"has the space {own}, but the model's is {asked}")
        (metadata,) = self._dataset.storage.get_episode_metadata([int(episode)])
        if not (length := int(metadata["total_steps"])):
            raise self.bad(episode, "actions", "has no step")
        rows, infos = self._outline(episode)
        for key, count in rows.items():
            self._require_rows(episode, key, count, length + (key == "observations"))
        self._knows_success |= any(key in infos for key in SUCCESS_KEYS)
        return Facts(length, None)

    def _outline(self, episode: str) -> tuple[dict[str, int], list[str]]:
        """Return the rows of an episode's arrays, and the names of its infos."""
        storage = self._dataset.storage
        if storage.FORMAT != "hdf5":
            (data,) = storage.get_episodes([int(episode)])
            return {key: _count(data[key]) for key in ARRAYS}, list(data["infos"] or {})
        import h5py

        # Without reading what is in the arrays.
        with h5py.File(storage.data_path / "main_data.hdf5", "r") as file:
            group = file[f"episode_{episode}"]
            return {key: _count(group[key]) for key in ARRAYS}, list(group.get("infos", ()))

    def read(self, episode: str, spaces: Spaces) -> TensorDict:
        """Read an episode."""
        try:
            data = self._dataset[int(episode)]
        except Exception as error:
            raise self.bad(episode, "", f"is damaged ({error})") from error
        parts = {
            "observations": _tensors(data.observations),
            "actions": _tensors(unscaled(data.actions, self._dataset.action_space)),
            "rewards": torch.from_numpy(np.array(data.rewards, np.float32)),
        }
        steps = len(data.rewards)
        for key, value in parts.items():
            self._require_good(episode, key, value, steps + (key == "observations"))
        return make_episode(
            parts["observations"],
            parts["actions"],
            parts["rewards"],
            episode_return=float(np.sum(data.rewards, dtype=np.float64)),
            terminated=bool(data.terminations[-1]),
            success=self._success(episode, data.infos or {}),
        )

    def _success(self, episode: str, infos: dict[str, Any]) -> bool | None:
        for key in SUCCESS_KEYS:
            if key in infos:
                success = None
                try:
                    for step in range(_count(infos[key])):
                        told = read_success(_index(infos[key], step))
                        success = follow_success(success, told, self._success_of)
                except ValueError as error:
                    raise self.bad(episode, f"infos/{key}", f"has the {error}") from error
                return bool(success)
        return False if self._knows_success else None

    def _require_good(self, episode: str, key: str, value: Any, length: int) -> None:
        for part in value.values() if isinstance(value, dict) else [value]:
            self._require_rows(episode, key, len(part), length)
            if part.is_floating_point() and not part.isfinite().all():
                raise self.bad(episode, key, "holds a number that is not finite")

    def _require_rows(self, episode: str, key: str, rows: int, expected: int) -> None:
        if rows != expected:
            raise self.bad(episode, key, f"has {rows} rows, must have {expected}")


class MinariReader(Reader):
    """Reads Minari's data sets, with a choice that paths do not have.

    Args:
        datasets: their ids, one or several.
        success_of: the step whose ``success`` or ``is_success`` in the infos decides whether an episode is a
            success: its ``"last"``, or ``"any"``.
    """

    def __init__(self, datasets: str | list[str], success_of: SuccessOf = "last") -> None:
        self._datasets = [datasets] if isinstance(datasets, str) else datasets
        self._success_of: SuccessOf = success_of

    def sources(self) -> list[MinariDataset]:
        """Return the data sets."""
        return [MinariDataset(each.removeprefix(PREFIX), self._success_of) for each in self._datasets]


def _count(values: Any) -> int:
    """Return the number of rows of an array, or of those in a dictionary or a group."""
    while hasattr(values, "keys"):
        values = values[next(iter(values.keys()))]
    return len(values)


def _index(values: Any, step: int) -> Any:
    if isinstance(values, dict):
        return {key: _index(value, step) for key, value in values.items()}
    return values[step]


def _tensors(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _tensors(value) for key, value in values.items()}
    array = np.array(values)
    return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array)


def _shapes(space: Space[Any]) -> Any:
    if isinstance(space, Dict):
        return {key: _shapes(part) for key, part in space.spaces.items()}
    return space.shape
