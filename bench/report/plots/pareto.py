"""What a method costs against what it reaches: one point for each method, the Pareto front drawn through the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.aggregate import MethodInfo, Outcome
from bench.report.plots import style
from bench.report.plots.curves import noises_of
from bench.report.plots.source import Absent, At, Band, Source, absences, at_keys, band, number, percent, seeds_text
from bench.report.plots.spec import METRIC, PROTOCOL, Option

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "cost against accuracy, with the Pareto front"
OPTIONS: dict[str, Option] = {
    "metric": METRIC,
    "protocol": PROTOCOL,
    "cost": Option(
        "choice", "seconds", "seconds of training and stages, or images forward + 2 backward", ("seconds", "forward_equivalents")
    ),
}
COSTS = {"seconds": "training (s)", "forward_equivalents": "forward equivalents (millions of images)"}
MANY = 10  # methods; more of them get larger panels
DISC = 0.125  # inches across
FRONT, REST = "#0072B2", "#FFFFFF"


@dataclass(frozen=True)
class Point:
    cost: Band
    value: Band
    front: bool


@dataclass(frozen=True)
class Panel:
    """Per cent against cost, by method; cost in seconds or millions of images."""

    at: At
    points: Mapping[str, Point]


@dataclass(frozen=True)
class Sheet:
    methods: Mapping[str, MethodInfo]
    metric: str
    protocol: str
    cost: str
    panels: list[Panel]
    columns: int
    foot: list[str]


def sheets(source: Source, options: Mapping[str, Any]) -> list[Sheet]:
    key = f"{options['metric']}_{options['protocol']}"
    rows = []
    for dataset, noises in noises_of(source).items():
        panels = [_panel(source, (dataset, noise), key, options["cost"]) for noise in noises]
        rows.append([panel for panel in panels if panel.points])
    panels = [panel for row in rows for panel in row]
    if not panels:
        raise Absent(f"no finished record of {source.suite} has {key} and {options['cost']}")
    seeds = seeds_text(source)
    mean = "a single seed" if seeds == "1" else f"mean over {seeds} seeds; lines: smallest to largest seed"
    what = {
        "seconds": "Seconds of training with the method's own work and of stages such as pre-training, without evaluation",
        "forward_equivalents": "A forward pass of an image is 1, a forward and backward pass 3",
    }[options["cost"]]
    moved = "discs are moved apart, thin lines lead to their dots"
    filled = "Filled: no method is both cheaper and better (Pareto front)."
    foot = [f"Points: {mean}; {moved}. {filled} {what}{_machines(source, options)}."]
    foot += absences(source, lambda o: None if _measured(o, key, options["cost"]) else "not measured")
    columns = min(2 if len(source.methods) > MANY else 3, len(panels))
    return [Sheet(source.methods, options["metric"], options["protocol"], options["cost"], panels, columns, foot)]


def _machines(source: Source, options: Mapping[str, Any]) -> str:
    outcomes = [o for group in source.cells.values() for found in group.values() for o in found]
    devices = sorted({str(device) for o in outcomes if (device := at_keys(o, "provenance", "device"))})
    if options["cost"] != "seconds" or not devices:
        return ""
    return f", on {devices[0]}" if len(devices) == 1 else f"; measured on different machines: {', '.join(devices)}"


def cost_of(outcome: Outcome, cost: str) -> float | None:
    """Seconds of training and stages, or forward equivalents in millions of images; None where it is not recorded."""
    block = at_keys(outcome, "cost") or {}
    if cost == "seconds":
        seconds = block.get("train_seconds")
        return seconds + (block.get("stage_seconds") or 0.0) if number(seconds) else None
    forward, backward = block.get("forward_images"), block.get("backward_images")
    return (forward + 2 * backward) / 1e6 if number(forward) and number(backward) else None


def _measured(outcome: Outcome, key: str, cost: str) -> bool:
    return cost_of(outcome, cost) is not None and percent(at_keys(outcome, "metrics", key)) is not None


def _panel(source: Source, at: At, key: str, cost: str) -> Panel:
    found = {}
    for method, outcomes in source.cells[at].items():
        whole = [o for o in outcomes if o.done and _measured(o, key, cost)]
        costs = band((cost_of(o, cost) for o in whole), len(outcomes))
        values = band((percent(at_keys(o, "metrics", key)) for o in whole), len(outcomes))
        if costs is not None and values is not None:
            found[method] = (costs, values)
    best = front([(costs.mean, values.mean) for costs, values in found.values()])
    return Panel(at, {m: Point(*bands, is_best) for (m, bands), is_best in zip(found.items(), best, strict=True)})


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For each (cost, value) whether no other point is as cheap and as good, and better in one of the two."""
    return [
        not any((c <= cost and v >= value) and (c < cost or v > value) for c, v in points) for cost, value in points
    ]  # fmt: skip


