"""Gymnasium environments by id, wrapped for episode-level feedback."""

from rrd_lightning.envs.environment import Environment
from rrd_lightning.envs.episodic import EpisodicFeedback
from rrd_lightning.envs.failures import FailedEnvironmentError
from rrd_lightning.envs.rollout import Rollout
from rrd_lightning.envs.seeded import SeededEpisodes

__all__ = ["Environment", "EpisodicFeedback", "FailedEnvironmentError", "Rollout", "SeededEpisodes"]
