"""Render aggregated results as Markdown, LaTeX, CSV, HTML or terminal text. Same input, same bytes; no dates."""

from __future__ import annotations

import csv
import io
import textwrap
from itertools import chain

from bench.report.aggregate import TableData
from bench.report.captions import emphasis
from bench.report.escape import clean, markdown, markdown_label, pad, width
from bench.report.layout import Cell, Grid, build_grids, caption_text
from bench.report.spec import FORMATS, TableSpec, nearest

CSV_FIELDS = (
    "dataset", "noise", "method", "metric", "protocol", "mean", "spread", "n", "n_planned", "status", "unit", "reason",
)  # fmt: skip
TERMINAL_WIDTH = 130


def render(data: TableData, spec: TableSpec, fmt: str) -> str:
    """The table in one of `FORMATS`: 'md', 'tex', 'csv', 'html' or 'text' (terminal). Ends with a line feed.

    Raises ValueError for another format.
    """
    if fmt not in FORMATS:
        raise ValueError(f"unknown table format {fmt!r}{nearest(fmt, FORMATS)}")
    if fmt == "tex":
        from bench.report.latex import render_tex

        return render_tex(data, spec)
    if fmt == "html":
        from bench.report.page import render_html

        return render_html(data, spec)
    return {"md": render_md, "csv": render_csv, "text": render_text}[fmt](data, spec)


