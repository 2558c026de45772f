"""Demonstrations in LIBERO's HDF5 files: ``data/demo_i/{actions,rewards,robot_states,obs/...}``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Dict
from tensordict import TensorDict
from torch import Tensor

from rrd_lightning.datasets.cache import EpisodeCache
from rrd_lightning.datasets.files import find_files
from rrd_lightning.datasets.hdf5 import Hdf5Source
from rrd_lightning.datasets.images import resize, upright
from rrd_lightning.datasets.libero_look import TURNS, Alignment, Look, Orientation, find_look
from rrd_lightning.datasets.libero_scene import check_orientation, has_simulator
from rrd_lightning.datasets.reader import Reader
from rrd_lightning.datasets.source import Facts, Spaces, make_episode
from rrd_lightning.errors import ParameterError, require_positive

Camera = Literal["agentview", "wrist"]
Kind = Literal["images", "state", "both"]
CHOICES = {"obs_alignment": get_args(Alignment), "image_orientation": get_args(Orientation)}

IMAGES = {"agentview": "obs/agentview_rgb", "wrist": "obs/eye_in_hand_rgb"}
PROPRIOCEPTION = "proprioception"
STATE = ("robot", "objects")
VECTORS = {PROPRIOCEPTION: "robot_states", "robot": "obs/robot", "objects": "obs/objects"}
ACTIONS = 7
# robot_states holds gripper (2), position (3), quaternion (4); the environment puts the gripper last.
GRIPPER_LAST = [2, 3, 4, 5, 6, 7, 8, 0, 1]


class _View(NamedTuple):
    """What to observe in a run without an environment, and what is said of the file; see `LiberoReader`."""

    observations: Kind = "images"
    image_size: int | None = None
    cameras: tuple[Camera, ...] = ("agentview",)
    proprioception: bool = False
    alignment: Alignment | None = None
    orientation: Orientation | None = None
    objects: bool = True


class LiberoReader(Reader):
    """Reads HDF5 files in LIBERO's layout.

    In a run with an environment its observation space decides image size, cameras, state and proprioception;
    the arguments decide them in a run without one.

    Args:
        paths: a file, a folder (searched for ``.hdf5`` and ``.h5``, with its subfolders), or a list.
        observations: observe ``"images"``, ``"state"`` or ``"both"``. Files recorded by ``rrd record`` hold the
            state.
        image_size: height and width of the images in pixels; as in the files by default.
        cameras: which cameras to observe.
        proprioception: observe the state of the arm too.
        alignment: whether ``obs[t]`` of a file was recorded ``"before"`` or ``"after"`` ``actions[t]``.
            By default the file's attribute ``obs_alignment`` says, or else what its joint angles and states
            agree with, or else it is after, as in LIBERO's own files.
        orientation: how the images are stored: ``"upside_down"``, as LIBERO renders them, ``"upright"``,
            ``"mirrored"`` (left and right exchanged: LIBERO's turned by 180 degrees), or ``"rotated"`` (upright
            ones turned by 180 degrees). By default the file's attributes say, or else it is upside down.
        cache_dir: where resized images are stored; in the user's cache folder by default.
        objects: let the state be that of the objects too, where the files hold it; else of the robot alone.
    """

    def __init__(
        self,
        paths: str | list[str] | None = None,
        observations: Kind = "images",
        image_size: int | None = None,
        cameras: Sequence[Camera] = ("agentview",),
        proprioception: bool = False,
        alignment: Alignment | None = None,
        orientation: Orientation | None = None,
        cache_dir: str | None = None,
        objects: bool = True,
    ) -> None:
        # Optional, so that a configuration may leave it to the command line, and `sources` may complain.
        self._paths = [paths] if isinstance(paths, str) else paths or []
        self._view = _View(
            observations, image_size, tuple(cameras), proprioception, alignment, orientation, objects
        )
        self._cache = EpisodeCache(cache_dir)

    def sources(self) -> list[LiberoFile]:
        """Find the files.

        Raises:
            ParameterError: if a path does not exist, a folder holds no HDF5 file, or `image_size` is not
                positive.
        """
        if self._view.image_size is not None:
            require_positive(**{"data.demonstrations.image_size": self._view.image_size})
        paths = find_files(self._paths)
        # One comparison with the simulator is enough, and takes a second or two.
        return [LiberoFile(path, self._view, self._cache, compares=path == paths[0]) for path in paths]


class LiberoFile(Hdf5Source):
    """One HDF5 file in LIBERO's layout.

    Observations are a Dict of ``agentview`` and ``wrist``, uint8 ``[3, size, size]``, upright; ``robot`` and
    ``objects``, the state of `rrd_lightning.envs.libero.Libero`; and ``proprioception``, float32 ``[9]``:
    position of the end effector in m (3), its quaternion x, y, z, w (4), and the gripper's fingers in m (2). An
    episode's return is its success, 1 or 0.

    A file has T observations for T actions, so one transition lacks an observation and is dropped: the
    first where observations follow their action, else the last.

    Args:
        path: the file.
        view: what to observe where no environment decides it, and what is said of the file.
        cache: stores episodes whose images were resized.
        compares: compare an image with the simulator's, where it is installed.
    """

    def __init__(
        self,
        path: Path,
        view: _View | None = None,
        cache: EpisodeCache | None = None,
        compares: bool = False,
    ) -> None:
        super().__init__(path)
        self._compares = compares
        self._found: Look | None = None
        self._view = view or _View()
        self._cache = cache or EpisodeCache()

    def spaces(self) -> Spaces:
        """Return the spaces of the view, with the image size of the first intact episode."""
        problem: ParameterError | None = None
        for episode in self.episodes():
            try:
                return self._spaces(episode)
            except ParameterError as error:
                problem = problem or error
        raise problem or self.bad("", "data", "holds no demonstration")

    def _spaces(self, episode: str) -> Spaces:
        parts: dict[str, Space[Any]] = {}
        with self.open() as file:
            for camera in self._view.cameras if self._view.observations != "state" else ():
                height, width = self._image_size(file, episode, camera)
                if self._view.image_size:
                    height = width = self._view.image_size
                parts[camera] = Box(0, 255, (3, height, width), np.uint8)
            keys = [PROPRIOCEPTION] if self._view.proprioception else []
            if self._view.observations != "images":
                has_objects = self._view.objects and VECTORS["objects"] in file["data"][episode]
                keys += STATE if has_objects else STATE[:1]
            for key in keys:
                size = self._vectors(file, episode, key, (None, None)).shape[1]
                parts[key] = Box(-np.inf, np.inf, (size,), np.float32)
        return Dict(parts), Box(-1, 1, (ACTIONS,), np.float32)

    def facts(self, episode: str, spaces: Spaces) -> Facts:
        """Check everything but the pixels."""
        self._require_supported(spaces)
        with self.open() as file:
            actions, _ = self._actions(file, episode)
            observed: Any = spaces[0]
            for key, part in observed.spaces.items():
                if key in VECTORS:
                    self._vectors(file, episode, key, (len(actions), part.shape[0]))
                else:
                    self._image_size(file, episode, key, len(actions))
            self._look(file)
            return Facts(len(actions) - 1, self.success(file, episode))

    def read(self, episode: str, spaces: Spaces) -> TensorDict:
        """Read a demonstration; if its images are resized, from the cache after the first time."""
        observed: Any = spaces[0]
        sizes = {key: part.shape[1:] for key, part in observed.spaces.items() if key in IMAGES}
        with self.open() as file:
            stored = {key: self._image_size(file, episode, key) for key in sizes}
            look = self._look(file)
        if stored == sizes:
            return self._read(episode, sizes, observed, look)
        view = (
            sorted(sizes.items()),
            sorted(set(observed.spaces) - set(sizes)),
            look.alignment,
            look.orientation,
        )
        return self._cache.get(self.path, episode, view, lambda: self._read(episode, sizes, observed, look))

    def _read(self, episode: str, sizes: dict[str, tuple[int, int]], observed: Dict, look: Look) -> TensorDict:
        observation: dict[str, Tensor] = {}
        with self.open() as file:
            actions, rewards = self._actions(file, episode)
            for key, size in sizes.items():
                images = self.array(file, episode, IMAGES[key])
                turned = upright(images, *TURNS[look.orientation])
                observation[key] = resize(torch.from_numpy(turned), size)
            for key, part in observed.spaces.items():
                if key in VECTORS:
                    numbers = self._vectors(file, episode, key, (len(actions), (part.shape or ())[0]))
                    observation[key] = torch.from_numpy(numbers)
            success = self.success(file, episode)
        # The simulator's controller clips actions, too.
        action, reward = torch.from_numpy(actions.clip(-1, 1)), torch.from_numpy(rewards)
        steps = slice(1, None) if look.alignment == "after" else slice(None, -1)
        return make_episode(
            observation,
            action[steps].clone(),
            reward[steps].clone(),
            episode_return=float(success),
            terminated=success,
            success=success,
        )

    def first_step(self) -> int:
        """1 where observations follow their action, since the first action has no observation before it."""
        with self.open() as file:
            return int(self._look(file).alignment == "after")

    def describe(self, spaces: Spaces) -> str:
        """Say which alignment and orientation are taken, and why; warn if the simulator shows another one."""
        observed: Any = spaces[0]
        with self.open() as file:
            look = self._look(file)
            if self._compares and "agentview" in observed.spaces and has_simulator():
                check_orientation(self.name, file["data"], self.episodes()[0], IMAGES["agentview"], look)
        return look.describe(images=bool(set(IMAGES) & set(observed.spaces)))

    def _require_supported(self, spaces: Spaces) -> None:
        observation_space, action_space = spaces
        dimensions = {**dict.fromkeys(IMAGES, 3), **dict.fromkeys(VECTORS, 1)}
        parts = observation_space.spaces if isinstance(observation_space, Dict) else {}
        supported = bool(parts) and all(
            dimensions.get(key) == len(part.shape or ()) and (key != PROPRIOCEPTION or part.shape == (9,))
            for key, part in parts.items()
        )
        if not supported or action_space.shape != (ACTIONS,):
            raise ParameterError(
                "data.demonstrations",
                self.name,
                f"LIBERO's files provide images {list(IMAGES)}, proprioception of 9 numbers, vectors "
                f"{list(STATE)} and actions of {ACTIONS}; the model's spaces are {observation_space} and "
                f"{action_space}",
            )

    def _actions(self, file: Any, episode: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Read the actions ``[T, 7]`` and the rewards ``[T]``."""
        actions = self.numbers(file, episode, "actions", (None, ACTIONS))
        if len(actions) == 0:
            raise self.bad(episode, "actions", "has no step")
        if len(actions) == 1:
            raise self.bad(
                episode, "actions", "has one step; two are needed for an observation before and after an action"
            )
        return actions, self.numbers(file, episode, "rewards", (len(actions),))

    def success(self, file: Any, episode: str) -> bool:
        """Tell whether an episode is a success: its attribute decides, else whether any reward is positive."""
        told = self.told_success(file, episode)
        return told if told is not None else bool((self.array(file, episode, "rewards") > 0).any())

    def _vectors(
        self, file: Any, episode: str, key: str, shape: tuple[int | None, ...]
    ) -> np.ndarray[Any, Any]:
        """Read vectors of an observation, in the environment's order."""
        if key in STATE and VECTORS[key] not in file["data"][episode]:
            raise self.bad(
                episode,
                VECTORS[key],
                "is missing: record it in the simulator by "
                f"rrd record --demonstrations {self.name} --output FOLDER",
            )
        numbers = self.numbers(file, episode, VECTORS[key], shape)
        return numbers[:, GRIPPER_LAST] if key == PROPRIOCEPTION else numbers

    def _look(self, file: Any) -> Look:
        if self._found is not None:
            return self._found
        look = find_look(file["data"], self._view.alignment, self._view.orientation)
        if isinstance(look, Look):
            self._found = look
            return look
        option = look.removeprefix("obs_").removeprefix("image_")
        raise self.bad(
            "",
            f"data.{look}",
            f"is {str(file['data'].attrs[look])!r}, must contain one of {', '.join(CHOICES[look])}; "
            f"data.demonstrations.{option} of LiberoReader overrides it",
        )

    def _image_size(self, file: Any, episode: str, camera: str, length: int | None = None) -> tuple[int, int]:
        """Check the shape of a camera's images, and return their height and width."""
        images = self.dataset(file, episode, IMAGES[camera])
        self.require_shape(episode, IMAGES[camera], images.shape, (length, None, None, 3))
        if images.dtype != np.uint8 or 0 in images.shape[1:]:
            raise self.bad(
                episode, IMAGES[camera], f"is {images.dtype} of shape {images.shape}, must be uint8 images"
            )
        return images.shape[1], images.shape[2]
