"""What takes most of the time of an update, in C++."""

from rrd_lightning.kernels.library import NotCompiledError, compiled_library, library_here

__all__ = ["NotCompiledError", "compiled_library", "library_here"]
