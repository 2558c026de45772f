"""Which records make a paired batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchrl.data.replay_buffers.samplers import Sampler

from rrd_lightning.errors import ParameterError, require_positive
from rrd_lightning.replay.table import EpisodeTable


class Draw(NamedTuple):
    """Steps of episodes: rows of the episode table and steps in them, in tensors of one shape."""

    episode: Tensor
    step: Tensor


class PairedSampler(Sampler):
    """Draws the steps of a paired batch from an episode table.

    Transitions are uniform over all stored transitions. Subsequences belong to distinct episodes
    drawn in proportion to their length, as long as the table holds enough of them, and their steps
    are uniform over the episode. A subclass may draw otherwise: it overrides `transitions`,
    `episodes` or `steps`.

    Args:
        batch_size: transitions in a batch.
        rrd_batch_size: steps of all subsequences in a batch together.
        rrd_sample_size: steps in a subsequence.
        rrd_replacement: draw a subsequence's steps with replacement. Without it the steps are
            distinct, unless the episode is shorter than `rrd_sample_size`.
        generator: the source of randomness, the sampler's own.

    Raises:
        ParameterError: if a size is not positive or a subsequence is larger than the batch of them.
    """

    def __init__(
        self,
        batch_size: int,
        rrd_batch_size: int,
        rrd_sample_size: int,
        rrd_replacement: bool,
        generator: torch.Generator,
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
        self.generator = generator
        self.table = EpisodeTable()

    def sample(self, storage: Any, batch_size: int = 0) -> tuple[Tensor, dict[str, Any]]:
        """Draw a batch.

        Returns:
            The ring positions ``[batch_size + num_subsequences * rrd_sample_size]``, and what they
            stand for: the draws ``transitions`` ``[batch_size]`` and ``subsequences``
            ``[num_subsequences, rrd_sample_size]``, and ``with_replacement``
            ``[num_subsequences]``, how the steps of each subsequence were drawn.
        """
        if not len(self.table):
            raise RuntimeError("the replay is empty: it admits finished episodes only, and none has finished")
        transitions = self.transitions()
        episodes = self.episodes()
        steps, with_replacement = self.steps(episodes)
        subsequences = Draw(episodes[:, None].expand(steps.shape), steps)
        start = self.table.live["start"]
        index = np.concatenate(
            [
                start[draw.episode.numpy()].ravel() + draw.step.numpy().ravel()
                for draw in (transitions, subsequences)
            ]
        )
        index %= storage.max_size
        return torch.from_numpy(index), {
            "transitions": transitions,
            "subsequences": subsequences,
            "with_replacement": with_replacement,
        }

    def transitions(self) -> Draw:
        """Draw `batch_size` transitions, uniform over all that are stored."""
        transition = self._uniform(self.batch_size)
        episode = self._episode(transition)
        return Draw(torch.from_numpy(episode), torch.from_numpy(transition - self.table.live["begin"][episode]))

    def episodes(self) -> Tensor:
        """Draw the rows ``[num_subsequences]`` of the episodes that give a subsequence each."""
        wanted = self.num_subsequences
        if len(self.table) < wanted:
            return torch.from_numpy(self._episode(self._uniform(wanted)))
        # Dropping repeats from proportional draws leaves proportional draws among the rest.
        drawn = self._episode(self._uniform(2 * wanted)).tolist()
        distinct = torch.from_numpy(np.array(list(dict.fromkeys(drawn))[:wanted]))
        if len(distinct) < wanted:
            weights = self.table["length"].double()
            weights[distinct] = 0
            missing = wanted - len(distinct)
            distinct = torch.cat([distinct, weights.multinomial(missing, generator=self.generator)])
        return distinct

    def steps(self, episodes: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the steps of each episode's subsequence.

        Returns:
            The steps ``[num_subsequences, rrd_sample_size]``, and whether each subsequence was
            drawn with replacement ``[num_subsequences]``.
        """
        length, size = self.table.live["length"][episodes.numpy()], self.rrd_sample_size
        if self.rrd_replacement:
            uniform = torch.rand(len(length), size, dtype=torch.float64, generator=self.generator)
            steps = (uniform.numpy() * length[:, None]).astype(np.int64)
            return torch.from_numpy(steps), torch.ones(len(length), dtype=torch.bool)
        rows = [
            torch.randperm(each, generator=self.generator)[:size]
            if each >= size
            else torch.randint(each, (size,), generator=self.generator)
            for each in length.tolist()
        ]
        return torch.stack(rows), torch.from_numpy(length < size)

    def _uniform(self, count: int) -> NDArray[np.int64]:
        """Draw stored transitions, each as the number of those that were ever stored before it."""
        first, stored = self.table.left, self.table.transitions
        return torch.randint(first, first + stored, (count,), generator=self.generator).numpy()

    def _episode(self, transition: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find the row of the episode that each transition belongs to."""
        # NumPy searches in this thread. torch would wake others, which takes longer than all the rest.
        return self.table.live["begin"].searchsorted(transition, side="right") - 1

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generator."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the generator."""
        self.generator.set_state(state_dict["generator"])

    def _empty(self) -> None:
        self.table = EpisodeTable()

    def dumps(self, path: str | Path) -> None:
        """Write the state of the generator into a folder."""
        torch.save(self.state_dict(), Path(path) / "sampler.pt")

    def loads(self, path: str | Path) -> None:
        """Read what `dumps` wrote."""
        self.load_state_dict(torch.load(Path(path) / "sampler.pt", weights_only=True))
