"""From numbers to a grid that every format prints: header groups, stub, cells with marks, footnotes.

The grid holds raw text. Escaping, bold and underline are the business of the renderers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from bench.report import captions
from bench.report.aggregate import Aggregate, Block, TableData
from bench.report.spec import METRICS, TableSpec

# What stands in a cell without a value; a footnote says why.
NO_VALUE = "—"
UNMEASURED = "n/a"
UNMEASURED_NOTE = "not measured (AUC: the method has no score of the training samples at that epoch)"
TOKENS = {"diverged": "not converged", "unmeasured": UNMEASURED}
REASON_LENGTH = 160


@dataclass
class Cell:
    """One printed cell: `value` is the printed mean or a token, `spread` and `n` are '' when not printed.

    rank is 'best', 'second' or ''. span > 1 stands for equal tokens in that many columns of one group.
    """

    value: str
    spread: str = ""
    n: str = ""
    marks: list[str] = field(default_factory=list)
    rank: str = ""
    is_number: bool = True
    span: int = 1


@dataclass
class Line:
    """One printed row. `height` is the number of lines of the row's label, 0 on all but the first of them."""

    label: str
    marks: list[str]
    height: int
    sub_label: str
    groups: list[list[Cell]]


@dataclass
class Grid:
    """One table. groups: (column label, marks, sub-column labels); stub: heads of the label columns."""

    key: str
    heading: str
    heading_marks: list[str]
    stub: tuple[str, str]
    groups: list[tuple[str, list[str], tuple[str, ...]]]
    lines: list[Line]
    caption: list[list[str]]
    conditions: str
    footnotes: list[tuple[str, str]]
    noise: list[tuple[str, str]]

    @property
    def single_header(self) -> bool:
        """True when every group has the same lone metric, so that the second header row would say nothing."""
        return len({labels for _, _, labels in self.groups}) == 1 and len(self.groups[0][2]) == 1


def build_grids(data: TableData, spec: TableSpec) -> list[Grid]:
    return [_grid(data, block, spec) for block in data.blocks]


def caption_text(grid: Grid, spec: TableSpec) -> str:
    """The whole caption of a block for formats that have bold and underline."""
    marks = captions.emphasis(spec, "Bold", "underlined")
    return " ".join(filter(None, [*chain.from_iterable(grid.caption), marks, grid.conditions]))


def percent(fraction: float, digits: int) -> str:
    return f"{100 * fraction:.{digits}f}"


def _grid(data: TableData, block: Block, spec: TableSpec) -> Grid:
    methods = list(dict.fromkeys(o.entry["method"] for group in block.outcomes.values() for o in group))
    marks, footnotes = captions.method_notes(data, methods)
    heading = _label(data, spec.split_by, block.key)
    heading_marks = list(marks.get(block.key, [])) if spec.split_by == "method" else []
    note = captions.data_note(block)
    if note:
        heading_marks.append(captions.NON_CANONICAL_MARK)
        footnotes.append((captions.NON_CANONICAL_MARK, note))
    groups = [
        (
            _label(data, spec.columns, column),
            marks.get(column, []) if spec.columns == "method" else [],
            tuple(METRICS[metric].label for metric in block.metrics[column]),
        )
        for column in block.columns
    ]
    numbers: dict[str, str] = {}
    lines = _lines(data, block, spec, marks, numbers, mixed_data=note is None)
    footnotes += [(mark, text) for text, mark in numbers.items()]
    if any(item.status == "unmeasured" for item in block.aggregates.values()):
        footnotes.append((UNMEASURED, UNMEASURED_NOTE))
    return Grid(
        key=block.key,
        heading=heading,
        heading_marks=heading_marks,
        stub=(spec.rows.replace("dataset", "data set").capitalize(), "Protocol"),
        groups=groups,
        lines=lines,
        caption=captions.caption(block, spec),
        conditions=captions.conditions(block),
        footnotes=footnotes,
        noise=captions.noise_notes(block),
    )


