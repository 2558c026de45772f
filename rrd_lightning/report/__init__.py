"""``rrd report``: runs over tasks, methods and seeds in pictures and tables."""

from __future__ import annotations

import argparse
import html
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from lightning.pytorch.utilities import rank_zero_info
from matplotlib.figure import Figure

from rrd_lightning.checkpoint.files import require_writable
from rrd_lightning.errors import ParameterError
from rrd_lightning.report import curves, page, statistics
from rrd_lightning.report.methods import Method, group
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
        left_out += [f"{run.folder}: is of {run.task}" for run in found if run.task != task]
        found = [run for run in found if run.task == task]
    methods, doubles = group(found)
    left_out += doubles
    for reason in left_out:
        rank_zero_info(f"Left out: {reason}")
    if not methods:
        raise ParameterError("runs", ", ".join(map(str, runs)), "there is no run with an evaluation")
    folder = Path(output).expanduser()
    require_writable("output", folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = _write(methods, left_out, folder)
    rank_zero_info(f"Report of {len(found)} runs: {folder / 'index.html'}")
    return written


def _write(methods: list[Method], left_out: list[str], folder: Path) -> list[Path]:
    tasks: dict[str, list[Method]] = defaultdict(list)
    for method in methods:
        tasks[method.task].append(method)
    look = curves.looks(methods)
    written: list[Path] = []
    title = "Learning from returns: " + ", ".join(tasks)
    on_page, in_markdown, tables = [f"<h1>{html.escape(title)}</h1>"], [f"# {title}"], []
    if len(tasks) > 1:
        svg, files = _draw(dict(tasks), look, folder / "curves")
        written += files
        on_page.append(svg)
        in_markdown.append("![Learning curves](curves.png)")
    for task, of_task in tasks.items():
        name = "".join(each if each.isalnum() or each in "-_." else "_" for each in task)
        svg, files = _draw({task: of_task}, look, folder / name)
        written += files
        table, shorter = statistics.table(of_task)
        left_out += shorter
        tables.append(table)
        heading = f"{task}, {statistics.horizon(of_task):,} environment steps"
        on_page += [f"<h2>{html.escape(heading)}</h2>", svg, page.html_table(page.readable(table))]
        in_markdown += [f"## {heading}", f"![{task}]({name}.png)", page.markdown(page.readable(table))]
        if len(table) > 1:
            better = page.readable_probabilities(statistics.probabilities(of_task))
            on_page += [f"<p>{PROBABILITY}</p>", page.html_table(better)]
            in_markdown += [PROBABILITY, page.markdown(better)]
    on_page.append(f"<h2>How to read this</h2><p>{html.escape(LEGEND)}</p>")
    in_markdown += ["## How to read this", LEGEND]
    if left_out:
        items = "".join(f"<li><code>{html.escape(reason)}</code></li>" for reason in left_out)
        on_page.append(f"<h2>Left out</h2><ul>{items}</ul>")
        in_markdown += ["## Left out", "\n".join(f"- {reason}" for reason in left_out)]
    csv = folder / "report.csv"
    pd.concat(tables).to_csv(csv, index=False, float_format="%.6g", lineterminator="\n")
    return [
        page.write_text(folder / "index.html", page.page(title, on_page)),
        page.write_text(folder / "report.md", "\n\n".join(in_markdown) + "\n"),
        csv,
        *written,
    ]


def _draw(tasks: dict[str, list[Method]], look: dict[str, curves.Look], path: Path) -> tuple[str, list[Path]]:
    """Write a picture as PNG and SVG, and return it for the page as well."""
    with matplotlib.rc_context(curves.STYLE):
        figure: Figure = curves.draw(tasks, look)
        png, svg = (path.with_name(path.name + suffix) for suffix in (".png", ".svg"))
        figure.savefig(png, dpi=150)
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", metadata={"Date": None})
    page.write_text(svg, drawing.getvalue())
    return f"<figure>{page.inline(drawing.getvalue())}</figure>", [png, svg]
