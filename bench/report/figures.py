"""Figures from a plan and its records. matplotlib is imported on first use; no pyplot, no global state left changed."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report.aggregate import PHRASES, MethodInfo, Outcome, method_infos, outcome_of
from bench.report.escape import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, distinguishable under every common colour-vision deficiency, without the yellow (too light
# for a thin line). Line style and marker run at other periods, so that 140 curves differ, also in a grey print.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", (0, (1, 1.2)))
MARKERS = ("o", "s", "^", "D", "v")

RC = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs on every machine
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "svg.hashsalt": "bench",
    "svg.fonttype": "path",
    "figure.dpi": 100,
    "savefig.bbox": "standard",
}
WIDTH = 7.2  # inches, the text width of a paper page
PANEL_HEIGHT = 1.55
GAP = 0.38  # below a panel: tick labels, then the title of the next row or the name of the axis
TITLE_HEIGHT = 0.2
MAX_COLUMNS = 4
SERIES = {"test_acc": "test accuracy (%)", "worst_group_acc": "worst group (%)"}


@dataclass(frozen=True)
class Curve:
    """Percent over epochs, counted from 1: mean, minimum and maximum over `n` of `n_planned` seeds."""

    epochs: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]
    n: int
    n_planned: int


#: methods in one figure: more lines cannot be told apart
LINES = 8

Panel = tuple[str, str, str]  # data set, noise, key in SERIES


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
    from matplotlib import style

    paths = []
    for number, part in enumerate(_parts(plan), 1):
        # Not with_suffix: it would cut a base name at its last dot.
        base = f"{Path(path_base)}" + (f"-{number}" if number > 1 else "")
        png, svg = Path(f"{base}.png"), Path(f"{base}.svg")
        with style.context(["default", RC]):
            figure = curves_figure(records, part)
            figure.savefig(png, dpi=200, metadata={"Software": None})
            figure.savefig(svg, metadata={"Date": None, "Creator": None})
        paths += [png, svg]
    return paths


def _parts(plan: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The plan itself, or parts of it with at most `LINES` methods, the first one in all."""
    methods = list(method_infos(plan["entries"]))
    if len(methods) <= LINES:
        return [plan]
    others = methods[1:]
    count = math.ceil(len(others) / (LINES - 1))
    size = math.ceil(len(others) / count)
    chosen = [{methods[0], *others[i : i + size]} for i in range(0, len(others), size)]
    return [{**plan, "entries": [e for e in plan["entries"] if e["method"] in names]} for names in chosen]


def curves_figure(records: Mapping[str, Mapping[str, Any]], plan: Mapping[str, Any]) -> Figure:
    """The figure of `accuracy_curves`, under the caller's matplotlib settings."""
    from matplotlib.figure import Figure

    if not plan["entries"]:
        raise ValueError(f"suite {plan['suite']!r} has no planned cells, so there are no curves to draw")
    methods = method_infos(plan["entries"])
    cells = _cells(plan, records)
    rows = _panel_rows(cells)
    curves = {panel: _panel_curves(panel, methods, cells) for row in rows for panel in row}

    columns = max(len(row) for row in rows)
    width = WIDTH if columns > 1 else WIDTH / 2
    foot = _foot(methods, cells, wrap=int(18 * width))
    entry_width = 0.55 + 0.057 * max(len(info.label) for info in methods.values())
    legend_lines = math.ceil(len(methods) / max(1, min(6, int(width / entry_width))))
    legend_height = 0.12 + 0.17 * legend_lines
    foot_height = 0.15 + 0.125 * len(foot)
    height = legend_height + TITLE_HEIGHT + len(rows) * (PANEL_HEIGHT + GAP) + foot_height
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        len(rows), columns, left=0.075 if columns > 1 else 0.15, right=0.99, wspace=0.14, hspace=GAP / PANEL_HEIGHT,
        bottom=(foot_height + GAP) / height, top=1 - (legend_height + TITLE_HEIGHT) / height,
    )  # fmt: skip
    for i, row in enumerate(rows):
        dataset, _, series = row[0]
        limits = _limits(
            [c for panel, found in curves.items() if panel[::2] == (dataset, series) for c in found.values()]
        )
        for j, panel in enumerate(row):
            axes = figure.add_subplot(grid[i, j])
            _draw(axes, curves[panel], list(methods))
            _dress(axes, panel, limits, leftmost=j == 0, lowest=all(len(below) <= j for below in rows[i + 1 :]))
            axes.set_title(
                _plain(_shortened(f"{panel[0]}, {panel[1]}", int(14.5 * width / columns))), loc="left", pad=3
            )
    figure.align_ylabels()
    _legend(figure, methods, math.ceil(len(methods) / legend_lines), y=1 - 0.06 / height)
    figure.text(0.01, 0.08 / height, "\n".join(foot), va="bottom", fontsize=6.5, color="#333333", linespacing=1.3)
    return figure


def _cells(
    plan: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, str], dict[str, list[Outcome]]]:
    """Outcomes by (data set, noise), then by method, in plan order."""
    cells: dict[tuple[str, str], dict[str, list[Outcome]]] = {}
    for entry in plan["entries"]:
        group = cells.setdefault((entry["dataset"], entry["noise"]), {})
        group.setdefault(entry["method"], []).append(outcome_of(entry, records.get(entry["id"])))
    return cells