def draw(sheet: Sheet) -> Figure:
    columns = sheet.columns
    rows = -(-len(sheet.panels) // columns)
    width = style.WIDTH if columns > 1 else style.WIDTH / 2
    labels = style.labels_of(sheet.methods)
    legend_columns, legend_height = style.legend_shape(labels, width)
    titles = style.title_lines((", ".join(panel.at) for panel in sheet.panels), width / columns)
    figure, grid = style.frame(
        rows, columns, sheet.foot, legend=legend_height + 0.08, width=width, left=0.5 / width, wspace=0.2, gap=0.56,
        panel=1.9 if columns > 2 else 2.5, titles=titles,
    )  # fmt: skip
    for n, panel in enumerate(sheet.panels):
        axes = figure.add_subplot(grid[n // columns, n % columns])
        _draw(axes, panel, list(sheet.methods))
        style.title(axes, ", ".join(panel.at), width / columns)
        axes.set_xlabel(COSTS[sheet.cost], labelpad=1)
        if n % columns == 0:
            axes.set_ylabel(style.metric_name(sheet.metric, sheet.protocol), labelpad=2)
    handles = [_handle(i + 1, label) for i, label in enumerate(labels)]
    style.legend(figure, handles, legend_columns, handlelength=1.0)
    return figure


def _handle(place: int, label: str) -> Any:
    from matplotlib.lines import Line2D

    size = 4.5 if place < 10 else 7
    return Line2D([], [], linestyle="", marker=f"${place}$", markersize=size, color="black", markeredgewidth=0, label=label)


def _draw(axes: Axes, panel: Panel, methods: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator, ScalarFormatter

    best = sorted((point.cost.mean, point.value.mean) for point in panel.points.values() if point.front)
    axes.step([c for c, _ in best], [v for _, v in best], where="post", color=FRONT, linewidth=1, zorder=1.5)
    costs = [point.cost.mean for point in panel.points.values()]
    if min(costs) > 0 and max(costs) > 3 * min(costs):
        axes.set_xscale("log")
        ticks = _log_ticks(min(costs), max(costs))
        axes.set_xticks(ticks)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.margins(0.1)
    for point in panel.points.values():
        x, y = point.cost.mean, point.value.mean
        if point.cost.n > 1:
            axes.plot((point.cost.low, point.cost.high), (y, y), color="#AAAAAA", linewidth=0.6, zorder=1.6)
            axes.plot((x, x), (point.value.low, point.value.high), color="#AAAAAA", linewidth=0.6, zorder=1.6)
        axes.plot(x, y, "o", markersize=2, color=FRONT if point.front else "#555555", zorder=1.7)
    axes.autoscale_view()
    _numbers(axes, panel, methods)


def _numbers(axes: Axes, panel: Panel, methods: Sequence[str]) -> None:
    """A numbered disc at each point, pushed beside it where discs would lie on each other; a hair line leads back."""
    place = axes.transAxes.inverted()
    extent = axes.get_window_extent()
    size = (extent.width / axes.figure.dpi, extent.height / axes.figure.dpi)  # inches
    shares = {m: place.transform(axes.transData.transform((p.cost.mean, p.value.mean))) for m, p in panel.points.items()}
    moved = spread({method: (x * size[0], y * size[1]) for method, (x, y) in shares.items()}, DISC, size)
    for method, (x, y) in moved.items():
        best = panel.points[method].front
        at, true = (x / size[0], y / size[1]), shares[method]
        edge = FRONT if best else "#777777"
        axes.plot((true[0], at[0]), (true[1], at[1]), transform=axes.transAxes, color=edge, linewidth=0.5, zorder=2)
        axes.plot(*at, "o", transform=axes.transAxes, markersize=72 * DISC - 1.2, markerfacecolor=FRONT if best else REST,
                  markeredgecolor=edge, markeredgewidth=0.6, zorder=3)  # fmt: skip
        axes.text(*at, str(methods.index(method) + 1), transform=axes.transAxes, ha="center", va="center_baseline", fontsize=5.5,
                  color="white" if best else "#222222", zorder=3.1)  # fmt: skip


def spread(points: Mapping[str, tuple[float, float]], apart: float, box: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Points moved until none is nearer to another than `apart`, or as far as 200 rounds bring them; they stay in the box from
    (0, 0) to `box`. Points that coincide are pushed in different directions, so the result is always the same."""
    at = {name: list(point) for name, point in points.items()}
    names = list(at)
    for _ in range(200):
        moved = False
        for i, a in enumerate(names):
            for j in range(i):
                b = names[j]
                dx, dy = at[a][0] - at[b][0], at[a][1] - at[b][1]
                distance = math.hypot(dx, dy)
                if distance >= 0.999 * apart:
                    continue
                moved = True
                if distance < 1e-9:
                    turn = 2.4 * (i + 1)  # the golden angle: no two pairs go the same way
                    dx, dy, distance = math.cos(turn), math.sin(turn), 1.0
                    push = apart / 2
                else:
                    push = (apart - distance) / 2
                for name, sign in ((a, 1), (b, -1)):
                    at[name][0] += sign * push * dx / distance
                    at[name][1] += sign * push * dy / distance
        for point in at.values():
            for axis in (0, 1):
                point[axis] = min(max(point[axis], apart / 2), box[axis] - apart / 2)
        if not moved:
            break
    return {name: (x, y) for name, (x, y) in at.items()}


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 and so on times powers of ten about the range; only the powers where there would be many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 3, 5, 7) if high < 8 * low else (1, 2, 5) if high < 100 * low else (1,)
    ticks = [step * 10.0**power for power in powers for step in steps]
    return [tick for tick in ticks if low / 1.5 <= tick <= high * 1.5] or ticks
