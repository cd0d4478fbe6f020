"""Transition matrices as measured: which labels the noise gave to the samples of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.aggregate import Outcome
from bench.report.plots import style
from bench.report.plots.confusion import MANY, chosen_classes, mean_matrix
from bench.report.plots.source import Absent, At, Source, at_keys
from bench.report.plots.spec import Option

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "transition matrices of the noises, as measured on the training labels"
OPTIONS: dict[str, Option] = {
    "classes": Option("names", None, "classes to show, in this order; by default all, or the most often confused of many"),
}
PANELS = 9  # in one figure


@dataclass(frozen=True)
class Panel:
    """`matrix` holds per cent of a true class (row) by given label (column), mean over `n` noisy label vectors."""

    at: At
    classes: list[str]
    all_classes: int
    matrix: list[list[float]]
    rate: float | None
    n: int


@dataclass(frozen=True)
class Sheet:
    panels: list[Panel]
    foot: list[str]


def sheets(source: Source, options: Mapping[str, Any]) -> list[Sheet]:
    panels, unchanged, unknown = [], [], []
    for at, group in source.cells.items():
        noises = _noises([o for outcomes in group.values() for o in outcomes])
        if not noises:
            unknown.append(", ".join(at))
        elif all(not noise.get("rate") for noise in noises):
            unchanged.append(", ".join(at))
        else:
            panels.append(_panel(at, noises, options["classes"]))
    if not panels:
        raise Absent(f"no finished record of {source.suite} has noise whose true labels are known")
    foot = ["Per cent of the training samples of a true class (row) by given label (column), mean over n seeds."]
    if any(panel.all_classes > len(panel.classes) for panel in panels):
        foot[0] += f" Of more than {MANY} classes the pairs that are most often confused."
    if unchanged:
        foot.append(f"Without wrong labels, not drawn: {'; '.join(unchanged)}.")
    if unknown:
        foot.append(f"No matrix, not drawn: {'; '.join(unknown)}.")
    # panels of one figure have one size, so those of few and of many classes do not mix
    groups: dict[int, list[Panel]] = {}
    for panel in panels:
        groups.setdefault(_columns(panel), []).append(panel)
    return [Sheet(group[i : i + PANELS], foot) for group in groups.values() for i in range(0, len(group), PANELS)]


def _noises(outcomes: Sequence[Outcome]) -> list[Any]:
    """The different label vectors of finished seeds that have a matrix."""
    noises = [noise for o in outcomes if (noise := at_keys(o, "noise")) and noise.get("matrix") and noise.get("classes")]
    return list({noise.get("sha256"): noise for noise in noises}.values())


def _panel(at: At, noises: Sequence[Any], wanted: Sequence[str] | None) -> Panel:
    names = list(map(str, noises[0]["classes"]))
    matrix = [[100 * value for value in row] for row in mean_matrix([noise["matrix"] for noise in noises])]
    classes = chosen_classes(names, [], [matrix], wanted)
    places = [names.index(name) for name in classes]
    rates = [noise["rate"] for noise in noises if noise.get("rate") is not None]
    rate = 100 * sum(rates) / len(rates) if rates else None
    return Panel(at, classes, len(names), [[matrix[i][j] for j in places] for i in places], rate, len(noises))


def _columns(panel: Panel) -> int:
    """Panels beside each other."""
    return 4 if len(panel.classes) <= 4 else 3 if len(panel.classes) <= 10 else 2


def draw(sheet: Sheet) -> Figure:
    across = _columns(sheet.panels[0])
    columns = min(across, len(sheet.panels))
    width = style.WIDTH * max(0.5, columns / across)
    rows = -(-len(sheet.panels) // columns)
    longest = max(min(14, len(name)) for panel in sheet.panels for name in panel.classes)
    names = max(style.names_height(panel.classes) for panel in sheet.panels)
    side = {4: 1.15, 3: 1.75, 2: 2.9}[across]
    titles = style.title_lines((", ".join(panel.at) for panel in sheet.panels), width / columns)
    figure, grid = style.frame(
        rows, columns, sheet.foot, panel=side, width=width, wspace=0.3, gap=0.4 + names,
        left=(0.4 + 0.05 * longest) / width, titles=titles,
    )  # fmt: skip
    for n, panel in enumerate(sheet.panels):
        axes = figure.add_subplot(grid[n // columns, n % columns])
        size = {4: 6.5, 3: 5.0, 2: 4.5}[across]
        style.matrix(axes, panel.matrix, panel.classes, panel.classes, numbers=True, size=size)
        rate = "" if panel.rate is None else f", {panel.rate:.1f}% wrong"
        style.title(axes, ", ".join(panel.at), width / columns)
        axes.set_xlabel(f"given label (n = {panel.n}{rate})", labelpad=2)
        if n % columns == 0:
            axes.set_ylabel("true class", labelpad=2)
    return figure
