"""Who may import whom: data flows one way."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import rrd_lightning

ROOT = Path(rrd_lightning.__file__).parent
# A room may import those of earlier rows, and its own.
ROWS = [
    ["keys", "errors"],
    ["frames"],
    [
        "seeding",
        "distributed",
        "kernels",
        "losses",
        "private",
        "spaces",
        "success",
        "episode",
        "disk",
        "free_memory",
        "dataloaders",
        "paths",
        "config_files",
        "phases",
    ],
    ["networks", "replay", "envs", "run_folder", "trainer_options"],
    ["checkpoint", "component", "adapter", "memory", "judging"],
    ["decomposition", "agents"],
    ["datasets", "pictures", "engines", "report", "pretrained"],
    ["inference"],
    ["data", "module", "arguments"],
    ["callbacks", "export", "record"],
    ["cli"],
    ["__main__"],
]
LEVEL = {room: level for level, row in enumerate(ROWS) for room in row}


def rooms_imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names.update(below if node.module == "rrd_lightning" else [node.module])
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    assert not any(name.split(".")[0] in {"callbacks", "configs"} for name in names), path
    return {name.split(".")[1] for name in names if name.startswith("rrd_lightning.")}


def room_of(path: Path) -> str:
    if not path.is_relative_to(ROOT):
        return path.parent.name
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def test_rooms_import_earlier_rooms_only() -> None:
    paths = [path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.name != "__init__.py"]
    paths += (ROOT / "callbacks").resolve().glob("*.py")
    seen = set()
    for path in paths:
        room = room_of(path)
        if room == "configs":
            continue
        seen.add(room)
        for other in rooms_imported(path):
            assert other == room or LEVEL[other] < LEVEL[room], f"{path} imports {other}"
    assert {"callbacks", "replay", "cli", "module"} <= seen


def test_module_knows_no_replay_and_no_environment() -> None:
    assert not rooms_imported(ROOT / "module.py") & {"replay", "envs", "data", "callbacks"}


def test_every_folder_of_the_package_is_in_the_wheel() -> None:
    listed = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT.parent) for path in ROOT.rglob("*.py")}
    linked = {"rrd_lightning.callbacks", "rrd_lightning.configs"}  # from the top level
    assert {".".join(folder.parts) for folder in folders} | linked == set(listed)
