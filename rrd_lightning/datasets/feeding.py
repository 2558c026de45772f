"""Demonstrations fed into a run: into the replay, to validation, and to relabelling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tensordict import TensorDict, TensorDictBase
from tqdm import tqdm

from rrd_lightning.datasets.demonstrations import Demonstrations, Entry
from rrd_lightning.datasets.source import Spaces
from rrd_lightning.datasets.split import share_of
from rrd_lightning.distributed import summed
from rrd_lightning.errors import ParameterError
from rrd_lightning.replay import EpisodeReplay

# Below this ratio of standard deviation to mean, returns count as constant.
SMALLEST_VARIATION = 0.01


def fill(
    replay: EpisodeReplay,
    demonstrations: Demonstrations,
    spaces: Spaces,
    trainer: Any,
    encoded: Callable[[TensorDict], TensorDictBase],
) -> None:
    """Add this process's share of the training demonstrations to the replay, reading one at a time.

    Args:
        replay: where to.
        demonstrations: which.
        spaces: of their observations and actions.
        trainer: the run's trainer.
        encoded: makes of an episode what the replay holds.

    Raises:
        ParameterError: naming file, episode and key of a damaged one, unless they are skipped; or if a
            process has no usable one.
    """
    training, _ = demonstrations.split(spaces)
    share = share_of(training, trainer.global_rank, trainer.world_size)
    show = trainer.is_global_zero and trainer.progress_bar_callback is not None
    with tqdm(total=len(share), desc="Demonstrations", unit=" episodes", leave=False, disable=not show) as bar:
        for _, episode in demonstrations.read(share, spaces):
            replay.add_episode(encoded(episode), demonstration=True)
            bar.update()
    returns = replay.episodes["episode_return"].double()
    sums = [len(returns), float(returns.sum()), float(returns.square().sum()), not len(returns)]
    count, total, squares, empty = summed(trainer, sums)
    if empty:
        raise ParameterError(
            "data.demonstrations",
            [source.name for source in demonstrations.sources],
            f"only {count:.0f} of {len(training)} training demonstrations are usable, and at least one process "
            "has none: repair the files, or use fewer processes",
        )
    rank_zero_info(
        f"The replay starts with {count:.0f} demonstrations, whose mean return is {total / count:.3g}"
    )
    warn_of_constant_returns(total / count, squares / count)


def warn_of_constant_returns(mean: float, mean_square: float) -> None:
    """Warn if the returns hardly vary, so that a constant reward explains them.

    Args:
        mean: mean of the returns.
        mean_square: mean of their squares.
    """
    deviation = max(mean_square - mean**2, 0.0) ** 0.5
    if deviation == 0 or deviation < SMALLEST_VARIATION * abs(mean):
        rank_zero_warn(
            f"THE RETURNS OF THE DEMONSTRATIONS HARDLY VARY (mean {mean:.3g}, standard deviation "
            f"{deviation:.2g}): a constant reward explains them, so the reward model learns no credit "
            "assignment, however small its loss. Add failed episodes to data.demonstrations, or set env.id "
            "to collect rollouts too."
        )


class HeldOutEpisodes:
    """The held-out demonstrations, read from disk in each iteration; each process takes its share.

    Args:
        demonstrations: the demonstrations of the run.
        spaces: observation and action space of an episode.
        trainer: the run's trainer.
    """

    def __init__(self, demonstrations: Demonstrations, spaces: Spaces, trainer: Any) -> None:
        self._demonstrations = demonstrations
        self._spaces = spaces
        self._trainer = trainer

    def __len__(self) -> int:
        """The number of this process's episodes."""
        return len(self._share())

    def __iter__(self) -> Iterator[TensorDict]:
        """Read them one by one."""
        for _, episode in self._demonstrations.read(self._share(), self._spaces):
            yield episode

    def _share(self) -> Any:
        # Evaluated lazily, since a checkpoint may restore the seed of the split.
        _, held_out = self._demonstrations.split(self._spaces)
        return share_of(held_out, self._trainer.global_rank, self._trainer.world_size)


class NamedEpisode(NamedTuple):
    """An episode to relabel.

    Args:
        source: path of the file, or id of the data set, as given.
        name: name of the episode in it.
        first_step: the row of the source with the (first) action of the first transition.
        stride: rows of the source that a transition has; more than one where actions are repeated.
        episode: as `EpisodeReplay.add_episode` takes it.
    """

    source: str
    name: str
    first_step: int
    stride: int
    episode: TensorDict


class EpisodesToRelabel:
    """All demonstrations, held out or not; each process takes its share.

    Args:
        demonstrations: the demonstrations of the run.
        spaces: observation and action space of an episode.
        trainer: the run's trainer.

    Attributes:
        is_done: given source and name, tells whether to skip an episode.
    """

    def __init__(self, demonstrations: Demonstrations, spaces: Spaces, trainer: Any) -> None:
        self._demonstrations = demonstrations
        self._spaces = spaces
        self._trainer = trainer
        self.is_done: Callable[[str, str], bool] = lambda source, name: False

    def entries(self) -> list[Entry]:
        """All of them, of every process."""
        return self._demonstrations.entries(self._spaces)

    def _share(self) -> list[Entry]:
        left = [entry for entry in self.entries() if not self.is_done(entry.source.name, entry.episode)]
        return list(share_of(left, self._trainer.global_rank, self._trainer.world_size))

    def __len__(self) -> int:
        """The number of this process's episodes."""
        return len(self._share())

    def __iter__(self) -> Iterator[NamedEpisode]:
        """Read them one by one."""
        for entry in self._share():
            for _, episode in self._demonstrations.read([entry], self._spaces):
                first, stride = entry.source.first_step(), self._demonstrations.action_repeat
                yield NamedEpisode(entry.source.name, entry.episode, first, stride, episode)
