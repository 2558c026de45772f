"""Networks as they are in evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Let a network be in evaluation mode within: no dropout, and no statistics of the batch."""
    training = [vars(part) for part in network.modules() if part.training]
    for attributes in training:
        attributes["training"] = False  # setting an attribute of a module takes ten times as long
    try:
        yield
    finally:
        for attributes in training:
            attributes["training"] = True
