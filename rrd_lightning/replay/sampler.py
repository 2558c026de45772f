"""Which records make a paired batch."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.errors import ParameterError, require_not_negative, require_positive
from rrd_lightning.replay.gather import Integers, distinct_steps, locate
from rrd_lightning.replay.table import EpisodeTable

Draws: TypeAlias = Literal["steps", "episodes", "nothing"]
# One generator each. The names are part of the checkpoint format.
GENERATORS = ("transitions", "episodes", "missing episodes", "steps")


class StepDraw(NamedTuple):
    """Steps that were drawn from episodes.

    The arrays are NumPy's, which on so few numbers is twice as fast as torch.

    Attributes:
        episode: rows of the episode table, of the shape of `step`, or without its last dimension where
            that runs over steps of a single episode.
        step: steps within those episodes, from 0.
        facts: further tensors of this part of the batch, by their names in the batch.
    """

    episode: Integers
    step: Integers
    facts: dict[str, Tensor]


def before(first: Integers, step: Integers) -> Integers:
    """Add numbers of rows to the steps that were drawn of them: one for each step, or for several in a row."""
    found: Integers = (first if first.ndim == step.ndim else first[..., None]) + step
    return found


class PairedSampler:
    """Draws the steps of a paired batch from an episode table.

    Transitions are uniform over all stored transitions. The reward model's episodes are distinct, as long
    as the table holds enough of them, and drawn in proportion to their length; of each it gets what
    `draws` says. A subclass may draw differently: it overrides `transitions`, `episodes` or `steps`, or
    `sample` to add tensors to the batch.

    Each kind of draw has its own generator, so that several batches drawn at once equal batches drawn one
    after another, and the transitions do not depend on `draws`. All shapes begin with the leading
    dimensions ``lead``: ``()`` for one batch, ``(batches,)`` for several.

    Args:
        batch_size: transitions in a batch.
        rrd_batch_size: steps of all subsequences in a batch together.
        rrd_sample_size: steps in a subsequence.
        rrd_replacement: draw a subsequence's steps with replacement. Without it the steps are
            distinct, unless the episode is shorter than `rrd_sample_size`.
        seed: seed of all generators.

    Attributes:
        draws: what is drawn for the reward model. ``"steps"``: a subsequence of `rrd_sample_size` random
            steps from each episode. ``"episodes"``: all steps of each episode in order, in rows of
            `rrd_sample_size`. ``"nothing"``: no subsequences at all.
        num_subsequences: episodes in a batch.
        table: the episodes to draw from.
        generators: the generator of each kind of draw.

    Raises:
        ParameterError: if a size is not positive, a subsequence is larger than the batch of them, or the
            seed is negative.
    """

    draws: Draws = "steps"

    def __init__(
        self,
        batch_size: int,
        rrd_batch_size: int,
        rrd_sample_size: int,
        rrd_replacement: bool,
        seed: int = 0,
    ) -> None:
        require_positive(batch_size=batch_size, rrd_batch_size=rrd_batch_size, rrd_sample_size=rrd_sample_size)
        if rrd_sample_size > rrd_batch_size:
            raise ParameterError(
                "rrd_sample_size",
                rrd_sample_size,
                f"must be at most rrd_batch_size={rrd_batch_size}, the steps of all subsequences together",
            )
        self.batch_size = batch_size
        self.num_subsequences = rrd_batch_size // rrd_sample_size
        self.rrd_sample_size = rrd_sample_size
        self.rrd_replacement = rrd_replacement
        self.table = EpisodeTable()
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Restart all generators from a seed, which must not be negative."""
        require_not_negative(seed=seed)
        seeds = np.random.SeedSequence(seed).generate_state(len(GENERATORS)).tolist()
        self.generators = {
            name: torch.Generator().manual_seed(each) for name, each in zip(GENERATORS, seeds, strict=True)
        }

    def sample(self, storage: Any, lead: tuple[int, ...] = ()) -> tuple[Tensor, dict[str, Any]]:
        """Draw one batch, or several.

        Args:
            storage: the ring, whose ``max_size`` is its number of records.
            lead: leading dimensions. Whole episodes are drawn for one batch at a time, since the number
                of their rows varies: with them it must be ``()``.

        Returns:
            The ring positions of all steps, ``[*lead, steps]``, and the draws that they stand for: a
            `StepDraw` of ``transitions``, and one of ``subsequences`` unless nothing is drawn for them,
            in this order. A tensor ``[*lead, ...]`` under any other name goes into the batch.

        Raises:
            RuntimeError: if the table holds no episode.
        """
        if not len(self.table):
            raise RuntimeError("the replay is empty: it admits finished episodes only, and none has finished")
        draws: dict[str, Any] = {keys.TRANSITIONS: self.transitions(lead)}
        if self.draws == "steps":
            draws[keys.SUBSEQUENCES] = self._subsequences(self.episodes(lead))
        elif self.draws == "episodes":
            draws[keys.SUBSEQUENCES] = self._whole(self.episodes(lead))
        index = np.concatenate([self._positions(draw).reshape(*lead, -1) for draw in draws.values()], axis=-1)
        # Faster than a remainder, and enough: an episode wraps round the end of the ring at most once.
        np.subtract(index, storage.max_size, out=index, where=index >= storage.max_size)
        return torch.from_numpy(index), draws

    def transitions(self, lead: tuple[int, ...]) -> StepDraw:
        """Draw transitions ``[*lead, batch_size]``, uniform over all that are stored."""
        drawn = self._uniform("transitions", (*lead, self.batch_size))
        return StepDraw(*locate(self.table.live["begin"], drawn), {})

    def episodes(self, lead: tuple[int, ...]) -> Integers:
        """Draw the reward model's episodes, as rows of the table ``[*lead, num_subsequences]``."""
        wanted = self.num_subsequences
        if len(self.table) < wanted:
            return self._episode(self._uniform("episodes", (*lead, wanted)))
        drawn = self._episode(self._uniform("episodes", (*lead, 2 * wanted)))
        rows = [self._distinct(row, wanted) for row in drawn.reshape(-1, 2 * wanted).tolist()]
        return np.array(rows).reshape(*lead, wanted)

    def _distinct(self, drawn: list[int], wanted: int, among: Integers | None = None) -> list[int]:
        """Return the first `wanted` distinct episodes of some draws; draw more if there are fewer.

        Args:
            drawn: rows of the table.
            wanted: how many; there must be as many to draw from.
            among: the rows that they were drawn from; all by default.
        """
        # Dropping repeats from proportional draws leaves proportional draws among the rest.
        distinct = list(dict.fromkeys(drawn))[:wanted]
        if len(distinct) < wanted:
            weights = self.table["length"].double()
            if among is not None:
                of_others = torch.ones(len(weights), dtype=torch.bool)
                of_others[torch.from_numpy(among)] = False
                weights[of_others] = 0
            weights[distinct] = 0
            missing = weights.multinomial(wanted - len(distinct), generator=self.generators["missing episodes"])
            distinct += missing.tolist()
        return distinct

    def steps(self, episodes: Integers) -> tuple[Integers, NDArray[np.bool_]]:
        """Draw the steps of each episode's subsequence.

        Args:
            episodes: ``[*lead, num_subsequences]``.

        Returns:
            The steps ``[*lead, num_subsequences, rrd_sample_size]``, and whether each subsequence was
            drawn with replacement ``[*lead, num_subsequences]``.
        """
        length = self.table.live["length"].take(episodes)
        size = self.rrd_sample_size
        generator = self.generators["steps"]
        uniform = torch.rand(*length.shape, size, dtype=torch.float64, generator=generator).numpy()
        if self.rrd_replacement:
            return (uniform * length[..., None]).astype(np.int64), np.ones(length.shape, np.bool_)
        return distinct_steps(length, uniform), length < size

    def _subsequences(self, episodes: Integers) -> StepDraw:
        steps, with_replacement = self.steps(episodes)
        return StepDraw(episodes, steps, {keys.WITH_REPLACEMENT: torch.from_numpy(with_replacement)})

    def _whole(self, episodes: Integers) -> StepDraw:
        """Cut episodes ``[episodes]`` into rows ``[rows, rrd_sample_size]`` of successive steps."""
        size = self.rrd_sample_size
        length = self.table.live["length"].take(episodes)
        rows = -(-length // size)
        drawn = np.arange(len(episodes)).repeat(rows)
        row_in_episode = np.arange(len(drawn)) - (rows.cumsum() - rows).repeat(rows)
        step = size * row_in_episode[:, None] + np.arange(size)
        last = length.take(drawn)[:, None] - 1
        # The padding repeats the last step, so that what is computed from it is finite.
        facts = {keys.MASK: torch.from_numpy(step <= last), keys.EPISODE: torch.from_numpy(drawn)}
        return StepDraw(episodes.take(drawn), np.minimum(step, last), facts)

    def _positions(self, draw: StepDraw) -> Integers:
        """Find the ring positions of steps, as if the ring had no end."""
        return before(self.table.live["start"].take(draw.episode), draw.step)

    def _uniform(self, generator: str, shape: tuple[int, ...]) -> Integers:
        """Draw stored transitions, each as the number of transitions that were ever stored before it."""
        first, stored = self.table.removed_transitions, self.table.transitions
        return torch.randint(first, first + stored, shape, generator=self.generators[generator]).numpy()

    def _among(self, episodes: Integers, uniform: NDArray[np.float64]) -> tuple[Integers, Integers]:
        """Choose steps of some episodes by numbers in [0, 1): rows of the table and steps."""
        length = self.table.live["length"].take(episodes)
        ends = length.cumsum()
        row, step = locate(ends - length, (uniform * ends[-1]).astype(np.int64))
        return episodes.take(row), step

    def _episode(self, transition: Integers) -> Integers:
        """Find the row of the episode that each transition belongs to."""
        return locate(self.table.live["begin"], transition)[0]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generators."""
        return {name: generator.get_state() for name, generator in self.generators.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the generators."""
        for name, generator in self.generators.items():
            generator.set_state(state_dict[name])
