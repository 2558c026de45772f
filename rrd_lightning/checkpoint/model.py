"""Whether a checkpoint is of the model that is to go on with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from rrd_lightning.checkpoint.format import PATH_KEY
from rrd_lightning.errors import ParameterError


def require_same_model(
    checkpoint: dict[str, Any],
    hyper_parameters: dict[str, Any],
    state: Mapping[str, Tensor],
    groups: Sequence[str],
) -> None:
    """Refuse weights and optimizers of another model.

    Args:
        checkpoint: as it was read.
        hyper_parameters: of the model, as a checkpoint has them.
        state: the model's parameters and buffers.
        groups: names of the optimizer's parameter groups.

    Raises:
        ParameterError: naming the file, and the space, the class, the first parameter or the groups that
            differ.
    """
    path = checkpoint.get(PATH_KEY, "the checkpoint")
    _require_same_kind(checkpoint["hyper_parameters"], hyper_parameters, path)
    saved, own = (
        {name: tuple(value.shape) for name, value in each.items()} for each in (checkpoint["state_dict"], state)
    )
    for name in sorted(saved.keys() | own.keys()):
        if saved.get(name) != own.get(name):
            raise ParameterError(
                "ckpt_path",
                path,
                f"has {name} of shape {saved.get(name)}, and the model {own.get(name)}: give the spaces, "
                "agent, decomposition and sizes that it was trained with",
            )
    for optimizer in checkpoint.get("optimizer_states", []):
        trained = [group["name"] for group in optimizer["param_groups"]]
        if trained != list(groups):
            raise ParameterError(
                "model.train_policy",
                hyper_parameters["train_policy"],
                f"trains {list(groups)}, {path} was training {trained}: its optimizer cannot go on",
            )


def _require_same_kind(saved: dict[str, Any], own: dict[str, Any], path: str) -> None:
    for name in ("observation_space", "action_space"):
        if saved[name] != own[name]:
            raise ParameterError(name, own[name], f"{path} is of {saved[name]}: another environment")
    for name in ("agent", "decomposition"):
        trained, given = saved[name]["class_path"], own[name]["class_path"]
        if trained != given:
            raise ParameterError(f"model.{name}", given, f"{path} is of {trained}")
