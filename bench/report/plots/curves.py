"""Accuracy, or another measured quantity, against epoch: a panel for each (data set, noise); grouped data get a second row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report.aggregate import MethodInfo, Outcome
from bench.report.plots import style
from bench.report.plots.source import Absent, At, Series, Source, absences, by_epoch, seeds_text, series
from bench.report.plots.spec import Option

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "curves: accuracy, worst group, or another measured quantity against epoch"
MAX_COLUMNS = 4
SERIES = {
    "test_acc": "test accuracy (%)", "worst_group_acc": "worst group (%)", "noise_auc": "noise AUC (%)",
    "val_acc": "validation (%)", "test_top5_acc": "top-5 (%)", "test2_acc": "second test set (%)",
}  # fmt: skip
OPTIONS: dict[str, Option] = {
    "metric": Option(
        "choice", "accuracy", "what is drawn; accuracy: test_acc, and worst_group_acc of grouped data", ("accuracy", *SERIES)
    ),
}

Panel = tuple[str, str, str]  # data set, noise, key in SERIES


@dataclass(frozen=True)
class Sheet:
    """One figure. `curves` are percent over epochs, counted from 1, by panel and method."""

    methods: Mapping[str, MethodInfo]
    rows: list[list[Panel]]
    curves: Mapping[Panel, Mapping[str, Series]]
    foot: list[str]


def accuracy_curves(
    records: Mapping[str, Mapping[str, Any]], plan: Mapping[str, Any], path_base: str | PathLike[str]
) -> list[Path]:
    """Draw test accuracy against epoch and write `path_base`.png and .svg; returns the paths.

    More than `LINES` methods are spread over several figures, `path_base`-2 and so on, with the first method in each.

    One panel for each (data set, noise) of the plan; grouped data get a second row with the worst group. One line for
    each method, the mean over seeds, in a band from the smallest to the largest seed. Only finished cells are drawn;
    the foot of the figure lists what is absent and why. The same input gives the same bytes (one matplotlib).

    Raises ValueError when the plan has no entries.
    """
    paths = []
    with style.settings():
        for number, sheet in enumerate(sheets(Source.of(plan, records), {}), 1):
            paths += style.save(draw(sheet), f"{Path(path_base)}" + (f"-{number}" if number > 1 else ""))
    return paths


def sheets(source: Source, options: Mapping[str, Any]) -> list[Sheet]:
    metric = options.get("metric", "accuracy")
    if metric == "accuracy":
        return [_sheet(part, None) for part in source.parts()]
    found = [_sheet(part, metric) for part in source.parts()]
    if not any(curves for sheet in found for curves in sheet.curves.values()):
        raise Absent(f"no finished record of {source.suite} has {metric}")
    return found


def _sheet(source: Source, metric: str | None) -> Sheet:
    rows = _panel_rows(source, metric)
    curves = {panel: _panel_curves(panel, source) for row in rows for panel in row}
    return Sheet(source.methods, rows, curves, _foot(source, metric))


def _panel_rows(source: Source, metric: str | None) -> list[list[Panel]]:
    """Rows of panels: the noises of a data set side by side, worst-group rows below accuracy rows."""
    rows: list[list[Panel]] = []
    for dataset, names in noises_of(source).items():
        outcomes = [o for noise in names for group in source.cells[dataset, noise].values() for o in group]
        grouped = any(o.done and o.record and "worst_group_acc" in (o.record.get("curve") or {}) for o in outcomes)
        usual = ("test_acc", "worst_group_acc") if grouped else ("test_acc",)
        for start in range(0, len(names), MAX_COLUMNS):
            for key in (metric,) if metric else usual:
                rows.append([(dataset, noise, key) for noise in names[start : start + MAX_COLUMNS]])
    return rows


def noises_of(source: Source) -> dict[str, list[str]]:
    """The noises of each data set, in plan order."""
    noises: dict[str, list[str]] = {}
    for dataset, noise in source.cells:
        noises.setdefault(dataset, []).append(noise)
    return noises


def _panel_curves(panel: Panel, source: Source) -> dict[str, Series]:
    at: At = panel[:2]
    curves = {method: _curve(source.cells[at].get(method, ()), panel[2]) for method in source.methods}
    return {method: curve for method, curve in curves.items() if curve is not None}


def _curve(outcomes: Sequence[Outcome], key: str) -> Series | None:
    """Aggregate the finished seeds over the epochs that all of them have."""
    curves = [outcome.record.get("curve") or {} for outcome in outcomes if outcome.done and outcome.record]
    return series([by_epoch(curve.get("epoch"), curve.get(key), 100) for curve in curves], len(outcomes))


def _foot(source: Source, metric: str | None) -> list[str]:
    """What lines and bands are, and every (data set, noise, method) with seeds that are not drawn."""

    def lacks(outcome: Outcome) -> str | None:
        return None if metric is None or _curve([outcome], metric) else f"without {metric}"

    seeds = seeds_text(source)
    text = f"Lines: mean over {seeds} seeds; bands: smallest to largest seed. Vertical axes need not start at 0."
    return ["A single seed. Vertical axes need not start at 0." if seeds == "1" else text, *absences(source, lacks)]


def draw(sheet: Sheet) -> Figure:
    """The figure, under the caller's matplotlib settings."""
    columns = max(len(row) for row in sheet.rows)
    width = style.WIDTH if columns > 1 else style.WIDTH / 2
    legend_columns, legend_height = style.legend_shape(style.labels_of(sheet.methods), width)
    titles = style.title_lines((", ".join(panel[:2]) for row in sheet.rows for panel in row), width / columns)
    figure, grid = style.frame(len(sheet.rows), columns, sheet.foot, legend=legend_height, width=width, titles=titles)
    for i, row in enumerate(sheet.rows):
        dataset, _, key = row[0]
        limits = limits_of([c for panel, found in sheet.curves.items() if panel[::2] == (dataset, key) for c in found.values()])
        for j, panel in enumerate(row):
            axes = figure.add_subplot(grid[i, j])
            lines(axes, sheet.curves[panel], list(sheet.methods))
            _dress(axes, panel, limits, leftmost=j == 0, lowest=all(len(below) <= j for below in sheet.rows[i + 1 :]))
            style.title(axes, ", ".join(panel[:2]), width / columns)
    figure.align_ylabels()
    style.legend(figure, style.line_handles(style.labels_of(sheet.methods)), legend_columns)
    return figure