def _panel_rows(cells: Mapping[tuple[str, str], Mapping[str, Sequence[Outcome]]]) -> list[list[Panel]]:
    """Rows of panels: the noises of a data set side by side, worst-group rows below accuracy rows."""
    noises: dict[str, list[str]] = {}
    for dataset, noise in cells:
        noises.setdefault(dataset, []).append(noise)
    rows: list[list[Panel]] = []
    for dataset, names in noises.items():
        outcomes = [o for noise in names for group in cells[dataset, noise].values() for o in group]
        grouped = any(o.done and o.record and "worst_group_acc" in (o.record.get("curve") or {}) for o in outcomes)
        for start in range(0, len(names), MAX_COLUMNS):
            for series in SERIES if grouped else ["test_acc"]:
                rows.append([(dataset, noise, series) for noise in names[start : start + MAX_COLUMNS]])
    return rows


def _panel_curves(
    panel: Panel,
    methods: Mapping[str, MethodInfo],
    cells: Mapping[tuple[str, str], Mapping[str, Sequence[Outcome]]],
) -> dict[str, Curve]:
    dataset, noise, series = panel
    curves = {method: _curve(cells[dataset, noise].get(method, ()), series) for method in methods}
    return {method: curve for method, curve in curves.items() if curve is not None}


def _curve(outcomes: Sequence[Outcome], series: str) -> Curve | None:
    """Aggregate the finished seeds over the epochs that all of them have."""
    seeds = [_points(outcome.record, series) for outcome in outcomes if outcome.done and outcome.record]
    seeds = [points for points in seeds if points]
    if not seeds:
        return None
    epochs = sorted(set.intersection(*(set(points) for points in seeds)))
    values = [[points[epoch] for points in seeds] for epoch in epochs]
    return Curve(
        epochs=[epoch + 1 for epoch in epochs],
        mean=[math.fsum(v) / len(v) for v in values],
        low=[min(v) for v in values],
        high=[max(v) for v in values],
        n=len(seeds),
        n_planned=len(outcomes),
    )


def _points(record: Mapping[str, Any], series: str) -> dict[int, float]:
    """Percent by epoch (from 0), without epochs that were not evaluated."""
    curve = record.get("curve") or {}
    pairs = zip(curve.get("epoch") or (), curve.get(series) or (), strict=False)
    return {epoch: 100 * value for epoch, value in pairs if value is not None and math.isfinite(value)}


def _limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Common y range of a row: everything but the steep first tenth of training, which would squeeze the rest."""
    lows = [v for c in curves for epoch, v in zip(c.epochs, c.low, strict=True) if epoch > c.epochs[-1] / 10]
    highs = [v for c in curves for v in c.high]
    if not lows:
        return 0.0, 100.0
    low, high = min(lows), max(highs)
    margin = max(1.0, 0.06 * (high - low))
    return max(-1.0, low - margin), min(101.0, high + margin)


def _draw(axes: Axes, curves: Mapping[str, Curve], methods: Sequence[str]) -> None:
    for method, curve in curves.items():
        look = _look(methods.index(method))
        step = max(1, len(curve.epochs) // 6)
        offset = methods.index(method) * step // max(1, len(methods))  # markers of close lines do not hide each other
        if curve.n > 1:
            axes.fill_between(curve.epochs, curve.low, curve.high, color=look["color"], alpha=0.18, linewidth=0)
        axes.plot(curve.epochs, curve.mean, markevery=(offset, step), **look)
    if not curves:
        axes.text(0.5, 0.5, "no finished cell", transform=axes.transAxes, ha="center", va="center", color="#666666")
        axes.set_xlim(0, 1)


def _look(index: int) -> dict[str, Any]:
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": STYLES[index % len(STYLES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 3.2,
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
    }


def _dress(axes: Axes, panel: Panel, limits: tuple[float, float], leftmost: bool, lowest: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_ylim(*limits)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if lowest:
        axes.set_xlabel("epoch", labelpad=1)
    axes.margins(x=0.02)
    if leftmost:
        axes.set_ylabel(SERIES[panel[2]], labelpad=2)
    else:
        axes.tick_params(labelleft=False)


def _legend(figure: Figure, methods: Mapping[str, MethodInfo], columns: int, y: float) -> None:
    from matplotlib.lines import Line2D

    # matplotlib leaves labels that start with an underscore out of a legend
    labels = [re.sub("^_", " _", _plain(info.label)) for info in methods.values()]
    handles = [Line2D([], [], label=label, **_look(index)) for index, label in enumerate(labels)]
    figure.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, y), ncols=columns, handlelength=3.2,
        columnspacing=1.6, borderaxespad=0, borderpad=0,
    )  # fmt: skip


def _foot(
    methods: Mapping[str, MethodInfo], cells: Mapping[tuple[str, str], Mapping[str, Sequence[Outcome]]], wrap: int
) -> list[str]:
    """What lines and bands are, and every (data set, noise, method) with seeds that are not drawn."""
    sizes = sorted({len(group) for by_method in cells.values() for group in by_method.values()})
    seeds = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    text = f"Lines: mean over {seeds} seeds; bands: smallest to largest seed. Vertical axes need not start at 0."
    lines = ["A single seed. Vertical axes need not start at 0." if sizes == [1] else text]
    for (dataset, noise), by_method in cells.items():
        absent = []
        for method, group in by_method.items():
            counts: dict[str, int] = {}
            for outcome in group:
                if not outcome.done:
                    word = PHRASES.get(outcome.status, outcome.status)
                    counts[word] = counts.get(word, 0) + 1
            if counts:
                what = ", ".join(f"{number} of {len(group)} seeds {word}" for word, number in counts.items())
                absent.append(f"{methods[method].label} ({what})")
        if absent:
            lines.append(f"Absent in {dataset}, {noise}: {'; '.join(absent)}.")
    return [_plain(part) for line in lines for part in textwrap.wrap(clean(line), wrap, break_on_hyphens=False)]


def _shortened(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def _plain(text: str) -> str:
    """Text that matplotlib prints as it stands: a dollar sign would start a formula."""
    return clean(text).replace("$", r"\$")
