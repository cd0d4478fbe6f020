"""Confusion matrices and accuracy by class, confusable classes side by side (llc-dro, Figure 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.aggregate import MethodInfo, Outcome
from bench.report.plots import style
from bench.report.plots.source import Absent, At, Band, Source, absences, at_keys, band, mean_of, percent, seeds_text
from bench.report.plots.spec import Option
from bench.report.spec import nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "confusion matrices and class-wise accuracy, confusable classes adjacent"
OPTIONS: dict[str, Option] = {
    "classes": Option("names", None, "classes to show, in this order; by default all, or the most confused pairs of many"),
}
#: confusable pairs that are known from papers: asymmetric noise on CIFAR-10; ANIMAL-10N
PAIRS = (
    ("automobile", "truck"), ("airplane", "bird"), ("deer", "horse"), ("cat", "dog"),
    ("cat", "lynx"), ("wolf", "coyote"), ("cheetah", "jaguar"), ("chimpanzee", "orangutan"), ("hamster", "guinea pig"),
)  # fmt: skip
MANY = 20  # classes of which names and numbers can still be read
METHODS = 4  # matrices in one figure
#: a pair needs at least this share of a class's labels flipped to the partner, and this multiple of its other flips
SMALLEST, TIMES = 0.02, 2.0


@dataclass(frozen=True)
class Sheet:
    """Matrices hold per cent of a true class (row) that is predicted as another (column), by method; bars per cent."""

    at: At
    methods: Mapping[str, MethodInfo]
    classes: list[str]
    pairs: list[tuple[str, str]]
    matrices: Mapping[str, list[list[float | None]]]
    bars: Mapping[str, Mapping[str, Band]]
    foot: list[str]


def sheets(source: Source, options: Mapping[str, Any]) -> list[Sheet]:
    measured = source.having(lambda outcome: at_keys(outcome, "detail", "confusion_last"))
    found = [sheet for at in measured.cells if (sheet := _sheet(source, at, options["classes"])) is not None]
    if not found:
        raise Absent(f"no finished record of {source.suite} has a confusion matrix (data of more than 100 classes have none)")
    return found


def _sheet(whole: Source, at: At, classes: Sequence[str] | None) -> Sheet | None:
    chosen = whole.best(at, METHODS)
    source = whole.restricted({at: {method: whole.cells[at][method] for method in chosen}})
    outcomes = [o for group in source.cells[at].values() for o in group]
    matrices = {m: matrix for m, group in source.cells[at].items() if (matrix := shares_of(group))}
    if not matrices:
        return None
    size = len(next(iter(matrices.values())))
    known = next((n for o in outcomes if (n := at_keys(o, "noise", "classes")) and len(n) == size), range(size))
    names = list(map(str, known))
    noise = mean_matrix([m for o in outcomes if (m := at_keys(o, "noise", "matrix"))])
    pairs = partners(names, noise or next(iter(matrices.values())))
    order = chosen_classes(names, pairs, list(matrices.values()), classes)
    bars = {
        method: {
            name: b for name in order
            if (b := band((_class_accuracy(o, names.index(name)) for o in group), len(group))) is not None
        }
        for method, group in source.cells[at].items()
    }  # fmt: skip
    at_class = [names.index(name) for name in order]
    matrices = {m: [[matrix[i][j] for j in at_class] for i in at_class] for m, matrix in matrices.items()}
    shown = [pair for pair in pairs if set(pair) <= set(order)]
    foot = _foot(source, len(whole.cells[at]), order, names, shown)
    return Sheet(at, source.methods, order, shown, matrices, bars, foot)


def _class_accuracy(outcome: Outcome, index: int) -> float | None:
    values = at_keys(outcome, "detail", "class_acc_last")
    return percent(values[index]) if isinstance(values, list) and index < len(values) else None


def shares_of(outcomes: Sequence[Outcome]) -> list[list[float | None]]:
    """Per cent of each true class by predicted class, mean over seeds; None in the row of a class without test images."""
    counts = [matrix for o in outcomes if (matrix := at_keys(o, "detail", "confusion_last"))]
    return [] if not counts else [
        [mean_of(percent(seed[i][j] / sum(seed[i])) if sum(seed[i]) else None for seed in counts) for j in range(len(counts[0]))]
        for i in range(len(counts[0]))
    ]  # fmt: skip


def mean_matrix(matrices: Sequence[Any]) -> list[list[float]]:
    """Mean over matrices of one size; [] of none."""
    return [] if not matrices else [
        [mean_of(matrix[i][j] for matrix in matrices) or 0.0 for j in range(len(matrices[0][i]))] for i in range(len(matrices[0]))
    ]  # fmt: skip


def partners(names: Sequence[str], matrix: Sequence[Sequence[float | None]]) -> list[tuple[str, str]]:
    """Pairs of confusable classes: known ones, else pairs with the largest off-diagonal entries of a noise matrix.

    A pair is taken where labels go from a class to the other markedly more often than from it to the rest; under
    symmetric noise no class has a partner, and of two classes each is the other's.
    """
    if len(names) < 3:
        return []
    known = [pair for pair in PAIRS if set(pair) <= set(names)]
    if known:
        return known
    candidates = []
    for i, row in enumerate(matrix):
        others = sorted(((row[j] or 0.0, -j) for j in range(len(row)) if j != i), reverse=True)
        second = others[1][0] if len(others) > 1 else 0.0
        if others and others[0][0] >= max(SMALLEST, TIMES * second):
            candidates.append((-others[0][0], i, -others[0][1]))
    taken: set[int] = set()
    pairs = []
    for _, i, j in sorted(candidates):
        if not {i, j} & taken:
            taken |= {i, j}
            pairs.append((names[min(i, j)], names[max(i, j)]))
    return pairs


def chosen_classes(
    names: Sequence[str], pairs: Sequence[tuple[str, str]], matrices: Sequence[Any], wanted: Sequence[str] | None
) -> list[str]:
    """Classes in the order of the axes: each pair together, at the place of its first class; at most `MANY` unless named."""
    for name in wanted or ():
        if name not in names:
            raise ValueError(f"classes: there is no class {name!r}{nearest(name, names)}")
    if wanted:
        return list(wanted)
    partner = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    order = list(dict.fromkeys(name for first in names for name in (first, partner.get(first, first))))
    if len(order) <= MANY:
        return order
    loss = {
        (i, j): sum((m[i][j] or 0.0) + (m[j][i] or 0.0) for m in matrices) for i in range(len(names)) for j in range(i)
    }  # fmt: skip
    chosen: list[int] = []
    for i, j in sorted(loss, key=lambda at: (-loss[at], at)):
        chosen += [k for k in (i, j) if k not in chosen]
        if len(chosen) >= MANY:
            break
    return [names[i] for i in chosen[:MANY]]


def _foot(
    source: Source, methods: int, order: Sequence[str], names: Sequence[str], pairs: Sequence[tuple[str, str]]
) -> list[str]:
    seeds = seeds_text(source)
    mean = "a single seed" if seeds == "1" else f"mean over {seeds} seeds; whiskers: smallest to largest seed"
    what = "per cent of the test images of a class (row) by predicted class (column); under 0.5 not printed"
    lines = [f"Last epoch, {mean}. Matrices: {what}."]
    if pairs:
        lines[0] += f" Confusable pairs, framed: {'; '.join(f'{a}, {b}' for a, b in pairs)}."
    if len(order) < len(names):
        lines[0] += f" {len(order)} of {len(names)} classes."
    if methods > len(source.methods):
        lines.append(
            f"Shown: {len(source.methods)} of {methods} methods, the first and those of the highest test accuracy; "
            "the option `methods` chooses others."
        )
    return lines + absences(source, lambda o: None if at_keys(o, "detail", "confusion_last") else "without a confusion matrix")


def draw(sheet: Sheet) -> Figure:
    few = len(sheet.classes) <= 6
    columns = min(len(sheet.matrices), 4 if few else 2) or 1
    rows = -(-len(sheet.matrices) // columns)
    labels = style.labels_of(sheet.methods)
    legend_columns, legend_height = style.legend_shape(labels, style.WIDTH)
    height = 1.5 if few else 2.75
    longest = max(min(14, len(name)) for name in sheet.classes)
    gap = 0.4 + style.names_height(sheet.classes)
    ratios = [height] * rows + [1.3]
    title_width = style.WIDTH / columns
    titles = max(style.title_lines(labels, title_width), style.title_lines([", ".join(sheet.at)], style.WIDTH))
    figure, grid = style.frame(
        rows + 1, 12, sheet.foot, legend=legend_height, panel=sum(ratios) / len(ratios), gap=gap, ratios=ratios, wspace=1.5,
        left=0.09 + 0.004 * longest, titles=titles,
    )  # fmt: skip
    size = 6.5 if len(sheet.classes) <= 12 else 4.5
    span = 12 // columns
    for n, (method, matrix) in enumerate(sheet.matrices.items()):
        row, column = divmod(n, columns)
        axes = figure.add_subplot(grid[row, column * span : (column + 1) * span])
        style.matrix(axes, matrix, sheet.classes, sheet.classes, numbers=True, size=size)
        _frame_pairs(axes, sheet)
        style.title(axes, sheet.methods[method].label, title_width)
        axes.set_xlabel("predicted class", labelpad=2)
        if column == 0:
            axes.set_ylabel("true class", labelpad=2)
        else:
            axes.tick_params(labelleft=False)
    axes = figure.add_subplot(grid[rows, :])
    style.bars(axes, sheet.bars, {method: i for i, method in enumerate(sheet.methods)}, sheet.classes)
    crowded = len(sheet.classes) * longest > 130
    names = [style.plain(style.shortened(name, 14)) for name in sheet.classes]
    axes.set_xticks(range(len(names)), names, fontsize=6.5, rotation=90 if crowded else 0)
    style.title(axes, ", ".join(sheet.at), style.WIDTH)
    axes.set_ylabel("accuracy of the class (%)", labelpad=2)
    style.legend(figure, style.bar_handles(labels), legend_columns, handlelength=2.0)
    return figure


def _frame_pairs(axes: Axes, sheet: Sheet) -> None:
    from matplotlib.patches import Rectangle

    for a, b in sheet.pairs:
        i, j = sorted((sheet.classes.index(a), sheet.classes.index(b)))
        if j == i + 1:
            axes.add_patch(Rectangle((i - 0.5, i - 0.5), 2, 2, fill=False, edgecolor="#D55E00", linewidth=0.9))
