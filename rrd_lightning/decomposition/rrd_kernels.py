"""Randomized return decomposition in C++."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Structure, byref, c_bool, c_int, c_void_p
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from rrd_lightning.networks import MLP, Kernels
from rrd_lightning.networks.kernels import Network, place, readable


class Steps(NamedTuple):
    """What a reward model sees of steps, ``[..., numbers]`` each: s, a, s', and features of images, if any."""

    observation: Tensor
    action: Tensor
    following: Tensor
    features: Tensor | None

    def inputs(self) -> Tensor:
        """All of it, ``[..., inputs]``: [s, a, s - s'] and the features."""
        features = [] if self.features is None else [self.features]
        return torch.cat([self.observation, self.action, self.observation - self.following, *features], -1)

    def readable(self, width: int) -> bool:
        """Tell whether functions in C++ can read it, for a network of so many inputs."""
        given = [each for each in self if each is not None]
        rows = self.observation.shape[:-1]
        return (
            readable(*given)
            and all(each.shape[:-1] == rows for each in given)
            and self.observation.shape == self.following.shape
            and sum(each.shape[-1] for each in given) == width
        )


class _Steps(Structure):
    _fields_: ClassVar[Any] = [
        *((name, c_int) for name in ("rows", "observations", "actions", "features")),
        *((name, c_void_p) for name in ("observation", "following", "action", "feature")),
    ]


class _Loss(Structure):
    _fields_: ClassVar[Any] = [
        *((name, c_int) for name in ("count", "size")),
        *((name, c_bool) for name in ("bias_correction", "episode_scale")),
        *((name, c_void_p) for name in ("episode_return", "episode_length", "with_replacement")),
    ]


def evaluate(kernels: Kernels, network: MLP, steps: Steps, reward: Tensor) -> None:
    """Write the reward of each step.

    Args:
        kernels: the functions.
        network: the reward model's.
        steps: of any batch shape.
        reward: of that shape.
    """
    steps = _without_gaps(steps)
    kernels.library.rrd_reward(byref(Network.of(network)), byref(_described(steps)), place(reward))


def learn(
    kernels: Kernels,
    network: MLP,
    steps: Steps,
    facts: Sequence[Tensor],
    found: Sequence[Tensor | None],
    *,
    bias_correction: bool,
    episode_scale: bool,
) -> None:
    """Write the predictions, and the gradient of `rrd_loss`.

    Args:
        kernels: the functions.
        network: the reward model's.
        steps: ``[N, K]``.
        facts: return, length and kind of draw of each subsequence, ``[N]``.
        found: where to write: the predictions ``[N, K]``, the gradient of the network, and that of the features
            or None.
        bias_correction: as in the loss.
        episode_scale: as in the loss.
    """
    steps = _without_gaps(steps)
    count, size, _ = steps.action.shape
    kinds = torch.float32, torch.int64, torch.bool
    episode_return, length, with_replacement = (
        each.to(kind).expand(count).contiguous() for each, kind in zip(facts, kinds, strict=True)
    )
    loss = _Loss(
        count,
        size,
        bias_correction,
        episode_scale,
        place(episode_return),
        place(length),
        place(with_replacement),
    )
    kernels.library.rrd_learn(
        byref(Network.of(network)), byref(_described(steps)), byref(loss), *map(place, found)
    )


def _without_gaps(steps: Steps) -> Steps:
    observation, action, following = (each.contiguous() for each in steps[:3])
    features = None if steps.features is None else steps.features.contiguous()
    return Steps(observation, action, following, features)


def _described(steps: Steps) -> _Steps:
    features = 0 if steps.features is None else steps.features.shape[-1]
    widths = steps.observation.shape[-1], steps.action.shape[-1], features
    numbers = steps.observation, steps.following, steps.action, steps.features
    rows = steps.action.shape[:-1].numel()
    return _Steps(rows, *widths, *map(place, numbers))
