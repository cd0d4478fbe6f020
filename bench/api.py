"""What the command line does, as functions. `bench.run`, `bench.load_records` and `bench.table` are these."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.execute import adopt, check_device, execute, make_writable, mirror_files, to_run
from bench.outcome import MANIFEST, RESULTS, EnvironmentProblem, RunReport, Say
from bench.outputs import read_manifest, say_plan, write_reports, write_search
from bench.records import load_record, record_path
from bench.records import load_records as _load_folder
from bench.safe_text import without_credentials
from bench.stages import cache_root

if TYPE_CHECKING:
    from bench.plan import Overrides, Plan
    from bench.suite import Suite
    from bench.yaml_source import Source


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
    make_writable(folder)
    check_device(plan.suite, executor)
    shared = cache_root(root, cache).resolve()
    report: RunReport | None = None
    fresh = False
    while True:  # once, but for a search: what it tries next depends on what it found
        entries = [entry.shown() for entry in plan.entries]
        before = scan(entries, folder)
        report = report or RunReport(plan.suite.name, folder, plan, before)
        seen = frozenset(entry.id for entry in report.plan.entries if report.plan is not plan)
        todo = [entry for entry in to_run(plan, before, force=force, retry_failed=retry_failed) if entry.id not in seen]
        usable = ("done",) if retry_failed else ("done", "diverged")
        adopted = frozenset() if force else adopt(todo, root, folder, usable, {name for name, _ in plan.suite.watched()})
        todo = [entry for entry in todo if entry.id not in adopted]
        say_plan(plan, before, len(todo), len(adopted), say)
        write_search(plan, folder)
        report.plan = plan
        if todo:
            execute(plan, todo, before, folder, data, shared, executor, address, tracking, force, report, say, interactive)
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
    write_search(whole, folder)
    suffix = f"-{overrides.digest()}" if overrides.digest() else ""
    try:
        write_reports(whole, suite, folder, suffix, report, fresh=fresh)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write the tables: {error}; records are safe, run the suite again") from error
    if report.mirrored and not report.interrupted:
        mirror_files(tracking, plan, folder, report, say)
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


def command_line(verb: str, *names: str | Path, **options: Any) -> str:
    """A command to paste into a shell: `bench verb names`, with those `options` that are not as they are by default.

    Credentials are left out, since what is printed is kept in logs.
    """
    words = ["bench", verb, *map(str, names)]
    for name, value in options.items():
        if value and value != {"results": RESULTS, "executor": "ray"}.get(name):
            flag = "--" + name.replace("_", "-")
            given = [] if value is True else value if isinstance(value, (list, tuple)) else [value]
            words += [word for one in given for word in (flag, str(one))] or [flag]
    return without_credentials(shlex.join(words))


def command_for(
    suite: str | Path, entry: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, *,
    results: str | Path = RESULTS, force: bool = True,
) -> str:  # fmt: skip
    """The command that runs one cell, alone. `overrides` are those of its plan: `set` and `seeds`; `force`: it has a record."""
    given = overrides or {}
    names = {axis: str(entry[axis]) for axis in ("dataset", "noise", "method", "seed")}
    return command_line(
        "run", suite,
        set=[f"{key}={json.dumps(value)}" for key, value in (given.get("set") or {}).items()],
        seeds=",".join(map(str, given["seeds"])) + "," if given.get("seeds") else None,
        only=[f'{axis}="{name}"' if "," in name else f"{axis}={name}" for axis, name in names.items()],
        results=str(results), force=force,
    )  # fmt: skip
