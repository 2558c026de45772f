"""Reading what runs logged."""

from __future__ import annotations

import csv
from pathlib import Path


def read_csv(folder: Path = Path("logs/version_0")) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
