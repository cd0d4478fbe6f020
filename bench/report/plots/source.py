"""What figures are drawn from: outcomes of a plan by panel, means with bands, watched quantities, and why some are absent."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from bench.report.aggregate import PHRASES, MethodInfo, Outcome, method_infos, outcome_of
from bench.report.spec import nearest

#: methods in one figure: more lines cannot be told apart
LINES = 8

At = tuple[str, str]  # data set, noise
Cells = Mapping[At, Mapping[str, Sequence[Outcome]]]


class Absent(ValueError):
    """The records do not hold what a figure shows; the message says what to do about it."""


@dataclass(frozen=True)
class Band:
    """Mean, smallest and largest over `n` of `n_planned` seeds."""

    mean: float
    low: float
    high: float
    n: int
    n_planned: int


@dataclass(frozen=True)
class Series:
    """A `Band` for each of `x`, with the same seeds throughout."""

    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    n: int
    n_planned: int


@dataclass(frozen=True)
class Source:
    """A suite's outcomes. `command` is how its user names it: `bench run SUITE`, for messages."""

    suite: str
    command: str
    methods: Mapping[str, MethodInfo]
    cells: Cells

    @classmethod
    def of(cls, plan: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]], path: str | None = None) -> Source:
        """Of a plan and its records; `path` is the suite's file. Raises ValueError when the plan has no entries."""
        if not plan["entries"]:
            raise ValueError(f"suite {plan['suite']!r} has no planned cells, so there are no curves to draw")
        cells: dict[At, dict[str, list[Outcome]]] = {}
        for entry in plan["entries"]:
            group = cells.setdefault((entry["dataset"], entry["noise"]), {})
            group.setdefault(entry["method"], []).append(outcome_of(entry, records.get(entry["id"])))
        path = path or f"suites/{plan['suite']}.yaml"
        return cls(plan["suite"], f"bench run {shlex.quote(path)}", method_infos(plan["entries"]), cells)

    def only(self, datasets: Sequence[str] | None, noises: Sequence[str] | None, methods: Sequence[str] | None) -> Source:
        """Those alone, by the names of the plan; None takes all. Raises ValueError for a name that is not in the plan."""
        known = {
            "datasets": list(dict.fromkeys(dataset for dataset, _ in self.cells)),
            "noises": list(dict.fromkeys(noise for _, noise in self.cells)),
            "methods": list(self.methods),
        }
        for key, names in (("datasets", datasets), ("noises", noises), ("methods", methods)):
            for name in names or ():
                if name not in known[key]:
                    raise ValueError(f"{key}: {self.suite} has no {name!r}{nearest(name, known[key])}")
        cells = {
            at: {m: group[m] for m in (methods or group) if m in group}
            for at, group in self.cells.items()
            if (not datasets or at[0] in datasets) and (not noises or at[1] in noises)
        }
        return self.restricted({at: group for at, group in cells.items() if group}, methods)

    def restricted(self, cells: Cells, order: Sequence[str] | None = None) -> Source:
        """The same suite with these cells and their methods alone."""
        present = {method for group in cells.values() for method in group}
        infos = {method: self.methods[method] for method in order or self.methods if method in present}
        return replace(self, cells=cells, methods=infos)

    def parts(self, lines: int = LINES) -> list[Source]:
        """The source itself, or parts of it with at most `lines` methods, the first one in all."""
        return [
            self if len(names) == len(self.methods) else self.only(None, None, names)
            for names in shares(list(self.methods), lines)
        ]

    def having(self, read: Callable[[Outcome], Any]) -> Source:
        """Without the methods of which no finished seed anywhere has what `read` returns (None: it has not)."""
        found = {
            method
            for group in self.cells.values()
            for method, outcomes in group.items()
            if any(outcome.done and read(outcome) is not None for outcome in outcomes)
        }
        cells = {at: {m: group[m] for m in group if m in found} for at, group in self.cells.items()}
        return self.restricted({at: group for at, group in cells.items() if group})

    def best(self, at: At, limit: int) -> list[str]:
        """The first method of the plan and those of the highest mean test accuracy after the last epoch, in plan order."""
        group = self.cells[at]
        if len(group) <= limit:
            return list(group)
        means = {method: mean_of(metric(o, "test_acc_last") for o in outcomes) for method, outcomes in group.items()}
        first, *others = group
        ranked = sorted((m for m in others if means[m] is not None), key=lambda m: -(means[m] or 0.0))
        return [m for m in group if m == first or m in ranked[: limit - 1]]


