"""The engine that makes updates in C++."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_warn
from tensordict import TensorDictBase
from torch import Tensor
from torch.optim import Adam, Optimizer

from rrd_lightning import keys
from rrd_lightning.decomposition import RRD, EnvironmentReward, EpisodicReward
from rrd_lightning.engines.cpp.adam import AdamTwin
from rrd_lightning.engines.cpp.rrd import RRDTwin
from rrd_lightning.engines.cpp.sac import SACTwin
from rrd_lightning.engines.eager import Eager
from rrd_lightning.engines.exact import altered
from rrd_lightning.errors import ParameterError
from rrd_lightning.kernels import NotCompiledError, compiled_library

TOLERANCE = 0.01  # of a gradient's norm


class CppTwin(Eager):
    """Makes the updates of `SAC`, by the rewards of `RRD` or a yardstick, with Adam, for vectors on the CPU.

    It equals `Eager` up to rounding, and the number of threads changes no bit. The first update is worked out
    by both and compared, so that a change of the losses or networks, wherever it was made, is never passed
    over. A batch that the functions cannot read, such as one of double precision, is left to `Eager`, as is the
    step of another optimizer.
    """

    name: ClassVar[str] = "cpp"

    def __init__(
        self,
        module: Any,
        optimizer: Optimizer,
        average_gradients: Callable[[], None] | None = None,
        take_step: Callable[[Callable[[], Any]], Any] = lambda step: step(),
    ) -> None:
        super().__init__(module, optimizer, average_gradients, take_step)
        library = compiled_library()
        decomposition, agent = module.decomposition, module.agent
        self._reward_model = RRDTwin(decomposition, library) if isinstance(decomposition, RRD) else None
        self._agent = SACTwin(agent, library) if SACTwin.unsupported(agent) is None else None
        self._compared = False
        self._differs = False
        self._adam: AdamTwin | None = None
        if isinstance(optimizer, Adam) and AdamTwin.unsupported(optimizer) is None:
            self._adam = AdamTwin(optimizer, library)

    @classmethod
    def unsupported(cls, module: Any, device: torch.device) -> str | None:
        """Return why the engine cannot serve a module on a device, or None if it can."""
        if device.type != "cpu":
            return f"it is for the CPU, not for {device.type}"
        reason = _unsupported_decomposition(module.decomposition)
        if module.train_policy:
            reason = reason or SACTwin.unsupported(module.agent)
        if reason:
            return reason
        try:
            compiled_library()
        except NotCompiledError as error:
            return str(error)
        return None

    def gradients(self, batch: TensorDictBase, updates: int) -> dict[str, Tensor]:
        """Let each parameter have its gradient."""
        if not self._compared:
            self._compare(batch, updates)
        return super().gradients(batch, updates) if self._differs else self._gradients(batch, updates)

    def _compare(self, batch: TensorDictBase, updates: int) -> None:
        """Find out whether the gradients of an update are those of the module's losses.

        Raises:
            ParameterError: if they are not, and the engine was asked for by name.
        """
        found = []
        for work in (super().gradients, self._gradients):
            with torch.random.fork_rng(devices=[]):
                work(batch, updates)
            found.append(
                [None if each.grad is None else each.grad.clone() for each in self.module.parameters()]
            )
        if not all(each is None or each.isfinite().all() for each in found[0]):
            return  # of numbers that are not finite there is nothing to say: later, if ever
        self._compared = True
        names = [name for name, _ in self.module.named_parameters()]
        differing = [name for name, *pair in zip(names, *found, strict=True) if not _alike(*pair)]
        if not differing:
            return
        problem = f"the gradient of {differing[0]} is not that of the module's own losses, which were changed"
        if self.module.engine == self.name:
            raise ParameterError("model.engine", self.name, f"{problem}: use eager")
        rank_zero_warn(f"Engine: eager ({self.name}: {problem})")
        self._differs = True

    def _gradients(self, batch: TensorDictBase, updates: int) -> dict[str, Tensor]:
        prepared = self.module.prepare(batch)
        transitions = prepared.get(keys.TRANSITIONS)
        model, agent = self._reward_model, self._agent if self.module.train_policy else None
        # Whatever they cannot read is None.
        subsequences: Any = model and model.read_subsequences(prepared)
        steps: Any = model and model.read(transitions)
        of_agent: Any = agent and agent.read(transitions)
        if (model and not (steps and subsequences)) or (agent and not of_agent):
            return super().gradients(batch, updates)
        metrics = model.gradients(subsequences) if model else {}
        if not agent:
            return metrics
        reward = model.reward(steps) if model else self.module.decomposition.reward(transitions)
        return {**metrics, **agent.gradients(of_agent, reward), "reward/agent_mean": reward.mean()}

    def step(self) -> None:
        """Take the optimizer's step."""
        (self._adam or self.optimizer).step()

    def act(self, observation: Any, *, explore: bool, env_steps: int) -> Tensor:
        """Choose actions ``[num_envs, ...]`` as the agent does."""
        if self._agent is None or self._differs:
            return super().act(observation, explore=explore, env_steps=env_steps)
        return self._agent.act(observation, explore=explore)


def _unsupported_decomposition(decomposition: Any) -> str | None:
    if isinstance(decomposition, RRD):
        return RRDTwin.unsupported(decomposition)
    for kind in (EnvironmentReward, EpisodicReward):
        if type(decomposition) is kind:
            return altered(decomposition, kind)
    return f"it serves RRD and the yardsticks, not {type(decomposition).__name__}"


def _alike(first: Tensor | None, second: Tensor | None) -> bool:
    """Tell whether two gradients differ by no more than rounding, which may turn a unit of a ReLU on or off."""
    if first is None or second is None:
        return first is second
    scale = torch.maximum(first.norm(), second.norm()).clamp_min(1e-6)
    return bool((first - second).norm() <= TOLERANCE * scale)
