"""Perceptrons, alone and as ensembles, by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rrd_lightning import ParameterError
from rrd_lightning.networks import MLP, Ensemble, LayerNorm, Linear, frozen, make_ensemble, make_network


def test_a_perceptron_by_hand() -> None:
    """relu(x W + b) V + c, for one and for two members."""
    network, pair = MLP(2, 1, hidden_sizes=[2]), MLP(2, 1, hidden_sizes=[2], members=2)
    numbers = ([[1.0, -1.0], [2.0, 1.0]], [0.5, -1.0], [[3.0], [4.0]], [0.25])
    with torch.no_grad():
        for given_value, mine, both in zip(numbers, network.parameters(), pair.parameters(), strict=True):
            mine.copy_(torch.tensor(given_value))
            both[0], both[1] = mine, -mine
    assert network(torch.tensor([[1.0, 2.0]])).tolist() == [[5.5 * 3 + 0 * 4 + 0.25]]
    assert network(torch.tensor([[-1.0, 2.0]])).tolist() == [[3.5 * 3 + 2 * 4 + 0.25]]
    # The second: relu(-5.5) and relu(0) times (-3, -4), less 0.25.
    assert pair(torch.tensor([[1.0, 2.0]])).tolist() == [[[16.75]], [[-0.25]]]


def test_parameters_have_the_names_of_layers() -> None:
    network = MLP(3, 2, hidden_sizes=[4, 5], layer_norm=True, dropout=0.1, members=6)
    shapes = {name: tuple(each.shape) for name, each in network.named_parameters()}
    assert shapes == {
        "layers.0.weight": (6, 3, 4),
        "layers.0.bias": (6, 1, 4),
        "layers.2.weight": (6, 1, 4),
        "layers.2.bias": (6, 1, 4),
        "layers.4.weight": (6, 4, 5),
        "layers.4.bias": (6, 1, 5),
        "layers.6.weight": (6, 1, 5),
        "layers.6.bias": (6, 1, 5),
        "layers.8.weight": (6, 5, 2),
        "layers.8.bias": (6, 1, 2),
    }
    kinds = [type(layer) for layer in network.layers]
    assert kinds == [Linear, nn.Dropout, LayerNorm, nn.ReLU] * 2 + [Linear]


@given(
    members=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 6), max_size=3),
    layer_norm=st.booleans(),
    activation=st.sampled_from(["relu", "tanh", "silu"]),
    batch=st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
def test_an_ensemble_is_its_members(
    members: int, sizes: list[int], layer_norm: bool, activation: str, batch: list[int]
) -> None:
    options = {"hidden_sizes": sizes, "layer_norm": layer_norm, "activation": activation}
    ensemble = MLP(3, 2, **options, members=members)
    inputs = torch.randn(*batch, 3)
    outputs = ensemble(inputs)
    assert outputs.shape == (members, *batch, 2)
    for number in range(members):
        one = MLP(3, 2, **options)
        for mine, all_of_them in zip(one.parameters(), ensemble.parameters(), strict=True):
            mine.data.copy_(all_of_them[number].reshape(mine.shape))
        torch.testing.assert_close(one(inputs), outputs[number])


def test_layers_are_those_of_torch() -> None:
    inputs = 3 * torch.randn(7, 4) + 1
    torch.testing.assert_close(LayerNorm(4)(inputs), nn.LayerNorm(4)(inputs))
    linear, reference = Linear(4, 5), nn.Linear(4, 5)
    reference.weight.data.copy_(linear.weight.T)
    reference.bias.data.copy_(linear.bias)
    torch.testing.assert_close(linear(inputs), reference(inputs))


def test_dropout_is_of_training_alone_and_independent_for_members() -> None:
    network = MLP(3, 1, hidden_sizes=[64], dropout=0.5, members=2)
    inputs = torch.randn(5, 3)
    for parameter in network.parameters():
        parameter.data[1] = parameter.data[0]
    assert torch.equal(*network.eval()(inputs))
    assert not torch.equal(*network.train()(inputs))


def test_a_frozen_network_passes_gradients_on() -> None:
    network, inputs = MLP(3, 1, hidden_sizes=[8], members=2), torch.randn(5, 3, requires_grad=True)
    with frozen(network):
        outputs = network(inputs)
    assert all(parameter.requires_grad for parameter in network.parameters())
    outputs.sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    fixed = copy.deepcopy(network).requires_grad_(False)
    with frozen(fixed):
        pass
    assert not any(parameter.requires_grad for parameter in fixed.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_sizes": [3, 0]}, r"hidden_sizes=\[3, 0\]: every layer must have at least one unit"),
        ({"activation": "swish"}, "activation='swish': must be one of relu, elu"),
        ({"dropout": -0.1}, "dropout=-0.1: must be at least 0 and less than 1"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        MLP(3, 2, **options)


class Wide(nn.Module):
    """A user's network, with an argument of its own."""

    def __init__(self, inputs: int, outputs: int, width: int = 9) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs)


class Flat(Wide):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs).squeeze(-1)


def test_a_user_s_network_by_class_path() -> None:
    path = f"{__name__}.Wide"
    for config, width in (
        (path, 9),
        (Wide, 9),
        ({"class_path": path}, 9),
        ({"class_path": path, "init_args": {"width": 4}}, 4),
    ):
        network = make_network(config, 3, 2, "actor")
        assert isinstance(network, Wide)
        assert network.layers[0].out_features == width
    ensemble = make_ensemble(path, 3, 4, 1, "critic")
    assert isinstance(ensemble, Ensemble)
    assert ensemble(torch.randn(5, 4)).shape == (3, 5, 1)
    weights = [member.layers[0].weight for member in ensemble.members]
    assert not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("nowhere.Wide", "critic='nowhere.Wide': must name a subclass of Module"),
        ("os.system", "critic='os.system': must name a subclass of Module"),
        ({"init_args": {}}, "critic=.*must be the class path of a torch.nn.Module, or have"),
        (
            {"class_path": f"{__name__}.Wide", "init_args": {"depth": 2}},
            "critic=.*cannot be made: .*unexpected keyword argument 'depth'",
        ),
        (f"{__name__}.Flat", r"critic=.*must map \[2, 3\] to \[2, 1\], and maps it to \[2\]"),
        ("torch.nn.Bilinear", "critic='torch.nn.Bilinear': cannot be made"),
    ],
)
def test_a_module_that_is_no_such_network(config: object, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make_ensemble(config, 2, 3, 1, "critic")  # type: ignore[arg-type]
