"""Batches and perceptrons of torch's own layers, for the comparison of losses with those of TorchRL."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from gymnasium.spaces import Box
from tensordict import TensorDict
from torch import Tensor, nn
from torch.nn import functional

from rrd_lightning import keys
from rrd_lightning.networks import MLP, Linear

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
OBSERVATION, ACTION = Box(-torch.inf, torch.inf, (5,)), Box(-1, 1, (3,))
BATCH = 64


def make_transitions() -> TensorDict:
    return TensorDict(
        {
            keys.OBSERVATION: torch.randn(BATCH, 5),
            keys.NEXT_OBSERVATION: torch.randn(BATCH, 5),
            keys.ACTION: torch.rand(BATCH, 3) * 2 - 1,
            keys.TERMINATED: torch.rand(BATCH) < 0.3,
            keys.DONE: torch.rand(BATCH) < 0.5,
        },
        [BATCH],
    )


def as_torchrl(transitions: TensorDict, reward: Tensor) -> TensorDict:
    """Transitions as TorchRL has them, with the reward."""
    following = {
        "observation": transitions[keys.NEXT_OBSERVATION],
        "reward": reward[:, None],
        "terminated": transitions[keys.TERMINATED][:, None],
        "done": transitions[keys.TERMINATED][:, None],
    }
    names = keys.OBSERVATION, keys.ACTION
    return TensorDict({**{name: transitions[name] for name in names}, "next": following}, [BATCH])


class Perceptron(nn.Module):
    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*size) for size in pairwise(sizes))

    def forward(self, *inputs: Tensor) -> Tensor:
        hidden = torch.cat(inputs, -1)
        for layer in self.layers[:-1]:
            hidden = functional.relu(layer(hidden))
        return self.layers[-1](hidden)


def linear(network: MLP) -> list[Linear]:
    return [layer for layer in network.layers if isinstance(layer, Linear)]


def copy_of(network: MLP, *sizes: int) -> Perceptron:
    """The same perceptron of torch's own layers."""
    copied = Perceptron(*sizes)
    for mine, layer in zip(copied.layers, linear(network), strict=True):
        mine.weight.data.copy_(layer.weight.T)
        mine.bias.data.copy_(layer.bias)
    return copied


def parameter_of(parameters: Any, index: int, name: str) -> Tensor:
    """A weight or bias of the layer of such an index, wherever TorchRL has it."""
    flat = parameters.flatten_keys(".")
    (key,) = [key for key in flat.keys() if key.endswith(f"layers.{index}.{name}")]  # noqa: SIM118
    return flat[key]


def copy_values(network: MLP, parameters: Any) -> None:
    """Give TorchRL's parameters the values of a perceptron, or of an ensemble."""
    for index, layer in enumerate(linear(network)):
        bias = layer.bias.data if network.members is None else layer.bias.data.squeeze(1)
        parameter_of(parameters, index, "weight").data.copy_(layer.weight.data.mT)
        parameter_of(parameters, index, "bias").data.copy_(bias)


def same_gradients(network: MLP, parameters: Any) -> None:
    """Check that a perceptron, or an ensemble, has the gradients of TorchRL's parameters."""
    for index, layer in enumerate(linear(network)):
        bias = layer.bias.grad if network.members is None else layer.bias.grad.squeeze(1)
        expected = [parameter_of(parameters, index, name).grad for name in ("weight", "bias")]
        torch.testing.assert_close([layer.weight.grad.mT, bias], expected, **TOLERANCE)
