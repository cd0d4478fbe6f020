"""Figures of a suite: one file of this folder for each kind. Dropping a file in is registration.

    spec.py    the `figures:` section of a suite and its validation (no matplotlib)
    source.py  outcomes by panel, means with bands, watched quantities, what is absent
    style.py   colours, frame, legend, foot, files with deterministic bytes

A kind is a module with `TITLE`, one line; `OPTIONS`, the `spec.Option` by name that it takes besides the common ones;
`sheets(source, options)`, the numbers of its figures as plain data, which raises `source.Absent` when the records do not hold
them; and `draw(sheet)`, which hands such numbers to matplotlib and returns a figure. The modules import matplotlib in `draw`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

_SHARED = ("source", "spec", "style")
__all__ = ["Drawn", "draw", "kinds", "module_of"]


@dataclass(frozen=True)
class Drawn:
    """What became of one wanted figure: its files, or the reason why there are none."""

    kind: str
    files: tuple[Path, ...]
    reason: str | None = None


def kinds() -> list[str]:
    """Names of all kinds of figure, sorted."""
    names = (info.name for info in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if name not in _SHARED and not name.startswith("_"))


def module_of(kind: str) -> Any:
    """The module of a kind that `kinds` lists."""
    return import_module(f"{__name__}.{kind}")


def draw(
    plan: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]], wanted: Sequence[Any], folder: Path,
    formats: Sequence[str] = ("png", "svg"), path: str | None = None,
) -> list[Drawn]:  # fmt: skip
    """Draw the wanted figures into `folder` as <kind>.png, <kind>-2.png and so on. The same input gives the same bytes.

    Args:
        plan: {'suite': name, 'entries': [plan entry, ...]} in suite order.
        records: record by cell id; records that the plan does not name are left aside.
        wanted: `spec.FigureSpec`s, in order.
        formats: of `style.FORMATS`.
        path: the suite's file, for the commands in reasons.

    Raises ValueError when the plan has no entries, or an option names what is not in it.
    """
    from bench.report.plots import style
    from bench.report.plots.source import Absent, Source

    whole = Source.of(plan, records, path)
    counts: dict[str, int] = {}
    drawn = []
    for spec in wanted:
        module = module_of(spec.kind)
        options = spec.filled()
        source = whole.only(options["datasets"], options["noises"], options["methods"])
        files: list[Path] = []
        try:
            sheets = module.sheets(source, options)
        except Absent as error:
            drawn.append(Drawn(spec.kind, (), str(error)))
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for sheet in sheets:
            number = counts[spec.kind] = counts.get(spec.kind, 0) + 1
            with style.settings():
                files += style.save(module.draw(sheet), folder / (spec.kind + (f"-{number}" if number > 1 else "")), formats)
        drawn.append(Drawn(spec.kind, tuple(files)))
    return drawn
