"""What there is to record for one file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from rrd_lightning.envs.libero import Libero
from rrd_lightning.envs.libero_camera import CAMERAS
from rrd_lightning.envs.libero_state import OBJECTS, ROBOT
from rrd_lightning.record.writer import Recording

# LIBERO's files have the fingers first, the environment's proprioception has them last.
GRIPPER_FIRST = [7, 8, 0, 1, 2, 3, 4, 5, 6]
KEYS = {"images": (*CAMERAS,), "state": (ROBOT, OBJECTS), "both": (*CAMERAS, ROBOT, OBJECTS)}
Array = np.ndarray[Any, Any]


class Job(ABC):
    """The episodes of one file.

    Attributes:
        path: the file to write.
        env: the environment, which observes proprioception as well.
        options: everything that decides what is recorded.
        episodes: names of the episodes.
    """

    path: Path
    env: Libero
    options: dict[str, Any]
    episodes: list[str]

    @abstractmethod
    def record(self, episode: str) -> Recording:
        """Record an episode."""

    @abstractmethod
    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the file."""


def make_recording(
    seen: list[dict[str, Array]],
    kind: str,
    *,
    actions: Any,
    rewards: Any,
    states: Any,
    attributes: dict[str, Any],
) -> Recording:
    """Stack what was seen before each action.

    Args:
        seen: observations, with proprioception.
        kind: which of them to keep, ``images``, ``state`` or ``both``.
        actions: ``[T, 7]``.
        rewards: ``[T]``.
        states: ``[T, state size]``.
        attributes: of the episode.
    """
    stacked = {key: np.stack([each[key] for each in seen]) for key in seen[0]}
    return Recording(
        observations={key: stacked[key] for key in KEYS[kind] if key in stacked},
        actions=np.asarray(actions),
        rewards=np.asarray(rewards),
        states=np.asarray(states),
        robot_states=stacked["proprioception"][:, GRIPPER_FIRST],
        attributes=attributes,
    )
