"""Test accuracy of every group, and how well the clean scores of its training samples find wrong labels (llc-dro, Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.aggregate import MethodInfo, Outcome
from bench.report.plots import style
from bench.report.plots.source import Absent, At, Band, Source, absences, at_keys, band, percent, seeds_text
from bench.report.plots.spec import Option

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "bars: accuracy of every group and of the worst one, noise AUC of every group"
#: `group_acc` is not averaged over the last epochs, so there is no last_k
OPTIONS: dict[str, Option] = {
    "protocol": Option(
        "choice", "last", "which epoch's accuracy; noise AUC is always the last epoch's", ("last", "best_oracle", "selected")
    ),
    "reference": Option("text", "erm", "method drawn as a dotted line instead of bars, where the plan has it"),
}
WORST = "worst group"
KEYS = {"acc": "test accuracy (%)", "auc": "noise AUC (%)"}
BARS = 6
TITLE_WIDTH = 4.0


@dataclass(frozen=True)
class Panel:
    """Percent by method and group. `key` is in KEYS."""

    at: At
    key: str
    groups: list[str]
    bars: Mapping[str, Mapping[str, Band]]


@dataclass(frozen=True)
class Sheet:
    methods: Mapping[str, MethodInfo]
    reference: str | None
    rows: list[list[Panel]]
    foot: list[str]


def sheets(source: Source, options: Mapping[str, Any]) -> list[Sheet]:
    accuracy = f"group_acc_{options['protocol']}"
    grouped = {at for at, group in source.cells.items() if any(_groups(o) for outcomes in group.values() for o in outcomes)}
    if not grouped:
        raise Absent(f"no finished record of {source.suite} is of data with groups")
    source = source.restricted({at: group for at, group in source.cells.items() if at in grouped})
    reference = options["reference"] if options["reference"] in source.methods and len(source.methods) > 1 else None
    order = sorted(source.methods, key=lambda method: method != reference)
    found = []
    for part in source.only(None, None, order).parts(BARS + 1 if reference else BARS):
        rows = [_row(part, at, accuracy) for at in part.cells]
        found.append(Sheet(part.methods, reference, rows, _foot(part, options, reference)))
    return found


def _groups(outcome: Outcome) -> Any:
    return at_keys(outcome, "data", "groups")


def _row(source: Source, at: At, accuracy: str) -> list[Panel]:
    cells = source.cells[at]
    names = next(list(g) for outcomes in cells.values() for o in outcomes if (g := _groups(o)))
    acc = {m: _bands(outcomes, names, ("metrics", accuracy)) for m, outcomes in cells.items()}
    for method, outcomes in cells.items():
        worst = band((percent(at_keys(o, "metrics", f"worst_{accuracy}")) for o in outcomes), len(outcomes))
        if worst:
            acc[method][WORST] = worst
    auc = {m: _bands(outcomes, names, ("detail", "group_noise_auc_last")) for m, outcomes in cells.items()}
    panels = [Panel(at, "acc", [*names, WORST], acc), Panel(at, "auc", names, auc)]
    return panels if any(auc.values()) else panels[:1]


def _bands(outcomes: Sequence[Outcome], groups: Sequence[str], keys: tuple[str, ...]) -> dict[str, Band]:
    bands = {group: band((percent(at_keys(o, *keys, group)) for o in outcomes), len(outcomes)) for group in groups}
    return {group: found for group, found in bands.items() if found is not None}


def _foot(source: Source, options: Mapping[str, Any], reference: str | None) -> list[str]:
    epoch = {
        "last": "after the last epoch",
        "best_oracle": "at the epoch with the highest test accuracy",
        "selected": "at the epoch that the validation data select",
    }
    seeds = seeds_text(source)
    bars = "Bars: a single seed" if seeds == "1" else f"Bars: mean over {seeds} seeds; whiskers: smallest to largest seed"
    dotted = f"; dotted: {source.methods[reference].label}" if reference else ""
    worst = "The worst group is found for each seed."
    auc = (
        "Noise AUC: how well clean scores tell rightly from wrongly labelled training samples of the group, last epoch; 50 is "
        "chance; no bar: the method gives no scores, or the group has no wrong labels."
    )
    return [f"{bars}{dotted}. Accuracy {epoch[options['protocol']]}. {worst} {auc}", *absences(source)]


def draw(sheet: Sheet) -> Figure:
    labels = style.labels_of(sheet.methods)
    columns, legend_height = style.legend_shape(labels, style.WIDTH)
    titles = style.title_lines((", ".join(panel.at) for row in sheet.rows for panel in row), TITLE_WIDTH)
    figure, grid = style.frame(len(sheet.rows), 9, sheet.foot, legend=legend_height, gap=0.46, wspace=1.6, titles=titles)
    for i, row in enumerate(sheet.rows):
        for panel, place in zip(row, (slice(0, 5), slice(5, 9)), strict=False):
            axes = figure.add_subplot(grid[i, place])
            _bars(axes, panel, list(sheet.methods), sheet.reference)
            style.title(axes, ", ".join(panel.at), TITLE_WIDTH)
    handles = style.bar_handles(labels)
    if sheet.reference:
        from matplotlib.lines import Line2D

        handles[0] = Line2D([], [], color="black", linestyle=":", linewidth=1.5, label=labels[0])
    style.legend(figure, handles, columns, handlelength=2.0)
    return figure


def _bars(axes: Axes, panel: Panel, methods: Sequence[str], reference: str | None) -> None:
    style.bars(axes, panel.bars, {method: i for i, method in enumerate(methods) if method != reference}, panel.groups)
    for place, group in enumerate(panel.groups):
        line = panel.bars.get(reference or "", {}).get(group)
        if line is not None:
            axes.hlines(line.mean, place - 0.44, place + 0.44, color="black", linestyle=(0, (1, 1)), linewidth=1.5)
    if panel.key == "auc":
        axes.axhline(50, color="#888888", linewidth=0.6, zorder=0.9)
    if WORST in panel.groups:
        axes.axvline(len(panel.groups) - 1.5, color="#BBBBBB", linewidth=0.6)
    names = [style.plain(style.shortened(group, 24)).replace("/", "/\n") for group in panel.groups]
    names = [name.replace(" ", "\n") if name == WORST else name for name in names]
    axes.set_xticks(range(len(panel.groups)), names, fontsize=6.5)
    axes.set_ylabel(KEYS[panel.key], labelpad=2)
