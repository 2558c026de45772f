"""Perceptrons and the squashed policy in C++, compiled for the processor that they run on."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from ctypes import CDLL, POINTER, Structure, c_float, c_int, c_void_p
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from torch import Tensor

from rrd_lightning.networks.mlp import MLP

SOURCE = Path(__file__).with_suffix(".cpp")
OPTIONS = ["-std=c++17", "-O3", "-march=native", "-fPIC"]


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
        sizes = (c_int * len(network.sizes))(*network.sizes)
        return cls(network.members or 1, len(sizes) - 1, sizes, network.vector.data_ptr())


class Kernels:
    """What `Tape` and `SquashedDraw` do, as functions in C++ that each take a whole network.

    Their numbers are torch's up to rounding, and the same for any number of threads. All tensors are
    float32 on the CPU, and without gaps.

    Args:
        library: ``kernels.cpp``, compiled.
    """

    def __init__(self, library: CDLL) -> None:
        network, place = POINTER(Network), c_void_p
        self._forward: Any = library.perceptron_forward
        self._forward.argtypes = [network, c_int, place, place]
        self._backward: Any = library.perceptron_backward
        self._backward.argtypes = [network, c_int, place, place, place, place, place]
        self._trace: Any = library.perceptron_trace
        self._trace.argtypes = [network, c_int, place, place, c_int, c_int, place, place]
        self._draw: Any = library.squashed_draw
        self._draw.argtypes = [c_int, c_int, c_float, c_float, *[place] * 5]
        self._draw_gradient: Any = library.squashed_gradient
        self._draw_gradient.argtypes = [c_int, c_int, c_float, c_float, *[place] * 6]

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
        self._forward(Network.of(network), len(inputs), inputs.data_ptr(), _places(outputs))

    def backward(
        self,
        network: MLP,
        inputs: Tensor,
        outputs: Sequence[Tensor],
        gradient: Tensor,
        found: Tensor,
        room: Tensor,
    ) -> None:
        """Write the gradient of `MLP.vector`, and of what each layer gave over what it gave.

        Args:
            network: the perceptron, or several.
            inputs: ``[rows, sizes[0]]``.
            outputs: what `forward` wrote, but for the last.
            gradient: of the last.
            found: where to write the gradient of `MLP.vector`.
            room: as long as that, of any content.
        """
        self._backward(
            Network.of(network),
            len(inputs),
            inputs.data_ptr(),
            _places(outputs),
            gradient.data_ptr(),
            found.data_ptr(),
            room.data_ptr(),
        )

    def trace(
        self, network: MLP, outputs: Sequence[Tensor], gradient: Tensor, first: int, found: Tensor, room: Tensor
    ) -> None:
        """Write the gradient of some inputs, summed over members.

        Args:
            network: the perceptron, or several.
            outputs: what `forward` wrote, but for the last.
            gradient: of the last.
            first: the first of the inputs.
            found: where to write, ``[rows, inputs]``.
            room: as long as `MLP.vector`, of any content.
        """
        rows, columns = found.shape
        self._trace(
            Network.of(network),
            rows,
            _places(outputs),
            gradient.data_ptr(),
            first,
            columns,
            found.data_ptr(),
            room.data_ptr(),
        )

    def draw(
        self, outputs: Tensor, noise: Tensor, bounds: tuple[float, float], found: Sequence[Tensor]
    ) -> None:
        """Write the actions of a squashed Gaussian policy.

        Args:
            outputs: means and log σ, ``[rows, 2 * actions]``.
            noise: ε, ``[rows, actions]``.
            bounds: of log σ.
            found: where to write the actions and σ ε, ``[rows, actions]``, and the log-densities ``[rows]``.
        """
        places = [each.data_ptr() for each in (outputs, noise, *found)]
        self._draw(*noise.shape, *bounds, *places)

    def draw_gradient(
        self,
        outputs: Tensor,
        drawn: Sequence[Tensor],
        bounds: tuple[float, float],
        given: Sequence[Tensor],
        found: Tensor,
    ) -> None:
        """Write the gradient of the policy's outputs.

        Args:
            outputs: as for `draw`.
            drawn: the actions and σ ε.
            bounds: of log σ.
            given: the gradients of the actions, ``[rows, actions]``, and of each log-density, ``[]``.
            found: where to write, ``[rows, 2 * actions]``.
        """
        places = [each.data_ptr() for each in (outputs, *drawn, *given, found)]
        self._draw_gradient(*drawn[0].shape, *bounds, *places)


def _places(tensors: Sequence[Tensor | None]) -> Any:
    return (c_void_p * len(tensors))(*[None if each is None else each.data_ptr() for each in tensors])


class NotCompiledError(RuntimeError):
    """There is no C++ compiler, or it does not do; the message says what is missing."""


@cache
def compiled_kernels(*options: str) -> Kernels:
    """Compile the functions, once in a process, which takes a second or two.

    The compiler is ``g++``, or what ``CXX`` names.

    Args:
        options: more for the compiler.

    Raises:
        NotCompiledError: if that is not possible.
    """
    command_line = shlex.split(os.environ.get("CXX") or "g++")
    compiler = command_line[0]
    if shutil.which(compiler) is None:
        raise NotCompiledError(f"needs a C++ compiler, and {compiler} is not there: install it, or set CXX")
    with TemporaryDirectory() as folder:
        compiled, library = Path(folder, "kernels.o"), Path(folder, "kernels.so")
        for command in (
            [*OPTIONS, *options, "-fopenmp", "-c", str(SOURCE), "-o", str(compiled)],
            ["-shared", str(compiled), _threads(), "-o", str(library)],
        ):
            result = subprocess.run([*command_line, *command], capture_output=True, text=True)
            if result.returncode:
                raise NotCompiledError(f"{compiler} cannot compile {SOURCE}: {result.stderr.strip()}")
        try:
            return Kernels(CDLL(str(library)))
        except OSError as error:
            raise NotCompiledError(f"what {compiler} compiled cannot be loaded: {error}") from error


def _kernels_here() -> Kernels | None:
    try:
        return compiled_kernels()
    except NotCompiledError:
        return None


def _threads() -> str:
    """The library of threads that torch has loaded: another would bring threads of its own."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    loaded = [line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line or "libiomp" in line]
    of_torch = [path for path in loaded if path.startswith(str(Path(torch.__file__).parent.parent))]
    return next(iter([*of_torch, *loaded]), "-fopenmp")
