"""Updates by torch's operations and autograd: what every other engine must equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torch.optim import Adam, Optimizer

from rrd_lightning.errors import ParameterError
from rrd_lightning.losses import Losses
from rrd_lightning.networks import Observation, evaluating


class Eager:
    """Carries out the updates of a module as the module defines them. It serves every module.

    Args:
        module: the `RRDModule`.
        optimizer: of its parameters.
        average_gradients: averages the gradients over several processes; there is one by default.
        take_step: takes a step by the function that it is given, and counts it.
    """

    name: ClassVar[str] = "eager"

    def __init__(
        self,
        module: Any,
        optimizer: Optimizer,
        average_gradients: Callable[[], None] | None = None,
        take_step: Callable[[Callable[[], Any]], Any] = lambda step: step(),
    ) -> None:
        self.module = module
        self.optimizer = optimizer
        self.average_gradients = average_gradients
        self.take_step = take_step
        self._names = {group["name"] for group in optimizer.param_groups} | set(module.loss_names())

    @classmethod
    def unsupported(cls, module: Any, device: torch.device) -> str | None:
        """Return why the engine cannot serve a module on a device, or None if it can."""
        return None

    @classmethod
    def make_optimizer(cls, groups: list[dict[str, Any]]) -> Adam:
        """Make the optimizer that the engine works with, from groups with Adam's options."""
        return Adam(groups, fused=True)

    def begin(self) -> None:
        """Look at the module again before the updates of a training step: a callback may have changed it."""

    def update(self, batch: TensorDictBase, updates: int) -> dict[str, Tensor]:
        """Make an update.

        Args:
            batch: a paired batch.
            updates: the number of updates made before this one.

        Returns:
            What there is to log, which holds until the next update.
        """
        metrics = self.gradients(batch, updates)
        if self.average_gradients is not None:
            self.average_gradients()
        self.clip()
        self.take_step(self.step)
        self.module.after_update(updates + 1)
        return metrics

    def gradients(self, batch: TensorDictBase, updates: int) -> dict[str, Tensor]:
        """Let each parameter have its gradient, or none where the losses do not reach it.

        Raises:
            ParameterError: if a loss has another name than the parameter groups.
        """
        self.optimizer.zero_grad()
        losses: Losses = self.module.losses(self.module.prepare(batch), updates)
        if unknown := losses.losses.keys() - self._names:
            raise ParameterError("losses", sorted(unknown), "have no parameter group of their name to train")
        losses.backward()
        return losses.logged()

    def clip(self) -> None:
        """Limit the norm of each group's gradient that has a limit."""
        for group in self.optimizer.param_groups:
            if limit := self.module.gradient_clip.get(group["name"]):
                torch.nn.utils.clip_grad_norm_(group["params"], limit)

    def step(self) -> None:
        """Take the optimizer's step."""
        self.optimizer.step()

    def act(self, observation: Observation, *, explore: bool, env_steps: int) -> Tensor:
        """Choose actions ``[num_envs, ...]`` as the agent does."""
        with evaluating(self.module.agent):
            action: Tensor = self.module.agent.act(observation, explore=explore, env_steps=env_steps)
        return action
