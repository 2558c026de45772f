"""The matrix of a campaign: which runs there are, and in which order."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

SECTIONS = {"budgets", "seeds", "arguments", "tasks", "methods"}


@dataclass(frozen=True)
class Job:
    """A run up to a budget.

    Args:
        task: the id of the environment.
        method: its name in the matrix.
        seed: the seed of the run.
        budget: environment steps to reach.
        arguments: of ``rrd fit``, but for task, seed and budget.
    """

    task: str
    method: str
    seed: int
    budget: int
    arguments: tuple[str, ...]

    @property
    def path(self) -> str:
        """Where the run lies in the folder of a campaign, whatever its budget."""
        return f"{_file_name(self.task)}/{_file_name(self.method)}/{self.seed}"

    def __str__(self) -> str:
        return f"{self.task}, {self.method}, seed {self.seed}"


def read_matrix(path: Path) -> list[Job]:
    """Read a matrix: for each budget, each seed, each task, each method.

    Raises:
        ValueError: if it is no matrix; the message says what is wrong.
    """
    try:
        matrix = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(matrix, dict) or not SECTIONS - {"arguments"} <= matrix.keys() <= SECTIONS:
        raise ValueError("needs budgets, seeds, tasks and methods, and may have arguments")
    for name, smallest in (("budgets", 1), ("seeds", 0)):
        numbers = matrix[name]
        valid = isinstance(numbers, list) and all(type(each) is int and each >= smallest for each in numbers)
        if not valid or not numbers:
            raise ValueError(f"{name}: {numbers!r} is no list of numbers")
    for name in ("tasks", "methods"):
        if not isinstance(matrix[name], dict) or not matrix[name]:
            raise ValueError(f"{name}: needs names, each with its arguments")
    shared = _split("arguments", matrix.get("arguments"))
    jobs = [
        Job(task, method, seed, budget, _of(seed, shared + _split(task, of_task) + _split(method, of_method)))
        for budget in sorted(matrix["budgets"])
        for seed in matrix["seeds"]
        for task, of_task in matrix["tasks"].items()
        for method, of_method in matrix["methods"].items()
    ]
    if len({(job.path, job.budget) for job in jobs}) < len(jobs):
        raise ValueError("has two runs of the same name")
    return jobs


def _of(seed: int, arguments: list[str]) -> tuple[str, ...]:
    return tuple(argument.replace("{seed}", str(seed)) for argument in arguments)


def _split(name: str, arguments: str | list[str] | None) -> list[str]:
    texts = arguments if isinstance(arguments, list) else [arguments or ""]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name}: {arguments!r} is no text of arguments, nor a list of such")
    return [argument for text in texts for argument in shlex.split(text)]


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.=+-]+", "_", name)
