"""The update as one graph: the same numbers up to rounding, from the same draws."""

from __future__ import annotations

import copy
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule

from rrd_lightning import Environment, ParameterError, RRDModule
from rrd_lightning.compilation import compiled
from tests.engines.test_cpp import metrics_of
from tests.runs import make_module

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler on the CPU"
)


@needs_compiler
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch of itself
def test_one_graph_or_not_a_run_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does, on the CPU."""
    plain, expected = metrics_of(compile_update=False)

    def compile_graph(self: RRDModule, device: torch.device) -> None:
        self._learn = compiled(RRDModule.learn, device)

    monkeypatch.setattr(RRDModule, "_compile", compile_graph)
    trained, metrics = metrics_of()
    assert trained._learn is not RRDModule.learn
    torch.testing.assert_close(trained.state_dict(), plain.state_dict(), rtol=1e-3, atol=1e-5)
    same = {name for name in expected if name.startswith(("loss/", "agent/", "reward/"))}
    assert len(same) == 10
    for name in same:
        torch.testing.assert_close(metrics[name], expected[name], rtol=1e-3, atol=1e-5)
    # A copy learns by its own weights, and so does a module that was never in a run.
    assert copy.deepcopy(trained)._learn is trained._learn
    assert make_module(Environment("Follow-v0"))._learn is RRDModule.learn


def test_what_needs_autograd_is_not_compiled() -> None:
    """Compiled all the same, the policy's gradient from images was a third off, without an error."""
    module: LightningModule = make_module(Environment("Pixels-v0"), compile_update=True)
    strategy = SimpleNamespace(root_device=torch.device("cuda"))
    module.trainer = SimpleNamespace(precision="32-true", strategy=strategy)
    with pytest.raises(ParameterError, match=r"^model.compile_update=True: SAC cannot be compiled for Dict"):
        module.setup("fit")
