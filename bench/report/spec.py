"""What a table shows: the specification, its vocabulary, and its validation.

A `TableSpec` is plain data. It comes from the `table:` section of a suite through `TableSpec.from_dict`, or from Python
through the constructor followed by `validate`. Both raise `ValueError` with a message that names the key, the valid
choices and the nearest one.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

AXES = ("method", "noise", "dataset")
SPREADS = ("std", "none")
FORMATS = ("md", "tex", "csv", "html", "text")


@dataclass(frozen=True)
class Metric:
    """A measured quantity, higher is better. `label` heads a column, `meaning` goes into the caption."""

    label: str
    meaning: str


METRICS: dict[str, Metric] = {
    "test_acc": Metric("acc.", "accuracy on the test split"),
    "worst_group_acc": Metric("worst", "test accuracy of the group on which it is lowest, found for each seed"),
    "adjusted_acc": Metric("adj.", "test accuracy of the groups, weighted by their shares of the training set"),
    "test_top5_acc": Metric("top-5", "share of test images whose class is among the five most probable"),
    "test2_acc": Metric("acc. 2", "accuracy on the second test set"),
    "test2_top5_acc": Metric("top-5 2", "top-5 accuracy on the second test set"),
    "noise_auc": Metric(
        "AUC",
        "how well the method's clean score tells rightly from wrongly labelled training samples "
        "(area under the ROC curve times 100; 50 is chance)",
    ),
    "val_acc": Metric("val. acc.", "accuracy on the validation split, against its given labels"),
}
# Shown unless the specification asks otherwise. Validation accuracy is left out: it is measured against noisy labels,
# so beside test accuracy it invites a comparison that means nothing; the adjusted average is for comparison with papers
# that print it.
DEFAULT_METRICS = ("test_acc", "worst_group_acc", "test_top5_acc", "test2_acc", "test2_top5_acc", "noise_auc")


@dataclass(frozen=True)
class Protocol:
    """How the epoch of a reported value is chosen.

    In the texts `{k}` stands for the number of averaged epochs and `{val}` for the kind of validation labels.
    """

    label: str
    meaning: str


PROTOCOLS: dict[str, Protocol] = {
    "last": Protocol("last", "after the last epoch"),
    "last_k": Protocol("last {k}", "mean of the last {k} epochs"),
    "best_oracle": Protocol(
        "best (oracle)",
        "at the epoch with the highest test accuracy, which only an oracle that sees the test labels can choose",
    ),
    "selected": Protocol(
        "selected",
        "at the epoch with the highest accuracy on validation data ({val})",
    ),
}
#: short names of protocols, as `--protocol` and `values` take them
SHORT = {"best": "best_oracle", "last10": "last_k"}
DEFAULT_PROTOCOLS = ("last", "best_oracle", "selected")


class SpecError(ValueError):
    """A value of a table section or a layout that cannot be used: where it stands, and what would be valid."""

    def __init__(self, path: tuple[Any, ...], message: str) -> None:
        self.path = path
        self.message = message
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
        super().__init__(f"{place}: {message}" if place else message)


@dataclass(frozen=True)
class Filling:
    """A layout and how records fill it.

    rows: name of a row of the layout -> label of a method in the suite. columns: (keys of columns, what to take: data
    set, noise, value). values: metric of the layout -> (metric, protocol) of records. published: print the paper's
    number beside the measured one. protocol: one for all values, instead of their own.
    """

    layout: Any
    rows: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[tuple[Mapping[str, str], Mapping[str, Any]], ...] = ()
    values: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    published: bool = False
    protocol: str | None = None


@dataclass(frozen=True)
class TableSpec:
    """Rows, columns, metrics, protocols and marks of a results table.

    Args:
        title: heading of the table; None takes the name of the suite.
        rows, columns, split_by: which of `AXES` runs down, across, and over blocks; each axis exactly once.
        metrics: names in `METRICS`, in printed order; None shows those of `DEFAULT_METRICS` that the records have.
        protocols: names in `PROTOCOLS`, in printed order.
        primary: the protocol that stands for a method where only one value has room (`dense`); None takes the first.
        spread: 'std' prints the sample standard deviation over seeds (ddof = 1), 'none' prints means alone.
        digits: decimals of printed percentages, 0 to 6.
        bold_best: mark the best method of a column, for each protocol apart.
        underline_second: mark the second best likewise.
        tie_margin: percentage points within which a value counts as equal to the best.
        dense: one line for each method: the primary protocol alone.
        filling: a layout with its own rows, columns and marks, and how it is filled; None for tables by axes.
    """

    title: str | None = None
    rows: str = "method"
    columns: str = "noise"
    split_by: str = "dataset"
    metrics: tuple[str, ...] | None = None
    protocols: tuple[str, ...] = DEFAULT_PROTOCOLS
    primary: str | None = None
    spread: str = "std"
    digits: int = 1
    bold_best: bool = True
    underline_second: bool = True
    tie_margin: float = 0.0
    dense: bool = False
    filling: Filling | None = None

    @classmethod
    def from_dict(cls, section: Mapping[str, Any] | None, where: str = "table") -> TableSpec:
        """The specification written as a mapping (None or empty gives the default). `where` prefixes error messages.

        A single metric or protocol may be given as a bare name. Raises ValueError for anything not understood.
        """
        if section is None:
            return cls()
        if not isinstance(section, Mapping):
            raise ValueError(f"{where}: expected a mapping with keys among {_listed(TABLE_FIELDS)}, got {section!r}")
        if "layout" in section:
            from bench.report.filling import parse_filling

            return parse_filling(section, (where,))
        for key in section:
            if key not in TABLE_FIELDS:
                raise SpecError((where, key), f"unknown key {key!r}{nearest(key, TABLE_FIELDS)}")
            if key in LAYOUT_FIELDS:
                raise SpecError((where, key), "belongs to a table with a layout (`layout: NAME` or an inline one)")
        values = dict(section)
        for key in ("metrics", "protocols"):
            if isinstance(values.get(key), str):
                values[key] = (values[key],)
            elif isinstance(values.get(key), list):
                values[key] = tuple(values[key])
        return cls(**values).validate(where)

    def validate(self, where: str = "table") -> TableSpec:
        """Return self, or raise ValueError naming the first field that is wrong."""
        if self.title is not None and not isinstance(self.title, str):
            raise ValueError(f"{where}.title: expected text, got {self.title!r}")
        for key in ("rows", "columns", "split_by"):
            _check_choice(f"{where}.{key}", getattr(self, key), AXES)
        if len({self.rows, self.columns, self.split_by}) < len(AXES):
            raise ValueError(
                f"{where}: rows, columns and split_by must name each of {_listed(AXES)} once, got "
                f"rows: {self.rows}, columns: {self.columns}, split_by: {self.split_by}"
            )
        if self.metrics is not None:
            _check_names(f"{where}.metrics", self.metrics, tuple(METRICS))
        _check_names(f"{where}.protocols", self.protocols, tuple(PROTOCOLS))
        if self.primary is not None:
            _check_choice(f"{where}.primary", self.primary, tuple(PROTOCOLS))
            if self.primary not in self.protocols:
                raise ValueError(f"{where}.primary: {self.primary!r} is not among protocols: {_listed(self.protocols)}")
        _check_choice(f"{where}.spread", self.spread, SPREADS)
        if type(self.digits) is not int or not 0 <= self.digits <= 6:
            raise ValueError(f"{where}.digits: expected an integer from 0 to 6, got {self.digits!r}")
        for key in ("bold_best", "underline_second", "dense"):
            if not isinstance(getattr(self, key), bool):
                raise ValueError(f"{where}.{key}: expected true or false, got {getattr(self, key)!r}")
        margin = self.tie_margin
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin) or margin < 0:
            raise ValueError(f"{where}.tie_margin: expected percentage points, 0 or more, got {margin!r}")
        return self

    @property
    def primary_protocol(self) -> str:
        return self.primary or self.protocols[0]

    @property
    def shown_protocols(self) -> tuple[str, ...]:
        return (self.primary_protocol,) if self.dense else self.protocols

    def with_protocols(self, names: Iterable[str]) -> TableSpec:
        """The same table with other protocols, as `bench table --protocol` asks; checked. A layout takes the first."""
        names = tuple(SHORT.get(name, name) for name in names)
        if self.filling is not None:
            _check_names("table.protocols", names, tuple(PROTOCOLS))
            return replace(self, filling=replace(self.filling, protocol=names[0]))
        return replace(self, protocols=names, primary=self.primary if self.primary in names else None).validate()

    def with_published(self) -> TableSpec:
        """The same table with published numbers beside, as `bench table --published` asks."""
        if self.filling is None or not self.filling.layout.paper:
            message = "published numbers need the layout of a paper's table, as `layout: llc-dro-table1`"
            raise SpecError(("table", "layout"), message)
        return replace(self, filling=replace(self.filling, published=True))


# Keys of a table section with a layout; there `rows` and `columns` say how the layout's are called in the suite.
LAYOUT_FIELDS = ("layout", "values", "published")
FILLING_FIELDS = ("title", "layout", "rows", "columns", "values", "published", "protocols", "spread", "digits")
TABLE_FIELDS: list[str] = [item.name for item in fields(TableSpec) if item.name != "filling"] + list(LAYOUT_FIELDS)


def nearest(name: object, choices: Iterable[str], dash: str = "_") -> str:
    """'; did you mean ...? valid: ...', the tail of an error message about an unknown name."""
    choices = list(choices)
    text = str(name).lower().replace("-", dash)
    close = difflib.get_close_matches(text, choices, n=1, cutoff=0.5)
    close = close or [choice for choice in choices if text and (text in choice or choice in text)][:1]
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} valid: {_listed(choices)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _check_choice(where: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{where}: unknown value {value!r}{nearest(value, choices)}")


def _check_names(where: str, names: object, choices: tuple[str, ...]) -> None:
    if not isinstance(names, tuple | list) or not names:
        raise ValueError(f"{where}: expected a list with at least one of {_listed(choices)}, got {names!r}")
    for name in names:
        _check_choice(where, name, choices)
    if len(set(names)) < len(names):
        raise ValueError(f"{where}: {_listed(names)}: each name may stand once")
