"""Several processes: two of them on this machine's CPU, with gloo."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from lightning.pytorch import seed_everything

from rrd_lightning import Environment
from rrd_lightning.callbacks import Evaluate
from tests.job import SOLE, Job
from tests.resuming import fit
from tests.runs import make_data, make_module, make_trainer


def run_two(*cases: str) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.ddp", *cases]
    done = subprocess.run(command, env={**os.environ, **SOLE}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-5000:]


def test_processes_have_the_same_bits_after_every_update() -> None:
    run_two("parameters", "several", "images", "gradient")


def test_processes_of_every_agent_have_the_same_bits_after_every_update() -> None:
    run_two("agents")


def test_two_processes_go_through_phases() -> None:
    run_two("phases")


def test_two_processes_resume_to_the_last_bit() -> None:
    run_two("resume")


def test_a_checkpoint_of_one_process_on_two_and_back() -> None:
    """Counter's observations are (episode, step): each episode is found again, in one place."""
    fit("Counter-v0", "first", stop_at=9)
    saved = Path("first/version_0/checkpoints")
    shutil.copytree(saved, "one")
    run_two("deal")
    episodes = torch.load("dealt.pt", weights_only=True)
    both = torch.cat(episodes)
    assert (episodes[0].shape[0] - episodes[1].shape[0]) in range(-8, 9)
    whole = observations_in("one")
    assert sorted(both.tolist()) == sorted(whole.tolist())
    with pytest.warns(UserWarning, match="was saved with a world size of 2, this run has 1"):
        back = fit("Counter-v0", "back", ckpt_path=Path("dealt/version_0/checkpoints/last.ckpt"), total=101)
    assert sorted(back["replay"]["observation"].tolist()) == sorted(whole.tolist())


def observations_in(folder: str) -> torch.Tensor:
    """The observations in a one-process checkpoint's replay."""
    checkpoint = torch.load(Path(folder) / "last.ckpt", weights_only=True)
    files = sorted((Path(folder) / checkpoint["replay"] / "rank-0").glob("episodes-*.pt"))
    return torch.cat([torch.load(file, weights_only=True)["records"]["observation"] for file in files])


def test_evaluation_is_shared_out() -> None:
    run_two("evaluate")
    shared = json.loads(Path("metrics.json").read_text())
    seed_everything(0, verbose=False)
    env = Environment("Follow-v0")
    trainer = make_trainer(Evaluate(env, episodes=5), logger=False)
    (alone,) = trainer.validate(make_module(env), make_data(), verbose=False)
    assert shared == pytest.approx(alone, rel=1e-6)


RUN = [
    *["--config=debug", "--trainer.accelerator=cpu", "--trainer.strategy=ddp"],
    *["--trainer.default_root_dir=job", "--ckpt_path=last", "--checkpoint.every_n_env_steps=100"],
]


def test_a_signal_to_one_process_ends_all_and_a_death_ends_all() -> None:
    run = ["rrd_lightning", "fit", *RUN, "--trainer.devices=2", "--collect.total_env_steps=1000000"]
    first = Job(*run)
    first.wait_until(lambda: bool(list(Path("job").glob("*/version_*/checkpoints/last.ckpt"))))
    (other,) = first.others()
    first.process.send_signal(signal.SIGTERM)
    assert first.exit_status() == 128 + signal.SIGTERM, first.output()[-3000:]
    assert "SIGTERM received: the run ends after" in first.output()
    psutil.wait_procs([other], timeout=30)
    assert not other.is_running()
    # The second job goes on where the first was; one of its processes dies.
    second = Job(*run)
    second.wait_until(lambda: "Resumed at" in second.output())
    (other,) = second.others()
    other.kill()
    assert second.exit_status() != 0


def test_an_error_in_one_process_is_shown_and_ends_all() -> None:
    run = ["rrd_lightning", "fit", *RUN, "--trainer.devices=2", "--env.id=tests.environments:Fragile-v0"]
    job = Job(*run, FRAGILE_RANK="1")
    assert job.exit_status() != 0
    assert "BrokenError: the simulator broke" in job.output()


@pytest.mark.slow  # four processes that wait for each other: a busy machine makes torchrun give up
def test_two_nodes_of_torchrun_and_its_restart() -> None:
    """Two agents on the loopback device; a process breaks once, and all go on from the last save."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = ["torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--max_restarts=3"]
    torchrun += ["--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{port}", "--rdzv_id=test", "-m"]
    run = ["rrd_lightning", "fit", *RUN, "--trainer.devices=1", "--trainer.num_nodes=2"]
    run += ["--env.id=tests.environments:Fragile-v0"]
    breaks = {"FRAGILE_RANK": "1", "FRAGILE_ONCE": "yes"}
    nodes = [Job(*torchrun, *run, log=f"node-{node}.txt", **breaks) for node in range(2)]
    for node in nodes:
        assert node.exit_status() == 0, node.output()[-3000:]
    logs = "".join(node.output() for node in nodes)
    assert "BrokenError: the simulator broke" in logs
    assert "Resumed at" in logs
    last = max(Path("job").glob("*/version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    saved = torch.load(last, weights_only=True)
    assert (saved["env_steps"], saved["world_size"]) == (2000, 2)
