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

# As in OpenVLA's evaluation: somewhat above the length of each suite's longest demonstration.
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
        """Return the spec from which Gymnasium makes the environment."""
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
        """Return the instruction in natural language."""
        said = re.search(r"\(:language\s+([^)]*)\)", self.file("bddl_files", "bddl").read_text())
        return " ".join(said[1].split()) if said else self.name.replace("_", " ")

    def initial_states(self) -> np.ndarray[Any, Any]:
        """Return the benchmark's initial states of the simulator, ``[50, state size]``."""
        # The classes in their pickled arrays, under the name of NumPy's core before version 2.
        rebuild = import_module("numpy._core.multiarray")._reconstruct
        array: list[Any] = [np.ndarray, np.dtype, np.dtypes.Float64DType]
        array.append((rebuild, "numpy.core.multiarray._reconstruct"))
        with torch.serialization.safe_globals(array):
            states = torch.load(self.file("init_files", "pruned_init"), weights_only=True)
        return np.asarray(states)


def find_task(id: str) -> Task | None:
    """Find a task by its id, such as ``libero_goal/NAME`` or ``libero_goal:8``.

    Returns:
        The task; None if the id does not start with ``libero_``.

    Raises:
        ParameterError: if there is no such suite or task, or LIBERO is not installed.
    """
    if not id.startswith("libero_"):
        return None
    suite, _, name = id.replace(":", "/", 1).partition("/")
    if suite not in TIME_LIMITS:
        raise ParameterError("env.id", id, f"is not in a LIBERO suite; {_options(suite, list(TIME_LIMITS))}")
    names = task_names()[suite]
    if name.isdecimal() and int(name) < len(names):
        name = names[int(name)]
    if name not in names:
        numbers = f"or a number: {suite}:0 to {suite}:{len(names) - 1}"
        raise ParameterError("env.id", id, f"is not a task of {suite}; {_options(name, names)}; {numbers}")
    return Task(suite, name)


@cache
def task_names() -> dict[str, list[str]]:
    """Return the names of each suite's tasks, in LIBERO's order.

    Raises:
        ParameterError: if LIBERO is not installed.
    """
    # This file only holds names; importing its package would prompt the user.
    names = runpy.run_path(str(package_folder() / "benchmark" / "libero_suite_task_map.py"))
    return {suite: names["libero_task_map"][suite] for suite in TIME_LIMITS}


def _options(name: str, names: list[str]) -> str:
    nearest_first = difflib.get_close_matches(name, names, n=len(names), cutoff=0)
    return f"valid ones, most similar first: {', '.join(nearest_first)}"
