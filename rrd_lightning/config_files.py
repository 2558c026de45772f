"""Configuration files: how they are read, and how several of them merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from rrd_lightning.errors import ParameterError


def read_config(path: str) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        ParameterError: if it cannot be read, is no YAML, or is not made of sections.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ParameterError(
            "config", path, f"is not in UTF-8: {error.reason} at byte {error.start}"
        ) from error
    except OSError as error:
        raise ParameterError("config", path, f"cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise ParameterError("config", path, f"is no YAML: {error}", section="folders-and-files") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ParameterError("config", path, f"holds {content!r}, must hold sections such as `env:`")
    return content


class MergingConfigFile(ActionConfigFile):
    """An option with a configuration file, whose dictionaries are added to those given before.

    `jsonargparse` merges what it knows as options, and would replace an option that is a dictionary.
    """

    @staticmethod
    def apply_config(parser: Any, cfg: Any, dest: str, value: str) -> None:
        """Add what a file sets to what was set before."""
        before = dict(cfg.items()) if cfg else {}
        ActionConfigFile.apply_config(parser, cfg, dest, value)
        for key, old in before.items():
            new = cfg.get(key)
            if isinstance(old, dict) and isinstance(new, dict):
                cfg[key] = merged(old, new)


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return a dictionary with the entries of both; those of `new` count where there are two.

    The arguments of a class are not those of another.
    """
    if old.get("class_path") != new.get("class_path"):
        return new
    both = {**old, **new}
    for key in old.keys() & new.keys():
        if isinstance(old[key], dict) and isinstance(new[key], dict):
            both[key] = merged(old[key], new[key])
    return both
