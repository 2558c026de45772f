"""A policy on LIBERO from a few demonstrations, beside cloning alone and the bare success: a table and curves.

    rrd record --demonstrations FILES --output runs/libero/demonstrations --observations state
    python -m benchmarks.libero_policy [--jobs 2] [--only '*/RRD/*']

    rrd record --demonstrations FILES --output runs/libero/demonstrations_64 --observations both \\
      --kwargs.size 64 --kwargs.fast_rendering true
    python -m benchmarks.libero_policy --images

The runs are those of benchmarks/campaigns/libero_policy.yaml, or libero_images.yaml, which may be stopped and
started again. The checkpoint of each that its own evaluations found best then plays fresh episodes.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from collections import defaultdict
from fnmatch import fnmatch
from pathlib import Path
from statistics import median

from benchmarks.campaign.__main__ import main as campaign
from benchmarks.campaign.matrix import read_matrix
from benchmarks.campaign.results import ROOT, read_provenance, write
from rrd_lightning.checkpoint.format import read_checkpoint

DEMONSTRATIONS = Path("runs/libero/demonstrations_64")
EPISODES, SEED = 50, 1000  # of the test; evaluations begin with seed 0, recordings with 10,000


def run(command: list[str], options: dict[str, object], folder: Path) -> None:
    """Carry out a command of `rrd` in a new folder, where its output lies too."""
    shutil.rmtree(folder, ignore_errors=True)  # of one that was interrupted
    folder.mkdir(parents=True)
    given = {**options, "trainer.default_root_dir": folder, "trainer.enable_progress_bar": "false"}
    words = [sys.executable, "-m", "rrd_lightning", *command, *(f"--{name}={given[name]}" for name in given)]
    with (folder / "log.txt").open("ab") as log:
        subprocess.run(words, cwd=ROOT, check=True, stdout=log, stderr=log)


def train_encoder(seed: int) -> None:
    """Let an encoder learn from the demonstrations, unless there is one."""
    folder = ROOT / "runs/libero/encoders" / str(seed)
    if folder.exists():
        return
    print(f"Encoder of seed {seed}: {folder}", flush=True)
    part = folder.with_suffix(".part")
    options = {"data.demonstrations.paths": DEMONSTRATIONS, "seed_everything": seed}
    run(["fit", "--config=libero_encoder"], options, part)
    part.rename(folder)


def play(checkpoint: Path, folder: Path) -> float:
    """Return the share of fresh episodes that a checkpoint's policy succeeds in."""
    run(["test"], {"ckpt_path": checkpoint, "evaluate.episodes": EPISODES, "evaluate.seed": SEED}, folder)
    (metrics,) = folder.glob("*/version_*/metrics.csv")
    with metrics.open() as rows:
        return next(float(row["evaluate/success"]) for row in csv.DictReader(rows) if row["evaluate/success"])


def test(runs: Path, results: Path) -> None:
    """Let the best checkpoint of each run play that has not yet, and keep the share of successes."""
    found = sorted(runs.glob("*/*/*/*/version_*/checkpoints/best.ckpt"), key=lambda path: path.stat().st_mtime)
    for folder, checkpoint in {path.parents[4]: path for path in found}.items():  # of a resumed run the last
        place = folder.relative_to(runs)
        kept = results / place / "test.csv"
        if kept.exists() or "finished" not in read_provenance(results / place):
            continue
        steps = read_checkpoint(checkpoint)["env_steps"]
        share = play(checkpoint, runs.with_name(f"{runs.name}-tests") / place)
        write(kept, f"env_steps,episodes,success\n{steps},{EPISODES},{share:.2f}\n")


def table(results: Path) -> str:
    """Return what was kept as a table in Markdown."""
    found: dict[str, list[float]] = defaultdict(list)
    for kept in sorted(results.glob("*/*/*/test.csv")):
        with kept.open() as rows:
            found[kept.parents[1].name].append(float(next(csv.DictReader(rows))["success"]))
    lines = [f"| | each seed, of {EPISODES} fresh episodes | median |", "|---|---|---|"]
    for method, shares in found.items():
        each = ", ".join(f"{share:.2f}" for share in shares)
        lines.append(f"| {method.replace('_', ' ')} | {each} | {median(shares):.2f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/campaign"))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/campaign")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=["*"])
    parser.add_argument("--images", action="store_true")
    arguments = parser.parse_args()
    name = "libero_images" if arguments.images else "libero_policy"
    matrix = ROOT / "benchmarks/campaigns" / f"{name}.yaml"
    if arguments.images:
        for job in read_matrix(matrix):
            done = read_provenance(arguments.results / name / job.path).get("finished", 0) >= job.budget
            if not done and any(fnmatch(job.path, only) for only in arguments.only):
                train_encoder(job.seed)
    options = [f"--{each}={getattr(arguments, each)}" for each in ("runs", "results", "jobs")]
    if status := campaign([str(matrix), *options, "--only", *arguments.only]):
        return status
    test(arguments.runs / name, arguments.results / name)
    print(table(arguments.results / name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
