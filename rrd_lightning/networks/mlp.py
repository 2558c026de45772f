"""Multilayer perceptrons with ReLU between the layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from rrd_lightning.errors import ParameterError


class MLP(nn.Module):
    """A perceptron with Xavier-uniform weights and zero biases.

    Args:
        sizes: width of the input, of each hidden layer, and of the output.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        _check(sizes)
        layers = [nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)]
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[..., sizes[0]]`` to ``[..., sizes[-1]]``."""
        *hidden, last = self.layers
        for layer in hidden:
            inputs = functional.relu(layer(inputs))
        output: Tensor = last(inputs)
        return output


class EnsembleMLP(nn.Module):
    """Independent perceptrons of one shape, evaluated by one batched product per layer.

    Args:
        members: how many perceptrons.
        sizes: width of the input, of each hidden layer, and of the output.
    """

    def __init__(self, members: int, sizes: Sequence[int]) -> None:
        super().__init__()
        _check(sizes)
        self.members = members
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(members, *pair)) for pair in pairs)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, out)) for _, out in pairs)
        for stack in self.weights:
            for member in stack:
                nn.init.xavier_uniform_(member)

    def forward(self, inputs: Tensor, *, frozen: bool = False) -> Tensor:
        """Map ``[batch, sizes[0]]`` to ``[members, batch, sizes[-1]]``.

        Args:
            inputs: one batch, seen by every member.
            frozen: let gradients reach the inputs, not the weights. An actor is improved by its
                critic this way without the critic's weights learning from the actor's loss.
        """
        outputs = inputs.expand(self.members, *inputs.shape)
        last = len(self.weights) - 1
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if frozen:
                weight, bias = weight.detach(), bias.detach()
            outputs = torch.baddbmm(bias, outputs, weight)
            if index < last:
                outputs = functional.relu(outputs)
        return outputs


def _check(sizes: Sequence[int]) -> None:
    if min(sizes) < 1:
        raise ParameterError("hidden_sizes", list(sizes[1:-1]), "every layer must have at least one unit")
