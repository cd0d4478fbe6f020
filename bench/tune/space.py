"""Spaces of settings: the domain of each searched field, and seeded draws from it.

A drawn number has four significant digits: a setting can be read and typed, and the last bit of a logarithm, which differs
between machines, cannot enter the identity of a cell.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.cell import canonical_json, stream_seed
from bench.fields import nearest
from bench.yaml_source import Path_, Problem, Source

KINDS = ("choice", "uniform", "loguniform", "int")
Setting = dict[str, Any]


@dataclass(frozen=True)
class Domain:
    """`choice`: the values; else both bounds, inclusive."""

    kind: str
    values: tuple[Any, ...]

    @property
    def size(self) -> int | None:
        """How many values there are, None for a continuous domain."""
        if self.kind == "choice":
            return len(self.values)
        return self.values[1] - self.values[0] + 1 if self.kind == "int" else None

    def at(self, share: float) -> Any:
        """The value at `share` in [0, 1) of the domain; equal shares are equally probable."""
        if self.kind == "choice":
            return self.values[int(share * len(self.values))]
        low, high = self.values
        if self.kind == "int":
            return low + int(share * (high - low + 1))
        if self.kind == "loguniform":
            return self.rounded(math.exp(math.log(low) + share * (math.log(high) - math.log(low))))
        return self.rounded(low + share * (high - low))

    def rounded(self, value: float) -> float:
        low, high = self.values
        return min(max(float(f"{value:.4g}"), float(low)), float(high))

    def all(self) -> Sequence[Any]:
        return self.values if self.kind == "choice" else range(self.values[0], self.values[1] + 1)


Space = dict[str, Domain]


def parse_space(section: Mapping[str, Mapping[str, Any]]) -> Space:
    """The domains of one row of `search:`, checked before by `check_spaces`."""
    return {name: Domain(kind, tuple(values)) for name, domain in section.items() for kind, values in domain.items()}


def size(space: Space) -> int | None:
    """How many settings there are, None when a domain is continuous."""
    sizes = [domain.size for domain in space.values()]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def random_settings(space: Space, seed: int, count: int) -> list[Setting]:
    """The first `count` distinct settings of the stream that space and seed name: independent draws, as Ray Tune's random search.

    All settings, in their order, where there are no more than `count`.
    """
    if (total := size(space)) is not None and total <= count:
        return [dict(zip(space, point, strict=True)) for point in itertools.product(*(domain.all() for domain in space.values()))]
    described = {name: [domain.kind, list(domain.values)] for name, domain in space.items()}
    stream = random.Random(stream_seed("tune", described, seed))
    found: dict[str, Setting] = {}
    for _ in range(1000 * count):  # a narrow space may have fewer numbers of four digits than are asked for
        setting = {name: domain.at(stream.random()) for name, domain in space.items()}
        found.setdefault(canonical_json(setting), setting)
        if len(found) == count:
            break
    return list(found.values())


# -- validation --------------------------------------------------------------------------------------------------------
def check_spaces(search: Mapping[str, Mapping[str, Mapping[str, Any]]], source: Source) -> list[Problem]:
    """What is wrong with the domains themselves; whether a method takes their values is checked by the plan."""
    problems = []
    for row, section in search.items():
        if not section:
            problems.append(source.problem(("search", row), "the space is empty", "name a field: {k: {choice: [5, 10, 20]}}"))
        for name, domain in section.items():
            path = ("search", row, name)
            if len(domain) != 1:
                hint = "for example {choice: [5, 10, 20]} or {loguniform: [0.01, 0.2]}"
                problems.append(source.problem(path, f"a space is one of {', '.join(KINDS)}", hint))
                continue
            ((kind, values),) = domain.items()
            if kind not in KINDS:
                problems.append(source.problem((*path, kind), f"unknown space {kind!r}", nearest(kind, KINDS)))
            elif fault := _fault(kind, values):
                problems.append(source.problem((*path, kind), fault))
    return problems


def _fault(kind: str, values: Any) -> str | None:
    if not isinstance(values, list) or not values:
        return f"expected a list, got {values!r}"
    if kind == "choice":
        texts = [repr(value) for value in values]
        return None if len(set(texts)) == len(texts) else "a value stands here twice"
    numbers = (int,) if kind == "int" else (int, float)
    if len(values) != 2 or any(isinstance(value, bool) or not isinstance(value, numbers) for value in values):
        return f"expected [lowest, highest]{', whole numbers' if kind == 'int' else ''}, got {values!r}"
    if not values[0] < values[1] or not all(math.isfinite(value) for value in values):
        return f"the lowest value has to be below the highest, got {values!r}"
    if kind == "loguniform" and values[0] <= 0:
        return f"a logarithmic space begins above 0, got {values!r}"
    return None


def probes(section: Mapping[str, Mapping[str, Any]], place: Path_) -> list[tuple[str, Any, Path_]]:
    """Values of every domain that the method must take: all choices, else both ends and one within, with their places."""
    found = []
    for name, domain in parse_space(section).items():
        values = domain.values if domain.kind == "choice" else (*domain.values, domain.at(0.37))
        for number, value in enumerate(values):
            found.append((name, value, (*place, name, domain.kind, min(number, len(domain.values) - 1))))
    return found
