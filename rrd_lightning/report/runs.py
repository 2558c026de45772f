"""Runs as they lie on the disk: their configuration, their evaluations, and how long they took."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from rrd_lightning.errors import ParameterError

# Written by benchmarks/campaign beside what it keeps of a run.
PROVENANCE = "provenance.yaml"
RETURN, STEP, PREFIX = "evaluate/return_mean", "step", "evaluate/"


class Unusable(Exception):
    """A folder that cannot be reported on; the message says why."""


@dataclass(frozen=True)
class Run:
    """A run, from its start to its last evaluation, over all the folders that resumed it.

    Args:
        folder: the folder of its latest part.
        config: its configuration, of ``config.yaml``.
        evaluations: a row per evaluation, by ``step``; columns without ``evaluate/``.
        earlier: the folders of the parts before.
    """

    folder: Path
    config: dict[str, Any]
    evaluations: pd.DataFrame
    earlier: tuple[Path, ...] = ()

    @property
    def task(self) -> str:
        """The id of the environment, with the arguments given to it."""
        env = self.config["env"]
        given = {**(env.get("kwargs") or {}), "max_episode_steps": env.get("max_episode_steps")}
        changes = [f"{name}={value}" for name, value in given.items() if value is not None]
        return " ".join([env["id"], *changes])

    @property
    def seed(self) -> Any:
        """The seed of the run."""
        return self.config.get("seed_everything")

    @property
    def env_steps(self) -> int:
        """Environment steps at the last evaluation."""
        return int(self.evaluations.index[-1])

    @cached_property
    def seconds(self) -> float:
        """Wall-clock time over all parts; NaN if unknown."""
        return float(self._provenance.get("seconds", sum(map(_seconds, (*self.earlier, self.folder)))))

    @property
    def commits(self) -> list[str]:
        """The commits of the code that made it, in order, if known."""
        return list(dict.fromkeys(str(part["commit"]) for part in self._provenance.get("parts", [])))

    @cached_property
    def _provenance(self) -> dict[str, Any]:
        path = self.folder / PROVENANCE
        return _read_yaml(path) if path.exists() else {}

    @property
    def budget(self) -> int:
        """Environment steps that the run is to make."""
        return int(self.config["collect"]["total_env_steps"])


def read_runs(paths: Iterable[str | Path]) -> tuple[list[Run], list[str]]:
    """Read all runs in some folders, at any depth.

    Returns:
        The runs, and what was left out, each with its reason.

    Raises:
        ParameterError: if a folder does not exist.
    """
    parts: dict[Path, Run] = {}
    left_out: list[str] = []
    for folder in _folders(paths):
        try:
            part, damaged = read_part(folder)
            parts[folder.resolve()] = part
            left_out += damaged
        except Unusable as reason:
            left_out.append(f"{folder}: {reason}")
    return list(_joined(parts)), left_out


def _folders(paths: Iterable[str | Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise ParameterError("runs", str(path), "does not exist: give folders of runs")
        within = [path] if path.is_file() else [*path.rglob("metrics.csv"), *path.rglob("config.yaml")]
        found.update({file.parent.resolve(): file.parent for file in within})
    return sorted(found.values(), key=lambda folder: [_number(part) for part in folder.parts])


def _number(part: str) -> tuple[str, int]:
    """Sort ``version_10`` after ``version_9``."""
    name, _, number = part.rpartition("_")
    return (name, int(number)) if number.isdecimal() else (part, 0)


def read_part(folder: Path) -> tuple[Run, list[str]]:
    """Read one folder that a run logged into.

    Returns:
        The run as far as this folder tells it, and its damaged rows, each with its reason.

    Raises:
        Unusable: if it holds no run with an evaluation in an environment.
    """
    config = _read_yaml(folder / "config.yaml")
    if not {"model", "env", "collect"} <= config.keys():
        raise Unusable("config.yaml is not that of a run")
    if "verbose" in config:
        raise Unusable("evaluates a checkpoint of another run")
    if not (config["env"] or {}).get("id"):
        raise Unusable("has no environment")
    try:
        text = (folder / "metrics.csv").read_text(errors="replace")
    except OSError:
        raise Unusable("has no evaluation: there is no metrics.csv") from None
    rows, damaged = _read_rows(text)
    if not rows:
        raise Unusable("has no evaluation" + (f": {', '.join(damaged)}" if damaged else ""))
    evaluations = pd.DataFrame(rows).set_index(STEP).rename(columns=lambda name: name.removeprefix(PREFIX))
    evaluations = evaluations[~evaluations.index.duplicated(keep="last")].sort_index()
    return Run(folder, config, evaluations), [f"{folder / 'metrics.csv'}: {row}" for row in damaged]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise Unusable(f"there is no {path.name}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise Unusable(f"{path.name} cannot be read") from None
    if not isinstance(content, dict):
        raise Unusable(f"{path.name} cannot be read")
    return content


def _read_rows(text: str) -> tuple[list[dict[str, float]], list[str]]:
    """Return the evaluations of a table, and which rows of it are damaged."""
    lines = text.splitlines(keepends=True)
    header, *body = csv.reader(lines) if lines else [[]]
    if not {STEP, RETURN} <= set(header):
        return [], []
    rows, damaged = [], []
    for number, fields in enumerate(body, start=2):
        whole = len(fields) == len(header) and lines[number - 1].endswith("\n")
        try:
            row = {name: float(field) for name, field in zip(header, fields, strict=True) if field}
        except ValueError:
            whole = False
        if not whole or not math.isfinite(row.get(STEP, math.nan)):
            damaged.append(f"row {number} is damaged")
        elif RETURN in row and math.isfinite(row[RETURN]):
            rows.append({name: row[name] for name in row if name == STEP or name.startswith(PREFIX)})
        elif RETURN in row:
            damaged.append(f"row {number} has the return {row[RETURN]}")
    return rows, damaged


def _seconds(folder: Path) -> float:
    """Return the wall-clock time between the first and the last of TensorBoard's events."""
    times = [
        event.wall_time for path in folder.glob("events.out.*") for event in EventFileLoader(str(path)).Load()
    ]
    return max(times) - min(times) if times else math.nan


def _joined(parts: dict[Path, Run]) -> Iterator[Run]:
    """Join each folder to those that it resumed; a part that was resumed is no run of its own."""
    before = {folder: _resumed(folder, run, parts) for folder, run in parts.items()}
    resumed = set(before.values())
    for folder, run in parts.items():
        if folder in resumed:
            continue
        earlier = before[folder]
        while earlier is not None:
            run = _follow(parts[earlier], run)
            earlier = before[earlier]
        yield run


def _resumed(folder: Path, run: Run, parts: dict[Path, Run]) -> Path | None:
    """Return the folder whose checkpoint a run went on from, also if both were moved."""
    checkpoint = run.config.get("ckpt_path")
    if not isinstance(checkpoint, str):
        return None
    named = Path(checkpoint).parent.parent
    for candidate in (named.resolve(), folder.parent / named.name):
        if candidate in parts and candidate != folder and parts[candidate].task == run.task:
            return candidate
    return None


def _follow(earlier: Run, later: Run) -> Run:
    """Return the later part of a run, preceded by the earlier one up to where the later one begins."""
    kept = earlier.evaluations[earlier.evaluations.index < later.evaluations.index[0]]
    evaluations = pd.concat([kept, later.evaluations])
    return replace(later, evaluations=evaluations, earlier=(earlier.folder, *later.earlier))
