"""What every figure shares: colours, sizes, the frame with its legend and foot, and files with the same bytes every time.

matplotlib is imported on first use; no pyplot, no global state left changed.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report.escape import clean
from bench.report.spec import METRICS, PROTOCOLS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

    from bench.report.plots.source import Band

# Okabe and Ito's colours, distinguishable under every common colour-vision deficiency, without the yellow (too light
# for a thin line). Line style and marker run at other periods, so that 140 curves differ, also in a grey print.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", (0, (1, 1.2)))
MARKERS = ("o", "s", "^", "D", "v")
#: of bars, in the order of `COLOURS`: told apart in a grey print; black is drawn as a dark grey, where a hatch shows
HATCHES = ("", "////", "", "....", "\\\\\\\\", "", "xxxx")
FACES = ("#4D4D4D", *COLOURS[1:])
#: rightly and wrongly labelled samples, in every figure that tells them apart
CLEAN, NOISY = "#009E73", "#0072B2"

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
TITLE_LINE = 0.135  # each further line of a title
FOOT_SIZE = 6.5
FORMATS = ("png", "svg", "pdf")
_SAVE: dict[str, dict[str, Any]] = {
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "svg": {"metadata": {"Date": None, "Creator": None}},
    "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
}


def settings() -> Any:
    """A context in which figures are made and saved; the caller's matplotlib settings come back after it."""
    from matplotlib import style

    return style.context(["default", RC, {"hatch.linewidth": 0.5}])


def save(figure: Figure, base: str | PathLike[str], formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write `base`.png and so on, without dates and program versions; returns the paths. Call it within `settings`."""
    # Not with_suffix: it would cut a base name at its last dot.
    paths = [Path(f"{Path(base)}.{suffix}") for suffix in formats]
    for path in paths:
        figure.savefig(path, **_SAVE[path.suffix[1:]])
    return paths


def frame(
    rows: int, columns: int, foot: Sequence[str], *, legend: float = 0.0, panel: float = PANEL_HEIGHT, gap: float = GAP,
    width: float | None = None, left: float | None = None, right: float = 0.99, wspace: float = 0.14,
    ratios: Sequence[float] | None = None, titles: int = 1,
) -> tuple[Figure, GridSpec]:  # fmt: skip
    """An empty figure with room for a legend at the top (`legend` inches), `rows` x `columns` panels, and the foot.

    Args:
        foot: sentences, wrapped here.
        panel, gap: inches of a panel's height and of the space below it.
        width: inches; by default the whole page for several columns, half of it for one.
        left, right, wspace: as of matplotlib's `add_gridspec`, shares of the figure's width.
        ratios: heights of the rows, relative; their mean is `panel`.
        titles: lines of the longest title, as `title_lines` counts them.
    """
    from matplotlib.figure import Figure

    width = width or (WIDTH if columns > 1 else WIDTH / 2)
    lines = wrapped(foot, int(18 * width))
    foot_height = 0.15 + 0.125 * len(lines)
    further = TITLE_LINE * (titles - 1)
    height = legend + TITLE_HEIGHT + rows * (panel + gap + further) + foot_height
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        rows, columns, left=left if left is not None else 0.075 if columns > 1 else 0.15, right=right, wspace=wspace,
        hspace=(gap + further) / panel, bottom=(foot_height + gap) / height, top=1 - (legend + TITLE_HEIGHT + further) / height,
        height_ratios=ratios,
    )  # fmt: skip
    figure.text(0.01, 0.08 / height, "\n".join(lines), va="bottom", fontsize=FOOT_SIZE, color="#333333", linespacing=1.3)
    return figure, grid


def wrapped(sentences: Sequence[str], wrap: int) -> list[str]:
    return [plain(part) for line in sentences for part in textwrap.wrap(clean(line), wrap, break_on_hyphens=False)]


def legend_shape(labels: Sequence[str], width: float) -> tuple[int, float]:
    """Columns of a legend of lines or patches in a figure of that width, and its height in inches."""
    entry_width = 0.55 + 0.057 * max(map(len, labels))
    lines = math.ceil(len(labels) / max(1, min(6, int(width / entry_width))))
    return math.ceil(len(labels) / lines), 0.12 + 0.17 * lines


def legend(figure: Figure, handles: Sequence[Any], columns: int, handlelength: float = 3.2) -> None:
    """A legend of `handles` above all panels."""
    for handle in handles:
        # matplotlib leaves labels that start with an underscore out of a legend
        handle.set_label(re.sub("^_", " _", plain(handle.get_label())))
    figure.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 1 - 0.06 / figure.get_figheight()), ncols=columns,
        handlelength=handlelength, columnspacing=1.6, borderaxespad=0, borderpad=0,
    )  # fmt: skip


def look(index: int) -> dict[str, Any]:
    """Of the line of the method, or other series, with this number."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": STYLES[index % len(STYLES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 3.2,
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
    }


def bar_look(index: int) -> dict[str, Any]:
    """Of the bars of the series with this number."""
    return {
        "facecolor": FACES[index % len(FACES)],
        "hatch": HATCHES[index % len(HATCHES)],
        "edgecolor": "white",
        "linewidth": 0.4,
    }


def line_handles(labels: Sequence[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], label=label, **look(index)) for index, label in enumerate(labels)]


def bar_handles(labels: Sequence[str]) -> list[Any]:
    from matplotlib.patches import Patch

    return [Patch(label=label, **bar_look(index)) for index, label in enumerate(labels)]


def title(axes: Axes, text: str, width: float) -> None:
    """A panel's title at its left, in lines of `width` inches. Nothing is cut, lest two panels have the same."""
    axes.set_title("\n".join(_title(text, width)), loc="left", pad=3)


def title_lines(texts: Iterable[str], width: float) -> int:
    """Lines of the longest of these titles."""
    return max((len(_title(text, width)) for text in texts), default=1)


def _title(text: str, width: float) -> list[str]:
    return wrapped([text], int(14.5 * width))


def empty(axes: Axes, text: str = "no finished cell") -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#666666")
    axes.set_xlim(0, 1)


def epoch_axis(axes: Axes, lowest: bool = True) -> None:
    """Whole epochs, counted from 1, at most five of them; named in the lowest row."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    if lowest:
        axes.set_xlabel("epoch", labelpad=1)


def matrix(
    axes: Axes, values: Sequence[Sequence[float | None]], rows: Sequence[str], columns: Sequence[str], *, numbers: bool,
    size: float, digits: int = 0, limits: tuple[float, float] = (0.0, 100.0), hide_below: float = 0.5,
) -> None:  # fmt: skip
    """Cells in shades of one blue, light to dark, with their numbers; None is drawn as a hatched cell.

    Args:
        values: by row.
        size: font size of numbers and names.
        hide_below: numbers smaller than this are not printed (their cell is nearly white).
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    scale, colours = Normalize(*limits), colormaps["Blues"]
    # not imshow: an image in an SVG is drawn blurred by some viewers
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            known = value is not None and math.isfinite(value)
            share = float(scale(value)) if value is not None and known else 0.0
            face = colours(share) if known else "#FFFFFF"
            axes.add_patch(
                Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=face, edgecolor="#FFFFFF" if known else "#BBBBBB", linewidth=0.4,
                          hatch=None if known else "////")
            )  # fmt: skip
            if numbers and known and value is not None and abs(value) >= hide_below:
                ink = "white" if share > 0.55 else "#222222"
                axes.text(j, i, f"{value:.{digits}f}", ha="center", va="center", fontsize=size, color=ink)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5), aspect="equal")
    axes.set_xticks(range(len(columns)), [plain(shortened(name, 14)) for name in columns], fontsize=size)
    axes.set_yticks(range(len(rows)), [plain(shortened(name, 14)) for name in rows], fontsize=size)
    if upright(columns):
        axes.tick_params(axis="x", labelrotation=90)
    axes.grid(False)
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def upright(names: Sequence[str]) -> bool:
    """Whether names under the columns of a matrix stand upright, for want of room."""
    return max(map(len, names), default=0) > (12 if len(names) <= 3 else 2)


