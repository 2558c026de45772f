"""Resident memory of `rrd fit` over 200,000 updates: it must not grow.

    OMP_NUM_THREADS=1 python -m benchmarks.memory

Pendulum-v1 with small networks and batches, 100 updates for every 10 environment steps, a replay of
10,000 transitions that fills and then turns over; metrics are logged and evaluations held as always.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile

import psutil
from lightning.pytorch import Callback

from rrd_lightning import cli

WARMUP = 1000


class Watch(Callback):
    """Prints the process's memory ten times."""

    def __init__(self, updates: int) -> None:
        self.every = updates // 10

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step % self.every == 0:
            megabytes = psutil.Process().memory_info().rss / 1e6
            print(f"\n| {trainer.global_step:,} | {megabytes:.1f} |", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--updates", type=int, default=200_000)
    updates = parser.parse_args().updates
    cli.Plots = lambda: Watch(updates)
    options = {
        "data.capacity": 10_000,
        "data.train_batches": 100,
        "data.updates_per_step": 10,
        "data.batch_size": 16,
        "data.rrd_batch_size": 16,
        "data.rrd_sample_size": 8,
        "collect.env_steps_per_iteration": 10,
        "collect.warmup_steps": WARMUP,
        "collect.total_env_steps": WARMUP + updates // 10,
        "evaluate.every_n_env_steps": 5000,
        "evaluate.episodes": 2,
        "model.agent.hidden_sizes": "[16,16]",
        "model.decomposition.hidden_sizes": "[16,16]",
        "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": "false",
    }
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        cli.main(["fit", "--config", "quickstart", *(f"--{name}={value}" for name, value in options.items())])


if __name__ == "__main__":
    main()
