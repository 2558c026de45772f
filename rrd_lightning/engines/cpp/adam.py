"""Adam's step in C++, for all parameters in one call."""

from __future__ import annotations

from ctypes import CDLL, Structure, c_double, c_long, c_void_p
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from rrd_lightning.private import has_optimizer_hooks


class _Part(Structure):
    _fields_: ClassVar[Any] = [
        *((name, c_void_p) for name in ("parameter", "first_moment", "second_moment", "step", "gradient")),
        ("length", c_long),
        *((name, c_double) for name in ("rate", "beta1", "beta2", "epsilon", "decay")),
    ]

    def point(self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], options: Any) -> None:
        """Say where a parameter and what belongs to it are by now."""
        self.parameter, self.gradient = parameter.data_ptr(), gradient.data_ptr()
        self.first_moment, self.second_moment = state["exp_avg"].data_ptr(), state["exp_avg_sq"].data_ptr()
        self.step, self.length = state["step"].data_ptr(), parameter.numel()
        self.rate, self.beta1, self.beta2, self.epsilon, self.decay = options


class AdamTwin:
    """What `torch.optim.Adam` does, with the same state.

    Args:
        optimizer: one that `unsupported` has no reason against.
        library: the functions.
    """

    def __init__(self, optimizer: Adam, library: CDLL) -> None:
        self._optimizer = optimizer
        self._library = library
        self._parts: Any = ()

    @staticmethod
    def unsupported(optimizer: Optimizer) -> str | None:
        """Return why the functions cannot stand in for an optimizer, or None if they can."""
        if type(optimizer) is not Adam:
            return f"the optimizer is {type(optimizer).__name__}, not Adam"
        if has_optimizer_hooks(optimizer):
            return "something listens to the optimizer"
        for group in optimizer.param_groups:
            for option in ("amsgrad", "maximize", "decoupled_weight_decay", "differentiable"):
                if group.get(option):
                    return f"Adam has {option}"
            if isinstance(group["lr"], Tensor):
                return "Adam's learning rate is a tensor"
        return None

    @torch.no_grad()
    def step(self) -> None:
        """Take a step with all parameters that have a gradient."""
        if (size := sum(len(group["params"]) for group in self._optimizer.param_groups)) > len(self._parts):
            self._parts = (_Part * size)()
        count = 0
        for group in self._optimizer.param_groups:
            options = group["lr"], *group["betas"], group["eps"], group["weight_decay"]
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._parts[count].point(parameter, parameter.grad, self._state_of(parameter), options)
                    count += 1
        self._library.adam_step(count, self._parts)

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self._optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state
