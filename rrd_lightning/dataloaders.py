"""The dataloaders of a run: paired batches for training, and no episodes where none are evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tensordict import TensorDict


class PairedBatches:
    """One epoch of paired batches, each drawn when the training step asks for it.

    It has a length so that Lightning does not prefetch: a batch that is fetched ahead would miss the episodes
    collected before it.

    Args:
        data: the `ReplayDataModule`.
    """

    def __init__(self, data: Any) -> None:
        self._data = data

    def __len__(self) -> int:
        """Training steps per epoch."""
        data = self._data
        steps: int = data.iterations_per_epoch * -(-data.train_batches // data.updates_per_step)
        return steps

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the position is part of the DataModule's state."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore nothing."""

    def __iter__(self) -> Iterator[TensorDict | Sequence[TensorDict]]:
        """Refill the replay before each iteration, and yield a batch, or several, per training step."""
        data = self._data
        data.prefill()
        for _ in range(len(self)):
            data.before_step()
            if not (data.batches_left and len(data.replay)):
                data.begin_iteration()
            count = min(data.updates_per_step, data.batches_left)
            data.batches_left -= count
            yield data.replay.sample_several(count) if data.updates_per_step > 1 else data.replay.sample()


class NoEpisodes:
    """An empty dataloader, for a run without evaluation.

    It has no ``__len__``, because Lightning warns of a dataloader of length zero.
    """

    def __iter__(self) -> Iterator[TensorDict]:
        """Yield no episode."""
        return iter(())
