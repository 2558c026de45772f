"""Perceptrons, their gradient by hand, and the optimizer's step."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict

from rrd_lightning import ParameterError, RRDModule, keys
from rrd_lightning.kernels import library_here
from rrd_lightning.networks import MLP, Scratch, Tape
from rrd_lightning.optimizer import LeanAdam


def test_a_perceptron_by_hand() -> None:
    """relu(x W + b) V + c, for one and for two members."""
    network = MLP([2, 2, 1])
    network.vector.data = torch.tensor([1.0, -1.0, 2.0, 1.0, 0.5, -1.0, 3.0, 4.0, 0.25])
    assert network(torch.tensor([[1.0, 2.0]])).tolist() == [[5.5 * 3 + 0 * 4 + 0.25]]
    assert network(torch.tensor([[-1.0, 2.0]])).tolist() == [[3.5 * 3 + 2 * 4 + 0.25]]
    pair = MLP([2, 2, 1], members=2)
    for mine, own in zip(pair.layers(), network.layers(), strict=True):
        for value, given_value in zip(mine, own, strict=True):
            value.data[0], value.data[1] = given_value.data, -given_value.data
    # The second: relu(-5.5) and relu(0) times (-3, -4), less 0.25.
    assert pair(torch.tensor([[1.0, 2.0]])).tolist() == [[[16.75]], [[-0.25]]]


def test_layers_are_views_of_one_vector() -> None:
    network = MLP([3, 4, 2], members=2)
    assert [name for name, _ in network.named_parameters()] == ["vector"]
    assert network.vector.numel() == 2 * (3 * 4 + 4 + 4 * 2 + 2)
    network.layers()[1].bias.data.fill_(7.0)
    assert (network.vector == 7).sum() == 4
    with pytest.raises(ParameterError, match=r"hidden_sizes=\[0\]: every layer must have at least one unit"):
        MLP([3, 0, 2])


@given(
    members=st.sampled_from([None, 1, 2, 3]),
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    rows=st.integers(1, 7),
    seed=st.integers(0, 1000),
)
def test_a_tape_s_numbers_are_autograd_s(members: int | None, sizes: list[int], rows: int, seed: int) -> None:
    torch.manual_seed(seed)
    network = MLP(sizes, members).double()
    network.vector.data.add_(0.1 * torch.randn_like(network.vector))
    tape = Tape(network, Scratch())
    for _ in range(2):  # the second time in the tensors of the first
        inputs = torch.randn(rows, sizes[0], dtype=torch.float64, requires_grad=True)
        outputs = network(inputs)
        weights = torch.randn_like(outputs)
        (expected_inputs, expected) = torch.autograd.grad(outputs, (inputs, network.vector), weights)
        with torch.no_grad():
            found, seen = tape.record(inputs.detach())
            weights = weights.view(found.shape)
            torch.testing.assert_close(found, outputs.detach().view(found.shape))
            torch.testing.assert_close(tape.backward(seen, weights), expected)
            torch.testing.assert_close(tape.trace(seen, weights), expected_inputs)
            found = tape.trace(seen, 2 * weights, slice(1, None))
            torch.testing.assert_close(found, 2 * expected_inputs[:, 1:])


def test_a_tape_follows_its_network() -> None:
    """To new numbers, another precision, a copy, and other batches; two tapes keep what is theirs."""
    network, scratch = MLP([3, 5, 2]), Scratch()
    first, second = Tape(network, scratch), Tape(network, scratch)
    one, other = torch.randn(2, 4, 3)
    with torch.no_grad():
        _, seen = first.record(one)
        second.record(other)
        gradient = first.backward(seen, torch.ones(4, 2))
    (expected,) = torch.autograd.grad(network(one).sum(), network.vector)
    torch.testing.assert_close(gradient, expected)
    for moved in (copy.deepcopy(first), first):
        network = moved._network.double()
        network.vector.data.mul_(2)
        with torch.no_grad():
            inputs = torch.randn(6, 3).double()
            torch.testing.assert_close(moved.forward(inputs), network(inputs))


def test_a_tape_is_used_in_inference_mode_and_outside() -> None:
    """As by validation and training, with as many rows."""
    network, inputs = MLP([3, 5, 1]), torch.randn(4, 3)
    tape, expected = Tape(network, Scratch()), network(inputs).squeeze(-1).detach()
    for mode in (torch.no_grad, torch.inference_mode, torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(tape.forward(inputs), expected)


def test_an_update_stays_on_its_device() -> None:
    """On torch's device without numbers, where mixing devices and asking for a number are errors."""
    module = RRDModule(Box(-1, 1, (5,)), Box(-1, 1, (2,))).to("meta")
    step = {
        keys.OBSERVATION: torch.empty(8, 5),
        keys.NEXT_OBSERVATION: torch.empty(8, 5),
        keys.ACTION: torch.empty(8, 2),
    }
    facts = {
        keys.EPISODE_RETURN: torch.empty(2),
        keys.EPISODE_LENGTH: torch.empty(2, dtype=torch.int64),
        keys.WITH_REPLACEMENT: torch.empty(2, dtype=torch.bool),
    }
    subsequences = {key: value.unflatten(0, (2, 4)) for key, value in step.items()}
    batch = TensorDict(
        {
            keys.TRANSITIONS: TensorDict({**step, keys.TERMINATED: torch.empty(8, dtype=torch.bool)}, [8]),
            keys.SUBSEQUENCES: TensorDict({**subsequences, **facts}, [2]),
        },
        [],
    ).to("meta")
    metrics = module.learn(batch)()
    assert {value.device.type for value in metrics.values()} == {"meta"}
    assert all(each.grad.device.type == "meta" for each in module.parameters() if each.requires_grad)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "betas": (0.5, 0.9)}, {"amsgrad": True}])
