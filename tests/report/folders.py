"""Folders of runs, as `rrd fit` leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml


def write_run(
    folder: Path,
    returns: Sequence[float],
    *,
    decomposition: str = "RRD",
    agent: str = "SAC",
    task: str = "Pendulum-v1",
    seed: int = 0,
    batch_size: int = 32,
    budget: int = 3000,
    first: int = 1000,
    every: int = 1000,
    resumes: Path | None = None,
    correlation: float | None = None,
    **arguments: Any,
) -> Path:
    """Write a run evaluated with these returns; further arguments are the decomposition's."""
    steps = range(first, first + every * len(returns), every)
    table = pd.DataFrame({"step": steps, "evaluate/return_mean": returns, "loss/reward": ""})
    if correlation is not None:
        table["evaluate/reward_pearson"] = correlation
    config = {
        "seed_everything": seed,
        "model": {
            "agent": {"class_path": f"rrd_lightning.agents.{agent}", "init_args": {"gamma": 0.99}},
            "decomposition": {
                "class_path": f"rrd_lightning.decomposition.{decomposition}",
                "init_args": arguments,
            },
        },
        "data": {"batch_size": batch_size, "scratch_dir": str(folder)},
        "env": {"id": task, "max_episode_steps": None, "kwargs": None},
        "collect": {"total_env_steps": budget},
        "ckpt_path": str(resumes / "checkpoints/last.ckpt") if resumes else None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "metrics.csv", index=False)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder
