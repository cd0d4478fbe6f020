"""What the command line does, as functions. `bench.run`, `bench.load_records` and `bench.table` are these."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.records import RecordError, load_record, record_path, write_atomic
from bench.records import load_records as _load_folder
from bench.stages import cache_root

if TYPE_CHECKING:
    from bench.plan import Entry, Overrides, Plan, Scan
    from bench.schedule import Job
    from bench.suite import Suite
    from bench.yaml_source import Source

RESULTS = "results"
MANIFEST = "plan.json"
WORK = ".work"
LEFTOVER_SECONDS = 3600.0
_ENTRY_KEYS = {"id", "dataset", "noise", "method", "seed", "title", "needs", "networks", "skip"}
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
    mirrored: bool = False  # the MLflow mirror has all that ran
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


def read_plan(
    suite: str | Path, overrides: Overrides | None = None, data: str | Path | None = None, results: str | Path = RESULTS
) -> Plan:
    """The plan of a suite file; `data` is the data folder, `results` holds the records that a search goes by.

    Raises `bench.yaml_source.SuiteError`, and `EnvironmentProblem` where the packages of a searcher are missing.
    """
    from bench.plan import make_plan
    from bench.suite import load_suite
    from bench.tune.searchers import SearcherMissing

    parsed, source = load_suite(Path(suite))
    try:
        return make_plan(parsed, source, overrides, Path(data) if data else None, Path(results).resolve() / parsed.name)
    except SearcherMissing as error:
        raise EnvironmentProblem(str(error)) from error


def run(
    suite: str | Path,
    *,
    only: Mapping[str, Any] | None = None,
    set: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | int | None = None,
    results: str | Path = RESULTS,
    data: str | Path | None = None,
    cache: str | Path | None = None,
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
    from bench.suite import seed_list

    say = say or (lambda line: None)
    overrides = Overrides(only or {}, set or {}, seed_list(seeds))
    plan = read_plan(suite, overrides, data, results)
    root = Path(results).resolve()
    folder = root / plan.suite.name
    _writable(folder)
    _device_present(plan.suite, executor)
    shared = cache_root(root, cache).resolve()
    report: RunReport | None = None
    fresh = False
    while True:  # once, but for a search: what it tries next depends on what it found
        entries = [entry.shown() for entry in plan.entries]
        before = scan(entries, folder)
        report = report or RunReport(plan.suite.name, folder, plan, before)
        seen = frozenset(entry.id for entry in report.plan.entries if report.plan is not plan)
        todo = [entry for entry in _to_run(plan, before, force=force, retry_failed=retry_failed) if entry.id not in seen]
        usable = ("done",) if retry_failed else ("done", "diverged")
        adopted = frozenset() if force else _adopt(todo, root, folder, usable, {name for name, _ in plan.suite.watched()})
        todo = [entry for entry in todo if entry.id not in adopted]
        _say_plan(plan, before, len(todo), len(adopted), say)
        _write_search(plan, folder)
        report.plan = plan
        if todo:
            replace = force or retry_failed
            _execute(plan, todo, folder, data, shared, executor, address, tracking, replace, report, say, interactive)
        fresh = fresh or bool(todo or adopted)
        report.scan = scan(entries, folder) if todo or adopted else before
        if plan.search is None or report.interrupted:
            break
        further = read_plan(suite, overrides, data, results)
        if {entry.id for entry in further.entries} <= {entry.id for entry in plan.entries}:
            break
        plan = further
    # The manifest and the table describe the whole suite, however little of it this call ran.
    whole = plan
    if overrides.only or plan.search is not None:
        whole = read_plan(suite, Overrides({}, overrides.set, overrides.seeds), data, results)
    _write_search(whole, folder)
    suffix = f"-{overrides.digest()}" if overrides.digest() else ""
    try:
        _write_reports(whole, suite, folder, suffix, report, fresh=fresh)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write the tables: {error}; records are safe, run the suite again") from error
    if report.mirrored and not report.interrupted:
        _mirror_files(tracking, plan, folder, report, say)
    return report


def sync(suite: str | Path, *, results: str | Path = RESULTS, tracking: str | None = None) -> tuple[int, int]:
    """Complete the MLflow mirror of a suite from its records; returns (records added, records in all).

    Raises `SuiteError`, `bench.records.RecordError`, and `EnvironmentProblem` where the store does not answer.
    """
    from bench.suite import load_suite
    from bench.track import Mirror, TrackError, default_artifacts, default_uri

    name = load_suite(Path(suite))[0].name
    records = _load_folder(Path(results) / name)
    try:
        mirror = Mirror.open(tracking or default_uri(Path(results)), name, default_artifacts(Path(results)))
        added = mirror.rebuild(records.values())
    except TrackError as error:
        raise EnvironmentProblem(str(error)) from error
    if mirror.warning:
        raise EnvironmentProblem(mirror.warning)
    mirror.close()
    return added, len(records)


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
    suite: str | Path,
    *,
    format: str = "md",
    protocol: str | None = None,
    published: bool = False,
    results: str | Path = RESULTS,
) -> str:
    """The suite's table from its records. Formats: md, tex, csv, html, text. `protocol` shows that one alone.

    `published` prints the paper's numbers beside, in the layout of a published table. Raises `SuiteError` where the
    table section names what the suite lacks.
    """
    from bench.plan import scan
    from bench.report import render, table_data
    from bench.report.spec import SpecError
    from bench.suite import load_suite
    from bench.yaml_source import SuiteError

    parsed, source = load_suite(Path(suite))
    spec = parsed.table_spec()
    folder = Path(results).resolve() / parsed.name
    manifest = current_manifest(parsed, source, folder)
    found = scan(manifest["entries"], folder)
    for identity in found.corrupt:
        load_record(record_path(folder, identity))  # raises: a table must not leave out what it cannot read
    try:
        spec = spec if protocol is None else spec.with_protocols([protocol])
        spec = spec.with_published() if published else spec
        return render(table_data(manifest, found.records, spec), spec, format)
    except SpecError as error:
        raise SuiteError([source.problem(error.path, error.message)]) from None


def current_manifest(parsed: Suite, source: Source, folder: Path) -> dict[str, Any]:
    """What the suite wants: the plan file of its last run if that still fits, else a new plan (imports torch)."""
    from bench.plan import PLAN_SCHEMA, make_plan

    manifest = read_manifest(folder / MANIFEST)
    if manifest and manifest.get("schema") == PLAN_SCHEMA and manifest.get("sources") == source.relative_files():
        return manifest
    return make_plan(parsed, source, folder=folder).manifest()


def read_manifest(path: Path) -> dict[str, Any] | None:
    """A plan file, or None where there is none that can be used: it can always be made anew."""
    try:
        manifest = json.loads(path.read_bytes())
        return manifest if all(set(entry) >= _ENTRY_KEYS for entry in manifest["entries"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def command_for(suite: str | Path, entry: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> str:
    """The command that runs one cell again, alone. `overrides` are those of its plan: `set` and `seeds`."""
    words = ["bench", "run", str(suite)]
    for key, value in ((overrides or {}).get("set") or {}).items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    if overrides and overrides.get("seeds"):
        words += ["--seeds", ",".join(map(str, overrides["seeds"])) + ","]
    for axis in ("dataset", "noise", "method", "seed"):
        name = str(entry[axis])
        words += ["--only", f'{axis}="{name}"' if "," in name else f"{axis}={name}"]
    return shlex.join([*words, "--force"])


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


def _adopt(todo: list[Entry], root: Path, folder: Path, statuses: Sequence[str], watched: AbstractSet[str]) -> frozenset[str]:
    """Copy finished records of the same cells from other suites' folders; a cell is never run twice, unless this suite
    watches what no record of it shows."""
    if not todo:
        return frozenset()
    elsewhere = {path.stem: path for path in sorted(root.glob("*/*.json")) if path.parent != folder}
    adopted = []
    for entry in todo:
        path = elsewhere.get(entry.id)
        if path is None:
            continue
        try:
            record = load_record(path)
            usable = record["status"] in statuses and watched <= set(record.get("watched") or {})
        except RecordError:
            continue  # it will be run here; the corrupt file is reported by the suite that owns it
        if usable:
            try:
                write_atomic(record_path(folder, entry.id), path.read_bytes())
            except OSError as error:
                raise EnvironmentProblem(f"cannot write to {folder}: {error.strerror}") from error
            adopted.append(entry.id)
    return frozenset(adopted)


def _execute(
    plan: Plan, todo: list[Entry], folder: Path, data: str | Path | None, cache: Path, executor: str, address: str | None,
    tracking: str | None, replace: bool, report: RunReport, say: Say, interactive: bool,
) -> None:  # fmt: skip
    from bench.progress import make_listener
    from bench.schedule import ResourceError, SaveError, run_jobs

    jobs = [_job(plan, entry, folder, data, cache, executor, replace) for entry in todo]
    _make_checkpoint_dir(jobs[0].options.checkpoint_dir)
    if plan.suite.resources.memory == "measured":
        jobs = _packed(jobs, folder.parent)
    mirror = _open_mirror(tracking, folder, plan.suite.name, report, say)
    listener = make_listener(jobs, mirror, say, interactive, folder / WORK)
    try:
        with listener:
            run_jobs(
                jobs, executor=executor, listener=listener, address=address,
                max_concurrent=plan.suite.resources.max_concurrent,
            )  # fmt: skip
    except KeyboardInterrupt as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # the second one: leave now
            raise
        report.interrupted = True
    except (ResourceError, SaveError) as error:
        raise EnvironmentProblem(str(error)) from error
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise EnvironmentProblem("Ray is not installed: install it, or use --executor inline") from error
    finally:
        report.ran += listener.finished_count
        report.warnings += listener.warnings
        if mirror is not None:
            report.warnings += [mirror.warning] if mirror.warning else []
            report.mirrored = mirror.warning is None
            mirror.close()


def _mirror_files(tracking: str | None, plan: Plan, folder: Path, report: RunReport, say: Say) -> None:
    """Tables, figures and noise artefacts go to the suite's run of the MLflow mirror; what fails is a warning."""
    from bench.noise import artefact_name

    noise = {artefact_name(entry.cell["noise"], entry.cell["dataset"], entry.seed) for entry in plan.entries}
    places = {".png": "figures", ".svg": "figures", ".pdf": "figures"}
    files = [(path, places.get(path.suffix, "tables")) for path in report.files]
    files += [(folder / WORK / "noise" / name, "noise") for name in sorted(noise)]
    try:
        mirror = _open_mirror(tracking, folder, plan.suite.name, report, say)
    except EnvironmentProblem as error:
        report.warnings.append(str(error))
        return
    if mirror is not None:
        mirror.log_files(files)
        report.warnings += [mirror.warning] if mirror.warning else []
        mirror.close()


