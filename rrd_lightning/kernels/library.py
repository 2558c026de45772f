"""The functions in C++ of all rooms, compiled for the processor that they run on."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from ctypes import CDLL
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

SOURCE = Path(__file__).with_name("kernels.cpp")
OPTIONS = ["-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fPIC"]


class NotCompiledError(RuntimeError):
    """There is no C++ compiler, or it does not do; the message says what is missing."""


@cache
def compiled_library(*options: str) -> CDLL:
    """Compile the functions, once in a process, which takes two or three seconds.

    The compiler is ``g++``, or what ``CXX`` names.

    Args:
        options: more for the compiler.

    Raises:
        NotCompiledError: if that is not possible.
    """
    try:
        command_line = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    except ValueError as error:
        raise NotCompiledError(f"cannot read CXX={os.environ['CXX']!r}: {error}") from error
    compiler = command_line[0]
    if shutil.which(compiler) is None:
        raise NotCompiledError(f"needs a C++ compiler, and {compiler} is not there: install it, or set CXX")
    try:
        with TemporaryDirectory() as folder:
            compiled, library = Path(folder, "kernels.o"), Path(folder, "kernels.so")
            for command in (
                [*OPTIONS, *options, "-fopenmp", "-c", str(SOURCE), "-o", str(compiled)],
                ["-shared", str(compiled), _threads(), "-o", str(library)],
            ):
                result = subprocess.run([*command_line, *command], capture_output=True, text=True)
                if result.returncode:
                    raise NotCompiledError(f"{compiler} cannot compile {SOURCE}: {result.stderr.strip()}")
            return CDLL(str(library))
    except OSError as error:
        raise NotCompiledError(f"what {compiler} compiled cannot be made or loaded: {error}") from error


@cache
def library_here() -> CDLL | None:
    """The compiled functions, or None where they cannot be compiled."""
    try:
        return compiled_library()
    except NotCompiledError:
        return None


def _threads() -> str:
    """The library of threads that torch has loaded: another would bring threads of its own."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    loaded = [line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line or "libiomp" in line]
    of_torch = [path for path in loaded if path.startswith(str(Path(torch.__file__).parent.parent))]
    return next(iter([*of_torch, *loaded]), "-fopenmp")
