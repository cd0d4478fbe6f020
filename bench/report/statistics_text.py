"""The statistics of a suite as Markdown, terminal text, LaTeX, CSV and plain data, and the critical-difference diagram."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

from bench.report.escape import clean, markdown, pad, tex, width
from bench.report.spec import METRICS, PROTOCOLS, nearest
from bench.report.statistics import BLOCKS, Pair, Section, Statistics, told

FORMATS = ("md", "tex", "csv", "text")
#: pairs of a section that are printed; CSV and JSON hold all
PAIRS = 30
SHOWN_MISSING = 5
#: ('heading', text), ('text', text) or ('table', rows), of which the first row is the head
Part = tuple[str, Any]
Command = Callable[[Mapping[str, Any]], str]


def render_statistics(found: Statistics, fmt: str, command: Command | None = None) -> str:
    """In one of `FORMATS`, else ValueError. `command`: what runs the cell of a plan entry, told for missing ones."""
    if fmt not in FORMATS:
        raise ValueError(f"unknown format of statistics {fmt!r}{nearest(fmt, FORMATS)}")
    if fmt == "csv":
        return _csv(found)
    parts = _parts(found, command)
    return {"md": _markdown, "text": _text, "tex": _tex}[fmt](parts)


def _parts(found: Statistics, command: Command | None) -> list[Part]:
    protocol = PROTOCOLS[found.protocol].label.format(k="k")
    against = f"every method against {found.labels[found.baseline]}" if found.baseline else "all pairs"
    parts: list[Part] = [
        ("heading", f"Statistics of {found.suite}"),
        ("text", f"Metric: {METRICS[found.metric].meaning}; protocol: {protocol}. Comparisons: {against}; two-sided p values, "
                 f"as computed and after Holm's correction over the comparisons of a section; significant below {found.alpha:g}. "
                 "Wilcoxon's signed-rank test gives half of the ranks of zero differences to each side; the paired t test "
                 "assumes normal differences, which a few blocks cannot show. Rank 1 is best, ties share ranks. Win, tie, loss: "
                 f"blocks in which the first method is better, within {found.margin:g} points, worse."),
        ("text", "In the sections of one data set and noise a block is a seed: all methods see the same labels under it. These "
                 "say how sure the difference is on that data set, and nothing about others. In the last section a block is: "
                 f"{BLOCKS[found.blocks]}."),
    ]  # fmt: skip
    for section in found.sections:
        parts += _section(found, section, command)
    return parts


def _section(found: Statistics, section: Section, command: Command | None) -> list[Part]:
    parts: list[Part] = [("heading", f"{section.name}: {len(section.blocks)} blocks" if section.blocks else section.name)]
    if section.missing:
        parts.append(("text", f"Refused: {len(section.missing)} cells have no value, and nothing is averaged over them."))
        for cell in section.missing[:SHOWN_MISSING]:
            run = f" Run: {command(cell['entry'])}" if command and cell["entry"] and cell["status"] != "skipped" else ""
            parts.append(("text", f"{told(cell)}.{run}"))
        more = len(section.missing) - SHOWN_MISSING
        parts.append(("text", (f"And {more} more. " if more > 0 else "")
                      + "Or leave out what is incomplete: --only method=..., dataset=..., noise=..."))  # fmt: skip
    parts += [("text", f"Refused: {text}.") for text in section.refused]
    if not section.ranks:
        return parts
    order = sorted(section.ranks, key=lambda name: (section.ranks[name], name))
    rows = [[found.labels[name], f"{section.ranks[name]:.2f}", f"{100 * section.means[name]:.2f}"] for name in order]
    parts.append(("table", [["method", "average rank", "mean (%)"], *rows]))
    if section.friedman:
        values = section.friedman
        improved = f"; Iman and Davenport's F = {values['F']:.3f}, p = {_p(values['p_F'])}" if "F" in values else ""
        parts.append(("text", f"Friedman: chi squared = {values['chi2']:.3f}, p = {_p(values['p'])}{improved}."))
    if section.nemenyi:
        sets = "; ".join("{" + ", ".join(found.labels[name] for name in group) + "}" for group in section.nemenyi["groups"])
        cd = f"{section.nemenyi['cd']:.3f}"
        parts.append(("text", f"Nemenyi: the critical difference is {cd} ranks. Not told apart: {sets or 'none'}."))
    if section.pairs:
        parts += _pair_table(found, section)
    if section is found.overall and not found.baseline:
        parts.append(("table", _wins(found, section, order)))
    return [*parts, *(("text", f"Note: {text}.") for text in section.notes)]


def _pair_table(found: Statistics, section: Section) -> list[Part]:
    head = ["first", "second", "difference", "win/tie/loss", "Wilcoxon p", "Holm", "t p", "Holm"]
    ordered = sorted(section.pairs, key=lambda pair: (_least(pair), -abs(pair.difference), pair.first, pair.second))
    rows = [
        [found.labels[pair.first], found.labels[pair.second], f"{pair.difference:+.2f}", f"{pair.wins}/{pair.ties}/{pair.losses}",
         *(_p(value) for value in (pair.wilcoxon, pair.wilcoxon_holm, pair.t, pair.t_holm))]
        for pair in ordered[:PAIRS]
    ]  # fmt: skip
    more = len(ordered) - len(rows)
    rest = f"The {len(rows)} pairs with the smallest p; {more} more: --format csv, --json."
    return [("table", [head, *rows]), *([("text", rest)] if more else [])]


def _least(pair: Pair) -> float:
    return min((value for value in (pair.wilcoxon, pair.t) if value is not None), default=1.0)


def _wins(found: Statistics, section: Section, order: Sequence[str]) -> list[list[str]]:
    """Row against column: blocks won/tied/lost."""
    counts = {(p.first, p.second): (p.wins, p.ties, p.losses) for p in section.pairs}
    counts |= {(b, a): (losses, ties, wins) for (a, b), (wins, ties, losses) in list(counts.items())}
    body = [
        [found.labels[a], *("" if a == b else "/".join(map(str, counts[a, b])) for b in order)] for a in order
    ]  # fmt: skip
    return [["win/tie/loss", *(found.labels[name] for name in order)], *body]


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


# -- formats -----------------------------------------------------------------------------------------------------------
def _markdown(parts: Sequence[Part]) -> str:
    lines = []
    for i, (kind, body) in enumerate(parts):
        if kind == "table":
            rows = ["| " + " | ".join(markdown(cell) for cell in row) + " |" for row in body]
            lines.append("\n".join([rows[0], "| :-- |" + " --: |" * (len(body[0]) - 1), *rows[1:]]))
        else:
            lines.append(f"{'## ' if i else '# '}{markdown(body)}" if kind == "heading" else markdown(body))
    return "\n\n".join(lines) + "\n"


def _text(parts: Sequence[Part]) -> str:
    lines = []
    for kind, body in parts:
        if kind == "table":
            cells = [[clean(cell) for cell in row] for row in body]
            sizes = [max(width(row[i]) for row in cells) for i in range(len(cells[0]))]
            sides = ["left", *["right"] * (len(sizes) - 1)]
            rows = ["  ".join(map(pad, row, sizes, sides)) for row in cells]
            lines.append("\n".join([rows[0], "─" * width(rows[0]), *rows[1:]]))
        elif kind == "heading":
            lines.append(f"{clean(body)}\n{'═' * width(clean(body))}")
        else:
            lines.append(textwrap.fill(clean(body), 130, break_on_hyphens=False))
    return "\n\n".join(lines) + "\n"


def _tex(parts: Sequence[Part]) -> str:
    lines = ["% needs \\usepackage{booktabs}"]
    for kind, body in parts:
        if kind == "table":
            rows = [" & ".join(tex(cell) for cell in row) + r" \\" for row in body]
            rule = [rf"\begin{{tabular}}{{l{'r' * (len(body[0]) - 1)}}}", r"\toprule", rows[0], r"\midrule", *rows[1:]]
            lines.append("\n".join([*rule, r"\bottomrule", r"\end{tabular}"]))
        else:
            lines.append(rf"\paragraph{{{tex(body)}}}" if kind == "heading" else tex(body))
    return "\n\n".join(lines) + "\n"


def _csv(found: Statistics) -> str:
    """Long form: section, blocks, first, second, statistic, value. Refusals are rows too."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["section", "blocks", "first", "second", "statistic", "value"])
    for section in found.sections:
        at = [clean(section.name), len(section.blocks)]
        for what in ("ranks", "means"):
            writer.writerows([[*at, clean(m), "", what[:-1], repr(v)] for m, v in getattr(section, what).items()])
        writer.writerows([[*at, "", "", f"friedman_{key}", repr(v)] for key, v in (section.friedman or {}).items()])
        if section.nemenyi:
            writer.writerow([*at, "", "", "nemenyi_cd", repr(section.nemenyi["cd"])])
        for pair in section.pairs:
            values = {key: value for key, value in asdict(pair).items() if key not in ("first", "second") and value is not None}
            writer.writerows([[*at, clean(pair.first), clean(pair.second), key, repr(v)] for key, v in values.items()])
        writer.writerows([[*at, clean(c["method"]), "", "missing", clean(told(c))] for c in section.missing])
        writer.writerows([[*at, "", "", "refused", clean(text)] for text in section.refused])
    return out.getvalue()


