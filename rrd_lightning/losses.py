"""The losses of an update, by name, and what else there is to log of it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rrd_lightning.errors import ParameterError


@dataclass(frozen=True)
class Losses:
    """Scalars to minimise together.

    One backward pass goes through their sum, so each must reach the parameters of the optimizer's group of
    its own name only; ``cloning``, which has none, those of ``actor``.

    Attributes:
        losses: scalars by the name of the parameter group that they train; logged as ``loss/<name>``.
        metrics: further scalars, logged by their full name.
    """

    losses: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)

    def __or__(self, other: Losses) -> Losses:
        """Put the losses of two parts together.

        Raises:
            ParameterError: if both have a loss or metric of one name.
        """
        for mine, others in ((self.losses, other.losses), (self.metrics, other.metrics)):
            if shared := mine.keys() & others.keys():
                raise ParameterError("losses", sorted(shared), "are names of both: one would hide the other")
        return Losses({**self.losses, **other.losses}, {**self.metrics, **other.metrics})

    def only(self, names: Container[str]) -> Losses:
        """Leave out the losses of other names."""
        return Losses({name: loss for name, loss in self.losses.items() if name in names}, self.metrics)

    def backward(self) -> None:
        """Let the sum of all losses set the gradients."""
        if self.losses:
            torch.stack(list(self.losses.values())).sum().backward()  # type: ignore[no-untyped-call]

    def logged(self) -> dict[str, Tensor]:
        """Return everything to log, without gradient."""
        found = {f"loss/{name}": loss for name, loss in self.losses.items()} | self.metrics
        return {name: value.detach() for name, value in found.items()}
