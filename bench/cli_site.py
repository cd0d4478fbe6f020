"""The command `bench site`. Parse, call, write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli_options import guarded

if TYPE_CHECKING:
    from bench.report.site import SiteSuite

FILES = ".bench-site"  # what the last `bench site` wrote into a folder, one path a line


@click.command()
@click.option("--results", default="results", show_default=True, metavar="DIR", help="Folder of the suites' records.")
@click.option("--out", default="site", show_default=True, metavar="DIR", help="Folder of the pages; a new one, or that of an earlier `bench site`.")
@click.option("--suites", default="suites", show_default=True, metavar="DIR", help="Where titles and descriptions of suites are found.")
@click.option("--title", metavar="TEXT", help="Title of the first page.")
@guarded
def site(results: str, out: str, suites: str, title: str | None) -> None:
    """Write the results as web pages: tables to sort and filter, and a page for each record. They open from the disk, without a server.

    \b
    bench site
    bench site --out public --title "Our noisy labels"
    """
    from bench.outcome import EnvironmentProblem
    from bench.report.site import TITLE, site_files

    found = [_suite(folder, Path(suites)) for folder in _folders(Path(results))]
    try:
        count, size = _write(Path(out), site_files([suite for suite in found if suite.entries or suite.records], title or TITLE))
    except OSError as error:
        raise EnvironmentProblem(f"cannot write the pages: {error}") from error
    records = sum(len(suite.records) for suite in found)
    click.echo(f"{count} files, {size / 1e6:.1f} MB, of {records} records in {out}; open {Path(out) / 'index.html'}")


def _folders(results: Path) -> list[Path]:
    from bench.outcome import EnvironmentProblem

    if not results.is_dir():
        raise EnvironmentProblem(f"there is no results folder {results}")
    return sorted(path for path in results.iterdir() if path.is_dir() and not path.name.startswith("."))


def _suite(folder: Path, suites: Path) -> SiteSuite:
    """A folder of results as the site takes it. Raises `RecordError` for a record that cannot be trusted."""
    from bench.outcome import MANIFEST
    from bench.outputs import read_manifest
    from bench.records import load_records, record_path
    from bench.report.site import SiteSuite
    from bench.report.site.rows import entry_of

    records = load_records(folder)
    manifest = read_manifest(folder / MANIFEST)
    entries = manifest["entries"] if manifest else _distinct([entry_of(record) for record in records.values()])
    title, description = _words(_file(folder, manifest or {}, suites))
    figures = sorted([*folder.glob("*.svg"), *folder.glob("figures/*.svg")])
    return SiteSuite(
        folder.name, entries, records, {key: record_path(folder, key).read_bytes() for key in records},
        _commands(folder, suites), title, description, {path.name: path.read_bytes() for path in figures},
    )  # fmt: skip


def _distinct(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without a plan two settings of a method have one name: then its rows are told apart by the ids of their cells."""
    seen: dict[tuple[Any, ...], int] = {}
    places = [tuple(entry[axis] for axis in ("dataset", "noise", "method", "seed")) for entry in entries]
    for place in places:
        seen[place] = seen.get(place, 0) + 1
    return [
        {**entry, "method": f"{entry['method']} ({entry['id'][:8]})"} if seen[place] > 1 else entry
        for entry, place in zip(entries, places, strict=True)
    ]


def _commands(folder: Path, suites: Path) -> dict[str, str]:
    """What runs a cell again, for every cell that a plan in the folder names; the suite's own plan comes first."""
    from bench.api import command_for
    from bench.outcome import MANIFEST
    from bench.outputs import read_manifest

    commands: dict[str, str] = {}
    for path in sorted(folder.glob("plan*.json"), key=lambda path: (path.name != MANIFEST, path.name)):
        manifest = read_manifest(path) or {"entries": []}
        suite = _file(folder, manifest, suites)
        for entry in manifest["entries"]:
            commands.setdefault(entry["id"], command_for(suite.as_posix(), entry, manifest.get("overrides")))
    return commands


def _file(folder: Path, manifest: Mapping[str, Any], suites: Path) -> Path:
    """The suite file of a plan, which names the files that it includes before it; a guess where it is not found."""
    name = Path(list(manifest.get("sources") or [f"{folder.name}.yaml"])[-1]).name
    return next(iter(sorted(suites.rglob(name))), suites / name)


def _words(path: Path) -> tuple[str, str]:
    """Title and description of a suite file; empty where there is none that can be read."""
    from bench.suite import load_suite
    from bench.yaml_source import SuiteError

    try:
        suite, _ = load_suite(path)
    except (SuiteError, OSError):
        return "", ""
    return suite.title, suite.description


def _write(out: Path, files: Iterator[tuple[str, bytes]]) -> tuple[int, int]:
    """Number and bytes of the files written. What an earlier call wrote and this one does not is removed."""
    from bench.fields import FieldError

    marker = out / FILES
    if out.exists() and not marker.is_file() and (not out.is_dir() or any(out.iterdir())):
        raise FieldError("--out", f"{out} holds other files, which pages could overwrite", "name a new folder")
    before = set(marker.read_text(encoding="utf-8").splitlines()) if marker.is_file() else set()
    written: dict[str, int] = {}
    for name, data in files:
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        written[name] = len(data)
    for name in before - set(written):
        path = out / name
        if path.resolve().is_relative_to(out.resolve()):
            path.unlink(missing_ok=True)
    marker.write_text("".join(f"{name}\n" for name in sorted(written)), encoding="utf-8")
    return len(written), sum(written.values())
