"""`bench stats SUITE`: paired tests, ranks and the critical-difference diagram. Parse, call, print."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bench.cli_options import JSON, RESULTS, guarded, note_no_results, parse_only


@click.command()
@click.argument("suite")
@click.option("--metric", default="test_acc", show_default=True, metavar="NAME", help="What is compared, as worst_group_acc or noise_auc.")
@click.option("--protocol", default="last", show_default=True, metavar="NAME", help="last, last_k, best_oracle or selected.")
@click.option("--baseline", metavar="METHOD", help="Compare every method with this one in place of all pairs.")
@click.option("--blocks", type=click.Choice(["settings", "datasets", "seeds"]), default="settings", show_default=True,
              help="Over all data sets: means over seeds for each data set and noise, for each data set, or every seed.")  # fmt: skip
@click.option("--only", multiple=True, metavar="AXIS=VALUE[,..]", help="Keep these cells: dataset, noise, method or seed.")
@click.option("--alpha", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.05, show_default=True,
              help="Level of the tests, for the whole family.")  # fmt: skip
@click.option("--margin", type=click.FloatRange(min=0), default=0.1, show_default=True, help="Points within which a block is a tie.")
@click.option("--format", "fmt", type=click.Choice(["text", "md", "tex", "csv"]), default="text", show_default=True, help="Of the text.")
@click.option("--out", metavar="DIR", help="Write the critical-difference diagram there too (PNG and SVG).")
@RESULTS
@JSON
@guarded
def stats(
    suite: str, metric: str, protocol: str, baseline: str | None, blocks: str, only: tuple[str, ...], alpha: float, margin: float,
    fmt: str, out: str | None, results: str, as_json: bool,
) -> int:  # fmt: skip
    """What the differences between the methods of a suite are worth: paired tests, average ranks, wins and losses.

    Seeds are paired by the noise they draw. Nothing is computed over missing cells: they are named, with the command that runs
    them, and the exit code is 1.

    \b
    bench stats suites/learning-baselines.yaml --baseline erm
    bench stats suites/quickstart.yaml --metric worst_group_acc --only dataset=spurious-digits --format md
    bench stats suites/learning-baselines.yaml --out figures
    """
    from bench.outcome import EnvironmentProblem
    from bench.report.statistics import statistics
    from bench.report.statistics_text import as_json as plain
    from bench.report.statistics_text import critical_difference_diagram, render_statistics

    _check("--metric", metric, "METRICS")
    _check("--protocol", protocol, "PROTOCOLS")
    note_no_results(results)
    manifest, records, command = _read(suite, results, parse_only(only))
    try:
        found = statistics(
            manifest, records, metric=metric, protocol=protocol, blocks=blocks, baseline=baseline, alpha=alpha, margin=margin
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(json.dumps(plain(found, command)) if as_json else render_statistics(found, fmt, command), nl=as_json)
    if out:
        try:
            Path(out).mkdir(parents=True, exist_ok=True)
            for path in critical_difference_diagram(found, Path(out) / f"ranks-{metric}-{protocol}"):
                click.echo(f"written {path}", err=True)
        except ValueError as error:
            click.echo(f"error: {error}", err=True)
            return 1
        except OSError as error:
            raise EnvironmentProblem(f"cannot write to {out}: {error.strerror}") from error
    return 1 if found.overall.missing or not found.overall.ranks else 0


def _check(option: str, name: str, vocabulary: str) -> None:
    from bench.fields import FieldError, nearest
    from bench.report import spec

    choices = getattr(spec, vocabulary)
    if name not in choices:
        raise FieldError(option, f"there is no {option[2:]} {name!r}", nearest(name, choices))


def _read(suite: str, results: str, only: Mapping[str, list[str]]) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Plan, filtered, its records, and what says the command of an entry. Raises RecordError for a corrupt record."""
    from bench.api import command_for, current_manifest
    from bench.fields import FieldError
    from bench.plan import scan
    from bench.records import load_record, record_path
    from bench.suite import load_suite

    parsed, source = load_suite(Path(suite))
    folder = Path(results).resolve() / parsed.name
    manifest = current_manifest(parsed, source, folder)
    entries = manifest["entries"]
    for axis, names in only.items():
        if axis not in ("dataset", "noise", "method", "seed"):
            raise FieldError("--only", f"cannot choose by {axis!r}", "valid: dataset, noise, method, seed")
        known = {str(entry[axis]) for entry in manifest["entries"]}
        for name in names:
            if name not in known:
                raise FieldError("--only", f"no {axis} {name!r} in {parsed.name}", "valid: " + ", ".join(sorted(known)))
        entries = [entry for entry in entries if str(entry[axis]) in names]
    found = scan(entries, folder)
    for identity in found.corrupt:
        load_record(record_path(folder, identity))

    def command(entry: Mapping[str, Any]) -> str:
        return command_for(suite, entry, manifest.get("overrides"), results=results, force=entry["id"] in found.records)

    return {**manifest, "entries": entries}, found.records, command
