"""Features of training samples in the plane: rows are methods, columns are epochs, colours are classes (MTaDCS, Figure 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.aggregate import MethodInfo
from bench.report.plots import style
from bench.report.plots.source import At, Source, Watching, absences, at_keys, chosen_epochs, first_seed, watching
from bench.report.plots.spec import QUANTITY, Option

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "scatter of features: rows are methods, columns are epochs"
OPTIONS: dict[str, Option] = {
    "quantity": QUANTITY,
    "epochs": Option("epochs", None, "columns, counted from 1; by default at most four of those in the records"),
    "colour": Option("choice", "true", "which label gives the colour", ("true", "given")),
}
EPOCHS = 4
#: more than `style.COLOURS` has, for classes; each cluster bears its number too
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#882255", "#F0E442", "#332288")


@dataclass(frozen=True)
class Panel:
    """Coordinates and class of each point; `wrong`: its given label is wrong (nowhere, where the truth is unknown)."""

    method: str
    epoch: int
    seed: int
    x: list[float]
    y: list[float]
    label: list[int]
    wrong: list[bool]


@dataclass(frozen=True)
class Sheet:
    at: At
    methods: Mapping[str, MethodInfo]
    classes: list[str]
    rows: list[list[Panel | None]]
    foot: list[str]


def sheets(source: Source, options: Mapping[str, Any]) -> list[Sheet]:
    watch = watching(source, "points", options["quantity"])
    epochs = chosen_epochs(watch, options["epochs"], "at", EPOCHS)
    return [_sheet(watch, at, epochs, options["colour"]) for at in watch.source.cells]


def _sheet(watch: Watching, at: At, epochs: Sequence[int], colour: str) -> Sheet:
    part = watch.source.restricted({at: watch.source.cells[at]})
    rows = [[_panel(watch, at, method, epoch, colour) for epoch in epochs] for method in part.methods]
    panels = [panel for row in rows for panel in row if panel is not None]
    names: list[str] = next(
        (list(map(str, n)) for group in part.cells[at].values() for o in group if (n := at_keys(o, "noise", "classes"))), []
    )
    highest = max((label for panel in panels for label in panel.label), default=0)
    names = names if len(names) > highest else [str(i) for i in range(highest + 1)]
    seeds = ", ".join(map(str, sorted({panel.seed for panel in panels})))
    whose = "true" if colour == "true" else "given"
    text = f"t-SNE of at most 1000 training samples, seed {seeds}. Colour and number: {whose} class; crosses: wrong given label."
    numbers = [str(i) for i in range(len(names))]
    numbered = "" if names == numbers else f" {'; '.join(map(' '.join, zip(numbers, names, strict=True)))}."
    return Sheet(at, part.methods, names, rows, [f"{watch.names_text()} {text}{numbered}", *absences(part, watch.lacks)])


def _panel(watch: Watching, at: At, method: str, epoch: int, colour: str) -> Panel | None:
    found = first_seed(watch, at, method, "at", epoch)
    if found is None:
        return None
    outcome, entry = found
    given, true = entry["given"], entry.get("true")
    label = true if true and colour == "true" else given
    wrong = [a != b for a, b in zip(given, true, strict=True)] if true else [False] * len(given)
    return Panel(method, epoch, outcome.entry["seed"], entry["x"], entry["y"], label, wrong)


def draw(sheet: Sheet) -> Figure:
    columns = max(len(row) for row in sheet.rows)
    width = style.WIDTH if columns > 1 else style.WIDTH / 2
    side = min(2.1, width / columns - 0.15)
    epochs = [next((p.epoch for row in sheet.rows if (p := row[j]) is not None), None) for j in range(columns)]
    titles = [f"epoch {epoch}" for epoch in epochs]
    titles[0] = f"{', '.join(sheet.at)}: {titles[0]}"
    title_width = 1.15 * width / columns
    further = style.TITLE_LINE * (style.title_lines(titles, title_width) - 1)  # the first row alone has titles
    figure, grid = style.frame(
        len(sheet.rows), columns, sheet.foot, legend=0.15 + further, width=width, panel=side, gap=0.14, wspace=0.05,
        left=0.3 / width,
    )  # fmt: skip
    for i, row in enumerate(sheet.rows):
        for j, panel in enumerate(row):
            axes = figure.add_subplot(grid[i, j])
            _draw(axes, panel)
            if i == 0:
                style.title(axes, titles[j], title_width)
            if j == 0:
                label = sheet.methods[list(sheet.methods)[i]].label
                axes.set_ylabel(style.plain(style.shortened(label, int(15 * side))), labelpad=3)
    return figure


def _draw(axes: Axes, panel: Panel | None) -> None:
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(visible=True, color="#BBBBBB")
    if panel is None:
        axes.text(0.5, 0.5, "not watched", transform=axes.transAxes, ha="center", va="center", color="#666666")
        return
    # all the points of one marker in one call, in the order of samples, so that no class lies on top of the others
    for wrong, marker, size, width in ((False, "o", 5, 0.0), (True, "x", 7, 0.7)):
        chosen = [i for i, is_wrong in enumerate(panel.wrong) if is_wrong == wrong]
        if chosen:
            axes.scatter(
                [panel.x[i] for i in chosen], [panel.y[i] for i in chosen], s=size, marker=marker, linewidths=width,
                c=[COLOURS[panel.label[i] % len(COLOURS)] for i in chosen], rasterized=True,  # else a megabyte of SVG
            )  # fmt: skip
    for label in sorted(set(panel.label)):
        x, y = centre(panel, label)
        disc = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "#555555", "linewidth": 0.4, "alpha": 0.85}
        axes.text(x, y, str(label), ha="center", va="center", fontsize=6.5, weight="bold", color="black", bbox=disc)


def centre(panel: Panel, label: int) -> tuple[float, float]:
    """The point of the class nearest to its median: it lies in a cluster, where a mean may lie between two."""
    points = [(x, y) for x, y, own in zip(panel.x, panel.y, panel.label, strict=True) if own == label]
    middle = [sorted(values)[len(values) // 2] for values in zip(*points, strict=True)]
    return min(points, key=lambda p: (p[0] - middle[0]) ** 2 + (p[1] - middle[1]) ** 2)
