"""The twin in C++: torch's numbers up to rounding, over random sizes, by any number of threads."""

from __future__ import annotations

import copy
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_void_p
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from rrd_lightning import Environment, ParameterError, keys
from rrd_lightning.engines import CppTwin, Eager, Setting, choose_engine
from rrd_lightning.engines.cpp.adam import AdamTwin
from rrd_lightning.engines.cpp.perceptron import Perceptron
from rrd_lightning.kernels import compiled_library, library_here
from rrd_lightning.networks import MLP
from tests.runs import make_module, run
from tests.updates import learned, make_engine, make_update

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler"
)


@pytest.fixture
def forgetful() -> Iterator[None]:
    """What is compiled, or cannot be, is found out again, in the test and after it."""

    def forget() -> None:
        for each in (compiled_library, library_here):
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


def in_double(batch: TensorDict) -> TensorDict:
    return batch.apply(lambda each: each.double() if each.is_floating_point() else each)


def exactly(module: Any, batch: TensorDict, seed: int) -> dict[str, torch.Tensor]:
    """An eager update in double precision, of the noise that single precision draws."""
    drawn = torch.randn_like
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda tensor: drawn(tensor.float()).to(tensor))
        return learned(make_engine(copy.deepcopy(module).double()), in_double(batch), seed)


def twin(module: Any) -> Any:
    engine: Any = make_engine(module, CppTwin)
    engine._compared = True  # with the eager engine, of which the tests make more
    return engine