def shares(names: Sequence[str], lines: int) -> list[list[str]]:
    """`names` in lists of at most `lines`, about equally long, the first name in each."""
    if len(names) <= lines:
        return [list(names)]
    first, *others = names
    count = math.ceil(len(others) / (lines - 1))
    size = math.ceil(len(others) / count)
    return [[first, *others[i : i + size]] for i in range(0, len(others), size)]


def percent(value: Any) -> float | None:
    """100 x a finite number, None for anything else."""
    return 100 * float(value) if number(value) else None


def number(value: Any) -> TypeGuard[float]:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)


def metric(outcome: Outcome, key: str) -> Any:
    """`record.metrics[key]` of a finished seed, or None."""
    return (outcome.record.get("metrics") or {}).get(key) if outcome.done and outcome.record else None


def at_keys(outcome: Outcome, *keys: str) -> Any:
    """A nested value of the record of a finished seed, or None."""
    value: Any = outcome.record if outcome.done else None
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def mean_of(values: Iterable[Any]) -> float | None:
    found = [float(value) for value in values if number(value)]
    return math.fsum(found) / len(found) if found else None


def band(values: Iterable[float | None], n_planned: int) -> Band | None:
    """Over the values that are there; None where there are none."""
    found = [value for value in values if value is not None]
    if not found:
        return None
    return Band(math.fsum(found) / len(found), min(found), max(found), len(found), n_planned)


def series(seeds: Sequence[Mapping[Any, float]], n_planned: int) -> Series | None:
    """Over the places that every seed (value by place) has, in order; seeds without any value are left out."""
    seeds = [points for points in seeds if points]
    if not seeds:
        return None
    places = sorted(set.intersection(*(set(points) for points in seeds)))
    values = [[points[place] for points in seeds] for place in places]
    return Series(
        x=places,
        mean=[math.fsum(v) / len(v) for v in values],
        low=[min(v) for v in values],
        high=[max(v) for v in values],
        n=len(seeds),
        n_planned=n_planned,
    )


def by_epoch(epochs: Any, values: Any, factor: float = 1.0) -> dict[int, float]:
    """Values by epoch counted from 1, those that are not finite numbers left out. Records count epochs from 0."""
    pairs = zip(epochs or (), values or (), strict=False)
    return {epoch + 1: factor * value for epoch, value in pairs if number(value)}


# -- what was watched --------------------------------------------------------------------------------------------------
#: kind of watched quantity -> the name that a method of the papers shows, for the message when there is none
EXAMPLES = {"members": "confidence_set", "values": "losses", "points": "features", "gallery": "gallery"}


@dataclass(frozen=True)
class Watching:
    """The methods of a source that have a watched quantity of one kind, and its name for each of them."""

    source: Source
    names: Mapping[str, str]

    def block(self, outcome: Outcome) -> Any:
        """`record.watched[name]` of a finished seed, or None."""
        name = self.names.get(outcome.entry["method"])
        return at_keys(outcome, "watched", name) if name else None

    def lacks(self, outcome: Outcome) -> str | None:
        """For `absences`."""
        return None if self.block(outcome) else f"without watched {self.names[outcome.entry['method']]}"

    def names_text(self) -> str:
        """'Quantity: confidence_set of MTaDCS, clean_set of DivideMix.'"""
        of: dict[str, list[str]] = {}
        for method, name in self.names.items():
            of.setdefault(name, []).append(self.source.methods[method].label)
        if len(of) == 1:
            return f"Watched: {next(iter(of))}."
        return f"Watched: {'; '.join(f'{name} of {_listed(labels)}' for name, labels in of.items())}."


def watching(source: Source, kind: str, name: str | None = None) -> Watching:
    """The methods that watched a quantity of that kind (and name); raises `Absent` when there is none.

    Without a name, a method's is the first in the order of its record, which is the suite's.
    """
    names: dict[str, str] = {}
    for group in source.cells.values():
        for method, outcomes in group.items():
            for outcome in outcomes:
                for key, block in (at_keys(outcome, "watched") or {}).items():
                    if block.get("kind") == kind and name in (None, key):
                        names.setdefault(method, key)
    if not names:
        raise Absent(_nothing_watched(source, kind, name))
    cells = {at: {m: group[m] for m in group if m in names} for at, group in source.cells.items()}
    found = source.restricted({at: group for at, group in cells.items() if group})
    return Watching(found, {method: names[method] for method in found.methods})


