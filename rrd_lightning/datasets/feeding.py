"""Demonstrations on their way into a run: to the replay, and to validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tensordict import TensorDict
from tqdm import tqdm

from rrd_lightning.datasets.demonstrations import Demonstrations, Entry
from rrd_lightning.datasets.source import Spaces
from rrd_lightning.datasets.split import share_of
from rrd_lightning.distributed import summed
from rrd_lightning.errors import ParameterError
from rrd_lightning.replay import EpisodeReplay

# Returns whose standard deviation is less than this share of their mean are alike.
ALIKE = 0.01


def fill(replay: EpisodeReplay, demonstrations: Demonstrations, spaces: Spaces, trainer: Any) -> None:
    """Add this process's share of the demonstrations to train on, one in memory at a time.

    Raises:
        ParameterError: naming file, episode and key of a damaged one, unless they are skipped, and
            if a process gets none.
    """
    training, _ = demonstrations.split(spaces)
    share = share_of(training, trainer.global_rank, trainer.world_size)
    show = trainer.is_global_zero and trainer.progress_bar_callback is not None
    with tqdm(total=len(share), desc="Demonstrations", unit=" episodes", leave=False, disable=not show) as bar:
        for _, episode in demonstrations.read(share, spaces):
            replay.add_episode(episode)
            bar.update()
    returns = replay.episodes["episode_return"].double()
    sums = [len(returns), float(returns.sum()), float(returns.square().sum()), not len(returns)]
    count, total, squares, empty = summed(trainer, sums)
    if empty:
        raise ParameterError("data.demonstrations", len(training), "are left, and a process got no good one")
    rank_zero_info(f"The replay begins with {count:.0f} demonstrations of mean return {total / count:.3g}")
    warn_of_alike_returns(total / count, squares / count)


def warn_of_alike_returns(mean: float, mean_square: float) -> None:
    """Warn if a constant reward explains the returns, given their mean and mean square."""
    deviation = max(mean_square - mean**2, 0.0) ** 0.5
    if deviation == 0 or deviation < ALIKE * abs(mean):
        rank_zero_warn(
            f"THE RETURNS OF THE DEMONSTRATIONS HARDLY VARY (mean {mean:.3g}, standard deviation "
            f"{deviation:.2g}): a constant reward explains them, so the reward model will learn no credit, "
            "whatever its loss says. Add failed episodes to data.demonstrations, or rollouts of a policy, "
            "which a run with an environment collects."
        )


class HeldOutEpisodes:
    """The demonstrations that are held out, read anew each time; each process takes its share.

    Args:
        demonstrations: whose.
        spaces: what to show.
        trainer: of the run.
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
        # Asked for late: a checkpoint may bring the seed of the split.
        _, held_out = self._demonstrations.split(self._spaces)
        return share_of(held_out, self._trainer.global_rank, self._trainer.world_size)


class NamedEpisode(NamedTuple):
    """An episode on its way to be relabelled.

    Args:
        source: the file or data set, as its path or id was given.
        name: of the episode in it.
        first_step: the row of the file that its first transition takes its action from.
        episode: as `EpisodeReplay.add_episode` takes it.
    """

    source: str
    name: str
    first_step: int
    episode: TensorDict


class EpisodesToRelabel:
    """All demonstrations, held out or not; each process takes its share.

    Args:
        demonstrations: whose.
        spaces: what to show.
        trainer: of the run.

    Attributes:
        is_done: tells, from source and name, which episodes to leave out.
    """

    def __init__(self, demonstrations: Demonstrations, spaces: Spaces, trainer: Any) -> None:
        self._demonstrations = demonstrations
        self._spaces = spaces
        self._trainer = trainer
        self.is_done: Callable[[str, str], bool] = lambda source, name: False

    def _share(self) -> list[Entry]:
        entries = self._demonstrations.entries(self._spaces)
        left = [entry for entry in entries if not self.is_done(entry.source.name, entry.episode)]
        return list(share_of(left, self._trainer.global_rank, self._trainer.world_size))

    def __len__(self) -> int:
        """The number of this process's episodes."""
        return len(self._share())

    def __iter__(self) -> Iterator[NamedEpisode]:
        """Read them one by one."""
        for entry in self._share():
            for _, episode in self._demonstrations.read([entry], self._spaces):
                yield NamedEpisode(entry.source.name, entry.episode, entry.source.first_step(), episode)
