"""What a run writes beside its records: the plan, the state of a search, tables and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.outcome import MANIFEST, EnvironmentProblem, RunReport, Say
from bench.records import write_atomic

if TYPE_CHECKING:
    from bench.plan import Plan, Scan

_ENTRY_KEYS = {"id", "dataset", "noise", "method", "seed", "title", "needs", "networks", "skip"}
TABLE_FILES = {"md": "table.md", "tex": "table.tex", "csv": "table.csv", "html": "table.html"}


def say_plan(plan: Plan, before: Scan, todo: int, adopted: int, say: Say) -> None:
    counts = before.counts()
    total = len(plan.entries)
    states = ("done", "failed", "diverged", "skipped", "corrupt", "unreadable")
    parts = [f"{counts[state]} {state}" for state in states if counts.get(state)]
    if adopted:
        parts.append(f"{adopted} taken from other suites")
    say(f"{plan.suite.name}: {total} cells; {', '.join(parts) + '; ' if parts else ''}{todo} to run")
    for reason, count in _skip_reasons(plan).items():
        say(f"  skipped {count}: {reason}")
    older = _older_code(plan, before)
    for note in [*plan.notes, *([older] if older else [])]:
        say(f"  note: {note}")
    for message in before.corrupt.values():
        say(f"  error: {message}")


def code_states(entries: Sequence[Any], records: dict[str, Any]) -> list[str]:
    """Whether each record was made by the code as it stands: same, changed, or unknown."""
    from bench.method import method_class, method_file
    from bench.provenance import code_fingerprint

    states = []
    for entry in entries:
        record = records.get(entry.id)
        code = record["provenance"].get("code") if record else None
        if code is None:
            states.append("unknown")
            continue
        cls = method_class(entry.method_path or entry.cell["method"]["name"])
        states.append("same" if code_fingerprint(method_file(cls)) == code else "changed")
    return states


def _older_code(plan: Plan, before: Scan) -> str | None:
    """A word on records of users' own methods that another state of the code made; a version tells the two apart, if raised."""
    own = [entry for entry in plan.entries if entry.method_path and before.states.get(entry.id) in ("done", "diverged")]
    changed = {entry.method for entry, state in zip(own, code_states(own, before.records), strict=True) if state == "changed"}
    if not changed:
        return None
    return (
        f"the code of {', '.join(sorted(changed))} has changed since records here were made, and they count all the same; raise "
        f"the method's `version` where results can differ, or run them again with --force"
    )


def _skip_reasons(plan: Plan) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for entry in plan.entries:
        if entry.skip:
            reasons[entry.skip] = reasons.get(entry.skip, 0) + 1
    return reasons


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """One line per entry, so that a change of the plan reads well as a diff."""
    head = {key: value for key, value in manifest.items() if key != "entries"}
    lines = ",\n".join("  " + json.dumps(entry) for entry in manifest["entries"])
    return json.dumps(head)[:-1] + ', "entries": [\n' + lines + "\n]}\n"


def read_manifest(path: Path) -> dict[str, Any] | None:
    """A plan file, or None where there is none that can be used: it can always be made anew."""
    try:
        manifest = json.loads(path.read_bytes())
        return manifest if all(set(entry) >= _ENTRY_KEYS for entry in manifest["entries"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_search(plan: Plan, folder: Path) -> None:
    """Keep what a search proposed before it is run, so that an interrupted one goes on with the same proposals."""
    if plan.search is not None:
        from bench.tune.plan import search_file
        from bench.tune.report import search_json

        try:
            _write_if_changed(folder / search_file(plan.overrides.digest()), search_json(plan.search))
        except OSError as error:
            raise EnvironmentProblem(f"cannot write to {folder}: {error.strerror}") from error


def write_reports(whole: Plan, suite: str | Path, folder: Path, suffix: str, report: RunReport, fresh: bool) -> None:
    from bench.plan import scan
    from bench.report import render, render_suite, table_data

    spec = whole.suite.table_spec()
    manifest = whole.manifest()
    name = MANIFEST if not suffix else f"plan{suffix}.json"
    found = scan(manifest["entries"], folder)
    # "Not run" would be wrong for a cell whose record cannot be read.
    corrupt = {identity: {"status": "failed", "reason": f"its record is {found.states[identity]}"} for identity in found.corrupt}
    records = found.records | corrupt
    report.text = render(table_data(manifest, records, spec), spec, "text")
    _write_if_changed(folder / name, manifest_text(manifest))
    texts = render_suite(manifest, records, spec)
    for fmt, text in texts.items():
        path = folder / TABLE_FILES[fmt].replace("table", f"table{suffix}")
        fresh |= _write_if_changed(path, text)  # records that came by merge or copy change the table too
        report.files.append(path)
    figure = folder / f"accuracy{suffix}"
    if fresh or not figure.with_suffix(".png").exists():
        from bench.report import accuracy_curves

        report.files += accuracy_curves(records, manifest, figure)
    else:
        report.files.append(figure.with_suffix(".png"))
    if whole.suite.figures and not suffix:
        report.files += _draw_figures(whole, suite, records, manifest, folder, report)
    if whole.search is not None:
        from bench.tune.plan import search_file
        from bench.tune.report import search_text

        report.text += "\n" + search_text(whole.search) + "\n"
        report.files.append(folder / search_file(whole.overrides.digest()))


def _draw_figures(
    whole: Plan, suite: str | Path, records: dict[str, dict[str, Any]], manifest: Mapping[str, Any], folder: Path,
    report: RunReport,
) -> list[Path]:  # fmt: skip
    """The suite's `figures:`; one that its records cannot show is a warning with the way to get it."""
    from bench.report.plots import draw, spec

    wanted = spec.validate(whole.suite.figures)
    drawn = draw(manifest, records, wanted, folder, path=str(suite))
    report.warnings += [f"no figure {item.kind}: {item.reason}" for item in drawn if item.reason]
    return [path for item in drawn for path in item.files]


def _write_if_changed(path: Path, text: str) -> bool:
    data = text.encode()
    if path.exists() and path.read_bytes() == data:
        return False
    write_atomic(path, data)
    return True
