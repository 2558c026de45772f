"""Two processes on one machine: ``python -m tests.ddp CASE``. Lightning starts the second one.

Both run the case, check what they must have in common, and leave files for the test that started it.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, seed_everything
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

import tests.environments  # noqa: F401 - registers the environments
from rrd_lightning import Environment
from rrd_lightning.agents import SAC
from rrd_lightning.callbacks import Evaluate
from rrd_lightning.decomposition import RRD, EnvironmentReward, EpisodicReward, FullReturnDecomposition
from tests.agents.small import AGENTS
from tests.resuming import SignalAt, StopAt, StopAtEnvStep, assert_same, fit, rows
from tests.runs import SMALL, make_collect, make_data, make_module, make_trainer
from tests.test_phases import CLONES, DATA, recipe
from tests.updates import make_engine

TWO: dict[str, Any] = {"strategy": "ddp", "devices": 2}


def gathered(value: Any) -> list[Any]:
    everyone: list[Any] = [None] * 2
    torch.distributed.all_gather_object(everyone, value)
    return everyone


def digest(value: Tensor) -> str:
    return hashlib.sha256(value.detach().contiguous().numpy().tobytes()).hexdigest()


class SameParameters(Callback):
    """After each update: the same bits in both processes, from different batches."""

    updates = 0

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        state = dict(pl_module.state_dict())
        for number, moments in trainer.optimizers[0].state_dict()["state"].items():
            state |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
        hashes = gathered({name: digest(value) for name, value in state.items()})
        assert hashes[0] == hashes[1], [name for name in state if hashes[0][name] != hashes[1][name]]
        several = [batch] if isinstance(batch, TensorDictBase) else batch
        for each in several:
            for part in sorted({"transitions", "subsequences"} & set(each.keys())):
                action = gathered(digest(each[part]["action"]))
                assert action[0] != action[1]
        self.updates += len(several)


def parameters() -> None:
    """For every agent and decomposition, and with the reward model alone: plain ddp is enough."""
    kinds: list[dict[str, Any]] = [
        {},
        {"train_policy": False},
        {"decomposition": partial(RRD, **SMALL, bias_correction=True), "gradient_clip": {"critic": 1.0}},
        {"decomposition": EnvironmentReward},
        {"decomposition": EpisodicReward},
        {"decomposition": partial(FullReturnDecomposition, **SMALL)},
        {"normalize_observations": True},
    ]
    for seed, options in enumerate(kinds):
        state = same_parameters(seed, **options)
        assert any("target_critic" in name for name in state)
        assert "agent.log_temperature" in state
    # What both processes collected.
    assert state["normalizer.moments.observation.count"] > 100


def several() -> None:
    """Several updates in a training step."""
    same_parameters(0, data={"updates_per_step": 3})


def images() -> None:
    """Images: part of their gradient is autograd's."""
    same_parameters(0, "Pixels-v0", agent=partial(SAC, **SMALL, random_shift=1))


def agents() -> None:
    """Every agent: its delayed parts and its copies are the same in both processes."""
    for name, small in AGENTS.items():
        state = same_parameters(0, small.env_id, agent=small.agent)
        assert any("target" in key for key in state), name


def phases() -> None:
    """Demonstrations, phases and cloning: each process has its own of each kind, and resumes in a phase."""
    for name, model in {"plain": CLONES, "recipe": recipe()}.items():
        options: dict[str, Any] = {**model, "data": DATA, "trainer_options": TWO, "total": 200}
        check = SameParameters()
        whole = fit("Reach-v0", f"{name}-whole", stop_at=check, **options)
        assert check.updates == whole["updates"] == 15 + 4 * 10
        # The demonstrations are shared out, and stay.
        assert [int(each) for each in gathered(whole["demonstrations"])] == [3, 3]
        assert fit("Reach-v0", f"{name}-first", stop_at=StopAt(9), **options) == {}
        last = Path(f"{name}-first/version_0/checkpoints/last.ckpt")
        assert torch.load(last, weights_only=True)["global_step"] in range(5, 10)
        assert_same(whole, fit("Reach-v0", f"{name}-second", ckpt_path=last, **options))


def same_parameters(
    seed: int, env_id: str = "Follow-v0", data: dict[str, Any] | None = None, **module_options: Any
) -> dict[str, Any]:
    seed_everything(seed, verbose=False)
    env = Environment(env_id)
    module, datamodule, check = make_module(env, **module_options), make_data(**(data or {})), SameParameters()
    trainer = make_trainer(make_collect(env), check, log_every_n_steps=10, **TWO)
    trainer.fit(module, datamodule)
    # Metrics are the whole job's.
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert gathered(metrics) == [metrics, metrics]
    assert metrics["collect/replay_transitions"] == metrics["step"] == 300
    assert check.updates == trainer.global_step == 40
    # Of the warm-up, the steps and the capacity each has half, from seeds of its own.
    assert module.env_steps == 300
    assert datamodule.replay.capacity == 1000
    assert gathered(len(datamodule.replay)) == [150, 150]
    for own in (datamodule.replay.storage[:150]["action"], torch.randn(4)):
        first, second = gathered(digest(own))
        assert first != second
    return dict(module.state_dict())


