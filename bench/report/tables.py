"""Render aggregated results as Markdown, LaTeX, CSV, HTML or terminal text. Same input, same bytes; no dates."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from bench.report.aggregate import TableData
from bench.report.escape import clean, markdown, markdown_label, pad, width
from bench.report.layout import Cell, Head, Label, Part, Sheet, build_grids, caption_text
from bench.report.spec import FORMATS, TableSpec, nearest

CSV_FIELDS = (
    "dataset", "noise", "method", "metric", "protocol", "mean", "spread", "n", "n_planned", "status", "unit", "reason",
)  # fmt: skip
TERMINAL_WIDTH = 130


def render(data: TableData, spec: TableSpec, fmt: str) -> str:
    """The table in one of `FORMATS`: 'md', 'tex', 'csv', 'html' or 'text' (terminal). Ends with a line feed.

    Raises ValueError for another format.
    """
    return render_sheet(build_sheet(data, spec), fmt)


def build_sheet(data: TableData, spec: TableSpec) -> Sheet:
    """What every format prints: by the axes of the specification, or by its layout."""
    if spec.filling is not None:
        from bench.report.measure import measured_sheet

        return measured_sheet(data, spec)
    return Sheet(data.suite, data.title, build_grids(data, spec), lambda: csv_rows(data, spec))


def render_sheet(sheet: Sheet, fmt: str) -> str:
    """As `render`, of a sheet that has been built."""
    if fmt not in FORMATS:
        raise ValueError(f"unknown table format {fmt!r}{nearest(fmt, FORMATS)}")
    if fmt == "tex":
        from bench.report.latex import render_tex

        return render_tex(sheet)
    if fmt == "html":
        from bench.report.page import render_html

        return render_html(sheet)
    return {"md": render_md, "csv": render_csv, "text": render_text}[fmt](sheet)


def render_csv(sheet: Sheet) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(sheet.rows())
    return out.getvalue()


def csv_rows(data: TableData, spec: TableSpec) -> Iterator[Sequence[object]]:
    """Tidy long form: one line for each aggregate, means and spreads as fractions with all their digits.

    `method` is the plan's row label, `spread` the sample standard deviation (empty below two seeds), `unit` is
    'fraction', `status` as in `Aggregate`, `reason` the footnote text.
    """
    yield CSV_FIELDS
    for block in data.blocks:
        for (row, column, metric, protocol), item in block.aggregates.items():
            axes = {spec.split_by: block.key, spec.rows: row, spec.columns: column}
            values = ["" if value is None else repr(value) for value in (item.mean, item.spread)]
            yield (
                [clean(axes["dataset"]), clean(axes["noise"]), clean(axes["method"]), metric, protocol, *values]
                + [item.n, item.n_planned, item.status, "fraction", clean("; ".join(item.reasons))]
            )  # fmt: skip


def render_md(sheet: Sheet) -> str:
    """GitHub-flavoured Markdown: a heading, a table, its caption and notes for each block."""
    parts = [f"# {markdown(sheet.title)}"]
    for grid in sheet.grids:
        if grid.heading or grid.heading_marks:
            parts.append(f"## {markdown(grid.heading)}{_md_marks(grid.heading_marks)}")
        for part in grid.parts:
            parts += [f"**{markdown(part.heading)}**"] if part.heading else []
            parts.append(_md_table(part))
        parts.append(markdown(caption_text(grid)))
        if grid.footnotes:
            parts.append("\n".join(f"- {_md_marks([mark])} {markdown(text)}" for mark, text in grid.footnotes))
        labels = [f"{markdown_label(label)}: " if label else "" for label, _ in grid.noise]
        if grid.noise:
            parts.append("\n".join(f"- {label}{markdown(t)}" for label, (_, t) in zip(labels, grid.noise, strict=True)))
    return "\n\n".join(parts) + "\n"


def _md_table(part: Part) -> str:
    """Markdown has one header row: the heads above a column stand in one cell, below each other."""
    levels = [[_md_head(head) for head in heads for _ in range(head.span)] for _, heads in part.shown]
    stubs = [[markdown_label(text) for text in texts] for texts, _ in part.shown]
    rows = [["<br>".join(filter(None, column)) for column in zip(*level, strict=True)] for level in (stubs, levels)]
    rows = [rows[0] + rows[1]]
    for line in part.lines:
        cells = [_md_cell(cell) for cell in line.cells for _ in range(cell.span)]
        rows.append([*map(_md_label, line.labels), *cells])
    stub = len(part.stub[0])
    widths = [max(width(row[i]) for row in rows) for i in range(len(rows[0]))]
    rule = [":" + "-" * (size - 1) if i < stub else "-" * (size - 1) + ":" for i, size in enumerate(widths)]
    aligns = ["left" if i < stub else "right" for i in range(len(widths))]
    body = [[pad(text, size, align) for text, size, align in zip(row, widths, aligns, strict=True)] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [body[0], rule, *body[1:]])


def _md_head(head: Head) -> str:
    return markdown_label(head.text) + _md_marks(head.marks)


def _md_label(label: Label) -> str:
    if not label.height:
        return ""
    text = "✓" * label.text if isinstance(label.text, bool) else markdown_label(label.text)
    return text + (f" <sub>{markdown(label.subscript)}</sub>" if label.subscript else "") + _md_marks(label.marks)


def _md_cell(cell: Cell) -> str:
    value = f"*{cell.value}*" if cell.quoted else cell.value
    value = {"best": f"**{value}**", "second": f"<ins>{value}</ins>"}.get(cell.rank, value)
    return f"{value}{_tail(cell, markdown)}{_md_marks(cell.marks)}"


def _tail(cell: Cell, escape: Callable[[str], str]) -> str:
    return cell.tail + (f" {escape(cell.after)}" if cell.after else "") + (f" ({escape(cell.note)})" if cell.note else "")


def _md_marks(marks: list[str]) -> str:
    return f"<sup>{markdown(','.join(marks))}</sup>" if marks else ""


def render_text(sheet: Sheet, max_width: int = TERMINAL_WIDTH) -> str:
    """Plain text for a terminal. A block wider than `max_width` columns continues in further tables below it.

    The explanations that blocks share are printed once, at the end.
    """
    parts = [f"{clean(sheet.title)}"]
    for grid in sheet.grids:
        if grid.heading or grid.heading_marks:
            parts.append(f"{clean(grid.heading)}{_text_marks(grid.heading_marks)}")
        for part in grid.parts:
            parts += [clean(part.heading)] if part.heading else []
            parts.append(_text_table(part, max_width))
        notes = [clean(grid.conditions)] if grid.conditions else []
        notes += [f"{_text_marks([mark]).strip()} {clean(text)}" for mark, text in grid.footnotes]
        notes += [clean(f"{label}: {text}" if label else text) for label, text in grid.noise]
        parts += [_wrapped(notes, max_width)] if notes else []
    shared = [dict.fromkeys(chain.from_iterable(part)) for part in zip(*(grid.caption for grid in sheet.grids), strict=True)]
    marks = dict.fromkeys(grid.emphasis_in("»", "›") for grid in sheet.grids if grid.emphasis)
    parts.append(_wrapped([clean(sentence) for sentence in [*chain.from_iterable(shared), *marks]], max_width))
    return "\n\n".join(parts) + "\n"


def _wrapped(lines: list[str], max_width: int) -> str:
    return "\n".join(textwrap.fill(line, max_width, initial_indent="  ", subsequent_indent="    ") for line in lines)


def _text_table(part: Part, max_width: int) -> str:
    stub = _text_stub(part)
    tables: list[list[str]] = [stub]
    fresh = True
    for group in _text_groups(part):
        if not fresh and width(tables[-1][0]) + 3 + width(group[0]) > max_width:
            tables.append(stub)
        fresh = False
        tables[-1] = [f"{left}   {right}" for left, right in zip(tables[-1], group, strict=True)]
    return "\n\n".join("\n".join(line.rstrip() for line in _text_rules(part, table)) for table in tables)


def _text_rules(part: Part, table: list[str]) -> list[str]:
    """The lines with a rule below the header rows and wherever the part asks for one."""
    depth = len(part.heads)
    lines = table[: depth + 1]
    for index, (line, text) in enumerate(zip(part.lines, table[depth + 1 :], strict=True)):
        lines += [table[depth]] * (line.above == "rule" and index > 0) + [text]
    return lines


def _text_stub(part: Part) -> list[str]:
    """The label columns, one string for each line: header rows, rule, body."""
    columns = [
        [*(clean(texts[i]) for texts in part.stub), *(_text_label(line.labels[i]) for line in part.lines)]
        for i in range(len(part.stub[0]))
    ]
    widths = [max(width(text) for text in column) for column in columns]
    padded = [[pad(text, size) for text in column] for column, size in zip(columns, widths, strict=True)]
    rows = ["  ".join(row) for row in zip(*padded, strict=True)]
    depth = len(part.heads)
    return [*rows[:depth], "─" * width(rows[0]), *rows[depth:]]


def _text_label(label: Label) -> str:
    if not label.height:
        return ""
    text = "✓" * label.text if isinstance(label.text, bool) else clean(label.text)
    return text + (f" ({clean(label.subscript)})" if label.subscript else "") + _text_marks(label.marks)


def _text_groups(part: Part) -> list[list[str]]:
    """For each head of the first row the same lines as `_text_stub`, aligned on the printed value."""
    cells = [_columns_of(line.cells) for line in part.lines]
    blocks = [
        (1, _text_column(clean(head.text) + _text_marks(head.marks), [row[i] for row in cells]))
        for i, head in enumerate(part.heads[-1])
    ]
    for heads in reversed(part.heads[:-1]):
        below, blocks = iter(blocks), []
        for head in heads:
            under: list[list[str]] = []
            filled = 0
            while filled < head.span:
                span, lines = next(below)
                under.append(lines)
                filled += span
            joined = ["  ".join(row) for row in zip(*under, strict=True)]
            text = clean(head.text) + _text_marks(head.marks)
            size = max(width(text), width(joined[0]))
            blocks.append((filled, [pad(line, size) for line in [text, *joined]]))
    depth = len(part.heads)
    return [[*lines[:depth], "─" * width(lines[0]), *lines[depth:]] for _, lines in blocks]


def _text_column(head: str, cells: list[Cell]) -> list[str]:
    """Head and body of one column: signs have their own place, values are right-aligned, what follows left-aligned."""
    signs = {"best": "»", "second": "›"}
    blank = " " if any(cell.rank for cell in cells) else ""
    size = max([width(cell.value) for cell in cells if cell.is_number], default=0)
    body = [
        signs.get(cell.rank, blank)
        + (pad(cell.value, size, "right") if cell.is_number else cell.value)
        + _tail(cell, clean)
        + _text_marks(cell.marks)
        for cell in cells
    ]
    column = [blank + head, *body]
    whole = max(map(width, column))
    return [pad(text, whole) for text in column]


def _text_marks(marks: list[str]) -> str:
    return f" [{clean(','.join(marks))}]" if marks else ""


def _columns_of(cells: list[Cell]) -> list[Cell]:
    """One cell for each column: under a spanning token, all but the first are empty."""
    blank = Cell("", is_number=False)
    return [cell if index == 0 else blank for cell in cells for index in range(cell.span)]
