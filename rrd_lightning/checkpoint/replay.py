"""The replay on disk: immutable files of episodes, shared between checkpoints.

A saved replay is a folder of files, each with some consecutive episodes. The rows of the table, one or more of
each episode, are numbered in the order in which they were added and never change, so a later save writes only
the new ones and hard-links the files of the previous save. The file system frees a file when no folder links to
it any longer.
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
from rrd_lightning.replay.buffer import COLUMNS, EpisodeReplay

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
        length, ends = table["length"][saved - oldest :], table["ends"][saved - oldest :]
        # Only whole episodes make a file.
        last_rows = ends.nonzero()[:, 0]
        records = (length + ends.long()).cumsum(0)[last_rows]
        _, counts = torch.unique_consecutive(records * replay.record_bytes // FILE_BYTES, return_counts=True)
        for newer in (1 + last_rows[counts.cumsum(0) - 1] + saved).tolist():
            rows = slice(saved - oldest, newer - oldest)
            content: dict[str, Any] = {column: table[column][rows].clone() for column in COLUMNS}
            content["records"] = replay.records(
                *(table[column][rows] for column in ("start", "length", "ends"))
            )
            write(content, folder / f"episodes-{saved}-{newer}.pt")
            saved = newer
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
                seen += int(episode.lengths.sum())
                episodes.append((seen, source, episode))
    loads = [0] * shares
    for _, _, episode in sorted(episodes, key=lambda each: each[:2]):
        receiver = loads.index(min(loads))
        loads[receiver] += int(episode.lengths.sum())
        if receiver == share:
            replay.add_episodes(episode.records, **episode.facts)
    total = sum(state["appended_transitions"] for state in states)
    replay.episodes.appended_transitions = total // shares + (share < total % shares)


def episode_files(folder: Path) -> list[tuple[int, int, Path]]:
    """Return, in order, each file with the numbers of its first row and of the one past its last."""
    matches = [(NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((int(match[1]), int(match[2]), path) for match, path in matches if match)


class _Part(NamedTuple):
    """Consecutive episodes: their records, concatenated, and the columns of `COLUMNS`."""

    records: TensorDict
    facts: dict[str, torch.Tensor]

    @property
    def lengths(self) -> torch.Tensor:
        return self.facts["length"]

    @property
    def counts(self) -> torch.Tensor:
        """Records of each row."""
        return self.lengths + self.facts["ends"].long()

    def episodes(self) -> Iterator[_Part]:
        """Split into single episodes, as views."""
        last = self.facts["ends"].nonzero()[:, 0]
        row = record = 0
        for next_row, next_record in zip(
            (last + 1).tolist(), self.counts.cumsum(0)[last].tolist(), strict=True
        ):
            facts = {name: column[row:next_row] for name, column in self.facts.items()}
            yield _Part(self.records[record:next_record], facts)
            row, record = next_row, next_record

    def without(self, count: int) -> _Part:
        """Drop the first `count` rows."""
        return _Part(
            self.records[int(self.counts[:count].sum()) :],
            {name: column[count:] for name, column in self.facts.items()},
        )


def _parts(folder: Path, state: dict[str, Any]) -> Iterator[_Part]:
    wanted = state["oldest"]
    for first, last, path in episode_files(folder):
        if first > wanted:
            break
        content = read(path)
        facts = {column: content[column] for column in COLUMNS}
        count = int((facts["length"] + facts["ends"].long()).sum())
        part = _Part(TensorDict.from_dict(content["records"], batch_size=[count]), facts)
        yield part.without(max(wanted - first, 0))
        wanted = last
    if wanted != state["newest"]:
        raise ParameterError("ckpt_path", str(folder), f"lacks the file with episode {wanted}")
