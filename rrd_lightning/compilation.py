"""The update as one graph on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from lightning.pytorch.utilities import rank_zero_info

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function, device: torch.device) -> Function:
    """Return a function that does the same, and is compiled in its first call.

    Random numbers are drawn as without. On a GPU it is recorded as a CUDA graph, and what it returns
    holds until the next call.
    """
    rank_zero_info("The first update is compiled, which takes about 20 seconds")
    on_gpu = device.type == "cuda"
    options: dict[str, Any] = {"fallback_random": True, "triton.cudagraphs": on_gpu}
    call = torch.compile(function, fullgraph=True, dynamic=False, options=options)
    if not on_gpu:
        return cast(Function, call)

    def once(*arguments: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return call(*arguments)

    return cast(Function, once)
