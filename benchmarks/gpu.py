"""What a GPU makes of the package: correctness first, then speed. About ten minutes.

    python -m benchmarks.gpu [--out FOLDER] [--part NAME ...]

Each part is a process of its own with its own time limit, the most important first; its output is printed and
kept in FOLDER. It needs a CUDA device, and nothing from the internet.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.spread import spread
from benchmarks.update import image_module, vector_module
from rrd_lightning.engines import CppTwin, CudaGraph, Eager

ROUNDS = 5


def runs() -> None:
    """Does a run train, resume and load again, by both engines? Do the tests that need a GPU pass?"""
    from rrd_lightning import RRDModule
    from rrd_lightning.cli import main

    with tempfile.TemporaryDirectory() as folder:
        for engine in ("eager", "cuda_graph"):
            root = f"--trainer.default_root_dir={folder}/{engine}"
            fit = ["fit", "--config", "debug", f"--model.engine={engine}", "--trainer.accelerator=gpu", root]
            main(fit)
            last = next(Path(folder, engine).glob("*/version_0/checkpoints/last.ckpt"))
            main(["fit", "--ckpt_path", str(last), "--collect.total_env_steps=3000"])
            module = RRDModule.load_from_checkpoint(last)
            print(engine, "resumed, and loaded on", module.device, module.predict(torch.zeros(3).numpy()))
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "gpu"], check=True)


def equality() -> None:
    """The largest difference between engines after 20 updates from the same state."""
    for name, make in modules().items():
        module, batch = make()
        states = {}
        for engine in (Eager, CudaGraph):
            update, own = prepared(module, batch, engine)
            torch.manual_seed(0)
            for count in range(20):
                update(count)
            states[engine.name] = own.state_dict()
        worst = max(
            float((states["eager"][key] - value).abs().max()) for key, value in states["cuda_graph"].items()
        )
        print(f"{name}: {worst:.2e}")


def updates() -> None:
    """Milliseconds of an update, by each engine, and of bare replays of the same graph; GPU memory."""
    print("| update | engine | ms: median (min to max) | GPU memory, MB |\n|---|---|---|---|")
    for name, make in modules().items():
        module, batch = make()
        for engine in (Eager, CudaGraph):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            update, _ = prepared(module, batch, engine)
            report(name, engine.name, update)
            if engine is CudaGraph:
                report(name, "bare replays", bare(update))
        if CppTwin.unsupported(module, torch.device("cpu")) is None:
            report(name, "cpp, on the CPU", prepared(module, batch, CppTwin, "cpu")[0])


def report(name: str, engine: str, update: Callable[[int], object]) -> None:
    """One row of the table."""
    for count in range(20):
        update(count)
    measured = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for count in range(100):
            update(count)
        torch.cuda.synchronize()
        measured.append(10 * (time.perf_counter() - start))
    memory = torch.cuda.max_memory_allocated() / 1e6
    print(f"| {name} | {engine} | {spread(measured, 3)} | {memory:.0f} |", flush=True)


def prepared(module, batch, engine: type[Eager], device: str = "cuda"):
    """An update on a device, as a function of its number, and the module that it trains."""
    import copy

    own = copy.deepcopy(module).to(device)
    running = engine(own, engine.make_optimizer(own._parameter_groups()))
    there = batch.to(device)
    update = lambda count: running.update(there, count)  # noqa: E731 - it carries the engine along
    update.engine = running
    return update, own


def bare(update) -> Callable[[int], None]:
    """Replays of the graphs that an engine has recorded, without anything around them."""
    (recording,) = update.engine._recordings.values()

    def replay(count: int) -> None:
        recording.gradients()
        recording.step()

    return replay


def modules() -> dict:
    """What is updated: HalfCheetah's sizes, and images."""
    return {
        "vectors": vector_module,
        "images, 84 pixels": lambda: image_module(84),
        "images, 128 pixels": lambda: image_module(128),
    }


def paper() -> None:
    """Environment steps per second of `rrd fit --config paper` on HalfCheetah, by each engine."""
    from benchmarks import throughput

    throughput.WARMUP = 2000
    for engine in ("eager", "cuda_graph"):
        options = [f"--model.engine={engine}", "--trainer.accelerator=gpu"]
        rate, outside = throughput.measure("ours", 2000, options)
        print(f"{engine}: {rate:.1f} steps and updates per second, {100 * outside:.1f} % not in updates")


def peers() -> None:
    """The same of the peers that are installed."""
    from benchmarks import throughput

    for package in ("stable_baselines3", "sbx"):
        try:
            rate, _ = throughput.measure(package, 2000, [])
        except SystemExit as error:
            print(f"{package}: {str(error).strip().splitlines()[-1]}")
        else:
            print(f"{package}: {rate:.1f} steps and updates per second")


# Seconds that each may take, the most important first.
PARTS = {runs: 150, equality: 60, updates: 150, paper: 120, peers: 120}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = [part.__name__ for part in PARTS]
    parser.add_argument("--part", nargs="*", choices=names, default=names)
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--inside", choices=names, help="run a part in this process")
    arguments = parser.parse_args()
    if arguments.inside:
        next(part for part in PARTS if part.__name__ == arguments.inside)()
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else sys.exit("there is no CUDA device")
    print(f"{card}, torch {torch.__version__}, CUDA {torch.version.cuda}", flush=True)
    for part, limit in PARTS.items():
        if part.__name__ not in arguments.part:
            continue
        print(f"\n## {part.__doc__}\n", flush=True)
        log = arguments.out / f"{part.__name__}.txt"
        command = [sys.executable, "-m", "benchmarks.gpu", "--inside", part.__name__]
        with log.open("w") as file:
            try:
                status = subprocess.run(
                    command, stdout=file, stderr=subprocess.STDOUT, timeout=limit
                ).returncode
            except subprocess.TimeoutExpired:
                status = f"stopped after {limit} s"
        print(log.read_text()[-4000:] + (f"\n(status: {status})" if status else ""), flush=True)


if __name__ == "__main__":
    main()
