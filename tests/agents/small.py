"""Small agents of every kind, each with a small environment for it."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from rrd_lightning.agents import DDPG, DQN, SAC, TD3, DiscreteSAC

SMALL = {"hidden_sizes": (32, 32)}
FAST = {"actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3}


class Small(NamedTuple):
    env_id: str
    agent: Any
    # More than this is no chance: uniform actions get -6.7 in Follow, and 3.3 in the others.
    learned: float
    total_env_steps: int = 2000
    reward_learning_rate: float = 3e-3


STEADY = {"actor_learning_rate": 3e-4, "critic_learning_rate": 1e-3}
NOISY = {**SMALL, **FAST, "gamma": 0.5, "exploration_noise": 0.5}
GREEDY = {"gamma": 0.5, "exploration_steps": 1000, "target_update": 5, "learning_rate": 1e-3}
SOFT = {**FAST, "gamma": 0.5, "temperature_learning_rate": 3e-3, "target_entropy": 0.2}
AGENTS = {
    "DDPG": Small("Follow-v0", partial(DDPG, **NOISY, polyak=0.99), -1.5),
    "TD3": Small("Follow-v0", partial(TD3, **NOISY), -1.5),
    "DQN": Small("Choose-v0", partial(DQN, **SMALL, **GREEDY), 8.0, 1500),
    "double dueling DQN": Small(
        "Choose-v0", partial(DQN, **SMALL, **GREEDY, double=True, dueling=True), 8.0, 1500
    ),
    "DiscreteSAC": Small("Choose-v0", partial(DiscreteSAC, **SMALL, **SOFT), 8.0, 1500),
    "SAC of images": Small(
        "FollowByImage-v0", partial(SAC, **SMALL, **FAST, gamma=0.5, initial_temperature=0.03), -1.0, 1000, 1e-3
    ),
    "TD3 of images": Small("FollowByImage-v0", partial(TD3, **NOISY | STEADY), -1.0, 1500, 1e-3),
    "DDPG of images": Small("FollowByImage-v0", partial(DDPG, **NOISY | STEADY, polyak=0.99), -1.0, 1500, 1e-3),
    "DQN of images": Small("ChooseByImage-v0", partial(DQN, **GREEDY), 8.0, 1000, 1e-3),
    "DiscreteSAC of images": Small(
        "ChooseByImage-v0", partial(DiscreteSAC, **SMALL, **SOFT, random_shift=1), 8.0, 1000, 1e-3
    ),
}
