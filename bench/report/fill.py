"""A layout filled with numbers: those of a paper, those of records, or both beside each other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bench.report.blueprint import KEYS, Column, Layout, Marks, Row, Section, SubRow, cell_keys, matches
from bench.report.escape import clean
from bench.report.layout import Cell, Head, Label, Line, Part, merge_tokens, rank
from bench.report.published import Published, published

DASH = "–"
NOT_CONVERGED = "Not converged"
#: tokens that one cell says for all columns below a head
MERGED = (NOT_CONVERGED, "not converged")
CSV_FIELDS = (
    "block", "row", *KEYS, "source", "value", "spread", "n", "n_planned", "status", "unit", "mark", "published", "difference",
    "suite_dataset", "suite_noise", "suite_method", "suite_metric", "protocol", "reason",
)  # fmt: skip


@dataclass
class Filled:
    """One cell: what is printed, the number that competes for marks, the lines of the CSV."""

    cell: Cell
    keys: dict[str, str]
    number: float | None = None
    lines: list[dict[str, object]] = field(default_factory=list)


Fill = Callable[[Row, SubRow, Column], Filled]
LabelOf = Callable[[Row], tuple[list[str], list[str]]]


@functools.cache
def printed(paper: str, table: str) -> dict[tuple[str, ...], Published]:
    """The published numbers of a table by their `KEYS`."""
    return {
        (item.dataset, item.noise, item.rate, item.method_slug, item.setting, item.metric): item
        for item in published()
        if (item.paper, item.table) == (paper, table)
    }


def published_number(layout: Layout, keys: dict[str, str], metric: str = "") -> Published | None:
    """What the paper prints in the cell, or, with `metric`, in the parentheses behind it."""
    wanted = {**keys, "metric": metric or keys["metric"]}
    return printed(layout.paper, layout.table).get(tuple(wanted[key] for key in KEYS)) if layout.paper else None


def quoted_cell(layout: Layout, row: Row, sub: SubRow, column: Column) -> Filled:
    """The cell as the paper prints it: the digits of the CSV as text, a dash where it has none."""
    keys = cell_keys(row, sub, column)
    found = published_number(layout, keys)
    if found is None:
        line: dict[str, object] = {**keys, "source": "published", "status": "absent"}
        return Filled(Cell(DASH, is_number=False), keys, lines=[line])
    line = {**keys, "source": "published", "value": found.value, "unit": found.unit, "published": found.value}
    line |= {"status": "done" if found.value else "diverged"}
    if not found.value:
        return Filled(Cell(NOT_CONVERGED, is_number=False), keys, lines=[line])
    cell = Cell(found.value, marks=stars(layout, keys))
    lines = [line]
    beside = published_number(layout, keys, column.beside) if column.beside else None
    if beside is not None:
        cell.after = f"({beside.value})"
        lines.append({**line, "metric": column.beside, "value": beside.value, "published": beside.value})
    return Filled(cell, keys, float(found.value), lines)


def stars(layout: Layout, keys: dict[str, str]) -> list[str]:
    return [mark for mark, match in layout.starred if matches(match, keys)]


def build_part(
    layout: Layout, section: Section, fill: Fill, label: LabelOf, as_printed: bool
) -> tuple[Part, list[dict[str, object]]]:
    """The printed block, and its lines of the CSV. `as_printed`: bold as the source has it, where the layout says so."""
    filled = [[[fill(row, sub, column) for column in section.columns] for sub in layout.sub_rows] for row in section.rows]
    _mark(layout.marks, section, filled, as_printed)
    records = [
        {"block": section.heading, "row": row.name, **line, "mark": "" if n else item.cell.rank}  # the number beside has no rank
        for row, lines in zip(section.rows, filled, strict=True) for cells in lines for item in cells
        for n, line in enumerate(item.lines)
    ]  # fmt: skip
    return Part(*_header(section), _lines(layout, section, filled, label), section.heading), records


def csv_lines(records: Iterable[dict[str, object]]) -> list[Sequence[object]]:
    return [CSV_FIELDS, *([clean(record.get(name, "")) for name in CSV_FIELDS] for record in records)]


def _mark(marks: Marks, section: Section, filled: list[list[list[Filled]]], as_printed: bool) -> None:
    if as_printed and marks.printed is not None:
        for item in (item for lines in filled for cells in lines for item in cells):
            if item.cell.is_number and any(matches(match, item.keys) for match in marks.printed):
                item.cell.rank = "best"
        return
    rivals: dict[tuple[int, int, int], dict[int, Filled]] = {}
    for i, (row, lines) in enumerate(zip(section.rows, filled, strict=True)):
        group = row.group if marks.within == "group" else 0
        for sub, cells in enumerate(lines):
            for column, item in enumerate(cells):
                if row.ranked and item.number is not None:
                    rivals.setdefault((group, sub, column), {})[i] = item
    for items in rivals.values():
        numbers = {i: item.number for i, item in items.items() if item.number is not None}
        for i, name in rank(numbers, marks.best, marks.second, marks.margin).items():
            items[i].cell.rank = name


def _header(section: Section) -> tuple[list[tuple[str, ...]], list[list[Head]]]:
    """Label heads and heads by header row; neighbours with the same head share one."""
    heads: list[list[Head]] = []
    for level in range(len(section.columns[0].path)):
        heads.append([])
        before = None
        for column in section.columns:
            identity, text = column.path[level]
            if identity == before:
                heads[-1][-1].span += 1
            else:
                heads[-1].append(Head(text))
            before = identity
    return [tuple(texts[level] for texts in section.stub) for level in range(len(heads))], heads


def _lines(layout: Layout, section: Section, filled: list[list[list[Filled]]], label: LabelOf) -> list[Line]:
    lines: list[Line] = []
    group = section.rows[0].group
    subs = len(layout.sub_rows)
    for i, row in enumerate(section.rows):
        above = "rule" if row.group != group else "gap" if lines and subs > 1 else ""
        group = row.group
        venue_marks, marks = label(row)
        for number, sub in enumerate(layout.sub_rows):
            labels = [_label(section, i, at, number, subs) for at in range(len(row.labels))]
            if not number:
                at = max((k for k, text in enumerate(row.labels) if text), default=0) if _checks(row) else 0
                labels[at].marks = [*venue_marks, *marks]
                labels[at].subscript = row.venue
            labels += [Label(sub.label)] if sub.label or subs > 1 else []
            lines.append(Line(labels, _merged(section, [item.cell for item in filled[i][number]]), "" if number else above))
    return lines


def _checks(row: Row) -> bool:
    return all(isinstance(text, bool) for text in row.labels)


def _label(section: Section, row: int, at: int, sub: int, subs: int) -> Label:
    """The label of a line: it spans the sub-rows, and the rows below it that have None in its place."""
    text = section.rows[row].labels[at]
    if sub or (text is None and row):
        return Label("", height=0)
    below = row + 1
    while below < len(section.rows) and section.rows[below].labels[at] is None:
        below += 1
    return Label("" if text is None else text, height=(below - row) * subs)


def _merged(section: Section, cells: list[Cell]) -> list[Cell]:
    """Cells below one head that all say 'Not converged' become one."""
    groups: dict[tuple[tuple[int, str], ...], list[Cell]] = {}
    for column, cell in zip(section.columns, cells, strict=True):
        groups.setdefault(column.path[:-1] or column.path, []).append(cell)
    return [cell for group in groups.values() for cell in (merge_tokens(group) if group[0].value in MERGED else group)]
