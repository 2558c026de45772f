"""Networks and updates in C++: torch's numbers up to rounding, by any number of threads."""

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
from typing import Any

import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningModule
from tensordict import TensorDict

from rrd_lightning import Environment, ParameterError, RRDModule, keys
from rrd_lightning.agents import SAC, sac_kernels
from rrd_lightning.agents.squashed import LOG_STD_RANGE
from rrd_lightning.decomposition import RRD
from rrd_lightning.kernels import compiled_library, library_here
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


@pytest.fixture
def forgetful() -> Iterator[None]:
    """What is compiled, or cannot be, is found out again, in the test and after it."""

    def forget() -> None:
        for each in (compiled_library, library_here, compiled_kernels):
            each.cache_clear()

    forget()
    yield
    forget()


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


def between(whole: list[torch.Tensor], *shape: int) -> torch.Tensor:
    """A result that stands between numbers that must stay."""
    whole.append(torch.full((torch.Size(shape).numel() + 128,), 7.0))
    return whole[-1][64:-64].view(shape)


def check_beside(whole: list[torch.Tensor], count: int) -> None:
    assert len(whole) == count
    for each in whole:
        assert (each[:64] == 7).all()
        assert (each[-64:] == 7).all()
        assert (each[64:-64] != 7).all()


@needs_compiler
def test_nothing_is_written_beside_the_results() -> None:
    network, rows, kernels = MLP([5, 19, 33, 3], members=2), 37, compiled_kernels()
    whole: list[torch.Tensor] = []
    new = partial(between, whole)
    hidden, outputs = [new(2, rows, 19), new(2, rows, 33)], new(2, rows, 3)
    vector, traced = new(len(network.vector)), new(rows, 2)
    inputs = torch.randn(rows, 5)
    kernels.forward(network, inputs, [*hidden, outputs])
    kernels.trace(network, hidden, outputs, 3, traced)
    kernels.backward(network, inputs, hidden, outputs, vector)
    sac_kernels.act(kernels, MLP([5, 19, 6]), LOG_STD_RANGE, inputs, torch.randn(rows, 3), new(rows, 3))
    check_beside(whole, 6)