def render_csv(data: TableData, spec: TableSpec) -> str:
    """Tidy long form: one line for each aggregate, means and spreads as fractions with all their digits.

    `method` is the plan's row label, `spread` the sample standard deviation (empty below two seeds), `unit` is
    'fraction', `status` as in `Aggregate`, `reason` the footnote text.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for block in data.blocks:
        for (row, column, metric, protocol), item in block.aggregates.items():
            axes = {spec.split_by: block.key, spec.rows: row, spec.columns: column}
            values = ["" if value is None else repr(value) for value in (item.mean, item.spread)]
            writer.writerow(
                [clean(axes["dataset"]), clean(axes["noise"]), clean(axes["method"]), metric, protocol, *values]
                + [item.n, item.n_planned, item.status, "fraction", clean("; ".join(item.reasons))]
            )
    return out.getvalue()


def render_md(data: TableData, spec: TableSpec) -> str:
    """GitHub-flavoured Markdown: a heading, a table, its caption and notes for each block."""
    parts = [f"# {markdown(data.title)}"]
    for grid in build_grids(data, spec):
        parts.append(f"## {markdown(grid.heading)}{_md_marks(grid.heading_marks)}")
        parts.append(_md_table(grid))
        parts.append(markdown(caption_text(grid, spec)))
        if grid.footnotes:
            parts.append("\n".join(f"- {_md_marks([mark])} {markdown(text)}" for mark, text in grid.footnotes))
        labels = [f"{markdown_label(label)}: " if label else "" for label, _ in grid.noise]
        parts.append("\n".join(f"- {label}{markdown(t)}" for label, (_, t) in zip(labels, grid.noise, strict=True)))
    return "\n\n".join(parts) + "\n"


def _md_table(grid: Grid) -> str:
    columns = [
        f"{markdown_label(label)}{_md_marks(marks)}" + ("" if grid.single_header else f"<br>{markdown(sub)}")
        for label, marks, subs in grid.groups
        for sub in subs
    ]
    rows = [[grid.stub[0], grid.stub[1], *columns]]
    for line in grid.lines:
        name = markdown_label(line.label) + _md_marks(line.marks) if line.height else ""
        cells = [_md_cell(cell) for group in line.groups for cell in group for _ in range(cell.span)]
        rows.append([name, markdown(line.sub_label), *cells])
    widths = [max(width(row[i]) for row in rows) for i in range(len(rows[0]))]
    rule = [":" + "-" * (size - 1) if i < 2 else "-" * (size - 1) + ":" for i, size in enumerate(widths)]
    aligns = ["left" if i < 2 else "right" for i in range(len(widths))]
    body = [[pad(text, size, align) for text, size, align in zip(row, widths, aligns, strict=True)] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [body[0], rule, *body[1:]])


def _md_cell(cell: Cell) -> str:
    value = {"best": f"**{cell.value}**", "second": f"<ins>{cell.value}</ins>"}.get(cell.rank, cell.value)
    return f"{value}{_tail(cell)}{_md_marks(cell.marks)}"


def _tail(cell: Cell) -> str:
    return (f" ± {cell.spread}" if cell.spread else "") + (f" ({cell.n})" if cell.n else "")


def _md_marks(marks: list[str]) -> str:
    return f"<sup>{','.join(marks)}</sup>" if marks else ""


def render_text(data: TableData, spec: TableSpec, max_width: int = TERMINAL_WIDTH) -> str:
    """Plain text for a terminal. A block wider than `max_width` columns continues in further tables below it.

    The explanations that blocks share are printed once, at the end.
    """
    grids = build_grids(data, spec)
    parts = [f"{clean(data.title)}"]
    for grid in grids:
        parts.append(f"{clean(grid.heading)}{_text_marks(grid.heading_marks)}")
        parts.append(_text_table(grid, max_width))
        notes = [clean(grid.conditions)] if grid.conditions else []
        notes += [f"{_text_marks([mark]).strip()} {clean(text)}" for mark, text in grid.footnotes]
        notes += [clean(f"{label}: {text}" if label else text) for label, text in grid.noise]
        parts.append(_wrapped(notes, max_width))
    shared = [dict.fromkeys(chain.from_iterable(part)) for part in zip(*(grid.caption for grid in grids), strict=True)]
    marks = emphasis(spec, "»", "›")
    sentences = [*chain.from_iterable(shared), *([marks] if marks else [])]
    parts.append(_wrapped([clean(sentence) for sentence in sentences], max_width))
    return "\n\n".join(parts) + "\n"


def _wrapped(lines: list[str], max_width: int) -> str:
    return "\n".join(textwrap.fill(line, max_width, initial_indent="  ", subsequent_indent="    ") for line in lines)


def _text_table(grid: Grid, max_width: int) -> str:
    stub = _text_stub(grid)
    tables: list[list[str]] = [stub]
    fresh = True
    for group in _text_groups(grid):
        if not fresh and width(tables[-1][2]) + 3 + width(group[2]) > max_width:
            tables.append(stub)
        fresh = False
        tables[-1] = [f"{left}   {right}" for left, right in zip(tables[-1], group, strict=True)]
    return "\n\n".join("\n".join(line.rstrip() for line in table) for table in tables)


def _text_stub(grid: Grid) -> list[str]:
    """The two label columns, one string for each line: group header, sub-header, rule, body."""
    names = [clean(line.label) + _text_marks(line.marks) if line.height else "" for line in grid.lines]
    columns = [[grid.stub[0], *names], [grid.stub[1], *(clean(line.sub_label) for line in grid.lines)]]
    widths = [max(width(text) for text in column) for column in columns]
    padded = [[pad(text, size) for text in column] for column, size in zip(columns, widths, strict=True)]
    rows = ["  ".join(row) for row in zip(*padded, strict=True)]
    return [" " * width(rows[0]), rows[0], "─" * width(rows[0]), *rows[1:]]


def _text_groups(grid: Grid) -> list[list[str]]:
    """For each column group the same lines as `_text_stub`, aligned on the printed value."""
    blocks = []
    for index, (label, marks, subs) in enumerate(grid.groups):
        cells = [[_nth(line.groups[index], i) for line in grid.lines] for i in range(len(subs))]
        columns = [_text_column(sub, column) for sub, column in zip(subs, cells, strict=True)]
        lines = ["  ".join(row) for row in zip(*columns, strict=True)]
        head = clean(label) + _text_marks(marks)
        size = max(width(head), width(lines[0]))
        blocks.append([pad(head, size), pad(lines[0], size), "─" * size, *(pad(line, size) for line in lines[1:])])
    return blocks


def _text_column(head: str, cells: list[Cell]) -> list[str]:
    """Head and body of one column: signs have their own place, values are right-aligned, what follows left-aligned."""
    signs = {"best": "»", "second": "›"}
    blank = " " if any(cell.rank for cell in cells) else ""
    size = max([width(cell.value) for cell in cells if cell.is_number], default=0)
    body = [
        signs.get(cell.rank, blank)
        + (pad(cell.value, size, "right") if cell.is_number else cell.value)
        + _tail(cell)
        + _text_marks(cell.marks)
        for cell in cells
    ]
    column = [blank + head, *body]
    whole = max(map(width, column))
    return [pad(text, whole) for text in column]


def _text_marks(marks: list[str]) -> str:
    return f" [{','.join(marks)}]" if marks else ""


def _nth(cells: list[Cell], index: int) -> Cell:
    """The cell that covers sub-column `index`; under a spanning token, all but the first are empty."""
    if cells[0].span > 1:
        return cells[0] if index == 0 else Cell("", is_number=False)
    return cells[index]
