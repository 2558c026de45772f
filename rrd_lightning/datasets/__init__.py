"""Demonstrations: finished episodes from files, one module per format."""

from rrd_lightning.datasets.demonstrations import Demonstrations
from rrd_lightning.datasets.libero import Alignment, Camera, View

__all__ = ["Alignment", "Camera", "Demonstrations", "View"]
