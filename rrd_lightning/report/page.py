"""The report as Markdown and as a page of HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #2b2b2b; background: #fff; margin: 3rem auto;
  max-width: 68rem; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; font-weight: 650; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; font-weight: 650; margin: 3rem 0 .6rem; padding-top: 1.2rem;
  border-top: 1px solid #e6e6e6; }
p, li { color: #555; max-width: 46rem; }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: .92em; }
th { font-weight: 600; text-align: right; color: #666; vertical-align: bottom; }
th, td { padding: .32rem .8rem; white-space: nowrap; } td { text-align: right; }
th:first-child, td:first-child { text-align: left; padding-left: .3rem; color: #2b2b2b; }
tbody tr { border-top: 1px solid #eee; } thead tr { border-bottom: 1px solid #bbb; }
small { color: #888; font-size: .88em; } code { font-size: .9em; overflow-wrap: anywhere; }
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


def readable_probabilities(table: pd.DataFrame) -> pd.DataFrame:
    """Write the probabilities, and the names of the methods in the first column."""
    written = table.map(write_share)
    written.insert(0, "better than →", table.index)
    return written


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown."""
    lines = [list(table.columns), ["---", *["---:"] * (table.shape[1] - 1)], *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def html_table(table: pd.DataFrame) -> str:
    """Return a table in HTML; intervals in brackets are smaller."""

    def cell(text: Any, kind: str = "td") -> str:
        value, bracket, rest = html.escape(str(text)).partition(" [")
        return f"<{kind}>{value}{f' <small>[{rest}</small>' if bracket else ''}</{kind}>"

    head = "".join(cell(name, "th") for name in table.columns)
    rows = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in table.to_numpy().tolist())
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def inline(svg: str) -> str:
    """Return a picture as part of a page: without the head of its file."""
    return svg[svg.index("<svg") :]


def page(title: str, parts: list[str]) -> str:
    """Return a page that opens from disk and needs no other file."""
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def write_text(path: Path, text: str) -> Path:
    """Write a file, and return its path."""
    path.write_text(text, encoding="utf-8")
    return path
