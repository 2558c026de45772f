"""Short runs for tests."""

from __future__ import annotations

from functools import partial
from typing import Any

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger

from rrd_lightning import Environment, ReplayDataModule, RRDModule
from rrd_lightning.agents import SAC
from rrd_lightning.callbacks import Collect, Evaluate
from rrd_lightning.decomposition import RRD

SMALL = {"hidden_sizes": (32, 32)}


def make_trainer(*callbacks: Any, **options: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "max_epochs": -1,
        "num_sanity_val_steps": 0,
        "logger": CSVLogger(".", name="logs"),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
    }
    return Trainer(**{**defaults, **options}, callbacks=list(callbacks))


def make_module(env: Environment, **options: Any) -> RRDModule:
    defaults = {"agent": partial(SAC, **SMALL), "decomposition": partial(RRD, **SMALL)}
    return RRDModule(env.observation_space, env.action_space, **{**defaults, **options})


def make_data(**options: Any) -> ReplayDataModule:
    defaults = {
        "capacity": 2000,
        "train_batches": 4,
        "batch_size": 32,
        "rrd_batch_size": 32,
        "rrd_sample_size": 8,
        "iterations_per_epoch": 3,
    }
    return ReplayDataModule(**{**defaults, **options})


def make_collect(env: Environment, **options: Any) -> Collect:
    defaults = {"env_steps_per_iteration": 20, "warmup_steps": 100, "total_env_steps": 300}
    return Collect(env, **{**defaults, **options})


def run(
    env_id: str = "Follow-v0",
    *,
    seed: int = 0,
    module: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    collect: dict[str, Any] | None = None,
    evaluate: dict[str, Any] | None = None,
    callbacks: list[Any] | None = None,
    **trainer_options: Any,
) -> tuple[Trainer, RRDModule, ReplayDataModule]:
    """Make everything and fit."""
    seed_everything(seed, verbose=False)
    env = Environment(env_id)
    model, datamodule = make_module(env, **(module or {})), make_data(**(data or {}))
    standard: list[Any] = [make_collect(env, **(collect or {}))]
    if evaluate is not None:
        standard.append(Evaluate(env, **evaluate))
    trainer = make_trainer(*standard, *(callbacks or []), **trainer_options)
    trainer.fit(model, datamodule)
    return trainer, model, datamodule
