"""Easy and hard, rightly and wrongly labelled samples: how many, and how far from the trusted ones (MTaDCS, Figure 5b)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.aggregate import MethodInfo, Outcome
from bench.report.plots import style
from bench.report.plots.source import (
    Absent,
    At,
    Series,
    Source,
    Watching,
    absences,
    by_epoch,
    seeds_text,
    series,
    watching,
)
from bench.report.plots.spec import QUANTITY, Option

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "the four sample types: number, and distance from the trusted set, against epoch"
OPTIONS: dict[str, Option] = {
    "quantity": QUANTITY,
    "points": Option("text", None, "name of the watched features, for the distances; by default the first in the records"),
}
#: type -> (name, look); hard is blue and mislabelled hard is orange, as in the paper
TYPES: dict[str, tuple[str, dict[str, Any]]] = {
    "clean_easy": ("clean, easy", {"color": "#009E73", "linestyle": "-", "marker": "o"}),
    "clean_hard": ("clean, hard", {"color": "#0072B2", "linestyle": "--", "marker": "s"}),
    "mislabelled_hard": ("mislabelled, hard", {"color": "#D55E00", "linestyle": "-.", "marker": "^"}),
    "mislabelled_easy": ("mislabelled, easy", {"color": "#000000", "linestyle": (0, (1, 1.2)), "marker": "D"}),
}
ROWS = 4
TITLE_WIDTH = 3.4


@dataclass(frozen=True)
class Row:
    """By type: numbers of samples, and distances of class centres from those of the set."""

    at: At
    method: str
    sizes: Mapping[str, Series]
    distances: Mapping[str, Series]


@dataclass(frozen=True)
class Sheet:
    methods: Mapping[str, MethodInfo]
    rows: list[Row]
    foot: list[str]


def sheets(source: Source, options: Mapping[str, Any]) -> list[Sheet]:
    watch = watching(source, "members", options["quantity"])
    try:
        points: Watching | None = watching(watch.source, "points", options["points"])
    except Absent:
        if options["points"]:
            raise
        points = None
    rows = [_row(watch, points, at, method) for at, group in watch.source.cells.items() for method in group]
    rows = [row for row in rows if row.sizes]
    if not rows:
        raise Absent(f"no finished record of {source.suite} has sample types")
    seeds = seeds_text(watch.source)
    mean = "A single seed." if seeds == "1" else f"Lines: mean over {seeds} seeds; bands: smallest to largest seed."
    rule = "Types by how often a sample was in the set up to that epoch, not by its label."
    apart = "Distance: of the centres of a type's samples from those of the set, by class, mean over classes."
    foot = [f"{watch.names_text()} {rule} {apart if points else 'No features were watched, so no distances.'} {mean}"]
    foot += absences(watch.source, watch.lacks)
    return [Sheet(watch.source.methods, rows[i : i + ROWS], foot) for i in range(0, len(rows), ROWS)]


def _row(watch: Watching, points: Watching | None, at: At, method: str) -> Row:
    outcomes = watch.source.cells[at][method]
    sizes = _by_type(outcomes, lambda o: (watch.block(o) or {}).get("types") or {}, "sizes")
    distances = _by_type(outcomes, lambda o: (points.block(o) or {}).get("distance") or {}, None) if points else {}
    return Row(at, method, sizes, distances)


def _by_type(outcomes: Sequence[Outcome], read: Any, inner: str | None) -> dict[str, Series]:
    curves = {}
    for name in TYPES:
        blocks = list(map(read, outcomes))
        values = [(block.get(inner) or {} if inner else block).get(name) for block in blocks]
        seeds = [by_epoch(block.get("epoch"), found) for block, found in zip(blocks, values, strict=True)]
        curve = series(seeds, len(outcomes))
        if curve is not None and curve.x:
            curves[name] = curve
    return curves


def draw(sheet: Sheet) -> Figure:
    names = [name for name, _ in TYPES.values()]
    columns, legend_height = style.legend_shape(names, style.WIDTH)
    titles = [f"{sheet.methods[row.method].label}: {', '.join(row.at)}" for row in sheet.rows]
    figure, grid = style.frame(
        len(sheet.rows), 2, sheet.foot, legend=legend_height, wspace=0.22, gap=0.42, titles=style.title_lines(titles, TITLE_WIDTH)
    )
    for i, row in enumerate(sheet.rows):
        for j, (curves, what) in enumerate(((row.sizes, "samples"), (row.distances, "distance of centres"))):
            axes = figure.add_subplot(grid[i, j])
            for name, curve in curves.items():
                look = {"markersize": 3.2, "markeredgecolor": "white", "markeredgewidth": 0.4, **TYPES[name][1]}
                if curve.n > 1:
                    axes.fill_between(curve.x, curve.low, curve.high, color=look["color"], alpha=0.15, linewidth=0)
                every = max(1, len(curve.x) // 6)
                axes.plot(curve.x, curve.mean, markevery=(list(TYPES).index(name) * every // 4, every), **look)
            if not curves:
                style.empty(axes, "no features were watched")
                axes.set_axis_off()
                continue
            axes.set_ylabel(what, labelpad=2)
            axes.set_ylim(0)
            axes.margins(x=0.02)
            style.epoch_axis(axes, lowest=i == len(sheet.rows) - 1)
            style.title(axes, titles[i], TITLE_WIDTH)
    style.legend(figure, _handles(), columns)
    return figure


def _handles() -> list[Any]:
    from matplotlib.lines import Line2D

    shared: dict[str, Any] = {"markersize": 3.2, "markeredgecolor": "white", "markeredgewidth": 0.4}
    return [Line2D([], [], label=name, **shared, **look) for name, look in TYPES.values()]
