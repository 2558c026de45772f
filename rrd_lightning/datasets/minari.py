"""Data sets of Farama's Minari, read through its package."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Dict
from tensordict import TensorDict

from rrd_lightning.datasets.source import INSTALL, Facts, Source, Spaces, make_episode
from rrd_lightning.errors import ParameterError
from rrd_lightning.spaces import unscaled

PREFIX = "minari:"


class MinariDataset(Source):
    """A data set on this machine, by its id, such as ``mujoco/halfcheetah/medium-v0``.

    Observations become float32, and bounded actions are scaled to [-1, 1], as in the environments of this
    package. An episode's return is the sum of its rewards; it is a success if ``success`` or
    ``is_success`` of its infos was ever true.

    Args:
        dataset_id: Minari's id.
    """

    def __init__(self, dataset_id: str) -> None:
        self.name = PREFIX + dataset_id
        self._id = dataset_id

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
        return Facts(length, None)

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
        infos = data.infos or {}
        outcomes = [np.any(infos[key]) for key in ("success", "is_success") if key in infos]
        return make_episode(
            parts["observations"],
            parts["actions"],
            parts["rewards"],
            episode_return=float(np.sum(data.rewards, dtype=np.float64)),
            terminated=bool(data.terminations[-1]),
            success=bool(any(outcomes)) if outcomes else None,
        )

    def _require_good(self, episode: str, key: str, value: Any, length: int) -> None:
        for part in value.values() if isinstance(value, dict) else [value]:
            if length <= 0 or len(part) != length:
                raise self.bad(episode, key, f"has {len(part)} rows, must have {length}")
            if part.is_floating_point() and not part.isfinite().all():
                raise self.bad(episode, key, "holds a number that is not finite")


def _tensors(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _tensors(value) for key, value in values.items()}
    array = np.array(values)
    return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array)


def _shapes(space: Space[Any]) -> Any:
    if isinstance(space, Dict):
        return {key: _shapes(part) for key, part in space.spaces.items()}
    return space.shape
