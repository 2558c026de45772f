"""Multilayer perceptrons, alone or as an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from rrd_lightning.errors import ParameterError
from rrd_lightning.networks.linear import LayerNorm, Linear

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class MLP(nn.Module):
    """A perceptron: affine layers with an activation between them, or an ensemble of independent ones.

    A hidden layer is `Linear`, then dropout and layer normalisation where they are asked for, as in DroQ
    (Hiraoka et al., 2022, arXiv 2110.02034), then the activation.

    Args:
        inputs: width of the input.
        outputs: width of the output.
        hidden_sizes: widths of the hidden layers.
        activation: one of ``relu``, ``elu``, ``gelu``, ``leaky_relu``, ``silu`` and ``tanh``.
        layer_norm: normalise the hidden layers.
        dropout: probability with which a hidden unit is dropped in training.
        members: size of the ensemble, whose layers are batched products; none by default.

    Attributes:
        layers: the layers, in order.

    Raises:
        ParameterError: if a layer has no unit, the activation is unknown, or the dropout is no probability.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: str = "relu",
        layer_norm: bool = False,
        dropout: float = 0.0,
        members: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(hidden_sizes, int):
            raise ParameterError("hidden_sizes", hidden_sizes, "must be a list, such as [256, 256]")
        if min(hidden_sizes, default=1) < 1:
            raise ParameterError("hidden_sizes", list(hidden_sizes), "every layer must have at least one unit")
        if activation not in ACTIVATIONS:
            raise ParameterError("activation", activation, f"must be one of {', '.join(ACTIVATIONS)}")
        if not 0 <= dropout < 1:
            raise ParameterError("dropout", dropout, "must be at least 0 and less than 1")
        self.members = members
        widths = [inputs, *hidden_sizes]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers.append(Linear(before, after, members))
            if dropout:
                layers.append(nn.Dropout(dropout))
            if layer_norm:
                layers.append(LayerNorm(after, members))
            layers.append(nn.ReLU(inplace=True) if activation == "relu" else ACTIVATIONS[activation]())
        self.layers = nn.Sequential(*layers, Linear(widths[-1], outputs, members))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[..., inputs]`` to ``[..., outputs]``; an ensemble maps it to ``[members, ..., outputs]``."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        if self.members is None:
            outputs: Tensor = self.layers(rows)
            return outputs.reshape(*inputs.shape[:-1], -1)
        outputs = self.layers(rows.expand(self.members, *rows.shape))
        return outputs.reshape(self.members, *inputs.shape[:-1], -1)
