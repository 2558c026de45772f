"""Perceptrons evaluated and differentiated by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rrd_lightning.networks.kernels import Kernels, readable
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
            kept = None
        # What inference mode made cannot be written to outside of it.
        if kept is None or (kept.is_inference() and not torch.is_inference_mode_enabled()):
            kept = self._tensors[name] = like.new_empty(shape)
        return kept


class Tape:
    """Evaluates a perceptron and works out its gradient without autograd.

    The numbers are autograd's, up to rounding. Autograd makes new large tensors in every evaluation; a
    tape has its own and uses them again: what it recorded, and the gradient that it returned, hold until
    the next. Where the network has `Kernels`, they do the work.

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

    def kernels(self) -> Kernels | None:
        """The functions that do the work, where there are any for the network's numbers."""
        network = self._network
        if network.kernels is None or torch.compiler.is_compiling():
            return None
        return network.kernels if readable(network.vector) else None

    def kernels_for(self, inputs: Tensor) -> Kernels | None:
        """The functions, for inputs that they can read. What else there is torch takes, or refuses."""
        read = readable(inputs) and inputs.shape[1:] == self._network.sizes[:1]
        return self.kernels() if read else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Evaluate ``[rows, sizes[0]]`` to ``[rows, sizes[-1]]``, with several members to ``[members, ...]``.

        Outputs of one number have no dimension of their own: ``[rows]``.

        Args:
            inputs: one batch, seen by every member.
        """
        if kernels := self.kernels_for(inputs):
            outputs = self._outputs(inputs)
            hidden = [None] * (len(self._network.sizes) - 2)
            kernels.forward(self._network, inputs.contiguous(), [*hidden, outputs])
            return outputs
        return self._evaluate(inputs, self._scratch)[0]

    def record(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Evaluate as `forward` does, and keep what each layer saw, for `backward` and `trace`."""
        if kernels := self.kernels_for(inputs):
            outputs, inputs = self._outputs(inputs), inputs.contiguous()
            hidden = self._rooms(len(inputs), self._kept)
            kernels.forward(self._network, inputs, [*hidden, outputs])
            return outputs, [inputs, *hidden]
        return self._evaluate(inputs, self._kept)

    def _evaluate(self, inputs: Tensor, scratch: Scratch) -> tuple[Tensor, list[Tensor]]:
        """Return the outputs, and the inputs of each layer."""
        seen = [inputs.expand(*self._stack, *inputs.shape)]
        affine = torch.baddbmm if self._several else torch.addmm
        *hidden, last = self._layers()
        for layer, room in zip(hidden, self._rooms(len(inputs), scratch), strict=True):
            seen.append(affine(layer.bias, seen[-1], layer.weight, out=room).relu_())
        if not self._one_output:
            return affine(last.bias, seen[-1], last.weight), seen
        found = self._outputs(inputs)
        for values, weight, bias, outputs in self._members(seen[-1], last.weight, last.bias, found):
            torch.addmv(bias.view(1), values, weight[:, 0], out=outputs)
        return found, seen

    def backward(self, seen: list[Tensor], gradient: Tensor) -> Tensor:
        """Return the gradient of the network's `vector`.

        Args:
            seen: what `record` kept, and is used up by this.
            gradient: of the outputs.
        """
        if torch.compiler.is_compiling():
            return self._put_together(seen, gradient)
        vector = self._kept.take("found", self._network.vector.shape, gradient)
        if kernels := self.kernels():
            kernels.backward(self._network, seen[0], seen[1:], gradient.contiguous(), vector)
            return vector
        found = self._view("found", vector)
        for index in reversed(range(len(seen))):
            self._learn(seen[index], gradient, found[index])
            if index:
                gradient = self._pass_on(seen, index, gradient)
        return vector

    def _put_together(self, seen: list[Tensor], gradient: Tensor) -> Tensor:
        """Go back as `backward` does, for the compiler, which copies what is written into views."""
        parts: list[Tensor] = []
        for index in reversed(range(len(seen))):
            columns = gradient.unsqueeze(-1) if gradient.dim() == 1 + self._several else gradient
            parts = [(seen[index].mT @ columns).flatten(), columns.sum(-2).flatten(), *parts]
            if index:
                gradient = self._pass_on(seen, index, gradient)
        return torch.cat(parts)

    def trace(self, seen: list[Tensor], gradient: Tensor, columns: slice = ALL) -> Tensor:
        """Return the gradient of some columns of the inputs, summed over members.

        Args:
            seen: what `record` kept.
            gradient: of the outputs.
            columns: which of the inputs.
        """
        if kernels := self.kernels():
            first, last, _ = columns.indices(self._network.sizes[0])
            found = gradient.new_empty(len(seen[0]), last - first)
            kernels.trace(self._network, seen[1:], gradient.contiguous(), first, found)
            return found
        for index in reversed(range(1, len(seen))):
            gradient = self._pass_on(seen, index, gradient)
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

    def _outputs(self, inputs: Tensor) -> Tensor:
        """A new tensor for what the network gives."""
        width = self._network.sizes[-1]
        return inputs.new_empty(*self._stack, len(inputs), *(() if self._one_output else (width,)))

    def _rooms(self, rows: int, scratch: Scratch) -> list[Tensor]:
        """Tensors of the shape of each hidden layer's outputs."""
        return [
            scratch.take(("output", index, self._several), (*self._stack, rows, width), self._network.vector)
            for index, width in enumerate(self._network.sizes[1:-1], 1)
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
