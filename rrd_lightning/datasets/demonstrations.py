"""The demonstrations of a run: which episodes there are, which are held out, and their stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from gymnasium import Space
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tensordict import TensorDict

from rrd_lightning.datasets.paths import PathReader
from rrd_lightning.datasets.reader import Reader
from rrd_lightning.datasets.repeat import repeat_actions
from rrd_lightning.datasets.source import Facts, Source, Spaces
from rrd_lightning.datasets.split import held_out_rows, share_of
from rrd_lightning.errors import ParameterError, require_positive
from rrd_lightning.seeding import derive_seed
from rrd_lightning.spaces import is_continuous


class Entry(NamedTuple):
    """One usable episode: its source, its name there, and what is known without reading it."""

    source: Source
    episode: str
    facts: Facts

    @property
    def name(self) -> str:
        """The file or data set, and the episode in it."""
        return f"{self.source.name}/{self.episode}"


def _require_finite(entry: Entry, episode: TensorDict) -> None:
    for key, value in episode.items(include_nested=True, leaves_only=True):
        if value.is_floating_point() and not value.isfinite().all():
            raise entry.source.bad(entry.episode, str(key), "holds a number that is not finite")


class Demonstrations:
    """The episodes of a reader, checked, split into training and held-out episodes, and streamed.

    Args:
        reader: finds the files or data sets; or paths for `PathReader`.
        skip_bad: skip damaged files and episodes with a warning each, instead of an error.
        held_out: fraction of the episodes that is held out from training.
        action_repeat: steps that make one transition.

    Attributes:
        split_seed: seed of the hold-out split; derived from the run's seed, or from a checkpoint.

    Raises:
        ParameterError: if `held_out` is not between 0 and 1, or `action_repeat` is not positive.
    """

    def __init__(
        self,
        reader: Reader | str | Sequence[str],
        skip_bad: bool = False,
        held_out: float = 0.0,
        action_repeat: int = 1,
    ) -> None:
        require_positive(**{"env.action_repeat": action_repeat})
        if not 0 <= held_out <= 1:
            raise ParameterError("data.held_out", held_out, "must be between 0 and 1")
        if not isinstance(reader, Reader):
            reader = PathReader([reader] if isinstance(reader, str) else reader)
        self.skip_bad = skip_bad
        self.held_out = held_out
        self.action_repeat = action_repeat
        self._reader = reader
        self.split_seed: int | None = None
        self._entries: tuple[Spaces, list[Entry]] | None = None

    @cached_property
    def sources(self) -> list[Source]:
        """The files or data sets, looked for when they are needed: a resumed run may have its episodes already.

        Raises:
            ParameterError: as the reader's `sources` does.
        """
        # A file may be given twice, by itself and by its folder.
        return list({source.name: source for source in self._reader.sources()}.values())

    @property
    def observation_space(self) -> Space[Any]:
        """Observation space of all episodes, for a run without an environment."""
        return self._spaces[0]

    @property
    def action_space(self) -> Space[Any]:
        """Action space of all episodes, for a run without an environment."""
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
            raise self._none_usable()
        (first, spaces), *others = found.items()
        for name, other in others:
            if other != spaces:
                raise ParameterError(
                    "data.demonstrations",
                    name,
                    f"has the spaces {other}, but {first} has {spaces}: all must be the same (LiberoReader "
                    "resizes images to its image_size)",
                )
        return spaces

    def entries(self, spaces: Spaces) -> list[Entry]:
        """Check every episode, as far as that is cheap, and list the usable ones.

        Their lengths are in transitions, of `action_repeat` steps each.

        Raises:
            ParameterError: naming file, episode and key of the first bad one, unless bad ones are
                skipped; or if no usable one is left.
        """
        if self.action_repeat > 1 and not is_continuous(spaces[1]):
            raise ParameterError(
                "env.action_repeat",
                self.action_repeat,
                f"takes the mean of a demonstration's actions, and {spaces[1]} has none",
            )
        if self._entries is None or self._entries[0] != spaces:
            entries = list(self._check_episodes(spaces))
            if not entries:
                raise self._none_usable()
            self._entries = spaces, entries
            self._tell(entries, spaces)
        return self._entries[1]

    def _tell(self, entries: list[Entry], spaces: Spaces) -> None:
        """Log how the sources are read, together where it is the same."""
        names: dict[str, list[str]] = {}
        for source in dict.fromkeys(entry.source for entry in entries):
            names.setdefault(source.describe(spaces), []).append(source.name)
        for told, (first, *others) in names.items():
            if told:
                more = f" and {len(others)} more" if others else ""
                rank_zero_info(f"{first}{more}: {told}")

    def _check_episodes(self, spaces: Spaces) -> Iterator[Entry]:
        for source in self.sources:
            try:
                episodes = source.episodes()
            except ParameterError as error:
                self._skip(error)
                continue
            for episode in episodes:
                try:
                    facts = source.facts(episode, spaces)
                    length = -(-facts.length // self.action_repeat)
                    yield Entry(source, episode, facts._replace(length=length))
                except ParameterError as error:
                    self._skip(error)

    def split(self, spaces: Spaces) -> tuple[list[Entry], list[Entry]]:
        """Return the episodes to train on, and the held-out ones."""
        entries = self.entries(spaces)
        if self.split_seed is None:
            self.split_seed = derive_seed("held out")
        held_out = held_out_rows([entry.facts.success for entry in entries], self.held_out, self.split_seed)
        return (
            [entry for row, entry in enumerate(entries) if row not in held_out],
            [entry for row, entry in enumerate(entries) if row in held_out],
        )

    def check(self, spaces: Spaces, capacity: int, processes: int = 1) -> int:
        """Check every episode, and that the replay can hold those to train on.

        Returns:
            The largest number of transitions to train on that a process gets.

        Raises:
            ParameterError: as `entries` does, if the replay is too small, or if some process would have
                no episode to train on.
        """
        training, _ = self.split(spaces)
        if len(training) < processes:
            raise ParameterError(
                "data.held_out",
                self.held_out,
                f"leaves {len(training)} demonstrations to train on, must leave one for each process",
            )
        shares = [share_of(training, process, processes) for process in range(processes)]
        largest = max(sum(entry.facts.length for entry in share) for share in shares)
        if largest > capacity // processes:
            raise ParameterError(
                "data.capacity",
                capacity,
                f"is too small for the demonstrations: {largest * processes} is enough",
            )
        return largest

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
                _require_finite(entry, episode)
            except ParameterError as error:
                self._skip(error)
            else:
                yield entry.name, repeat_actions(episode, self.action_repeat)

    def _skip(self, error: ParameterError) -> None:
        if not self.skip_bad:
            raise error
        rank_zero_warn(f"skipped: {error}")

    def _none_usable(self) -> ParameterError:
        names = [source.name for source in self.sources]
        return ParameterError("data.demonstrations", names, "no usable demonstration in any of these")