def _nothing_watched(source: Source, kind: str, name: str | None) -> str:
    wanted = ",".join(_quoted(method) for method in source.methods) if len(source.methods) <= 3 else "METHOD"
    which = f"the watched quantity {name!r}" if name else f"a watched quantity of the kind {kind!r}"
    offers = "; `bench run` warns where a method does not observe the name, and tells those that it observes"
    return (
        f"no finished record of {source.suite} has {which}: put `watch: [{name or EXAMPLES[kind]}]` into the suite and run "
        f"`{source.command} --force --only {shlex.quote('method=' + wanted)}`{'' if kind == 'gallery' else offers}"
    )


def chosen_epochs(watch: Watching, wanted: Sequence[int] | None, key: str, limit: int) -> list[int]:
    """Epochs counted from 1 at which blocks hold `key`: those wanted, else at most `limit`, evenly spread, the last among
    them. Raises `Absent` when none of the wanted is there."""
    found: set[int] = set()
    for group in watch.source.cells.values():
        for outcomes in group.values():
            found.update(int(epoch) + 1 for outcome in outcomes for epoch in (watch.block(outcome) or {}).get(key) or ())
    there = sorted(found)
    chosen = [epoch for epoch in wanted or there if epoch in found]
    if not chosen:
        name = next(iter(watch.names.values()))
        asked = f" of epoch {', '.join(map(str, wanted))}" if wanted else ""
        has = f"they have {', '.join(map(str, there))}; " if there else ""
        raise Absent(
            f"the records of {watch.source.suite} hold nothing{asked} for {name!r}: {has}put "
            f"`watch: {{{name}: [{', '.join(map(str, wanted or [1]))}]}}` into the suite and run `{watch.source.command} --force`"
        )
    if wanted or len(chosen) <= limit:
        return chosen
    places = [round((i + 1) * len(chosen) / limit) - 1 for i in range(limit)]
    return [chosen[place] for place in places]


def at_epoch(block: Any, key: str, epoch: int) -> Any:
    """The entry of a watched block for an epoch counted from 1, or None."""
    return ((block or {}).get(key) or {}).get(str(epoch - 1))


def first_seed(watch: Watching, at: At, method: str, key: str, epoch: int) -> tuple[Outcome, Any] | None:
    """The finished seed with the lowest number that has an entry at that epoch, and the entry."""
    for outcome in sorted(watch.source.cells[at].get(method, ()), key=lambda o: o.entry["seed"]):
        entry = at_epoch(watch.block(outcome), key, epoch)
        if entry is not None:
            return outcome, entry
    return None


def _quoted(name: str) -> str:
    return f'"{name}"' if "," in name else name


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# -- the foot ----------------------------------------------------------------------------------------------------------
def seeds_text(source: Source) -> str:
    """'3' or '2 to 3': how many seeds the plan has for each method."""
    sizes = sorted({len(group) for by_method in source.cells.values() for group in by_method.values()})
    return f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"


def spread_text(source: Source, what: str = "Lines", spread: str = "bands") -> str:
    """What lines (or bars) and bands (or whiskers) are."""
    seeds = seeds_text(source)
    return "A single seed." if seeds == "1" else f"{what}: mean over {seeds} seeds; {spread}: smallest to largest seed."


def absences(source: Source, lacks: Callable[[Outcome], str | None] = lambda outcome: None) -> list[str]:
    """A sentence for each (data set, noise) with seeds that are not drawn: not finished, or `lacks` says what is missing."""
    lines = []
    for (dataset, noise), by_method in source.cells.items():
        absent = []
        for method, group in by_method.items():
            counts: dict[str, int] = {}
            for outcome in group:
                word = lacks(outcome) if outcome.done else PHRASES.get(outcome.status, outcome.status)
                if word is not None:
                    counts[word] = counts.get(word, 0) + 1
            if counts:
                what = ", ".join(f"{count} of {len(group)} seeds {word}" for word, count in counts.items())
                absent.append(f"{source.methods[method].label} ({what})")
        if absent:
            lines.append(f"Absent in {dataset}, {noise}: {'; '.join(absent)}.")
    return lines
