"""The episode replay: finished episodes in, paired batches out."""

from rrd_lightning.replay.batches import LazyBatches
from rrd_lightning.replay.best_episodes import BestEpisodesSampler
from rrd_lightning.replay.buffer import EpisodeReplay
from rrd_lightning.replay.mixed import MixedSampler
from rrd_lightning.replay.sampler import Draws, PairedSampler, StepDraw
from rrd_lightning.replay.table import EpisodeTable

__all__ = [
    "BestEpisodesSampler",
    "Draws",
    "EpisodeReplay",
    "EpisodeTable",
    "LazyBatches",
    "MixedSampler",
    "PairedSampler",
    "StepDraw",
]
