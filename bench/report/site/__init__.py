"""The static site: suites, plans and records in, the bytes of every file out. No clock, no network, no dates.

Pages open from the disk, ask no other host for anything, and are complete without JavaScript.

    names.py     file names from foreign text
    rows.py      what the tables show: a row per (data set, noise, method)
    cells.py     what the page of one record shows
    charts.py    inline SVG lines, heat tables, matrices as pixels
    pages.py     templates/ filled in
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TITLE = "Learning with noisy labels: results"


@dataclass(frozen=True)
class SiteSuite:
    """One folder of results.

    Args:
        name: of the folder.
        entries: plan entries in suite order; records that none of them names are listed apart.
        records: by cell id.
        raw: the record files' own bytes by cell id, copied beside the pages.
        commands: what runs a cell again, by cell id, where it is known.
        title, description: of the suite file; empty when it was not found.
        figures: SVG files made from the records, by file name.
    """

    name: str
    entries: Sequence[Mapping[str, Any]]
    records: Mapping[str, Mapping[str, Any]]
    raw: Mapping[str, bytes] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    description: str = ""
    figures: Mapping[str, bytes] = field(default_factory=dict)


def site_files(suites: Sequence[SiteSuite], title: str = TITLE) -> Iterator[tuple[str, bytes]]:
    """(path relative to the site, bytes) of every file; the same input gives the same bytes.

    Raises ValueError when a plan holds the same (data set, noise, method, seed) twice.
    """
    from bench.report.site.pages import files

    return files(suites, title)
