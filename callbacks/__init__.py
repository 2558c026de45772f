"""Callbacks: what happens around the updates. Imported as ``rrd_lightning.callbacks``."""

from rrd_lightning.callbacks.collect import Collect
from rrd_lightning.callbacks.evaluate import Evaluate
from rrd_lightning.callbacks.plots import Plots
from rrd_lightning.callbacks.progress import EnvStepProgressBar

__all__ = ["Collect", "EnvStepProgressBar", "Evaluate", "Plots"]
