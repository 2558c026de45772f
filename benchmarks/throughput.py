"""Environment steps and updates per second of `rrd fit`, beside the SAC of stable-baselines3 and of sbx.

HalfCheetah-v5, one update per environment step, batch 256, networks 256 x 256, float32, on the CPU.
Ours also learns the reward model (rrd 256 / 64), logs and draws its progress bar; the peers are as they
come, without logger or bar. sbx is stable-baselines3's in JAX, compiled by XLA. Each measurement is a process
of its own, in turn. The clock starts after the first 100 updates.

    pip install -c constraints.txt -e '.[benchmark]'
    python -m benchmarks.throughput
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import import_module

from benchmarks.spread import spread

PEER = "stable-baselines3 SAC"
RUNS = {
    PEER: ("stable_baselines3", []),
    "sbx SAC (JAX)": ("sbx", []),
    "`rrd fit`, with reward model, engine cpp": ("ours", ["--model.engine=cpp"]),
    "the same, engine eager": ("ours", ["--model.engine=eager"]),
}
WARMUP = 2000  # steps without updates
BEGINNING = 100  # steps with updates before the clock starts: an iteration of ours


def ours(updates: int, options: list[str]) -> tuple[float, float]:
    """Seconds of `rrd fit` for the updates after the beginning, and those of the updates themselves."""
    from lightning.pytorch import Callback

    from rrd_lightning import cli

    clock: dict[str, float] = {}
    inside = []

    def timed(method):
        def call(*arguments, **options):
            start = time.perf_counter()
            result = method(*arguments, **options)
            inside.append(time.perf_counter() - start)
            return result

        return call

    class Clock(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            if trainer.global_step == BEGINNING:
                module._engine.update = timed(module._engine.update)
                clock["start"] = time.perf_counter()

        def on_train_end(self, trainer, *_):
            clock["end"] = time.perf_counter()
            assert trainer.global_step == BEGINNING + updates

    cli.Plots = Clock  # in place of the pictures, which nobody looks at here
    arguments = {
        "--env.id": "HalfCheetah-v5",
        "--collect.warmup_steps": WARMUP,
        "--collect.total_env_steps": WARMUP + BEGINNING + updates,
        "--evaluate.every_n_env_steps": 10**9,
        "--trainer.limit_val_batches": 0,
        "--trainer.accelerator": "cpu",  # unless the options say otherwise
    }
    given = [f"{name}={value}" for name, value in arguments.items()]
    cli.main(["fit", "--config", "paper", *given, *options])
    return clock["end"] - clock["start"], sum(inside)


def peer(updates: int, package: str) -> tuple[float, float]:
    """Seconds that a package's SAC takes for the updates."""
    import gymnasium
    from stable_baselines3.common.callbacks import BaseCallback

    SAC = import_module(package).SAC

    class Clock(BaseCallback):
        start = 0.0

        def _on_step(self):
            if self.num_timesteps == WARMUP + BEGINNING:
                self.start = time.perf_counter()
            return True

    clock = Clock()
    agent = SAC(
        "MlpPolicy",
        gymnasium.make("HalfCheetah-v5"),
        learning_starts=WARMUP,
        batch_size=256,
        policy_kwargs={"net_arch": [256, 256]},
        **({"device": "cpu"} if package == "stable_baselines3" else {}),
    )
    agent.learn(WARMUP + BEGINNING + updates, callback=clock)
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
    names = ["ours", "stable_baselines3", "sbx"]
    parser.add_argument("--one", choices=names, help="measure once, in this process")
    arguments, options = parser.parse_known_args()
    if arguments.one:
        ours_is_asked = arguments.one == "ours"
        seconds = ours(arguments.updates, options) if ours_is_asked else peer(arguments.updates, arguments.one)
        print("\nseconds", *seconds)
        return
    import torch

    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in RUNS}
    for _ in range(arguments.runs):
        for name, (which, extra) in RUNS.items():
            measured[name].append(measure(which, arguments.updates, extra + (options if extra else [])))
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{arguments.updates} updates, one per environment step, {arguments.runs} runs in turn\n")
    print("| median (min to max) | steps and updates per second | ratio | percent not in updates |")
    print("|---|---|---|---|")
    for name, results in measured.items():
        rates = [rate for rate, _ in results]
        ratios = [rate / peer for rate, (peer, _) in zip(rates, measured[PEER], strict=True)]
        outside = "" if "SAC" in name else spread([100 * share for _, share in results], 1)
        print(f"| {name} | {spread(rates, 1)} | {spread(ratios)} | {outside} |")


if __name__ == "__main__":
    main()
