"""Whatever public method of a component a user overrides is asked: nothing stands in for it without a word."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from rrd_lightning import Environment, RRDModule
from rrd_lightning.agents import DDPG, DQN, SAC, TD3, Agent, DiscreteSAC
from rrd_lightning.callbacks import Checkpoint, Evaluate
from rrd_lightning.decomposition import (
    IRCR,
    RRD,
    Decomposition,
    EnvironmentReward,
    EpisodicReward,
    FullReturnDecomposition,
    RRDEnsemble,
    SuccessDiscriminator,
    UniformRedistribution,
)
from tests.runs import make_collect, make_data, make_trainer

AGENTS: list[type[Agent]] = [SAC, TD3, DDPG, DQN, DiscreteSAC]
DECOMPOSITIONS: list[type[Decomposition]] = [
    RRD,
    RRDEnsemble,
    FullReturnDecomposition,
    SuccessDiscriminator,
    IRCR,
    UniformRedistribution,
    EnvironmentReward,
    EpisodicReward,
]
# Those that a twin stands in for, method by method; where nothing can, all methods are watched at once.
WITH_A_TWIN: list[type] = [SAC, RRD]
# The cuda_graph engine asks for the phase, a checkpoint for how to build, imitation for its error.
ELSEWHERE = {"phase", "build", "cloning_error"}
# What they inherit from agents with an actor, or with continuous actions, and have no use for.
OF_NO_USE: dict[type, set[str]] = {DQN: {"values", "cloning"}, DiscreteSAC: {"values"}}


def public_methods(kind: type) -> set[str]:
    """The methods that a class and its bases in this package define."""
    defined = {
        name: value
        for each in reversed(kind.__mro__)
        if each.__module__.startswith("rrd_lightning.")
        for name, value in vars(each).items()
    }
    return {name for name, value in defined.items() if callable(value) and not name.startswith("_")} - ELSEWHERE


def watched(kind: type, methods: set[str], asked: set[str]) -> type:
    """A subclass that notes which of the methods are called."""

    def override(method: str) -> Any:
        def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
            asked.add(method)
            return getattr(super(subclass, self), method)(*args, **kwargs)

        return noted

    # Found again by its path, as a checkpoint asks.
    overrides = {method: override(method) for method in methods}
    subclass = type(f"Watched{kind.__name__}", (kind,), {**overrides, "__module__": __name__})
    globals()[subclass.__name__] = subclass
    return subclass


def train(agent: Any, decomposition: Any, env_id: str) -> None:
    env = Environment(env_id)
    module = RRDModule(env.observation_space, env.action_space, agent, decomposition)
    collect = make_collect(env, warmup_steps=40, total_env_steps=60, env_steps_per_iteration=20)
    evaluate = Evaluate(env, episodes=1, every_n_env_steps=60)
    trainer = make_trainer(collect, evaluate, Checkpoint(), enable_checkpointing=True, logger=False)
    data = make_data(batch_size=8, rrd_batch_size=8, rrd_sample_size=4, train_batches=2)
    trainer.fit(module, data)
    RRDModule.load_from_checkpoint("lightning_logs/version_0/checkpoints/last.ckpt")


def cases(kinds: Any) -> list[Any]:
    found: list[Any] = []
    for kind in kinds:
        methods = public_methods(kind)
        found += [(kind, {method}) for method in sorted(methods)] if kind in WITH_A_TWIN else [(kind, methods)]
    return found


@pytest.mark.parametrize(("kind", "methods"), cases(AGENTS))
def test_what_an_agent_overrides_is_asked(kind: type[Agent], methods: set[str]) -> None:
    asked: set[str] = set()
    discrete = kind in (DQN, DiscreteSAC)
    agent = partial(watched(kind, methods, asked), hidden_sizes=(8,))
    train(agent, UniformRedistribution, "Choose-v0" if discrete else "Follow-v0")
    assert asked == methods - OF_NO_USE.get(kind, set())


@pytest.mark.parametrize(("kind", "methods"), cases(DECOMPOSITIONS))
def test_what_a_decomposition_overrides_is_asked(kind: type[Decomposition], methods: set[str]) -> None:
    asked: set[str] = set()
    train(partial(SAC, hidden_sizes=(8,)), watched(kind, methods, asked), "Follow-v0")
    assert asked == methods
