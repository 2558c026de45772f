"""The scene of a demonstration in LIBERO's simulator, and whether the demonstration's images look like it."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from rrd_lightning.datasets.images import resize
from rrd_lightning.datasets.libero_look import Look, Orientation, correlate
from rrd_lightning.envs.libero import Libero
from rrd_lightning.envs.libero_installation import ASSETS_VARIABLE, package_folder

# What another orientation must correlate better by, to be believed.
CLEARLY = 0.1


def task_of(data: Any) -> str | None:
    """Return the id of the task that a file's group ``data`` names."""
    name = data.attrs.get("bddl_file_name")
    return None if name is None else f"{Path(str(name)).parent.name}/{Path(str(name)).stem}"


def fixtures_of(attributes: Mapping[str, Any], env: Libero) -> dict[str, list[float]] | None:
    """Return where an episode's fixtures are, which is not part of its states; None if it does not say.

    Args:
        attributes: of the episode: ``fixture_poses``, JSON of positions and quaternions, or ``model_file``, the
            scene's XML.
        env: the environment, after a reset.
    """
    if "fixture_poses" in attributes:
        poses: dict[str, list[float]] = json.loads(attributes["fixture_poses"])
        return poses
    if not env.fixtures:
        return {}
    if not attributes.get("model_file"):
        return None
    scene = ElementTree.fromstring(attributes["model_file"])
    bodies = {body.get("name"): body for body in scene.iter("body")}
    return {name: _pose(bodies[env.root_body(name)]) for name in env.fixtures}


def _pose(body: ElementTree.Element) -> list[float]:
    position, quaternion = body.get("pos", "0 0 0"), body.get("quat", "1 0 0 0")
    return [float(number) for number in f"{position} {quaternion}".split()]


def has_simulator() -> bool:
    """Tell whether LIBERO is installed with its assets, so that using it downloads nothing."""
    if importlib.util.find_spec("libero") is None:
        return False
    return ASSETS_VARIABLE in os.environ or (package_folder() / "assets").is_dir()


@rank_zero_only
def check_orientation(name: str, data: Any, episode: str, key: str, look: Look) -> None:
    """Compare an episode's first image with the simulator's, and warn if it looks turned.

    Args:
        name: of the file.
        data: its group ``data``.
        episode: name of the episode.
        key: of its images from LIBERO's ``agentview``.
        look: what is taken.
    """
    try:
        better = _better_orientation(data, episode, key, look)
    except Exception as error:  # whatever is wrong with the simulator, reading does not need it
        rank_zero_info(f"{name}: its images could not be compared with the simulator's ({error})")
        return
    if better:
        rank_zero_warn(
            f"{name}: its images look {better.replace('_', ' ')} beside the simulator's, but are read as "
            f"{look.orientation.replace('_', ' ')}: give data.demonstrations.orientation={better} "
            "of LiberoReader"
        )


def _better_orientation(data: Any, episode: str, key: str, look: Look) -> Orientation | None:
    task, demo = task_of(data), data[episode]
    row = int(look.alignment == "after")
    if task is None or "states" not in demo or len(demo["states"]) <= row:
        return None
    stored = demo[key][0]
    env = Libero(task, size=64, fast_rendering=True)
    env.reset(seed=0)
    drawn = env.restore(demo["states"][row], fixtures_of(demo.attrs, env) or {})["agentview"]
    env.close()
    small = resize(torch.from_numpy(np.ascontiguousarray(stored.transpose(2, 0, 1)))[None], (64, 64))[0]
    fits = correlate(small.permute(1, 2, 0).numpy(), drawn.transpose(1, 2, 0))
    best = max(fits, key=lambda orientation: fits[orientation])
    return best if fits[best] > fits[look.orientation] + CLEARLY else None
