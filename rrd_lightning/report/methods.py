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
    "data.demonstrations.LiberoReader.cache_dir",
}
DECOMPOSITION, AGENT, ENCODER = "model.decomposition", "model.agent", "model.encoder"
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
    of_id = defaultdict(set)
    for run in runs:
        of_id[run.env_id].add(run.task)
    for task, of_task in sorted(tasks.items()):
        env_id = of_task[0].env_id
        label = env_id if len(of_id[env_id]) == 1 else task  # arguments are said where they differ
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
            methods.append(Method(label, name, ordered, settings[ordered[0].folder]))
    return methods, left_out


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a configuration says of learning, by dotted names; classes by their own names."""
    flat = dict(item for section in SECTIONS for item in _flatten(config.get(section), section))
    if isinstance(encoder := flat.get(ENCODER), str):  # seeds may each have their own
        seed = str(config.get("seed_everything"))
        flat[ENCODER] = "/".join("{seed}" if part == seed else part for part in encoder.split("/"))
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
    elif (
        isinstance(value, str) and "/" not in value and value.count(".") and value.split(".")[-1].isidentifier()
    ):
        yield name, value.rpartition(".")[2]
    else:
        yield name, tuple(value) if isinstance(value, list) else value


def name_apart(settings: list[dict[str, Any]]) -> list[str]:
    """Return a name for each of several settings: the decomposition, the agent, and what else it takes."""
    values = _values(settings)
    names = [str(each.get(DECOMPOSITION, "no decomposition")) for each in settings]
    for setting in sorted(_differing(values), key=lambda setting: setting != AGENT):
        of_name = defaultdict(set)
        for name, each in zip(names, settings, strict=True):
            of_name[name].add(repr(each.get(setting)))
        if setting == AGENT or any(len(each) > 1 for each in of_name.values()):
            words = [_say(setting, each, values[setting]) for each in settings]
            names = [", ".join(filter(None, pair)) for pair in zip(names, words, strict=True)]
    return names


def differences(methods: list[Method]) -> list[str]:
    """Return the settings in which the methods of a task differ, but for those of their own classes.

    Methods that are told apart by their names alone may differ in more, which a reader has to know.
    """
    found = []
    values = _values([method.settings for method in methods])
    for setting in _differing(values):
        if setting.startswith((DECOMPOSITION, AGENT)):
            continue
        of_value = defaultdict(list)
        for method in methods:
            if setting in method.settings:
                of_value[_write(method.settings[setting])].append(method.name)
        sides = [f"{value} ({'; '.join(names)})" for value, names in of_value.items()]
        found.append(f"{setting}: {', '.join(sides)}")
    return found


def _values(settings: list[dict[str, Any]]) -> dict[str, set[str]]:
    values = defaultdict(set)
    for each in settings:
        for setting, value in each.items():
            values[setting].add(repr(value))
    return values


def _differing(values: dict[str, set[str]]) -> list[str]:
    return [setting for setting in values if len(values[setting]) > 1 and setting != DECOMPOSITION]


def _say(setting: str, settings: dict[str, Any], values: set[str]) -> str:
    """Say a setting in a name, if there is one; what is off is not said, if all others are on."""
    value = settings.get(setting)
    if setting not in settings or [repr(value)] == [each for each in values if each in ("False", "None")]:
        return ""
    if setting == AGENT:
        return _write(value)
    last = setting.rpartition(".")[2].replace("_", " ")
    return last if value is True else f"{last} {_write(value)}"


def _write(value: Any) -> str:
    return " × ".join(map(str, value)) if isinstance(value, tuple) else str(value)