@needs_compiler
def test_an_update_writes_nothing_beside_its_results() -> None:
    whole: list[torch.Tensor] = []

    class Between(Scratch):
        def take(self, name: object, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
            return between(whole, *shape)

    module, batch = make_update([19, 33], observations=5, actions=3, rows=37, subsequences=(3, 13))
    module.use(compiled_kernels())
    module.agent._found = module.decomposition._found = Between()
    module.learn(batch)
    check_beside(whole, 2 + 8)


def make_update(
    hidden_sizes: list[int],
    observations: int,
    actions: int,
    rows: int,
    subsequences: tuple[int, int],
    **options: object,
) -> tuple[RRDModule, TensorDict]:
    """A module and a paired batch with all kinds of rows, log σ at its bounds and beyond, α other than 1."""
    module = RRDModule(
        Box(-torch.inf, torch.inf, (observations,)),
        Box(-1, 1, (actions,)),
        partial(SAC, hidden_sizes=hidden_sizes, initial_temperature=0.3),
        partial(RRD, hidden_sizes=hidden_sizes, **options),
    )
    for network in networks_of(module):
        network.vector.data.add_(0.1 * torch.randn_like(network.vector))
    if rows > 3:
        last = module.agent.actor.layers()[-1].bias
        last.data[..., actions] = 2.5
        last.data[..., -1] = -25.0

    def part(*shape: int) -> dict[str, torch.Tensor]:
        names = keys.OBSERVATION, keys.NEXT_OBSERVATION
        return {
            **{name: torch.randn(*shape, observations) for name in names},
            keys.ACTION: torch.rand(*shape, actions) * 2 - 1,
        }

    count = subsequences[0]
    transitions = {**part(rows), keys.TERMINATED: torch.rand(rows) < 0.3}
    facts = {
        keys.EPISODE_RETURN: 10 * torch.randn(count),
        keys.EPISODE_LENGTH: torch.randint(1, 20, (count,)),
        keys.WITH_REPLACEMENT: torch.rand(count) < 0.5,
    }
    batch = {
        keys.TRANSITIONS: TensorDict(transitions, [rows]),
        keys.SUBSEQUENCES: TensorDict({**part(*subsequences), **facts}, [count]),
    }
    return module, TensorDict(batch, [])


def learned(module: RRDModule, batch: TensorDict, seed: int) -> dict[str, torch.Tensor]:
    """All gradients and metrics of an update; noise is drawn in single precision, and so is the same."""
    torch.manual_seed(seed)
    drawn = torch.randn_like

    def like(tensor: torch.Tensor) -> torch.Tensor:
        return drawn(tensor.float()).to(tensor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", like)
        metrics = module.learn(batch)()
    gradients = {name: each.grad for name, each in module.named_parameters() if each.grad is not None}
    return {**metrics, **gradients}


def in_double(batch: TensorDict) -> TensorDict:
    return batch.apply(lambda each: each.double() if each.is_floating_point() else each)


@needs_compiler
@settings(deadline=None, max_examples=50)
@given(
    hidden_sizes=st.lists(st.integers(1, 70), min_size=0, max_size=3),
    observations=st.integers(1, 40),
    actions=st.integers(1, 9),
    rows=st.integers(1, 100),
    subsequences=st.tuples(st.integers(1, 6), st.integers(2, 40)),
    bias_correction=st.booleans(),
    scale=st.sampled_from(["per_step", "episode"]),
    seed=st.integers(0, 1000),
)
def test_an_update_is_that_of_torch(seed: int, **sizes: object) -> None:
    torch.manual_seed(seed)
    module, batch = make_update(**sizes)
    exact = copy.deepcopy(module).double()
    module.use(compiled_kernels())
    expected = learned(exact, in_double(batch), seed)
    with pytest.MonkeyPatch.context() as patch:
        # What torch would do instead is not there.
        patch.delattr(SAC, "_update")
        patch.delattr(RRD, "_update")
        found = learned(module, batch, seed)
    assert len(found) == len(expected) == 10 + 4
    for name, each in expected.items():
        # Units and critics that are nearly equal may change their order in single precision.
        assert error(found[name], each) < 1e-3, name
    assert sum(error(found[name], each) < 2e-5 for name, each in expected.items()) >= 12


@needs_compiler
def test_any_number_of_threads_makes_the_same_update() -> None:
    module, batch = make_update([256, 256], observations=17, actions=6, rows=256, subsequences=(4, 64))
    module.use(compiled_kernels())
    states = []
    for count in (1, 2, 3):
        trained = copy.deepcopy(module)
        optimizer = trained.configure_optimizers()
        with threads(count):
            for seed in range(3):
                metrics = learned(trained, batch, seed)
                optimizer.step()
        states.append({**metrics, **trained.state_dict()})
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
        assert torch.equal(value, states[2][name]), name


@needs_compiler
def test_what_is_not_a_number_reaches_all_gradients() -> None:
    """It is never hidden by the comparison of two critics: a run that diverges shows it."""
    for network in ("critic", "target_critic"):
        for member in (0, 1):
            module, batch = make_update([8], observations=3, actions=2, rows=40, subsequences=(2, 20))
            module.use(compiled_kernels())
            getattr(module.agent, network).layers()[-1].bias.data[member] = torch.nan
            metrics = learned(module, batch, 0)
            assert metrics["loss/critic"].isnan()
            assert metrics["loss/actor"].isnan() == (network == "critic")


@needs_compiler
@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        (keys.OBSERVATION, lambda each: each.double()),
        (keys.NEXT_OBSERVATION, lambda each: each[..., :-1]),
        (keys.ACTION, lambda each: each[..., :-1]),
    ],
)
@pytest.mark.parametrize("half", [keys.TRANSITIONS, keys.SUBSEQUENCES])
def test_a_batch_that_the_functions_cannot_read_is_refused_by_torch(key: str, wrong: Any, half: str) -> None:
    module, batch = make_update([8], observations=3, actions=2, rows=40, subsequences=(2, 20))
    module.use(compiled_kernels())
    batch[half][key] = wrong(batch[half][key])
    with pytest.raises(RuntimeError):
        module.learn(batch)


