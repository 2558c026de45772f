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

    The fewer different ones an update touches, the more of them stay in the processor's caches. What
    is compiled gets new ones, which the compiler gives out itself.
    """

    def __init__(self) -> None:
        self._tensors: dict[Any, Tensor] = {}

    def take(self, name: Any, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return a tensor of any content; the same one while the arguments are the same."""
        if torch.compiler.is_compiling():
            return like.new_empty(shape)
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
        self._views: dict[str, tuple[Any, list[Layer]]] = {}
        self._kept = Scratch()

    def forward(self, inputs: Tensor) -> Tensor:
        """Evaluate ``[rows, sizes[0]]`` to ``[rows, sizes[-1]]``, with several members to ``[members, ...]``.

        Outputs of one number have no dimension of their own: ``[rows]``.

        Args:
            inputs: one batch, seen by every member.
        """
        return self._evaluate(inputs, self._scratch)[-1]

    def record(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Evaluate as `forward` does, and keep what each layer saw, for `backward`."""
        *seen, outputs = self._evaluate(inputs, self._kept)
        return outputs, seen

    def _evaluate(self, inputs: Tensor, scratch: Scratch) -> list[Tensor]:
        """Return the inputs of each layer, and the outputs."""
        seen = [inputs.expand(*self._stack, *inputs.shape)]
        affine = torch.baddbmm if self._several else torch.addmm
        *hidden, last = self._layers()
        *rooms, room = self._rooms(len(inputs), scratch)
        for layer, inner in zip(hidden, rooms, strict=True):
            seen.append(affine(layer.bias, seen[-1], layer.weight, out=inner).relu_())
        if not self._one_output:
            return [*seen, affine(last.bias, seen[-1], last.weight, out=room)]
        for values, weight, bias, outputs in self._members(seen[-1], last.weight, last.bias, room):
            torch.addmv(bias.view(1), values, weight[:, 0], out=outputs)
        return [*seen, room]

    def backward(self, seen: list[Tensor], gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Go back through all layers.

        Args:
            seen: what `record` kept.
            gradient: of the outputs.

        Returns:
            the gradient of the network's `vector`, and that of the first layer's outputs, for
            `input_gradient`.
        """
        if torch.compiler.is_compiling():
            return self._put_together(seen, gradient)
        vector = self._kept.take("found", self._network.vector.shape, gradient)
        found = self._view("found", vector)
        for index in reversed(range(1, len(seen))):
            self._learn(seen[index], gradient, found[index])
            gradient = self._pass_on(seen, index, gradient)
        self._learn(seen[0], gradient, found[0])
        return vector, gradient

    def _put_together(self, seen: list[Tensor], gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Go back as `backward` does, for the compiler, which copies what is written into views."""
        parts: list[Tensor] = []
        for index in reversed(range(len(seen))):
            columns = gradient.unsqueeze(-1) if gradient.dim() == 1 + self._several else gradient
            parts = [(seen[index].mT @ columns).flatten(), columns.sum(-2).flatten(), *parts]
            if index:
                gradient = self._pass_on(seen, index, gradient)
        return torch.cat(parts), gradient

    def trace(self, seen: list[Tensor], gradient: Tensor) -> Tensor:
        """Go back as `backward` does, for the gradient of the first layer's outputs alone."""
        for index in reversed(range(1, len(seen))):
            gradient = self._pass_on(seen, index, gradient)
        return gradient

    def input_gradient(self, gradient: Tensor, columns: slice = ALL) -> Tensor:
        """Return the gradient of some columns of the inputs, from that of the first layer's outputs."""
        if gradient.dim() == 1 + self._several:
            gradient = gradient.unsqueeze(-1)
        gradient = gradient @ self._layers()[0].weight[..., columns, :].mT
        return gradient.sum(0) if self._several else gradient

    def _layers(self) -> list[Layer]:
        return self._view("layers", self._network.vector.detach())

    def _view(self, name: str, vector: Tensor) -> list[Layer]:
        """View the parameters or their gradient as layers."""
        if torch.compiler.is_compiling():
            return self._network.layers(vector)
        # The numbers may have moved, to another device or into a new tensor.
        place = (vector.data_ptr(), vector.dtype, vector.device)
        if name not in self._views or self._views[name][0] != place:
            self._views[name] = (place, self._network.layers(vector))
        return self._views[name][1]

    def _rooms(self, rows: int, scratch: Scratch) -> list[Tensor]:
        """Tensors for the outputs of each layer."""
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

    def _pass_on(self, seen: list[Tensor], index: int, gradient: Tensor) -> Tensor:
        """Write the gradient of what the layer before gave, without what its ReLU held back."""
        weight = self._layers()[index].weight
        room = self._scratch.take(("gradient", index, self._several), seen[index].shape, gradient)
        if gradient.dim() == 1 + self._several:
            torch.mul(gradient.unsqueeze(-1), weight.mT, out=room)
        else:
            (torch.bmm if self._several else torch.mm)(gradient, weight.mT, out=room)
        _threshold_backward(room, seen[index], 0, grad_input=room)
        return room
