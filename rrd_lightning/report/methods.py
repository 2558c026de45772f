"""Methods: runs that differ in nothing but the seed, named by what tells them apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rrd_lightning.report.runs import Run

# What a run learns is decided here; of this, the rest is left out.
SECTIONS = ("model", "data", "collect")
INDIFFERENT = {
    "collect.total_env_steps",
    "collect.worker_timeout",
    "data.storage",
    "data.scratch_dir",
    "data.cache_dir",
}
DECOMPOSITION = "model.decomposition"
UPPER_BOUND, LOWER_BOUND = "EnvironmentReward", "EpisodicReward"
# What concerns the reward model alone, and so not the bounds.
OF_THE_REWARD = (DECOMPOSITION, "data.rrd_", "data.sampler")


@dataclass(frozen=True)
class Method:
    """Runs of one task that differ in nothing but the seed.

    Args:
        task: the environment.
        name: what tells the method apart from the others of its task.
        runs: one for each seed, in order.
        settings: the configuration, by dotted names.
    """

    task: str
    name: str
    runs: tuple[Run, ...]
    settings: dict[str, Any]

    @property
    def decomposition(self) -> str:
        """The name of the class, such as ``RRD``."""
        return str(self.settings.get(DECOMPOSITION, ""))

    @property
    def is_bound(self) -> bool:
        """Whether it is a yardstick, which learns no reward."""
        return self.decomposition in (UPPER_BOUND, LOWER_BOUND)

    @property
    def rest(self) -> dict[str, Any]:
        """The settings but for those of the reward, which a method shares with its bounds."""
        return {name: value for name, value in self.settings.items() if not name.startswith(OF_THE_REWARD)}

    def bound(self, name: str, methods: list[Method]) -> Method | None:
        """Return the yardstick of this method: of the same task and with the same settings."""
        same = (each for each in methods if each.decomposition == name and each.task == self.task)
        return next((each for each in same if each.rest == self.rest), None)


def group(runs: list[Run]) -> tuple[list[Method], list[str]]:
    """Group runs into methods.

    Returns:
        The methods, by task, and what was left out, each with its reason.
    """
    tasks: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        tasks[run.task].append(run)
    methods, left_out = [], []
    for task, of_task in sorted(tasks.items()):
        settings = {run.folder: settings_of(run.config) for run in of_task}
        names = name_apart(list(settings.values()))
        named: dict[str, dict[Any, Run]] = defaultdict(dict)
        for run, name in zip(of_task, names, strict=True):
            other = named[name].setdefault(run.seed, run)
            if other is not run:
                shorter, longer = sorted((run, other), key=lambda each: each.env_steps)
                named[name][run.seed] = longer
                left_out.append(f"{shorter.name}: has seed {run.seed} as {longer.name}, which goes as far")
        for name, seeds in named.items():
            ordered = tuple(seeds[seed] for seed in sorted(seeds, key=repr))
            methods.append(Method(task, name, ordered, settings[ordered[0].folder]))
    return methods, left_out


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a configuration says of learning, by dotted names; classes by their own names."""
    flat = dict(item for section in SECTIONS for item in _flatten(config.get(section), section))
    return {name: value for name, value in flat.items() if name not in INDIFFERENT}


def _flatten(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and "class_path" in value:
        kind = str(value["class_path"]).rpartition(".")[2]
        yield name, kind
        # The arguments of different classes are not compared.
        yield from _flatten(value.get("init_args") or {}, f"{name}.{kind}")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _flatten(each, f"{name}.{key}")
    elif isinstance(value, str) and value.count(".") and value.rpartition(".")[2].isidentifier():
        yield name, value.rpartition(".")[2]
    else:
        yield name, tuple(value) if isinstance(value, list) else value


def name_apart(settings: list[dict[str, Any]]) -> list[str]:
    """Return a name for each of several settings: the decomposition, and what else differs among them."""
    values: dict[str, set[Any]] = defaultdict(set)
    for each in settings:
        for name, value in each.items():
            values[name].add(repr(value))
    differing = [name for name in values if len(values[name]) > 1 and name != DECOMPOSITION]
    # Classes first; what is off is not said, if it is on elsewhere.
    differing.sort(key=lambda name: name != "model.agent")
    silent = {name: [each for each in values[name] if each in ("False", "None")] for name in differing}
    names = []
    for each in settings:
        words = [str(each.get(DECOMPOSITION, "no decomposition"))]
        for name in differing:
            value = each.get(name)
            if name in each and [repr(value)] != silent[name]:
                words.append(_say(name, value))
        names.append(", ".join(words))
    return names


def _say(name: str, value: Any) -> str:
    last = name.rpartition(".")[2].replace("_", " ")
    if value is True:
        return last
    if name == "model.agent":
        return str(value)
    return f"{last} {' × '.join(map(str, value)) if isinstance(value, tuple) else value}"
