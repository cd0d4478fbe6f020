"""The numbers that papers print: `published.csv`, one row per number, and nothing typed by hand anywhere else.

`vectors.csv` names the label vectors that papers gave away: by its sha256, noise that a cell reads from a file is known.

Columns: paper, table, dataset, noise, rate, method (as printed), method_slug (ours), setting, metric, value, unit, note.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("published.csv")
VECTORS = Path(__file__).with_name("vectors.csv")


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


#: kind of noise in a cell -> the names under which papers print it
NOISES = {
    "symmetric": ("symmetric", "uniform"), "uniform-flip": ("symmetric", "uniform"), "asymmetric": ("asymmetric",),
    "none": ("none", "real"),
}  # fmt: skip
#: settings in which a method is run as it is; the rows of "fine-tuned" have method names of their own
PLAIN = ("", "noisy", "fine-tuned")
QUOTED = ("best", "last", "accuracy", "avg", "worst", "top1")


def quotes(dataset: str, noise: Mapping[str, Any], method: str) -> list[str]:
    """What papers print for a method (its slug) as it is, on their own data: '94.6 best, 94.4 last (scanmix table1)', a text for
    each table, in their words; which protocol a bare 'accuracy' follows is the paper's. `noise`: that of a cell."""
    kind, rate = str(noise.get("kind")), noise.get("rate")
    if kind == "file":
        kind, rate = _vectors().get((dataset, str(noise.get("sha256"))), ("", None))
    names = (kind,) if kind.startswith("semantic-") else NOISES.get(kind, ())
    if kind == "semantic":
        names, rate = (f"semantic-{re.sub('[^a-z].*', '', str(noise.get('network')))}",), None
    rate = float(rate) if isinstance(rate, int | float) and rate else None
    sources: dict[str, list[str]] = {}
    for name in names:
        for row in _results().get((dataset, name, rate, method), ()):
            sources.setdefault(f"{row.paper} {row.table}", []).append(f"{row.value} {row.metric}")
    return [f"{', '.join(values)} ({source})" for source, values in sources.items()]


@functools.cache
def _vectors() -> dict[tuple[str, str], tuple[str, float | None]]:
    """(noise, nominal rate) of published label vectors by data set and sha256 (as little-endian int64)."""
    with VECTORS.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return {(row["dataset"], row["sha256"]): (row["noise"], float(row["rate"]) if row["rate"] else None) for row in rows}


@functools.cache
def _results() -> dict[tuple[str, str, float | None, str], list[Published]]:
    """Rows about whole runs by data set, noise, rate (None for semantic noise, whose name says it, and for 0) and method."""
    found: dict[tuple[str, str, float | None, str], list[Published]] = {}
    for row in published():
        if row.table != "prose" and row.setting in PLAIN and row.metric in QUOTED and row.value:
            rate = None if row.noise.startswith("semantic-") or not row.rate else float(row.rate) or None
            found.setdefault((row.dataset, row.noise, rate, row.method_slug), []).append(row)
    return found
