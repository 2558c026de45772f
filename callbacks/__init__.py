"""Callbacks: collection, evaluation, checkpoints and logging, imported as ``rrd_lightning.callbacks``."""

from rrd_lightning.callbacks.checkpoint import Checkpoint
from rrd_lightning.callbacks.collect import Collect
from rrd_lightning.callbacks.evaluate import Evaluate
from rrd_lightning.callbacks.judge import Judge
from rrd_lightning.callbacks.monitor import Monitor
from rrd_lightning.callbacks.plots import Plots
from rrd_lightning.callbacks.progress import EnvStepProgressBar
from rrd_lightning.callbacks.relabel import Relabel
from rrd_lightning.callbacks.videos import Videos

__all__ = [
    "Checkpoint",
    "Collect",
    "EnvStepProgressBar",
    "Evaluate",
    "Judge",
    "Monitor",
    "Plots",
    "Relabel",
    "Videos",
]
