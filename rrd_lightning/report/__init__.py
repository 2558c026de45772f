"""``rrd report``: runs over tasks, methods and seeds in pictures and tables."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from lightning.pytorch.utilities import rank_zero_info

from rrd_lightning.checkpoint.files import require_writable
from rrd_lightning.errors import ParameterError
from rrd_lightning.report import curves, page, statistics
from rrd_lightning.report.methods import Method, differences, group
from rrd_lightning.report.page import Document
from rrd_lightning.report.runs import read_runs

__all__ = ["main", "report"]

LEGEND = (
    "Final return: mean over seeds of the last evaluation up to the given environment steps, with the 95 % "
    "bootstrap interval of this mean. Best return: of the best evaluation of each run, mean over seeds. Share "
    "of the upper bound: 0 is the same agent trained on the return at the last step (EpisodicReward), 1 on the "
    "true reward of each step (EnvironmentReward). Correlation of rewards: Pearson's, of the predicted and the "
    "true reward of the steps of an evaluation episode. Thin lines are runs that went further"
    " than others of their method."
)
PROBABILITY = "Probability that a run of the row ends with a higher return than one of the column:"
DIFFERENCES = "Settings that are not the same for all methods, beside those of decomposition and agent:"


def main(args: Sequence[str] | None = None) -> None:
    """Run ``rrd report``.

    Args:
        args: the arguments; `sys.argv` by default.
    """
    parser = argparse.ArgumentParser(prog="rrd report", description="Pictures and tables of runs.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a folder of runs, at any depth")
    parser.add_argument(
        "--output", default="report", metavar="FOLDER", help="where to write; report by default"
    )
    parser.add_argument("--task", help="report on this task alone")
    arguments = parser.parse_args(args)
    report(arguments.runs, arguments.output, arguments.task)


def report(runs: Sequence[str | Path], output: str | Path = "report", task: str | None = None) -> list[Path]:
    """Compare runs: learning curves, tables, and a page with all of it.

    Runs that differ in nothing but the seed are one method, named by what tells it apart.

    Args:
        runs: folders with runs of ``rrd fit``, at any depth. Runs that are still going on are shown as far
            as they are.
        output: the folder to write into: ``index.html``, ``report.md``, ``report.csv`` and the pictures.
        task: the environment to report on; all by default.

    Returns:
        The files.

    Raises:
        ParameterError: if a folder does not exist, nothing in it can be reported on, or the output cannot
            be written.
    """
    found, left_out = read_runs(runs)
    if task is not None:
        left_out += [f"{run.name}: is of {run.task}" for run in found if run.task != task]
        found = [run for run in found if run.task == task]
    methods, doubles = group(found)
    if not methods:
        reasons = f": {'; '.join(left_out)}" if left_out else ""
        raise ParameterError("runs", ", ".join(map(str, runs)), f"hold no run with an evaluation{reasons}")
    folder = Path(output).expanduser()
    require_writable("output", folder)
    folder.mkdir(parents=True, exist_ok=True)
    tasks: dict[str, list[Method]] = defaultdict(list)
    for method in methods:
        tasks[method.task].append(method)
    tables = {task: statistics.table(of_task) for task, of_task in tasks.items()}
    left_out += [*doubles, *(run for _, shorter in tables.values() for run in shorter)]
    for reason in left_out:
        rank_zero_info(f"Left out: {reason}")
    written = _write(dict(tasks), {task: table for task, (table, _) in tables.items()}, left_out, folder)
    rank_zero_info(f"Report of {len(found)} runs: {folder / 'index.html'}")
    return written


def _write(
    tasks: dict[str, list[Method]], tables: dict[str, pd.DataFrame], left_out: list[str], folder: Path
) -> list[Path]:
    document = Document("Learning from returns: " + ", ".join(tasks))
    look = curves.looks([method for methods in tasks.values() for method in methods])
    written: list[Path] = []

    def draw(name: str, drawn: dict[str, list[Method]]) -> None:
        with matplotlib.rc_context(curves.STYLE):
            figure = curves.draw(drawn, look)
            png, svg = (folder / f"{name}.{kind}" for kind in ("png", "svg"))
            figure.savefig(png, dpi=150)
            figure.savefig(svg, metadata={"Date": None})
        document.picture(name, svg.read_text(encoding="utf-8"))
        written.extend((png, svg))

    if len(tasks) > 1:
        draw("curves", tasks)
        if len(over_all := statistics.overall(tasks)):
            document.table(page.readable_overall(over_all))
    for task, methods in tasks.items():
        document.heading(f"{task}, {statistics.horizon(methods):,} environment steps")
        draw("".join(each if each.isalnum() or each in "-_." else "_" for each in task), {task: methods})
        document.table(page.readable(tables[task]))
        better = statistics.probabilities(methods)
        if better.notna().any(axis=None):
            document.paragraph(PROBABILITY)
            document.table(page.readable_probabilities(better))
        if others := differences(methods):
            document.paragraph(DIFFERENCES)
            document.items(others)
    document.heading("How to read this")
    document.paragraph(LEGEND)
    if left_out:
        document.heading("Left out")
        document.items(left_out)
    texts = {
        "index.html": document.page,
        "report.md": document.markdown,
        "report.csv": pd.concat(tables.values()).to_csv(index=False, float_format="%.6g", lineterminator="\n"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [*(folder / name for name in texts), *written]
