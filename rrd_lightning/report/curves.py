"""Learning curves of methods, and how well their rewards agree with the true one."""

from __future__ import annotations

from itertools import cycle
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from rrd_lightning.report.methods import LOWER_BOUND, UPPER_BOUND, Method
from rrd_lightning.report.statistics import Curve, curve

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b4fa3", "#8c6d31", "#c1272d")
INK, FAINT = "#333333", "#e4e4e4"
BOUNDS = {UPPER_BOUND: ("#4d4d4d", "--"), LOWER_BOUND: ("#a0a0a0", ":")}
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": "#777777",
    "ytick.color": "#777777",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "svg.fonttype": "path",
    "svg.hashsalt": "rrd",
}
TASKS_ACROSS = 4
LONGEST_LINE = 100  # characters of the legend, which 8 inches hold
Look = tuple[str, str]


def looks(methods: list[Method]) -> dict[str, Look]:
    """Give each name of a method a colour and a line, the same on all tasks.

    The bounds are grey, unless they are what is compared: several of a kind.
    """
    ordered = sorted(methods, key=lambda each: (each.is_bound, each.decomposition != "RRD", each.name))
    names = dict.fromkeys(method.name for method in ordered)
    of_kind = {kind: {each.name for each in methods if each.decomposition == kind} for kind in BOUNDS}
    bounds = {name: BOUNDS[kind] for kind, found in of_kind.items() if len(found) == 1 for name in found}
    free = zip(cycle(PALETTE), ["-"] * len(PALETTE) + ["-."] * len(names), strict=False)
    return {name: bounds.get(name) or next(free) for name in names}


def draw(tasks: dict[str, list[Method]], look: dict[str, Look]) -> Figure:
    """Draw the return on each task and, below it, the correlation of predicted and true rewards.

    For a single task the two stand side by side.

    Args:
        tasks: the methods of each task.
        look: colour and line of each method.
    """
    rated = any(_is_rated(method) for methods in tasks.values() for method in methods)
    across = min(len(tasks), TASKS_ACROSS)
    down = -(-len(tasks) // across)
    rows, columns = (1, 1 + rated) if len(tasks) == 1 else (down * (1 + rated), across)
    names = [name for name in look if any(method.name == name for each in tasks.values() for method in each)]
    labels = [fill(_entry(name, look), LONGEST_LINE) for name in names]
    entries = _entries_across(labels, width := max(4.2 * columns, 8.0))
    lines_of_legend = -(-len(names) // entries) + sum(label.count("\n") for label in labels)
    height = 2.9 * rows + 0.22 * lines_of_legend + 0.2
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(tasks) * (1 + rated) :]:
        axis.set_visible(False)
    for place, (task, methods) in enumerate(tasks.items()):
        row, column = divmod(place, across)
        returns = axes[row * (1 + rated), column]
        _panel(returns, methods, "return_mean", look)
        returns.set(title=task, ylabel="" if column else "return")
        if rated:
            rewards = axes[0, 1] if len(tasks) == 1 else axes[row * 2 + 1, column]
            _panel(rewards, [method for method in methods if _is_rated(method)], "reward_pearson", look)
            rewards.set(ylim=(min(0.0, rewards.get_ylim()[0]), 1.02))
            rewards.set_ylabel("" if column else "correlation of predicted\nand true reward")
    for axis in axes[-1]:
        axis.set_xlabel("environment steps")
    lines = [axes[0, 0].plot([], [], color=look[name][0], linestyle=look[name][1])[0] for name in names]
    figure.legend(lines, labels, loc="outside lower center", ncols=entries, frameon=False)
    return figure


def _entries_across(labels: list[str], width: float) -> int:
    """Return how many entries of the legend stand beside each other on so many inches."""
    longest = max(len(line) for label in labels for line in label.split("\n"))
    return max(1, min(len(labels), int(width / (0.066 * longest + 0.6))))


def _is_rated(method: Method) -> bool:
    """Whether a method predicts rewards that were compared with the true ones."""
    return not method.is_bound and any("reward_pearson" in run.evaluations for run in method.runs)


def _entry(name: str, look: dict[str, Look]) -> str:
    words = {BOUNDS[UPPER_BOUND]: " (upper bound)", BOUNDS[LOWER_BOUND]: " (lower bound)"}
    return name + words.get(look[name], "")


def _panel(axis: Any, methods: list[Method], metric: str, look: dict[str, Look]) -> None:
    for method in methods:
        color, style = look[method.name]
        found: Curve | None = curve(method.runs, metric)
        if found is None:
            continue
        axis.fill_between(found.steps, found.low, found.high, color=color, alpha=0.12, linewidth=0)
        axis.plot(found.steps, found.mean, color=color, linestyle=style, linewidth=1.6)
        for run in method.runs:
            beyond = run.evaluations[metric].dropna().loc[found.steps[-1] :]
            axis.plot(beyond.index, beyond, color=color, linestyle=style, linewidth=0.7, alpha=0.6)
    axis.margins(x=0.01)
    axis.set_xlim(left=0)
    axis.set_axisbelow(True)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}".replace("-", "−"))
