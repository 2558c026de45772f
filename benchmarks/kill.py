"""Kills a run with SIGKILL many times in a row, at every stage of it, and compares how it ends.

    python -m benchmarks.kill --kills 100

Once without interruption, and once killed again and again, each time going on from the last
checkpoint. Every file of both ends must hold the same: weights, optimizer, counters, replay,
generators, environments in mid-episode; and the rows of metrics.csv too. The kills are aimed in turn at
start-up, at the reading of the checkpoint, at the warm-up while there is one, at an evaluation, and at
a save, of which there is one every 50 environment steps.
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
from collections import Counter
from pathlib import Path

import torch
from lightning.pytorch import Callback

WARMUP = 4000
OPTIONS = [
    "--config=debug",
    "--collect.env_steps_per_iteration=50",
    f"--collect.warmup_steps={WARMUP}",
    "--evaluate.every_n_env_steps=1000",
    "--checkpoint.every_n_env_steps=50",
    "--data.capacity=5000",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.callbacks=benchmarks.kill.Stage",
    "--ckpt_path=last",
]
# The most seconds to wait, within a stage, before the kill.
STAGES = {"start-up": 6.0, "resume": 0.5, "warm-up": 0.5, "evaluation": 1.0, "save": 0.01}
EARLY = ("start-up", "resume", "warm-up")
STAGE_FILE = "stage.txt"


class Stage(Callback):
    """Writes down at which stage a run is, for whoever wants to kill it there."""

    def __init__(self) -> None:
        self._stage = ""

    def _enter(self, trainer, stage: str) -> None:
        if stage != self._stage:
            self._stage = stage
            (Path(trainer.default_root_dir) / STAGE_FILE).write_text(stage)

    def on_load_checkpoint(self, trainer, pl_module, checkpoint) -> None:
        self._enter(trainer, "resume")

    def on_collection(self, trainer, pl_module) -> None:
        self._enter(trainer, "training" if trainer.global_step else "warm-up")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self._enter(trainer, "training")

    def on_validation_start(self, trainer, pl_module) -> None:
        self._enter(trainer, "evaluation")

    def on_validation_end(self, trainer, pl_module) -> None:
        self._enter(trainer, "after an evaluation")  # its picture is drawn, and the best are saved


def start(root: Path, options: list[str]) -> subprocess.Popen[bytes]:
    (root / STAGE_FILE).write_text("start-up")
    command = [sys.executable, "-m", "rrd_lightning", "fit", *OPTIONS, *options]
    log = (root / "log.txt").open("ab")
    return subprocess.Popen([*command, f"--trainer.default_root_dir={root}"], stdout=log, stderr=log)


def run_to_the_end(root: Path, options: list[str]) -> None:
    if code := start(root, options).wait():
        raise SystemExit(f"the run ended with {code}:\n" + (root / "log.txt").read_text()[-3000:])


def runs(root: Path) -> list[Path]:
    """The folders of a job's runs, oldest first."""
    return sorted(root.glob("*/version_*"), key=lambda path: int(path.name.split("_")[1]))


def last_checkpoint(root: Path) -> Path | None:
    found = root.glob("*/version_*/checkpoints/last.ckpt")
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def kill_once(root: Path, options: list[str], aim: str) -> tuple[str, int] | None:
    """Start the run, kill it at a stage, and tell at which it was and how far it had come; None if it ended."""
    last = last_checkpoint(root)
    if aim == "resume" and last is None:
        aim = "warm-up"
    if aim == "warm-up" and last and torch.load(last, weights_only=True)["env_steps"] >= WARMUP:
        aim = "save"
    before = len(runs(root))
    process = start(root, options)
    while process.poll() is None and not reached(root, aim, before):
        time.sleep(0.0005)
    time.sleep(random.uniform(0, STAGES[aim]))
    process.send_signal(signal.SIGKILL)
    code = process.wait()
    if code == 0:
        return None
    if code != -signal.SIGKILL:
        raise SystemExit(f"the run ended with {code}:\n{(root / 'log.txt').read_text()[-3000:]}")
    where = (root / STAGE_FILE).read_text() or "between two stages"
    torn = sorted(str(path.name) for run in runs(root)[before:] for path in run.rglob("*.part"))
    if torn:
        where = f"save, in the middle of writing {torn[0]}"
    last = last_checkpoint(root)
    return where, torch.load(last, weights_only=True)["env_steps"] if last else 0


def reached(root: Path, aim: str, before: int) -> bool:
    if aim == "save":
        return any(list(run.glob("checkpoints/*.part")) for run in runs(root)[before:])
    stage = (root / STAGE_FILE).read_text()
    # An early stage may be over before it is seen.
    return stage == aim or (aim in EARLY and stage not in EARLY[: EARLY.index(aim)] and stage != "")


def content(root: Path) -> dict[str, object]:
    """Everything that the newest checkpoint holds, but for times and names of folders."""
    folder = runs(root)[-1] / "checkpoints"
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
    for folder in runs(root):
        path = folder / "metrics.csv"
        for row in csv.DictReader(path.open()) if path.exists() else []:
            row = {key: value for key, value in row.items() if value and not key.endswith("per_second")}
            # Updates of one iteration have one step: their losses tell them apart.
            found[row["step"], row.get("loss/reward", "evaluation")] = row
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=30_000)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    options = [f"--collect.total_env_steps={arguments.steps}"]
    work = Path(tempfile.mkdtemp(prefix="kill-"))
    whole, killed = work / "whole", work / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    run_to_the_end(whole, options)
    hit: Counter[str] = Counter()
    differ: list[str] = []
    while hit.total() < arguments.kills:
        number = hit.total() + 1
        if (result := kill_once(killed, options, list(STAGES)[number % len(STAGES)])) is None:
            print("the run ended, and another begins", flush=True)
            differ += compare(whole, killed)
            shutil.rmtree(killed)
            killed.mkdir()
            continue
        where, steps = result
        hit[where.split(",")[0]] += 1
        print(f"kill {number:3}: last checkpoint at {steps:5} steps, killed in {where}", flush=True)
    print("kills by stage: " + ", ".join(f"{stage} {count}" for stage, count in hit.most_common()))
    run_to_the_end(killed, options)
    differ += compare(whole, killed)
    print("the same to the last bit" if not differ else "DIFFERENT: " + "; ".join(differ[:10]))
    shutil.rmtree(work)
    sys.exit(bool(differ))


def compare(whole: Path, killed: Path) -> list[str]:
    """Return what differs between the ends of two jobs."""
    one, other = rows(whole), rows(killed)
    differ = differences(content(whole), content(killed))
    differ += [f"metrics.csv {key}" for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
    print(f"{len(one)} rows of metrics and every tensor compared", flush=True)
    return differ


if __name__ == "__main__":
    main()
