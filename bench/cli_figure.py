"""The command about figures: `bench figure`. Parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli_options import RESULTS, guarded

if TYPE_CHECKING:
    from bench.report.plots.spec import FigureSpec


@click.command()
@click.argument("suite", required=False)
@click.argument("kinds", nargs=-1, metavar="[KIND]...")
@click.option("--out", metavar="DIR", help="Where the files go.  [default: the suite's folder of results]")
@click.option("--format", "formats", default="png,svg", show_default=True, metavar="F[,F..]", help="Of png, svg and pdf.")
@RESULTS
@click.option("--list", "listing", is_flag=True, help="Print the kinds of figure with their options, and draw nothing.")
@guarded
def figure(suite: str | None, kinds: tuple[str, ...], out: str | None, formats: str, results: str, listing: bool) -> int | None:
    """Draw figures of a suite from its records: its `figures:` section, else every kind that the records can show.

    \b
    bench figure suites/quickstart.yaml
    bench figure suites/quickstart.yaml confusion groups --format pdf --out paper/figures
    bench figure --list
    """
    if listing:
        click.echo(_listing())
        return 0
    if suite is None:
        raise click.UsageError("Missing argument 'SUITE'; `bench figure --list` prints the kinds.")
    wanted_formats = _formats(formats)
    drawn, asked = _draw(suite, kinds, out, wanted_formats, results)
    for item in drawn:
        for path in item.files:
            click.echo(f"wrote {path}")
    left_out = [item for item in drawn if item.reason]
    for item in left_out:
        click.echo(f"{'error: ' if asked else ''}left out {item.kind}: {item.reason}", err=asked)
    return 1 if asked and left_out else 0


def _draw(suite: str, kinds: tuple[str, ...], out: str | None, formats: tuple[str, ...], results: str) -> tuple[list[Any], bool]:
    """What was drawn, and whether somebody asked for just these kinds."""
    from bench.api import current_manifest
    from bench.fields import FieldError
    from bench.outcome import EnvironmentProblem
    from bench.plan import scan
    from bench.records import load_record, record_path
    from bench.report.plots import draw, spec
    from bench.suite import load_suite

    parsed, source = load_suite(Path(suite))
    try:
        section = spec.validate(getattr(parsed, "figures", None))
    except spec.SpecError as error:
        raise FieldError(suite, str(error)) from None
    wanted = _wanted(kinds, section)
    if not Path(results).is_dir():  # which an empty figure would create
        raise EnvironmentProblem(f"there is no results folder {results}; run a suite first, or name the folder with --results DIR")
    folder = Path(results).resolve() / parsed.name
    manifest = current_manifest(parsed, source, folder)
    found = scan(manifest["entries"], folder)
    for identity in found.corrupt:
        load_record(record_path(folder, identity))  # raises: a figure must not leave out what it cannot read
    try:
        return draw(manifest, found.records, wanted or spec.every(), Path(out) if out else folder, formats, suite), bool(wanted)
    except ValueError as error:
        raise FieldError("figures", str(error)) from error
    except OSError as error:
        raise EnvironmentProblem(f"cannot write the figures: {error.strerror or error}") from error


def _wanted(kinds: tuple[str, ...], section: tuple[FigureSpec, ...]) -> list[FigureSpec]:
    """The kinds that were named, as the suite's section sets them where it has them; else the whole section."""
    from bench.fields import FieldError, nearest
    from bench.report.plots import kinds as known
    from bench.report.plots.spec import FigureSpec

    wanted: list[FigureSpec] = [] if kinds else list(section)
    for kind in dict.fromkeys(kinds):
        if kind not in known():
            raise FieldError("KIND", f"unknown kind of figure {kind!r}", nearest(kind, known()))
        wanted += [item for item in section if item.kind == kind] or [FigureSpec(kind)]
    return wanted


def _formats(text: str) -> tuple[str, ...]:
    from bench.fields import FieldError, nearest
    from bench.report.plots.style import FORMATS

    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in FORMATS:
            raise FieldError("--format", f"unknown format {name!r}", nearest(name, FORMATS))
    return names


def _listing() -> str:
    from bench.report.plots import kinds, module_of
    from bench.report.plots.spec import COMMON

    lines = []
    for kind in kinds():
        module = module_of(kind)
        lines.append(f"{kind:<12} {module.TITLE}")
        lines += [f"  {name}: {_option(option)}" for name, option in module.OPTIONS.items()]
    lines.append("every kind takes")
    lines += [f"  {name}: {_option(option)}" for name, option in COMMON.items()]
    return "\n".join(lines)


def _option(option: Any) -> str:
    choices = f"; one of {', '.join(option.choices)}" if option.choices else ""
    default = f" [{option.default}]" if option.default is not None else ""
    return f"{option.meaning}{choices}{default}"
