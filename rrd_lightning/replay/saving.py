"""The replay on disk: files of episodes that never change, shared between checkpoints.

A saved replay is a folder of files, each with some successive episodes. Episodes are numbered in the
order in which they came in, and never change, so a later save writes the new ones only and links to
the files of the save before. The file system frees a file when no folder links to it any longer.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict

from rrd_lightning.errors import ParameterError
from rrd_lightning.replay.buffer import EpisodeReplay

COLUMNS = ("length", "episode_return", "terminated")
NAME = re.compile(r"episodes-(\d+)-(\d+)\.pt")


def save_replay(replay: EpisodeReplay, folder: Path, previous: Path | None = None) -> None:
    """Write the stored episodes into a new folder, which appears when all of it is on disk.

    Args:
        replay: what to save.
        folder: where; it must not exist.
        previous: an earlier save of this replay, whose files are linked to where they still count.
    """
    table = replay.episodes
    oldest, newest = table.appended - len(table), table.appended
    staged = folder.with_name(folder.name + ".part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    saved = oldest
    for first, last, path in episode_files(previous) if previous else []:
        if last > oldest and first <= saved:
            _link(path, staged / path.name)
            saved = last
    if saved < newest:
        rows = slice(saved - oldest, None)
        content: dict[str, Any] = {column: table[column][rows].clone() for column in COLUMNS}
        content["records"] = replay.records(table["start"][rows], table["length"][rows])
        write_synced(content, staged / f"episodes-{saved}-{newest}.pt")
    # The range and the generator, last: a folder without this file is not a saved replay.
    state = {
        "oldest": oldest,
        "newest": newest,
        "appended_transitions": table.appended_transitions,
        "sampler": replay.sampler.state_dict(),
    }
    write_synced(state, staged / "replay.pt")
    staged.rename(folder)
    sync_folder(folder.parent)


def load_replay(replay: EpisodeReplay, folder: Path) -> None:
    """Fill an empty replay with what `save_replay` wrote.

    Raises:
        ParameterError: naming the file that is missing, damaged, or of another environment.
    """
    state = _read(folder / "replay.pt")
    wanted = state["oldest"]
    for first, last, path in episode_files(folder):
        if first > wanted:
            break
        content = _read(path)
        rows = slice(max(wanted - first, 0), None)
        lengths = content["length"]
        skipped = int((lengths + 1)[: rows.start].sum())
        records = TensorDict.from_dict(content["records"], batch_size=[int((lengths + 1).sum())])[skipped:]
        replay.add_episodes(records, **{column: content[column][rows] for column in COLUMNS})
        wanted = last
    if wanted != state["newest"]:
        raise ParameterError("ckpt_path", str(folder), f"lacks the file with episode {wanted}")
    replay.episodes.appended = state["newest"]
    replay.episodes.appended_transitions = state["appended_transitions"]
    replay.sampler.load_state_dict(state["sampler"])


def episode_files(folder: Path) -> list[tuple[int, int, Path]]:
    """Return the first and one past the last episode of each file, and the file, in order."""
    matches = [(NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((int(match[1]), int(match[2]), path) for match, path in matches if match)


def write_synced(content: Any, path: Path) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's entries."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ParameterError("ckpt_path", str(path), "is missing: keep the replay folder with its checkpoint")
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True)
    except Exception as error:
        # torch.load raises anything from RuntimeError to UnicodeDecodeError on a damaged file.
        reason = str(error).partition("\n")[0]
        raise ParameterError("ckpt_path", str(path), f"is damaged ({reason})") from error
    return content


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # no hard links on this file system
        shutil.copy2(source, target)
