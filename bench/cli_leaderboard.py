"""`bench leaderboard`: the pages that summarize all committed records. Parse, call, print."""

from __future__ import annotations

import json
from pathlib import Path

import click

from bench.cli_options import JSON, RESULTS, guarded


@click.command()
@RESULTS
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 when a page is stale.")
@click.option("--tuning", is_flag=True, help="Count tuning suites, ablations and sensitivity suites too; written to LEADERBOARD-all.md.")
@JSON
@guarded
def leaderboard(results: str, check: bool, tuning: bool, as_json: bool) -> int:
    """Write LEADERBOARD.md of a results folder and the README.md of each suite in it, from the records alone.

    The same records give the same bytes. A corrupt record is named and left out, and the exit code is 1.

    \b
    bench leaderboard
    bench leaderboard --check                     what continuous integration runs
    bench leaderboard --results my-results --json
    """
    from bench.api import command_line
    from bench.outcome import EnvironmentProblem
    from bench.records import named_fault
    from bench.report.leaderboard_files import pages, stale, write_pages
    from bench.report.leaderboard_text import as_json as plain

    root = Path(results)
    if not root.is_dir():
        raise EnvironmentProblem(f"there is no results folder {root}; run a suite first, or name the folder with --results DIR")
    try:
        board, texts = pages(root, tuning)
        old = stale(texts)
        if not check:
            write_pages(texts, old)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write the pages: {error}") from error
    failed = bool(board.corrupt) or (check and bool(old))
    if as_json:
        changed = {"stale" if check else "written": [str(path) for path in old]}
        click.echo(json.dumps({**changed, **plain(board)}))
        return int(failed)
    for path in old:
        click.echo(f"{'stale' if check else 'written'} {path}")
    for name, fault in sorted(board.corrupt.items()):
        click.echo(f"error: {named_fault(root / name, fault)}", err=True)
    again = command_line("leaderboard", results=results, tuning=tuning)
    hint = f"; run `{again}` and commit what it writes" if check and old else ""
    click.echo(f"{board.records} cells, {len(board.groups)} tables, {len(texts)} pages, {len(old)} {'stale' if check else 'written'}{hint}")
    return int(failed)
