"""Which records make a paired batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
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
        start = self.table["start"]
        index = torch.cat(
            [start[draw.episode].add_(draw.step).flatten() for draw in (transitions, subsequences)]
        )
        return index.remainder_(storage.max_size), {
            "transitions": transitions,
            "subsequences": subsequences,
            "with_replacement": with_replacement,
        }

    def transitions(self) -> Draw:
        """Draw `batch_size` transitions, uniform over all that are stored."""
        return self._locate(self._uniform(self.batch_size))

    def episodes(self) -> Tensor:
        """Draw the rows ``[num_subsequences]`` of the episodes that give a subsequence each."""
        wanted = self.num_subsequences
        if len(self.table) < wanted:
            return self._locate(self._uniform(wanted)).episode
        # Dropping repeats from proportional draws leaves proportional draws among the rest.
        drawn = self._locate(self._uniform(2 * wanted)).episode
        distinct = torch.tensor(list(dict.fromkeys(drawn.tolist())))[:wanted]
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
        length = self.table["length"][episodes][:, None]
        size = self.rrd_sample_size
        uniform = torch.rand(len(episodes), size, dtype=torch.float64, generator=self.generator)
        steps = uniform.mul_(length).long()
        if self.rrd_replacement:
            return steps, torch.ones(len(episodes), dtype=torch.bool)
        # The steps with the smallest of one random key each are a draw without replacement.
        longest = max(int(length.max()), size)
        key = torch.rand(len(episodes), longest, dtype=torch.float64, generator=self.generator)
        key.masked_fill_(torch.arange(longest) >= length, 2.0)
        short = length < size
        distinct = key.topk(size, largest=False, sorted=False).indices
        return torch.where(short, steps, distinct), short[:, 0]

    def _uniform(self, count: int) -> Tensor:
        return torch.randint(self.table.transitions, (count,), generator=self.generator)

    def _locate(self, transition: Tensor) -> Draw:
        """Find the episode and step of each transition, counted from the oldest stored one."""
        end, length = self.table["end"], self.table["length"]
        count = transition.add_(end[0] - length[0])
        episode = torch.searchsorted(end, count, right=True)
        return Draw(episode, count.sub_(end[episode]).add_(length[episode]))

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