def limits_of(curves: Sequence[Series]) -> tuple[float, float]:
    """Common y range of a row: everything but the steep first tenth of training, which would squeeze the rest."""
    lows = [v for c in curves for epoch, v in zip(c.x, c.low, strict=True) if epoch > c.x[-1] / 10]
    highs = [v for c in curves for v in c.high]
    if not lows:
        return 0.0, 100.0
    low, high = min(lows), max(highs)
    margin = max(1.0, 0.06 * (high - low))
    return max(-1.0, low - margin), min(101.0, high + margin)


def lines(axes: Axes, curves: Mapping[str, Series], methods: Sequence[str]) -> None:
    """A line and a band for each method; its place in `methods` gives its look."""
    for method, curve in curves.items():
        look = style.look(methods.index(method))
        step = max(1, len(curve.x) // 6)
        offset = methods.index(method) * step // max(1, len(methods))  # markers of close lines do not hide each other
        if curve.n > 1:
            axes.fill_between(curve.x, curve.low, curve.high, color=look["color"], alpha=0.18, linewidth=0)
        axes.plot(curve.x, curve.mean, markevery=(offset, step), **look)
    if not curves:
        style.empty(axes)


def _dress(axes: Axes, panel: Panel, limits: tuple[float, float], leftmost: bool, lowest: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_ylim(*limits)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    style.epoch_axis(axes, lowest)
    axes.margins(x=0.02)
    if leftmost:
        axes.set_ylabel(SERIES[panel[2]], labelpad=2)
    else:
        axes.tick_params(labelleft=False)
