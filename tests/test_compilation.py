"""The compiled update: the same numbers up to rounding, from the same draws."""

from __future__ import annotations

import copy
import os
import shutil
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule

from rrd_lightning import Environment, ParameterError, RRDModule
from rrd_lightning.decomposition import RRD
from tests.runs import SMALL, make_module, run

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler"
)


def short_run(**module: object) -> tuple[RRDModule, dict[str, torch.Tensor]]:
    """Twelve updates of every part, the last of which is logged."""
    corrected = partial(RRD, bias_correction=True, **SMALL)
    trainer, trained, _ = run(
        collect={"total_env_steps": 160},
        module={"decomposition": corrected, **module},
        log_every_n_steps=4,
    )
    assert trainer.global_step == 12
    return trained, trainer.callback_metrics


@needs_compiler
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch of itself
def test_compiled_or_not_a_run_is_the_same() -> None:
    plain, expected = short_run()
    compiled, metrics = short_run(compile_update=True)
    torch.testing.assert_close(compiled.state_dict(), plain.state_dict(), rtol=1e-3, atol=1e-5)
    same = {name for name in expected if name.startswith(("loss/", "agent/", "reward/"))}
    assert len(same) == 10
    for name in same:
        torch.testing.assert_close(metrics[name], expected[name], rtol=1e-3, atol=1e-5)
    # A copy learns by its own weights, and so does a module that was never in a run.
    assert copy.deepcopy(compiled)._learn is compiled._learn
    assert make_module(Environment("Follow-v0"))._learn is RRDModule.learn


def test_without_a_compiler_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    module: LightningModule = make_module(Environment("Follow-v0"), compile_update=True)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(precision="32-true", strategy=strategy)
    with pytest.raises(ParameterError, match=r"^model.compile_update=True: .* no-such-compiler is not there"):
        module.setup("fit")


def test_what_needs_autograd_is_not_compiled() -> None:
    """Compiled all the same, the policy's gradient from images was a third off, without an error."""
    with pytest.raises(ParameterError, match=r"^model.compile_update=True: SAC cannot be compiled for Dict"):
        run("Pixels-v0", module={"compile_update": True})
