"""Histograms of the loss of rightly and of wrongly labelled samples, with what a method makes of them: a fitted mixture
(ScanMix, Figure 3), or the simulated loss of uniform labels and the threshold that it gives (ODD)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.aggregate import MethodInfo
from bench.report.plots import style
from bench.report.plots.source import At, Source, Watching, absences, chosen_epochs, first_seed, watching
from bench.report.plots.spec import QUANTITY, Option

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "histograms of per-sample loss, clean and noisy, with fitted mixture, or simulated loss and threshold"
OPTIONS: dict[str, Option] = {
    "quantity": QUANTITY,
    "epoch": Option("count", None, "epoch, counted from 1; by default the last one in the records of each method"),
    "scale": Option(
        "choice", "auto", "vertical axis; auto: density beside a simulated loss, else samples", ("auto", "count", "density")
    ),
}
COLUMNS = 4
POINTS = 400  # of the line of a mixture
SQUEEZE = 5.0
MIXTURE, SIMULATED, THRESHOLD = "#000000", "#D55E00", "#000000"


@dataclass(frozen=True)
class Panel:
    """Heights of the bars between `edges`: samples, or densities (`density`), by part: clean, noisy, or all where the truth is
    unknown. `mixture` holds points of its components, one line each, in the same unit."""

    at: At
    method: str
    quantity: str
    epoch: int
    seed: int
    density: bool
    edges: list[float]
    bars: Mapping[str, list[float]]
    mixture: list[tuple[list[float], list[float]]]
    simulated: list[float] | None
    threshold: float | None


@dataclass(frozen=True)
class Sheet:
    methods: Mapping[str, MethodInfo]
    rows: list[list[Panel]]
    foot: list[str]


def sheets(source: Source, options: Mapping[str, Any]) -> list[Sheet]:
    watch = watching(source, "values", options["quantity"])
    if options["epoch"]:
        chosen_epochs(watch, [options["epoch"]], "at", 1)  # raises when no record has it
    rows = []
    for at, group in watch.source.cells.items():
        panels = [p for method in group if (p := _panel(watch, at, method, options)) is not None]
        rows += [panels[i : i + COLUMNS] for i in range(0, len(panels), COLUMNS)]
    seeds = {panel.seed for row in rows for panel in row}
    text = f"One seed: {', '.join(map(str, sorted(seeds)))}. Bars that do not fit bear their height."
    if any(panel.density for row in rows for panel in row):
        text += " Density: each part has the area 1."
    simulated = " Simulated: loss under labels drawn uniformly; samples beyond the threshold are removed."
    beyond = simulated if any(panel.simulated for row in rows for panel in row) else ""
    foot = [f"{watch.names_text()} {text}{beyond}", *absences(watch.source, watch.lacks)]
    return [Sheet(watch.source.methods, rows[i : i + 4], foot) for i in range(0, len(rows), 4)]


def _panel(watch: Watching, at: At, method: str, options: Mapping[str, Any]) -> Panel | None:
    epoch = options["epoch"]
    if epoch is None:
        epochs = [int(e) + 1 for o in watch.source.cells[at][method] for e in (watch.block(o) or {}).get("at") or ()]
        if not epochs:
            return None
        epoch = max(epochs)
    found = first_seed(watch, at, method, "at", epoch)
    if found is None:
        return None
    outcome, entry = found
    edges = entry["edges"]
    width = edges[1] - edges[0]
    parts = {"clean": entry.get("clean"), "noisy": entry.get("noisy"), "all": entry.get("all")}
    simulated = entry.get("simulated")
    density = options["scale"] == "density" or (options["scale"] == "auto" and bool(simulated))
    bars = {name: heights(counts, width, density) for name, counts in parts.items() if counts and sum(counts)}
    total = sum(sum(counts) for counts in parts.values() if counts)
    return Panel(
        at, method, watch.names[method], epoch, outcome.entry["seed"], density, edges, bars,
        components(entry.get("mixture"), edges[0], edges[-1], None if density else total * width),
        # in counts it is scaled to the samples of the training set
        None if not simulated else heights(simulated, width, density, None if density else total), entry.get("threshold"),
    )  # fmt: skip


def heights(counts: Sequence[float], width: float, density: bool, total: float | None = None) -> list[float]:
    """Counts as they are, scaled to the sum `total`, or as densities over bins of `width`."""
    whole = sum(counts) or 1.0
    factor = 1 / (whole * width) if density else 1.0 if total is None else total / whole
    return [factor * count for count in counts]


def components(
    mixture: Mapping[str, Any] | None, low: float, high: float, area: float | None
) -> list[tuple[list[float], list[float]]]:
    """Lines of a mixture's components, `area` under all of them together, or 1 under each: Gaussian densities, or beta ones of
    the same means and variances."""
    if not mixture:
        return []
    x = [low + (high - low) * (i + 0.5) / POINTS for i in range(POINTS)]
    density = _beta if mixture.get("family") == "beta" else _gauss
    found = []
    for weight, mean, variance in zip(mixture["weights"], mixture["means"], mixture["variances"], strict=True):
        if None not in (weight, mean, variance) and variance > 0:
            factor = 1.0 if area is None else area * weight
            found.append((x, [factor * density(value, mean, variance) for value in x]))
    return found


def _gauss(x: float, mean: float, variance: float) -> float:
    return math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def _beta(x: float, mean: float, variance: float) -> float:
    total = mean * (1 - mean) / variance - 1
    a, b = mean * total, (1 - mean) * total
    if not 0 < x < 1 or a <= 0 or b <= 0:
        return 0.0
    return math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + (a - 1) * math.log(x) + (b - 1) * math.log(1 - x))


def draw(sheet: Sheet) -> Figure:
    columns = max(len(row) for row in sheet.rows)
    width = style.WIDTH if columns > 1 else style.WIDTH / 2
    panels = [panel for row in sheet.rows for panel in row]
    handles = _handles(panels)
    legend_columns, legend_height = style.legend_shape([handle.get_label() for handle in handles], width)
    size = int(15.5 * width / columns)
    titles = [[style.wrapped([sheet.methods[p.method].label, ", ".join(p.at)], size) for p in row] for row in sheet.rows]
    figure, grid = style.frame(
        len(sheet.rows), columns, sheet.foot, legend=legend_height, width=width, left=0.55 / width, wspace=0.3, gap=0.64,
        panel=1.4, titles=max(len(lines) for row in titles for lines in row) - 1,  # the gap has room for two
    )  # fmt: skip
    for i, row in enumerate(sheet.rows):
        for j, panel in enumerate(row):
            axes = figure.add_subplot(grid[i, j])
            _draw(axes, panel)
            axes.set_title("\n".join(titles[i][j]), loc="left", pad=3, fontsize=7.5)
            axes.set_xlabel(style.plain(style.shortened(f"{panel.quantity}, epoch {panel.epoch}", size)), labelpad=1)
            if j == 0 or panel.density != row[j - 1].density:
                axes.set_ylabel("density" if panel.density else "samples", labelpad=2)
    style.legend(figure, handles, legend_columns, handlelength=2)
    return figure


_LOOKS: dict[str, tuple[str, str, str | None]] = {
    "clean": ("rightly labelled", style.CLEAN, None),
    "noisy": ("wrongly labelled", style.NOISY, "//////"),
    "all": ("all samples, truth unknown", "#777777", None),
}


def _handles(panels: Sequence[Panel]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(facecolor=_pale(colour), edgecolor=colour, hatch=hatch, label=label, linewidth=0.8)
        for part, (label, colour, hatch) in _LOOKS.items()
        if any(part in panel.bars for panel in panels)
    ]
    if any(panel.mixture for panel in panels):
        handles.append(Line2D([], [], color=MIXTURE, linewidth=1.1, label="fitted mixture"))
    if any(panel.simulated for panel in panels):
        handles.append(Line2D([], [], color=SIMULATED, linestyle="--", linewidth=1.3, label="simulated"))
    if any(panel.threshold is not None for panel in panels):
        handles.append(Line2D([], [], color=THRESHOLD, linestyle=":", linewidth=1.3, label="threshold"))
    return handles


def _pale(colour: str) -> tuple[str, float]:
    return colour, 0.35


def height(panel: Panel) -> float:
    """Of the axis: all bars, unless those of one part are more than `SQUEEZE` times as high as the highest of another."""
    peaks = [max(bars) for bars in [*panel.bars.values(), panel.simulated or []] if bars]
    return min(max(peaks), SQUEEZE * min(peaks)) if peaks else 1.0


def _draw(axes: Axes, panel: Panel) -> None:
    for part, bars in panel.bars.items():
        _, colour, hatch = _LOOKS[part]
        axes.stairs(bars, panel.edges, fill=True, facecolor=_pale(colour), edgecolor=colour, hatch=hatch, linewidth=0)
        axes.stairs(bars, panel.edges, color=colour, linewidth=0.9)
    top = height(panel)
    for x, y in panel.mixture:
        axes.plot(x, y, color=MIXTURE, linewidth=1.1)
    if panel.simulated:
        axes.stairs(panel.simulated, panel.edges, color=SIMULATED, linestyle="--", linewidth=1.3)
    if panel.threshold is not None:
        axes.axvline(panel.threshold, color=THRESHOLD, linestyle=":", linewidth=1.3)
    # a component without spread would squeeze the bars
    axes.set_ylim(0, 1.12 * top)
    tall = [(place, value) for bars in panel.bars.values() for place, value in enumerate(bars) if value > 1.12 * top]
    if tall:
        text = ", ".join(f"{value:.2g}" if panel.density else f"{value:.0f}" for _, value in sorted(tall))
        edge = panel.edges[max(place for place, _ in tall) + 1]
        axes.annotate(text, (edge, 1.05 * top), (2, 0), textcoords="offset points", fontsize=6, va="center")
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
