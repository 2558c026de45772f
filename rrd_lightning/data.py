"""The DataModule: a sized stream of paired batches out of the episode replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tensordict import TensorDict

from rrd_lightning.errors import require_positive
from rrd_lightning.memory import MemoryPlan
from rrd_lightning.replay import EpisodeReplay, PairedSampler
from rrd_lightning.seeding import derive_seed


class ReplayDataModule(LightningDataModule):
    """Feeds training with paired batches of transitions and subsequences.

    One Lightning epoch is `iterations_per_epoch` iterations of `train_batches` batches. Before each
    batch the stream calls `refill`, with which a collector keeps the replay filled.

    Args:
        capacity: transitions that the replay holds; the oldest whole episodes leave.
        train_batches: batches, and so updates, per iteration.
        batch_size: transitions per batch, for the agent.
        rrd_batch_size: steps per batch for the reward model, over all subsequences.
        rrd_sample_size: steps per subsequence. A batch has ``rrd_batch_size // rrd_sample_size``
            subsequences, each of another episode.
        rrd_replacement: draw the steps of a subsequence with replacement.
        iterations_per_epoch: iterations per Lightning epoch.
        storage: keep the replay in ``"memory"``, or in files on disk: ``"memmap"``.
        scratch_dir: folder of the files; a temporary one by default.
        sampler: class that draws the batches.

    Raises:
        ParameterError: if a size is not positive, or a subsequence is larger than the batch.
    """

    def __init__(
        self,
        capacity: int = 1_000_000,
        train_batches: int = 25,
        batch_size: int = 256,
        rrd_batch_size: int = 256,
        rrd_sample_size: int = 64,
        rrd_replacement: bool = True,
        iterations_per_epoch: int = 100,
        storage: str = "memory",
        scratch_dir: str | None = None,
        sampler: type[PairedSampler] = PairedSampler,
    ) -> None:
        super().__init__()
        require_positive(
            train_batches=train_batches, iterations_per_epoch=iterations_per_epoch, capacity=capacity
        )
        self.train_batches = train_batches
        self.iterations_per_epoch = iterations_per_epoch
        self.batch_size = batch_size
        self.capacity = capacity
        self.storage = storage
        self.scratch_dir = scratch_dir
        self._sampler = sampler(batch_size, rrd_batch_size, rrd_sample_size, rrd_replacement, torch.Generator())
        self.replay = EpisodeReplay(capacity, self._sampler, storage, scratch_dir)
        self.refill: Callable[[], None] = _leave
        if unused := rrd_batch_size % rrd_sample_size:
            rank_zero_warn(
                f"rrd_batch_size={rrd_batch_size} is not a multiple of rrd_sample_size={rrd_sample_size}: "
                f"{unused} of its steps are unused"
            )

    def setup(self, stage: str) -> None:
        """Print what the run takes, and refuse a replay that does not fit."""
        if stage != "fit" or self.trainer is None:
            return
        module: Any = self.trainer.lightning_module
        plan = MemoryPlan(
            observation_space=module.observation_space,
            action_space=module.action_space,
            train_batches=self.train_batches,
            batch_size=self.batch_size,
            num_subsequences=self._sampler.num_subsequences,
            rrd_sample_size=self._sampler.rrd_sample_size,
            capacity=self.capacity,
        )
        rank_zero_info(str(plan))
        plan.check(self.storage, self.scratch_dir)
        self._sampler.generator.manual_seed(derive_seed("replay", self.trainer.global_rank))

    def train_dataloader(self) -> PairedBatches:
        """Return one epoch's stream of paired batches."""
        return PairedBatches(self)


class PairedBatches:
    """One epoch of paired batches, drawn one by one, so that each sees the newest episodes.

    Its length tells Lightning not to fetch a batch ahead of the collection before it.
    """

    def __init__(self, data: ReplayDataModule) -> None:
        self._data = data

    def __len__(self) -> int:
        """Batches per epoch."""
        return self._data.iterations_per_epoch * self._data.train_batches

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: where a resumed epoch goes on follows from the number of updates."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore nothing."""

    def __iter__(self) -> Iterator[TensorDict]:
        """Refill the replay and draw, for each batch."""
        for _ in range(len(self)):
            self._data.refill()
            yield self._data.replay.sample()


def _leave() -> None:
    """Leave the replay as it is: nobody collects."""