@contextmanager
def noise(draws: Tensor) -> Iterator[None]:
    """Let the agent draw the given noise."""
    drawn, rest = torch.randn_like, iter(draws)
    torch.randn_like = lambda _: next(rest)  # type: ignore[assignment]
    yield
    torch.randn_like = drawn


class SameGradient(Callback):
    """Two processes with a batch each have the gradient of one process with both batches."""

    compared = 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        generator = torch.Generator().manual_seed(batch_idx)
        # Each process's, for its next observations and for its observations.
        draws = torch.randn(2, 2, 32, 1, generator=generator)
        batches = gathered(batch)
        parts = ("transitions", "subsequences")
        both = TensorDict({part: torch.cat([each[part] for each in batches]) for part in parts}, [])
        pl_module.zero_grad()
        with noise(draws.transpose(0, 1).flatten(1, 2)):
            make_engine(pl_module).gradients(both, 0)
        parameters = pl_module.named_parameters()
        self.expected = {name: each.grad.clone() for name, each in parameters if each.grad is not None}
        pl_module.zero_grad()
        self.own_noise = noise(draws[trainer.global_rank])
        self.own_noise.__enter__()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.own_noise.__exit__(None, None, None)
        assert len(self.expected) == 3 * 6 + 1
        for name, parameter in pl_module.named_parameters():
            if name in self.expected:
                torch.testing.assert_close(parameter.grad, self.expected[name], rtol=1e-3, atol=1e-6)
                self.compared += 1


def gradient() -> None:
    seed_everything(0, verbose=False)
    env = Environment("Follow-v0")
    check = SameGradient()
    module = make_module(env, engine="eager")  # one that draws each noise once
    make_trainer(make_collect(env, total_env_steps=140), check, **TWO).fit(module, make_data())
    assert check.compared == (3 * 6 + 1) * 8


def resume() -> None:
    """On two processes a resumed run ends with the same bits; on another number nothing is lost."""
    options: dict[str, Any] = {"trainer_options": TWO, "num_envs": 2}
    for env_id in ("Follow-v0", "Pendulum-v1"):
        whole = fit(env_id, f"{env_id}/whole", **options)
        assert fit(env_id, f"{env_id}/first", stop_at=StopAtEnvStep(60), **options) == {}
        first = Path(f"{env_id}/first/version_0/checkpoints/last.ckpt")
        assert fit(env_id, f"{env_id}/second", ckpt_path=first, stop_at=StopAt(15), **options) == {}
        second = Path(f"{env_id}/second/version_0/checkpoints/last.ckpt")
        resumed = fit(env_id, f"{env_id}/third", ckpt_path=second, **options)
        assert_same(whole, resumed)
        contents = gathered(digest(whole["replay"]["observation"]))
        assert contents[0] != contents[1]
        later = rows(f"{env_id}/third")
        assert later == rows(f"{env_id}/whole")[-len(later) :]
    # A signal that comes to one process stops both, at the same update.
    stop = SignalAt(15, update=9 if torch.distributed.get_rank() else -1)
    with pytest.raises(SystemExit) as exit:
        fit("Follow-v0", "signal", stop_at=stop, every=10**6, **options)
    assert gathered(exit.value.code) == [128 + 15, 0]
    last = Path("signal/version_0/checkpoints/last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 12
    assert_same(
        fit("Follow-v0", "unstopped", **options), fit("Follow-v0", "resumed", ckpt_path=last, **options)
    )


def deal() -> None:
    """One process's checkpoint on two: each episode is in one of them, and the log says so."""
    options: dict[str, Any] = {"trainer_options": TWO}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dealt = fit("Counter-v0", "dealt", ckpt_path=Path("one/last.ckpt"), total=101, **options)
    said = any(
        "was saved with a world size of 1, this run has 2: stored" in str(each.message) for each in caught
    )
    assert said == (torch.distributed.get_rank() == 0)
    everything = gathered(dealt["replay"]["observation"])
    if torch.distributed.get_rank() == 0:
        torch.save(everything, "dealt.pt")


def evaluate() -> None:
    """Five episodes shared by two processes."""
    seed_everything(0, verbose=False)
    env = Environment("Follow-v0")
    trainer = make_trainer(Evaluate(env, episodes=5), logger=False, **TWO)
    (metrics,) = trainer.validate(make_module(env), make_data(), verbose=False)
    assert gathered(metrics)[0] == gathered(metrics)[1]
    if trainer.is_global_zero:
        Path("metrics.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)  # torch of itself
    for case in sys.argv[1:]:
        globals()[case]()