@needs_compiler
@settings(deadline=None, max_examples=50)
@given(
    hidden_sizes=st.lists(st.integers(1, 70), min_size=0, max_size=3),
    observations=st.integers(1, 40),
    actions=st.integers(1, 9),
    rows=st.integers(2, 100),
    subsequences=st.tuples(st.integers(1, 6), st.integers(2, 40)),
    bias_correction=st.booleans(),
    scale=st.sampled_from(["per_step", "episode"]),
    seed=st.integers(0, 1000),
)
def test_an_update_is_the_eager_one(seed: int, **sizes: Any) -> None:
    torch.manual_seed(seed)
    module, batch = make_update(**sizes)
    expected = exactly(module, batch, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(Eager, "gradients")  # what it would do instead is not there
        found = learned(twin(module), batch, seed)
    assert found.keys() == expected.keys()
    for name, each in expected.items():
        # Units and critics that are nearly equal may change their order in single precision.
        assert error(found[name], each) < 1e-3, name
    assert sum(error(found[name], each) > 2e-5 for name, each in expected.items()) <= 4


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the options are of x86 processors")
@pytest.mark.parametrize("without", ["-mno-avx512f", "-mno-avx"])
def test_processors_with_shorter_registers(without: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch = make_update([50, 64], observations=17, actions=6, rows=45)
    monkeypatch.setattr("rrd_lightning.engines.cpp.engine.compiled_library", lambda: compiled_library(without))
    found, expected = learned(twin(module), batch), exactly(module, batch, 0)
    assert all(error(found[name], each) < 2e-5 for name, each in expected.items())


@needs_compiler
def test_any_number_of_threads_makes_the_same_updates() -> None:
    module, batch = make_update([256, 256], observations=17, actions=6, rows=256, subsequences=(4, 64))
    states = []
    for count in (1, 2, 3):
        engine = twin(copy.deepcopy(module))
        torch.manual_seed(0)
        with threads(count):
            for update in range(3):
                metrics = engine.update(batch, update)
        states.append({**metrics, **engine.module.state_dict()})
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
        assert torch.equal(value, states[2][name]), name


@needs_compiler
def test_nothing_is_written_beside_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients, metrics, rewards and actions stand between numbers that must stay."""
    whole: list[torch.Tensor] = []

    def between(*shape: Any, **_: Any) -> torch.Tensor:
        shape = tuple(shape[0]) if shape and isinstance(shape[0], tuple | torch.Size) else shape
        whole.append(torch.full((torch.Size(shape).numel() + 128,), 7.0))
        return whole[-1][64:-64].view(shape)

    module, batch = make_update([19, 33], rows=37, subsequences=(3, 13))
    monkeypatch.setattr(torch, "empty", between)
    monkeypatch.setattr(torch, "empty_like", lambda like: between(*like.shape))
    engine = twin(module)
    engine.gradients(batch, 0)
    engine.act(batch[keys.TRANSITIONS, keys.OBSERVATION], explore=True, env_steps=0)
    # Three networks of three layers, the temperature, two tensors of metrics, the rewards, the actions.
    assert len(whole) == 3 * 6 + 1 + 2 + 1 + 1
    for each in whole:
        assert (each[:64] == 7).all()
        assert (each[-64:] == 7).all()
        assert (each[64:-64] != 7).all()


@needs_compiler
def test_what_is_not_a_number_reaches_all_gradients() -> None:
    """It is never hidden by the comparison of two critics: a run that diverges shows it."""
    for network in ("critic", "target_critic"):
        for member in (0, 1):
            module, batch = make_update([8], rows=40)
            with torch.no_grad():
                getattr(module.agent, network).layers[-1].bias[member] = torch.nan
            metrics = learned(make_engine(module, CppTwin), batch)
            assert metrics["loss/critic"].isnan()
            assert metrics["loss/actor"].isnan() == (network == "critic")


@needs_compiler
def test_what_is_not_finite_stays_in_its_row() -> None:
    network, inputs = MLP(3, 2, hidden_sizes=[40]), torch.randn(50, 3)
    inputs[20, 1] = torch.inf
    outputs = torch.empty(50, 2)
    pointers = (c_void_p(each.data_ptr()) for each in (inputs, outputs))
    compiled_library().perceptron_forward(byref(Perceptron(network).locate()), 50, *pointers)
    finite = outputs.isfinite()
    assert not finite[20].any()
    assert finite.sum() == 2 * 49


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
    module, batch = make_update([8])
    batch[half][key] = wrong(batch[half][key])
    with pytest.raises(RuntimeError):
        twin(module).gradients(batch, 0)


@needs_compiler
def test_a_batch_with_gaps_is_read() -> None:
    module, batch = make_update([8])
    engine = twin(module)
    expected = learned(engine, batch)
    gaps = batch.apply(lambda each: torch.stack([each, each], -1)[..., 0])
    assert not gaps[keys.TRANSITIONS, keys.OBSERVATION].is_contiguous()
    for name, each in learned(engine, gaps).items():
        assert torch.equal(each, expected[name]), name


@needs_compiler
def test_parameters_may_move_and_gradients_may_go() -> None:
    """As where a callback swaps weights, or clears gradients."""
    module, batch = make_update([8])
    engine = twin(module)
    learned(engine, batch)
    for parameter in module.parameters():
        parameter.data = parameter.data.clone() * 1.1
        parameter.grad = None
    expected = learned(make_engine(copy.deepcopy(module)), batch)
    for name, each in learned(engine, batch).items():
        torch.testing.assert_close(each, expected[name], rtol=1e-3, atol=1e-5)


@needs_compiler
@settings(deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_the_policy_acts_as_the_agent_does(seed: int, explore: bool) -> None:
    """At log σ within its bounds, at them and beyond, and where tanh(u) rounds to 1."""
    torch.manual_seed(seed)
    module, _ = make_update([9], observations=3, actions=2)
    observation = torch.randn(4, 10, 3) * torch.tensor([1.0, 30.0]).repeat(5)[:, None]
    actions = []
    for engine in (make_engine(module), twin(module)):
        torch.manual_seed(seed)
        actions.append(engine.act(observation, explore=explore, env_steps=0))
    torch.testing.assert_close(*actions, rtol=1e-5, atol=1e-5)
    assert actions[0].shape == (4, 10, 2)


@needs_compiler
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "betas": (0.5, 0.9), "eps": 1e-3}])
def test_the_step_is_adam_s(options: dict[str, Any]) -> None:
    """Of all groups at once, up to rounding; its state is torch's, which goes on with it."""
    first = [torch.nn.Parameter(torch.randn(size)) for size in (20_001, 7, 1, 40)]
    exact = [torch.nn.Parameter(each.detach().double()) for each in first]
    mine, adam = (
        torch.optim.Adam([{"params": each[:3], "lr": 1e-3, **options}, {"params": each[3:], "lr": 1e-2}])
        for each in (first, exact)
    )
    twin = AdamTwin(mine, compiled_library())
    for step in range(20):
        for own, other in zip(first[step % 3 :], exact[step % 3 :], strict=True):
            own.grad = torch.randn(own.shape) * (0.01 if step % 2 else 10)
            other.grad = own.grad.double()
        # The last steps are torch's own, from the same state.
        for optimizer in (twin if step < 15 else mine, adam):
            optimizer.step()
        mine.zero_grad()
        adam.zero_grad()
    for own, other in zip(first, exact, strict=True):
        torch.testing.assert_close(own.double(), other, rtol=1e-5, atol=1e-6)
        for name, value in adam.state[other].items():
            torch.testing.assert_close(mine.state[own][name].to(value), value, rtol=1e-5, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("option", ["maximize", "amsgrad", "AdamW"])
def test_the_step_of_another_optimizer_is_its_own(option: str) -> None:
    module, batch = make_update([8])
    kind = torch.optim.AdamW if option == "AdamW" else partial(torch.optim.Adam, **{option: True})
    states = []
    for engine in (Eager, CppTwin):
        own = copy.deepcopy(module)
        running = engine(own, kind(own._parameter_groups()))
        torch.manual_seed(0)
        for update in range(3):
            running.update(batch, update)
        states.append(own.state_dict())
    torch.testing.assert_close(*states, rtol=1e-3, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("options", [{}, {"train_policy": False}, {"normalize_observations": True}])
def test_with_the_functions_or_without_a_run_is_the_same(options: dict[str, Any]) -> None:
    runs = []
    for engine in ("eager", "cpp"):
        trainer, module, _ = run(
            collect={"total_env_steps": 160}, module={"engine": engine, **options}, log_every_n_steps=4
        )
        logged = {
            name: value
            for name, value in trainer.callback_metrics.items()
            if name.startswith(("loss/", "agent/", "reward/"))
        }
        runs.append((module.state_dict(), logged))
    torch.testing.assert_close(*runs, rtol=1e-3, atol=1e-5)
    assert len(runs[0][1]) == (3 if "train_policy" in options else 10)


@needs_compiler
def test_copies_of_a_module_in_training_have_their_own_parameters() -> None:
    module, batch = make_update([8])
    module._engine = make_engine(module, CppTwin)
    copied = copy.deepcopy(module)
    assert copied._engine is None
    observation = batch[keys.TRANSITIONS, keys.OBSERVATION]
    torch.testing.assert_close(copied.act(observation), module.act(observation))


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
def test_without_a_compiler(compiler: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for is an error before anything begins; by default it is said, and torch does the work."""
    monkeypatch.setenv("CXX", compiler)
    module, cpu = make_module(Environment("Follow-v0")), Setting(torch.device("cpu"))
    with pytest.raises(ParameterError, match=rf"^model.engine='cpp': cannot serve this run: .*{problem}"):
        choose_engine("cpp", module, cpu)
    engine, said = choose_engine("auto", module, cpu)
    assert engine is Eager
    assert said.startswith("Engine: eager (cpp: ")
