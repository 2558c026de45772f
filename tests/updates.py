"""Modules and paired batches of random numbers, and what an update makes of them."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Discrete
from tensordict import TensorDict

from rrd_lightning import RRDModule, keys
from rrd_lightning.agents import SAC
from rrd_lightning.agents.actor_critic import cloning_metrics
from rrd_lightning.component import Component
from rrd_lightning.decomposition import RRD
from rrd_lightning.engines import Eager
from rrd_lightning.losses import Losses


def make_update(
    hidden_sizes: list[int],
    observations: int = 5,
    actions: int = 3,
    rows: int = 32,
    subsequences: tuple[int, int] = (4, 8),
    decomposition: Any = None,
    agent: dict[str, Any] | None = None,
    **options: object,
) -> tuple[RRDModule, TensorDict]:
    """A module and a paired batch with all kinds of rows, log σ at its bounds and beyond, α other than 1."""
    module = RRDModule(
        Box(-torch.inf, torch.inf, (observations,)),
        Box(-1, 1, (actions,)),
        partial(SAC, hidden_sizes=hidden_sizes, initial_temperature=0.3, **(agent or {})),
        decomposition or partial(RRD, hidden_sizes=hidden_sizes, **options),
    )
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim():
                parameter.add_(0.1 * torch.randn_like(parameter))
        if rows > 3:
            last = module.agent.actor.layers[-1].bias
            last[actions] = 2.5
            last[-1] = -25.0
    return module, make_batch(observations, actions, rows, subsequences)


def make_batch(observations: int, actions: int, rows: int, subsequences: tuple[int, int]) -> TensorDict:
    spaces = Box(-torch.inf, torch.inf, (observations,)), Box(-1, 1, (actions,))
    return make_batch_of(*spaces, rows, subsequences)


def make_batch_of(
    observation_space: Space[Any], action_space: Space[Any], rows: int, subsequences: tuple[int, int]
) -> TensorDict:
    """A paired batch of what the model sees in such spaces."""

    def part(*shape: int) -> dict[str, Any]:
        names = keys.OBSERVATION, keys.NEXT_OBSERVATION
        observations = {name: elements(observation_space, shape) for name in names}
        return {**observations, keys.ACTION: elements(action_space, shape)}

    count = subsequences[0]
    episode = {keys.EPISODE_RETURN: 10 * torch.randn(rows), keys.DONE: torch.rand(rows) < 0.3}
    transitions = {
        **part(rows),
        **episode,
        keys.TERMINATED: torch.rand(rows) < 0.3,
        keys.REWARD: torch.randn(rows),
    }
    facts = {
        keys.EPISODE_RETURN: 10 * torch.randn(count),
        keys.EPISODE_LENGTH: torch.randint(1, 20, (count,)),
        keys.WITH_REPLACEMENT: torch.rand(count) < 0.5,
    }
    batch = {
        keys.TRANSITIONS: TensorDict(transitions, [rows]),
        keys.SUBSEQUENCES: TensorDict({**part(*subsequences), **facts}, [count]),
    }
    return TensorDict(batch, [])


def elements(space: Any, shape: tuple[int, ...]) -> Any:
    """Elements ``[*shape, ...]`` of a space: normal numbers, numbers in [-1, 1], pixels, or choices."""
    if isinstance(space, Discrete):
        return torch.randint(int(space.start), int(space.start + space.n), shape)
    if space.dtype == np.uint8:
        return torch.randint(256, (*shape, *space.shape), dtype=torch.uint8)
    return torch.rand(*shape, *space.shape) * 2 - 1 if space.is_bounded() else torch.randn(*shape, *space.shape)


def make_engine(module: RRDModule, engine: type[Eager] = Eager, **options: Any) -> Eager:
    return engine(module, engine.make_optimizer(module._parameter_groups()), **options)


def learned(engine: Eager, batch: TensorDict, seed: int = 0) -> dict[str, torch.Tensor]:
    """All gradients and metrics of an update, without its step."""
    torch.manual_seed(seed)
    metrics = engine.gradients(batch, 0)
    return {**copy.deepcopy(metrics), **gradients(engine.module)}


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.grad.clone() for name, each in module.named_parameters() if each.grad is not None}


def check_groups(component: Component, found: Losses) -> None:
    """Each loss has a group of its name, has gradients to all of it, and reaches no other parameter."""
    groups = {group["name"]: {id(each) for each in group["params"]} for group in component.parameter_groups()}
    assert groups.keys() == found.losses.keys()
    assert {f"loss/{name}" for name in groups} <= component.metrics.keys()
    assert found.logged().keys() == component.metrics.keys() - cloning_metrics("").keys()
    for name, loss in found.losses.items():
        component.zero_grad()
        loss.backward(retain_graph=True)
        reached = {id(each) for each in component.parameters() if each.grad is not None}
        assert reached == groups[name], name
