"""Affine layers and layer normalisation, alone or as an ensemble evaluated in one batched operation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Linear(nn.Module):
    """The affine map y = x W + b, with Xavier-uniform weights and zero biases.

    With `members` it is an ensemble of independent maps, evaluated as one batched product.

    Args:
        inputs: width of x.
        outputs: width of y.
        members: size of the ensemble; none by default.

    Attributes:
        weight: ``[inputs, outputs]``, or ``[members, inputs, outputs]``.
        bias: ``[outputs]``, or ``[members, 1, outputs]``.
    """

    def __init__(self, inputs: int, outputs: int, members: int | None = None) -> None:
        super().__init__()
        ensemble = () if members is None else (members,)
        self.weight = nn.Parameter(torch.empty(*ensemble, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(*ensemble, *(1 for _ in ensemble), outputs))
        with torch.no_grad():
            for weight in self.weight.view(-1, inputs, outputs):
                nn.init.xavier_uniform_(weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[rows, inputs]`` to ``[rows, outputs]``; an ensemble maps ``[members, rows, inputs]``."""
        if inputs.dim() == 2:
            return torch.addmm(self.bias, inputs, self.weight)
        return torch.baddbmm(self.bias, inputs, self.weight)


class LayerNorm(nn.Module):
    """Layer normalisation over the last dimension, with a scale and a shift for each member of an ensemble.

    Ba et al., "Layer Normalization", 2016, arXiv 1607.06450.

    Args:
        features: width of what is normalised.
        members: size of the ensemble; none by default.
    """

    def __init__(self, features: int, members: int | None = None) -> None:
        super().__init__()
        shape = (features,) if members is None else (members, 1, features)
        self.features = features
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise ``[rows, features]``, or ``[members, rows, features]``."""
        return functional.layer_norm(inputs, (self.features,)) * self.weight + self.bias
