"""How the benchmarks print several measurements of one thing."""

from __future__ import annotations

import statistics


def spread(values: list[float], digits: int = 2) -> str:
    """Median, and the range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
