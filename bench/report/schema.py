"""Layouts: the declarative description of a table, parsed and checked. The words are explained in layouts/README.md.

    layout:                                     # eleven lines: nested columns, best and last, an average, marks
      decimals: 1
      rows: [erm, gce, ---, {label: Ours, method: llc-dro, venue: "2026"}]
      sub_rows: [{label: Best, metric: best}, {label: Last, metric: last}]
      marks: {best: true, second: true, margin: 1.0}
      columns:
        - label: Digits
          dataset: digits
          columns: [{label: clean, noise: none}, {label: sym. 50%, noise: symmetric@0.5}, {label: Avg, average: unrounded}]
        - {label: Spurious-Digits, dataset: spurious-digits, noise: uniform-flip@0.3}
      values: {best: [test_acc, best_oracle], last: [test_acc, last]}
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from bench.report.blueprint import (
    AVERAGES,
    CELL_KEYS,
    KEYS,
    RULE,
    VALUES,
    WITHIN,
    Column,
    Layout,
    Marks,
    Row,
    Section,
    SubRow,
    matches,
)  # fmt: skip
from bench.report.reading import Place, expect_list, expect_mapping, expect_text, expect_texts, expect_whole, pairs
from bench.report.spec import METRICS, PROTOCOLS, SHORT, SpecError, nearest

FOLDER = Path(__file__).with_name("layouts")
TOP = (
    "title", "paper", "table", "caption", "decimals", "values", "noises", "marks", "footnotes", "starred", "stub", "columns",
    "rows", "sub_rows", "blocks",
)  # fmt: skip
BLOCK = ("heading", "stub", "columns", "rows")
COLUMN = ("label", "name", "columns", "average", "beside", "beside_value", "value", "take", *CELL_KEYS)
ROW = ("label", "name", "venue", "mark", "published_mark", "note", "ranked", *KEYS)
SUB_ROW = ("label", *CELL_KEYS)


@functools.cache
def names() -> tuple[str, ...]:
    """The packaged layouts: one for each published table."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


@functools.cache
def packaged(name: str) -> Layout:
    """The packaged layout of that name, an element of `names()`. Raises `SpecError` with file and key."""
    import yaml

    file = FOLDER / f"{name}.yaml"
    return parse_layout(yaml.safe_load(file.read_text(encoding="utf-8")), (file.name,))


