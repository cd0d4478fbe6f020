"""The commands of every day: `bench status`, `show`, `doctor`, `merge`, `clean`. Parse, call, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bench.cli_options import JSON, RESULTS, guarded, note_no_results

CACHE = click.option("--cache", metavar="DIR", envvar="BENCH_CACHE", help="[default: .work/cache in the results folder]")
STATUSES = ("done", "failed", "diverged", "skipped", "corrupt")
KIND_NAMES = ("checkpoints", "locks", "logs", "leftovers", "cache")


@click.command(epilog="Exit codes: 0 all cells done, 1 some are not, 2 bad usage or suite, 3 environment, 130 interrupted.")
@click.argument("suite", metavar="SUITE")
@RESULTS
@JSON
@guarded
def status(suite: str, results: str, as_json: bool) -> int:
    """Count the cells of a suite by state, and say what runs now: epoch, seconds per epoch, time left.

    What runs is read from a small file that `bench run` writes every second, also on another machine that shares the
    results folder. A run that was killed is recognised, by its process or by its silence, and named as such.

    \b
    bench status suites/quickstart.yaml
    bench status suites/quickstart.yaml --json
    """
    from bench.describe import status_json, status_text

    note_no_results(results)
    found = status_json(suite, Path(results))
    click.echo(json.dumps(found) if as_json else status_text(found, results))
    return 0 if set(found["counts"]) <= {"done", "skipped"} else 1


@click.command(epilog="Exit codes: 0 shown, 1 the record is corrupt, 2 there is no such cell or several, 3 environment.")
@click.argument("cell", metavar="CELL")
@RESULTS
@click.option("--origins/--no-origins", default=True, show_default=True,
              help="Say where each value came from; for that the suite is planned anew, which takes seconds.")  # fmt: skip
@click.option("--full", is_flag=True, help="With --json: origins, command and log too, not the record alone.")
@JSON
@guarded
def show(cell: str, results: str, origins: bool, full: bool, as_json: bool) -> None:
    """Show one cell: resolved values and where each came from, outcome, cost, provenance, the end of its log, and the
    command that runs it again, alone.

    CELL is the id, or its first digits, as `bench plan` and `bench status` print it. A cell that runs, or has not run yet,
    can be shown too. With --json the record itself is printed.

    \b
    bench show 021578e9
    bench show 021578e9 --no-origins
    bench show 021578e9 --json --full
    """
    from bench.show import find, show_json, show_text

    found = find(cell, Path(results))
    if not as_json:
        click.echo(show_text(found, Path(results), origins=origins))
    elif found.record is not None and not full:
        click.echo(json.dumps(found.record))
    else:
        click.echo(json.dumps(show_json(found, Path(results))))


@click.command(epilog="Exit codes: 0 all that is required is there, 2 bad usage, 3 something required is missing.")
@RESULTS
@click.option("--data", metavar="DIR", help="Require this folder of data sets  [default: BENCH_DATA, if it is set]")
@CACHE
@click.option("--address", metavar="ADDR", help="Require this Ray cluster to answer.")
@click.option("--tracking", metavar="URI|none", help="Require this MLflow server or database to answer.")
@JSON
@guarded
def doctor(as_json: bool, results: str, **options: Any) -> int:
    """Check versions, devices, data, writable folders, disk space, the clock, and whether Ray and MLflow answer.

    Nothing is started and nothing is kept. What is named by an option must be there; the rest is reported.

    \b
    bench doctor
    bench doctor --results /shared/results --data /shared/data
    bench doctor --address 10.0.0.1:6379 --tracking http://127.0.0.1:5000
    """
    from bench.doctor import doctor as examine
    from bench.doctor import doctor_text

    findings = examine(Path(results), **options)
    click.echo(json.dumps(findings) if as_json else doctor_text(findings))
    return 0 if all(finding["ok"] for finding in findings if finding["required"]) else 3


# -- merge ---------------------------------------------------------------------------------------------------------
@click.command(epilog="Exit codes: 0 merged, 1 refused (conflicts) or a record is corrupt, 2 bad usage, 3 environment.")
@click.argument("folders", nargs=-1, required=True, metavar="DIR...")
@RESULTS
@click.option("--prefer", type=click.Choice(["newest", "theirs", "ours"]),
              help="Of two different records of a cell: the one that finished last, the one in DIR, or the one here.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
@JSON
@guarded
def merge(folders: tuple[str, ...], results: str, prefer: str | None, dry_run: bool, as_json: bool) -> int:
    """Copy the records of other results folders into this one.

    DIR is a results folder, or the folder of one suite in it. A record that is here already, byte for byte, is left alone.
    Where a cell has two different records nothing at all is copied, and both files are named, unless --prefer decides. A
    record that is done is never replaced by one that is not. Corrupt records are named and not copied. Tables are not
    copied: `bench table` renders them anew.

    \b
    bench merge /mnt/machine-b/results --dry-run
    bench merge /mnt/machine-b/results /mnt/machine-c/results
    bench merge ../other/results/quickstart --prefer newest
    """
    from bench.merging import copy, plan_merge
    from bench.outcome import EnvironmentProblem

    found = plan_merge([Path(folder) for folder in folders], Path(results), prefer)
    refused = bool(found.conflicts)
    try:
        if not refused and not dry_run:
            copy(found)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write to {results}: {error}; what was copied is whole, merge again") from error
    if as_json:
        click.echo(json.dumps({**found.facts(), "refused": refused, "dry_run": dry_run}))
    else:
        _print_merge(found, results, refused=refused, dry_run=dry_run)
    return 1 if refused or found.corrupt or found.changed else 0


def _print_merge(found: Any, results: str, *, refused: bool, dry_run: bool) -> None:
    from bench.records import named_fault

    for path, fault in found.corrupt.items():
        click.echo(f"error: {named_fault(path, fault)}", err=True)
    for theirs, ours, why in found.conflicts:
        click.echo(f"error: two records of cell {theirs.stem}: {theirs} and {ours} ({why})", err=True)
    for path in found.changed:
        click.echo(f"error: {path} changed meanwhile and was left alone; merge again", err=True)
    for theirs, ours, why in found.kept:
        click.echo(f"kept {ours}, not {theirs}: {why}")
    for theirs, ours in found.replaced if not refused else []:
        click.echo(f"{'would replace' if dry_run else 'replaced'} {ours} by {theirs}")
    if refused:
        click.echo(f"nothing was copied: {len(found.conflicts)} cells have two different records; see --prefer", err=True)
        return
    verb = "would be copied" if dry_run else "copied"
    click.echo(f"{len(found.copies)} records {verb} to {results}, {found.identical} there already, {len(found.kept)} kept")


# -- clean ---------------------------------------------------------------------------------------------------------
@click.command(epilog="Exit codes: 0 cleaned or shown, 1 something could not be removed, 2 bad usage, 3 environment.")
@click.argument("suites", nargs=-1, metavar="[SUITE]...")
@RESULTS
@CACHE
@click.option("--only", "only", multiple=True, type=click.Choice(KIND_NAMES), help="Only this; can be given several times.")
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Only what has not been used for so long.")
@click.option("--records", multiple=True, type=click.Choice(STATUSES),
              help="Remove RECORDS of this status, and nothing else unless --only names it.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Remove; without it the command says what it would remove.")
@JSON
@guarded
def clean(suites: tuple[str, ...], results: str, cache: str | None, yes: bool, as_json: bool, **options: Any) -> int:
    """Remove checkpoints of finished cells, stale locks, logs of done cells, what killed processes left, and cached stages.

    Sizes are shown first, and nothing goes without --yes. Records stay: only --records STATUS removes some. A suite that is
    being run is left alone. Names of suite files restrict it to their folders, and spare the cache.

    \b
    bench clean
    bench clean suites/quickstart.yaml --only checkpoints --only locks --yes
    bench clean --only cache --older-than 30 --yes
    bench clean --records failed
    """
    from bench.cleaning import find, remove
    from bench.outcome import EnvironmentProblem
    from bench.stages import cache_root
    from bench.suite import load_suite

    names = [load_suite(Path(suite))[0].name for suite in suites]
    try:
        items, kept = find(Path(results), cache_root(results, cache), suites=names, **options)
    except OSError as error:
        raise EnvironmentProblem(f"cannot read {results}: {error.strerror or error}") from error
    gone, refused = remove(items) if yes else ([], [])
    if as_json:
        facts = {"found": items, "removed": gone}
        lists = {name: [item.facts() for item in found] for name, found in facts.items()}
        click.echo(json.dumps({**lists, "bytes": sum(i.bytes for i in items), "kept": [*kept, *refused]}))
    else:
        _print_clean(items, [*kept, *refused], yes=yes, gone=gone)
    return 1 if refused else 0


def _print_clean(items: list[Any], kept: list[str], *, yes: bool, gone: list[Any]) -> None:
    from bench.cleaning import size_text
    from bench.describe import columns

    kinds: dict[str, list[Any]] = {}
    for item in items:
        kinds.setdefault(item.kind, []).append(item)
    rows = [(kind, len(found), size_text(sum(item.bytes for item in found)), _example(found)) for kind, found in kinds.items()]
    if rows:
        click.echo(columns(rows, ("what", "files", "size", "")))
    for line in kept:
        click.echo(f"kept {line}")
    shown = gone if yes else items
    hint = "" if yes or not items else "; nothing was removed: add --yes"
    size = size_text(sum(item.bytes for item in shown))
    click.echo(f"{len(shown)} files, {size} {'removed' if yes else 'can go'}{hint}")


def _example(found: list[Any]) -> str:
    return str(found[0].path) + (f" and {len(found) - 1} more" if len(found) > 1 else "")
