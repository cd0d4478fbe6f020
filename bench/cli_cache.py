"""The commands about stages shared between cells: `bench cache ls` and `bench cache clean`. Parse, call, print."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from bench.cli_options import JSON, RESULTS, guarded

DAY = 86400.0
CACHE = click.option("--cache", metavar="DIR", envvar="BENCH_CACHE", help="[default: .work/cache in the results folder]")


@click.group()
def cache() -> None:
    """Look at and clean the cache of stages: pre-training and other label-free work that cells share."""


def _entries(folder: Path) -> list[Any]:
    from bench.outcome import EnvironmentProblem
    from bench.stages import entries

    try:
        return entries(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise EnvironmentProblem(f"cannot read the cache folder {folder}: {error.strerror or error}") from error


def _row(entry: Any) -> dict[str, Any]:
    header = entry.header or {}
    return {
        "name": entry.name, "dataset": entry.dataset, "id": entry.id, "bytes": entry.size, "built": header.get("created"),
        "seconds": header.get("seconds"), "unused_days": round(max(0.0, time.time() - entry.used) / DAY, 2),
        "damaged": entry.header is None, "file": str(entry.path),
    }  # fmt: skip


@cache.command()
@RESULTS
@CACHE
@JSON
@guarded
def ls(results: str, cache: str | None, as_json: bool) -> None:
    """List what is cached: stage, data set, size, what building it took, when, and for how long nobody has used it.

    \b
    bench cache ls
    bench cache ls --cache /shared/bench-cache --json
    """
    from bench.describe import columns
    from bench.stages import cache_root

    folder = cache_root(results, cache)
    found = _entries(folder)
    rows = [_row(entry) for entry in found]
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "entries": rows}))
        return
    shown = [
        (row["name"], row["dataset"] or "-", _size(row["bytes"]), "damaged" if row["damaged"] else f"{row['seconds']:.1f} s",
         row["built"] or "-", f"{row['unused_days']:.1f} d", row["id"])
        for row in rows
    ]  # fmt: skip
    if shown:
        click.echo(columns(shown, ("stage", "data set", "size", "took", "built", "unused", "id")))
    click.echo(_total(found, folder))


@cache.command()
@RESULTS
@CACHE
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Only what nobody has used for so long.")
@click.option("--stage", "stages", multiple=True, metavar="NAME", help="Only stages of this name.")
@click.option("--yes", is_flag=True, help="Remove; without it the command says what it would remove.")
@JSON
@guarded
def clean(
    results: str, cache: str | None, older_than: float | None, stages: tuple[str, ...], yes: bool, as_json: bool
) -> None:
    """Remove cached stages, damaged ones too. What a suite still needs is built again.

    \b
    bench cache clean                       what would be removed
    bench cache clean --older-than 30 --yes
    bench cache clean --stage simclr --yes
    """
    from bench.outcome import EnvironmentProblem
    from bench.stages import cache_root, remove

    folder = cache_root(results, cache)
    found = _entries(folder)
    _known(stages, {entry.name for entry in found})
    limit = time.time() - (older_than or 0.0) * DAY
    chosen = [entry for entry in found if (not stages or entry.name in stages) and (older_than is None or entry.used <= limit)]
    removed: list[Any] = []
    busy: list[Any] = []
    try:
        for entry in chosen if yes else []:
            (removed if remove(entry) else busy).append(entry)
    except OSError as error:
        raise EnvironmentProblem(f"cannot remove from {folder}: {error.strerror or error}") from error
    if as_json:
        groups = (("chosen", chosen), ("removed", removed), ("in_use", busy))
        click.echo(json.dumps({"folder": str(folder), **{name: [_row(entry) for entry in group] for name, group in groups}}))
        return
    named = removed if yes else chosen
    for entry in named:
        click.echo(f"{'removed' if yes else 'would remove'} {entry.path.name}  {_size(entry.size)}")
    for entry in busy:
        click.echo(f"kept {entry.path.name}: it is being built")
    hint = "; nothing was removed: add --yes" if chosen and not yes else ""
    click.echo(_total(named, folder) + hint)


def _known(stages: tuple[str, ...], names: set[str]) -> None:
    from bench.fields import FieldError, nearest

    for stage in stages:
        if stage not in names:
            raise FieldError("--stage", f"no stage {stage!r} is cached", nearest(stage, names))


def _total(found: list[Any], folder: Path) -> str:
    missing = "" if folder.is_dir() else " (there is no such folder)"
    return f"{len(found)} stages, {_size(sum(entry.size for entry in found))} in {folder}{missing}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
