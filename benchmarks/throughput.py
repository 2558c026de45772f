"""Environment steps and updates per second of `rrd fit`, beside stable-baselines3's SAC.

HalfCheetah-v5, one update per environment step, batch 256, networks 256 x 256, float32, on the CPU.
Ours also learns the reward model (rrd 256 / 64), logs and draws its progress bar; the peer is as it
comes, without logger or bar. Each measurement is a process of its own, the two in turn; the clock
runs from the first update to the last.

    pip install -c constraints.txt -e '.[benchmark]'
    python -m benchmarks.throughput
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

WARMUP = 2000


def ours(updates: int, options: list[str]) -> tuple[float, float]:
    """Seconds of `rrd fit` from the first update to the last, and those of the updates themselves."""
    from lightning.pytorch import Callback

    from rrd_lightning import RRDModule, cli
    from rrd_lightning.agents import SAC
    from rrd_lightning.optimizer import LeanAdam

    clock: dict[str, float] = {}
    inside = []

    def timed(method):
        def call(*arguments, **options):
            start = time.perf_counter()
            result = method(*arguments, **options)
            inside.append(time.perf_counter() - start)
            return result

        return call

    for owner, name in ((RRDModule, "learn"), (LeanAdam, "step"), (SAC, "update_targets")):
        setattr(owner, name, timed(getattr(owner, name)))

    class Clock(Callback):
        def on_train_batch_start(self, trainer, *_):
            clock.setdefault("start", time.perf_counter())

        def on_train_end(self, trainer, *_):
            clock["end"] = time.perf_counter()
            assert trainer.global_step == updates

    cli.Plots = Clock  # in place of the pictures, which nobody looks at here
    arguments = {
        "--env.id": "HalfCheetah-v5",
        "--collect.warmup_steps": WARMUP,
        "--collect.total_env_steps": WARMUP + updates,
        "--evaluate.every_n_env_steps": 10**9,
        "--trainer.limit_val_batches": 0,
        "--trainer.accelerator": "cpu",
    }
    given = [f"{name}={value}" for name, value in arguments.items()]
    cli.main(["fit", "--config", "paper", *given, *options])
    return clock["end"] - clock["start"], sum(inside)


def peer(updates: int, options: list[str]) -> tuple[float, float]:
    """Seconds that stable-baselines3's SAC takes for the updates."""
    import gymnasium
    from stable_baselines3 import SAC
    from stable_baselines3.common.callbacks import BaseCallback

    class Clock(BaseCallback):
        start = 0.0

        def _on_step(self):
            if self.num_timesteps == WARMUP:
                self.start = time.perf_counter()
            return True

    clock = Clock()
    agent = SAC(
        "MlpPolicy",
        gymnasium.make("HalfCheetah-v5"),
        learning_starts=WARMUP,
        batch_size=256,
        policy_kwargs={"net_arch": [256, 256]},
        device="cpu",
    )
    agent.learn(WARMUP + updates, callback=clock)
    seconds = time.perf_counter() - clock.start
    return seconds, seconds


def measure(which: str, updates: int, options: list[str]) -> tuple[float, float]:
    """Updates per second of one run in a new process, and the share of time that is not in updates."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.throughput", "--one", which, "--updates", str(updates)]
        result = subprocess.run(
            [*command, *options],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
        )
    if result.returncode:
        sys.exit(result.stderr)
    seconds, inside = map(float, result.stdout.rsplit("seconds ", 1)[1].split())
    return updates / seconds, 1 - inside / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--one", choices=["ours", "peer"], help="measure once, in this process")
    arguments, options = parser.parse_known_args()
    if arguments.one:
        print("\nseconds", *{"ours": ours, "peer": peer}[arguments.one](arguments.updates, options))
        return
    import torch

    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    outside = []
    for _ in range(arguments.runs):
        for which, measured in rates.items():
            rate, share = measure(which, arguments.updates, options if which == "ours" else [])
            measured.append(rate)
            if which == "ours":
                outside.append(100 * share)
    ratios = [ours / peer for ours, peer in zip(rates["ours"], rates["peer"], strict=True)]
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{arguments.updates} updates, one per environment step, {arguments.runs} runs in turn\n")
    print("| | env steps and updates per second: median (min to max) |\n|---|---|")
    for name, which in (("rrd fit, with reward model", "ours"), ("stable-baselines3 SAC", "peer")):
        low, middle, high = min(rates[which]), statistics.median(rates[which]), max(rates[which])
        print(f"| {name} | {middle:.1f} ({low:.1f} to {high:.1f}) |")
    low, middle, high = min(outside), statistics.median(outside), max(outside)
    print(f"| of ours, percent of the time that is not in updates | {middle:.1f} ({low:.1f} to {high:.1f}) |")
    print(f"| ratio, pair by pair | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |")


if __name__ == "__main__":
    main()
