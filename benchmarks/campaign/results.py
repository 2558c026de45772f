"""What is kept of a run: its evaluations, its configuration, and where it was made."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from rrd_lightning.report.runs import PREFIX, PROVENANCE, Run, read_runs

ROOT = Path(__file__).parents[2]
COLUMNS = (
    "return_mean",
    "return_std",
    "length_mean",
    "success",
    "return_error",
    "return_error_constant",
    "reward_pearson",
    "reward_spearman",
)
SECTIONS = ("seed_everything", "model", "data", "env", "collect", "evaluate")
PACKAGES = ("torch", "lightning", "torchrl", "gymnasium", "mujoco", "numpy")


def furthest(folder: Path) -> Run | None:
    """Return the run in a folder, the furthest of its parts' lines if it was killed before a save."""
    runs, _ = read_runs([folder]) if folder.exists() else ([], [])
    return max(runs, key=lambda run: run.env_steps, default=None)


def keep(run: Run, folder: Path, provenance: dict[str, Any]) -> None:
    """Write what is kept of a run, unless more of it is kept already."""
    before = furthest(folder)
    if before is not None and before.env_steps > run.env_steps:
        return
    columns = [name for name in COLUMNS if name in run.evaluations and run.evaluations[name].notna().any()]
    table = run.evaluations[columns].rename(columns=lambda name: PREFIX + name)
    config = {section: run.config[section] for section in SECTIONS if section in run.config}
    write(folder / "metrics.csv", table.to_csv(float_format="%.5g", lineterminator="\n"))
    write(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    write(folder / PROVENANCE, yaml.safe_dump(provenance, sort_keys=False))


def read_provenance(folder: Path) -> dict[str, Any]:
    path = folder / PROVENANCE
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def write(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(path.name + ".part")
    staged.write_text(text)
    staged.replace(path)


def here() -> dict[str, Any]:
    """Tell what runs here: the commit, the machine and the versions."""
    describe = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return {"commit": commit or "unknown", "machine": _machine(), "versions": versions}


def _machine() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