def parse_layout(value: Any, at: Place) -> Layout:
    """A layout from plain data. Raises `SpecError`, whose place begins with `at`."""
    top = expect_mapping(value, at, TOP)
    if "blocks" in top and "columns" in top:
        raise SpecError((*at, "blocks"), "a layout has either blocks or columns of its own, not both")
    if "blocks" not in top and "columns" not in top:
        raise SpecError(at, "a layout needs columns (or blocks with columns)")
    subs = tuple(
        SubRow(expect_text(item, (*at, "sub_rows", i), "label"), _keys(item, (*at, "sub_rows", i), CELL_KEYS))
        for i, item in enumerate(expect_list(top.get("sub_rows", []), (*at, "sub_rows")))
        if expect_mapping(item, (*at, "sub_rows", i), SUB_ROW) is not None
    )
    blocks: list[Any] = expect_list(top["blocks"], (*at, "blocks")) if "blocks" in top else [{"columns": top["columns"]}]
    sections = []
    for i, block in enumerate(blocks):
        place = (*at, "blocks", i) if "blocks" in top else at
        own: dict[str, Any] = {key: top[key] for key in ("stub", "rows") if key in top}
        own.update(expect_mapping(block, place, BLOCK))
        sections.append(_section(own, place, place if "rows" in block else at, bool(subs)))
    sizes = {(len(section.stub), len(section.columns)) for section in sections}
    if len(sizes) > 1:
        raise SpecError((*at, "blocks"), "blocks stand below each other: each needs the same number of columns")
    layout = Layout(
        title=expect_text(top, at, "title", ""),
        paper=expect_text(top, at, "paper", ""),
        table=expect_text(top, at, "table", ""),
        caption=tuple(expect_texts(top.get("caption", []), (*at, "caption"))),
        decimals=expect_whole(top, at, "decimals", 1),
        values={key: parse_value(v, (*at, "values", key)) for key, v in pairs(top, at, "values")},
        noises={key: tuple(expect_texts(v, (*at, "noises", key))) for key, v in pairs(top, at, "noises")},
        marks=_marks(top.get("marks", {}), (*at, "marks")),
        footnotes={key: expect_text({"text": v}, (*at, "footnotes", key), "text") for key, v in pairs(top, at, "footnotes")},
        starred=tuple(_starred(top.get("starred", []), (*at, "starred"))),
        sub_rows=subs or (SubRow("", {}),),
        sections=tuple(sections),
    )
    _check_marks(layout, at)
    for i, (_, match) in enumerate(layout.starred):
        check_match(layout, match, (*at, "starred", i))
    for i, match in enumerate(layout.marks.printed or ()):
        check_match(layout, match, (*at, "marks", "printed", i))
    noises = list(dict.fromkeys(cell["noise"] for cell in layout.cells()))
    for key in layout.noises:
        if key not in noises:
            raise SpecError((*at, "noises", key), f"no cell has the noise {key!r}{nearest(key, noises, '-')}")
    for key in layout.metrics():
        if key not in layout.values and key not in VALUES:
            hint = nearest(key, [*layout.values, *VALUES])
            raise SpecError((*at, "values"), f"the metric {key!r} needs a line, as {key}: [test_acc, last]{hint}")
    for key in layout.values:
        if key not in layout.metrics():
            raise SpecError((*at, "values", key), f"no cell has the metric {key!r}{nearest(key, layout.metrics())}")
    return layout


def parse_value(value: Any, at: Place) -> tuple[str, str]:
    """[metric, protocol] of records; a bare metric is read after the last epoch."""
    pair = [value, "last"] if isinstance(value, str) else value
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise SpecError(at, f"expected [metric, protocol], as [test_acc, last], got {value!r}")
    metric, protocol = str(pair[0]), SHORT.get(str(pair[1]), str(pair[1]))
    for text, choices in ((metric, METRICS), (protocol, PROTOCOLS)):
        if text not in tuple(choices):
            raise SpecError(at, f"unknown {'metric' if choices is METRICS else 'protocol'} {text!r}{nearest(text, choices)}")
    return metric, protocol


def parse_match(value: Any, at: Place, allowed: Sequence[str] = KEYS) -> dict[str, str]:
    """Keys of cells, as text."""
    return _keys(expect_mapping(value, at, allowed), at, allowed)


def check_match(layout: Layout, match: Mapping[str, str], at: Place) -> None:
    """Whether any cell has all keys of a match; averages are no cells here. Raises `SpecError`."""
    cells = layout.cells()
    if any(matches(match, cell) for cell in cells):
        return
    told = ", ".join(f"{key} {value!r}" for key, value in match.items())
    hint = "; each of them stands somewhere, all of them nowhere"
    for key, value in match.items():
        known = list(dict.fromkeys(cell[key] for cell in cells if cell[key]))
        if value not in known:
            hint = nearest(value, known, "-")
    raise SpecError(at, f"no cell of the layout has {told}{hint}")


def _section(block: Mapping[str, Any], at: Place, top: Place, sub_rows: bool) -> Section:
    """`at` is the place of the block, `top` that of its rows, which may be those of the layout."""
    if "rows" not in block:
        raise SpecError(top, "a layout needs rows")
    if "columns" not in block:
        raise SpecError(at, "a block needs columns")
    own = list(_columns(block["columns"], (*at, "columns"), {}, (), count()))
    if not own:
        raise SpecError((*at, "columns"), "expected at least one column")
    depth = max(len(column.path) for column in own)
    padded = [_padded(column, depth, -1 - i) for i, column in enumerate(own)]
    columns = tuple(_averaged(i, padded, at) for i in range(len(padded)))
    stub = _stub(block.get("stub", ["Method", ""] if sub_rows else ["Method"]), (*at, "stub"), depth)
    rows = tuple(_rows(block["rows"], (*top, "rows"), len(stub) - sub_rows))
    if not rows:
        raise SpecError((*top, "rows"), "expected at least one row")
    return Section(expect_text(block, at, "heading", ""), stub, columns, rows)


