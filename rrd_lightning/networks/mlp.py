"""Multilayer perceptrons with ReLU between the layers, one or several of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rrd_lightning.errors import ParameterError


class Layer(NamedTuple):
    """Views of one layer's numbers.

    ``weight`` is ``[inputs, outputs]`` and ``bias`` ``[outputs]``; with several members both have them
    in front, and the bias is ``[members, 1, outputs]``.
    """

    weight: Tensor
    bias: Tensor


class MLP(nn.Module):
    """A perceptron, or several independent ones, with Xavier-uniform weights and zero biases.

    All weights and biases are one parameter, `vector`: an optimizer, a target network or the average
    over processes handles one tensor, and `layers` are views of it.

    Args:
        sizes: width of the input, of each hidden layer, and of the output.
        members: how many perceptrons, each layer of which is one batched product; one by default,
            without a dimension for it.

    Attributes:
        kernels: the `Kernels` that a `Tape` of this network uses, if any.

    Raises:
        ParameterError: if a layer has no unit.
    """

    def __init__(self, sizes: Sequence[int], members: int | None = None) -> None:
        super().__init__()
        if min(sizes) < 1:
            raise ParameterError("hidden_sizes", list(sizes[1:-1]), "every layer must have at least one unit")
        self.sizes = tuple(sizes)
        self.members = members
        self.kernels: Any = None  # a copy of the network has them too
        stack = () if members is None else (members,)
        self._shapes: list[tuple[int, ...]] = []
        for fan_in, fan_out in pairwise(sizes):
            self._shapes += [(*stack, fan_in, fan_out), (*stack, *(1 for _ in stack), fan_out)]
        self._lengths = [prod(shape) for shape in self._shapes]
        self.vector = nn.Parameter(torch.zeros(sum(self._lengths)))
        with torch.no_grad():
            for layer in self.layers():
                for weight in layer.weight.reshape(-1, *layer.weight.shape[-2:]):
                    nn.init.xavier_uniform_(weight)

    def layers(self, vector: Tensor | None = None) -> list[Layer]:
        """View the parameters, or another vector of their length, as layers."""
        parts = (self.vector if vector is None else vector).split_with_sizes(self._lengths)
        views = [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        return [Layer(*pair) for pair in zip(views[::2], views[1::2], strict=True)]

    def forward(self, inputs: Tensor, *, frozen: bool = False) -> Tensor:
        """Map ``[..., sizes[0]]`` to ``[..., sizes[-1]]``, with several members to ``[members, ...]``.

        Args:
            inputs: one batch, seen by every member.
            frozen: let gradients reach the inputs, not the weights. An actor is improved by its
                critic this way without the critic's weights learning from the actor's loss.
        """
        batch = inputs.shape[:-1]
        outputs = inputs.reshape(-1, self.sizes[0])
        affine: Any = torch.addmm
        if self.members is not None:
            batch = torch.Size((self.members, *batch))
            outputs = outputs.expand(self.members, *outputs.shape)
            affine = torch.baddbmm
        *hidden, last = self.layers(self.vector.detach() if frozen else None)
        for layer in hidden:
            outputs = affine(layer.bias, outputs, layer.weight).relu_()
        mapped: Tensor = affine(last.bias, outputs, last.weight)
        return mapped.reshape(*batch, -1)
