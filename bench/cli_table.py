"""`bench table`: a suite's table from its records, or a paper's from its published numbers. Parse, call, print."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli_options import guarded, note_no_results

FORMATS = ["md", "tex", "csv", "html", "text"]
PROTOCOLS = ["last", "last_k", "last10", "best_oracle", "best", "selected"]


@click.command()
@click.argument("suite", metavar="[SUITE]", required=False)
@click.option("--paper", metavar="NAME", help="A published table, as llc-dro-table1, instead of a suite; `list` names them all.")
@click.option("--format", "fmt", type=click.Choice(FORMATS), default="md", show_default=True, help="Of the text.")
@click.option("--protocol", type=click.Choice(PROTOCOLS), help="Show this protocol alone; best: best_oracle, last10: last_k.")
@click.option("--published", is_flag=True, help="Print the paper's number and the difference beside each measured one.")
@click.option("--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write to FILE instead of the terminal.")
@click.option("--results", default="results", show_default=True, metavar="DIR", help="Where records are kept.")
@guarded
def table(
    suite: str | None, paper: str | None, fmt: str, protocol: str | None, published: bool, output: str | None, results: str
) -> None:
    """Render a suite's table from its records, or a published one; needs no torch, Ray or MLflow.

    \b
    bench table suites/quickstart.yaml --format tex --output table.tex
    bench table suites/llc-dro-table1.yaml --published
    bench table --paper llc-dro-table1
    """
    if (suite is None) == (paper is None):
        raise click.UsageError("give a suite, or a published table with --paper; one of them")
    if paper is not None:
        if protocol or published:
            raise click.UsageError("--protocol and --published are for suites: a paper's numbers are as printed")
        text = _paper(paper, fmt)
    else:
        from bench.api import table as make_table

        note_no_results(results)
        text = make_table(str(suite), format=fmt, protocol=protocol, published=published, results=results)
    if output is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    try:
        Path(output).write_bytes(text.encode())
    except OSError as error:
        from bench.outcome import EnvironmentProblem

        raise EnvironmentProblem(f"cannot write {output}: {error.strerror}") from error


def _paper(name: str, fmt: str) -> str:
    from bench.report.papers import render_paper
    from bench.report.schema import names

    if name == "list":
        return "".join(f"{known}\n" for known in names())
    try:
        return render_paper(name, fmt)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
