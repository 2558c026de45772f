"""Adam without what torch asks of each parameter in each step."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import CDLL, Structure, c_double, c_long, c_void_p
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Adam


class _Part(Structure):
    _fields_: ClassVar[Any] = [
        *((name, c_void_p) for name in ("parameter", "first_moment", "second_moment", "step", "gradient")),
        ("length", c_long),
        *((name, c_double) for name in ("rate", "beta1", "beta2", "epsilon", "decay")),
    ]


class LeanAdam(Adam):
    """`torch.optim.Adam` with ``fused=True``: the same state, and the same numbers.

    Torch asks so much about each parameter before each step that it takes longer than the arithmetic.

    Args:
        groups: parameter groups with Adam's options; with ``amsgrad`` torch's own step is taken.
        library: functions in C++ that do the arithmetic, for float32 on the CPU, in one call for all
            parameters. Without, torch's operation does it, to the last bit as in torch's own step.
    """

    _library: CDLL | None = None  # a copy has none

    def __init__(self, groups: list[dict[str, Any]], library: CDLL | None = None) -> None:
        super().__init__(groups, fused=True)
        self._library = library

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step with all parameters that have a gradient."""
        if any(group["amsgrad"] for group in self.param_groups):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._steps()
        return loss

    def _steps(self) -> None:
        """Take a step with each group."""
        parts: list[_Part] = []
        for group in self.param_groups:
            parameters = [each for each in group["params"] if each.grad is not None]
            if not parameters:
                continue
            states = [self._state_of(each) for each in parameters]
            if self._library and not group["maximize"] and all(map(_readable, parameters, states)):
                parts += [_part(*each, group) for each in zip(parameters, states, strict=True)]
            else:
                _step(parameters, states, group)
        if self._library and parts:
            self._library.adam_step(len(parts), (_Part * len(parts))(*parts))

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


def _readable(parameter: Tensor, state: dict[str, Tensor]) -> bool:
    gradient: Any = parameter.grad
    tensors = parameter, gradient, state["exp_avg"], state["exp_avg_sq"], state["step"]
    return all(each.is_cpu and each.dtype == torch.float32 and each.is_contiguous() for each in tensors)


def _part(parameter: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> _Part:
    gradient: Any = parameter.grad
    tensors = parameter, state["exp_avg"], state["exp_avg_sq"], state["step"], gradient
    options = group["lr"], *group["betas"], group["eps"], group["weight_decay"]
    places = (each.data_ptr() for each in tensors)
    return _Part(*places, parameter.numel(), *options)


def _step(parameters: list[Any], states: list[dict[str, Tensor]], group: dict[str, Any]) -> None:
    """Take a step by torch's operation."""
    torch._foreach_add_([state["step"] for state in states], 1)
    torch._fused_adam_(
        parameters,
        [each.grad for each in parameters],
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        [state["step"] for state in states],
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=group["maximize"],
    )
