"""Communication between the processes of a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def summed(trainer: Any, values: Sequence[float]) -> list[float]:
    """Sum each number over all processes, in double precision; a collective call."""
    if trainer.world_size == 1:
        return list(values)
    numbers = torch.tensor(values, dtype=torch.float64, device=trainer.strategy.root_device)
    total: Tensor = trainer.strategy.reduce(numbers, reduce_op="sum")
    return total.tolist()


def interleaved(trainer: Any, rows: Tensor) -> Tensor:
    """Gather the rows of all processes: the first row of each process, then the second of each.

    Args:
        trainer: the job's trainer.
        rows: ``[count, columns]``, floating-point; the counts of processes may differ.

    Returns:
        ``[largest count * processes, columns]``, the same in every process; rows missing from a process
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


@torch.no_grad()
def average_gradients(trainer: Any, module: nn.Module) -> None:
    """Average each gradient of a module over all processes, in one message.

    All processes must have gradients of the same parameters.
    """
    gradients = [each.grad for each in module.parameters() if each.grad is not None]
    if not gradients:
        return
    message = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(message)
    message /= trainer.world_size
    parts = message.split_with_sizes([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
