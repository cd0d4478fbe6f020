"""The report as text: three tables, plain or on a terminal, and what has to be said about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.profile.clock import CATEGORIES
from bench.report.escape import clean

#: category -> its name in tables and figures
NAMES = {
    "data": "data", "augmentation": "augmentation", "forward": "forward", "guess": "forward, no grad",
    "inference": "forward, eval", "backward": "backward", "optimiser": "optimiser", "method": "method's own",
    "harness": "harness", "evaluation": "evaluation",
}  # fmt: skip
HEADERS = {
    "augmentation": "augm.", "guess": "no\ngrad", "inference": "eval\nmode", "optimiser": "optim.", "method": "own",
    "evaluation": "test",
}  # fmt: skip

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Headers may have two lines. `strong`: for each row the column that stands out, None for none."""

    title: str
    headers: list[str]
    rows: list[list[str]]
    strong: list[int | None]


def text(report: Report) -> str:
    """Everything as plain text."""
    from tabulate import tabulate

    blocks = [head(report)]
    for table in tables(report):
        align = ["left"] + ["right"] * (len(table.headers) - 1)
        body = tabulate(table.rows, headers=table.headers, tablefmt="plain", disable_numparse=True, colalign=align)
        blocks.append(f"{table.title}\n{body}" if table.rows else "")
    return "\n\n".join([*filter(None, blocks), "\n".join(notes(report))])


def print_rich(report: Report) -> None:
    """The same on a terminal; the largest part of each epoch stands out."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console()
    console.print(Text(head(report)))
    for table in tables(report):
        if not table.rows:
            continue
        shown = RichTable(
            title=Text(table.title), title_justify="left", title_style="bold", header_style="dim", box=SIMPLE_HEAD,
            padding=0, collapse_padding=True, pad_edge=False,
        )  # fmt: skip
        for number, name in enumerate(table.headers):
            longest = max(len(row[number]) for row in table.rows)
            shown.add_column(
                Text(name), justify="right" if number else "left", overflow="fold", no_wrap=number > 0,
                min_width=None if number else min(longest, 16),
            )  # fmt: skip
        for row, strong in zip(table.rows, table.strong, strict=True):
            shown.add_row(*(Text(value, style="bold" if number == strong else "") for number, value in enumerate(row)))
        console.print(shown)
    for line in notes(report):
        console.print(Text(line))


def head(report: Report) -> str:
    engine, peak = report["engine"], report["peak"]
    extras = [name for name in ("channels_last", "deterministic", "tf32") if engine[name]]
    extras += [f"compile {engine['compile']}"] if engine["compile"] != "off" else []
    threads = f", {report['threads']} thread{'s' * (report['threads'] > 1)}" if report["device"] == "cpu" else ""
    size, how = peak["matrix_size"], ", ".join([engine["precision"], *extras])
    return (
        f"{report['suite']}: {report['epochs']} epochs on {report['device']}{threads}, {how}; "
        f"measured peak {_si(peak['flops_per_second'])}FLOP/s ({size}x{size} matrix product, {peak['precision']})"
    )


def tables(report: Report) -> list[Table]:
    done = [facts for facts in report["methods"] if facts["status"] == "done"]
    found = [_shares(done), _costs(done)]
    for facts in done:
        if "operators" in facts:
            found.append(_operators(facts))
    return found


def _shares(done: list[dict[str, Any]]) -> Table:
    shown = [name for name in CATEGORIES if any(facts["shares"][name] for facts in done)]
    rows, strong = [], []
    for facts in done:
        values = [facts["shares"][name] or 0.0 for name in shown]
        rows.append([clean(facts["method"]), *(f"{100 * value:.1f}" for value in values)])
        strong.append(1 + values.index(max(values)) if values else None)
    return Table("per cent of an epoch", ["method", *(HEADERS.get(name, name) for name in shown)], rows, strong)


def _costs(done: list[dict[str, Any]]) -> Table:
    headers = [
        "method", "epoch", "first", "with\nclocks", "images\n/ s", "FE /\nimage", "FLOP", "of\npeak", "memory",
    ]  # fmt: skip
    rows = [
        [
            clean(facts["method"]), seconds(facts["epoch_seconds"]), seconds(facts["first_epoch_seconds"]),
            _percent(facts["overhead"], sign="+"), _number(facts["images_per_second"]),
            f"{facts['forward_equivalents_per_image'] or 0:.2f}", _si(facts["flops"]).strip(), _percent(facts["share_of_peak"]),
            f"{facts['memory']['peak_bytes'] / 2**20:,.0f} MiB",
        ]
        for facts in done
    ]  # fmt: skip
    return Table("an epoch without clocks", headers, rows, [None] * len(rows))


def _operators(facts: Mapping[str, Any]) -> Table:
    rows = [
        [clean(op["name"])[:60], f"{op['calls']:,}", seconds(op["self_seconds"]), _percent(op["share"])]
        for op in facts["operators"]
    ]
    headers = ["operator", "calls", "self time", "share"]
    return Table(f"operators of {clean(facts['method'])}, last epoch", headers, rows, [None] * len(rows))


def notes(report: Report) -> list[str]:
    return list(_notes(report))


def _notes(report: Report) -> Iterator[str]:
    done = [facts for facts in report["methods"] if facts["status"] == "done"]
    if done:
        cells = {f"{facts['dataset']} {facts['noise']} seed {facts['seed']}" for facts in done}
        yield f"cells: {', '.join(map(clean, sorted(cells)))}; the first epoch warms up and is in the column `first` alone"
        yield (
            "per cent: exclusive times with a clock around every part"
            + (", which waits for the device and slows it" if report["device"] == "cuda" else "")
            + "; no grad, eval mode: forward passes without gradient, in training and evaluation mode; test: evaluation"
        )
        yield (
            f"with clocks: so much more {'time' if report['device'] == 'cuda' else 'processor time'} an epoch takes with them; "
            "images / s: images backward per second of training; FE: forward equivalents, images forward + 2 x backward; FLOP: "
            f"convolutions and matrix products in training; memory: peak of the {done[0]['memory']['of']}"
        )
    for facts in report["methods"]:
        name = clean(facts["method"])
        if facts["status"] != "done":
            yield f"{facts['status']}: {name}: {clean(facts['reason'])}"
            continue
        if facts["changed"]:
            values = ", ".join(f"{key}={value}" for key, value in facts["changed"].items())
            yield f"{name}: profiled with {values}, so that all its stages have begun; --as-planned leaves its fields alone"
        if not facts["same_results"]:
            yield f"{name}: the runs with and without clocks ended differently; this device's results are not reproducible"
    for note in report["notes"]:
        yield f"note: {clean(note)}"
    for path in report["files"]:
        yield f"wrote {path}"


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"


def _percent(value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    digits = 0 if sign else 1 if value >= 0.1 else 2
    return f"{100 * value:{sign}.{digits}f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _si(value: float) -> str:
    """A number with a decimal prefix, and a space before the unit that follows."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "
