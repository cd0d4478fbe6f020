"""A layout as it has been parsed: blocks of nested columns and rows, and what marks, values and averages they have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.report.spec import METRICS

#: what tells one number from another, in `published.csv` and in a layout
KEYS = ("dataset", "noise", "rate", "method", "setting", "metric")
CELL_KEYS = tuple(key for key in KEYS if key != "method")
RULE = "---"
AVERAGES = ("unrounded", "rounded")
WITHIN = ("column", "group")
#: what a metric of a layout is in records, unless the layout or the suite says otherwise
VALUES: dict[str, tuple[str, str]] = {
    "accuracy": ("test_acc", "last"), "avg": ("test_acc", "last"), "worst": ("worst_group_acc", "last"),
    "top1": ("test_acc", "last"), "top5": ("test_top5_acc", "last"), "best": ("test_acc", "best_oracle"),
    "last": ("test_acc", "last"), "last10": ("test_acc", "last_k"), "selected": ("test_acc", "selected"),
    **{metric: (metric, "last") for metric in METRICS},
}  # fmt: skip


@dataclass(frozen=True)
class Marks:
    """Which numbers stand out. `printed`: matches of the cells that the source prints bold, instead of the best."""

    best: bool = True
    second: bool = False
    margin: float = 0.0
    within: str = "column"
    printed: tuple[Mapping[str, str], ...] | None = None


@dataclass(frozen=True)
class Column:
    """One printed column. path: (identity, text) by header row, from the widest head to its own.

    average: '' or one of `AVERAGES`; named: the averaged columns, of: their positions in the block. beside: metric of the number
    in parentheses. value, beside_value: what is read from records for the two; take: data set and noise of the suite.
    """

    path: tuple[tuple[int, str], ...]
    keys: Mapping[str, str]
    average: str = ""
    named: tuple[str, ...] = ()
    of: tuple[int, ...] = ()
    beside: str = ""
    value: tuple[str, str] | None = None
    take: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    beside_value: tuple[str, str] | None = None

    @property
    def label(self) -> str:
        return " / ".join(text for _, text in self.path if text)


@dataclass(frozen=True)
class SubRow:
    label: str
    keys: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """One row (several lines with sub-rows). A label is text, a check mark or not, or None: the one above spans it.

    titled: the layout gives the label, else it is the title of the method. marks are about the method, published_marks about the
    numbers that the paper prints for it."""

    labels: tuple[str | bool | None, ...]
    keys: Mapping[str, str]
    name: str
    venue: str = ""
    marks: tuple[str, ...] = ()
    note: str = ""
    ranked: bool = True
    group: int = 0
    titled: bool = True
    published_marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A block: header, rows. stub: for each label column its texts by header row."""

    heading: str
    stub: tuple[tuple[str, ...], ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Layout:
    title: str
    paper: str
    table: str
    caption: tuple[str, ...]
    decimals: int
    values: Mapping[str, tuple[str, str]]
    noises: Mapping[str, tuple[str, ...]]
    marks: Marks
    footnotes: Mapping[str, str]
    starred: tuple[tuple[str, Mapping[str, str]], ...]
    sub_rows: tuple[SubRow, ...]
    sections: tuple[Section, ...]

    def row_names(self) -> list[str]:
        return list(dict.fromkeys(row.name for section in self.sections for row in section.rows))

    def cells(self) -> list[dict[str, str]]:
        """The keys of every cell that is not an average."""
        return [
            cell_keys(row, sub, column)
            for section in self.sections for row in section.rows for sub in self.sub_rows for column in section.columns
            if not column.average
        ]  # fmt: skip

    def metrics(self) -> list[str]:
        """The metrics that its cells ask for, in the order of their first use."""
        beside = [column.beside for section in self.sections for column in section.columns if column.beside]
        return list(dict.fromkeys([*(cell["metric"] for cell in self.cells()), *beside]))


def cell_keys(row: Row, sub: SubRow, column: Column) -> dict[str, str]:
    """All `KEYS` of one cell; '' where nothing says it, 'accuracy' for the metric."""
    keys = {**row.keys, **sub.keys, **column.keys}
    return {**dict.fromkeys(KEYS, ""), "metric": "accuracy", **keys}


def matches(match: Mapping[str, str], cell: Mapping[str, str]) -> bool:
    """Whether a cell has all keys of a match."""
    return all(cell.get(key, "") == value for key, value in match.items())
