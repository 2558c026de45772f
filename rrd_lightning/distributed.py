"""What the processes of a job tell each other, besides gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def summed(trainer: Any, values: Sequence[float]) -> list[float]:
    """Add up each number over all processes, in double precision."""
    if trainer.world_size == 1:
        return list(values)
    numbers = torch.tensor(values, dtype=torch.float64, device=trainer.strategy.root_device)
    total: Tensor = trainer.strategy.reduce(numbers, reduce_op="sum")
    return total.tolist()


def interleaved(trainer: Any, rows: Tensor) -> Tensor:
    """Put the rows of all processes together: the first of each, then the second of each.

    Args:
        trainer: the job's.
        rows: ``[count, columns]``, of floating numbers; the processes may have different counts.

    Returns:
        ``[largest count * processes, columns]``, the same in each process; rows that a process lacks
        are NaN.
    """
    if trainer.world_size == 1:
        return rows
    device = trainer.strategy.root_device
    count = int(trainer.strategy.reduce(torch.tensor(len(rows), device=device), reduce_op="max"))
    padded = torch.full((count, rows.shape[1]), torch.nan, dtype=rows.dtype, device=device)
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in range(trainer.world_size)]
    torch.distributed.all_gather(gathered, padded)
    return torch.stack(gathered, 1).flatten(0, 1).cpu()
