"""The update of RRD and SAC as functions in C++: an exact twin, for vectors on the CPU."""

from rrd_lightning.engines.cpp.engine import CppTwin

__all__ = ["CppTwin"]
