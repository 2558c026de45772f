"""The 130 tasks of LIBERO."""

from __future__ import annotations

import difflib
import re
import runpy
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from rrd_lightning.envs.libero_installation import package_folder
from rrd_lightning.errors import ParameterError

# The time limits of OpenVLA's evaluation: somewhat above the longest demonstration of each suite.
TIME_LIMITS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}


class Task(NamedTuple):
    """One of the 130 tasks."""

    suite: str
    name: str

    @property
    def id(self) -> str:
        """Such as ``libero_goal/put_the_bowl_on_the_stove``."""
        return f"{self.suite}/{self.name}"

    def spec(self) -> EnvSpec:
        """Return what Gymnasium makes the environment from."""
        return EnvSpec(
            self.id,
            entry_point="rrd_lightning.envs.libero:Libero",
            max_episode_steps=TIME_LIMITS[self.suite],
            kwargs={"task": self.id},
        )

    def file(self, folder: str, ending: str) -> Path:
        """Return the path of one of the task's files in the installed package."""
        return package_folder() / folder / self.suite / f"{self.name}.{ending}"

    def instruction(self) -> str:
        """Return what the robot is told to do."""
        said = re.search(r"\(:language\s+([^)]*)\)", self.file("bddl_files", "bddl").read_text())
        return " ".join(said[1].split()) if said else self.name.replace("_", " ")

    def initial_states(self) -> np.ndarray[Any, Any]:
        """Return the benchmark's initial states of the simulator, ``[50, state size]``."""
        # What their pickled arrays are made of, under NumPy's old name of its core.
        rebuild = import_module("numpy._core.multiarray")._reconstruct
        array: list[Any] = [np.ndarray, np.dtype, np.dtypes.Float64DType]
        array.append((rebuild, "numpy.core.multiarray._reconstruct"))
        with torch.serialization.safe_globals(array):
            states = torch.load(self.file("init_files", "pruned_init"), weights_only=True)
        return np.asarray(states)


def find_task(id: str) -> Task | None:
    """Find the task that an id such as ``libero_goal/NAME`` or ``libero_goal:8`` stands for.

    Returns:
        None where the id is not one of LIBERO.

    Raises:
        ParameterError: if there is no such suite or task, or LIBERO is not installed.
    """
    if not id.startswith("libero_"):
        return None
    suite, _, name = id.replace(":", "/", 1).partition("/")
    if suite not in TIME_LIMITS:
        raise ParameterError("env.id", id, f"is of no suite of LIBERO; {_valid(suite, list(TIME_LIMITS))}")
    names = task_names()[suite]
    if name.isdecimal() and int(name) < len(names):
        name = names[int(name)]
    if name not in names:
        numbers = f"or a number: {suite}:0 to {suite}:{len(names) - 1}"
        raise ParameterError("env.id", id, f"is no task of {suite}; {_valid(name, names)}; {numbers}")
    return Task(suite, name)


@cache
def task_names() -> dict[str, list[str]]:
    """Return the names of each suite's tasks, in LIBERO's order.

    Raises:
        ParameterError: if LIBERO is not installed.
    """
    # A file of names alone, run by itself: its package would ask a question when imported.
    names = runpy.run_path(str(package_folder() / "benchmark" / "libero_suite_task_map.py"))
    return {suite: names["libero_task_map"][suite] for suite in TIME_LIMITS}


def _valid(name: str, names: list[str]) -> str:
    nearest_first = difflib.get_close_matches(name, names, n=len(names), cutoff=0)
    return f"valid, the nearest first: {', '.join(nearest_first)}"
