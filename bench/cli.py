"""The commands: parse, call, print. No logic, and no heavy import before a command needs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import bench
from bench.cli_cache import cache
from bench.cli_completion import completion, polish
from bench.cli_daily import clean, doctor, merge, show, status
from bench.cli_data import data, noise
from bench.cli_figure import figure
from bench.cli_leaderboard import leaderboard
from bench.cli_options import JSON, RESULTS, guarded, parse_only, parse_seeds, parse_set
from bench.cli_profile import profile
from bench.cli_site import site
from bench.cli_stats import stats
from bench.cli_table import table

EXIT_CODES = "Exit codes: 0 all cells done, 1 some failed, 2 bad usage or suite, 3 environment, 130 interrupted."


def selection(command: Callable[..., Any]) -> Callable[..., Any]:
    """The filters and overrides that run and plan share."""
    options = (
        click.option("--only", multiple=True, metavar="AXIS=VALUE[,..]", help="Keep these cells: dataset, noise, rate, method, seed or model."),
        click.option("--set", "set_", multiple=True, metavar="KEY=VALUE",
                     help="Override a value: params.<field>, <method>.<field>, training.<field>, protocol.<field>, model.<field>."),
        click.option("--seeds", metavar="N|A,B,..", help="The first N seeds, or these, in place of the suite's."),
        click.option("--results", default="results", show_default=True, metavar="DIR", help="Where records are kept."),
        click.option("--data", metavar="DIR", envvar="BENCH_DATA", help="Folder of the data sets that are not embedded."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EXIT_CODES,
)
@click.version_option(bench.__version__, prog_name="bench")
def main() -> None:
    """Reproducible comparison of methods for learning with noisy labels.

    A suite file declares data sets x noises x methods x seeds. `bench run` runs what has no record yet and renders the table.

    \b
    bench run suites/quickstart.yaml              run it, print its table
    bench plan suites/quickstart.yaml             what would run, and where each value comes from
    bench ls methods                              what there is
    """


@main.command(epilog=EXIT_CODES)
@click.argument("suites", nargs=-1, required=True, metavar="SUITE...")
@selection
@click.option("--executor", type=click.Choice(["ray", "inline"]), default="ray", show_default=True,
              help="ray: all cores or a cluster; inline: one process, for debuggers and machines without Ray.")  # fmt: skip
@click.option("--address", metavar="ADDR", help="A running Ray cluster (implies --executor ray).")
@click.option("--tracking", metavar="URI|none", help="MLflow server or database; default: SQLite in the results folder.")
@click.option("--cache", metavar="DIR", envvar="BENCH_CACHE",
              help="Folder of stages shared between cells and machines [default: .work/cache in the results folder].")  # fmt: skip
@click.option("--force", is_flag=True, help="Run the selected cells again although they have records.")
@click.option("--retry-failed", is_flag=True, help="Run failed and diverged cells again.")
@guarded
def run(suites: tuple[str, ...], only: tuple[str, ...], set_: tuple[str, ...], seeds: str | None, as_json: bool, **options: Any) -> int:
    """Run the cells of suites that have no record yet, then show their tables.

    Running again runs only what is missing; Ctrl-C and `kill PID` lose nothing that is finished.

    \b
    bench run suites/quickstart.yaml
    bench run suites/quickstart.yaml --only method=erm,elr --only noise=symmetric@0.5
    bench run suites/quickstart.yaml --set training.epochs=5 --seeds 1
    """
    from bench.api import read_plan
    from bench.api import run as run_suite
    from bench.interrupts import stoppable
    from bench.plan import Overrides

    if options["address"] and options["executor"] == "inline":
        raise click.UsageError("--address names a Ray cluster, which --executor inline does not use")
    if len(suites) > 1:  # a fault in the last one must not show after hours
        for suite in suites:
            read_plan(suite, Overrides(parse_only(only), parse_set(set_), parse_seeds(seeds)), options["data"])
    interactive = sys.stdout.isatty() and not as_json
    code, summaries = 0, []
    with stoppable():
        for suite in suites:
            report = run_suite(
                suite, only=parse_only(only), set=parse_set(set_), seeds=parse_seeds(seeds),
                say=(lambda line: click.echo(line, err=True)) if as_json else click.echo, interactive=interactive, **options,
            )  # fmt: skip
            code = max(code, report.exit_code)
            summaries.append(_summary(suite, report))
            if not as_json:
                _print_report(suites[len(summaries) - 1 :], report, {"only": only, "set": set_, "seeds": seeds, **options})
            if report.interrupted:
                break
    if as_json:
        click.echo(json.dumps(summaries[0] if len(summaries) == 1 else summaries))
    return code


def _summary(suite: str, report: Any) -> dict[str, Any]:
    return {
        "suite": report.suite, "file": suite, "counts": report.counts, "ran": report.ran, "exit_code": report.exit_code,
        "folder": str(report.folder), "files": [str(path) for path in report.files], "warnings": report.warnings,
        "corrupt": report.scan.corrupt,
    }  # fmt: skip


def _print_report(suites: tuple[str, ...], report: Any, options: dict[str, Any]) -> None:
    """What came of the first of `suites`; the others are still to be run. `options` as the command line gave them."""
    from bench.api import command_line
    from bench.records import first_line
    from bench.safe_text import printable

    suite, place = suites[0], {"results": options["results"]}
    click.echo("\n" + report.text)
    for warning in report.warnings[:20]:
        click.echo(printable(f"warning: {warning}"))
    if len(report.warnings) > 20:
        click.echo(f"warning: {len(report.warnings) - 20} more")
    for entry in report.plan.entries:
        record = report.scan.records.get(entry.id)
        if record and record["status"] in ("failed", "diverged"):
            reason = printable(first_line(record["reason"], 200))
            click.echo(f"{record['status']}: {entry.label()}: {reason}  ({command_line('show', entry.id, **place)})")
    for message in report.scan.corrupt.values():
        click.echo(f"error: {message}")
    for path in report.files:
        click.echo(f"wrote {_relative(path)}")
    database = Path(options["results"]).resolve() / "mlflow.db"
    if options["tracking"] is None and database.exists():
        click.echo(f"MLflow: mlflow ui --backend-store-uri sqlite:///{_relative(database)}")
    if report.plan.overrides.digest() is None:
        click.echo(f"table again: {command_line('table', suite, **place)}")
    counts = ", ".join(f"{count} {state}" for state, count in sorted(report.counts.items()))
    click.echo(f"{report.suite}: {counts}" + (f"; ran {report.ran} now" if not report.interrupted else "; interrupted"))
    if report.interrupted:
        click.echo(f"interrupted: finished cells are safe; continue with: {command_line('run', *suites, **options)}")
    elif {"failed", "diverged"} & set(report.counts):
        why, again = command_line("show", "CELL", **place), {**options, "force": False, "retry_failed": True}
        click.echo(f"not all cells are done; `{why}` shows why, `{command_line('run', suite, **again)}` tries again")
    elif "missing" in report.counts:  # which needs no --force
        click.echo(f"not all cells are done; continue with: {command_line('run', suite, **{**options, 'force': False})}")


def _relative(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@main.command(epilog=EXIT_CODES)
@click.argument("suite", metavar="SUITE")
@selection
@click.option("--values", is_flag=True, help="List every resolved value with its origin, one block per row.")
@guarded
def plan(
    suite: str, only: tuple[str, ...], set_: tuple[str, ...], seeds: str | None, results: str, data: str | None, as_json: bool, values: bool
) -> None:
    """Show cells, their states, and where each resolved value comes from; runs nothing.

    \b
    bench plan suites/quickstart.yaml
    bench plan suites/quickstart.yaml --only method=elr --values
    """
    from bench.describe import plan_json, plan_text
    from bench.plan import Overrides

    overrides = Overrides(parse_only(only), parse_set(set_), parse_seeds(seeds))
    if as_json:
        click.echo(json.dumps(plan_json(suite, overrides, Path(results), data)))
    else:
        click.echo(plan_text(suite, overrides, Path(results), data, values=values))


@main.command()
@click.argument("suite", metavar="SUITE")
@RESULTS
@click.option("--tracking", metavar="URI", help="MLflow server or database; default: SQLite in the results folder.")
@guarded
def sync(suite: str, results: str, tracking: str | None) -> None:
    """Complete the MLflow mirror of a suite from its records, after a server was away or on a fresh clone.

    \b
    bench sync suites/quickstart.yaml
    bench sync suites/quickstart.yaml --tracking http://127.0.0.1:5000
    """
    from bench.api import sync as synchronise

    added, count = synchronise(suite, results=results, tracking=tracking)
    click.echo(f"{added} of {count} records added to the mirror")


@main.command()
@click.argument("what", type=click.Choice(["methods", "datasets", "noises", "models", "suites"]))
@JSON
@guarded
def ls(what: str, as_json: bool) -> None:
    """List what there is: methods, datasets, noises, models or suites.

    \b
    bench ls methods
    bench ls suites --json
    """
    from bench.describe import listing, listing_text

    rows = listing(what)
    click.echo(json.dumps(rows) if as_json else listing_text(rows))


@main.command()
@click.argument("method", metavar="METHOD_OR_FILE")
@JSON
@guarded
def check(method: str, as_json: bool) -> int:
    """Run the conformance battery on a method: a slug, or the path of your own file.

    \b
    bench check elr
    bench check ./my_method.py
    """
    from bench.check import check_method

    results = check_method(method, say=(lambda line: None) if as_json else click.echo)
    if as_json:
        click.echo(json.dumps(results))
    return 0 if all(result["passed"] for result in results) else 1


@main.command()
@click.option("--out", default="docs/methods", show_default=True, metavar="DIR", help="Folder of the pages.")
@click.option("--check", "only_check", is_flag=True, help="Write nothing; exit code 1 when a page is stale.")
@guarded
def pages(out: str, only_check: bool) -> int:
    """Write a page per method: idea, needs, cost, recipes, agreement with released code, our and published numbers.

    \b
    bench pages
    bench pages --check
    """
    from bench.method_page import stale, write

    changed = stale(Path(out)) if only_check else write(Path(out))
    for path in changed:
        click.echo(f"{'stale: ' if only_check else ''}{path}")
    click.echo(f"{len(changed)} pages {'are stale' if only_check else 'written'}")
    return 1 if only_check and changed else 0


for command in (status, show, doctor, merge, clean, completion, table, figure, stats, leaderboard, site, data, noise, cache, profile):
    main.add_command(command)
polish(main)


if __name__ == "__main__":
    main()
