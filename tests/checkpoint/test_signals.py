"""Signals that end a run: saved, and gone on from."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.job import Job
from tests.resuming import KilledError, SignalAt, assert_same, fit, rows


def kill_at(trainer: Any, update: int) -> None:
    if trainer.global_step == update:
        raise KilledError


@pytest.mark.parametrize(
    ("stop", "env_steps", "updates"),
    [
        # In the first iteration's third update; in an iteration's last one, after which comes an
        # evaluation; and in the warm-up, whose next 20 steps are still to be made.
        (SignalAt(signal.SIGTERM, update=2), 120, 3),
        (SignalAt(signal.SIGINT, update=19), 200, 20),
        (SignalAt(signal.SIGTERM, env_steps=60), 60, 0),
    ],
)
def test_signals_finish_the_update_and_save(stop: SignalAt, env_steps: int, updates: int) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    whole = fit("Follow-v0", "whole")
    with pytest.raises(SystemExit) as exit:
        fit("Follow-v0", "first", stop_at=stop, every=10**6)
    assert exit.value.code == 128 + stop.number
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    last = Path("first/version_0/checkpoints/last.ckpt")
    saved = torch.load(last, weights_only=True)
    assert (saved["env_steps"], saved["global_step"]) == (env_steps, updates)
    assert_same(whole, fit("Follow-v0", "second", ckpt_path=last))
    later = rows("second")
    assert later == rows("whole")[-len(later) :]


def test_a_second_interrupt_stops_at_once() -> None:
    class Impatient(SignalAt):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            if trainer.global_step == self.update:
                os.kill(os.getpid(), self.number)

    with pytest.raises(SystemExit) as exit:
        fit("Follow-v0", "first", stop_at=Impatient(signal.SIGINT, update=6), every=10**6)
    assert exit.value.code == 1  # Lightning's, after a KeyboardInterrupt
    assert not Path("first/version_0/checkpoints/last.ckpt").exists()


def test_slurm_requeues_a_run_that_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's own requeue: its checkpoint, its call of scontrol, its choice of what to resume."""
    requeued: list[list[str]] = []
    monkeypatch.setattr(
        "lightning.pytorch.trainer.connectors.signal_connector.call", lambda command: requeued.append(command)
    )
    for name, value in {
        "NTASKS": "1",
        "JOB_ID": "42",
        "JOB_NAME": "run",
        "PROCID": "0",
        "LOCALID": "0",
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    whole = fit("Follow-v0", "whole")
    # SLURM would kill the job some time after the requeue.
    stop = SignalAt(signal.SIGUSR1, update=9)
    stop.on_train_batch_end = lambda trainer, *_: kill_at(trainer, 18)  # type: ignore[method-assign]
    assert fit("Follow-v0", "first", stop_at=stop, trainer_options={"default_root_dir": "job"}) == {}
    assert requeued == [["scontrol", "requeue", "42"]]
    assert torch.load("job/hpc_ckpt_1.ckpt", weights_only=True)["global_step"] == 10
    resumed = fit("Follow-v0", "second", trainer_options={"default_root_dir": "job"})
    assert_same(whole, resumed)
    later = rows("second")
    assert later == rows("whole")[-len(later) :]
    assert 0 < len(later) < len(rows("whole"))


def test_an_interrupt_at_the_keyboard_is_not_the_workers_business() -> None:
    """Ctrl-C reaches the processes of the environments as well."""
    run = ["--config=debug", "--trainer.accelerator=cpu", "--collect.total_env_steps=1000000"]
    run += ["--collect.vectorization=async", "--collect.num_envs=2"]
    job = Job("rrd_lightning", "fit", *run)
    folder = Path("runs/Pendulum-v1/version_0")
    job.wait_until(lambda: (folder / "metrics.csv").exists())
    os.killpg(job.process.pid, signal.SIGINT)
    assert job.exit_status() == 128 + signal.SIGINT, job.output()[-3000:]
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] > 0
