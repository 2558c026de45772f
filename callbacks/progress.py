"""A progress bar in environment steps, or in updates where there is no environment."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from lightning.pytorch.callbacks import ProgressBar
from tqdm.auto import tqdm

from rrd_lightning.callbacks.collect import Collect

SECONDS_BETWEEN_DRAWS, SECONDS_BETWEEN_LINES = 0.5, 60.0
LINE = "{n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}{postfix}]"


class EnvStepProgressBar(ProgressBar):
    """Shows environment steps, the latest evaluated return and the updates per second.

    In a run without an environment it counts updates. Unlike Lightning's bars, which are updated after
    every batch, it is updated once per iteration and drawn at most twice a second. Where standard error is no
    terminal, as in a log file, it is a line a minute.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm[Any] | None = None
        self._enabled = True

    def disable(self) -> None:
        """Hide the bar, as on every process but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the bar."""
        collect = next((each for each in trainer.callbacks if isinstance(each, Collect)), None)
        drawn = sys.stderr.isatty() or _in_notebook()
        self._bar = tqdm(
            total=collect.total_env_steps if collect else max(trainer.max_steps, 0) or None,
            unit=" env steps" if collect else " updates",
            unit_scale=True,
            dynamic_ncols=True,
            mininterval=SECONDS_BETWEEN_DRAWS if drawn else SECONDS_BETWEEN_LINES,
            maxinterval=10 if drawn else SECONDS_BETWEEN_LINES,
            bar_format=None if drawn else LINE,
            file=sys.stderr if drawn else _Lines(sys.stderr),
            disable=not self._enabled,
        )
        self._first_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar at the end of an iteration."""
        bar = self._bar
        if bar is None or pl_module.progress == bar.n or trainer.datamodule.batches_left:
            return
        seconds = max(bar.format_dict["elapsed"], 1e-9)
        postfix = {"updates/s": f"{(trainer.global_step - self._first_step) / seconds:.0f}"}
        if pl_module.progress < 0:
            postfix["phase"] = pl_module.phases.at(trainer.global_step).name
            postfix["updates left"] = f"{-pl_module.progress:,}"
        if (evaluated := trainer.callback_metrics.get("evaluate/return_mean")) is not None:
            postfix["return"] = f"{float(evaluated):.1f}"
        bar.set_postfix(postfix, refresh=False)
        bar.update(max(pl_module.progress, 0) - bar.n)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the bar, before other callbacks print messages."""
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Lines:
    """Writes each state of a bar on a line of its own."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        if line := text.strip():
            self._file.write(line + "\n")

    def flush(self) -> None:
        self._file.flush()


def _in_notebook() -> bool:
    shell: Any = sys.modules.get("IPython")
    return shell is not None and "IPKernelApp" in getattr(shell.get_ipython(), "config", ())
