"""Policies and their losses."""

from rrd_lightning.agents.base import Agent
from rrd_lightning.agents.sac import SAC

__all__ = ["SAC", "Agent"]
