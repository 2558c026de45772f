"""The reward model of RRD in C++."""

from __future__ import annotations

from ctypes import CDLL, Structure, byref, c_bool, c_int, c_void_p
from typing import Any, ClassVar, NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor

from rrd_lightning import keys
from rrd_lightning.decomposition import RRD, RewardModel
from rrd_lightning.engines.cpp.perceptron import Perceptron, is_float, unsupported, widths
from rrd_lightning.engines.exact import altered, learns
from rrd_lightning.networks import MLP

METRICS = ("loss/reward", "reward/predicted_mean", "reward/predicted_std")
FACTS = {
    keys.EPISODE_RETURN: torch.float32,
    keys.EPISODE_LENGTH: torch.int64,
    keys.WITH_REPLACEMENT: torch.bool,
}


class _Steps(Structure):
    _fields_: ClassVar[Any] = [
        *((name, c_int) for name in ("rows", "observations", "actions")),
        *((name, c_void_p) for name in ("observation", "following", "action")),
    ]


class _Loss(Structure):
    _fields_: ClassVar[Any] = [
        *((name, c_int) for name in ("count", "size")),
        *((name, c_bool) for name in ("bias_correction", "episode_scale")),
        *((name, c_void_p) for name in ("episode_return", "episode_length", "with_replacement")),
    ]


class Steps(NamedTuple):
    """Steps without gaps in memory: s, a and s' as vectors ``[..., numbers]``."""

    observation: Tensor
    action: Tensor
    following: Tensor

    def structure(self) -> _Steps:
        """The same for the functions."""
        widths = self.observation.shape[-1], self.action.shape[-1]
        pointers = (each.data_ptr() for each in (self.observation, self.following, self.action))
        return _Steps(self.action.shape[:-1].numel(), *widths, *pointers)


class Subsequences(NamedTuple):
    """Steps ``[N, K]``, and what is known of the episode of each subsequence, ``[N]``."""

    steps: Steps
    episode_return: Tensor
    episode_length: Tensor
    with_replacement: Tensor


class RRDTwin:
    """What `RRD` does for vectors.

    Args:
        decomposition: one that `unsupported` has no reason against.
        library: the functions.
    """

    def __init__(self, decomposition: RRD, library: CDLL) -> None:
        network = decomposition.model.network
        assert isinstance(network, MLP)
        self._decomposition = decomposition
        self._library = library
        self._perceptron = Perceptron(network)
        self._metrics = torch.empty(len(METRICS))

    @staticmethod
    def unsupported(decomposition: RRD) -> str | None:
        """Return why the functions cannot serve a decomposition, or None if they can."""
        if reason := altered(decomposition, RRD) or altered(decomposition.model, RewardModel):
            return reason
        if [name for name, _ in decomposition.model.named_children()] != ["network"]:
            return "it serves vectors, and the reward model has an encoder or convolutions"
        if decomposition.model.output_scale != 1:
            return "the reward model's output is scaled"
        network = decomposition.model.network
        if reason := unsupported(network, "the reward model"):
            return reason
        if widths(network)[1:] != (1, None):
            return "the reward model does not give one number"
        return None if learns(network) else "part of the reward model is not trained"

    def read(self, steps: TensorDictBase) -> Steps | None:
        """Return what the functions see of steps of any batch shape, or None if they cannot read it."""
        observation, action, following = map(Tensor.contiguous, self._decomposition.model.vectors(steps))
        readable = (
            is_float(observation, action, following)
            and observation.shape == following.shape
            and observation.shape[:-1] == action.shape[:-1]
            and 2 * observation.shape[-1] + action.shape[-1] == self._perceptron.inputs
        )
        return Steps(observation, action, following) if readable else None

    def read_subsequences(self, batch: TensorDictBase) -> Subsequences | None:
        """Return what the functions see of the subsequences of a batch, or None if they cannot read it."""
        subsequences = batch.get(keys.SUBSEQUENCES)
        steps = self.read(subsequences)
        if steps is None or steps.action.dim() != 3:
            return None
        facts = [subsequences.get(key).to(kind).contiguous() for key, kind in FACTS.items()]
        return Subsequences(steps, *facts)

    def gradients(self, subsequences: Subsequences) -> dict[str, Tensor]:
        """Work out the gradient of `rrd_loss`, and return the metrics."""
        count, size, _ = subsequences.steps.action.shape
        self._decomposition.check(count, size)
        options = self._decomposition.bias_correction, self._decomposition.scale == "episode"
        loss = _Loss(count, size, *options, *map(Tensor.data_ptr, subsequences[1:]))
        self._perceptron.give_gradients()
        self._library.rrd_gradient(
            byref(self._perceptron.locate()),
            byref(subsequences.steps.structure()),
            byref(loss),
            byref(self._perceptron.gradient),
            c_void_p(self._metrics.data_ptr()),
        )
        return dict(zip(METRICS, self._metrics.clone().unbind(), strict=True))

    def reward(self, steps: Steps) -> Tensor:
        """Predict the reward of each step, ``[batch]``."""
        reward = torch.empty(steps.action.shape[:-1])
        network = self._perceptron.locate()
        self._library.rrd_reward(byref(network), byref(steps.structure()), c_void_p(reward.data_ptr()))
        return reward
