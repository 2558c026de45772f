"""Updates per second with one process and with two, and what they say to each other.

    python -m benchmarks.scaling

HalfCheetah-v5, the sizes of `paper.yaml`, one thread per process, gloo; in turn, medians of three. With
two processes each update learns from twice the transitions, and each process makes half of the
environment steps of an iteration.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from rrd_lightning import Environment, ReplayDataModule, RRDModule
from rrd_lightning.callbacks import Collect

WARM, MEASURED, RUNS = 300, 1500, 3


class Stopwatch(Callback):
    """Times the updates between two counts."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == WARM:
            self.start = time.perf_counter()
        if trainer.global_step == WARM + MEASURED:
            self.rate = MEASURED / (time.perf_counter() - self.start)
            trainer.should_stop = True


def measure(processes: int) -> None:
    seed_everything(0, verbose=False)
    env = Environment("HalfCheetah-v5")
    module = RRDModule(env.observation_space, env.action_space)
    data = ReplayDataModule(train_batches=100)
    stopwatch = Stopwatch()
    trainer = Trainer(
        max_epochs=-1,
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[Collect(env, warmup_steps=4000, total_env_steps=10**6), stopwatch],
    )
    trainer.fit(module, data)
    numbers = sum(p.numel() for p in module.parameters() if p.requires_grad)
    milliseconds = all_reduce_milliseconds(numbers) if processes > 1 else 0.0
    if trainer.is_global_zero:
        print("RESULT", stopwatch.rate, numbers, milliseconds)


def all_reduce_milliseconds(numbers: int) -> float:
    """Of the gradients' size, alone: the median of 100."""
    gradient, seconds = torch.randn(numbers), []
    for _ in range(100):
        torch.distributed.barrier()
        start = time.perf_counter()
        torch.distributed.all_reduce(gradient)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def run(processes: int) -> list[float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.scaling", str(processes)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    (result,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return [float(word) for word in result.split()[1:]]


def main() -> None:
    results = {count: [] for count in (1, 2)}
    for _ in range(RUNS):
        for count, measured in results.items():
            measured.append(run(count))
    rates = {count: [each[0] for each in measured] for count, measured in results.items()}
    print("| processes | updates per second: median (min to max) | transitions learned from, per second |")
    print("|---|---|---|")
    for count, values in rates.items():
        rate = statistics.median(values)
        print(f"| {count} | {rate:.1f} ({min(values):.1f} to {max(values):.1f}) | {256 * count * rate:,.0f} |")
    ratio = statistics.median(2 * two / one for one, two in zip(rates[1], rates[2], strict=True))
    numbers, milliseconds = results[2][0][1], statistics.median(each[2] for each in results[2])
    print(f"two processes learn from {ratio:.2f} times the transitions per second")
    print(
        f"{numbers:,.0f} gradients, {4 * numbers / 1e6:.2f} MB per update; "
        f"all-reduced alone in {milliseconds:.2f} ms"
    )


if __name__ == "__main__":
    measure(int(sys.argv[1])) if len(sys.argv) > 1 else main()
