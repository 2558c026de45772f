"""The command line's arguments before they are parsed: packaged configurations and checkpoints."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_info

from rrd_lightning.agents import Agent
from rrd_lightning.checkpoint.format import read_checkpoint
from rrd_lightning.config_files import read_config
from rrd_lightning.datasets import Reader
from rrd_lightning.decomposition import Decomposition
from rrd_lightning.errors import ParameterError
from rrd_lightning.networks import find_class
from rrd_lightning.paths import local_path
from rrd_lightning.replay import PairedSampler

# What of a configuration a checkpoint holds; the trainer's part, which may name any callback, is the user's.
SECTIONS = ("model", "data", "env", "collect", "evaluate", "checkpoint")
DEFAULT_ROOT = "runs"
CONFIG_OPTIONS = ("--config", "-c")
CHECKPOINT_OPTION, ROOT_OPTION = "--ckpt_path", "--trainer.default_root_dir"

# Where a configuration may name a class, and of which kind. The kind is checked here for every one of
# these: a factory such as `model.agent` accepts any callable, and a checkpoint may come from a stranger.
CLASSES: dict[tuple[str, str], type] = {
    ("model", "agent"): Agent,
    ("model", "decomposition"): Decomposition,
    ("data", "sampler"): PairedSampler,
    ("data", "demonstrations"): Reader,
}


def expand(args: list[str]) -> list[str]:
    """Replace names of packaged configurations by paths, and insert a checkpoint's configuration.

    The checkpoint's configuration comes first, so that everything the user gives overrides it.

    Raises:
        ParameterError: if a configuration or a checkpoint does not exist, or the checkpoint is damaged.
    """
    expanded: list[str] = []
    for arg in args:
        option, equals, value = arg.partition("=")
        with_value = equals and option in {*CONFIG_OPTIONS, CHECKPOINT_OPTION, ROOT_OPTION}
        expanded += [option, value] if with_value else [arg]
    root, name = DEFAULT_ROOT, None
    for place, option in enumerate(expanded[:-1], start=1):
        if option in CONFIG_OPTIONS:
            expanded[place] = find_config(expanded[place])
            content = sections_of(expanded[place])
            root = setting_in(content, "trainer", "default_root_dir") or root
            name = setting_in(content, "ckpt_path") or name
        elif option == ROOT_OPTION:
            root = expanded[place]
    if CHECKPOINT_OPTION in expanded[:-1]:
        place = expanded.index(CHECKPOINT_OPTION)
        name = expanded[place + 1]
        del expanded[place : place + 2]
    if name is None:
        return expanded
    folder = str(local_path("trainer.default_root_dir", root))
    checkpoint = find_checkpoint(str(local_path("ckpt_path", name)), folder, may_start=expanded[0] == "fit")
    if checkpoint is None:
        return [*expanded, CHECKPOINT_OPTION, "null"]
    return expanded[:1] + saved_config(checkpoint) + expanded[1:] + [CHECKPOINT_OPTION, checkpoint]


def sections_of(config: str) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        ParameterError: if the file cannot be read, or a section of it is none.
    """
    content = read_config(config)
    for section in (*SECTIONS, "trainer"):
        if not isinstance(content.get(section), dict | None):
            raise ParameterError(section, content[section], f"in {config}: must be a section with options")
    return content


def setting_in(content: Any, *keys: str) -> Any:
    """Return a setting of a configuration file's content; None if it does not set it."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def saved_config(checkpoint: str) -> list[str]:
    """Return a checkpoint's configuration as arguments; a checkpoint written from Python has none.

    Raises:
        ParameterError: if the file does not exist or is not a checkpoint, or if its configuration names a
            class of the wrong kind.
    """
    saved = read_checkpoint(checkpoint)
    config = saved.get("config")
    if not config:
        return []
    if not isinstance(config, dict) or config.keys() != set(SECTIONS):
        raise ParameterError("ckpt_path", checkpoint, f"has a configuration of other sections than {SECTIONS}")
    for (section, option), base in CLASSES.items():
        if class_path := _class_path(config[section].get(option), plain=base is not Reader):
            find_class(class_path, base, f"{section}.{option}")
    encoder = config["model"].get("encoder")
    if (
        isinstance(encoder, str)
        and encoder.endswith(".ckpt")
        and not local_path("model.encoder", encoder).is_file()
    ):
        # Its weights are in this checkpoint too: the file that they came from is not needed.
        config["model"]["encoder"] = saved["hyper_parameters"]["encoder"]
    return ["--config", yaml.safe_dump(config)]


def _class_path(value: Any, *, plain: bool) -> Any:
    """Return the class path in an option's value; `plain` if a string is one, and not a path of files."""
    if isinstance(value, dict):
        return value.get("class_path")
    return value if plain else None


def find_checkpoint(name: str, root: str, *, may_start: bool) -> str | None:
    """Return a checkpoint's path; ``last`` and ``best`` are the newest of this name of the runs in a folder.

    Args:
        name: ``last``, ``best``, or a path.
        root: the folder of runs.
        may_start: return None if there is no such file yet, so that the same command starts a job
            and resumes it.

    Raises:
        ParameterError: if there is no such file and `may_start` is false.
    """
    if name not in ("last", "best"):
        return name
    found = list(Path(root).glob(f"*/version_*/checkpoints/{name}.ckpt"))
    if found:
        return str(max(found, key=lambda path: path.stat().st_mtime))
    if may_start:
        rank_zero_info(f"No {name}.ckpt in {root} yet: starting a new run")
        return None
    raise ParameterError("ckpt_path", name, f"there is no {root}/*/version_*/checkpoints/{name}.ckpt")


def find_config(name: str) -> str:
    """Return the path of a configuration: an existing file, or a packaged one by its name.

    Raises:
        ParameterError: if there is neither; the message lists the packaged ones.
    """
    path = local_path("config", name)
    if path.is_file():
        return str(path)
    paths = [Path(str(path)) for path in files("rrd_lightning.configs").iterdir()]
    packaged = {path.stem: str(path) for path in paths if path.suffix == ".yaml"}
    if name not in packaged:
        names = ", ".join(sorted(packaged))
        raise ParameterError("config", name, f"is neither a file nor a packaged configuration ({names})")
    return packaged[name]
