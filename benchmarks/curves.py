"""Collects the evaluations of finished runs into benchmarks/results, and draws them.

    python -m benchmarks.curves runs

`runs` holds a folder per run, named METHOD-TASK, as the commands in README.md leave them.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("step", "evaluate/return_mean", "evaluate/return_std", "evaluate/reward_pearson")
LABELS = {
    "env": "true reward of each step (upper bound)",
    "rrd": "RRD, from the return alone",
    "episodic": "return at the last step (lower bound)",
}
COLORS = {"env": "0.5", "rrd": "C1", "episodic": "C0"}


def collect(runs: Path) -> None:
    for path in sorted(runs.glob("*/*/version_0/metrics.csv")):
        with path.open() as file:
            rows = [row for row in csv.DictReader(file) if row["evaluate/return_mean"]]
        with (RESULTS / f"{path.parts[-4]}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def draw() -> None:
    tasks = sorted({path.stem.partition("-")[2] for path in RESULTS.glob("*.csv")})
    figure = Figure(figsize=(6 * len(tasks), 4), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for method, label in LABELS.items():
            path = RESULTS / f"{method}-{task}.csv"
            if not path.exists():
                continue
            with path.open() as file:
                rows = list(csv.DictReader(file))
            curve = [[float(row[column]) for row in rows] for column in COLUMNS[:2]]
            axes.plot(*curve, label=label, color=COLORS[method])
        axes.set(xlabel="environment steps", ylabel="return, mean of 10 episodes", title=task)
        axes.legend(frameon=False)
    figure.savefig(RESULTS / "curves.png", dpi=100)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        collect(Path(sys.argv[1]))
    draw()
