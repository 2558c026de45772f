"""Environments: Gymnasium's, by id, prepared for episode-level feedback."""

from rrd_lightning.envs.environment import Environment
from rrd_lightning.envs.episodic import EpisodicFeedback
from rrd_lightning.envs.rollout import Rollout
from rrd_lightning.envs.spaces import space_from_dict, space_to_dict

__all__ = ["Environment", "EpisodicFeedback", "Rollout", "space_from_dict", "space_to_dict"]