def names_height(names: Sequence[str]) -> float:
    """Inches that the names under a matrix take."""
    return 0.055 * max(min(14, len(name)) for name in names) if upright(names) else 0.1


def bars(axes: Axes, values: Mapping[str, Mapping[str, Band]], looks: Mapping[str, int], places: Sequence[str]) -> None:
    """Bars of per cent side by side at each place, whiskers from the smallest to the largest seed. `looks`: series -> its number,
    in the order of the bars."""
    width = 0.8 / max(1, len(looks))
    for j, (name, look_index) in enumerate(looks.items()):
        for i, place in enumerate(places):
            value = values.get(name, {}).get(place)
            if value is not None:
                x = i - 0.4 + (j + 0.5) * width
                axes.bar(x, value.mean, 0.92 * width, **bar_look(look_index))
                if value.n > 1:
                    axes.vlines(x, value.low, value.high, color="#222222", linewidth=0.7)
    axes.set(ylim=(0, 102), xlim=(-0.55, len(places) - 0.45))
    axes.grid(False, axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=0)


def metric_name(metric: str, protocol: str) -> str:
    """Name of an axis, with the unit: 'test accuracy, last (%)'."""
    words = {"test_acc": "test accuracy", "worst_group_acc": "worst group", "noise_auc": "noise AUC"}
    label = PROTOCOLS[protocol].label.replace("{k}", "epochs")
    return f"{words.get(metric, METRICS[metric].label)}, {label} (%)"


def labels_of(methods: Mapping[str, Any]) -> list[str]:
    return [info.label for info in methods.values()]


def shortened(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def plain(text: str) -> str:
    """Text that matplotlib prints as it stands: a dollar sign would start a formula."""
    return clean(text).replace("$", r"\$")
