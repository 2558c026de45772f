"""A run without an environment, as a test needs it."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger

from rrd_lightning.callbacks import Checkpoint
from tests.resuming import KilledError, StopAt
from tests.runs import make_data, make_module, make_trainer


def offline(
    pendulum: str, name: str, ckpt_path: str | None = None, stop_at: int | None = None, **data: Any
) -> dict[str, Any]:
    """Learn from the data set alone, and return everything that the run ended with."""
    torch.manual_seed(0 if ckpt_path is None else 12345)
    options = {"held_out": 0.25, "train_batches": 5, "iterations_per_epoch": 2, **data}
    datamodule = make_data(demonstrations=pendulum, **options)
    assert datamodule.demonstrations is not None
    module = make_module(datamodule.demonstrations, normalize_observations=True)
    trainer = make_trainer(
        Checkpoint(every_n_env_steps=5),
        *([StopAt(stop_at)] if stop_at else []),
        logger=CSVLogger(".", name=name, flush_logs_every_n_steps=1),
        log_every_n_steps=2,
        enable_checkpointing=True,
        max_steps=30,
    )
    try:
        trainer.fit(module, datamodule, ckpt_path=ckpt_path)
    except KilledError:
        return {}
    table = datamodule.replay.episodes
    return {
        "weights": module.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict()["state"],
        "replay": datamodule.replay.records(table["start"], table["length"]),
        "generator": datamodule.replay.sampler.state_dict(),
        "held out": [episode.to_dict() for episode in datamodule.val_dataloader()],
    }
