"""One run of a campaign, in a process of its own."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.campaign.matrix import Job
from benchmarks.campaign.results import ROOT, furthest, here, keep, read_provenance, write
from rrd_lightning.report.runs import PROVENANCE

SECONDS_BETWEEN_READS = 20.0
LINES_PER_RUN = 10


class CampaignRun:
    """A run up to a budget: started, followed, and kept.

    Args:
        job: what to run.
        runs: the folder of the campaign's runs.
        results: the folder of what is kept of them.
        label: what its lines begin with.
    """

    def __init__(self, job: Job, runs: Path, results: Path, label: str) -> None:
        self.job = job
        self.folder = (runs / job.path).absolute()
        self.results = (results / job.path).absolute()
        self.log = self.folder / "log.txt"
        self._label = label
        self._process: subprocess.Popen[bytes] | None = None
        self._next_read = 0.0
        self._lines = 0
        self._blocked = False
        self._stopped = False

    def check(self) -> None:
        """Raise ValueError if what there is of this run was made with other arguments."""
        for folder in (self.folder, self.results):
            made = read_provenance(folder).get("arguments", list(self.job.arguments))
            if made != list(self.job.arguments):
                raise ValueError(
                    f"{folder} was made with other arguments: name the method otherwise, or remove it"
                )

    def finished(self) -> bool:
        """Tell whether the run has reached the budget, here or elsewhere."""
        return read_provenance(self.results).get("finished", 0) >= self.job.budget

    def start(self) -> bool:
        """Start or resume the run; false if another process has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # The run inherits the lock, and holds it even if the campaign is killed.
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not self._blocked:
                    self._say("runs already: waiting for it")
                self._blocked = True
                return False
            reached = self._reached()
            self._provenance = read_provenance(self.folder)
            self._provenance["arguments"] = list(self.job.arguments)
            self._part = {"from": reached, **here(), "seconds": 0}
            self._provenance.setdefault("parts", []).append(self._part)
            self._started = time.time()
            self._write_provenance()
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command(),
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    cwd=ROOT,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    pass_fds=(lock.fileno(),),
                    start_new_session=True,  # a Ctrl-C reaches the campaign alone, which stops its runs
                )
        self._lines = LINES_PER_RUN * reached // self.job.budget
        self._say(
            f"resumed at {reached:,} env steps" if reached else f"started, to {self.job.budget:,} env steps"
        )
        return True

    def look(self) -> int | None:
        """Keep what there is to keep; return the exit status once the run has ended."""
        assert self._process is not None
        status = self._process.poll()
        if status is None and time.time() < self._next_read:
            return None
        self._next_read = time.time() + SECONDS_BETWEEN_READS
        if status == 0:
            self._provenance["finished"] = self.job.budget
        self._part["seconds"] = round(time.time() - self._started)
        self._write_provenance()
        if run := furthest(self.folder):
            seconds = sum(part["seconds"] for part in self._provenance["parts"])
            keep(run, self.results, {"seconds": seconds, **self._provenance})
            self._tell(run.env_steps, float(run.evaluations["return_mean"].iloc[-1]), status, seconds)
        if status and self._stopped:
            self._say("stopped")
        elif status:
            self._say(f"FAILED with status {status}: {self.log}")
        return status

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Tell the run to save and end, or to end at once."""
        self._stopped = True
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self) -> None:
        """Wait for the run to end, and keep what it has."""
        assert self._process is not None
        self._process.wait()
        self._next_read = 0
        self.look()

    def _command(self) -> list[str]:
        options = {
            "env.id": self.job.task,
            "seed_everything": self.job.seed,
            "collect.total_env_steps": self.job.budget,
            "trainer.default_root_dir": self.folder,
            "trainer.enable_progress_bar": "false",
            "ckpt_path": "last",
        }
        given = [f"--{name}={value}" for name, value in options.items()]
        return [sys.executable, "-m", "rrd_lightning", "fit", *self.job.arguments, *given]

    def _reached(self) -> int:
        run = furthest(self.folder)
        return run.env_steps if run else 0

    def _write_provenance(self) -> None:
        write(self.folder / PROVENANCE, yaml.safe_dump(self._provenance, sort_keys=False))

    def _tell(self, env_steps: int, value: float, status: int | None, seconds: float) -> None:
        lines = LINES_PER_RUN * env_steps // self.job.budget
        if status == 0:
            self._say(f"finished: return {value:.1f} at {env_steps:,} env steps, {seconds / 60:.0f} minutes")
        elif status is None and lines > self._lines:
            self._say(f"return {value:.1f} at {env_steps:,} of {self.job.budget:,} env steps")
        self._lines = max(lines, self._lines)

    def _say(self, what: Any) -> None:
        print(f"{self._label}{self.job}: {what}", flush=True)