def _stub(value: Any, at: Place, depth: int) -> tuple[tuple[str, ...], ...]:
    stub = []
    for i, texts in enumerate(expect_list(value, at)):
        found = expect_texts(texts, (*at, i))
        if len(found) > depth:
            raise SpecError((*at, i), f"{len(found)} texts for {depth} header rows")
        stub.append(("",) * (depth - len(found)) + tuple(found))
    return tuple(stub)


def _columns(
    value: Any, at: Place, above: Mapping[str, Any], path: tuple[tuple[int, str], ...], ids: count[int]
) -> Iterable[Column]:
    """The leaves of nested columns; keys, value and take are handed down."""
    for i, item in enumerate(expect_list(value, at)):
        place = (*at, i)
        column = expect_mapping(item, place, COLUMN)
        own = (*path, (next(ids), expect_text(column, place, "label", "")))
        keys = {**above.get("keys", {}), **_keys(column, place, CELL_KEYS)}
        found = {"keys": keys, "value": above.get("value"), "take": above.get("take", {})}
        if "value" in column:
            found["value"] = parse_value(column["value"], (*place, "value"))
        if "take" in column:
            found["take"] = {**found["take"], **parse_match(column["take"], (*place, "take"), ("dataset", "noise"))}
        if "columns" in column:
            for key in ("average", "beside", "beside_value"):
                if key in column:
                    raise SpecError((*place, key), "belongs to a column without columns below it")
            yield from _columns(column["columns"], (*place, "columns"), found, own, ids)
            continue
        average, of = _average(column.get("average", ""), (*place, "average"))
        beside, name = expect_text(column, place, "beside", ""), expect_text(column, place, "name", "")
        second = parse_value(column["beside_value"], (*place, "beside_value")) if "beside_value" in column else None
        if second and not beside:
            raise SpecError((*place, "beside_value"), "belongs to a column with `beside`")
        yield Column(own, keys, average, of, (), beside, found["value"], found["take"], name, second)


def _average(value: Any, at: Place) -> tuple[str, tuple[str, ...]]:
    """Kind of average and names of its columns (none: those before it below the same widest head)."""
    item = {"mean": value} if isinstance(value, str) else expect_mapping(value, at, ("mean", "of"))
    kind = str(item.get("mean", "unrounded"))
    if kind and kind not in AVERAGES:
        raise SpecError(at, f"unknown average {kind!r}{nearest(kind, AVERAGES)}")
    return kind, tuple(expect_texts(item.get("of", []), (*at, "of")))


def _padded(column: Column, depth: int, identity: int) -> Column:
    gap = tuple((identity, "") for _ in range(depth - len(column.path)))
    return replace(column, path=column.path[:-1] + gap + column.path[-1:])


def _averaged(index: int, columns: Sequence[Column], at: Place) -> Column:
    """The column with the positions of those that it averages: the named ones, else all before it below its widest head."""
    column = columns[index]
    if not column.average:
        return column
    known = {c.name: i for i, c in enumerate(columns) if c.name and not c.average}
    for name in column.named:
        if name not in known:
            raise SpecError((*at, "columns"), f"{column.label!r} averages an unknown column {name!r}{nearest(name, known)}")
    top, alone = column.path[0], column.path[0][0] < 0 or len(column.path) == 1
    before = [i for i, c in enumerate(columns[:index]) if not c.average and (alone or c.path[0] == top)]
    of = tuple(known[name] for name in column.named) or tuple(before)
    if not of:
        raise SpecError((*at, "columns"), f"the average {column.label!r} has no columns before it")
    return replace(column, of=of)


