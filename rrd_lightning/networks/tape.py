"""Perceptrons evaluated and differentiated by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rrd_lightning.networks.mlp import MLP, Layer

# ReLU's derivative, in place, by the operation that autograd calls.
_threshold_backward: Any = torch.ops.aten.threshold_backward.grad_input
ALL = slice(None)


class Scratch:
    """Tensors that are written and read again soon, and then belong to the next who asks.

    The fewer different ones an update touches, the more of them stay in the processor's caches.
    """

    def __init__(self) -> None:
        self._tensors: dict[Any, Tensor] = {}

    def take(self, name: Any, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return a tensor of any content; the same one while the arguments are the same."""
        kept = self._tensors.get(name)
        if kept is None or kept.shape != shape or kept.dtype != like.dtype or kept.device != like.device:
            kept = self._tensors[name] = like.new_empty(shape)
        return kept


class Tape:
    """Evaluates a perceptron and works out its gradient without autograd.

    The numbers are autograd's, up to rounding. Autograd makes new large tensors in every evaluation; a
    tape has its own and uses them again. What it returns therefore holds until it is used again.

    Args:
        network: the perceptron, or several.
        scratch: where to take what nobody needs afterwards; shared with tapes that are used in turn.
    """

    def __init__(self, network: MLP, scratch: Scratch) -> None:
        self._network = network
        self._scratch = scratch
        self._stack = () if network.members is None else (network.members,)
        self._several = bool(self._stack)
        self._one_output = network.sizes[-1] == 1
        self._views: dict[Any, list[Layer]] = {}
        self._kept = Scratch()
        self._seen: list[Tensor] = []
        self._gradient = torch.empty(0)

    def forward(self, inputs: Tensor, *, keep: bool = True) -> Tensor:
        """Evaluate ``[rows, sizes[0]]`` to ``[rows, sizes[-1]]``, with several members to ``[members, ...]``.

        Outputs of one number have no dimension of their own: ``[rows]``.

        Args:
            inputs: one batch, seen by every member.
            keep: keep what `backward` needs.
        """
        outputs = inputs.expand(*self._stack, *inputs.shape)
        affine = torch.baddbmm if self._several else torch.addmm
        *hidden, last = self._layers()
        *rooms, room = self._rooms(len(inputs), keep)
        self._seen = [outputs, *rooms]
        for layer, inner in zip(hidden, rooms, strict=True):
            outputs = affine(layer.bias, outputs, layer.weight, out=inner).relu_()
        if not self._one_output:
            return affine(last.bias, outputs, last.weight, out=room)
        for seen, weight, bias, values in self._members(outputs, last.weight, last.bias, room):
            torch.addmv(bias.view(1), seen, weight[:, 0], out=values)
        return room

    def backward(self, gradient: Tensor, *, learn: bool = True) -> None:
        """Set the gradient of the network's `vector`, and go back to its inputs.

        Args:
            gradient: of what the last `forward` returned.
            learn: false leaves the parameters' gradient alone.
        """
        layers = self._layers()
        found = self._found() if learn else layers
        for index in reversed(range(len(layers))):
            seen = self._seen[index]
            if learn:
                self._learn(seen, gradient, found[index])
            if index:
                room = self._scratch.take(("gradient", index, self._several), seen.shape, seen)
                gradient = self._pass_on(gradient, layers[index].weight, room)
                _threshold_backward(gradient, seen, 0, grad_input=gradient)
        self._gradient = gradient

    def input_gradient(self, columns: slice = ALL) -> Tensor:
        """Return the gradient of some columns of the inputs, right after `backward`."""
        gradient = self._gradient
        if gradient.dim() == 1 + self._several:
            gradient = gradient.unsqueeze(-1)
        gradient = gradient @ self._layers()[0].weight[..., columns, :].mT
        return gradient.sum(0) if self._several else gradient

    def _layers(self) -> list[Layer]:
        return self._view("layers", self._network.vector.detach())

    def _found(self) -> list[Layer]:
        """View the gradient of the parameters as layers."""
        vector = self._network.vector
        if vector.grad is None:
            vector.grad = torch.zeros_like(vector)
        return self._view("found", vector.grad)

    def _view(self, name: str, vector: Tensor) -> list[Layer]:
        # The numbers may have moved, to another device or into a new gradient.
        place = (name, vector.data_ptr(), vector.dtype, vector.device)
        if place not in self._views:
            self._views = {other: views for other, views in self._views.items() if other[0] != name}
            self._views[place] = self._network.layers(vector)
        return self._views[place]

    def _rooms(self, rows: int, keep: bool) -> list[Tensor]:
        """Tensors for the outputs of each layer."""
        scratch = self._kept if keep else self._scratch
        shapes = [(*self._stack, rows, width) for width in self._network.sizes[1:]]
        if self._one_output:
            shapes[-1] = shapes[-1][:-1]
        return [
            scratch.take(("output", index, self._several), shape, self._network.vector)
            for index, shape in enumerate(shapes)
        ]

    def _members(self, *tensors: Tensor) -> Any:
        return zip(*tensors, strict=True) if self._several else [tensors]

    def _learn(self, seen: Tensor, gradient: Tensor, found: Layer) -> None:
        """Write the gradient of a layer's weight and bias."""
        if gradient.dim() == 1 + self._several:
            torch.sum(gradient, -1, out=found.bias.view(gradient.shape[:-1]))
            for inner, values, weight in self._members(seen, gradient, found.weight):
                torch.mv(inner.T, values, out=weight[:, 0])
            return
        torch.sum(gradient, -2, keepdim=self._several, out=found.bias)
        (torch.bmm if self._several else torch.mm)(seen.mT, gradient, out=found.weight)

    def _pass_on(self, gradient: Tensor, weight: Tensor, room: Tensor) -> Tensor:
        """Write the gradient of a layer's inputs."""
        if gradient.dim() == 1 + self._several:
            return torch.mul(gradient.unsqueeze(-1), weight.mT, out=room)
        return (torch.bmm if self._several else torch.mm)(gradient, weight.mT, out=room)