def test_lean_adam_is_adam(options: dict) -> None:
    """To the last bit, also from a state in the middle, and with a parameter that has no gradient."""
    torch.manual_seed(0)
    first = [torch.nn.Parameter(torch.randn(20)) for _ in range(3)]
    second = [torch.nn.Parameter(each.detach().clone()) for each in first]
    optimizers = [
        kind([{"params": parameters[:2], "lr": 0.1, **options}, {"params": parameters[2:], "lr": 0.01}])
        for kind, parameters in ((LeanAdam, first), (partial(torch.optim.Adam, fused=True), second))
    ]
    for step in range(6):
        if step == 3:
            optimizers[0].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
        for mine, own in zip(first[step % 2 :], second[step % 2 :], strict=True):
            mine.grad = torch.randn(20)
            own.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        assert all(torch.equal(mine, own) for mine, own in zip(first, second, strict=True))


@pytest.mark.skipif(library_here() is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "betas": (0.5, 0.9), "eps": 1e-3}])
def test_lean_adam_in_one_call_is_adam(options: dict) -> None:
    """Of all groups at once, up to rounding; its state is torch's, which goes on with it."""
    torch.manual_seed(0)
    sizes = (20_001, 7, 1, 40)
    first = [torch.nn.Parameter(torch.randn(size)) for size in sizes]
    exact = [torch.nn.Parameter(each.detach().double()) for each in first]
    groups = [
        [{"params": each[:3], "lr": 1e-3, **options}, {"params": each[3:], "lr": 1e-2}]
        for each in (first, exact)
    ]
    lean, adam = LeanAdam(groups[0], library_here()), torch.optim.Adam(groups[1])
    for step in range(20):
        for mine, own in zip(first[step % 3 :], exact[step % 3 :], strict=True):
            mine.grad = torch.randn(mine.shape) * (0.01 if step % 2 else 10)
            own.grad = mine.grad.double()
        for optimizer in (lean, adam):
            optimizer.step()
            optimizer.zero_grad()
    state = LeanAdam(groups[0])  # by torch's operation
    state.load_state_dict(lean.state_dict())
    for mine, own in zip(first, exact, strict=True):
        torch.testing.assert_close(mine.double(), own, rtol=1e-5, atol=1e-6)
        for name, value in adam.state[own].items():
            torch.testing.assert_close(state.state[mine][name].to(value), value, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(library_here() is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("option", ["maximize", "amsgrad"])
def test_other_kinds_of_adam_are_torch_s(option: str) -> None:
    first = [torch.nn.Parameter(torch.ones(9))]
    second = [torch.nn.Parameter(torch.ones(9))]
    for parameters, optimizer in (
        (first, LeanAdam([{"params": first, option: True}], library_here())),
        (second, torch.optim.Adam([{"params": second, option: True}], fused=True)),
    ):
        for step in range(3):
            parameters[0].grad = torch.arange(9.0) - 4 + step
            optimizer.step()
    assert torch.equal(first[0], second[0])