def as_json(found: Statistics, command: Command | None = None) -> dict[str, Any]:
    """Everything, p values of Nemenyi's test too, as plain data."""
    data = asdict(found)
    for section in data["sections"]:
        for cell in section["missing"]:
            entry = cell.pop("entry")
            cell["command"] = command(entry) if command and entry and cell["status"] != "skipped" else None
    return data


# -- the diagram -------------------------------------------------------------------------------------------------------
def critical_difference_diagram(found: Statistics, base: str | PathLike[str]) -> list[Path]:
    """Write `base`.png and .svg: average ranks over all blocks on a line, best at the left, and bars over what Nemenyi's test
    cannot tell apart (Demšar, section 3.2.4). The same bytes every time. Raises ValueError where the test was refused."""
    from bench.report.plots import style

    section = found.overall
    if section.nemenyi is None:
        raise ValueError("no critical-difference diagram: " + "; ".join([*section.refused, *map(told, section.missing[:1])]))
    with style.settings():
        return style.save(_diagram(found, section), base)


def _diagram(found: Statistics, section: Section) -> Any:
    from matplotlib.figure import Figure

    from bench.report.plots import style

    order = sorted(section.ranks, key=lambda name: (section.ranks[name], name))
    k, cd, sets = len(order), section.nemenyi["cd"], section.nemenyi["groups"]  # type: ignore[index]
    half = (k + 1) // 2
    bars, line = 0.09 * len(sets) + 0.1, 0.19
    protocol = PROTOCOLS[found.protocol].label.format(k="k")
    foot = style.wrapped(
        [f"Average rank over {len(section.blocks)} blocks ({section.unit}); {METRICS[found.metric].meaning}, {protocol}; "
         "rank 1 is best. "
         f"Bars join methods that Nemenyi's test does not tell apart at {found.alpha:g} (critical difference {cd:.2f})."],
        int(18 * style.WIDTH),
    )  # fmt: skip
    top, below = 0.55, bars + line * half
    height = top + below + 0.2 + 0.125 * len(foot)
    figure = Figure(figsize=(style.WIDTH, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), frameon=False)
    axes.set(xlim=(0, style.WIDTH), ylim=(-height, 0), xticks=[], yticks=[])
    axes.grid(False)
    margin = 1.9
    span = style.WIDTH - 2 * margin

    def x(rank: float) -> float:
        return margin + span * (rank - 1) / (k - 1)

    def draw(xs: Sequence[float], ys: Sequence[float], thick: float = 0.7) -> None:
        axes.plot(xs, ys, color="black", linewidth=thick, solid_capstyle="butt", clip_on=False)

    draw([x(1), x(k)], [-top, -top])
    for tick in range(1, k + 1):
        draw([x(tick), x(tick)], [-top, -top + 0.06])
        if k <= 12 or tick % 2:
            axes.text(x(tick), -top + 0.09, str(tick), ha="center", va="bottom")
    draw([x(1), x(1 + cd)], [-0.2, -0.2], 1.2)
    axes.text((x(1) + x(1 + cd)) / 2, -0.17, f"CD = {cd:.2f}", ha="center", va="bottom", fontsize=style.FOOT_SIZE)
    for i, group in enumerate(sets):
        low, high = section.ranks[group[0]], section.ranks[group[-1]]
        y = -top - 0.1 - 0.09 * i
        draw([x(low) - 0.03, x(high) + 0.03], [y, y], 2.4)
    for i, name in enumerate(order):
        left = i < half
        y = -top - bars - line * ((i if left else k - 1 - i) + 0.5)
        rank, label = section.ranks[name], style.plain(style.shortened(found.labels[name], 26))
        edge = margin - 0.1 if left else style.WIDTH - margin + 0.1
        colour = style.COLOURS[i % len(style.COLOURS)]
        axes.plot([x(rank), x(rank), edge], [-top, y, y], color=colour, linewidth=0.7)
        words = f"{label}  {rank:.2f}" if left else f"{rank:.2f}  {label}"
        axes.text(edge + (-0.05 if left else 0.05), y, words, ha="right" if left else "left", va="center")
    axes.text(0.07, -height + 0.08, "\n".join(foot), va="bottom", fontsize=style.FOOT_SIZE, color="#333333", linespacing=1.3)
    return figure


