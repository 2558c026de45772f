"""Every agent trains on environments that are unusual and not wrong; a new agent needs a line here."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

import tests.odd_environments  # noqa: F401 - registers the environments
from rrd_lightning import Environment, keys
from rrd_lightning.agents import DDPG, DQN, SAC, TD3, ActorCritic, Agent, DiscreteSAC
from rrd_lightning.callbacks import Evaluate
from tests.runs import make_collect, make_data, make_module, make_trainer

CONTINUOUS: list[type[Agent]] = [SAC, TD3, DDPG]
DISCRETE: list[type[Agent]] = [DQN, DiscreteSAC]
KINDS = ["OddTypes-v0", "OddDict-v0", "OddImage-v0", "OddLengths-v0"]

# Gymnasium's own checker remarks on what is unusual.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")


def test_no_agent_is_forgotten() -> None:
    import rrd_lightning.agents as agents

    exported = {getattr(agents, name) for name in agents.__all__}
    assert exported - {Agent, ActorCritic} == {*CONTINUOUS, *DISCRETE}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("agent", [*CONTINUOUS, *DISCRETE])
def test_every_agent_trains(agent: type[Agent], kind: str) -> None:
    torch.manual_seed(0)
    env = Environment(kind, kwargs={"discrete": agent in DISCRETE})
    module = make_module(env, agent=partial(agent, hidden_sizes=(8,)))
    collect = make_collect(env, num_envs=2, warmup_steps=60, total_env_steps=120)
    evaluate = Evaluate(env, episodes=1, every_n_env_steps=100)
    data = make_data(batch_size=8, rrd_batch_size=8, rrd_sample_size=4, train_batches=2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainer = make_trainer(collect, evaluate, logger=False)
    trainer.fit(module, data)
    assert module.env_steps == 120
    changed = [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]
    assert any(name.startswith("agent.") for name in changed)
    assert all(value.isfinite().all() for value in module.state_dict().values())
    assert float(trainer.callback_metrics["evaluate/return_mean"]) > 0
    for steps in records(data):
        expected = torch.arange(len(steps))
        shape = [-1] + [1] * (steps.dim() - 1)
        assert torch.equal(steps, expected.to(steps.dtype).reshape(shape).expand_as(steps))


def records(data: Any) -> list[torch.Tensor]:
    """The observations of each episode that are to be 0, 1, 2 and so on."""
    observed = list(data.replay.observations())
    assert observed
    dtypes = {torch.float32, torch.uint8}
    steps = [each if isinstance(each, torch.Tensor) else each["observation"] for each in observed]
    assert {each.dtype for each in steps} <= dtypes
    assert data.replay.storage[:][keys.ACTION].isfinite().all()
    return steps
