"""The figure of a profile: one bar per method, seconds of an epoch on the left, per cent of it on the right."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.profile.clock import CATEGORIES
from bench.profile.show import NAMES, seconds
from bench.report.escape import clean
from bench.report.plots.style import RC, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: category -> (face, hatch). Okabe and Ito's colours, the three kinds of forward pass in three tints of one blue;
#: neighbours differ in lightness, and hatches tell in a grey print what lightness does not
LOOKS = {
    "data": ("#999999", ""),
    "augmentation": ("#F0E442", ""),
    "forward": ("#0072B2", ""),
    "guess": ("#56B4E9", "////"),
    "inference": ("#CBE7F8", ""),
    "backward": ("#E69F00", ""),
    "optimiser": ("#EBC4DA", "...."),
    "method": ("#009E73", ""),
    "harness": ("#FFFFFF", ""),
    "evaluation": ("#D55E00", "\\\\\\\\"),
}
DARK = {"forward", "method", "evaluation"}
ROW, SMALLEST = 0.3, 4.0  # inches per method; the smallest per cent that is written into a bar


def draw(report: Mapping[str, Any], path_base: Path) -> list[Path]:
    """Write `path_base`.png, .svg and .pdf; returns the paths. The same report gives the same bytes (one matplotlib)."""
    from matplotlib import style

    paths = [Path(f"{path_base}.{suffix}") for suffix in ("png", "svg", "pdf")]
    with style.context(["default", RC, {"hatch.linewidth": 0.5}]):
        figure = profile_figure(report)
        figure.savefig(paths[0], dpi=200, metadata={"Software": None})
        figure.savefig(paths[1], metadata={"Date": None, "Creator": None})
        figure.savefig(paths[2], metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return paths


def profile_figure(report: Mapping[str, Any]) -> Figure:
    """The figure of `draw`, under the caller's matplotlib settings. Raises `ValueError` where no method was profiled."""
    from matplotlib.figure import Figure

    done = [facts for facts in report["methods"] if facts["status"] == "done"]
    if not done:
        raise ValueError("no method was profiled, so there is nothing to draw")
    shown = [name for name in CATEGORIES if any(facts["shares"][name] for facts in done)]
    foot = textwrap.wrap(_foot(report, done), 135, break_on_hyphens=False)
    legend_height, foot_height = 0.1 + 0.19 * -(-len(shown) // 5), 0.15 + 0.125 * len(foot)
    height = legend_height + ROW * len(done) + 0.45 + foot_height
    figure = Figure(figsize=(WIDTH, height))
    labels = [_plain(textwrap.shorten(clean(facts["method"]), 24, placeholder="…")) for facts in done]
    left = 0.03 + 0.0083 * max(map(len, labels))
    grid = figure.add_gridspec(
        1, 2, left=left, right=0.985, wspace=0.06, width_ratios=(1, 1.9), bottom=(foot_height + 0.4) / height,
        top=1 - (legend_height + 0.04) / height,
    )  # fmt: skip
    lengths = [facts["epoch_seconds"] for facts in done]
    times = figure.add_subplot(grid[0])
    _bars(times, shown, [[(facts["shares"][name] or 0.0) * facts["epoch_seconds"] for name in shown] for facts in done])
    for place, length in enumerate(lengths):
        times.annotate(seconds(length), (length, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=6.5)
    times.set_xlim(0, 1.3 * (max(lengths) or 1))
    times.set_xlabel("seconds per epoch", labelpad=1)
    times.set_yticks(range(len(done)), labels)
    shares = figure.add_subplot(grid[1])
    percent = [[100 * (facts["shares"][name] or 0.0) for name in shown] for facts in done]
    _bars(shares, shown, percent)
    _write_percent(shares, shown, percent)
    shares.set_xlim(0, 100)
    shares.set_xlabel("per cent of the epoch", labelpad=1)
    shares.set_yticks(range(len(done)), [""] * len(done))
    _legend(figure, shown, y=1 - 0.06 / height)
    figure.text(0.01, 0.08 / height, "\n".join(map(_plain, foot)), va="bottom", fontsize=6.5, color="#333333", linespacing=1.3)
    return figure


def _bars(axes: Axes, shown: Sequence[str], values: Sequence[Sequence[float]]) -> None:
    """One stacked bar per method, the first on top."""
    starts = [0.0] * len(values)
    for number, name in enumerate(shown):
        widths = [row[number] for row in values]
        axes.barh(range(len(values)), widths, height=0.72, left=starts, zorder=2, **_look(name))
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _look(name: str) -> dict[str, Any]:
    colour, hatch = LOOKS[name]
    return {"facecolor": colour, "hatch": hatch, "edgecolor": "#333333", "linewidth": 0.4}


def _write_percent(axes: Axes, shown: Sequence[str], percent: Sequence[Sequence[float]]) -> None:
    for place, row in enumerate(percent):
        start = 0.0
        for name, value in zip(shown, row, strict=True):
            if value >= SMALLEST:
                box = {"facecolor": LOOKS[name][0], "edgecolor": "none", "pad": 0.8} if LOOKS[name][1] else None
                axes.text(
                    start + value / 2, place, f"{value:.0f}", ha="center", va="center", fontsize=6.5, bbox=box,
                    color="white" if name in DARK else "black", zorder=3,
                )  # fmt: skip
            start += value


def _legend(figure: Figure, shown: Sequence[str], y: float) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(label=NAMES[name], **_look(name)) for name in shown]
    figure.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, y), ncols=min(5, len(handles)), handlelength=1.8,
        handleheight=0.9, columnspacing=1.6, borderaxespad=0, borderpad=0,
    )  # fmt: skip


def _foot(report: Mapping[str, Any], done: Sequence[Mapping[str, Any]]) -> str:
    cells = sorted({f"{facts['dataset']} {facts['noise']}" for facts in done})
    epochs = "the second epoch" if report["epochs"] == 2 else f"mean of epochs 2 to {report['epochs']}"
    where = f"{report['device']}, {report['engine']['precision']}"
    changed = [
        f"{facts['method']} with " + ", ".join(f"{key}={value}" for key, value in facts["changed"].items())
        for facts in done if facts["changed"]
    ]  # fmt: skip
    stages = f" So that all stages have begun: {'; '.join(changed)}." if changed else ""
    return clean(
        f"{', '.join(cells)}; {epochs}; {where}. Seconds of an epoch that runs without clocks, divided as one with a clock "
        f"around every part. Parts below {SMALLEST:.0f} % are not labelled.{stages}"
    )


def _plain(label: str) -> str:
    return label.replace("$", r"\$")
