"""Updates recorded once as CUDA graphs, and repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torch.optim import Adam, Optimizer

from rrd_lightning.engines.eager import Eager
from rrd_lightning.private import has_hooks

Result = TypeVar("Result")
WARMUP_UPDATES = 3  # made by `Eager` before a recording, so that everything lazy is there


@dataclass(frozen=True)
class _Recording:
    """One phase of updates: what it works out from the inputs, and where it leaves it."""

    gradients: Callable[[], None]
    step: Callable[[], None]
    inputs: TensorDictBase
    found: list[Tensor | None]
    metrics: dict[str, Tensor]


class CudaGraph(Eager):
    """Records the update of `Eager` and repeats it, without the time that Python takes for each operation.

    Two graphs, of the gradients and of the step, stand round the exchange of gradients between processes. There
    is a pair for each phase of the agent's updates, each shape of batches, and each setting of module and
    optimizer that is a plain number, since a graph holds these; learning rates are tensors, which it reads.
    The losses must be capture-safe: no number on the device may decide anything.
    """

    name: ClassVar[str] = "cuda_graph"

    def __init__(
        self,
        module: Any,
        optimizer: Optimizer,
        average_gradients: Callable[[], None] | None = None,
        take_step: Callable[[Callable[[], Any]], Any] = lambda step: step(),
    ) -> None:
        super().__init__(module, optimizer, average_gradients, take_step)
        self._recordings: dict[Hashable, _Recording] = {}
        self._warmups: Counter[Hashable] = Counter()
        self._rates: list[Tensor] = []
        self._settings: Hashable = None

    @classmethod
    def unsupported(cls, module: Any, device: torch.device) -> str | None:
        """Return why the engine cannot serve a module on a device, or None if it can."""
        if device.type != "cuda":
            return f"it is for CUDA, not for {device.type}"
        if module.decomposition.draws == "episodes":
            return "whole episodes differ in size from batch to batch"
        if module.train_policy and module.agent.phase(0) is None:
            return f"{type(module.agent).__name__}.phase does not say which updates are alike"
        return "the module has hooks, which a recording leaves out" if has_hooks(module) else None

    @classmethod
    def make_optimizer(cls, groups: list[dict[str, Any]]) -> Adam:
        """Make the optimizer, one whose step can be recorded."""
        return Adam(groups, fused=True, capturable=True)

    def begin(self) -> None:
        """Look at the settings again, and keep learning rates in tensors, whatever a schedule has put there."""
        if not self._rates:
            device = next(self.module.parameters()).device
            self._rates = [torch.zeros((), device=device) for _ in self.optimizer.param_groups]
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            if group["lr"] is not rate:
                rate.fill_(float(group["lr"]))
                group["lr"] = rate
        module = self.module
        self._settings = (
            *(_plain(group) for group in self.optimizer.param_groups),
            *(_plain(vars(part)) for part in (module.agent, module.decomposition)),
            module.train_policy,
            str(module.gradient_clip),
            *(parameter.requires_grad for parameter in module.parameters()),
        )

    def update(self, batch: TensorDictBase, updates: int) -> dict[str, Tensor]:
        """Make an update, as `Eager` does."""
        if self._settings is None:
            self.begin()
        key = self._key(batch, updates)
        if key not in self._recordings:
            if self._warmups[key] < WARMUP_UPDATES:
                self._warmups[key] += 1
                return self._warm_up(batch, updates)
            self._recordings[key] = self._record(batch, updates)
        recording = self._recordings[key]
        recording.inputs.update_(batch)
        recording.gradients()
        for parameter, gradient in zip(self.module.parameters(), recording.found, strict=True):
            parameter.grad = gradient
        if self.average_gradients is not None:
            self.average_gradients()
        self.take_step(recording.step)
        return recording.metrics

    def _key(self, batch: TensorDictBase, updates: int) -> Hashable:
        shapes = tuple((str(key), value.shape, value.dtype) for key, value in batch.items(True, True))
        phase = self.module.agent.phase(updates) if self.module.train_policy else None
        return self.module.phases.at(updates).name, phase, self._settings, shapes

    def _warm_up(self, batch: TensorDictBase, updates: int) -> dict[str, Tensor]:
        """Make an update that counts, on a stream of its own, as recordings ask for."""
        current, stream = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            metrics = super().update(batch, updates)
        current.wait_stream(stream)
        for value in metrics.values():
            value.record_stream(current)
        return metrics

    def _record(self, batch: TensorDictBase, updates: int) -> _Recording:
        """Record an update, without making it."""
        inputs = batch.clone()
        self.optimizer.zero_grad()
        gradients, metrics = self._capture(lambda: self.gradients(inputs, updates))
        found = [parameter.grad for parameter in self.module.parameters()]
        step, _ = self._capture(lambda: self._finish(updates))
        return _Recording(gradients, step, inputs, found, metrics)

    def _finish(self, updates: int) -> None:
        self.clip()
        self.step()
        self.module.after_update(updates + 1)

    def _capture(self, work: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Record some work, and return what repeats it, and where its results are after that."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = work()
        return graph.replay, result


def _plain(values: dict[str, Any]) -> Hashable:
    """The settings among values that a graph holds as numbers."""
    kinds = bool, int, float, str, tuple
    return tuple((name, each) for name, each in values.items() if isinstance(each, kinds))