def _job(
    plan: Plan, entry: Entry, folder: Path, data: str | Path | None, cache: Path, executor: str, replace: bool
) -> Job:  # fmt: skip
    from bench.engine import Engine
    from bench.schedule import Job
    from bench.trial.runner import Options

    resources = plan.suite.resources
    cpu, gpu, memory = resources.share(entry.cell["method"]["name"], entry.method)
    options = Options(
        suite=plan.suite.name,
        method_path=entry.method_path,
        data_root=str(Path(data).resolve()) if data else None,
        work_folder=str(folder / WORK),
        executor=executor,
        device="cuda" if gpu > 0 else "cpu",
        engine=Engine(
            resources.precision, resources.channels_last, resources.compile, resources.deterministic, resources.tf32
        ),
        time_limit=resources.time_limit,
        checkpoint_seconds=resources.checkpoint_seconds,
        checkpoint_epochs=tuple(epoch - 1 for epoch in resources.checkpoint_epochs),
        checkpoint_dir=_checkpoint_dir(resources.checkpoint_dir, plan.suite.name),
        threads=max(1, int(cpu)),
        noise_files=tuple(sorted(entry.noise_files.items())),
        cache=str(cache),
        watch=plan.suite.watched(),
    )
    size = (memory or 0) * 2**30
    return Job(entry.cell, options, entry.label(), str(folder), cpus=cpu, gpus=gpu, memory=size, replace=replace)


