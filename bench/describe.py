"""What the read-only commands say: plan, status, show, ls, doctor. Text and JSON from the same facts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api import command_line, current_manifest, read_plan
from bench.live import drivers, duration, running
from bench.outcome import RESULTS
from bench.records import first_line
from bench.safe_text import printable
from bench.suite import load_suite

if TYPE_CHECKING:
    from bench.plan import Overrides


def columns(rows: Sequence[Sequence[Any]], headers: Sequence[str]) -> str:
    from tabulate import tabulate

    return tabulate(rows, headers=headers, tablefmt="plain", disable_numparse=True)


# -- plan --------------------------------------------------------------------------------------------------------------
def plan_json(suite: str, overrides: Overrides, results: Path, data: str | None = None) -> dict[str, Any]:
    """Every cell with its state, resolved values and their origins, and how long those will take that have no record."""
    from bench.estimate import estimate
    from bench.outputs import code_states
    from bench.plan import scan

    plan = read_plan(suite, overrides, data, results)
    folder = results.resolve() / plan.suite.name
    found = scan([entry.shown() for entry in plan.entries], folder)
    cells = [
        {**entry.shown(), "state": found.states[entry.id], "cell": entry.cell, "origins": entry.origins, "code": code}
        for entry, code in zip(plan.entries, code_states(plan.entries, found.records), strict=True)
    ]
    expected = estimate(cells, found.records, folder, plan.suite.resources)
    seconds = expected.pop("cells")
    cells = [{**cell, "estimated_seconds": seconds.get(cell["id"])} for cell in cells]
    head = {"suite": plan.suite.name, "counts": found.counts(), "notes": plan.notes, "corrupt": found.corrupt}
    return {**head, "estimate": expected, "cells": cells}


def plan_text(suite: str, overrides: Overrides, results: Path, data: str | None = None, *, values: bool) -> str:
    """A line per row and noise, then the time they will take; with `values` also every resolved value with its origin."""
    from bench.estimate import estimate_text

    facts = plan_json(suite, overrides, results, data)
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cell in facts["cells"]:
        rows.setdefault((cell["dataset"], cell["noise"], cell["method"]), []).append(cell)
    lines = []
    for (dataset, noise, method), cells in rows.items():
        states = " ".join(f"{cell['seed']}:{cell['state']}{'*' if cell['code'] == 'changed' else ''}" for cell in cells)
        lines.append((dataset, noise, method, cells[0]["id"], states, _remarks(cells[0])))
    text = columns(lines, ("data set", "noise", "method", "first cell", "seeds", "remarks"))
    total = ", ".join(f"{count} {state}" for state, count in facts["counts"].items())
    notes = [f"note: {note}" for note in facts["notes"]]
    notes += [f"error: {message}" for message in facts["corrupt"].values()]
    if any(cell["code"] == "changed" for cell in facts["cells"]):
        notes.append("* the code of the method has changed since this record was made; --force runs it again")
    notes += estimate_text(facts["estimate"])
    blocks = [text, *notes, f"{facts['suite']}: {len(facts['cells'])} cells: {total}"]
    if values:
        blocks += [_values_text(key, cells[0]) for key, cells in rows.items()]
    return "\n".join(blocks)


def _remarks(cell: dict[str, Any]) -> str:
    parts = [f"needs {', '.join(cell['needs'])}"] if cell["needs"] else []
    parts += [f"{cell['networks']} networks"] if cell["networks"] > 1 else []
    parts += [f"skipped: {cell['skip']}"] if cell["skip"] else []
    return "; ".join(parts)


def _values_text(key: tuple[str, str, str], cell: dict[str, Any]) -> str:
    resolved = cell["cell"]
    sections = {
        "params": resolved["method"]["params"], "training": resolved["training"], "protocol": resolved["protocol"],
    }  # fmt: skip
    rows = [
        (f"{section}.{name}", _short(value), cell["origins"].get(f"{section}.{name}", ""))
        for section, fields in sections.items()
        for name, value in fields.items()
    ]
    return "\n" + " / ".join(key) + "\n" + columns(rows, ("value", "", "from"))


def _short(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# -- status and show ---------------------------------------------------------------------------------------------------
def status_json(suite: str, results: Path) -> dict[str, Any]:
    """Counts per state, what is not done with its reason, and what runs now; reads manifest, records and heartbeats only."""
    from bench.outcome import WORK
    from bench.plan import scan

    parsed, source = load_suite(Path(suite))
    folder = results.resolve() / parsed.name
    manifest = current_manifest(parsed, source, folder)
    entries = [*manifest.get("trials", []), *manifest["entries"]]
    found = scan(entries, folder)
    open_cells = []
    for entry in entries:
        state = found.states[entry["id"]]
        if state != "done":
            record = found.records.get(entry["id"])
            reason = entry["skip"] or found.corrupt.get(entry["id"]) or (record["reason"] if record else None)
            names = {axis: entry[axis] for axis in ("id", "dataset", "noise", "method", "seed")}
            open_cells.append({**names, "state": state, "reason": reason})
    at_work = drivers(folder / WORK)
    return {
        "suite": parsed.name, "file": suite, "folder": str(folder), "counts": found.counts(), "open": open_cells,
        "running": running(at_work), "drivers": [driver.facts() for driver in at_work],
    }  # fmt: skip


def status_text(found: dict[str, Any], results: str = RESULTS) -> str:
    lines = [f"{state:<9} {count}" for state, count in sorted(found["counts"].items())]
    shown = [cell for cell in found["open"] if cell["state"] != "missing"]
    for cell in shown[:20]:
        reason = printable(first_line(cell["reason"], 160))
        label = f"{cell['dataset']} {cell['noise']} {cell['method']} seed {cell['seed']}"
        lines.append(f"  {cell['state']} {cell['id']} {label}: {reason}")
    if len(shown) > 20:
        lines.append(f"  and {len(shown) - 20} more; --json lists all")
    lines += _running_text(found)
    verb, options = "table", dict[str, Any]()
    if "missing" in found["counts"]:
        verb = "run"
    elif {"failed", "diverged"} & set(found["counts"]):
        verb, options = "run", {"retry_failed": True}
    elif "corrupt" in found["counts"]:
        verb, options = "clean", {"records": "corrupt"}
    next_step = command_line(verb, found["file"], results=results, **options)
    if any(not driver["gone"] for driver in found["drivers"]):
        next_step = "wait; it is running"
    elif verb == "clean":
        next_step = f"restore the corrupt records, or remove them: {next_step}"
    elif verb == "table" and "unreadable" in found["counts"]:
        next_step = "make the unreadable records readable"
    return "\n".join([*lines, f"{found['suite']}: next: {next_step}"])


def _running_text(found: dict[str, Any]) -> list[str]:
    """A line per run at work, one per cell that it runs, and one per run that ended without saying so."""
    lines = []
    for driver in found["drivers"]:
        who = f"bench run on {driver['host']}, process {driver['pid']}"
        if driver["gone"]:
            lines.append(f"note: {who} ended in the middle of {len(driver['cells'])} cells: {driver['gone']}")
            continue
        old = f", last heard of {duration(driver['age_seconds'])} ago" if driver["age_seconds"] > 30 else ""
        done = f"{driver['finished']} of {driver['total']} cells"
        lines.append(f"running   {len(driver['cells'])} ({who}: {done}, left {driver['left']}{old})")
        lines += [f"  {identity} {_cell_progress(found['running'][identity])}" for identity in driver["cells"][:20]]
        lines += [f"  and {len(driver['cells']) - 20} more; --json lists all"] if len(driver["cells"]) > 20 else []
    return lines


def _cell_progress(cell: dict[str, Any]) -> str:
    rate, left = cell["seconds_per_epoch"], cell["seconds_left"]
    pace = f", {rate:.3g} s/epoch, left {duration(left)}" if rate is not None else f", {duration(cell['seconds'])} so far"
    return printable(f"{cell['label']}: epoch {cell['epoch']}/{cell['epochs']}{pace}")


def _flat(value: dict[str, Any]) -> str:
    return ", ".join(f"{key}={_flat_value(item)}" for key, item in value.items())


def _flat_value(value: Any) -> str:
    return "{" + _flat(value) + "}" if isinstance(value, dict) else _short(value)


# -- ls ----------------------------------------------------------------------------------------------------------------
def listing(what: str) -> list[dict[str, Any]]:
    """What there is of a kind, one dictionary each."""
    if what == "methods":
        from bench.method import methods

        return [
            {
                "slug": slug, "level": cls.level, "needs": sorted(cls().needs), "networks": cls.networks, "cost": cls.cost,
                "recipes": sorted({recipe.name for recipe in cls.recipes}), "paper": cls.paper, "code": cls.code,
            }
            for slug, cls in methods().items()
        ]  # fmt: skip
    if what == "datasets":
        from bench.data import datasets

        return [
            {
                "slug": slug, "classes": cls.num_classes, "groups": cls.grouped, "embedded": cls.embedded,
                "fields": _fields_text(cls), "what": cls.summary,
            }
            for slug, cls in datasets().items()
        ]  # fmt: skip
    if what == "noises":
        from bench.noise import noises

        return [
            {"slug": slug, "fields": _fields_text(cls), "what": cls.summary}
            for slug, cls in noises().items()
        ]
    if what == "models":
        from bench.models import models

        return [{"slug": slug, "fields": _fields_text(cls), "what": cls.summary} for slug, cls in models().items()]
    return _suites()


def _fields_text(cls: Any) -> str:
    return ", ".join(f"{field.name}={_short(field.default)}" for field in cls.fields().values())


def _suites() -> list[dict[str, Any]]:
    from bench.yaml_source import SuiteError

    folder = Path("suites") if Path("suites").is_dir() else Path(__file__).resolve().parent.parent / "suites"
    titles: dict[Path, str] = {}
    included: set[Path] = set()
    for path in sorted(folder.rglob("*.yaml")):
        try:
            suite, source = load_suite(path)
            titles[path] = suite.title
            included |= {Path(name).resolve() for name in source.files} - {path.resolve()}
        except SuiteError as error:
            titles[path] = f"error: {error.problems[0]}"
    return [{"file": str(path), "title": title} for path, title in titles.items() if path.resolve() not in included]


def listing_text(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "nothing found"
    shown = [[", ".join(v) if isinstance(v, list) else _short(v) for v in row.values()] for row in rows]
    return columns(shown, list(rows[0]))
