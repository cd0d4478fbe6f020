"""The former home of accuracy curves, for those who import from here: see `bench.report.plots`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.report.plots.curves import accuracy_curves, draw, sheets
from bench.report.plots.source import LINES, Source, shares
from bench.report.plots.style import RC, WIDTH

__all__ = ["LINES", "RC", "WIDTH", "accuracy_curves", "curves_figure"]


def curves_figure(records: Mapping[str, Mapping[str, Any]], plan: Mapping[str, Any]) -> Any:
    return draw(sheets(Source.of(plan, records), {})[0])


def _parts(plan: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    parts = shares(list(dict.fromkeys(entry["method"] for entry in plan["entries"])), LINES)
    if len(parts) == 1:
        return [plan]
    return [{**plan, "entries": [e for e in plan["entries"] if e["method"] in names]} for names in parts]
