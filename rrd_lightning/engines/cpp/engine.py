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
from rrd_lightning.engines.cpp.sac import SERVED, SACTwin
from rrd_lightning.engines.eager import Eager
from rrd_lightning.engines.exact import altered
from rrd_lightning.errors import ParameterError
from rrd_lightning.kernels import NotCompiledError, compiled_library
from rrd_lightning.private import fingerprint

TOLERANCE = 0.02  # of a gradient's norm, and
SLACK = 1e-4  # of the norm of all gradients: a gradient that nearly vanishes is all rounding
COMPARED_EVERY = 1000  # updates


class CppTwin(Eager):
    """Makes the updates of `SAC`, by the rewards of `RRD` or a yardstick, with Adam, for vectors on the CPU.

    It equals `Eager` up to rounding, and the number of threads changes no bit. What it cannot serve is left
    to `Eager`: a batch that the functions cannot read, such as one of double precision, another optimizer,
    and, from the next training step on, a module whose parts, hooks or frozen parameters were changed. The
    gradients of the first update and of every thousandth are worked out by both and compared, so that an
    edited definition is noticed, wherever it is.
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
        self._library = compiled_library()
        self._reason: str | None = None  # why it has given up
        self._compared = -COMPARED_EVERY
        self._adam = AdamTwin(optimizer, self._library) if isinstance(optimizer, Adam) else None
        self._attach()

    def _attach(self) -> None:
        """Find the parts that the functions serve, as they are now."""
        decomposition, agent, library = self.module.decomposition, self.module.agent, self._library
        self._reward_model = RRDTwin(decomposition, library) if isinstance(decomposition, RRD) else None
        self._agent = SACTwin(agent, library) if SACTwin.unsupported(agent) is None else None
        self._parts, self._parameters = list(self.module.modules()), list(self.module.parameters())
        self._known = self._look()

    @classmethod
    def unsupported(cls, module: Any, device: torch.device) -> str | None:
        """Return why the engine cannot serve a module on a device, or None if it can."""
        if device.type != "cpu":
            return f"it is for the CPU, not for {device.type}"
        if len(module.phases.phases) > 1:
            return "it serves runs without phases"
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

    def _look(self) -> list[Any]:
        """What tells whether the module is what it was."""
        agent = self.module.agent
        options = [getattr(agent, name, None) for name in ("num_critics", "critics_in_target", *SERVED)]
        return [self.module.train_policy, *options, *fingerprint(self._parts, self._parameters)]

    def begin(self) -> None:
        """Look at the module again: what is not served any longer is left to `Eager`."""
        if self._reason is not None or self._look() == self._known:
            return
        if reason := self.unsupported(self.module, torch.device("cpu")):
            self._give_up(reason)
        else:
            self._attach()

    def _give_up(self, reason: str) -> None:
        if self.module.engine == self.name:
            raise ParameterError("model.engine", self.name, f"cannot go on: {reason}: use eager")
        rank_zero_warn(f"Engine: eager ({self.name}: {reason})")
        self._reason = reason

    def gradients(self, batch: TensorDictBase, updates: int) -> dict[str, Tensor]:
        """Let each parameter have its gradient."""
        if self._reason is None and updates >= self._compared + COMPARED_EVERY:
            self._compare(batch, updates)
        metrics = None if self._reason else self._gradients(batch)
        return super().gradients(batch, updates) if metrics is None else metrics

    def _compare(self, batch: TensorDictBase, updates: int) -> None:
        """Find out whether the gradients of an update are those of the module's losses.

        Raises:
            ParameterError: if they are not, and the engine was asked for by name.
        """
        with torch.random.fork_rng(devices=[]):
            super().gradients(batch, updates)
        expected = _gradients_of(self.module)
        with torch.random.fork_rng(devices=[]):
            if self._gradients(batch) is None:
                return
        found = _gradients_of(self.module)
        if not all(each.isfinite().all() for each in expected.values()):
            return  # of numbers that are not finite there is nothing to say: later, if ever
        self._compared = updates
        slack = SLACK * float(torch.stack([each.norm() for each in expected.values()]).norm())
        differing = sorted(expected.keys() ^ found.keys()) or [
            name for name, each in expected.items() if not _alike(each, found[name], slack)
        ]
        if differing:
            self._give_up(
                f"the gradient of {differing[0]} is not that of the module's own losses, which were changed"
            )

    def _gradients(self, batch: TensorDictBase) -> dict[str, Tensor] | None:
        """Let each parameter have its gradient, and return the metrics; None if the batch cannot be read."""
        prepared = self.module.prepare(batch)
        transitions = prepared.get(keys.TRANSITIONS)
        model, agent = self._reward_model, self._agent if self.module.train_policy else None
        of_agent = agent.read(transitions) if agent else None
        if agent and of_agent is None:
            return None
        metrics: dict[str, Tensor] = {}
        if model:
            subsequences, steps = model.read_subsequences(prepared), model.read(transitions)
            if subsequences is None or steps is None:
                return None
            metrics = model.gradients(subsequences)
            reward = model.reward(steps) if agent else None
        else:
            reward = self.module.decomposition.reward(transitions)
        if agent is None or of_agent is None or reward is None:
            return metrics
        return {**metrics, **agent.gradients(of_agent, reward), "reward/agent_mean": reward.mean()}

    def step(self) -> None:
        """Take the optimizer's step."""
        if self._adam is None or AdamTwin.unsupported(self.optimizer):
            self.optimizer.step()
        else:
            self._adam.step()

    def act(self, observation: Any, *, explore: bool, env_steps: int) -> Tensor:
        """Choose actions ``[num_envs, ...]`` as the agent does."""
        if self._agent is None or self._reason:
            return super().act(observation, explore=explore, env_steps=env_steps)
        return self._agent.act(observation, explore=explore)


def _unsupported_decomposition(decomposition: Any) -> str | None:
    if isinstance(decomposition, RRD):
        return RRDTwin.unsupported(decomposition)
    for kind in (EnvironmentReward, EpisodicReward):
        if type(decomposition) is kind:
            return altered(decomposition, kind)
    return f"it serves RRD and the yardsticks, not {type(decomposition).__name__}"


def _gradients_of(module: Any) -> dict[str, Tensor]:
    return {name: each.grad.clone() for name, each in module.named_parameters() if each.grad is not None}


def _alike(expected: Tensor, found: Tensor, slack: float) -> bool:
    """Tell whether two gradients differ by no more than rounding, which may turn a unit of a ReLU on or off."""
    return bool((expected - found).norm() <= TOLERANCE * expected.norm() + slack)
