"""Published numbers that stand beside ours: same data set, same noise, same method, nothing left out by the paper."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from bench.report.published import Published, published

# Ours -> the names under which papers print it. Binary uniform flips are the symmetric noise of llc-dro; ODD calls
# symmetric noise uniform.
_NOISES = {"uniform-flip": ("symmetric",), "symmetric": ("symmetric", "uniform"), "none": ("none", "real")}
# Rows about a whole run; ablations, means over columns and claims of differences are not.
_SETTINGS = ("", "noisy", "fine-tuned")


def beside(entry: Mapping[str, Any], record: Mapping[str, Any] | None) -> list[str]:
    """One text for each table that prints this row: '95.0 best, 94.4 last (scanmix table1)'; [] where none does.

    A record of another data set than the canonical one has no published counterpart. Which protocol a bare 'accuracy'
    follows is the paper's, so the texts carry the papers' words.
    """
    if record is not None and (record.get("data") or {}).get("canonical") is False:
        return []
    kind, rate, network = _noise(entry, record)
    tables: dict[tuple[str, str, str], list[str]] = {}
    for row in _by_row().get((str(entry["dataset"]), str(entry["method"]).lower()), ()):
        if _same_noise(row, kind, rate, network):
            tables.setdefault((row.paper, row.table, row.setting), []).append(f"{row.value} {row.metric}")
    return [
        f"{', '.join(values)} ({paper} {table}{f', {setting}' if setting else ''})"
        for (paper, table, setting), values in tables.items()
    ]


@cache
def _by_row() -> dict[tuple[str, str], list[Published]]:
    found: dict[tuple[str, str], list[Published]] = {}
    for row in published():
        if row.table != "prose" and row.setting in _SETTINGS and row.unit == "%":
            found.setdefault((row.dataset, row.method_slug), []).append(row)
    return found


def _noise(entry: Mapping[str, Any], record: Mapping[str, Any] | None) -> tuple[str, float | None, str]:
    """Kind, rate and network: of the record's cell, else read from a label of the plain form `kind@rate`."""
    noise = ((record or {}).get("cell") or {}).get("noise")
    if isinstance(noise, Mapping) and "kind" in noise:
        rate = noise.get("rate")
        return str(noise["kind"]), float(rate) if isinstance(rate, int | float) else None, str(noise.get("network", ""))
    match = re.fullmatch(r"([a-z-]+)(?:@(\d*\.?\d+))?", str(entry["noise"]))
    return (match[1], float(match[2]) if match[2] else None, "") if match else ("", None, "")


def _same_noise(row: Published, kind: str, rate: float | None, network: str) -> bool:
    if kind == "semantic":
        names = bool(network) and row.noise.startswith("semantic-") and row.noise.removeprefix("semantic-") in network.lower()
    else:
        names = row.noise in _NOISES.get(kind, (kind,))
    if not names or kind == "none":
        return names
    return rate is not None and bool(row.rate) and abs(float(row.rate) - rate) < 1e-9
