"""The `table:` section of a suite that has a layout: which layout, and how the suite's cells fill it.

    table:
      layout: llc-dro-table2                  # a packaged name, or the layout itself
      rows: {llc-dro: llc-dro, dividemix: "DivideMix (ours)"}
      columns:
        - {match: {dataset: cifar10, noise: symmetric, rate: 0.5}, take: {dataset: digits, noise: symmetric@0.5}}
      values: {best: [test_acc, best_oracle], last: [test_acc, last]}
      published: true
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.report.blueprint import KEYS, Layout
from bench.report.reading import Place, expect_list, expect_mapping, pairs
from bench.report.schema import check_match, names, packaged, parse_layout, parse_match, parse_value
from bench.report.spec import FILLING_FIELDS, PROTOCOLS, SHORT, TABLE_FIELDS, Filling, SpecError, TableSpec, nearest


def parse_filling(section: Mapping[str, Any], at: Place) -> TableSpec:
    """A `TableSpec` whose `filling` is set. Raises `SpecError` naming the place, what is wrong, and the nearest choice."""
    for key in section:
        if key in TABLE_FIELDS and key not in FILLING_FIELDS:
            raise SpecError((*at, key), "does not go with a layout, which has its own rows, columns and marks")
    expect_mapping(section, at, FILLING_FIELDS)
    layout = find_layout(section["layout"], (*at, "layout"))
    published = section.get("published", False)
    if not isinstance(published, bool):
        raise SpecError((*at, "published"), f"expected true or false, got {published!r}")
    if published and not layout.paper:
        raise SpecError((*at, "published"), "this layout has no published numbers: it names no paper")
    spec = TableSpec(
        title=section.get("title"),
        spread=section.get("spread", "std"),
        digits=section.get("digits", layout.decimals),
        filling=Filling(
            layout,
            rows=_rows(section, layout, at),
            columns=_columns(section.get("columns", []), layout, (*at, "columns")),
            values=_values(section, layout, at),
            published=published,
            protocol=_protocol(section.get("protocols"), (*at, "protocols")),
        ),
    )
    return spec.validate(".".join(map(str, at)))


def find_layout(value: Any, at: Place) -> Layout:
    """A packaged layout by its name, or the layout that a mapping describes."""
    if isinstance(value, Mapping):
        return parse_layout(value, at)
    if not isinstance(value, str):
        raise SpecError(at, f"expected the name of a layout or a mapping, got {value!r}")
    if value not in names():
        raise SpecError(at, f"unknown layout {value!r}{nearest(value, names(), '-')}")
    return packaged(value)


def _rows(section: Mapping[str, Any], layout: Layout, at: Place) -> dict[str, str]:
    found = {}
    for name, label in pairs(section, at, "rows"):
        if name not in layout.row_names():
            raise SpecError((*at, "rows", name), f"the layout has no row {name!r}{nearest(name, layout.row_names(), '-')}")
        if not isinstance(label, str):
            raise SpecError((*at, "rows", name), f"expected the label of a method in the suite, got {label!r}")
        found[name] = label
    return found


def _columns(value: Any, layout: Layout, at: Place) -> tuple[tuple[Mapping[str, str], Mapping[str, Any]], ...]:
    """`match` is met by columns that have all its keys; the first entry that a column meets counts."""
    rules = []
    for i, item in enumerate(expect_list(value, at)):
        place = (*at, i)
        rule = expect_mapping(item, place, ("match", "take"))
        if set(rule) < {"match", "take"}:
            raise SpecError(place, "expected match (keys of the layout) and take (data set and noise of the suite)")
        match = parse_match(rule["match"], (*place, "match"), KEYS)
        take: dict[str, Any] = expect_mapping(rule["take"], (*place, "take"), ("dataset", "noise", "value"))
        for key in ("dataset", "noise"):
            if not isinstance(take.get(key, ""), str):
                raise SpecError((*place, "take", key), f"expected a label of the suite, got {take[key]!r}")
        if "value" in take:
            take["value"] = parse_value(take["value"], (*place, "take", "value"))
        check_match(layout, match, (*place, "match"))
        rules.append((match, take))
    return tuple(rules)


def check_labels(filling: Filling, entries: Iterable[Mapping[str, Any]], at: Place = ("table",)) -> None:
    """Whether a plan has every label that a filling names. Raises `SpecError` for the first that it lacks."""
    axes = ("method", "dataset", "noise")
    known: dict[str, dict[str, None]] = {axis: {} for axis in axes}
    for entry in entries:
        for axis in axes:
            known[axis].setdefault(entry[axis])
    named: list[tuple[str, str, Place]] = [("method", label, ("rows", name)) for name, label in filling.rows.items()]
    named += [
        (axis, take[axis], ("columns", i, "take", axis))
        for i, (_, take) in enumerate(filling.columns) for axis in axes if axis in take
    ]  # fmt: skip
    for axis, label, place in named:
        if label not in known[axis]:
            raise SpecError((*at, *place), f"the suite has no {axis} {label!r}{nearest(label, known[axis], '-')}")


def _values(section: Mapping[str, Any], layout: Layout, at: Place) -> dict[str, tuple[str, str]]:
    found = {}
    for key, value in pairs(section, at, "values"):
        if key not in layout.metrics():
            raise SpecError((*at, "values", key), f"no cell has the metric {key!r}{nearest(key, layout.metrics())}")
        found[key] = parse_value(value, (*at, "values", key))
    return found


def _protocol(value: Any, at: Place) -> str | None:
    if value is None:
        return None
    chosen = value[0] if isinstance(value, list) and len(value) == 1 else value
    chosen = SHORT.get(chosen, chosen) if isinstance(chosen, str) else chosen
    if not isinstance(chosen, str) or chosen not in PROTOCOLS:
        choices = [*PROTOCOLS, *SHORT]
        raise SpecError(at, f"expected one protocol for all values of the layout, got {value!r}{nearest(str(value), choices)}")
    return chosen
