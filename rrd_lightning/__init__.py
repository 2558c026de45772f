"""Randomized return decomposition on PyTorch Lightning: learning from episode-level feedback."""

from rrd_lightning.data import ReplayDataModule
from rrd_lightning.envs import Environment
from rrd_lightning.errors import ParameterError
from rrd_lightning.module import RRDModule

__version__ = "0.1.0"
__all__ = ["Environment", "ParameterError", "RRDModule", "ReplayDataModule", "__version__"]
