"""Small files in LIBERO's layout, and the real ones if they are here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict
from tensordict import TensorDict

from rrd_lightning.datasets import Demonstrations, LiberoReader

h5py = pytest.importorskip("h5py")


ROOT = Path(__file__).parents[2]


DEMOS = Path(os.environ.get("RRD_LIBERO_DEMOS", ROOT.parent / "shared/libero")) / "demos"


real = pytest.mark.skipif(not DEMOS.is_dir(), reason="RRD_LIBERO_DEMOS holds no folder demos")


SPACES = Dict({"agentview": Box(0, 255, (3, 4, 4), np.uint8)}), Box(-1, 1, (7,), np.float32)


def write_file(path: str | Path, demos: int = 1, steps: int = 5, size: int = 4, **attributes: Any) -> Path:
    """Write a file in LIBERO's layout; row t holds the number t, and its image one marked pixel."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs.update(attributes)
        for demo in range(demos):
            group = data.create_group(f"demo_{demo}")
            step = np.arange(steps)
            group["actions"] = np.repeat(step[:, None] / 10, 7, 1)
            group["rewards"] = (step == steps - 1).astype(np.uint8) * (demo % 2 == 0)
            group["robot_states"] = step[:, None] + np.arange(9) / 10
            images = np.zeros((steps, size, size, 3), np.uint8)
            images[:, 0, 1, 2] = 10 + step  # as rendered: first row, second column, blue
            group["obs/agentview_rgb"] = images
            group["obs/eye_in_hand_rgb"] = images + 1
    return Path(path)


def read_one(path: Path | str, spaces: Any = SPACES, **options: Any) -> TensorDict:
    demonstrations = Demonstrations(LiberoReader(str(path), **options))
    ((_, episode),) = demonstrations.read(demonstrations.entries(spaces)[:1], spaces)
    return episode


def change(path: Path, key: str, value: Any) -> None:
    with h5py.File(path, "r+") as file:
        del file["data/demo_1"][key]
        if value is not None:
            file["data/demo_1"][key] = value
