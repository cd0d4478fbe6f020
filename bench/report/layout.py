"""From numbers to a grid that every format prints: header groups, stub, cells with marks, footnotes.

The grid holds raw text. Escaping, bold and underline are the business of the renderers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from bench.report import captions
from bench.report.aggregate import Aggregate, Block, Outcome, TableData
from bench.report.spec import METRICS, TableSpec

# What stands in a cell without a value; a footnote says why.
NO_VALUE = "—"
UNMEASURED = "n/a"
UNMEASURED_NOTE = "not measured (AUC: the method has no score of the training samples at that epoch)"
TOKENS = {"diverged": "not converged", "unmeasured": UNMEASURED}
REASON_LENGTH = 160
K = TypeVar("K")


@dataclass
class Cell:
    """One printed cell: `value` is the printed mean or a token, `spread` and `n` are '' when not printed.

    rank is 'best', 'second' or ''. span > 1 stands for equal tokens in that many columns of one group. `after` is a
    second number of the cell (top-5 behind top-1), `note` what is printed small behind it (the published number),
    `quoted` a value that a paper prints, where the others are measured.
    """

    value: str
    spread: str = ""
    n: str = ""
    marks: list[str] = field(default_factory=list)
    rank: str = ""
    is_number: bool = True
    span: int = 1
    after: str = ""
    note: str = ""
    quoted: bool = False

    @property
    def tail(self) -> str:
        return (f" ± {self.spread}" if self.spread else "") + (f" ({self.n})" if self.n else "")


@dataclass
class Label:
    """One cell of the label columns; True prints a check mark. It spans `height` lines, 0 where one above covers it."""

    text: str | bool
    marks: list[str] = field(default_factory=list)
    height: int = 1
    subscript: str = ""


@dataclass
class Head:
    """One cell of a header row above `span` columns."""

    text: str
    span: int = 1
    marks: list[str] = field(default_factory=list)


@dataclass
class Line:
    """One printed row. above: '', 'gap' (a new group of lines) or 'rule'. The spans of `cells` fill the columns."""

    labels: list[Label]
    cells: list[Cell]
    above: str = ""


@dataclass
class Part:
    """Header rows, widest heads first, and the lines below them.

    stub: for each header row the heads of the label columns. constant: the last header row says the same everywhere
    and the caption says it too, so that formats short of room leave it out.
    """

    stub: list[tuple[str, ...]]
    heads: list[list[Head]]
    lines: list[Line]
    heading: str = ""
    constant: bool = False

    @property
    def shown(self) -> list[tuple[tuple[str, ...], list[Head]]]:
        """Label heads and heads of each header row without a constant last one."""
        last = len(self.heads) - 1 if self.constant else len(self.heads)
        return list(zip(self.stub[-last:], self.heads[:last], strict=True))

    @property
    def size(self) -> int:
        """The number of columns beside the label columns."""
        return sum(head.span for head in self.heads[-1])


@dataclass
class Grid:
    """One table: parts below each other with equal columns, a caption and notes. `emphasis` has {best}, {second}."""

    key: str
    heading: str
    heading_marks: list[str]
    parts: list[Part]
    caption: list[list[str]]
    emphasis: str
    conditions: str
    footnotes: list[tuple[str, str]]
    noise: list[tuple[str, str]]

    @property
    def lines(self) -> list[Line]:
        return [line for part in self.parts for line in part.lines]

    def emphasis_in(self, best: str, second: str) -> str:
        """What the marks mean, in the words of a format."""
        return self.emphasis.replace("{best}", best).replace("{second}", second)


@dataclass
class Sheet:
    """A title and its tables. `name` begins their LaTeX labels; `rows` makes the lines of the CSV, the first is its head."""

    name: str
    title: str
    grids: list[Grid]
    rows: Callable[[], Iterable[Sequence[object]]]


def build_grids(data: TableData, spec: TableSpec) -> list[Grid]:
    return [_grid(data, block, spec) for block in data.blocks]


def caption_text(grid: Grid) -> str:
    """The whole caption of a block for formats that have bold and underline."""
    marks = grid.emphasis_in("Bold", "underlined")
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
    upper = [
        Head(
            _label(data, spec.columns, column),
            len(block.metrics[column]),
            marks.get(column, []) if spec.columns == "method" else [],
        )
        for column in block.columns
    ]
    lower = [Head(METRICS[metric].label) for column in block.columns for metric in block.metrics[column]]
    stub = (spec.rows.replace("dataset", "data set").capitalize(), "Protocol")
    numbers: dict[str, str] = {}
    lines = _lines(data, block, spec, marks, numbers, mixed_data=note is None)
    footnotes += [(mark, text) for text, mark in numbers.items()]
    if any(item.status == "unmeasured" for item in block.aggregates.values()):
        footnotes.append((UNMEASURED, UNMEASURED_NOTE))
    return Grid(
        key=block.key,
        heading=heading,
        heading_marks=heading_marks,
        parts=[Part([("", ""), stub], [upper, lower], lines, constant=len(set(block.metrics.values())) == 1 == upper[0].span)],
        caption=captions.caption(block, spec),
        emphasis=captions.emphasis(spec, "{best}", "{second}") or "",
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
    lines: list[Line] = []
    for row in block.rows:
        for index, protocol in enumerate(protocols):
            line: list[Cell] = []
            for column in block.columns:
                cells = []
                for metric in block.metrics[column]:
                    item = block.aggregates[row, column, metric, protocol]
                    texts = list(item.reasons)
                    if mixed_data and item.n:
                        texts += mixed_data_note(block.outcomes[row, column])
                    cells.append(cell_of(item, common_n, spec, texts, numbers))
                    cells[-1].rank = ranks.get((row, column, metric, protocol), "")
                line += merge_tokens(cells)
            name = Label(
                _label(data, spec.rows, row),
                marks.get(row, []) if spec.rows == "method" else [],
                0 if index else len(protocols),
            )
            lines.append(Line([name, Label(sub_labels[index])], line, "gap" if lines and not index else ""))
    return lines


def cell_of(
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
    """'best' or 'second' by (row, column, metric, protocol), among methods, on printed values of complete aggregates."""
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
        ranks.update(rank(values, spec.bold_best, spec.underline_second, spec.tie_margin))
    return ranks


def rank(values: Mapping[K, float], best: bool, second: bool, margin: float) -> dict[K, str]:
    """'best' or 'second' for the printed values that deserve it. Best needs two
    competitors, second three: a mark among fewer would say nothing."""
    if len(values) < 2:
        return {}
    margin += 1e-9  # the slack keeps 95.1 - 94.1 within a margin of 1.0 in binary
    top = max(values.values())
    first = {at for at, value in values.items() if value >= top - margin}
    rest = {at: value for at, value in values.items() if at not in first}
    ranks = dict.fromkeys(first, "best") if best else {}
    if second and rest and len(values) > 2:
        ranks.update({at: "second" for at, value in rest.items() if value == max(rest.values())})
    return ranks


def merge_tokens(cells: list[Cell]) -> list[Cell]:
    """One spanning cell where a whole group has the same token and marks ('not converged' over acc. and worst)."""
    first = cells[0]
    same = all((cell.value, cell.marks, cell.note) == (first.value, first.marks, first.note) for cell in cells)
    if len(cells) > 1 and same and not first.is_number:
        first.span = len(cells)
        return [first]
    return cells


def mixed_data_note(outcomes: Iterable[Outcome]) -> list[str]:
    records = [outcome.record for outcome in outcomes if outcome.done and outcome.record is not None]
    number = sum(captions.non_canonical(record) for record in records)
    return [f"non-canonical data ({number} of {len(records)} seeds)"] if number else []


def _label(data: TableData, axis: str, key: str) -> str:
    return data.methods[key].label if axis == "method" else key


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= REASON_LENGTH else text[: REASON_LENGTH - 1].rstrip() + "…"
