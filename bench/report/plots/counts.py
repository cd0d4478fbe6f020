"""How many samples were in a watched set in how many epochs, up to chosen epochs (MTaDCS, Figure 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.aggregate import MethodInfo, Outcome
from bench.report.plots import style
from bench.report.plots.source import (
    At,
    Series,
    Source,
    Watching,
    absences,
    at_epoch,
    chosen_epochs,
    seeds_text,
    series,
    watching,
)
from bench.report.plots.spec import QUANTITY, Option

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "histograms of how often samples were in a watched set, by method, at chosen epochs"
OPTIONS: dict[str, Option] = {
    "quantity": QUANTITY,
    "epochs": Option("epochs", None, "up to which epochs, counted from 1; by default three of those in the records"),
    "part": Option("choice", "all", "which samples: all, or those with a right or a wrong label", ("all", "clean", "noisy")),
}
METHODS = 4
EPOCHS = 3
BINS = 30
PARTS = {"all": "", "clean": "rightly labelled ", "noisy": "wrongly labelled "}


@dataclass(frozen=True)
class Panel:
    """Number of samples by method; `x` of a series are the left edges of bins of `width` epochs, beginning at 0."""

    at: At
    epoch: int
    width: int
    bars: Mapping[str, Series]


@dataclass(frozen=True)
class Sheet:
    methods: Mapping[str, MethodInfo]
    part: str
    rows: list[list[Panel]]
    foot: list[str]


def sheets(source: Source, options: Mapping[str, Any]) -> list[Sheet]:
    found = []
    for part in watching(source, "members", options["quantity"]).source.parts(METHODS):
        watch = watching(part, "members", options["quantity"])
        epochs = chosen_epochs(watch, options["epochs"], "counts", EPOCHS)
        rows = [[_panel(watch, at, epoch, options["part"]) for epoch in epochs] for at in part.cells]
        seeds = seeds_text(part)
        mean = "a single seed" if seeds == "1" else f"mean over {seeds} seeds; bands: smallest to largest seed"
        foot = [f"{watch.names_text()} Outlines: {mean}.", *absences(part, watch.lacks)]
        widths = sorted({panel.width for row in rows for panel in row})
        if widths[-1] > 1:
            foot[0] += f" Bins of {' and '.join(map(str, widths))} epochs."
        found.append(Sheet(part.methods, options["part"], rows, foot))
    return found


def _panel(watch: Watching, at: At, epoch: int, part: str) -> Panel:
    width = -(-(epoch + 1) // BINS)
    bars = {}
    for method, outcomes in watch.source.cells[at].items():
        curve = series([binned(_counts(watch, o, epoch, part), width) for o in outcomes], len(outcomes))
        if curve is not None:
            bars[method] = curve
    return Panel(at, epoch, width, bars)


def _counts(watch: Watching, outcome: Outcome, epoch: int, part: str) -> list[int]:
    """Samples by the number of epochs in the set, 0 to `epoch`; [] where the record does not know."""
    entry = at_epoch(watch.block(outcome), "counts", epoch) or {}
    if part != "all":
        return entry.get(part) or []
    if entry.get("clean") is None:
        return entry.get("all") or []
    return [a + b for a, b in zip(entry["clean"], entry["noisy"], strict=True)]


def binned(counts: Sequence[int], width: int) -> dict[int, float]:
    """Sums of `width` neighbouring counts, by the place of the first."""
    return {start: float(sum(counts[start : start + width])) for start in range(0, len(counts), width)}


def draw(sheet: Sheet) -> Figure:
    columns = len(sheet.rows[0])
    width = style.WIDTH if columns > 1 else style.WIDTH / 2
    labels = style.labels_of(sheet.methods)
    legend_columns, legend_height = style.legend_shape(labels, width)
    title_width = 1.1 * width / columns
    figure, grid = style.frame(
        len(sheet.rows), columns, sheet.foot, legend=legend_height, width=width, wspace=0.3, left=0.62 / width, gap=0.45,
        titles=style.title_lines((_title(row[0], True) for row in sheet.rows), title_width),
    )  # fmt: skip
    for i, row in enumerate(sheet.rows):
        for j, panel in enumerate(row):
            axes = figure.add_subplot(grid[i, j])
            _draw(axes, panel, list(sheet.methods))
            style.title(axes, _title(panel, j == 0), title_width)
            if j == 0:
                axes.set_ylabel(f"{PARTS[sheet.part]}samples", labelpad=2)
            if i == len(sheet.rows) - 1:
                axes.set_xlabel("epochs in the set", labelpad=1)
    style.legend(figure, [_handle(index, label) for index, label in enumerate(labels)], legend_columns, handlelength=2)
    return figure


def _title(panel: Panel, leftmost: bool) -> str:
    return f"{', '.join(panel.at)}: epoch {panel.epoch}" if leftmost else f"epoch {panel.epoch}"


def _handle(index: int, label: str) -> Any:
    from matplotlib.patches import Patch

    look = style.look(index)
    return Patch(facecolor=(look["color"], 0.25), edgecolor=look["color"], linestyle=look["linestyle"], label=label)


def _draw(axes: Axes, panel: Panel, methods: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    for method, bars in panel.bars.items():
        look = style.look(methods.index(method))
        edges = [*bars.x, bars.x[-1] + panel.width]
        edges = [edge - 0.5 for edge in edges]
        axes.stairs(bars.mean, edges, color=look["color"], linestyle=look["linestyle"], linewidth=1.2)
        axes.stairs(bars.mean, edges, color=look["color"], alpha=0.12, fill=True)
        if bars.n > 1:
            low, high = [*bars.low, bars.low[-1]], [*bars.high, bars.high[-1]]
            axes.fill_between(edges, low, high, step="post", color=look["color"], alpha=0.25, linewidth=0)
    if not panel.bars:
        style.empty(axes, "not recorded")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.set_ylim(0)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
