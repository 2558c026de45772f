"""The demonstrations of a run: which episodes there are, which are held out, and their stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from gymnasium import Space
from lightning.pytorch.utilities import rank_zero_warn
from tensordict import TensorDict

from rrd_lightning.datasets.cache import EpisodeCache
from rrd_lightning.datasets.libero import LiberoFile, View
from rrd_lightning.datasets.minari import PREFIX, MinariDataset
from rrd_lightning.datasets.source import Facts, Source, Spaces
from rrd_lightning.datasets.split import held_out_rows, share_of
from rrd_lightning.errors import ParameterError, require_positive
from rrd_lightning.seeding import derive_seed

SUFFIXES = (".hdf5", ".h5")


class Entry(NamedTuple):
    """One episode that can be read: its place, and what is known of it."""

    source: Source
    episode: str
    facts: Facts

    @property
    def name(self) -> str:
        """The file or data set, and the episode in it."""
        return f"{self.source.name}/{self.episode}"


class Demonstrations:
    """Episodes from files, in LIBERO's layout, and from Minari's data sets.

    Args:
        paths: files, folders of files, and ``minari:<dataset id>``; one of these or several.
        skip_bad: leave out what is damaged, with a warning each, instead of an error.
        held_out: share of the episodes that is not trained on but judged by.
        view: what to show of LIBERO's files where no environment decides it.
        cache_dir: where resized images are kept; a folder in the user's cache folder by default.

    Attributes:
        split_seed: decides which episodes are held out; from the run's seed, or from a checkpoint.

    Raises:
        ParameterError: if a path is not there, a folder holds no file, or an option is out of range.
    """

    def __init__(
        self,
        paths: str | Sequence[str],
        skip_bad: bool = False,
        held_out: float = 0.0,
        view: View | None = None,
        cache_dir: str | None = None,
    ) -> None:
        view = view or View()
        if not 0 <= held_out <= 1:
            raise ParameterError("data.held_out", held_out, "must be a share between 0 and 1")
        if view.image_size is not None:
            require_positive(**{"data.image_size": view.image_size})
        cache = EpisodeCache(cache_dir)
        self.skip_bad = skip_bad
        self.held_out = held_out
        self.sources: list[Source] = [
            MinariDataset(place.removeprefix(PREFIX))
            if place.startswith(PREFIX)
            else LiberoFile(Path(place), view, cache)
            for place in find([paths] if isinstance(paths, str) else paths)
        ]
        self.split_seed: int | None = None
        self._entries: tuple[Spaces, list[Entry]] | None = None

    @property
    def observation_space(self) -> Space[Any]:
        """Of all episodes, for a run without an environment."""
        return self._spaces[0]

    @property
    def action_space(self) -> Space[Any]:
        """Of all episodes, for a run without an environment."""
        return self._spaces[1]

    @cached_property
    def _spaces(self) -> Spaces:
        found: dict[str, Spaces] = {}
        for source in self.sources:
            try:
                found[source.name] = source.spaces()
            except ParameterError as error:
                self._skip(error)
        if not found:
            raise self._none_good()
        (first, own), *others = found.items()
        for name, other in others:
            if other != own:
                raise ParameterError(
                    "data.demonstrations",
                    name,
                    f"shows {other} and {first} shows {own}: give data.image_size, or files that are alike",
                )
        return own

    def entries(self, spaces: Spaces) -> list[Entry]:
        """Look at every episode, as far as that is quick, and list the good ones.

        Raises:
            ParameterError: naming file, episode and key of the first bad one, unless they are
                skipped, and if no good one is left.
        """
        if self._entries is None or self._entries[0] != spaces:
            entries = list(self._look(spaces))
            if not entries:
                raise self._none_good()
            self._entries = spaces, entries
        return self._entries[1]

    def _look(self, spaces: Spaces) -> Iterator[Entry]:
        for source in self.sources:
            try:
                episodes = source.episodes()
            except ParameterError as error:
                self._skip(error)
                continue
            for episode in episodes:
                try:
                    yield Entry(source, episode, source.facts(episode, spaces))
                except ParameterError as error:
                    self._skip(error)

    def split(self, spaces: Spaces) -> tuple[list[Entry], list[Entry]]:
        """Return the episodes to train on, and those that are held out."""
        entries = self.entries(spaces)
        if self.split_seed is None:
            self.split_seed = derive_seed("held out")
        held_out = held_out_rows([entry.facts.success for entry in entries], self.held_out, self.split_seed)
        return (
            [entry for row, entry in enumerate(entries) if row not in held_out],
            [entry for row, entry in enumerate(entries) if row in held_out],
        )

    def check(self, spaces: Spaces, capacity: int, processes: int = 1) -> None:
        """Look at every episode, and make sure that a replay holds those to train on.

        Raises:
            ParameterError: as `entries` does, if the replay does not, or if too few are left.
        """
        training, _ = self.split(spaces)
        if len(training) < processes:
            raise ParameterError(
                "data.held_out",
                self.held_out,
                f"leaves {len(training)} demonstrations to train on, fewer than one for each process",
            )
        shares = [share_of(training, process, processes) for process in range(processes)]
        largest = max(sum(entry.facts.length for entry in share) for share in shares)
        if largest > capacity // processes:
            raise ParameterError(
                "data.capacity",
                capacity,
                f"is too small for the demonstrations: {largest * processes} is enough",
            )

    def read(self, entries: Sequence[Entry], spaces: Spaces) -> Iterator[tuple[str, TensorDict]]:
        """Read episodes one by one.

        Yields:
            The episode's name, and the episode as `EpisodeReplay.add_episode` takes it.

        Raises:
            ParameterError: naming file, episode and key of a damaged one, unless they are skipped.
        """
        for entry in entries:
            try:
                episode = entry.source.read(entry.episode, spaces)
            except ParameterError as error:
                self._skip(error)
            else:
                yield entry.name, episode

    def _skip(self, error: ParameterError) -> None:
        if not self.skip_bad:
            raise error
        rank_zero_warn(f"skipped: {error}")

    def _none_good(self) -> ParameterError:
        names = [source.name for source in self.sources]
        return ParameterError("data.demonstrations", names, "hold no good demonstration")


def find(places: Sequence[str]) -> list[str]:
    """Return the data sets and files that places stand for, folders searched, each once.

    Raises:
        ParameterError: if a place is not there, or a folder holds no file.
    """
    found: list[str] = []
    for place in places:
        path = Path(place).expanduser()
        if place.startswith(PREFIX):
            found.append(place)
        elif path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
            if not files:
                raise ParameterError("data.demonstrations", place, f"holds no file {' or '.join(SUFFIXES)}")
            found += map(str, files)
        elif path.is_file():
            found.append(str(path))
        else:
            raise ParameterError("data.demonstrations", place, "is neither a file nor a folder")
    if not found:
        raise ParameterError("data.demonstrations", list(places), "names no file")
    return list(dict.fromkeys(found))
