"""The replay on disk: files of episodes that never change, shared between checkpoints.

A saved replay is a folder of files, each with some successive episodes. Episodes are numbered in the
order in which they came in, and never change, so a later save writes the new ones only and links to
the files of the save before. The file system frees a file when no folder links to it any longer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict

from rrd_lightning.checkpoint.files import link, read, write
from rrd_lightning.errors import ParameterError
from rrd_lightning.replay.buffer import EpisodeReplay

COLUMNS = ("length", "episode_return", "terminated", "success")
NAME = re.compile(r"episodes-(\d+)-(\d+)\.pt")
# Bounds what a save copies at once, and what a file keeps on disk for the sake of one live episode.
FILE_BYTES = 2**28


def save_replay(replay: EpisodeReplay, folder: Path, previous: Path | None = None) -> None:
    """Write the stored episodes into a folder.

    Args:
        replay: what to save.
        folder: where; it must be there, and empty.
        previous: an earlier save of this replay, whose files are linked to where they still count.

    Raises:
        ParameterError: naming the file that cannot be written.
    """
    table = replay.episodes
    oldest, newest = table.appended - len(table), table.appended
    saved = oldest
    for first, last, path in episode_files(previous) if previous else []:
        if last > oldest and first <= saved:
            link(path, folder / path.name)
            saved = last
    if saved < newest:
        records = (table["length"][saved - oldest :] + 1).cumsum(0)
        _, counts = torch.unique_consecutive(records * replay.record_bytes // FILE_BYTES, return_counts=True)
        for count in counts.tolist():
            rows = slice(saved - oldest, saved - oldest + count)
            content: dict[str, Any] = {column: table[column][rows].clone() for column in COLUMNS}
            content["records"] = replay.records(table["start"][rows], table["length"][rows])
            write(content, folder / f"episodes-{saved}-{saved + count}.pt")
            saved += count
    # The range and the generators, last: a folder without this file is not a saved replay.
    state = {
        "oldest": oldest,
        "newest": newest,
        "appended_transitions": table.appended_transitions,
        "sampler": replay.sampler.state_dict(),
    }
    write(state, folder / "replay.pt")


def load_replay(replay: EpisodeReplay, folder: Path) -> None:
    """Fill an empty replay with what `save_replay` wrote, its order and its generators.

    Raises:
        ParameterError: naming the file that is missing, damaged, or of another environment.
    """
    state = read(folder / "replay.pt")
    for part in _parts(folder, state):
        # One by one, what is more than a smaller capacity leaves, the oldest first.
        fits = int(part.lengths.sum()) <= replay.capacity
        for episodes in [part] if fits else part.episodes():
            replay.add_episodes(episodes.records, **episodes.facts)
    replay.episodes.appended = state["newest"]
    replay.episodes.appended_transitions = state["appended_transitions"]
    replay.sampler.load_state_dict(state["sampler"])


def redistribute_replays(replay: EpisodeReplay, folders: Sequence[Path], share: int, shares: int) -> None:
    """Fill an empty replay with its share of the episodes of several saved ones, none left out.

    Episodes are dealt from the oldest to the newest, each to the share with the fewest transitions.

    Args:
        replay: what to fill.
        folders: the saved replays.
        share: which one to take, from 0.
        shares: how many there are.

    Raises:
        ParameterError: as `load_replay` does.
    """
    states = [read(folder / "replay.pt") for folder in folders]
    # An episode's age is the number of transitions that its own replay had seen when it came in.
    episodes: list[tuple[int, int, _Part]] = []
    for source, (folder, state) in enumerate(zip(folders, states, strict=True)):
        parts = list(_parts(folder, state))
        seen = state["appended_transitions"] - sum(int(part.lengths.sum()) for part in parts)
        for part in parts:
            for episode in part.episodes():
                seen += int(episode.lengths)
                episodes.append((seen, source, episode))
    loads = [0] * shares
    for _, _, episode in sorted(episodes, key=lambda each: each[:2]):
        receiver = loads.index(min(loads))
        loads[receiver] += int(episode.lengths)
        if receiver == share:
            replay.add_episodes(episode.records, **episode.facts)
    total = sum(state["appended_transitions"] for state in states)
    replay.episodes.appended_transitions = total // shares + (share < total % shares)


def episode_files(folder: Path) -> list[tuple[int, int, Path]]:
    """Return the first and one past the last episode of each file, and the file, in order."""
    matches = [(NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((int(match[1]), int(match[2]), path) for match, path in matches if match)


class _Part(NamedTuple):
    """Some successive episodes: their records, one after another, and the columns of `COLUMNS`."""

    records: TensorDict
    facts: dict[str, torch.Tensor]

    @property
    def lengths(self) -> torch.Tensor:
        return self.facts["length"]

    def episodes(self) -> Iterator[_Part]:
        """Take it apart into its episodes, as views."""
        end = 0
        for row, length in enumerate(self.lengths.tolist()):
            start, end = end, end + length + 1
            yield _Part(
                self.records[start:end], {name: column[row : row + 1] for name, column in self.facts.items()}
            )

    def without(self, count: int) -> _Part:
        """Leave out the first episodes."""
        return _Part(
            self.records[int((self.lengths[:count] + 1).sum()) :],
            {name: column[count:] for name, column in self.facts.items()},
        )


def _parts(folder: Path, state: dict[str, Any]) -> Iterator[_Part]:
    wanted = state["oldest"]
    for first, last, path in episode_files(folder):
        if first > wanted:
            break
        content = read(path)
        records = TensorDict.from_dict(content["records"], batch_size=[int((content["length"] + 1).sum())])
        part = _Part(records, {column: content[column] for column in COLUMNS})
        yield part.without(max(wanted - first, 0))
        wanted = last
    if wanted != state["newest"]:
        raise ParameterError("ckpt_path", str(folder), f"lacks the file with episode {wanted}")
