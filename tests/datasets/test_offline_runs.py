"""Runs without an environment: from Python, resumed, and from the command line."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from rrd_lightning import keys
from rrd_lightning.cli import main
from rrd_lightning.datasets import LiberoReader
from tests.datasets.libero_files import write_file
from tests.datasets.offline import offline
from tests.resuming import assert_same
from tests.runs import make_data


def test_an_offline_run_that_is_resumed_ends_with_the_same_bits(pendulum: str) -> None:
    whole = offline(pendulum, "whole")
    assert len(whole["held out"]) == 3
    assert len(whole["replay"][keys.REWARD]) == 9 * 31
    # Normalised by every observation of the training demonstrations.
    observations = whole["replay"][keys.OBSERVATION]
    moments = {key.rpartition(".")[2]: value for key, value in whole["weights"].items() if "moments" in key}
    assert moments["count"] == len(observations) == 9 * 31
    torch.testing.assert_close(moments["mean"], observations.mean(0))
    # Stopped within an iteration and an epoch; the seed of the resumed run is another one.
    assert offline(pendulum, "first", stop_at=17) == {}
    resumed = offline(pendulum, "second", ckpt_path="first/version_0/checkpoints/last.ckpt")
    for key in ("weights", "optimizer", "replay", "generator"):
        assert_same(whole[key], resumed[key])
    for one, other in zip(whole["held out"], resumed["held out"], strict=True):
        assert_same(one, other)
    with Path("second/version_0/metrics.csv").open() as file:
        steps = [int(float(row["step"])) for row in csv.DictReader(file)]
    assert steps[0] == 16  # the x axis is updates
    assert steps[-1] == 30


def test_a_checkpoint_brings_the_replay_and_nothing_is_read_twice(
    pendulum: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert offline(pendulum, "first", stop_at=17) == {}
    reads: list[Any] = []
    monkeypatch.setattr("rrd_lightning.data.fill", lambda *args: reads.append(args))
    offline(pendulum, "second", ckpt_path="first/version_0/checkpoints/last.ckpt")
    assert not reads


def test_demonstrations_that_have_moved_are_asked_for_where_they_are_needed(
    pendulum: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = [
        "fit",
        "--config=debug",
        "--trainer.accelerator=cpu",
        "--env.id=Pendulum-v1",
        f"--data.demonstrations={pendulum}",
    ]
    main([*run, "--collect.total_env_steps=600"])
    main([*run, "--collect.total_env_steps=600", "--checkpoint.save_replay=false"])
    main([*run, "--collect.total_env_steps=600", "--data.held_out=0.5"])
    with_replay, without, held_out = (
        f"runs/Pendulum-v1/version_{version}/checkpoints/last.ckpt" for version in range(3)
    )
    monkeypatch.setenv("MINARI_DATASETS_PATH", "elsewhere")
    resume = ["fit", "--trainer.accelerator=cpu", "--collect.total_env_steps=800", "--ckpt_path"]
    main([*resume, with_replay])
    (last,) = Path("runs/Pendulum-v1/version_3/checkpoints").glob("last.ckpt")
    assert torch.load(last, weights_only=True)["env_steps"] == 800
    for needed in (without, held_out):
        with pytest.raises(
            SystemExit, match=r"error: data.demonstrations='minari:test/pendulum-v0': cannot be loaded"
        ):
            main([*resume, needed])


def test_offline_command(pendulum: str) -> None:
    args = ["--data.train_batches=2", "--trainer.max_steps=6", "--trainer.accelerator=cpu"]
    args += ["--trainer.log_every_n_steps=2", "--data.held_out=0.5", "--checkpoint.every_n_env_steps=3"]
    main(["fit", "--config", "libero_offline", f"--data.demonstrations={pendulum}", *args])
    (last,) = Path("runs/demonstrations/version_0/checkpoints").glob("last.ckpt")
    saved = torch.load(last, weights_only=True)
    assert (saved["env_steps"], saved["global_step"]) == (0, 6)
    assert [group["name"] for group in saved["optimizer_states"][0]["param_groups"]] == ["reward"]
    with Path("runs/demonstrations/version_0/metrics.csv").open() as file:
        assert [float(row["step"]) for row in csv.DictReader(file)] == [2, 4, 6]
    main(["validate", "--ckpt_path", str(last), "--trainer.accelerator=cpu"])
    main(["fit", "--ckpt_path=last", "--trainer.max_steps=8", "--trainer.accelerator=cpu"])
    resumed = torch.load("runs/demonstrations/version_2/checkpoints/last.ckpt", weights_only=True)
    assert resumed["global_step"] == 8
    main(
        [
            "fit",
            "--config",
            "libero_offline",
            f"--data.demonstrations={pendulum}",
            *args,
            "--model.train_policy=true",
        ]
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "env.id=None: is missing: give the id of an environment, or data.demonstrations"),
        (["--seed_everything=1"], r"data.demonstrations=\[\]: give a file or a folder of HDF5 files"),
        (["--data.demonstrations.paths=nowhere"], "data.demonstrations='nowhere': is neither a file nor"),
        (["--data.demonstrations=nowhere"], "data.demonstrations='nowhere': is neither a file nor a folder"),
        (
            ["--data.demonstrations=PENDULUM", "--trainer.max_steps=-1"],
            "trainer.max_steps=-1: a run without an environment needs a limit",
        ),
        (["--data.demonstrations=PENDULUM", "--data.capacity=100"], "data.capacity=100: is too small"),
    ],
)
def test_offline_errors(pendulum: str, args: list[str], message: str) -> None:
    args = [arg.replace("PENDULUM", pendulum) for arg in args]
    # Without a path, mujoco_offline has no demonstrations, and libero_offline a reader without paths.
    config = "libero_offline" if args else "mujoco_offline"
    with pytest.raises(SystemExit, match=f"error: {message}"):
        main(["fit", "--config", config, "--trainer.accelerator=cpu", *args])
    assert not Path("runs").exists()


def test_a_reader_given_from_python() -> None:
    write_file("a.hdf5", demos=2)
    data = make_data(demonstrations=LiberoReader("a.hdf5", cameras=["wrist"], image_size=8))
    assert data.demonstrations is not None
    assert data.demonstrations.observation_space["wrist"].shape == (3, 8, 8)
