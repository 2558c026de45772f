"""Demonstrations: finished episodes from files, one module per format."""

from rrd_lightning.datasets.demonstrations import Demonstrations
from rrd_lightning.datasets.libero import LiberoReader
from rrd_lightning.datasets.minari import MinariReader
from rrd_lightning.datasets.reader import Reader
from rrd_lightning.datasets.source import Facts, Source, Spaces, make_episode

__all__ = [
    "Demonstrations",
    "Facts",
    "LiberoReader",
    "MinariReader",
    "Reader",
    "Source",
    "Spaces",
    "make_episode",
]
