"""The replay on disk: immutable files of episodes, shared between checkpoints.

A saved replay is a folder of files, each with some consecutive episodes. Episodes are numbered in the
order in which they were added and never change, so a later save writes only the new ones and hard-links
the files of the previous save. The file system frees a file when no folder links to it any longer.
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

COLUMNS = ("length", "episode_return", "terminated", "success", "demonstration")
NAME = re.compile(r"episodes-(\d+)-(\d+)\.pt")
# Bounds the memory that a save copies at once, and the disk space that one live episode keeps occupied.
FILE_BYTES = 2**28


def save_replay(replay: EpisodeReplay, folder: Path, previous: Path | None = None) -> None:
    """Write the stored episodes into a folder.

    Args:
        replay: what to save.
        folder: an existing, empty folder.
        previous: an earlier save of this replay; its files with episodes still stored are linked.

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
    # Written last: without this file, a folder is not a saved replay.
    state = {
        "oldest": oldest,
        "newest": newest,
        "appended_transitions": table.appended_transitions,
        "sampler": replay.sampler.state_dict(),
    }
    write(state, folder / "replay.pt")


def load_replay(replay: EpisodeReplay, folder: Path) -> None:
    """Fill an empty replay with what `save_replay` wrote, and restore order and generators.

    Raises:
        ParameterError: naming the file that is missing, damaged, or from another environment.
    """
    state = read(folder / "replay.pt")
    for part in _parts(folder, state):
        # One by one if the capacity is smaller now, so that the oldest episodes are dropped.
        fits = int(part.lengths.sum()) <= replay.capacity
        for episodes in [part] if fits else part.episodes():
            replay.add_episodes(episodes.records, **episodes.facts)
    replay.episodes.appended = state["newest"]
    replay.episodes.appended_transitions = state["appended_transitions"]
    replay.sampler.load_state_dict(state["sampler"])


def redistribute_replays(replay: EpisodeReplay, folders: Sequence[Path], share: int, shares: int) -> None:
    """Fill an empty replay with its share of all episodes of several saved replays.

    Episodes are assigned from the oldest to the newest, each to the share with the fewest transitions.

    Args:
        replay: the replay to fill.
        folders: the saved replays.
        share: index of the share to take.
        shares: number of shares.

    Raises:
        ParameterError: as `load_replay` does.
    """
    states = [read(folder / "replay.pt") for folder in folders]
    # Ordered by the number of transitions that the episode's own replay had seen when it was added.
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
    """Return, in order, each file with the numbers of its first and one past its last episode."""
    matches = [(NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((int(match[1]), int(match[2]), path) for match, path in matches if match)


class _Part(NamedTuple):
    """Consecutive episodes: their records, concatenated, and the columns of `COLUMNS`."""

    records: TensorDict
    facts: dict[str, torch.Tensor]

    @property
    def lengths(self) -> torch.Tensor:
        return self.facts["length"]

    def episodes(self) -> Iterator[_Part]:
        """Split into single episodes, as views."""
        end = 0
        for row, length in enumerate(self.lengths.tolist()):
            start, end = end, end + length + 1
            yield _Part(
                self.records[start:end], {name: column[row : row + 1] for name, column in self.facts.items()}
            )

    def without(self, count: int) -> _Part:
        """Drop the first `count` episodes."""
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
