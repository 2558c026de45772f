"""Room to grow: an agent with discrete actions is one class, with no change elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium import Space
from lightning.pytorch.loggers import CSVLogger
from tensordict import TensorDictBase
from torch import Tensor, nn

from rrd_lightning import Environment, RRDModule, keys
from rrd_lightning.agents import Agent
from rrd_lightning.callbacks import Checkpoint, Evaluate
from rrd_lightning.decomposition import EpisodicReward
from rrd_lightning.losses import Losses
from tests.runs import make_collect, make_data, make_trainer


class LinearQ(Agent):
    """Q-learning with a linear network and random exploration."""

    def __init__(self, observation_space: Space, action_space: Space, *, learning_rate: float = 0.01) -> None:
        super().__init__(observation_space, action_space)
        self.values = nn.Linear(observation_space.shape[0], int(action_space.n))
        self.learning_rate = learning_rate

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"name": "values", "params": list(self.values.parameters()), "lr": self.learning_rate}]

    @torch.no_grad()
    def act(self, observation: Tensor, *, explore: bool, env_steps: int = 0) -> Tensor:
        values = self.values(observation)
        return torch.randint(values.shape[-1], values.shape[:-1]) if explore else values.argmax(-1)

    def losses(self, transitions: TensorDictBase, reward: Tensor, updates: int = 0) -> Losses:
        action = transitions[keys.ACTION][:, None]
        value = self.values(transitions[keys.OBSERVATION]).gather(1, action).squeeze(1)
        with torch.no_grad():
            following = self.values(transitions[keys.NEXT_OBSERVATION]).amax(-1)
            target = reward + 0.9 * following * ~transitions[keys.TERMINATED]
        return Losses({"values": (value - target).square().mean()})


def fit(name: str, total: int, ckpt_path: str | None = None) -> RRDModule:
    torch.manual_seed(0 if ckpt_path is None else 99)
    env = Environment("CartPole-v1")
    module = RRDModule(env.observation_space, env.action_space, agent=LinearQ, decomposition=EpisodicReward)
    collect = make_collect(env, num_envs=2, total_env_steps=total)
    trainer = make_trainer(
        collect,
        Evaluate(env, episodes=1, every_n_env_steps=100),
        Checkpoint(20),
        logger=CSVLogger(".", name=name),
        enable_checkpointing=True,
    )
    trainer.fit(module, make_data(), ckpt_path=ckpt_path)
    return module


def test_discrete_actions_are_collected_learned_from_and_resumed() -> None:
    whole = fit("whole", 400)
    fit("first", 300)
    last = "first/version_0/checkpoints/last.ckpt"
    resumed = fit("second", 400, last)
    assert torch.equal(whole.agent.values.weight, resumed.agent.values.weight)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gymnasium.make", None)
        loaded = RRDModule.load_from_checkpoint(Path(last))
    assert loaded.agent.act(torch.zeros(3, 4), explore=False).shape == (3,)