def _rows(value: Any, at: Place, labels: int) -> Iterable[Row]:
    group = 0
    seen: set[str] = set()
    for i, item in enumerate(expect_list(value, at)):
        place = (*at, i)
        if item == RULE:
            group += 1
            continue
        row = {"method": item} if isinstance(item, str) else expect_mapping(item, place, ROW)
        keys = _keys(row, place, KEYS)
        name = expect_text(row, place, "name", "") or keys.get("method", "")
        shown = row.get("label", "" if labels == 1 else None)
        texts = tuple(shown) if isinstance(shown, list) else (shown,)
        if len(texts) != labels or not all(text is None or isinstance(text, str | bool) for text in texts):
            kind = "text" if labels == 1 else f"a list of {labels}, for each label column"
            raise SpecError((*place, "label"), f"expected {kind} (text, true for a check mark, false), got {shown!r}")
        if not name:
            raise SpecError(place, "a row needs a method or a name")
        if name in seen:
            raise SpecError(place, f"two rows are called {name!r}: give one of them a name")
        seen.add(name)
        ranked = row.get("ranked", True)
        if not isinstance(ranked, bool):
            raise SpecError((*place, "ranked"), f"expected true or false, got {ranked!r}")
        marks, published = (tuple(expect_texts(row.get(key, []), (*place, key))) for key in ("mark", "published_mark"))
        venue, note = expect_text(row, place, "venue", ""), expect_text(row, place, "note", "")
        if texts == ("",):
            texts = (name,)
        yield Row(texts, keys, name, venue, marks, note, ranked, group, "label" in row, published)


def _marks(value: Any, at: Place) -> Marks:
    item = expect_mapping(value, at, ("best", "second", "margin", "within", "printed"))
    for key in ("best", "second"):
        if not isinstance(item.get(key, True), bool):
            raise SpecError((*at, key), f"expected true or false, got {item[key]!r}")
    margin = item.get("margin", 0.0)
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin) or margin < 0:
        raise SpecError((*at, "margin"), f"expected percentage points, 0 or more, got {margin!r}")
    within = item.get("within", "column")
    if within not in WITHIN:
        raise SpecError((*at, "within"), f"unknown value {within!r}{nearest(within, WITHIN)}")
    printed = None
    if "printed" in item:
        cells = expect_list(item["printed"], (*at, "printed"))
        printed = tuple(parse_match(cell, (*at, "printed", i)) for i, cell in enumerate(cells))
    return Marks(item.get("best", True), item.get("second", False), float(margin), within, printed)


def _starred(value: Any, at: Place) -> Iterable[tuple[str, Mapping[str, str]]]:
    for i, item in enumerate(expect_list(value, at)):
        place = (*at, i)
        cell = expect_mapping(item, place, ("mark", *KEYS))
        yield expect_text(cell, place, "mark", "*"), _keys(cell, place, KEYS)


def _check_marks(layout: Layout, at: Place) -> None:
    used = [mark for section in layout.sections for row in section.rows for mark in (*row.marks, *row.published_marks)]
    for mark in [*used, *(mark for mark, _ in layout.starred)]:
        if mark not in layout.footnotes:
            raise SpecError((*at, "footnotes"), f"the mark {mark!r} is not explained{nearest(mark, layout.footnotes)}")


def _keys(item: Mapping[str, Any], at: Place, allowed: Iterable[str]) -> dict[str, str]:
    """The keys among `allowed` as text, numbers as the CSV writes them; symmetric@0.5 is a noise with its rate."""
    keys = {}
    for key in allowed:
        if key in item:
            value = item[key]
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise SpecError((*at, key), f"expected {'a fraction' if key == 'rate' else 'text'}, got {value!r}")
            keys[key] = value if isinstance(value, str) else f"{value:g}"
    kind, _, rate = keys.get("noise", "").partition("@")
    if rate and "rate" not in keys:
        with contextlib.suppress(ValueError):
            keys.update(noise=kind, rate=f"{float(rate):g}")
    return keys
