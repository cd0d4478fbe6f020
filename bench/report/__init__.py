"""Reports: tables and figures from a suite's plan, its records and a table specification.

Pure: no torch, ray or mlflow, no clock, no network. The modules load on first use, so importing this package is cheap.

    spec.py       what a table shows, and its validation
    aggregate.py  which seeds count; means, spreads, reasons of absence
    captions.py   generated captions and notes
    layout.py     the grid that every format prints: headers, marks, footnotes
    tables.py     Markdown, CSV, terminal text; latex.py; page.py (HTML); escape.py
    layouts/      the shape of each published table; schema.py, blueprint.py and reading.py parse such layouts
    filling.py    the `table:` section of a suite with a layout; fill.py, measure.py and measure_notes.py fill it
    papers.py     the tables of the papers, from published.csv alone
    plots/        figures (matplotlib)
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.report.aggregate import Aggregate, Block, TableData, table_data
    from bench.report.papers import render_paper
    from bench.report.plots.curves import accuracy_curves
    from bench.report.spec import FORMATS, TABLE_FIELDS, TableSpec
    from bench.report.tables import render

_HOME = {
    "Aggregate": "aggregate",
    "Block": "aggregate",
    "TableData": "aggregate",
    "table_data": "aggregate",
    "accuracy_curves": "plots.curves",
    "FORMATS": "spec",
    "TABLE_FIELDS": "spec",
    "TableSpec": "spec",
    "render": "tables",
    "render_paper": "papers",
}

__all__ = [
    "FORMATS",
    "TABLE_FIELDS",
    "Aggregate",
    "Block",
    "TableData",
    "TableSpec",
    "accuracy_curves",
    "render",
    "render_paper",
    "render_suite",
    "table_data",
]


def render_suite(plan: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]], spec: TableSpec) -> dict[str, str]:
    """The suite's table as text, by file format: 'md', 'tex', 'csv', 'html'. Write each as UTF-8.

    Args:
        plan: {'suite': name, 'entries': [plan entry, ...]} in suite order.
        records: record by cell id; records that the plan does not name are left aside.
        spec: the table's specification.
    """
    from bench.report.aggregate import table_data
    from bench.report.tables import render

    data = table_data(plan, records, spec)
    return {fmt: render(data, spec, fmt) for fmt in ("md", "tex", "csv", "html")}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"bench.report.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
