"""What `bench show CELL` says: resolved values with their origins, outcome, cost, log, and the command that runs it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.api import command_for
from bench.describe import _flat, _short, columns
from bench.fields import FieldError
from bench.live import drivers, duration, log_path, running, tail
from bench.outcome import WORK
from bench.outputs import read_manifest
from bench.records import load_record, record_files
from bench.safe_text import printable

TAIL = 15  # lines of the log
_SECTIONS = (("params", "method"), ("training", "training"), ("protocol", "protocol"))


@dataclass(frozen=True)
class Found:
    """A cell of a results folder: its record if it has one, and the plan entry that wants it, with suite file and overrides."""

    id: str
    results: Path
    folder: Path
    record: dict[str, Any] | None
    entry: dict[str, Any] | None
    suite: Path | None  # which need not be there: a plan knows the name of its file alone
    overrides: dict[str, Any] | None

    @property
    def log(self) -> Path:
        return log_path(self.folder / WORK, self.id)

    @property
    def command(self) -> str | None:
        """What runs this cell again, alone; None where no plan in the folder wants it, or its suite file is not found."""
        if self.suite is None or self.entry is None or not self.suite.is_file():
            return None
        return command_for(self.suite, self.entry, self.overrides, results=self.results, force=self.record is not None)


def find(cell: str, results: Path) -> Found:
    """The cell whose id begins with `cell`, in records and plans. Raises `FieldError` when there is none or the beginning is
    ambiguous, `RecordError` when its record cannot be trusted."""
    name = cell.lower()
    if not name or any(c not in "0123456789abcdef" for c in name):
        raise FieldError("cell", f"{cell!r} is not a cell id", "`bench plan SUITE` prints the ids")
    folders = sorted(path for path in results.glob("*") if path.is_dir())
    places = {path: path.stem for folder in folders for path in record_files(folder) if path.name.startswith(name)}
    identities = set(places.values())
    wanted = [(folder, entry, plan) for folder in folders for entry, plan in _entries(folder) if entry["id"].startswith(name)]
    known = identities | {entry["id"] for _, entry, _ in wanted}
    if len(known) != 1:
        what = "no record" if not known else f"{len(known)} records"
        raise FieldError("cell", f"{what} in {results} whose id begins with {cell!r}", "`bench plan SUITE` prints ids and states")
    (identity,) = known
    path = next(iter(places), None)
    folder = path.parent if path else wanted[0][0]
    here = sorted(wanted, key=lambda item: item[0] != folder)  # the folder of the record first
    entry, plan = (here[0][1], here[0][2]) if here else (None, {})
    suite = _suite_file(here[0][0], plan) if here else None
    return Found(identity, results, folder, load_record(path) if path else None, entry, suite, plan.get("overrides"))


def _entries(folder: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Entries of the plan files of a folder, each with its plan; the suite's own plan before those of overrides."""
    plans = sorted(folder.glob("plan*.json"), key=lambda path: (path.name != "plan.json", path.name))
    found = [manifest for path in plans if (manifest := read_manifest(path)) is not None]
    return [(entry, manifest) for manifest in found for entry in [*manifest["entries"], *manifest.get("trials", [])]]


def _suite_file(folder: Path, manifest: Mapping[str, Any]) -> Path:
    name = list(manifest.get("sources") or [f"{folder.name}.yaml"])[-1]  # includes stand before it
    known = [Path(name), *sorted(Path("suites").rglob(Path(name).name))]
    return next((file for file in known if file.is_file()), known[-1])


# -- where values come from ----------------------------------------------------------------------------------------
def planned(found: Found, results: Path) -> tuple[dict[str, Any], dict[str, str], str]:
    """(resolved cell, origins of its values, why there are none). Plans the suite as it is now, which imports torch."""
    from bench.api import read_plan
    from bench.outcome import EnvironmentProblem
    from bench.plan import Overrides
    from bench.yaml_source import SuiteError

    if found.entry is None or found.suite is None:
        return {}, {}, "no plan in the folder names this cell"
    given = found.overrides or {}
    only = {axis: [str(found.entry[axis])] for axis in ("dataset", "noise", "method", "seed")}
    try:
        plan = read_plan(found.suite, Overrides(only, given.get("set") or {}, given.get("seeds")), None, results)
    except (SuiteError, FieldError, EnvironmentProblem, OSError, ImportError) as error:
        return {}, {}, f"{found.suite} cannot be planned here: {next(iter(str(error).splitlines()), type(error).__name__)}"
    for entry in plan.entries:
        if entry.id == found.id:
            return entry.cell, entry.origins, ""
    return {}, {}, f"{found.suite} makes another cell of this place now"


