"""What the command line does, as functions. `bench.run`, `bench.load_records` and `bench.table` are these."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.records import load_records as _load_folder
from bench.records import write_atomic

if TYPE_CHECKING:
    from bench.plan import Entry, Overrides, Plan, Scan
    from bench.schedule import Job
    from bench.suite import Suite
    from bench.yaml_source import Source

RESULTS = "results"
MANIFEST = "plan.json"
WORK = ".work"
TABLE_FILES = {"md": "table.md", "tex": "table.tex", "csv": "table.csv", "html": "table.html"}
Say = Callable[[str], None]


class EnvironmentProblem(Exception):
    """Something outside of the suite is missing or wrong: data, permissions, a server (exit code 3)."""


@dataclass
class RunReport:
    """The outcome of `run`. `exit_code` is what the command line returns (law 9)."""

    suite: str
    folder: Path
    plan: Plan
    scan: Scan
    ran: int = 0
    interrupted: bool = False
    warnings: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    text: str = ""

    @property
    def counts(self) -> dict[str, int]:
        return self.scan.counts()

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return 130
        return 0 if set(self.counts) <= {"done", "skipped"} else 1


def read_plan(suite: str | Path, overrides: Overrides | None = None) -> Plan:
    """The plan of a suite file. Raises `bench.yaml_source.SuiteError`."""
    from bench.plan import make_plan
    from bench.suite import load_suite

    parsed, source = load_suite(Path(suite))
    return make_plan(parsed, source, overrides)


def run(
    suite: str | Path,
    *,
    only: Mapping[str, Sequence[str]] | None = None,
    set: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    results: str | Path = RESULTS,
    data: str | Path | None = None,
    executor: str = "ray",
    address: str | None = None,
    tracking: str | None = None,
    force: bool = False,
    retry_failed: bool = False,
    say: Say | None = print,
    interactive: bool = False,
) -> RunReport:
    """Run what is missing of a suite, then render its table.

    Arguments mean what the options of `bench run` mean. `say` receives the lines of progress (None is silent). Raises
    `SuiteError` for a faulty suite and `EnvironmentProblem` where the machine cannot do it; failed cells raise nothing,
    they are in the report's counts and exit code.
    """
    from bench.plan import Overrides, scan

    say = say or (lambda line: None)
    overrides = Overrides(only or {}, set or {}, seeds)
    plan = read_plan(suite, overrides)
    root = Path(results).resolve()
    folder = root / plan.suite.name
    _writable(folder)
    entries = [entry.shown() for entry in plan.entries]
    before = scan(entries, folder)
    todo = _to_run(plan, before, force=force, retry_failed=retry_failed)
    adopted = _adopt(todo, root, folder) if not force else []
    todo = [entry for entry in todo if entry.id not in adopted]
    _say_plan(plan, before, len(todo), len(adopted), say)

    report = RunReport(plan.suite.name, folder, plan, before, ran=len(todo))
    if todo:
        _execute(plan, todo, folder, data, executor, address, tracking, force or retry_failed, report, say, interactive)
    report.scan = scan(entries, folder) if todo or adopted else before
    # The manifest and the table describe the whole suite, however little of it this call ran.
    whole = plan if not overrides.only else read_plan(suite, Overrides({}, overrides.set, overrides.seeds))
    suffix = f"-{overrides.digest()}" if overrides.digest() else ""
    _write_reports(whole, folder, suffix, report, fresh=bool(todo or adopted))
    return report


def load_records(folder: str | Path = RESULTS) -> dict[str, dict[str, Any]]:
    """All records below `folder` by cell id: of one suite's folder, or of a results folder with one folder per suite.

    Raises `bench.records.RecordError` for a corrupt one.
    """
    folder = Path(folder)
    found = _load_folder(folder)
    for inner in sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith(".")):
        found.update(_load_folder(inner))
    return found


def table(
    suite: str | Path, *, format: str = "md", protocol: str | None = None, results: str | Path = RESULTS
) -> str:
    """The suite's table from its records. Formats: md, tex, csv, html, text. `protocol` shows that one alone."""
    from dataclasses import replace

    from bench.plan import scan
    from bench.report import render, table_data
    from bench.suite import load_suite

    parsed, source = load_suite(Path(suite))
    spec = parsed.table_spec()
    if protocol is not None:
        spec = replace(spec, protocols=(protocol,), primary=protocol)
        spec.validate()
    folder = Path(results).resolve() / parsed.name
    manifest = current_manifest(parsed, source, folder)
    found = scan(manifest["entries"], folder)
    if found.corrupt:
        raise EnvironmentProblem("\n".join(found.corrupt.values()))
    return render(table_data(manifest, found.records, spec), spec, format)


