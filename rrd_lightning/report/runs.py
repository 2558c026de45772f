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
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tqdm import tqdm

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
        name: the same, within the folder that was given, if it was one.
        config: its configuration, of ``config.yaml``.
        evaluations: a row per evaluation, by ``step``; columns without ``evaluate/``.
        earlier: the folders of the parts before.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    evaluations: pd.DataFrame
    earlier: tuple[Path, ...] = ()

    @property
    def env_id(self) -> str:
        """The id of the environment."""
        return str(self.config["env"]["id"])

    @property
    def task(self) -> str:
        """The id of the environment, with the arguments given to it."""
        env = self.config["env"]
        given = {**(env.get("kwargs") or {}), "max_episode_steps": env.get("max_episode_steps")}
        changes = [f"{name}={value}" for name, value in given.items() if value is not None]
        return " ".join([self.env_id, *changes])

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
        try:
            return _read_yaml(self.folder / PROVENANCE)
        except Unusable:
            return {}

    @property
    def budget(self) -> int:
        """Environment steps that the run is to make."""
        return int(self.config["collect"].get("total_env_steps") or 0)


def read_runs(paths: Iterable[str | Path]) -> tuple[list[Run], list[str]]:
    """Read all runs in some folders, at any depth.

    Returns:
        The runs, and what was left out, each with its reason.

    Raises:
        ParameterError: if a folder does not exist.
    """
    parts: dict[Path, Run] = {}
    left_out: list[str] = []
    folders = _folders([Path(path) for path in paths])
    for folder, name in tqdm(folders.items(), unit=" folders", leave=False, disable=None):
        try:
            part, damaged = read_part(folder, name)
            parts[folder.resolve()] = part
            left_out += damaged
        except Unusable as reason:
            left_out.append(f"{name}: {reason}")
    return list(_joined(parts)), left_out


def _folders(paths: list[Path]) -> dict[Path, str]:
    """Return the folders that runs logged into, each once, with their names."""
    found: dict[Path, tuple[Path, str]] = {}
    for path in paths:
        if not path.exists():
            raise ParameterError("runs", str(path), "does not exist: give folders of runs")
        within = [path] if path.is_file() else [*path.rglob("metrics.csv"), *path.rglob("config.yaml")]
        for folder in (file.parent for file in within):
            named = len(paths) == 1 and folder not in (path, path.parent)
            name = str(folder.relative_to(path) if named else folder)
            found.setdefault(folder.resolve(), (folder, name))
    return dict(sorted(found.values(), key=lambda each: [_number(part) for part in each[0].parts]))


def _number(part: str) -> tuple[str, int]:
    """Sort ``version_10`` after ``version_9``."""
    name, _, number = part.rpartition("_")
    return (name, int(number)) if number.isdecimal() else (part, 0)


def read_part(folder: Path, name: str) -> tuple[Run, list[str]]:
    """Read one folder that a run logged into.

    Returns:
        The run as far as this folder tells it, and its damaged rows, each with its reason.

    Raises:
        Unusable: if it holds no run with an evaluation in an environment.
    """
    config = _read_yaml(folder / "config.yaml")
    if not all(isinstance(config.get(section), dict) for section in ("model", "env", "collect")):
        raise Unusable("config.yaml is not that of a run")
    if "verbose" in config:
        raise Unusable("evaluates a checkpoint of another run")
    if not config["env"].get("id"):
        raise Unusable("has no environment")
    try:
        text = (folder / "metrics.csv").read_text(errors="replace")
    except OSError:
        raise Unusable("has no evaluation: there is no metrics.csv") from None
    rows, damaged = _read_rows(text)
    if not rows:
        raise Unusable("has no evaluation" + (f": {', '.join(damaged)} of metrics.csv" if damaged else ""))
    evaluations = pd.DataFrame(rows).set_index(STEP).rename(columns=lambda name: name.removeprefix(PREFIX))
    evaluations = evaluations[~evaluations.index.duplicated(keep="last")].sort_index()
    return Run(folder, name, config, evaluations), [f"{name}: {row} of metrics.csv" for row in damaged]


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
            damaged.append(f"damaged row {number}")
        elif RETURN in row and math.isfinite(row[RETURN]):
            rows.append({name: row[name] for name in row if name == STEP or name.startswith(PREFIX)})
        elif RETURN in row:
            damaged.append(f"return {row[RETURN]} in row {number}")
    return rows, damaged


def _seconds(folder: Path) -> float:
    """Return the wall-clock time between the first and the last of TensorBoard's events."""
    times = []
    for path in folder.glob("events.out.*"):
        events = list(RawEventFileLoader(str(path)).Load())
        times += [Event.FromString(event).wall_time for event in (*events[:1], *events[-1:])]
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
    # Where both were moved, it is beside this one.
    earlier = named.resolve() if named.exists() else folder.parent / named.name
    same_task = earlier in parts and parts[earlier].task == run.task
    return earlier if same_task and earlier != folder else None


def _follow(earlier: Run, later: Run) -> Run:
    """Return the later part of a run, preceded by the earlier one up to where the later one begins."""
    kept = earlier.evaluations[earlier.evaluations.index < later.evaluations.index[0]]
    evaluations = pd.concat([kept, later.evaluations])
    return replace(later, evaluations=evaluations, earlier=(earlier.folder, *later.earlier))
