"""Checkpoints by the names last and best, from Python and in configuration files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from rrd_lightning import Environment, ParameterError
from rrd_lightning.arguments import expand
from rrd_lightning.callbacks import Checkpoint, Evaluate
from rrd_lightning.cli import main
from tests.runs import make_collect, make_data, make_module, make_trainer

DEBUG = ["fit", "--config=debug", "--trainer.accelerator=cpu", "--env.id=Follow-v0"]


def prepare(total_env_steps: int = 300) -> Any:
    env = Environment("Follow-v0")
    callbacks = (
        make_collect(env, total_env_steps=total_env_steps),
        Evaluate(env, episodes=2, every_n_env_steps=100),
    )
    return make_trainer(*callbacks, Checkpoint(every_n_env_steps=100), enable_checkpointing=True), make_module(
        env
    )


def test_last_and_best_from_python() -> None:
    trainer, module = prepare()
    with pytest.warns(UserWarning, match="no last checkpoint available"):
        trainer.fit(module, make_data(), ckpt_path="last")
    folder = Path("logs/version_0/checkpoints").absolute()
    for function in (trainer.test, trainer.validate):
        for name in ("last", "best"):
            function(make_module(Environment("Follow-v0")), make_data(), ckpt_path=name, verbose=False)
            assert Path(trainer.ckpt_path).absolute() == folder / f"{name}.ckpt"
    # Another process finds the newest of the runs beside it.
    resumed, module = prepare(400)
    resumed.fit(module, make_data(), ckpt_path="last")
    assert Path(resumed.ckpt_path).absolute() == folder / "last.ckpt"
    assert (module.env_steps, resumed.global_step) == (400, 60)
    again, module = prepare(500)
    again.fit(module, make_data(), ckpt_path="last")
    assert Path(again.ckpt_path).parts[-3] == "version_1"
    # The same callback goes on with its own run.
    trainer.validate(module, make_data(), ckpt_path="last", verbose=False)
    assert Path(trainer.ckpt_path).absolute() == folder / "last.ckpt"


def test_best_before_there_is_one() -> None:
    trainer, module = prepare()
    with pytest.raises(ValueError, match="not configured to save the best model"):
        trainer.test(module, make_data(), ckpt_path="best")


def test_nothing_of_lightnings_own_callback_is_left() -> None:
    """All of its hooks are overridden; only the names are from there."""
    hooks = {name for name in vars(ModelCheckpoint) if name in vars(Callback)}
    own = {
        name for each in Checkpoint.__mro__[: Checkpoint.__mro__.index(ModelCheckpoint)] for name in vars(each)
    }
    assert hooks <= own
    assert Checkpoint().state_key == "Checkpoint"


def test_last_in_a_configuration_file() -> None:
    Path("mine.yaml").write_text("ckpt_path: last\ntrainer: {default_root_dir: here}\n")
    mine = ["--config=mine.yaml"]
    main([*DEBUG, *mine, "--collect.total_env_steps=600"])
    (last,) = Path("here").glob("*/version_0/checkpoints/last.ckpt")
    assert torch.load(last, weights_only=True)["env_steps"] == 600
    main(["fit", *mine, "--collect.total_env_steps=700", "--trainer.accelerator=cpu"])
    (last,) = Path("here").glob("*/version_1/checkpoints/last.ckpt")
    assert torch.load(last, weights_only=True)["env_steps"] == 700
    # What is given on the command line takes precedence.
    first = str(next(Path("here").glob("*/version_0/checkpoints/last.ckpt")))
    assert expand(["test", *mine, f"--ckpt_path={first}"])[-1] == first
    best = next(Path("here").glob("*/version_0/checkpoints/best.ckpt"))
    os.utime(best, (2e9, 2e9))
    assert expand(["test", *mine, "--ckpt_path", "best"])[-1] == str(best)


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_an_untrained_model_is_not_judged(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main([command, "--config=debug", "--trainer.accelerator=cpu"])
    expected = "needs a trained model: give the path of a checkpoint, last or best"
    assert exit.value.code == f"error: ckpt_path=None: rrd {command} {expected}"
    assert not Path("runs").exists()


def test_there_is_no_last_to_judge() -> None:
    with pytest.raises(
        ParameterError, match=r"ckpt_path='best': there is no runs/\*/version_\*/checkpoints/best.ckpt"
    ):
        expand(["test", "--ckpt_path", "best"])
