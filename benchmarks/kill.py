"""Kills a run with SIGKILL at random moments, many times in a row, and compares how it ends.

    python -m benchmarks.kill --kills 20

Once without interruption, and once killed again and again, each time going on from the last
checkpoint. Every file of both ends must hold the same: weights, optimizer, counters, replay,
generators, environments in mid-episode; and the rows of metrics.csv too. The run saves every 100
environment steps, so that some kills fall into a save.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

OPTIONS = [
    "--config=debug",
    "--collect.env_steps_per_iteration=50",
    "--evaluate.every_n_env_steps=2000",
    "--checkpoint.every_n_env_steps=50",
    "--data.capacity=2000",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--ckpt_path=last",
]


def start(root: Path, options: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "rrd_lightning", "fit", *OPTIONS, *options]
    log = (root / "log.txt").open("ab")
    return subprocess.Popen([*command, f"--trainer.default_root_dir={root}"], stdout=log, stderr=log)


def run_to_the_end(root: Path, options: list[str]) -> None:
    if code := start(root, options).wait():
        raise SystemExit(f"the run ended with {code}:\n" + (root / "log.txt").read_text()[-3000:])


def checkpoints(root: Path) -> list[Path]:
    return sorted(root.glob("*/version_*/checkpoints"), key=lambda path: int(path.parent.name.split("_")[1]))


def kill_once(root: Path, options: list[str], longest: float) -> str:
    """Start the run, kill it some time after its first save, and tell where that was."""
    before = len(checkpoints(root))
    process = start(root, options)
    while process.poll() is None and len(checkpoints(root)) == before:
        time.sleep(0.01)
    time.sleep(random.uniform(0, longest))
    # Every other time wait for a save to be under way.
    folder = checkpoints(root)[-1]
    wait_until = time.monotonic() + (1 if random.random() < 0.5 else 0)
    while time.monotonic() < wait_until and not list(folder.rglob("*.part")):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    torn = [str(path.relative_to(folder)) for path in folder.rglob("*.part")]
    last = max(
        root.glob("*/version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime, default=None
    )
    reached = torch.load(last, weights_only=True)["env_steps"] if last else 0
    where = f"in the middle of writing {torn[0]}" if torn else "between saves"
    return f"last checkpoint at {reached:5} steps, {where}"


def content(root: Path) -> dict[str, object]:
    """Everything that the newest checkpoint holds, but for times and names of folders."""
    folder = checkpoints(root)[-1]
    last = torch.load(folder / "last.ckpt", weights_only=True)
    last.pop("config")
    held: dict[str, object] = {"last.ckpt": last}
    episodes: dict[int, object] = {}
    for path in sorted((folder / last["replay"] / "rank-0").iterdir()):
        saved = torch.load(path, weights_only=True)
        if not path.name.startswith("episodes"):
            held[path.name] = saved
            continue
        first = int(path.name.split("-")[1])
        lengths = (saved["length"] + 1).tolist()
        parts = {key: value.split(lengths) for key, value in saved["records"].items()}
        for row in range(len(lengths)):
            episodes[first + row] = {key: value[row] for key, value in parts.items()}
    oldest = held["replay.pt"]["oldest"]  # type: ignore[index]
    held["episodes"] = {number: episode for number, episode in episodes.items() if number >= oldest}
    held["process.pt"]["callbacks"]["Collect"]["latest"].pop("collect/env_steps_per_second")  # type: ignore[index]
    return held


def differences(one: object, other: object, name: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        names = one.keys() | other.keys()
        return [each for key in names for each in differences(one.get(key), other.get(key), f"{name}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [
            each
            for row, pair in enumerate(zip(one, other, strict=True))
            for each in differences(*pair, f"{name}/{row}")
        ]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [name]
    return [] if one == other else [f"{name}: {one!r} and {other!r}"]


def rows(root: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of metrics.csv by step and kind; a killed run repeats some, and its later ones count."""
    found = {}
    for folder in checkpoints(root):
        path = folder.parent / "metrics.csv"
        for row in csv.DictReader(path.open()) if path.exists() else []:
            row = {key: value for key, value in row.items() if value and not key.endswith("per_second")}
            # Updates of one iteration have one step: their losses tell them apart.
            found[row["step"], row.get("loss/reward", "evaluation")] = row
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=5.0, help="seconds of a run before it is killed")
    parser.add_argument("--steps", type=int, default=30_000)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    options = [f"--collect.total_env_steps={arguments.steps}"]
    work = Path(tempfile.mkdtemp(prefix="kill-"))
    whole, killed = work / "whole", work / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    run_to_the_end(whole, options)
    for number in range(1, arguments.kills + 1):
        print(f"kill {number:2}: {kill_once(killed, options, arguments.longest)}", flush=True)
    run_to_the_end(killed, options)
    differ = differences(content(whole), content(killed))
    one, other = rows(whole), rows(killed)
    differ += [f"metrics.csv {key}" for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
    print(f"{len(one)} rows of metrics and every tensor compared")
    print("the same to the last bit" if not differ else "DIFFERENT: " + "; ".join(differ[:10]))
    shutil.rmtree(work)
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
