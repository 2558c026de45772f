"""All figures of speed, one after another, each in a process of its own: about twelve minutes.

    pip install -c constraints.txt -e '.[benchmark]'
    python -m benchmarks.speed

Nothing else should run on the machine: with two threads, a process that has to share its cores waits for
itself.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import torch

PARTS = {
    "`rrd fit` beside the SAC of stable-baselines3 and sbx": ("throughput", "--updates", "1000"),
    "The update beside the floor of its products": ("update",),
    "The update from images": ("update", "--images"),
    "The paired batch": ("sampling",),
    "Collection beside a plain loop": ("stepping",),
}
ONE_THREAD = {"stepping"}


def processor() -> str:
    """The name that the system gives it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    print(f"{processor()}, {os.cpu_count()} cores, {platform.system()}, torch {torch.__version__}", flush=True)
    for title, (module, *options) in PARTS.items():
        print(f"\n## {title}\n", flush=True)
        threads = {"OMP_NUM_THREADS": "1"} if module in ONE_THREAD else {}
        command = [sys.executable, "-m", f"benchmarks.{module}", *options]
        subprocess.run(command, env={**os.environ, **threads}, check=True)


if __name__ == "__main__":
    main()
