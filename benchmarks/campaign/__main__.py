"""Runs a matrix of tasks, methods and seeds, and reports on it.

    python -m benchmarks.campaign benchmarks/campaigns/pendulum.yaml --runs runs/campaign --jobs 2

It may be stopped at any moment, by Ctrl-C or otherwise, and goes on with the same command: a run that was
stopped is resumed, one that has reached its budget is never run again. A matrix is a YAML file:

    budgets: [300000, 1000000]     # environment steps: all runs to the first, then all to the next
    seeds: [0, 1, 2]
    arguments: --config mujoco     # of `rrd fit`, for all runs
    tasks:
      HalfCheetah-v5: ""           # an environment, and arguments for it
    methods:
      RRD: --model.decomposition RRD   # or a list of such texts, with YAML's anchors for what is shared

In arguments, {seed} is the seed of the run.

The evaluations of each run, its configuration and where it was made (a few kB) are kept in
benchmarks/results/campaign/. The report is made from them, and finished runs are known by them, so that a
campaign can go on on another machine.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from types import FrameType

from benchmarks.campaign.matrix import read_matrix
from benchmarks.campaign.results import ROOT
from benchmarks.campaign.run import CampaignRun
from rrd_lightning.report import report

SECONDS_BETWEEN_LOOKS = 1.0


class Stopped(Exception):
    """A signal has arrived."""


def work(waiting: list[CampaignRun], at_once: int) -> list[CampaignRun]:
    """Carry runs out in order, some at a time; return those that failed."""
    active: list[CampaignRun] = []
    failed: list[CampaignRun] = []
    try:
        while waiting or active:
            for run in list(active):
                if (status := run.look()) is not None:
                    active.remove(run)
                    failed += [run] if status else []
            waiting = start(waiting, active, failed, at_once)
            if active or waiting:
                time.sleep(SECONDS_BETWEEN_LOOKS)
    except Stopped:
        stop(active)
        raise
    return failed


def start(
    waiting: list[CampaignRun], active: list[CampaignRun], failed: list[CampaignRun], at_once: int
) -> list[CampaignRun]:
    """Start runs while there is room for them; return those that go on waiting."""
    left = []
    # A run's next budget waits for the one before.
    busy = {run.folder for run in (*active, *failed)}
    for run in waiting:
        if run.finished() or run.folder in {each.folder for each in failed}:
            continue
        if len(active) < at_once and run.folder not in busy and run.start():
            active.append(run)
        else:
            left.append(run)
        busy.add(run.folder)
    return left


def stop(active: list[CampaignRun]) -> None:
    """Let runs save what they have; a second signal ends them at once."""
    print(f"Stopping: {len(active)} run(s) save first. Press Ctrl-C again to stop now.", flush=True)
    try:
        for run in active:
            run.stop()
        for run in active:
            run.wait()
    except Stopped:
        for run in active:
            run.stop(signal.SIGKILL)


def receive(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("matrix", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/campaign"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/campaign")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, with one thread each")
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns, such as 'Hopper*/RRD/0'")
    arguments = parser.parse_args(args)
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs}: must be at least 1")
    if not arguments.matrix.is_file():
        parser.error(f"{arguments.matrix}: there is no such file")
    runs, results = (folder / arguments.matrix.stem for folder in (arguments.runs, arguments.results))
    try:
        jobs = read_matrix(arguments.matrix)
        chosen = [job for job in jobs if any(fnmatch(job.path, only) for only in arguments.only)]
        labels = [f"[{number}/{len(chosen)}] " for number in range(1, len(chosen) + 1)]
        waiting = [CampaignRun(job, runs, results, label) for job, label in zip(chosen, labels, strict=True)]
        for run in waiting:
            run.check()
    except ValueError as problem:
        parser.error(f"{arguments.matrix}: {problem}")
    if not waiting:
        parser.error(f"--only {' '.join(arguments.only)}: no run is named so")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, receive)
    try:
        failed = work(waiting, arguments.jobs)
    except Stopped as stopped:
        return 128 + int(stopped.args[0])
    for run in failed:
        print(f"failed: {run.job}: {run.log}", file=sys.stderr)
    if results.exists():
        report([results], results / "report")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
