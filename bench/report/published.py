"""The numbers that papers print: `published.csv`, one row per number, and nothing typed by hand anywhere else.

Columns: paper, table, dataset, noise, rate, method (as printed), method_slug (ours), setting, metric, value, unit, note.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("published.csv")


@dataclass(frozen=True)
class Published:
    paper: str
    table: str
    dataset: str
    noise: str
    rate: str
    method: str
    method_slug: str
    setting: str
    metric: str
    value: str
    unit: str
    note: str


@functools.cache
def published() -> tuple[Published, ...]:
    """Every published number, in the order of the file. `value` is the text that was printed."""
    with FILE.open(newline="", encoding="utf-8") as lines:
        return tuple(Published(**row) for row in csv.DictReader(lines))
