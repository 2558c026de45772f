"""A trained policy and reward model as programs that need nothing of this package: ``rrd export``."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from gymnasium import Space, spaces
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from rrd_lightning import keys
from rrd_lightning.checkpoint.files import require_writable
from rrd_lightning.errors import ParameterError
from rrd_lightning.module import RRDModule
from rrd_lightning.paths import local_path
from rrd_lightning.spaces import is_scaled, zeros


def export(ckpt_path: str, output: str = "exported", onnx: bool = False) -> list[Path]:
    """Write the policy and the reward model of a checkpoint as ``policy.pt2`` and ``reward.pt2``.

    ``torch.export.load(path).module()`` is a function of what the environment gives, of any number of
    environments: the policy of observations, whose actions are within the environment's bounds, without
    exploration; the reward model of observation, action and next observation.

    Args:
        ckpt_path: a checkpoint of this package.
        output: the folder to write into.
        onnx: write ``policy.onnx`` and ``reward.onnx`` as well.

    Returns:
        The files.

    Raises:
        ParameterError: if the checkpoint cannot be read, the folder cannot be written to, or ONNX is missing.
    """
    module = RRDModule.load_from_checkpoint(local_path("ckpt_path", ckpt_path))
    if onnx and (find_spec("onnx") is None or find_spec("onnxscript") is None):
        raise ParameterError("onnx", onnx, "needs onnx: pip install 'rrd-lightning[onnx]'")
    folder = local_path("output", output)
    require_writable("output", folder)
    written = []
    for name, program, inputs in _programs(module):
        batch = torch.export.Dim("batch")
        shapes = tuple(_dynamic(each, batch) for each in inputs)
        exported = torch.export.export(program, inputs, dynamic_shapes=shapes)
        path = folder / f"{name}.pt2"
        torch.export.save(exported, path)
        written.append(path)
        if onnx:
            written.append(_write_onnx(exported, folder / f"{name}.onnx"))
    rank_zero_info("Exported: " + ", ".join(map(str, written)))
    return written


def _programs(module: RRDModule) -> list[tuple[str, nn.Module, tuple[Any, ...]]]:
    observation, action = _example(module.observation_space), _example(module.action_space)
    programs: list[tuple[str, nn.Module, tuple[Any, ...]]] = []
    if module.train_policy:
        programs.append(("policy", Policy(module), (observation,)))
    if not module.decomposition.needs:
        programs.append(("reward", Reward(module), (observation, action, observation)))
    return programs


class Policy(nn.Module):
    """The policy, without exploration.

    Args:
        module: a trained module.
    """

    def __init__(self, module: RRDModule) -> None:
        super().__init__()
        self.view, self.agent = _View(module), module.agent
        self.scale = _Scale(module.action_space)

    def forward(self, observation: Any) -> Tensor:
        """Map observations ``[batch, ...]`` to actions ``[batch, ...]`` within the environment's bounds."""
        return self.scale.to_native(self.agent.act(self.view(observation), explore=False))


class Reward(nn.Module):
    """The reward model.

    Args:
        module: a trained module.
    """

    def __init__(self, module: RRDModule) -> None:
        super().__init__()
        self.view, self.decomposition = _View(module), module.decomposition
        self.scale = _Scale(module.action_space)

    def forward(self, observation: Any, action: Tensor, next_observation: Any) -> Tensor:
        """Map steps ``[batch, ...]`` to their rewards ``[batch]``."""
        transitions: Any = {
            keys.OBSERVATION: self.view(observation),
            keys.ACTION: self.scale.to_unit(action),
            keys.NEXT_OBSERVATION: self.view(next_observation),
        }
        return self.decomposition.reward(transitions)


class _View(nn.Module):
    """Observations in single precision, encoded and normalised where that is asked for."""

    def __init__(self, module: RRDModule) -> None:
        super().__init__()
        parts = [part for part in (module.encoder, module.normalizer) if part is not None]
        self.parts = nn.Sequential(*parts)

    def forward(self, observation: Any) -> Any:
        if isinstance(observation, dict):
            return self.parts({key: _single(part) for key, part in observation.items()})
        return self.parts(_single(observation))


class _Scale(nn.Module):
    """Between actions in [-1, 1] and those within an environment's bounds."""

    low: Tensor
    high: Tensor
    middle: Tensor
    radius: Tensor

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        self._scaled = is_scaled(space)
        if isinstance(space, spaces.Box) and self._scaled:
            low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
            self.register_buffer("low", low)
            self.register_buffer("high", high)
            self.register_buffer("middle", (high + low) / 2)
            self.register_buffer("radius", (high - low) / 2)

    def to_native(self, action: Tensor) -> Tensor:
        if not self._scaled:
            return action
        return torch.minimum(torch.maximum(self.middle + self.radius * action, self.low), self.high)

    def to_unit(self, action: Tensor) -> Tensor:
        if not self._scaled:
            return action
        radius = torch.where(self.radius > 0, self.radius, 1.0)
        return ((action - self.middle) / radius).clamp(-1, 1).float()


def _single(part: Tensor) -> Tensor:
    vector = part.dim() == 2  # of integers, perhaps; images have more dimensions, and a Discrete fewer
    return part.float() if vector or part.dtype == torch.float64 else part


def _example(space: Space[Any]) -> Any:
    example = zeros(space, 2)
    return example if isinstance(example, Tensor) else example.to_dict()


def _dynamic(example: Any, batch: Any) -> Any:
    if isinstance(example, dict):
        return {key: _dynamic(part, batch) for key, part in example.items()}
    return {0: batch}


def _write_onnx(exported: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it thinks of its own dependencies
        program = torch.onnx.export(exported, dynamo=True, verbose=False)
        assert program is not None
        program.save(str(path))
    return path
