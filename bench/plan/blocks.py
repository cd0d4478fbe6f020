"""The products that a suite is made of: values of each axis, and where each stands in the suite file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.plan.entries import Overrides
from bench.suite import Grid, MethodEntry, Suite
from bench.yaml_source import Path_, Source


@dataclass(frozen=True)
class Row:
    """A method with what the suite sets about it: an entry of `methods`, or one that a kind of suite makes."""

    entry: MethodEntry
    #: where the row stands, and where the entry stands that it was made of
    place: Path_
    home: Path_
    #: the values that this row varies: `params.k` -> its place
    varied: Mapping[str, Path_] = field(default_factory=dict)
    #: what plan.json says about the row, and the fields whose resolved values it adds; None for an ordinary row
    variant: Mapping[str, Any] | None = None
    fields: tuple[str, ...] = ()
    #: what tables print, where it is not the entry's label
    title: str | None = None
    #: why none of its cells is to be run
    skip: str | None = None

    def at(self, section: str, key: str) -> Path_:
        return self.varied.get(f"{section}.{key}", (*self.home, section, key))


@dataclass(frozen=True)
class Block:
    """Data sets x noises x rows x seeds; every value with its place."""

    datasets: list[tuple[dict[str, Any], Path_]]
    noises: list[tuple[str | dict[str, Any], Path_]]
    rows: list[Row]
    seeds: list[tuple[int, Path_]]
    model: dict[str, Any]
    model_at: Path_
    training: dict[str, Any]
    training_at: Path_


def make_blocks(suite: Suite, source: Source, overrides: Overrides) -> list[Block]:
    """One block per grid, or one of the suite's own axes."""
    return [
        _block(grid, ("grids", number) if suite.grids else (), suite, source, overrides)
        for number, grid in enumerate(suite.blocks())
    ]


def _block(grid: Grid, prefix: Path_, suite: Suite, source: Source, overrides: Overrides) -> Block:
    from bench.kinds import rows

    def at(axis: str) -> Path_:
        """Where an axis stands: in the grid itself if it has one, else at the top of the suite."""
        own = (*prefix, axis)
        return own if own in source.lines else (axis,)

    def placed(axis: str, values: Any) -> list[tuple[Any, Path_]]:
        return [(value, (*at(axis), number)) for number, value in enumerate(values or [])]

    seeds = list(overrides.seeds) if overrides.seeds is not None else list(grid.seeds or [0])
    return Block(
        placed("datasets", grid.datasets), placed("noises", grid.noises),
        rows(suite, [Row(entry, place, place) for entry, place in placed("methods", grid.methods)]),
        placed("seeds", seeds), grid.model or {}, at("model"), grid.training, (*prefix, "training"),
    )  # fmt: skip