def _lines(
    data: TableData,
    block: Block,
    spec: TableSpec,
    marks: Mapping[str, list[str]],
    numbers: dict[str, str],
    mixed_data: bool,
) -> list[Line]:
    ranks = rank_methods(block, spec)
    protocols = spec.shown_protocols
    sub_labels = [captions.protocol_label(protocol, block) for protocol in protocols]
    common_n = block.common_n
    lines = []
    for row in block.rows:
        for index, protocol in enumerate(protocols):
            groups = []
            for column in block.columns:
                cells = []
                for metric in block.metrics[column]:
                    item = block.aggregates[row, column, metric, protocol]
                    texts = list(item.reasons)
                    if mixed_data and item.n:
                        texts += _mixed_data_note(block, row, column)
                    cells.append(_cell(item, common_n, spec, texts, numbers))
                    cells[-1].rank = ranks.get((row, column, metric, protocol), "")
                groups.append(_merge_tokens(cells))
            lines.append(
                Line(
                    label=_label(data, spec.rows, row),
                    marks=marks.get(row, []) if spec.rows == "method" else [],
                    height=0 if index else len(protocols),
                    sub_label=sub_labels[index],
                    groups=groups,
                )
            )
    return lines


def _cell(
    item: Aggregate, common_n: int | None, spec: TableSpec, texts: Sequence[str], numbers: dict[str, str]
) -> Cell:
    """Format one aggregate and number its footnotes (`numbers`: text to mark, in order of appearance)."""
    if item.status == "unplanned":
        texts = ["not in the suite"]
    elif item.status == "unmeasured":
        texts = []  # the note on n/a says it; a seed that is absent besides has its mark in the other columns
    marks = [numbers.setdefault(_shortened(text), str(len(numbers) + 1)) for text in texts]
    if item.mean is None:
        return Cell(TOKENS.get(item.status, NO_VALUE), marks=marks, is_number=False)
    spread = percent(item.spread, spec.digits) if item.spread is not None and spec.spread != "none" else ""
    n = f"n={item.n}/{item.n_planned}" if item.n < item.n_planned else (f"n={item.n}" if common_n is None else "")
    return Cell(percent(item.mean, spec.digits), spread, n, marks)


def rank_methods(block: Block, spec: TableSpec) -> dict[tuple[str, str, str, str], str]:
    """'best' or 'second' by (row, column, metric, protocol), among methods, on printed values of complete aggregates.

    Best needs two competitors, second three: a mark among fewer would say nothing.
    """
    if "method" not in (spec.rows, spec.columns):
        return {}
    rivals: dict[tuple[str, str, str], dict[tuple[str, str, str, str], float]] = {}
    for at, item in block.aggregates.items():
        if item.status == "done" and item.mean is not None:
            row, column, metric, protocol = at
            against = column if spec.rows == "method" else row
            rivals.setdefault((against, metric, protocol), {})[at] = float(percent(item.mean, spec.digits))
    ranks: dict[tuple[str, str, str, str], str] = {}
    for values in rivals.values():
        if len(values) < 2:
            continue
        margin = spec.tie_margin + 1e-9  # the slack keeps 95.1 - 94.1 within a margin of 1.0 in binary
        top = max(values.values())
        best = {at for at, value in values.items() if value >= top - margin}
        rest = {at: value for at, value in values.items() if at not in best}
        if spec.bold_best:
            ranks.update(dict.fromkeys(best, "best"))
        if spec.underline_second and rest and len(values) > 2:
            ranks.update({at: "second" for at, value in rest.items() if value == max(rest.values())})
    return ranks


def _merge_tokens(cells: list[Cell]) -> list[Cell]:
    """One spanning cell where a whole group has the same token and marks ('not converged' over acc. and worst)."""
    first = cells[0]
    if len(cells) > 1 and all(not c.is_number and (c.value, c.marks) == (first.value, first.marks) for c in cells):
        first.span = len(cells)
        return [first]
    return cells


def _mixed_data_note(block: Block, row: str, column: str) -> list[str]:
    records = [outcome.record for outcome in block.outcomes[row, column] if outcome.done and outcome.record is not None]
    number = sum(captions.non_canonical(record) for record in records)
    return [f"non-canonical data ({number} of {len(records)} seeds)"] if number else []


def _label(data: TableData, axis: str, key: str) -> str:
    return data.methods[key].label if axis == "method" else key


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= REASON_LENGTH else text[: REASON_LENGTH - 1].rstrip() + "…"
