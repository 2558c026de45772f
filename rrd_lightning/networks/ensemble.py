"""Several networks of a user's own kind on the same inputs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Evaluates independent networks one after another. An ensemble of `MLP` does so in batched products.

    Args:
        members: the networks.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[..., inputs]`` to ``[members, ..., outputs]``."""
        return torch.stack([member(inputs) for member in self.members])
