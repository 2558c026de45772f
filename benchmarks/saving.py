"""Seconds and bytes of saving the replay: in full, and what 10,000 new transitions add.

A full ring of a million HalfCheetah-sized transitions, and one of 100,000 frames of 128 x 128 x 3, both
in episodes of 1000 steps; medians of five, and one run.

    python -m benchmarks.saving
    python -m benchmarks.saving --images
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from tensordict import TensorDict

from rrd_lightning.checkpoint.replay import load_replay, save_replay
from rrd_lightning.replay import EpisodeReplay, PairedSampler

IMAGES = "--images" in sys.argv
CAPACITY, LENGTH, RUNS = (100_000, 1000, 1) if IMAGES else (1_000_000, 1000, 5)


def make_replay() -> EpisodeReplay:
    return EpisodeReplay(CAPACITY, PairedSampler(256, 256, 64, True))


def make_episode() -> TensorDict:
    vectors = torch.randn(LENGTH + 1, 17)
    frames = torch.randint(0, 256, (LENGTH + 1, 3, 128, 128), dtype=torch.uint8) if IMAGES else vectors
    return TensorDict(
        {
            "observation": frames,
            "action": torch.randn(LENGTH, 6),
            "reward": torch.randn(LENGTH),
            "episode_return": torch.randn(()),
            "terminated": torch.tensor(False),
        },
        [],
    )


def size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir() if path.stat().st_nlink == 1) / 1e6


def main() -> None:
    replay = make_replay()
    for _ in range(CAPACITY // LENGTH):
        replay.add_episode(make_episode())
    seconds: dict[str, list[float]] = {"full save": [], "save after 10,000 more": [], "load": []}
    megabytes = {}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(RUNS):
            full, more = Path(name) / "full", Path(name) / "more"
            full.mkdir()
            more.mkdir()
            start = time.perf_counter()
            save_replay(replay, full)
            seconds["full save"].append(time.perf_counter() - start)
            megabytes["full save"] = size(full)
            for _ in range(10_000 // LENGTH):
                replay.add_episode(make_episode())
            start = time.perf_counter()
            save_replay(replay, more, previous=full)
            seconds["save after 10,000 more"].append(time.perf_counter() - start)
            megabytes["save after 10,000 more"] = size(more)
            start = time.perf_counter()
            load_replay(make_replay(), more)
            seconds["load"].append(time.perf_counter() - start)
            shutil.rmtree(full)
            shutil.rmtree(more)
    print("| | seconds: median (min to max) | MB written |\n|---|---|---|")
    for name, runs in seconds.items():
        written = f"{megabytes[name]:.1f}" if name in megabytes else ""
        print(f"| {name} | {statistics.median(runs):.3f} ({min(runs):.3f} to {max(runs):.3f}) | {written} |")


if __name__ == "__main__":
    main()
