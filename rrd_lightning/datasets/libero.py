"""Demonstrations in LIBERO's HDF5 files: ``data/demo_i/{actions,rewards,robot_states,obs/...}``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Dict
from tensordict import TensorDict
from torch import Tensor
from torch.nn.functional import interpolate

from rrd_lightning.datasets.cache import EpisodeCache
from rrd_lightning.datasets.source import INSTALL, Facts, Source, Spaces, make_episode
from rrd_lightning.errors import ParameterError

Camera = Literal["agentview", "wrist"]
Alignment = Literal["before", "after"]

IMAGES = {"agentview": "obs/agentview_rgb", "wrist": "obs/eye_in_hand_rgb"}
PROPRIOCEPTION, PROPRIOCEPTION_KEY = "proprioception", "robot_states"
ACTIONS = 7
# robot_states is gripper (2), position (3), quaternion (4); the environment shows the gripper last.
GRIPPER_LAST = [2, 3, 4, 5, 6, 7, 8, 0, 1]
FRAMES_AT_ONCE = 64


class View(NamedTuple):
    """What to show of a file where no environment decides it.

    Args:
        image_size: height and width in pixels; None for the file's own.
        cameras: which ones.
        proprioception: show the arm's state too.
        alignment: whether a file's ``obs[t]`` is from before or after ``actions[t]``; None to go by
            the file's attribute ``obs_alignment``, and by LIBERO's way, after, where it has none.
    """

    image_size: int | None = None
    cameras: tuple[Camera, ...] = ("agentview",)
    proprioception: bool = False
    alignment: Alignment | None = None


class LiberoFile(Source):
    """One HDF5 file in LIBERO's layout.

    Observations are a Dict of ``agentview`` and ``wrist``, uint8 ``[3, size, size]``, upright, and
    ``proprioception``, float32 ``[9]``: position of the end effector in m (3), its quaternion x, y,
    z, w (4), and the gripper's fingers in m (2). An episode's return is its success, 1 or 0.

    A file has T observations for T actions, so one transition lacks a side and is left out: the
    first where observations are from after their action, else the last.

    Args:
        path: the file.
        view: what to show where no environment decides it, and the alignment.
        cache: keeps episodes whose images were resized.
    """

    def __init__(self, path: Path, view: View, cache: EpisodeCache) -> None:
        self.name = str(path)
        self._path = path
        self._view = view
        self._cache = cache

    def spaces(self) -> Spaces:
        """Return the spaces of the view, with the image size of the first good episode."""
        problem: ParameterError | None = None
        for episode in self.episodes():
            try:
                return self._spaces(episode)
            except ParameterError as error:
                problem = problem or error
        raise problem or self.bad("", "data", "holds no demonstration")

    def _spaces(self, episode: str) -> Spaces:
        parts: dict[str, Space[Any]] = {}
        with self._open() as file:
            for camera in self._view.cameras:
                height, width = self._image_size(file, episode, camera)
                if self._view.image_size:
                    height = width = self._view.image_size
                parts[camera] = Box(0, 255, (3, height, width), np.uint8)
        if self._view.proprioception:
            parts[PROPRIOCEPTION] = Box(-np.inf, np.inf, (len(GRIPPER_LAST),), np.float32)
        return Dict(parts), Box(-1, 1, (ACTIONS,), np.float32)

    def episodes(self) -> list[str]:
        """Return the demonstrations, by number."""
        with self._open() as file:
            if "data" not in file:
                raise self.bad("", "data", "is missing: not a file in LIBERO's layout")
            names = list(file["data"])
        return sorted(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)] or [-1])

    def facts(self, episode: str, spaces: Spaces) -> Facts:
        """Check all but the pixels."""
        self._require_served(spaces)
        with self._open() as file:
            actions, _ = self._actions(file, episode)
            shown: Any = spaces[0]
            for key in shown.spaces:
                if key == PROPRIOCEPTION:
                    self._numbers(file, episode, PROPRIOCEPTION_KEY, (len(actions), len(GRIPPER_LAST)))
                else:
                    self._image_size(file, episode, key, len(actions))
            self._alignment(file)
            return Facts(len(actions) - 1, self._success(file, episode))

    def read(self, episode: str, spaces: Spaces) -> TensorDict:
        """Read a demonstration; one with other image sizes comes from the cache after the first time."""
        shown: Any = spaces[0]
        sizes = {key: part.shape[1:] for key, part in shown.spaces.items() if key != PROPRIOCEPTION}
        with self._open() as file:
            own = {key: self._image_size(file, episode, key) for key in sizes}
            alignment = self._alignment(file)
        if own == sizes:
            return self._read(episode, sizes, shown, alignment)
        view = sorted(sizes.items()), PROPRIOCEPTION in shown.spaces, alignment
        return self._cache.get(self._path, episode, view, lambda: self._read(episode, sizes, shown, alignment))

    def _read(
        self, episode: str, sizes: dict[str, tuple[int, int]], shown: Dict, alignment: Alignment
    ) -> TensorDict:
        observation: dict[str, Tensor] = {}
        with self._open() as file:
            actions, rewards = self._actions(file, episode)
            for key, size in sizes.items():
                images = self._array(file, episode, IMAGES[key])
                observation[key] = resize(torch.from_numpy(upright(images)), size)
            if PROPRIOCEPTION in shown.spaces:
                states = self._numbers(file, episode, PROPRIOCEPTION_KEY, (len(actions), len(GRIPPER_LAST)))
                observation[PROPRIOCEPTION] = torch.from_numpy(states[:, GRIPPER_LAST])
            success = self._success(file, episode)
        # The simulator's controller clips actions, too.
        action, reward = torch.from_numpy(actions.clip(-1, 1)), torch.from_numpy(rewards)
        steps = slice(1, None) if alignment == "after" else slice(None, -1)
        return make_episode(
            observation,
            action[steps].clone(),
            reward[steps].clone(),
            episode_return=float(success),
            terminated=success,
            success=success,
        )

    def _require_served(self, spaces: Spaces) -> None:
        observation_space, action_space = spaces
        known = {**dict.fromkeys(IMAGES, 3), PROPRIOCEPTION: 1}
        parts = observation_space.spaces if isinstance(observation_space, Dict) else {}
        served = bool(parts) and all(
            known.get(key) == len(part.shape or ()) and (key != PROPRIOCEPTION or part.shape == (9,))
            for key, part in parts.items()
        )
        if not served or action_space.shape != (ACTIONS,):
            raise ParameterError(
                "data.demonstrations",
                self.name,
                f"LIBERO's files show images {list(IMAGES)}, proprioception of 9 and actions of {ACTIONS} "
                f"numbers; the model's spaces are {observation_space} and {action_space}",
            )

    def _actions(self, file: Any, episode: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Read the actions ``[T, 7]`` and the rewards ``[T]``."""
        actions = self._numbers(file, episode, "actions", (None, ACTIONS))
        if len(actions) == 0:
            raise self.bad(episode, "actions", "has no step")
        if len(actions) == 1:
            raise self.bad(episode, "actions", "has one step: with two or more a transition has both sides")
        return actions, self._numbers(file, episode, "rewards", (len(actions),))

    def _success(self, file: Any, episode: str) -> bool:
        attributes = file["data"][episode].attrs
        if "success" in attributes:
            return bool(attributes["success"])
        return bool((self._array(file, episode, "rewards") > 0).any())

    def first_step(self) -> int:
        """1 where observations are from after their action: the first action has none before it."""
        with self._open() as file:
            return int(self._alignment(file) == "after")

    def _alignment(self, file: Any) -> Alignment:
        if self._view.alignment:
            return self._view.alignment
        words = str(file["data"].attrs.get("obs_alignment", "after")).lower()
        if ("before" in words) == ("after" in words):
            raise self.bad(
                "", "data.obs_alignment", f"is {words!r}, neither before nor after: give data.alignment"
            )
        return "before" if "before" in words else "after"

    def _image_size(self, file: Any, episode: str, camera: str, length: int | None = None) -> tuple[int, int]:
        """Check the shape of a camera's images, and return their height and width."""
        images = self._dataset(file, episode, IMAGES[camera])
        self._require_shape(episode, IMAGES[camera], images.shape, (length, None, None, 3))
        if images.dtype != np.uint8 or 0 in images.shape[1:]:
            raise self.bad(
                episode, IMAGES[camera], f"is {images.dtype} of shape {images.shape}, not uint8 images"
            )
        return images.shape[1], images.shape[2]

    def _numbers(
        self, file: Any, episode: str, key: str, shape: tuple[int | None, ...]
    ) -> np.ndarray[Any, Any]:
        """Read finite numbers of a shape, as float32."""
        values = self._array(file, episode, key)
        self._require_shape(episode, key, values.shape, shape)
        if not np.issubdtype(values.dtype, np.number):
            raise self.bad(episode, key, f"holds {values.dtype}, not numbers")
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise self.bad(episode, key, "holds a number that is not finite")
        return values

    def _require_shape(
        self, episode: str, key: str, shape: tuple[int, ...], wanted: tuple[int | None, ...]
    ) -> None:
        if len(shape) != len(wanted) or any(w not in (None, s) for s, w in zip(shape, wanted, strict=True)):
            expected = ", ".join("any" if size is None else str(size) for size in wanted)
            raise self.bad(episode, key, f"has shape {list(shape)}, must be [{expected}]")

    def _array(self, file: Any, episode: str, key: str) -> np.ndarray[Any, Any]:
        dataset = self._dataset(file, episode, key)
        try:
            values: np.ndarray[Any, Any] = dataset[()]
        except (OSError, RuntimeError) as error:
            raise self.bad(episode, key, f"is damaged ({error})") from error
        return values

    def _dataset(self, file: Any, episode: str, key: str) -> Any:
        try:
            dataset = file["data"][episode][key]
        except (KeyError, ValueError, RuntimeError, AttributeError) as error:
            raise self.bad(episode, key, "is missing") from error
        if not hasattr(dataset, "dtype"):
            raise self.bad(episode, key, "is a group, must be an array")
        return dataset

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            import h5py
        except ModuleNotFoundError as error:
            raise ParameterError("data.demonstrations", self.name, f"needs h5py: {INSTALL}") from error
        try:
            file = h5py.File(self._path, "r")
        except OSError as error:
            raise ParameterError(
                "data.demonstrations", self.name, f"is damaged or not an HDF5 file ({error})"
            ) from error
        with file:
            yield file


def upright(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Turn images ``[T, H, W, 3]``, upside down as the simulator renders them, into ``[T, 3, H, W]``."""
    return np.ascontiguousarray(images[:, ::-1].transpose(0, 3, 1, 2))


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 images ``[T, 3, H, W]``: by area means when shrinking, else bilinearly."""
    own = tuple(images.shape[-2:])
    if own == tuple(size):
        return images
    mode = "area" if math.prod(size) < math.prod(own) else "bilinear"
    parts = [interpolate(part.float(), tuple(size), mode=mode) for part in torch.split(images, FRAMES_AT_ONCE)]
    return torch.cat([part.round_().clamp_(0, 255).to(torch.uint8) for part in parts])
