"""Perceptrons as the functions in C++ see them: pointers to their parameters and gradients."""

from __future__ import annotations

from ctypes import POINTER, Structure, c_int, c_void_p
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rrd_lightning.networks import MLP, Linear


class Network(Structure):
    """``Network`` of perceptrons.h."""

    _fields_: ClassVar[Any] = [
        ("members", c_int),
        ("layers", c_int),
        ("sizes", POINTER(c_int)),
        ("weight", POINTER(c_void_p)),
        ("bias", POINTER(c_void_p)),
    ]


class Gradient(Structure):
    """``Gradient`` of perceptrons.h."""

    _fields_: ClassVar[Any] = [("weight", POINTER(c_void_p)), ("bias", POINTER(c_void_p))]


class Perceptron:
    """What the functions need to know of a perceptron.

    Args:
        network: the perceptron, one that `unsupported` has no reason against.
        learns: whether its gradient is worked out.

    Attributes:
        network: for the functions; `locate` brings it up to date.
        gradient: for the functions.
        inputs: width of the input.
    """

    def __init__(self, network: MLP, *, learns: bool = True) -> None:
        linear = [layer for layer in network.layers if isinstance(layer, Linear)]
        self._parameters = [[layer.weight for layer in linear], [layer.bias for layer in linear]]
        widths = [linear[0].weight.shape[-2], *(layer.weight.shape[-1] for layer in linear)]
        count = len(linear)
        self._sizes = (c_int * len(widths))(*widths)
        self._pointers = [(c_void_p * count)() for _ in self._parameters]
        self.network = Network(network.members or 1, count, self._sizes, *self._pointers)
        self.inputs = widths[0]
        self.gradient = Gradient()
        self._gradients: list[list[Tensor]] = []
        if learns:
            self._gradients = [[torch.empty_like(each) for each in part] for part in self._parameters]
            self._gradient_pointers = [
                (c_void_p * count)(*map(Tensor.data_ptr, part)) for part in self._gradients
            ]
            self.gradient = Gradient(*self._gradient_pointers)

    def locate(self) -> Network:
        """Look where the parameters are by now."""
        for pointers, part in zip(self._pointers, self._parameters, strict=True):
            for layer, parameter in enumerate(part):
                pointers[layer] = parameter.data_ptr()
        return self.network

    def give_gradients(self) -> None:
        """Let the parameters have the gradients that the functions write."""
        for parameter, gradient in zip(chain(*self._parameters), chain(*self._gradients), strict=True):
            parameter.grad = gradient


def unsupported(network: nn.Module, name: str) -> str | None:
    """Return why the functions cannot serve a network, by its name for the user, or None if they can."""
    if type(network) is not MLP:
        return f"{name} is of {type(network).__name__}"
    kinds = [type(layer) for layer in network.layers]
    others = {kind.__name__ for kind in kinds} - {Linear.__name__, nn.ReLU.__name__}
    if others:
        return f"{name} has {' and '.join(sorted(others))}"
    if kinds != [kind for _ in kinds[1::2] for kind in (Linear, nn.ReLU)] + [Linear]:
        return f"{name} has layers in another order"
    for parameter in network.parameters():
        if parameter.dtype != torch.float32 or not parameter.is_contiguous():
            return f"{name} is not of float32 without gaps in memory"
    return None


def widths(network: nn.Module) -> tuple[int, int, int | None]:
    """Return the width of a perceptron's input and output, and its number of members."""
    linear = [layer for layer in network.modules() if isinstance(layer, Linear)]
    members = None if linear[0].weight.dim() == 2 else len(linear[0].weight)
    return linear[0].weight.shape[-2], linear[-1].weight.shape[-1], members


def pointer(tensor: Tensor | None) -> int | None:
    """Where a tensor's numbers are; null if there is none."""
    return None if tensor is None else tensor.data_ptr()


def is_float(*tensors: Tensor) -> bool:
    """Tell whether tensors are of float32 on the CPU."""
    return all(each.dtype == torch.float32 and each.is_cpu for each in tensors)
