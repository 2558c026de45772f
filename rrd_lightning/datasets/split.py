"""The hold-out split, and the share of each process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")


def held_out_rows(outcomes: Sequence[bool | None], share: float, seed: int) -> set[int]:
    """Draw the episodes to hold out, stratified by outcome; the same seed draws the same ones.

    Of n episodes with the same outcome ``share * n`` are held out, rounded, but at least one is held out
    and at least one kept if n is two or more. A single one is kept for training. Shares of 0 and 1
    hold out none and all.

    Args:
        outcomes: success of each episode; None if unknown.
        share: fraction to hold out, between 0 and 1.
        seed: seed of the draw.

    Returns:
        Positions in `outcomes`.
    """
    if share in (0, 1):
        return set(range(len(outcomes))) if share else set()
    generator = torch.Generator().manual_seed(seed)
    held_out: set[int] = set()
    for outcome in (True, False, None):
        rows = [row for row, each in enumerate(outcomes) if each is outcome]
        if len(rows) < 2:
            continue
        count = min(max(int(share * len(rows) + 0.5), 1), len(rows) - 1)
        drawn = torch.randperm(len(rows), generator=generator)[:count]
        held_out.update(rows[index] for index in drawn.tolist())
    return held_out


def share_of(items: Sequence[Item], process: int, processes: int) -> Sequence[Item]:
    """Return every `processes`-th item, starting with number `process`."""
    return items[process::processes]