def current_manifest(parsed: Suite, source: Source, folder: Path) -> dict[str, Any]:
    """What the suite wants: the manifest of its last run if that still fits the suite, else a new plan (imports torch)."""
    from bench.plan import PLAN_SCHEMA, make_plan

    path = folder / MANIFEST
    if path.exists():
        try:
            manifest = json.loads(path.read_bytes())
        except ValueError:
            manifest = {}
        if manifest.get("schema") == PLAN_SCHEMA and manifest.get("sources") == _by_name(source.files):
            return manifest
    return _manifest(make_plan(parsed, source))


def command_for(suite: str | Path, entry: Mapping[str, Any]) -> str:
    """The command that runs one cell again, alone."""
    import shlex

    only = [f"--only {axis}={shlex.quote(str(entry[axis]))}" for axis in ("dataset", "noise", "method", "seed")]
    return f"bench run {shlex.quote(str(suite))} {' '.join(only)} --force"


# -- parts of run ------------------------------------------------------------------------------------------------------
def _to_run(plan: Plan, before: Scan, *, force: bool, retry_failed: bool) -> list[Entry]:
    again = {"missing"}
    if retry_failed:
        again |= {"failed", "diverged"}
    if force:
        again |= {"done", "failed", "diverged", "corrupt"}
    chosen: dict[str, Entry] = {}
    for entry in plan.entries:
        if not entry.skip and before.states[entry.id] in again:
            chosen.setdefault(entry.id, entry)
    return list(chosen.values())


def _adopt(todo: list[Entry], root: Path, folder: Path) -> list[str]:
    """Copy finished records of the same cells from other suites' folders; a cell is never run twice."""
    from bench.records import RecordError, load_record, record_path

    if not todo:
        return []
    elsewhere = {path.stem: path for path in sorted(root.glob("*/*.json")) if path.parent != folder}
    adopted = []
    for entry in todo:
        path = elsewhere.get(entry.id)
        if path is None:
            continue
        try:
            usable = load_record(path)["status"] in ("done", "diverged")
        except RecordError:
            continue  # it will be run here; the corrupt file is reported by the suite that owns it
        if usable:
            write_atomic(record_path(folder, entry.id), path.read_bytes())
            adopted.append(entry.id)
    return adopted


def _execute(
    plan: Plan, todo: list[Entry], folder: Path, data: str | Path | None, executor: str, address: str | None,
    tracking: str | None, replace: bool, report: RunReport, say: Say, interactive: bool,
) -> None:  # fmt: skip
    from bench.progress import make_listener
    from bench.schedule import ResourceError, run_jobs

    jobs = [_job(plan, entry, folder, data, executor, replace) for entry in todo]
    mirror = _open_mirror(tracking, folder, plan.suite.name, report, say)
    listener = make_listener(jobs, mirror, say, interactive)
    try:
        with listener:
            run_jobs(
                jobs, executor=executor, listener=listener, address=address,
                max_concurrent=plan.suite.resources.max_concurrent,
            )  # fmt: skip
    except KeyboardInterrupt:
        report.interrupted = True
    except ResourceError as error:
        raise EnvironmentProblem(str(error)) from error
    finally:
        report.warnings += listener.warnings
        if mirror is not None:
            mirror.close()