def _packed(jobs: list[Job], results: Path) -> list[Job]:
    """Jobs that set aside the memory that records below `results` say they need (resources.memory: measured)."""
    import torch

    from bench.records import load_summaries, record_files
    from bench.schedule.resources import measured_peaks, packed

    paths = [path for folder in sorted(results.glob("*")) for path in record_files(folder)]
    peaks = measured_peaks(record for _, record, _ in load_summaries(paths, dict) if record)
    total = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    return packed(jobs, peaks, total)


def _checkpoint_dir(place: str | None, suite: str) -> str | None:
    """A folder of the suite below the place that it names; its records may be elsewhere, and other suites share the place."""
    if place is None:
        return None
    return f"{place.rstrip('/')}/{suite}" if "://" in place else str(Path(place).expanduser().resolve() / suite)


def _make_checkpoint_dir(place: str | None) -> None:
    """Made here, so that workers on other machines can tell by it whether they see it."""
    if place and "://" not in place:
        try:
            Path(place).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentProblem(f"cannot make the folder of checkpoints {place}: {error.strerror}") from error


def _open_mirror(tracking: str | None, folder: Path, suite: str, report: RunReport, say: Say) -> Any:
    """The MLflow mirror, or None. A server that was asked for and does not answer is an environment problem."""
    if tracking == "none":
        return None
    from bench.track import Mirror, TrackError, default_artifacts, default_uri

    try:
        if tracking is None:
            return Mirror.open(default_uri(folder.parent), suite, default_artifacts(folder.parent))
        return Mirror.open(tracking, suite, default_artifacts(folder.parent))
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
        _remove_leftovers(folder)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot write to the results folder {folder}: {error.strerror}; choose another with --results DIR"
        ) from error