def values(cell: Mapping[str, Any], origins: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(name, value, origin) of each resolved value of method, training and protocol."""
    return [
        (f"{section}.{name}", _short(value), origins.get(f"{section}.{name}", ""))
        for section, axis in _SECTIONS
        for name, value in (cell[axis]["params"] if section == "params" else cell[axis]).items()
    ]


# -- text and JSON -------------------------------------------------------------------------------------------------
def show_json(found: Found, results: Path) -> dict[str, Any]:
    """Everything that the text says, with the whole record."""
    cell, origins, why = planned(found, results)
    return {
        "id": found.id, "state": found.record["status"] if found.record else "missing", "folder": str(found.folder),
        "record": found.record, "cell": found.record["cell"] if found.record else cell or None, "entry": found.entry,
        "origins": origins or None, "no_origins": why or None, "command": found.command,
        "running": _running(found), "log": str(found.log), "log_tail": tail(found.log, TAIL),
    }  # fmt: skip


def show_text(found: Found, results: Path, *, origins: bool = True) -> str:
    """`origins` tells where each value came from, for which the suite is planned anew."""
    record = found.record
    cell, sources, why = planned(found, results) if origins else ({}, {}, "")
    cell = record["cell"] if record else cell
    lines = _head(found)
    for axis in ("dataset", "noise", "model"):
        if axis in cell:
            lines.append(f"{axis:<9} {_flat(cell[axis])}")
    if cell:
        lines.append(f"method    {cell['method']['name']}, version {cell['method']['version']}")
        lines += [f"seed      {cell['seed']}", "", columns(values(cell, sources), ("value", "", "from" if sources else "")), ""]
    lines += [f"where the values came from is not known: {why}"] if why else []
    lines += _outcome(record) if record else []
    last = tail(found.log, TAIL)
    if last:
        lines += ["", f"log {found.log}, its last {len(last)} lines" if len(last) == TAIL else f"log {found.log}"]
        lines += [f"  {line}" for line in last]
    if found.command:
        lines.append(f"run it {'again' if record else 'alone'}: {found.command}")
    elif found.suite is not None:
        lines.append(f"no command runs it from here: its suite file, {found.suite.name}, is neither here nor below suites/")
    return printable("\n".join(lines))


def _running(found: Found) -> dict[str, Any] | None:
    return running(drivers(found.folder / WORK)).get(found.id)


def _head(found: Found) -> list[str]:
    now = _running(found)
    state = found.record["status"] if found.record else "running" if now else "missing"
    reason = f": {found.record['reason']}" if found.record and found.record["reason"] else ""
    lines = [f"cell {found.id}  {state}{reason}"]
    lines += [f"file {found.folder / found.id}.json"] if found.record else []
    if now:
        left = "" if now["seconds_left"] is None else f", left {duration(now['seconds_left'])}"
        lines.append(f"running now: epoch {now['epoch']}/{now['epochs']}{left} ({now['driver']})")
    return lines


def _outcome(record: Mapping[str, Any]) -> list[str]:
    lines = []
    for title in ("noise", "data", "cost", "provenance"):
        block = {key: value for key, value in (record.get(title) or {}).items() if key not in ("matrix", "classes", "definition")}
        lines.append(f"{'measured noise' if title == 'noise' else title}: {_flat(block)}")
    scalars = {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in record["metrics"].items()}
    lines += [f"  {key:<32} {value}" for key, value in sorted(scalars.items()) if not isinstance(value, dict)]
    lines += [f"warning: {warning}" for warning in record["warnings"]]
    return [*lines, "", record["traceback"].rstrip()] if record.get("traceback") else lines