def _job(plan: Plan, entry: Entry, folder: Path, data: str | Path | None, executor: str, replace: bool) -> Job:
    from bench.schedule import Job
    from bench.trial.runner import Options

    resources = plan.suite.resources
    options = Options(
        suite=plan.suite.name,
        method_path=entry.method_path,
        data_root=str(Path(data).resolve()) if data else None,
        work_folder=str(folder / WORK),
        executor=executor,
        device="cuda" if resources.gpu > 0 else "cpu",
        precision=resources.precision,
        time_limit=resources.time_limit,
        checkpoint_seconds=resources.checkpoint_seconds,
        threads=max(1, int(resources.cpu)),
    )
    return Job(entry.cell, options, entry.label(), str(folder), cpus=resources.cpu, gpus=resources.gpu, replace=replace)


def _open_mirror(tracking: str | None, folder: Path, suite: str, report: RunReport, say: Say) -> Any:
    """The MLflow mirror, or None. A server that was asked for and does not answer is an environment problem."""
    if tracking == "none":
        return None
    from bench.track import Mirror, TrackError

    uri = tracking or f"sqlite:///{folder.parent / 'mlflow.db'}"
    try:
        return Mirror.open(uri, suite, str(folder.parent / "mlartifacts") if tracking is None else None)
    except TrackError as error:
        if tracking is not None:
            raise EnvironmentProblem(str(error)) from error
        report.warnings.append(f"{error}; records are complete without MLflow")
        return None


def _writable(folder: Path) -> None:
    import tempfile

    try:
        (folder / WORK).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot write to the results folder {folder}: {error.strerror}; choose another with --results DIR or free it"
        ) from error


def _say_plan(plan: Plan, before: Scan, todo: int, adopted: int, say: Say) -> None:
    counts = before.counts()
    total = len(plan.entries)
    parts = [f"{counts[state]} {state}" for state in ("done", "failed", "diverged", "skipped", "corrupt") if counts.get(state)]
    if adopted:
        parts.append(f"{adopted} taken from other suites")
    say(f"{plan.suite.name}: {total} cells; {', '.join(parts) + '; ' if parts else ''}{todo} to run")
    for reason, count in _skip_reasons(plan).items():
        say(f"  skipped {count}: {reason}")
    for note in plan.notes:
        say(f"  note: {note}")
    for message in before.corrupt.values():
        say(f"  error: {message}")


def _skip_reasons(plan: Plan) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for entry in plan.entries:
        if entry.skip:
            reasons[entry.skip] = reasons.get(entry.skip, 0) + 1
    return reasons


def _by_name(files: Mapping[str, str]) -> dict[str, str]:
    """Source files by bare name: a manifest must not depend on where the checkout lies."""
    return {Path(name).name: digest for name, digest in files.items()}


def _manifest(plan: Plan) -> dict[str, Any]:
    return {**plan.manifest(), "sources": _by_name(plan.sources)}


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """One line per entry, so that a change of the plan reads well as a diff."""
    head = {key: value for key, value in manifest.items() if key != "entries"}
    lines = ",\n".join("  " + json.dumps(entry) for entry in manifest["entries"])
    return json.dumps(head)[:-1] + ', "entries": [\n' + lines + "\n]}\n"


def _write_reports(whole: Plan, folder: Path, suffix: str, report: RunReport, fresh: bool) -> None:
    from bench.plan import scan
    from bench.report import render, render_suite, table_data

    spec = whole.suite.table_spec()
    manifest = _manifest(whole)
    name = MANIFEST if not suffix else f"plan{suffix}.json"
    found = scan(manifest["entries"], folder)
    report.text = render(table_data(manifest, found.records, spec), spec, "text")
    _write_if_changed(folder / name, manifest_text(manifest))
    texts = render_suite(manifest, found.records, spec)
    for fmt, text in texts.items():
        path = folder / TABLE_FILES[fmt].replace("table", f"table{suffix}")
        _write_if_changed(path, text)
        report.files.append(path)
    figure = folder / f"accuracy{suffix}"
    if fresh or not figure.with_suffix(".png").exists():
        from bench.report import accuracy_curves

        report.files += accuracy_curves(found.records, manifest, figure)
    else:
        report.files.append(figure.with_suffix(".png"))


def _write_if_changed(path: Path, text: str) -> None:
    data = text.encode()
    if not path.exists() or path.read_bytes() != data:
        write_atomic(path, data)
