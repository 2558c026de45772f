"""LIBERO's tasks as tests use them, where it is installed and its assets are here."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rrd_lightning
from rrd_lightning import Environment
from rrd_lightning.envs import libero_installation

ROOT = Path(rrd_lightning.__file__).parents[1]
ASSETS = Path(
    os.environ.get(libero_installation.ASSETS_VARIABLE) or ROOT.parent / "shared" / "libero" / "assets"
)
DEMOS = Path(os.environ.get("RRD_LIBERO_DEMOS", ROOT.parent / "shared" / "libero")) / "demos"
INSTALLED = importlib.util.find_spec("libero") is not None
BOWL = "libero_goal/put_the_bowl_on_the_stove"
DRAWER = "libero_90/KITCHEN_SCENE4_close_the_bottom_drawer_of_the_cabinet"
SMALL = {"size": 64, "settle_steps": 2, "fast_rendering": True}

needs_libero = [
    pytest.mark.libero,
    pytest.mark.skipif(not INSTALLED, reason="hf-libero is not installed: make setup-libero"),
    pytest.mark.usefixtures("libero_assets"),
]
simulated = pytest.mark.skipif(
    not (ASSETS / "scenes").is_dir(),
    reason=f"no LIBERO assets: export {libero_installation.ASSETS_VARIABLE}=FOLDER",
)


def make(id: str = BOWL, **kwargs: Any) -> Any:
    return Environment(id, kwargs={**SMALL, **kwargs}).make()


def play(env: Any, steps: int = 6) -> list[np.ndarray]:
    """Act at random, but always alike; return all that is seen."""
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, 7)).astype(np.float32)
    return [part for action in actions for part in env.step(action)[0].values()]


def equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(*pair) for pair in zip(first, second, strict=True))
