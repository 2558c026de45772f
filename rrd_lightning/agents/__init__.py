"""Policies and their losses."""

from rrd_lightning.agents.actor_critic import ActorCritic
from rrd_lightning.agents.base import Agent
from rrd_lightning.agents.sac import SAC

__all__ = ["SAC", "ActorCritic", "Agent"]
