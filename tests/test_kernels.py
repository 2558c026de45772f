"""Perceptrons and the squashed policy in C++: torch's numbers up to rounding, by any number of threads."""

from __future__ import annotations

import copy
import os
import pickle
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningModule

from rrd_lightning import Environment, ParameterError, RRDModule
from rrd_lightning.agents.squashed import LOG_STD_RANGE, SquashedDraw
from rrd_lightning.decomposition import RRD
from rrd_lightning.networks import (
    MLP,
    Kernels,
    Scratch,
    Tape,
    compiled_kernels,
)
from tests.runs import SMALL, make_module, run

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler"
)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The error of all numbers together, relative to them, or to one where they are smaller."""
    return float((found.double() - exact.view(found.shape)).norm() / exact.norm().clamp_min(1))


def everything(tape: Tape, inputs: torch.Tensor, weights: torch.Tensor, columns: slice) -> list[torch.Tensor]:
    """All that a tape works out."""
    with torch.no_grad():
        outputs, seen = tape.record(inputs)
        again = tape.forward(inputs)
        traced = tape.trace(seen, weights.view(outputs.shape), columns)
        gradient = tape.backward(seen, weights.view(outputs.shape)).clone()
    return [outputs, again, traced, gradient]


@needs_compiler
def test_a_perceptron_by_hand() -> None:
    """relu(x W + b) V + c as in test_networks.py, and its gradient where the second unit is held back."""
    network = MLP([2, 2, 1])
    network.vector.data = torch.tensor([1.0, -1.0, 2.0, 1.0, 0.5, -1.0, 3.0, 4.0, 0.25])
    network.kernels = compiled_kernels()
    outputs, again, traced, gradient = everything(
        Tape(network, Scratch()), torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0]]), slice(None)
    )
    assert outputs.tolist() == again.tolist() == [5.5 * 3 + 0 * 4 + 0.25]
    assert traced.tolist() == [[2 * 3 * 1.0, 2 * 3 * 2.0]]
    assert gradient.tolist() == [2 * 3 * 1.0, 0, 2 * 3 * 2.0, 0, 2 * 3, 0, 2 * 5.5, 0, 2]


@needs_compiler
@settings(deadline=None)
@given(
    members=st.sampled_from([None, 1, 2, 3]),
    sizes=st.lists(st.integers(1, 70), min_size=2, max_size=5),
    rows=st.integers(1, 100),
    one_output=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_numbers_are_torch_s(
    members: int | None, sizes: list[int], rows: int, one_output: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    network = MLP([*sizes[:-1], 1] if one_output else sizes, members)
    network.vector.data.add_(0.1 * torch.randn_like(network.vector))
    exact = Tape(copy.deepcopy(network).double(), Scratch())
    network.kernels = compiled_kernels()
    tape = Tape(network, Scratch())
    columns = slice(seed % sizes[0], None)
    for _ in range(2):  # the second time in the tensors of the first
        inputs = torch.randn(rows, sizes[0])
        weights = torch.randn(network.members or 1, rows, network.sizes[-1])
        weights *= torch.rand(network.members or 1, rows, 1) < 0.5  # as of the lower critic alone
        expected = everything(exact, inputs.double(), weights.double(), columns)
        found = everything(tape, inputs, weights, columns)
        # A unit that is nearly at zero may be on the other side of it.
        assert all(error(*pair) < 1e-5 for pair in zip(found, expected, strict=True))


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the options are of x86 processors")
@pytest.mark.parametrize("without", ["-mno-avx512f", "-mno-avx"])
def test_processors_with_shorter_registers(without: str) -> None:
    network = MLP([17, 50, 64, 12], members=2)
    exact = Tape(copy.deepcopy(network).double(), Scratch())
    network.kernels = compiled_kernels(without)
    inputs, weights = torch.randn(45, 17), torch.randn(2, 45, 12)
    found = everything(Tape(network, Scratch()), inputs, weights, slice(2, 8))
    expected = everything(exact, inputs.double(), weights.double(), slice(2, 8))
    assert all(error(*pair) < 1e-5 for pair in zip(found, expected, strict=True))


@needs_compiler
@pytest.mark.parametrize(("sizes", "members"), [((17, 256, 256, 12), None), ((23, 256, 256, 1), 2)])
def test_any_number_of_threads_gives_the_same_bits(sizes: tuple[int, ...], members: int | None) -> None:
    network = MLP(sizes, members)
    network.kernels = compiled_kernels()
    inputs, weights = torch.randn(256, sizes[0]), torch.randn(members or 1, 256, sizes[-1])
    found = []
    for count in (1, 2, 3):
        with threads(count):
            found.append(everything(Tape(network, Scratch()), inputs, weights, slice(2, 8)))
    for several in zip(*found, strict=True):
        assert all(torch.equal(several[0], other) for other in several[1:])


@needs_compiler
def test_nothing_is_written_beside_the_results() -> None:
    """Each result stands between numbers that must stay."""
    network, rows, kernels = MLP([5, 19, 33, 3], members=2), 37, compiled_kernels()
    whole: list[torch.Tensor] = []

    def between(*shape: int) -> torch.Tensor:
        whole.append(torch.full((torch.Size(shape).numel() + 128,), 7.0))
        return whole[-1][64:-64].view(shape)

    hidden, outputs = [between(2, rows, 19), between(2, rows, 33)], between(2, rows, 3)
    vector, room, traced = between(len(network.vector)), between(len(network.vector)), between(rows, 2)
    inputs = torch.randn(rows, 5)
    kernels.forward(network, inputs, [*hidden, outputs])
    kernels.trace(network, hidden, outputs, 3, traced, room)
    kernels.backward(network, inputs, hidden, outputs, vector, room)
    action, spread, log_prob = between(rows, 3), between(rows, 3), between(rows)
    kernels.draw(torch.randn(rows, 6), torch.randn(rows, 3), LOG_STD_RANGE, (action, spread, log_prob))
    gradient = between(rows, 6)
    given_gradients = torch.randn(rows, 3), torch.tensor(0.1)
    kernels.draw_gradient(torch.randn(rows, 6), (action, spread), LOG_STD_RANGE, given_gradients, gradient)
    assert len(whole) == 10
    for each in whole:
        assert (each[:64] == 7).all()
        assert (each[-64:] == 7).all()
    assert all(
        (each != 7).all() for each in (*hidden, outputs, vector, traced, action, spread, log_prob, gradient)
    )


@needs_compiler
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(value: float) -> None:
    network = MLP([3, 40, 2])
    network.kernels = compiled_kernels()
    inputs = torch.randn(50, 3)
    inputs[20, 1] = value
    with torch.no_grad():
        finite = Tape(network, Scratch()).forward(inputs).isfinite()
    assert not finite[20].any()
    assert finite.sum() == 2 * 49


@needs_compiler
def test_other_numbers_than_float32_are_torch_s_task() -> None:
    network = MLP([3, 4, 1]).double()
    network.kernels = compiled_kernels()
    tape, inputs = Tape(network, Scratch()), torch.randn(5, 3).double()
    assert tape.kernels() is None
    torch.testing.assert_close(tape.forward(inputs), network(inputs).squeeze(-1))
    network.float()
    assert tape.kernels() is compiled_kernels()
    assert tape.forward(inputs.float()).dtype == torch.float32


@needs_compiler
def test_inputs_that_the_functions_cannot_read_are_torch_s_task() -> None:
    """It reads those with gaps, and refuses other numbers and widths."""
    network = MLP([3, 40, 2])
    network.kernels = compiled_kernels()
    tape, inputs = Tape(network, Scratch()), torch.randn(3, 50).T
    with torch.no_grad():
        for evaluate in (tape.forward, lambda given: tape.record(given)[0]):
            torch.testing.assert_close(evaluate(inputs), network(inputs))
            for wrong in (
                inputs.double(),
                inputs.half(),
                inputs.bfloat16(),
                torch.randn(50, 4),
                torch.randn(3),
            ):
                with pytest.raises(RuntimeError):
                    evaluate(wrong)
        outputs, noise = torch.randn(8, 50).T, torch.randn(4, 50).T
        found, expected = SquashedDraw(outputs, noise, compiled_kernels()), SquashedDraw(outputs, noise)
        torch.testing.assert_close(found.action, expected.action)
        weight = torch.randn(4, 50).T
        torch.testing.assert_close(
            found.gradient(weight, torch.tensor(0.3)), expected.gradient(weight, torch.tensor(0.3))
        )


@needs_compiler
@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_the_policy_s_draw_and_gradient_are_torch_s(seed: int) -> None:
    """At log σ within its bounds, at them and beyond, and where tanh(u) rounds to 1."""
    torch.manual_seed(seed)
    outputs = torch.randn(40, 8)
    outputs[:6] *= 20
    outputs[0, 4:] = torch.tensor([-20.0, 2.0, -21.0, 3.0])
    noise, weight = torch.randn(2, 40, 4)
    found = SquashedDraw(outputs, noise, compiled_kernels())
    exact = SquashedDraw(outputs.double(), noise.double())
    torch.testing.assert_close(found.action.double(), exact.action, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.log_prob.double(), exact.log_prob, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        found.gradient(weight, torch.tensor(0.3)).double(),
        exact.gradient(weight.double(), torch.tensor(0.3).double()),
        rtol=1e-4,
        atol=1e-5,
    )


@needs_compiler
def test_copies_have_the_functions_too() -> None:
    network = MLP([3, 4, 1])
    network.kernels = compiled_kernels()
    for each in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert isinstance(each.kernels, Kernels)
        inputs = torch.randn(2, 3)
        with torch.no_grad():
            torch.testing.assert_close(Tape(each, Scratch()).forward(inputs), network(inputs).squeeze(-1))


@needs_compiler
def test_a_copy_without_a_compiler_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    network = MLP([3, 4, 1])
    network.kernels = compiled_kernels()
    written = pickle.dumps(network)
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiled_kernels.cache_clear()
    assert pickle.loads(written).kernels is None


def metrics_of(**module: object) -> tuple[RRDModule, dict[str, torch.Tensor]]:
    """Twelve updates of every part, the last of which is logged."""
    corrected = partial(RRD, bias_correction=True, **SMALL)
    trainer, trained, _ = run(
        collect={"total_env_steps": 160},
        module={"decomposition": corrected, **module},
        log_every_n_steps=4,
    )
    assert trainer.global_step == 12
    return trained, trainer.callback_metrics


def networks_of(module: RRDModule) -> list[MLP]:
    return [each for each in module.modules() if isinstance(each, MLP)]


@needs_compiler
def test_with_the_functions_or_without_a_run_is_the_same() -> None:
    plain, expected = metrics_of(compile_update=False)
    assert [each.kernels for each in networks_of(plain)] == [None] * 4
    trained, metrics = metrics_of()  # by default
    assert all(each.kernels is compiled_kernels() for each in networks_of(trained))
    torch.testing.assert_close(trained.state_dict(), plain.state_dict(), rtol=1e-3, atol=1e-5)
    same = {name for name in expected if name.startswith(("loss/", "agent/", "reward/"))}
    assert len(same) == 10
    for name in same:
        torch.testing.assert_close(metrics[name], expected[name], rtol=1e-3, atol=1e-5)


def set_up(compile_update: bool | None) -> RRDModule:
    module: LightningModule = make_module(Environment("Follow-v0"), compile_update=compile_update)
    strategy = SimpleNamespace(root_device=torch.device("cpu"), checkpoint_io=None)
    module.trainer = SimpleNamespace(precision="32-true", strategy=strategy)
    module.setup("fit")
    return module


@pytest.mark.parametrize(
    ("compiler", "problem"),
    [
        (
            "no-such-compiler",
            "needs a C\\+\\+ compiler, and no-such-compiler is not there: install it, or set CXX",
        ),
        ("false", "false cannot compile .*kernels.cpp"),
        ("true", "what true compiled cannot be loaded: .*kernels.so"),
    ],
)
def test_without_a_compiler(
    compiler: str, problem: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was asked for is an error before anything begins; by default it is said, and torch does the work."""
    monkeypatch.setenv("CXX", compiler)
    compiled_kernels.cache_clear()
    with pytest.raises(ParameterError, match=rf"^model.compile_update=True: {problem}"):
        set_up(compile_update=True)
    with caplog.at_level("INFO"):
        assert [each.kernels for each in networks_of(set_up(compile_update=None))] == [None] * 4
    assert "Updates are slower than they could be" in caplog.text
    compiled_kernels.cache_clear()
