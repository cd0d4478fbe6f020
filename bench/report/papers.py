"""The tables of the four papers from `published.csv` alone, in the shape in which they are printed."""

from __future__ import annotations

from itertools import chain
from typing import Any

from bench.report.blueprint import Layout
from bench.report.fill import DASH, build_part, csv_lines, quoted_cell
from bench.report.layout import Grid, Sheet
from bench.report.schema import names, packaged
from bench.report.spec import nearest

#: short name and title of each paper
PAPERS = {
    "llc-dro": ("LLC + refurbish-DRO", "Learning with Noisy Labels over Imbalanced Subpopulations"),
    "mtadcs": ("MTaDCS", "MTaDCS: Moving Trace and Feature Density-based Confidence Sample Selection under Label Noise"),
    "scanmix": ("ScanMix", "ScanMix: Learning from Severe Label Noise via Semantic Clustering and Semi-Supervised Learning"),
    "odd": ("ODD", "Robust and On-the-fly Data Denoising for Image Classification"),
}


def render_paper(name: str, fmt: str) -> str:
    """A published table: a name of `bench.report.schema.names()`, as 'llc-dro-table1', in one of the formats.

    Raises ValueError for another name or format.
    """
    from bench.report.tables import render_sheet

    if name not in names():
        raise ValueError(f"unknown published table {name!r}{nearest(name, names(), '-')}")
    return render_sheet(paper_sheet(name), fmt)


def paper_sheet(name: str) -> Sheet:
    layout = packaged(name)

    def label(row: Any) -> tuple[list[str], list[str]]:
        return [*row.marks, *row.published_marks], [marks[row.note]] if row.note else []

    notes = dict.fromkeys(row.note for section in layout.sections for row in section.rows if row.note)
    marks = {note: str(i + 1) for i, note in enumerate(notes)}
    built = [
        build_part(layout, section, lambda row, sub, column: quoted_cell(layout, row, sub, column), label, as_printed=True)
        for section in layout.sections
    ]
    absent = any(cell.value == DASH for part, _ in built for line in part.lines for cell in line.cells)
    dash = f"; {DASH}: not in the paper's table" if absent else ""
    grid = Grid(
        key="",
        heading="",
        heading_marks=[],
        parts=[part for part, _ in built],
        caption=[list(layout.caption), [f"Percent, as printed in {source(layout)}{dash}."]],
        emphasis=emphasis(layout, as_printed=True),
        conditions="",
        footnotes=[*layout.footnotes.items(), *((mark, note) for note, mark in marks.items())],
        noise=[],
    )
    title = f"{source(layout, short=True)}: {layout.title}"
    return Sheet(name, title, [grid], lambda: csv_lines(chain.from_iterable(records for _, records in built)))


def source(layout: Layout, short: bool = False) -> str:
    """'MTaDCS, Table 2(a)', or 'Table 2(a) of' and the title of the paper."""
    number = layout.table.removeprefix("table")
    number = f"{number[:-1]}({number[-1]})" if number[-1:].isalpha() else number
    name, title = PAPERS.get(layout.paper, (layout.paper, layout.paper))
    return f"{name}, Table {number}" if short else f"Table {number} of “{title}”"


def emphasis(layout: Layout, as_printed: bool = False) -> str:
    """The sentence that explains the marks of a layout; '' without marks."""
    marks = layout.marks
    if as_printed and marks.printed is not None:
        return "{best}: as in the source."
    where = "group of rows and column" if marks.within == "group" else "column"
    subs = " and ".join(sub.label for sub in layout.sub_rows if sub.label)
    points = "point" if marks.margin == 1 else "points"
    within = f"within {marks.margin:g} {points} of the best" if marks.margin else "ties at the printed precision"
    parts = [f"{{best}}: best of a {where} ({within})"] if marks.best else []
    parts += ["{second}: second best"] if marks.second else []
    apart = f", {subs} apart" if subs and parts else ""
    return f"{'; '.join(parts)}{apart}." if parts else ""
