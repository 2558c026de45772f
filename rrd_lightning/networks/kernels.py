"""Perceptrons in C++."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import CDLL, POINTER, Structure, byref, c_int, c_void_p
from functools import cache
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rrd_lightning.kernels import compiled_library, library_here
from rrd_lightning.networks.mlp import MLP


class Network(Structure):
    """What the functions need to know of a perceptron."""

    _fields_: ClassVar[Any] = [
        ("members", c_int),
        ("layers", c_int),
        ("sizes", POINTER(c_int)),
        ("vector", c_void_p),
    ]

    @classmethod
    def of(cls, network: MLP) -> Network:
        """Describe a network, for as long as its numbers stay where they are."""
        known = _known.get(network)
        if known is None:
            sizes = (c_int * len(network.sizes))(*network.sizes)
            known = _known[network] = cls(network.members or 1, len(sizes) - 1, sizes)
        known.vector = network.vector.data_ptr()
        return known


_known: WeakKeyDictionary[MLP, Network] = WeakKeyDictionary()


class Kernels:
    """What `Tape` does, as functions in C++ that each take a whole network.

    Their numbers are torch's up to rounding, and the same for any number of threads. All tensors are
    float32 on the CPU, and without gaps.

    Args:
        library: the compiled functions.
    """

    def __init__(self, library: CDLL) -> None:
        self.library = library

    def __reduce__(self) -> Any:
        """Let a copy be compiled where it is unpickled, perhaps for another processor, or be None."""
        return _kernels_here, ()

    def forward(self, network: MLP, inputs: Tensor, outputs: Sequence[Tensor | None]) -> None:
        """Write the outputs of each layer, but for those that are not wanted.

        Args:
            network: the perceptron, or several.
            inputs: ``[rows, sizes[0]]``.
            outputs: one for each layer, the last always.
        """
        self.library.perceptron_forward(
            byref(Network.of(network)), len(inputs), place(inputs), _places(outputs)
        )

    def backward(
        self, network: MLP, inputs: Tensor, outputs: Sequence[Tensor], gradient: Tensor, found: Tensor
    ) -> None:
        """Write the gradient of `MLP.vector`, and of what each layer gave over what it gave.

        Args:
            network: the perceptron, or several.
            inputs: ``[rows, sizes[0]]``.
            outputs: what `forward` wrote, but for the last.
            gradient: of the last.
            found: where to write the gradient of `MLP.vector`.
        """
        self.library.perceptron_backward(
            byref(Network.of(network)),
            len(inputs),
            place(inputs),
            _places(outputs),
            place(gradient),
            place(found),
        )

    def trace(
        self, network: MLP, outputs: Sequence[Tensor], gradient: Tensor, first: int, found: Tensor
    ) -> None:
        """Write the gradient of some inputs, summed over members.

        Args:
            network: the perceptron, or several.
            outputs: what `forward` wrote, but for the last.
            gradient: of the last.
            first: the first of the inputs.
            found: where to write, ``[rows, inputs]``.
        """
        rows, columns = found.shape
        self.library.perceptron_trace(
            byref(Network.of(network)), rows, _places(outputs), place(gradient), first, columns, place(found)
        )


@cache
def compiled_kernels(*options: str) -> Kernels:
    """Compile the functions, once in a process.

    Args:
        options: more for the compiler.

    Raises:
        NotCompiledError: if that is not possible.
    """
    return Kernels(compiled_library(*options))


def _kernels_here() -> Kernels | None:
    return compiled_kernels() if library_here() else None


def readable(*tensors: Tensor) -> bool:
    """Tell whether functions in C++ can read the tensors, once they are without gaps."""
    return all(each.dtype == torch.float32 and each.is_cpu for each in tensors)


def place(tensor: Tensor | None) -> c_void_p:
    """Where a tensor's numbers are; nowhere if there is none."""
    return c_void_p(None if tensor is None else tensor.data_ptr())


def _places(tensors: Sequence[Tensor | None]) -> Any:
    return (c_void_p * len(tensors))(*map(place, tensors))
