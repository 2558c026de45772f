"""LIBERO's episodes recorded in its simulator, as HDF5 files: ``rrd record``."""

from rrd_lightning.record.command import record
from rrd_lightning.record.policy import Policy

__all__ = ["Policy", "record"]
