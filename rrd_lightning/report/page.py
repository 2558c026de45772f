"""The report as Markdown and as a page of HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from typing import Any

import pandas as pd

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #2b2b2b; background: #fff; margin: 3rem auto;
  max-width: 68rem; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; font-weight: 650; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; font-weight: 650; margin: 3rem 0 .6rem; padding-top: 1.2rem;
  border-top: 1px solid #e6e6e6; }
p, li { color: #555; max-width: 46rem; overflow-wrap: anywhere; }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: .92em; }
th { font-weight: 600; text-align: right; color: #666; vertical-align: bottom; max-width: 7.5rem; }
th, td { padding: .32rem .8rem; } td { white-space: nowrap; } td { text-align: right; }
th:first-child, td:first-child { text-align: left; padding-left: .3rem; color: #2b2b2b; }
tbody tr { border-top: 1px solid #eee; } thead tr { border-bottom: 1px solid #bbb; }
small { color: #888; font-size: .88em; }
"""
MISSING = "–"
"""What stands where there is no number."""


def write_number(value: float) -> str:
    """Write a number with about three digits."""
    if not math.isfinite(value):
        return MISSING
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text.replace("-", "−")


def write_share(value: float) -> str:
    """Write a share with two digits after the point."""
    return f"{value:.2f}".replace("-", "−") if math.isfinite(value) else MISSING


def write_time(minutes: float) -> str:
    """Write minutes, or hours if there are many."""
    if not math.isfinite(minutes):
        return MISSING
    if minutes >= 100:
        return f"{minutes / 60:.1f} h"
    return f"{minutes:.0f} min" if minutes >= 10 else f"{minutes:.1f} min"


def write_interval(row: Any, name: str, write: Callable[[float], str]) -> str:
    """Write a value and, in brackets, its interval, where there is one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    brackets = "" if not math.isfinite(low) or low == high else f" [{write(low)}, {write(high)}]"
    return write(row[name]) + brackets


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Write the numbers of a task's table in words for readers; columns that say nothing are left out."""
    columns: dict[str, Callable[[Any], str]] = {
        "method": lambda row: row["method"],
        "seeds": lambda row: str(row["seeds"]),
        "final return": lambda row: write_interval(row, "final", write_number),
        "interquartile mean": lambda row: write_number(row["iqm"]),
        "best return": lambda row: write_number(row["best"]),
        "share of the upper bound": lambda row: write_interval(row, "share", write_share),
        "correlation of rewards": lambda row: write_share(row["reward_pearson"]),
        "wall time a run": lambda row: write_time(row["minutes"]),
        "commit": lambda row: row["commits"] or MISSING,
    }
    found = {name: [write(row) for _, row in table.iterrows()] for name, write in columns.items()}
    return pd.DataFrame({name: each for name, each in found.items() if set(each) != {MISSING}})


def readable_overall(table: pd.DataFrame) -> pd.DataFrame:
    """Write the numbers of the table over all tasks."""
    shares = [write_interval(row, "share", write_share) for _, row in table.iterrows()]
    written = table[["method", "tasks", "runs"]].astype(str)
    return written.assign(**{"share of the upper bound, interquartile mean": shares})


def readable_probabilities(table: pd.DataFrame) -> pd.DataFrame:
    """Write the probabilities, and the names of the methods in the first column."""
    written = table.map(write_share)
    written.insert(0, "better than →", table.index)
    return written


class Document:
    """Text, pictures and tables, as Markdown and as a page of HTML that needs no other file.

    Args:
        title: of the whole.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._html = [f"<h1>{html.escape(title)}</h1>"]
        self._markdown = [f"# {title}"]

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._html.append(f"<h2>{html.escape(text)}</h2>")
        self._markdown.append(f"## {text}")

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self._html.append(f"<p>{html.escape(text)}</p>")
        self._markdown.append(text)

    def items(self, texts: list[str]) -> None:
        """Add a list."""
        self._html.append("<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in texts) + "</ul>")
        self._markdown.append("\n".join(f"- {text}" for text in texts))

    def picture(self, name: str, svg: str) -> None:
        """Add a picture: its drawing on the page, and a link to ``name.png`` in Markdown."""
        self._html.append(f"<figure>{svg[svg.index('<svg') :]}</figure>")
        self._markdown.append(f"![{name}]({name}.png)")

    def table(self, table: pd.DataFrame) -> None:
        """Add a table of text; on the page intervals in brackets are smaller."""
        head, rows = list(table.columns), table.to_numpy().tolist()
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        self._markdown.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
        top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
        self._html.append(
            f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
        )

    @property
    def markdown(self) -> str:
        """The whole in Markdown."""
        return "\n\n".join(self._markdown) + "\n"

    @property
    def page(self) -> str:
        """The whole as a page."""
        body = "\n".join(self._html)
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(self._title)}'
            f'</title>\n<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
            f"<body>\n{body}\n</body></html>\n"
        )


def _cell(text: str) -> str:
    value, bracket, rest = html.escape(text).partition(" [")
    return f"<td>{value}{f' <small>[{rest}</small>' if bracket else ''}</td>"
