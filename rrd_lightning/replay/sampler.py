"""Which records make a paired batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchrl.data.replay_buffers.samplers import Sampler

from rrd_lightning.errors import ParameterError, require_not_negative, require_positive
from rrd_lightning.replay.gather import Integers, distinct, find
from rrd_lightning.replay.table import EpisodeTable

KINDS = ("transitions", "episodes", "missing episodes", "steps")


class StepDraw(NamedTuple):
    """Steps of episodes: rows of the episode table, and steps in them.

    Arrays of NumPy, which works on so few numbers in half of torch's time. The shape of `step` is that of
    the steps drawn; `episode` has the same shape, or one less dimension where each row is of one episode.
    """

    episode: Integers
    step: Integers


class PairedSampler(Sampler):
    """Draws the steps of a paired batch from an episode table.

    Transitions are uniform over all stored transitions. Subsequences belong to distinct episodes
    drawn in proportion to their length, as long as the table holds enough of them, and their steps
    are uniform over the episode. A subclass may draw otherwise: it overrides `transitions`,
    `episodes` or `steps`, or `sample`, to add tensors to the batch.

    Each of these draws from its own generator, so that several batches drawn at once are the same as one
    after another. All shapes begin with ``lead``: ``()`` for one batch, ``(batches,)`` for several.

    Args:
        batch_size: transitions in a batch.
        rrd_batch_size: steps of all subsequences in a batch together.
        rrd_sample_size: steps in a subsequence.
        rrd_replacement: draw a subsequence's steps with replacement. Without it the steps are
            distinct, unless the episode is shorter than `rrd_sample_size`.
        seed: of all generators together.

    Attributes:
        generators: the source of randomness of each kind of draw.

    Raises:
        ParameterError: if a size is not positive, a subsequence is larger than the batch of them, or the
            seed is negative.
    """

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
        """Restart all generators from a seed, which is not negative."""
        require_not_negative(seed=seed)
        seeds = np.random.SeedSequence(seed).generate_state(len(KINDS)).tolist()
        self.generators = {
            kind: torch.Generator().manual_seed(each) for kind, each in zip(KINDS, seeds, strict=True)
        }

    def sample(self, storage: Any, lead: tuple[int, ...] = ()) -> tuple[Tensor, dict[str, Any]]:
        """Draw a batch, or several.

        Returns:
            The ring positions ``[*lead, batch_size + num_subsequences * rrd_sample_size]``, and what
            they stand for: the draws ``transitions``, of steps ``[*lead, batch_size]``, and
            ``subsequences``, of steps ``[*lead, num_subsequences, rrd_sample_size]``, and
            ``with_replacement`` ``[*lead, num_subsequences]``, how the steps of each subsequence were
            drawn.
        """
        if not len(self.table):
            raise RuntimeError("the replay is empty: it admits finished episodes only, and none has finished")
        transitions = self.transitions(lead)
        episodes = self.episodes(lead)
        steps, with_replacement = self.steps(episodes)
        start = self.table.live["start"]
        positions = start.take(episodes)[..., None] + steps
        index = np.concatenate(
            [start.take(transitions.episode) + transitions.step, positions.reshape(*lead, -1)], axis=-1
        )
        # A remainder would take longer: an episode goes round the ring's end once at most.
        np.subtract(index, storage.max_size, out=index, where=index >= storage.max_size)
        return torch.from_numpy(index), {
            "transitions": transitions,
            "subsequences": StepDraw(episodes, steps),
            "with_replacement": torch.from_numpy(with_replacement),
        }

    def transitions(self, lead: tuple[int, ...]) -> StepDraw:
        """Draw transitions ``[*lead, batch_size]``, uniform over all that are stored."""
        return StepDraw(*find(self.table.live["begin"], self._uniform("transitions", (*lead, self.batch_size))))

    def episodes(self, lead: tuple[int, ...]) -> Integers:
        """Draw the rows ``[*lead, num_subsequences]`` of the episodes that give a subsequence each."""
        wanted = self.num_subsequences
        if len(self.table) < wanted:
            return self._episode(self._uniform("episodes", (*lead, wanted)))
        drawn = self._episode(self._uniform("episodes", (*lead, 2 * wanted)))
        rows = [self._distinct(row) for row in drawn.reshape(-1, 2 * wanted).tolist()]
        return np.array(rows).reshape(*lead, wanted)

    def _distinct(self, drawn: list[int]) -> list[int]:
        """Return the first distinct episodes, one for each subsequence; if too few are, draw more."""
        wanted = self.num_subsequences
        # Dropping repeats from proportional draws leaves proportional draws among the rest.
        distinct = list(dict.fromkeys(drawn))[:wanted]
        if len(distinct) < wanted:
            weights = self.table["length"].double()
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
        return distinct(length, uniform), length < size

    def _uniform(self, kind: str, shape: tuple[int, ...]) -> Integers:
        """Draw stored transitions, each as the number of those that were ever stored before it."""
        first, stored = self.table.left, self.table.transitions
        return torch.randint(first, first + stored, shape, generator=self.generators[kind]).numpy()

    def _episode(self, transition: Integers) -> Integers:
        """Find the row of the episode that each transition belongs to."""
        return find(self.table.live["begin"], transition)[0]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generators."""
        return {kind: generator.get_state() for kind, generator in self.generators.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the generators."""
        for kind, generator in self.generators.items():
            generator.set_state(state_dict[kind])

    def _empty(self) -> None:
        self.table = EpisodeTable()

    def dumps(self, path: str | Path) -> None:
        """Write the state of the generators into a folder."""
        torch.save(self.state_dict(), Path(path) / "sampler.pt")

    def loads(self, path: str | Path) -> None:
        """Read what `dumps` wrote."""
        self.load_state_dict(torch.load(Path(path) / "sampler.pt", weights_only=True))
