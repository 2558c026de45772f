"""Runs on LIBERO, and on its demonstrations."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from rrd_lightning import RRDModule
from rrd_lightning.cli import main
from tests.envs.libero_tasks import DEMOS, needs_libero, simulated

pytestmark = needs_libero


@simulated
def test_the_configuration_runs_to_a_checkpoint_a_video_and_a_table() -> None:
    few = ["--collect.warmup_steps=60", "--collect.total_env_steps=80", "--collect.env_steps_per_iteration=20"]
    few += [
        "--data.train_batches=2",
        "--evaluate.episodes=1",
        "--env.max_episode_steps=20",
        "--data.capacity=500",
    ]
    few += ["--env.kwargs.size=64", "--env.kwargs.settle_steps=2", "--trainer.accelerator=cpu"]
    main(["fit", "--config=libero", *few, "--trainer.log_every_n_steps=1"])
    folder = Path("runs/libero_goal-turn_on_the_stove/version_0")
    assert (folder / "checkpoints/last.ckpt").is_file()
    assert list(folder.glob("videos/episode-0-*.mp4"))
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["evaluate/success"] == "0.0"
    assert rows[0]["collect/replay_success"] == "0.0"
    module = RRDModule.load_from_checkpoint(folder / "checkpoints/last.ckpt")
    assert set(module.observation_space.spaces) == {"agentview", "proprioception"}


@simulated
def test_a_policy_sees_by_an_encoder_of_its_demonstrations() -> None:
    record = ["record", "--observations=both", "--episodes=1", "--task=libero_goal/turn_on_the_stove"]
    record += ["--kwargs.size=64", "--kwargs.fast_rendering=true"]
    for policy, steps in ("TurnOnTheStove", 120), ("FailAtTheStove", 20):
        place = [f"--policy=benchmarks.experts.{policy}", f"--output=demos/{policy}"]
        main([*record, *place, f"--max_episode_steps={steps}"])
    few = ["--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1"]
    main(["fit", "--config=libero_encoder", "--data.demonstrations.paths=demos", "--trainer.max_steps=8", *few])
    few += ["--collect.warmup_steps=40", "--collect.total_env_steps=60", "--env.max_episode_steps=20"]
    few += ["--env.kwargs.settle_steps=2", "--evaluate.episodes=1"]
    few += ["--data.train_batches=2", "--data.batch_size=16"]
    few += ["--model.phases=null", "--model.agent.cloning_steps=null"]
    (encoder,) = Path("runs").glob("*/*/checkpoints/last.ckpt")
    fit = ["fit", "--config=libero_policy", "--config=libero_images", f"--model.encoder={encoder}"]
    main([*fit, "--data.demonstrations=demos", *few])
    (last,) = Path("runs").glob("libero_goal*/*/checkpoints/last.ckpt")
    module = RRDModule.load_from_checkpoint(last)
    assert set(module.observation_space.spaces) == {"agentview", "robot"}
    assert module.model_spaces[0].shape == (64 + 21,)
    assert list(last.parents[1].glob("videos/episode-0-*.mp4"))
    encoder.unlink()
    main(["test", f"--ckpt_path={last}", "--trainer.accelerator=cpu"])
    assert len(list(Path("runs").glob("libero_goal*/version_1/videos/episode-0-*.mp4"))) == 1


@pytest.mark.slow
@pytest.mark.skipif(not DEMOS.is_dir(), reason="RRD_LIBERO_DEMOS holds no folder demos")
def test_a_reward_model_of_demonstrations_tells_held_out_successes_from_failures() -> None:
    """Learned from successes and failures; from successes alone there is nothing to learn."""
    files = [str(DEMOS / f"turn_on_the_stove_64_{kind}.hdf5") for kind in ("demo", "failures")]
    fit = ["fit", "--config=libero_offline", "--data.held_out=0.25", "--trainer.max_steps=640"]
    main([*fit, f"--data.demonstrations.paths={json.dumps(files)}"])
    with Path("runs/demonstrations/version_0/metrics.csv").open() as file:
        last = [row for row in csv.DictReader(file) if row["evaluate/return_error"]][-1]
    assert float(last["evaluate/success_auc_mean"]) > 0.9
    with pytest.warns(UserWarning, match="THE RETURNS OF THE DEMONSTRATIONS HARDLY VARY"):
        main([*fit, f"--data.demonstrations.paths={files[0]}"])
