"""Every engine against the eager one: gradients, parameters after twenty updates, metrics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from rrd_lightning import Environment, RRDModule
from rrd_lightning.agents import SAC
from rrd_lightning.decomposition import EnvironmentReward, EpisodicReward
from rrd_lightning.engines import ENGINES, CudaGraph, Eager
from rrd_lightning.losses import Losses
from tests.agents.small import AGENTS
from tests.resuming import assert_same
from tests.runs import make_module
from tests.updates import gradients, make_batch_of, make_engine, make_update

UPDATES = 20


class Replayed(CudaGraph):
    """Repeats the Python instead of a graph: what is left of the CUDA engine where there is no GPU."""

    def _warm_up(self, batch: TensorDict, updates: int) -> dict[str, Tensor]:
        return Eager.update(self, batch, updates)

    def _capture(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        state = copy.deepcopy((self.module.state_dict(), self.optimizer.state_dict()))
        with torch.random.fork_rng():
            result = work()
        kept = [parameter.grad for parameter in self.module.parameters()]
        self.module.load_state_dict(state[0])
        self.optimizer.load_state_dict(state[1])

        def replay() -> None:
            for name, value in (work() or {}).items():
                result[name].copy_(value)
            # In the same memory as when it was recorded.
            for parameter, gradient in zip(self.module.parameters(), kept, strict=True):
                if gradient is not None and gradient is not parameter.grad:
                    gradient.copy_(parameter.grad)

        return replay, result

    @classmethod
    def make_optimizer(cls, groups: list[dict[str, Any]]) -> torch.optim.Adam:
        return Eager.make_optimizer(groups)


class Delayed(SAC):
    """Trains its actor in every second update, and copies its targets in every third."""

    def losses(self, transitions: Any, reward: Tensor, updates: int = 0) -> Losses:
        found = super().losses(transitions, reward, updates)
        if updates % 2:
            del found.losses["actor"]
        return found

    def after_update(self, updates: int) -> None:
        if updates % 3 == 0:
            super().after_update(updates)

    def phase(self, updates: int) -> Hashable:
        return updates % 6


CASES: dict[str, dict[str, Any]] = {
    "rrd": {},
    "corrected": {"bias_correction": True, "scale": "episode"},
    "environment": {"decomposition": EnvironmentReward},
    "episodic": {"decomposition": EpisodicReward},
}


def trained(engine: type[Eager], module: RRDModule, batches: list[TensorDict], device: str) -> dict[str, Any]:
    module = copy.deepcopy(module).to(device)
    module.gradient_clip = {"critic": 5.0}
    running = make_engine(module, engine)
    torch.manual_seed(1)
    for update, batch in enumerate(batches):
        metrics = running.update(batch.to(device), update)
        if update == 0:
            first = gradients(module)
    return {"first": first, "weights": module.state_dict(), "metrics": dict(metrics)}


def compare(engine: type[Eager], module: RRDModule, batches: list[TensorDict], device: str = "cpu") -> None:
    expected, found = (trained(each, module, batches, device) for each in (Eager, engine))
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-4)


def batches_of(batch: TensorDict) -> list[TensorDict]:
    return [batch.apply(partial(torch.roll, shifts=shift, dims=0)) for shift in range(UPDATES)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", sorted(ENGINES.keys() - {"eager"}))
def test_an_engine_is_the_eager_one_faster(name: str, case: str) -> None:
    module, batch = make_update([32, 48], **CASES[case])
    engine = ENGINES[name]
    if reason := engine.unsupported(module, torch.device("cpu")):
        pytest.skip(reason)
    compare(engine, module, batches_of(batch))


@pytest.mark.parametrize("agent", [SAC, Delayed])
def test_recordings_are_kept_for_each_phase_and_make_the_updates_of_the_eager_engine(agent: type[SAC]) -> None:
    module, batch = make_update([32, 48])
    module.agent.__class__ = agent
    compare(Replayed, module, batches_of(batch))
    engine: Any = make_engine(copy.deepcopy(module), Replayed)
    phases = 1 if agent is SAC else 6
    # Each phase is warmed up by three updates of it, and recorded at the fourth.
    for update in range(4 * phases):
        assert len(engine._recordings) == max(update - 3 * phases, 0)
        engine.update(batch, update)
    # Another learning rate is read; with another discount factor all is recorded again.
    engine.optimizer.param_groups[0]["lr"] = 0.0
    engine.module.agent.gamma = 0.5
    engine.begin()
    for update in range(4 * phases, 8 * phases):
        engine.update(batch, update)
    assert len(engine._recordings) == 2 * phases
    before = copy.deepcopy(engine.module.decomposition.state_dict())
    engine.update(batch, 0)
    assert_same(before, engine.module.decomposition.state_dict())


def of_agent(name: str) -> tuple[RRDModule, TensorDict]:
    """A small module of an agent, and a paired batch for it."""
    module = make_module(Environment(AGENTS[name].env_id), agent=AGENTS[name].agent)
    return module, make_batch_of(*module.model_spaces, 32, (4, 8))


@pytest.mark.parametrize("name", AGENTS)
def test_recordings_of_every_agent_are_its_eager_updates(name: str) -> None:
    module, batch = of_agent(name)
    compare(Replayed, module, batches_of(batch))


@pytest.mark.gpu
@pytest.mark.parametrize("name", AGENTS)
def test_cuda_graphs_of_every_agent_are_its_eager_updates(name: str) -> None:
    module, batch = of_agent(name)
    compare(CudaGraph, module, batches_of(batch), "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("agent", [SAC, Delayed])
@pytest.mark.parametrize("case", CASES)
def test_a_cuda_graph_is_the_eager_engine(case: str, agent: type[SAC]) -> None:
    module, batch = make_update([32, 48], **CASES[case])
    module.agent.__class__ = agent
    compare(CudaGraph, module, batches_of(batch), "cuda")


@pytest.mark.gpu
def test_a_cuda_graph_leaves_gradients_where_processes_exchange_them() -> None:
    module, batch = make_update([32, 48])
    module.cuda()
    seen: list[Tensor] = []

    def average() -> None:
        for parameter in module.agent.actor.parameters():
            parameter.grad.mul_(0.5)
        seen.append(module.agent.actor.layers[0].weight.grad.clone())

    engine = make_engine(module, CudaGraph, average_gradients=average)
    for update, each in enumerate(batches_of(batch)):
        engine.update(each.cuda(), update)
    assert len(seen) == UPDATES
    assert all(not torch.equal(*pair) for pair in pairwise(seen))
