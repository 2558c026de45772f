"""Which engine a run has."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch

from rrd_lightning.engines.cpp import CppTwin
from rrd_lightning.engines.cuda_graph import CudaGraph
from rrd_lightning.engines.eager import Eager
from rrd_lightning.errors import ParameterError

EngineName = Literal["auto", "eager", "cpp", "cuda_graph"]
ENGINES: dict[str, type[Eager]] = {each.name: each for each in (Eager, CppTwin, CudaGraph)}
# By itself a run does not take an engine that was never measured: cuda_graph has to be asked for.
AUTOMATIC: dict[str, list[type[Eager]]] = {"cpu": [CppTwin]}


class Setting(NamedTuple):
    """What of a run an engine may not be able to serve.

    Args:
        device: that the module is trained on.
        precision: of the trainer.
        listened: whether something has its own idea of the optimizer's step.
        redefined: what the module has its own definition of, if anything.
    """

    device: torch.device
    precision: str = "32-true"
    listened: bool = False
    redefined: str | None = None


def choose_engine(name: EngineName, module: Any, setting: Setting) -> tuple[type[Eager], str]:
    """Choose the engine that carries out a module's updates.

    Args:
        name: of the engine, or ``"auto"`` for the fastest that serves the module.
        module: the `RRDModule`.
        setting: of the run that it is trained in.

    Returns:
        The engine, and a line for the log: which one it is, and why not a faster one.

    Raises:
        ParameterError: if an engine is asked for by name and cannot serve, or does not exist.
    """
    if name != "auto":
        if name not in ENGINES:
            raise ParameterError("model.engine", name, f"must be auto, {', '.join(ENGINES)}")
        if reason := _unsupported(ENGINES[name], module, setting):
            raise ParameterError("model.engine", name, f"cannot serve this run: {reason}")
        return ENGINES[name], f"Engine: {name}"
    refused = []
    for engine in AUTOMATIC.get(setting.device.type, []):
        if reason := _unsupported(engine, module, setting):
            refused.append(f"{engine.name}: {reason}")
        else:
            return engine, f"Engine: {engine.name}"
    return Eager, "Engine: eager" + (f" ({'; '.join(refused)})" if refused else "")


def _unsupported(engine: type[Eager], module: Any, setting: Setting) -> str | None:
    """Return why an engine cannot serve a run, or None if it can."""
    if engine is Eager:
        return None
    if setting.precision != "32-true":
        return f"it serves trainer.precision 32-true, not {setting.precision}"
    if engine is CudaGraph and setting.listened:
        return "a callback, the strategy or the module listens to the optimizer's step"
    return setting.redefined or engine.unsupported(module, setting.device)
