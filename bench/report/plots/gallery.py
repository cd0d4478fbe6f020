"""The training images whose labels a method trusts least: given label, true label, score (ODD's gallery)."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.aggregate import MethodInfo
from bench.report.plots import style
from bench.report.plots.source import At, Source, Watching, absences, at_keys, first_seed, watching
from bench.report.plots.spec import Option

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "gallery of the images that a method thinks mislabelled"
OPTIONS: dict[str, Option] = {
    "epoch": Option("count", None, "epoch, counted from 1; by default the last one in the records of each method"),
    "images": Option("count", 12, "images for each method, at most 24"),
    "given": Option("text", None, "only images with this given label"),
}
ACROSS = 12
METHODS = 6
RIGHT, WRONG = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class Tile:
    """`wrong`: whether the given label is wrong; None where the truth is unknown."""

    png: bytes
    given: str
    true: str | None
    score: float
    wrong: bool | None


@dataclass(frozen=True)
class Sheet:
    at: At
    methods: Mapping[str, MethodInfo]
    epochs: Mapping[str, int]
    tiles: Mapping[str, list[Tile]]
    foot: list[str]


def sheets(source: Source, options: Mapping[str, Any]) -> list[Sheet]:
    watch = watching(source, "gallery")
    found = [
        sheet
        for at, group in watch.source.cells.items()
        for i in range(0, len(group), METHODS)
        if (sheet := _sheet(watch, at, list(group)[i : i + METHODS], options)) is not None
    ]
    return found


def _sheet(watch: Watching, at: At, methods: list[str], options: Mapping[str, Any]) -> Sheet | None:
    part = watch.source.restricted({at: {method: watch.source.cells[at][method] for method in methods}})
    tiles, epochs, seeds = {}, {}, set()
    for method in methods:
        known = [int(e) + 1 for o in part.cells[at][method] for e in (watch.block(o) or {}).get("at") or ()]
        epoch = options["epoch"] or max(known, default=0)
        found = first_seed(watch, at, method, "at", epoch)
        if found is not None:
            outcome, entries = found
            block = watch.block(outcome)
            names = block.get("classes") or at_keys(outcome, "noise", "classes") or []
            shown = [_tile(entry, names) for entry in entries]
            tiles[method] = [t for t in shown if options["given"] in (None, t.given)][: options["images"]]
            epochs[method] = epoch
            seeds.add(outcome.entry["seed"])
    if not tiles:
        return None
    text = (
        f"Training images with the lowest clean scores, seed {', '.join(map(str, sorted(seeds)))}, lowest first; below each: "
        "given label, true label, score. Orange frame and ×: the label is wrong, as the method thinks; blue frame: it is right."
    )
    return Sheet(at, part.methods, epochs, tiles, [text, *absences(part, watch.lacks)])


def _tile(entry: Mapping[str, Any], names: list[Any]) -> Tile:
    def name(label: Any) -> str:
        return str(names[label]) if isinstance(label, int) and 0 <= label < len(names) else str(label)

    true = entry.get("true")
    wrong = None if true is None else true != entry["given"]
    return Tile(base64.b64decode(entry["png"]), name(entry["given"]), None if true is None else name(true), entry["score"], wrong)


def draw(sheet: Sheet) -> Figure:
    across = min(ACROSS, max(max(len(tiles) for tiles in sheet.tiles.values()), 6))
    lines = [-(-len(tiles) // across) or 1 for tiles in sheet.tiles.values()]
    side = (style.WIDTH - 0.1) / across - 0.06
    figure, grid = style.frame(
        sum(lines), across, sheet.foot, legend=0.0, panel=side, gap=0.58, width=style.WIDTH, left=0.008, right=0.992, wspace=0.08
    )
    row = 0
    for (method, tiles), used in zip(sheet.tiles.items(), lines, strict=True):
        label = f"{sheet.methods[method].label}: {', '.join(sheet.at)}, epoch {sheet.epochs[method]}"
        if not tiles:
            axes = figure.add_subplot(grid[row, 0])
            axes.set_axis_off()
            axes.text(0, 0.5, "no such image", transform=axes.transAxes, color="#666666")
            axes.set_title(style.plain(label), loc="left", pad=4)
        for n, tile in enumerate(tiles):
            axes = figure.add_subplot(grid[row + n // across, n % across])
            _draw(axes, tile)
            if n == 0:
                axes.set_title(style.plain(style.shortened(label, 100)), loc="left", pad=4)
        row += used
    return figure


def _draw(axes: Axes, tile: Tile) -> None:
    from matplotlib import image

    try:
        picture = image.imread(io.BytesIO(tile.png), format="png")
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    except (OSError, ValueError, SyntaxError):  # what Pillow raises for what is no PNG
        axes.text(0.5, 0.5, "unreadable", transform=axes.transAxes, ha="center", va="center", fontsize=5, color="#666666")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    colour = {None: "#999999", True: WRONG, False: RIGHT}[tile.wrong]
    for side in axes.spines.values():
        side.set(visible=True, color=colour, linewidth=1.8)
    true = "?" if tile.true is None else tile.true
    mark = "× " if tile.wrong else ""
    lines = (f"{mark}{style.shortened(tile.given, 12)}", style.shortened(f"true: {true}", 13), f"{tile.score:.2g}")
    axes.set_xlabel("\n".join(style.plain(line) for line in lines), fontsize=5.5, labelpad=2, linespacing=1.15)