@needs_compiler
def test_a_batch_with_gaps_is_read() -> None:
    module, batch = make_update([8], observations=3, actions=2, rows=40, subsequences=(2, 20))
    module.use(compiled_kernels())
    expected = copy.deepcopy(learned(module, batch, 0))
    gaps = batch.apply(lambda each: torch.stack([each, each], -1)[..., 0])
    assert not gaps[keys.TRANSITIONS, keys.OBSERVATION].is_contiguous()
    for name, each in learned(module, gaps, 0).items():
        assert torch.equal(each, expected[name]), name


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


@needs_compiler
@settings(deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_the_policy_acts_as_torch_s(seed: int, explore: bool) -> None:
    """At log σ within its bounds, at them and beyond, and where tanh(u) rounds to 1."""
    torch.manual_seed(seed)
    module, _ = make_update([9], observations=3, actions=2, rows=40, subsequences=(2, 20))
    plain, fast = module.agent, copy.deepcopy(module.agent)
    fast.actor.kernels = compiled_kernels()
    observation = torch.randn(4, 10, 3) * torch.tensor([1.0, 30.0]).repeat(5)[:, None]
    actions = []
    for agent in (plain, fast):
        torch.manual_seed(seed)
        actions.append(agent.act(observation, explore=explore))
    torch.testing.assert_close(*actions, rtol=1e-5, atol=1e-5)
    assert actions[0].shape == (4, 10, 2)


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
def test_a_copy_without_a_compiler_goes_without(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    network = MLP([3, 4, 1])
    network.kernels = compiled_kernels()
    written = pickle.dumps(network)
    monkeypatch.setenv("CXX", "no-such-compiler")
    request.getfixturevalue("forgetful")
    assert pickle.loads(written).kernels is None


def metrics_of(env_id: str = "Follow-v0", **module: object) -> tuple[RRDModule, dict[str, torch.Tensor]]:
    """Twelve updates of every part, the last of which is logged."""
    corrected = partial(RRD, bias_correction=True, **SMALL)
    trainer, trained, _ = run(
        env_id,
        collect={"total_env_steps": 160},
        module={"decomposition": corrected, **module},
        log_every_n_steps=4,
    )
    assert trainer.global_step == 12
    return trained, trainer.callback_metrics


def networks_of(module: RRDModule) -> list[MLP]:
    return [each for each in module.modules() if isinstance(each, MLP)]


@needs_compiler
@pytest.mark.parametrize("env_id", ["Follow-v0", "Pixels-v0"])
def test_with_the_functions_or_without_a_run_is_the_same(env_id: str) -> None:
    plain, expected = metrics_of(env_id, compile_update=False)
    assert [each.kernels for each in networks_of(plain)] == [None] * 4
    trained, metrics = metrics_of(env_id)  # by default
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


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize(
    ("compiler", "problem"),
    [
        (
            "no-such-compiler",
            "needs a C\\+\\+ compiler, and no-such-compiler is not there: install it, or set CXX",
        ),
        ("false", "false cannot compile .*kernels.cpp"),
        ("true", "what true compiled cannot be made or loaded: .*kernels.so"),
    ],
)
def test_without_a_compiler(
    compiler: str, problem: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was asked for is an error before anything begins; by default it is said, and torch does the work."""
    monkeypatch.setenv("CXX", compiler)
    with pytest.raises(ParameterError, match=rf"^model.compile_update=True: {problem}"):
        set_up(compile_update=True)
    with caplog.at_level("INFO"):
        assert [each.kernels for each in networks_of(set_up(compile_update=None))] == [None] * 4
    assert "Updates are slower than they could be" in caplog.text
