"""Small agents of every kind, each with a small environment for it."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from rrd_lightning.agents import TD3

SMALL = {"hidden_sizes": (32, 32)}
FAST = {"actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3}


class Small(NamedTuple):
    env_id: str
    agent: Any
    learned: float  # more than this is no chance: Follow's uniform actions get -6.7


AGENTS = {
    "TD3": Small("Follow-v0", partial(TD3, **SMALL, gamma=0.5, exploration_noise=0.5, **FAST), -1.5),
}
