"""Size of a set of trusted samples, and the share of them whose label is right, against epoch (MTaDCS, Figure 5a)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.aggregate import MethodInfo
from bench.report.plots import style
from bench.report.plots.source import (
    At,
    Series,
    Source,
    Watching,
    absences,
    at_keys,
    by_epoch,
    mean_of,
    number,
    seeds_text,
    series,
    watching,
)
from bench.report.plots.spec import QUANTITY, Option

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "size and precision of a watched set of samples against epoch"
OPTIONS: dict[str, Option] = {"quantity": QUANTITY}
METHODS = 4  # two lines each
COLUMNS = 2


@dataclass(frozen=True)
class Panel:
    """By method: number of samples, and per cent of them rightly labelled. `right` is the number of rightly labelled ones
    in the training set, where it is known."""

    at: At
    size: Mapping[str, Series]
    precision: Mapping[str, Series]
    right: float | None


@dataclass(frozen=True)
class Sheet:
    methods: Mapping[str, MethodInfo]
    panels: list[Panel]
    foot: list[str]


def sheets(source: Source, options: Mapping[str, Any]) -> list[Sheet]:
    found = []
    for part in watching(source, "members", options["quantity"]).source.parts(METHODS):
        watch = watching(part, "members", options["quantity"])
        foot = [f"{watch.names_text()} {_spread(part)}", *absences(part, watch.lacks)]
        found.append(Sheet(part.methods, [_panel(watch, at) for at in part.cells], foot))
    return found


def _spread(source: Source) -> str:
    seeds = seeds_text(source)
    mean = "A single seed." if seeds == "1" else f"Lines: mean over {seeds} seeds; bands: smallest to largest seed."
    axes = "Solid, left axis: size; dashed, right axis: precision, the share whose label, corrected or not, is right"
    return f"{axes}; dotted: all rightly labelled samples. {mean}"


def _panel(watch: Watching, at: At) -> Panel:
    cells = watch.source.cells[at]
    size: dict[str, Series] = {}
    precision: dict[str, Series] = {}
    for method, outcomes in cells.items():
        blocks = [block for o in outcomes if (block := watch.block(o))]
        for key, factor, into in (("size", 1.0, size), ("precision", 100.0, precision)):
            curve = series([by_epoch(block["epoch"], block.get(key), factor) for block in blocks], len(outcomes))
            if curve is not None:
                into[method] = curve
    outcomes = [o for group in cells.values() for o in group]
    right = mean_of(
        n * (1 - rate)
        for o in outcomes
        if number(n := at_keys(o, "data", "n_train")) and number(rate := at_keys(o, "noise", "train_rate"))
    )
    return Panel(at, size, precision, right)


def draw(sheet: Sheet) -> Figure:
    columns = min(COLUMNS, len(sheet.panels))
    rows = -(-len(sheet.panels) // columns)
    width = style.WIDTH if columns > 1 else 4.6
    legend_columns, legend_height = style.legend_shape(style.labels_of(sheet.methods), width)
    titles = style.title_lines((", ".join(panel.at) for panel in sheet.panels), width / columns)
    figure, grid = style.frame(
        rows, columns, sheet.foot, legend=legend_height, width=width, wspace=0.42, left=0.6 / width, right=1 - 0.55 / width,
        gap=0.45, panel=1.75, titles=titles,
    )  # fmt: skip
    for n, panel in enumerate(sheet.panels):
        axes = figure.add_subplot(grid[n // columns, n % columns])
        _draw(axes, panel, list(sheet.methods))
        style.title(axes, ", ".join(panel.at), width / columns)
    handles = style.line_handles(style.labels_of(sheet.methods))
    for handle in handles:
        handle.set_linestyle("-")
    style.legend(figure, handles, legend_columns)
    return figure


def _draw(axes: Axes, panel: Panel, methods: list[str]) -> None:
    other = axes.twinx()
    for target, curves, dash in ((axes, panel.size, "-"), (other, panel.precision, (0, (4, 1.6)))):
        for method, curve in curves.items():
            look = style.look(methods.index(method)) | {"linestyle": dash}
            every = max(1, len(curve.x) // 6)
            if curve.n > 1:
                target.fill_between(curve.x, curve.low, curve.high, color=look["color"], alpha=0.15, linewidth=0)
            target.plot(curve.x, curve.mean, markevery=(methods.index(method), every), **look)
    if panel.right is not None:
        axes.axhline(panel.right, color="#555555", linestyle=":", linewidth=1)
    top = max([*(v for curve in panel.size.values() for v in curve.high), panel.right or 0.0, 1.0])
    axes.set_ylim(0, 1.06 * top)
    lows = [v for curve in panel.precision.values() for v in curve.low]
    other.set_ylim(max(0.0, min(lows, default=0.0) - 4), 101)
    other.grid(False)
    other.spines["right"].set_visible(True)
    axes.set_ylabel("samples in the set", labelpad=2)
    other.set_ylabel("rightly labelled (%)", labelpad=3)
    style.epoch_axis(axes)
    axes.margins(x=0.02)
