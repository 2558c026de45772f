"""Policies and their losses."""

from rrd_lightning.agents.actor_critic import ActorCritic
from rrd_lightning.agents.base import Agent
from rrd_lightning.agents.ddpg import DDPG
from rrd_lightning.agents.discrete_sac import DiscreteSAC
from rrd_lightning.agents.dqn import DQN
from rrd_lightning.agents.sac import SAC
from rrd_lightning.agents.td3 import TD3

__all__ = ["DDPG", "DQN", "SAC", "TD3", "ActorCritic", "Agent", "DiscreteSAC"]
