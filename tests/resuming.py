"""Runs that are stopped and resumed, for tests on one process and on several."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from rrd_lightning import Environment
from rrd_lightning.callbacks import Checkpoint, Evaluate, Monitor
from tests.runs import make_collect, make_data, make_module, make_trainer


class StopAt(Callback):
    """Ends the process, as far as the run can tell, after an update."""

    def __init__(self, update: int) -> None:
        self.update = update

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.update:
            raise KilledError


class StopAtEnvStep(Callback):
    """The same before steps are collected, in the warm-up for example."""

    def __init__(self, env_steps: int) -> None:
        self.env_steps = env_steps

    def on_collection(self, trainer: Any, pl_module: Any) -> None:
        if pl_module.env_steps == self.env_steps:
            raise KilledError


class SignalAt(Callback):
    """Sends a signal to the process in the middle of an update or before a collection."""

    def __init__(self, number: int, *, update: int = -1, env_steps: int = -1) -> None:
        self.number, self.update, self.env_steps = number, update, env_steps

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.update:
            os.kill(os.getpid(), self.number)

    def on_collection(self, trainer: Any, pl_module: Any) -> None:
        if pl_module.env_steps == self.env_steps:
            os.kill(os.getpid(), self.number)


class KilledError(BaseException):
    pass


def fit(
    env_id: str,
    name: str,
    *,
    ckpt_path: Path | None = None,
    stop_at: int | Callback | None = None,
    num_envs: int = 1,
    warmup: int = 100,
    every: int = 1,
    total: int | None = None,
    checkpoint: dict[str, Any] | None = None,
    trainer_options: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    env_options: dict[str, Any] | None = None,
    **module: Any,
) -> dict[str, Any]:
    """Run to the end or to the kill, and return everything that the run ended with."""
    torch.manual_seed(0 if ckpt_path is None else 12345)
    limit = 40 if env_id in {"Pendulum-v1", "HalfCheetah-v5"} else None
    env = Environment(env_id, max_episode_steps=limit, **(env_options or {}))
    model, datamodule = make_module(env, **module), make_data(**(data or {}))
    total = total or 2 * warmup + 100
    collect = make_collect(env, num_envs=num_envs, warmup_steps=warmup, total_env_steps=total)
    callbacks = [collect, Evaluate(env, episodes=1, every_n_env_steps=100), Monitor()]
    if stop_at is not None:
        callbacks.append(StopAt(stop_at) if isinstance(stop_at, int) else stop_at)
    trainer = make_trainer(
        *callbacks,
        Checkpoint(every_n_env_steps=every, **(checkpoint or {})),
        logger=CSVLogger(".", name=name, flush_logs_every_n_steps=1),
        log_every_n_steps=2,
        enable_checkpointing=True,
        **(trainer_options or {}),
    )
    try:
        trainer.fit(model, datamodule, ckpt_path=ckpt_path)
    except KilledError:
        return {}
    return {
        "weights": model.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict()["state"],
        "lengths": datamodule.replay.episodes["length"].clone(),
        "demonstrations": datamodule.replay.episodes["demonstration"].sum(),
        "replay": datamodule.replay.records(
            datamodule.replay.episodes["start"], datamodule.replay.episodes["length"]
        ),
        "generators": torch.get_rng_state(),
        "env_steps": model.env_steps,
        "loops": trainer.fit_loop.state_dict(),
        "updates": trainer.global_step,
        "return": trainer.callback_metrics.get("evaluate/return_mean"),
    }


def rows(name: str) -> list[dict[str, str]]:
    with Path(f"{name}/version_0/metrics.csv").open() as file:
        return [
            {key: value for key, value in row.items() if value and key != "collect/env_steps_per_second"}
            for row in csv.DictReader(file)
        ]


def assert_same(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second
