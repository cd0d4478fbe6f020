"""A metric against fields of a method: lines over one field, or a map over two (llc-dro, Figure 4)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.aggregate import Outcome
from bench.report.plots import style
from bench.report.plots.source import Absent, At, Band, Source, absences, at_keys, band, percent, seeds_text
from bench.report.plots.spec import PROTOCOL, Option
from bench.report.spec import METRICS, nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "sensitivity: a metric against one or two fields of a method"
OPTIONS: dict[str, Option] = {
    "method": Option("text", None, "slug of the method; by default every one of which fields vary"),
    "fields": Option(
        "names", None, "such as k or training.lr: a panel for each, or one map over two; by default numbers that vary"
    ),
    "metric": Option("names", None, "measured quantities; by default test_acc, and worst_group_acc of grouped data"),
    "protocol": PROTOCOL,
    "base": Option("values", None, "values of the fields to mark; by default the suite's base cell"),
    "map": Option("flag", False, "draw two fields as a map instead of as lines"),
}
COLUMNS = 3

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Panel:
    """Per cent over values of one field, one line for each noise. `base` is the place of the base value in `values`."""

    dataset: str
    metric: str
    field: str
    values: list[Any]
    lines: Mapping[str, list[Band | None]]
    base: int | None


@dataclass(frozen=True)
class Map:
    """Per cent over values of two fields (rows, columns) under one noise."""

    at: At
    metric: str
    fields: tuple[str, str]
    rows: list[Any]
    columns: list[Any]
    values: list[list[Band | None]]
    base: tuple[int, int] | None


@dataclass(frozen=True)
class Sheet:
    slug: str
    protocol: str
    noises: list[str]
    panels: list[Panel] | list[Map]
    foot: list[str]


@dataclass(frozen=True)
class Variant:
    """A row of the plan: the method's parameters there with those of training (`training.lr`), its outcomes, and whether the
    suite calls it the base."""

    params: Params
    outcomes: Sequence[Outcome]
    base: bool


Variants = Mapping[At, Mapping[str, Sequence[Variant]]]  # by panel and slug


def sheets(source: Source, options: Mapping[str, Any]) -> list[Sheet]:
    for name in options["metric"] or ():
        if name not in METRICS:
            raise ValueError(f"metric: unknown metric {name!r}{nearest(name, METRICS)}")
    variants = _variants(source)
    slugs = list(dict.fromkeys(slug for found in variants.values() for slug in found))
    if options["method"] and options["method"] not in slugs:
        hint = nearest(options["method"], slugs, "-")
        raise ValueError(f"method: no finished record of {source.suite} is of {options['method']!r}{hint}")
    found = [_sheet(source, slug, variants, options) for slug in slugs if options["method"] in (None, slug)]
    kept = [sheet for sheet in found if sheet is not None]
    if not kept:
        raise Absent(
            f"no finished records of {source.suite} differ in a single field of one method: give a method several rows with "
            "other `params`, or a suite of the kind `sensitivity`"
        )
    return kept


def _variants(source: Source) -> dict[At, dict[str, list[Variant]]]:
    """Rows with a finished seed by panel and slug. Rows of the same parameters are one."""
    found: dict[At, dict[str, list[Variant]]] = {}
    for at, group in source.cells.items():
        for outcomes in group.values():
            cell = next((c for o in outcomes if (c := at_keys(o, "cell")) and c.get("method")), None)
            if cell is None:
                continue
            training = {f"training.{name}": value for name, value in (cell.get("training") or {}).items()}
            params = {**(cell["method"].get("params") or {}), **training}
            rows = found.setdefault(at, {}).setdefault(cell["method"]["name"], [])
            if all(row.params != params for row in rows):
                rows.append(Variant(params, outcomes, any(_is_base(o.entry) for o in outcomes)))
    return found


def _is_base(entry: Mapping[str, Any]) -> bool:
    variant = entry.get("variant")
    return isinstance(variant, Mapping) and variant.get("base") is True


def _sheet(source: Source, slug: str, variants: Variants, options: Mapping[str, Any]) -> Sheet | None:
    fields = options["fields"] or varying([rows[slug] for rows in variants.values() if slug in rows])
    if options["map"]:
        panels: Any = _maps(slug, fields, variants, options)
    else:
        panels = _panels(slug, fields, variants, options)
    if not panels:
        return None
    used = {at: rows[slug] for at, rows in variants.items() if slug in rows}
    noises = list(dict.fromkeys(noise for _, noise in used))
    seeds = seeds_text(source)
    mean = "a single seed" if seeds == "1" else f"mean over {seeds} seeds"
    if options["map"]:
        text = f"Cells: {mean}. Framed: base values. Hatched: not run."
    else:
        whiskers = "" if seeds == "1" else "; whiskers: smallest to largest seed"
        text = f"Lines: {mean}{whiskers}. Dotted: base value; the other fields keep theirs. Vertical axes need not start at 0."
    methods = [m for m in source.methods if any(_slug(o) == slug for g in source.cells.values() for o in g.get(m, ()))]
    return Sheet(slug, options["protocol"], noises, panels, [text, *absences(source.only(None, None, methods))])


def _slug(outcome: Outcome) -> Any:
    return at_keys(outcome, "cell", "method", "name")


def varying(groups: Sequence[Sequence[Variant]]) -> list[str]:
    """Numeric fields in which two variants of a group differ and in nothing else, in the order of the parameters."""
    found: list[str] = []
    for rows in groups:
        for i, a in enumerate(rows):
            for b in rows[:i]:
                other = [name for name in {**a.params, **b.params} if a.params.get(name) != b.params.get(name)]
                if len(other) == 1 and all(_numeric(row.params.get(other[0])) for row in (a, b)) and other[0] not in found:
                    found.append(other[0])
    return found


def _numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def base_of(rows: Sequence[Variant], fields: Sequence[str], wanted: Params | None) -> tuple[Params, bool]:
    """The parameters that other fields keep, and whether they are known to be the base.

    The suite's base row or the wanted values; else the row with the most rows that differ from it in one of `fields` alone,
    which is the base only where it stands in the middle of several axes.
    """
    if wanted:
        fitting = [row for row in rows if all(row.params.get(name) == value for name, value in wanted.items())]
        if fitting:
            return max(fitting, key=lambda row: _neighbours(row, rows, fields)).params, True
    named = [row for row in rows if row.base]
    if named:
        return named[0].params, True
    counts = [_neighbours(row, rows, fields) for row in rows]
    first = counts.index(max(counts))
    return rows[first].params, counts.count(counts[first]) == 1


def _neighbours(row: Variant, rows: Sequence[Variant], fields: Sequence[str]) -> int:
    differences = [_differing(row.params, other.params) for other in rows]
    return sum(len(names) == 1 and names[0] in fields for names in differences)


def _differing(a: Params, b: Params) -> list[str]:
    return [name for name in {**a, **b} if a.get(name) != b.get(name)]


def _metrics(rows: Sequence[Variant], wanted: Sequence[str] | None, protocol: str) -> list[str]:
    names = wanted or ("test_acc", "worst_group_acc")
    return [m for m in names if any(_value(o, m, protocol) is not None for row in rows for o in row.outcomes)]


def _value(outcome: Outcome, metric: str, protocol: str) -> float | None:
    return percent(at_keys(outcome, "metrics", f"{metric}_{protocol}"))


def _band(row: Variant | None, metric: str, protocol: str) -> Band | None:
    return None if row is None else band((_value(o, metric, protocol) for o in row.outcomes), len(row.outcomes))


def ordered(values: Sequence[Any]) -> list[Any]:
    """Different values: numbers by size, others in the order in which they came."""
    distinct = list({json.dumps(value): value for value in values}.values())
    return sorted(distinct) if all(_numeric(value) for value in distinct) else distinct


def _panels(slug: str, fields: Sequence[str], variants: Variants, options: Mapping[str, Any]) -> list[Panel]:
    panels = []
    for dataset in dict.fromkeys(dataset for dataset, _ in variants):
        groups = {noise: rows[slug] for (name, noise), rows in variants.items() if name == dataset and slug in rows}
        for metric in _metrics([row for rows in groups.values() for row in rows], options["metric"], options["protocol"]):
            panels += [p for field in fields if (p := _panel(dataset, groups, metric, field, fields, options)) is not None]
    return panels


def _panel(
    dataset: str, groups: Mapping[str, Sequence[Variant]], metric: str, field: str, fields: Sequence[str],
    options: Mapping[str, Any],
) -> Panel | None:  # fmt: skip
    lines: dict[str, dict[str, Band]] = {}
    values: list[Any] = []
    bases = set()
    for noise, rows in groups.items():
        params, known = base_of(rows, fields, options["base"])
        on_line = [row for row in rows if field in row.params and set(_differing(row.params, params)) <= {field}]
        if known and field in params:
            bases.add(json.dumps(params[field]))
        for row in on_line:
            found = _band(row, metric, options["protocol"])
            if found is not None:
                lines.setdefault(noise, {})[json.dumps(row.params[field])] = found
                values.append(row.params[field])
    places = ordered(values)
    if len(places) < 2:
        return None
    keys = [json.dumps(value) for value in places]
    base = keys.index(next(iter(bases))) if len(bases) == 1 and next(iter(bases)) in keys else None
    bands = {noise: [found.get(key) for key in keys] for noise, found in lines.items()}
    return Panel(dataset, metric, field, places, bands, base)


def _maps(slug: str, fields: Sequence[str], variants: Variants, options: Mapping[str, Any]) -> list[Map]:
    if len(fields) != 2 and not options["method"] and not options["fields"]:
        return []  # one of several methods, which has no two fields that vary
    if len(fields) != 2:
        raise ValueError(f"fields: a map needs two fields, and {slug} has {', '.join(fields) or 'none'} that vary; name two")
    first, second = fields
    maps = []
    for at, found in variants.items():
        rows = [row for row in found.get(slug, []) if set(fields) <= set(row.params)]
        if len(rows) < 2:
            continue
        params, known = base_of(rows, fields, options["base"])
        flat = [row for row in rows if set(_differing(row.params, params)) <= set(fields)]
        by_values = {json.dumps([row.params.get(name) for name in fields]): row for row in flat}
        down, across = (ordered([row.params.get(name) for row in flat]) for name in fields)
        for metric in _metrics(flat, options["metric"], options["protocol"]):
            cells = [[_band(by_values.get(json.dumps([a, b])), metric, options["protocol"]) for b in across] for a in down]
            base = (down.index(params[first]), across.index(params[second])) if known else None
            maps.append(Map(at, metric, (first, second), down, across, cells, base))
    return maps


def draw(sheet: Sheet) -> Figure:
    return _draw_maps(sheet) if isinstance(sheet.panels[0], Map) else _draw_lines(sheet)


def _draw_lines(sheet: Sheet) -> Figure:
    panels: Any = sheet.panels
    columns = min(COLUMNS, max(1, len({panel.field for panel in panels})))
    rows = -(-len(panels) // columns)
    width = style.WIDTH if columns > 1 else style.WIDTH / 2
    legend_columns, legend_height = style.legend_shape(sheet.noises, width)
    titles = style.title_lines((f"{sheet.slug}: {panel.dataset}" for panel in panels), width / columns)
    figure, grid = style.frame(
        rows, columns, sheet.foot, legend=legend_height, width=width, wspace=0.3, gap=0.46, left=0.5 / width, titles=titles
    )
    for n, panel in enumerate(panels):
        axes = figure.add_subplot(grid[n // columns, n % columns])
        _draw_panel(axes, panel, sheet.noises)
        style.title(axes, f"{sheet.slug}: {panel.dataset}", width / columns)
        axes.set_xlabel(style.plain(panel.field), labelpad=1)
        axes.set_ylabel(style.metric_name(panel.metric, sheet.protocol), labelpad=2)
    style.legend(figure, style.line_handles(sheet.noises), legend_columns)
    return figure


def _draw_panel(axes: Axes, panel: Panel, noises: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    # values at equal distances, as the paper's grids are drawn: they are rarely evenly spaced
    for noise, bands in panel.lines.items():
        look = style.look(noises.index(noise))
        known = [(place, found) for place, found in enumerate(bands) if found is not None]
        shift = 0.06 * (noises.index(noise) - (len(noises) - 1) / 2)  # whiskers beside each other
        x = [place + shift for place, _ in known]
        for place, (_, found) in zip(x, known, strict=True):
            if found.n > 1:
                axes.vlines(place, found.low, found.high, color=look["color"], linewidth=0.8, alpha=0.7)
        axes.plot(x, [found.mean for _, found in known], **look | {"markersize": 4})
    if panel.base is not None:
        axes.axvline(panel.base, color="#555555", linestyle=":", linewidth=1, zorder=1)
    axes.set_xticks(range(len(panel.values)), [style.plain(style.shortened(str(value), 12)) for value in panel.values])
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.margins(x=0.06)


def _draw_maps(sheet: Sheet) -> Figure:
    from matplotlib.patches import Rectangle

    maps: Any = sheet.panels
    columns = min(COLUMNS, len({panel.metric for panel in maps}) if len(maps) > COLUMNS else len(maps))
    rows = -(-len(maps) // columns)
    width = style.WIDTH if columns > 1 else style.WIDTH / 2
    size = int(14 * width / columns)
    measured = [f"{sheet.slug}: {style.metric_name(panel.metric, sheet.protocol)}" for panel in maps]
    titles = [style.wrapped([text, ", ".join(panel.at)], size) for text, panel in zip(measured, maps, strict=True)]
    figure, grid = style.frame(
        rows, columns, sheet.foot, legend=0.15, width=width, panel=1.7, gap=0.72, wspace=0.3, left=0.6 / width,
        titles=max(map(len, titles)) - 1,  # the gap has room for two
    )  # fmt: skip
    for n, panel in enumerate(maps):
        axes = figure.add_subplot(grid[n // columns, n % columns])
        means = [[None if cell is None else cell.mean for cell in row] for row in panel.values]
        known = [value for row in means for value in row if value is not None]
        names = [[str(value) for value in values] for values in (panel.rows, panel.columns)]
        margin = max(1.0, 0.1 * (max(known) - min(known)))
        style.matrix(axes, means, *names, numbers=True, size=6.5, digits=1, limits=(min(known) - margin, max(known) + margin))
        axes.tick_params(axis="x", labelrotation=0)
        axes.set_aspect("auto")
        if panel.base is not None:
            row, column = panel.base
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.4, zorder=3))
        axes.set_title("\n".join(titles[n]), loc="left", pad=3)
        axes.set_ylabel(style.plain(panel.fields[0]), labelpad=2)
        axes.set_xlabel(style.plain(panel.fields[1]), labelpad=2)
    return figure