def _remove_leftovers(folder: Path) -> None:
    """Half-written files of processes that were killed; young ones may belong to a run that is going on."""
    import time

    for place in (folder, folder / WORK):
        for name in os.listdir(place):
            if name.startswith(".") and name.endswith(".tmp"):
                with suppress(OSError):
                    if time.time() - (place / name).stat().st_mtime > LEFTOVER_SECONDS:
                        (place / name).unlink()


def _device_present(suite: Suite, executor: str) -> None:
    """Without this every cell would fail and leave a record. Under Ray the cluster is asked, by the scheduler."""
    resources = suite.resources
    if executor == "inline" and (resources.gpu > 0 or any(share.gpu for share in resources.methods.values())):
        import torch

        if not torch.cuda.is_available():
            raise EnvironmentProblem(f"{suite.name} asks for a GPU (resources.gpu), and torch sees none here")


def _say_plan(plan: Plan, before: Scan, todo: int, adopted: int, say: Say) -> None:
    counts = before.counts()
    total = len(plan.entries)
    states = ("done", "failed", "diverged", "skipped", "corrupt")
    parts = [f"{counts[state]} {state}" for state in states if counts.get(state)]
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


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """One line per entry, so that a change of the plan reads well as a diff."""
    head = {key: value for key, value in manifest.items() if key != "entries"}
    lines = ",\n".join("  " + json.dumps(entry) for entry in manifest["entries"])
    return json.dumps(head)[:-1] + ', "entries": [\n' + lines + "\n]}\n"


def _write_search(plan: Plan, folder: Path) -> None:
    """Keep what a search proposed before it is run, so that an interrupted one goes on with the same proposals."""
    if plan.search is not None:
        from bench.tune.plan import search_file
        from bench.tune.report import search_json

        try:
            _write_if_changed(folder / search_file(plan.overrides.digest()), search_json(plan.search))
        except OSError as error:
            raise EnvironmentProblem(f"cannot write to {folder}: {error.strerror}") from error


def _write_reports(whole: Plan, suite: str | Path, folder: Path, suffix: str, report: RunReport, fresh: bool) -> None:
    from bench.plan import scan
    from bench.report import render, render_suite, table_data

    spec = whole.suite.table_spec()
    manifest = whole.manifest()
    name = MANIFEST if not suffix else f"plan{suffix}.json"
    found = scan(manifest["entries"], folder)
    # "Not run" would be wrong for a cell whose record cannot be read.
    corrupt = {identity: {"status": "failed", "reason": "its record is corrupt"} for identity in found.corrupt}
    records = found.records | corrupt
    report.text = render(table_data(manifest, records, spec), spec, "text")
    _write_if_changed(folder / name, manifest_text(manifest))
    texts = render_suite(manifest, records, spec)
    for fmt, text in texts.items():
        path = folder / TABLE_FILES[fmt].replace("table", f"table{suffix}")
        _write_if_changed(path, text)
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


def _write_if_changed(path: Path, text: str) -> None:
    data = text.encode()
    if not path.exists() or path.read_bytes() != data:
        write_atomic(path, data)
