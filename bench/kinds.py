"""Kinds of suites: what an ablation and a sensitivity sweep add to the rows of a grid, and which keys each kind has.

Both are rows made of one base row with a few fields changed. They expand to ordinary cells, so they share them with every
other suite by identity and run nothing twice. A search (kind: tune) is the business of `bench.tune`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.fields import nearest
from bench.yaml_source import Path_, Problem, Source

if TYPE_CHECKING:
    from bench.plan.blocks import Row
    from bench.plan.entries import Entry
    from bench.suite import Suite

KEYS: dict[str, tuple[str, ...]] = {
    "grid": (),
    "ablation": ("base", "variants"),
    "sensitivity": ("base", "axes", "each"),
    "tune": ("search", "budget", "tune_seeds", "searcher", "search_seed", "batch", "select", "per"),
}
REQUIRED = {kind: keys[: 3 if kind == "tune" else 2] for kind, keys in KEYS.items()}


def split(name: str) -> tuple[str, str]:
    """Section and field of a name in `variants`, `axes` or `search`: `k` is the method's own, `training.lr` the training's."""
    section, _, key = name.rpartition(".")
    return section or "params", key


def facts(suite: Suite) -> dict[str, Any]:
    """What plan.json says about the kind; nothing for a grid."""
    if suite.kind == "grid":
        return {}
    if suite.kind == "ablation":
        return {"kind": suite.kind, "fields": list(_varied(suite))}
    if suite.kind == "sensitivity":
        return {"kind": suite.kind, "axes": suite.axes, "each": suite.each}
    return {"kind": suite.kind}


# -- rows --------------------------------------------------------------------------------------------------------------
def rows(suite: Suite, listed: list[Row]) -> list[Row]:
    """The rows of a block, given those of its `methods`: for a grid these, before the base and its changes elsewhere."""
    from bench.plan.blocks import Row
    from bench.suite import MethodEntry

    if suite.kind == "tune" and not listed:
        return [Row(MethodEntry(method=name), ("search", name), ("search", name)) for name in suite.search]
    if suite.base is None:
        return listed
    base, fields = suite.base, tuple(_varied(suite))
    made: list[Row] = []
    for label, changes, places in _changes(suite):
        params, training, varied = dict(base.params), dict(base.training), {}
        for name, value in changes.items():
            section, key = split(name)
            (training if section == "training" else params)[key] = value
            varied[f"{section}.{key}"] = places[name]
        entry = base.model_copy(update={"label": label, "params": params, "training": training})
        place = next(iter(places.values()), ("variants", label))
        variant = {"base": not changes, "changes": changes}
        made.append(Row(entry, (*place, label), ("base",), varied, variant, fields))
    if not any(row.variant and row.variant["base"] for row in made):
        made.insert(0, Row(base, ("base",), ("base",), {}, {"base": True, "changes": {}}, fields))
    return listed + made


def _varied(suite: Suite) -> list[str]:
    names = suite.axes if suite.kind == "sensitivity" else [name for changes in suite.variants.values() for name in changes]
    return list(dict.fromkeys(names))


def _changes(suite: Suite) -> Iterator[tuple[str, dict[str, Any], dict[str, Path_]]]:
    """Label, changed fields, and the place of each value, for every row beside the base."""
    if suite.kind == "ablation":
        for label, changes in suite.variants.items():
            yield label, dict(changes), {name: ("variants", label, name) for name in changes}
        return
    groups = [(name,) for name in suite.axes] if suite.each else [tuple(suite.axes)]
    for names in groups:
        for point in itertools.product(*(list(enumerate(suite.axes[name])) for name in names)):
            changes = {name: value for name, (_, value) in zip(names, point, strict=True)}
            label = ", ".join(f"{split(name)[1]}={value}" for name, value in changes.items())
            yield label, changes, {name: ("axes", name, number) for name, (number, _) in zip(names, point, strict=True)}


def marked(suite: Suite, entries: list[Entry]) -> list[Entry]:
    """Say which cells are those of the base. In a sweep the base's own row goes where another is the same throughout."""
    base = {_key(entry): entry.id for entry in entries if entry.variant and entry.variant["base"]}
    if not base:  # no variants, or none without problems
        return entries
    same: dict[str, bool] = {}  # rows made of the base, and whether all of their cells are the base's
    for entry in entries:
        if entry.variant and entry.variant["changes"]:
            same[entry.method] = same.get(entry.method, True) and base.get(_key(entry)) == entry.id
    covered = {method for method, is_base in same.items() if is_base} if suite.kind == "sensitivity" else set()
    kept = []
    for entry in entries:
        if entry.variant and entry.variant["changes"]:
            title = f"{entry.title} (base)" if entry.method in covered else entry.title
            is_base = base.get(_key(entry)) == entry.id
            kept.append(replace(entry, title=title, variant={**entry.variant, "base": is_base}))
        elif entry.variant is None or not covered:
            kept.append(entry)
    return kept


def _key(entry: Entry) -> tuple[Any, ...]:
    return entry.dataset, entry.noise, entry.seed


# -- validation --------------------------------------------------------------------------------------------------------
def check(suite: Suite, source: Source) -> list[Problem]:
    """What is wrong with the keys of a kind; names of fields and their values are checked by the plan."""
    problems = []
    for key in dict.fromkeys(key for keys in KEYS.values() for key in keys):
        owners = [kind for kind, keys in KEYS.items() if key in keys]
        if key in source.data and suite.kind not in owners:
            message = f"{key!r} means nothing in a suite of kind {suite.kind}"
            problems.append(source.problem((key,), message, f"add `kind: {' or '.join(owners)}`, or remove the key"))
    for key in REQUIRED[suite.kind]:
        if not source.data.get(key):
            problems.append(source.problem((), f"a suite of kind {suite.kind} needs the key {key!r}", "see suites/README.md"))
    if problems:
        return problems
    if suite.kind == "ablation":
        names = [("variants", label, name) for label, changes in suite.variants.items() for name in changes]
        problems = _check_names(source, names)
    elif suite.kind == "sensitivity":
        problems = _check_names(source, [("axes", name) for name in suite.axes]) + _check_axes(suite, source)
    elif suite.kind == "tune":
        from bench.tune.space import check_spaces

        problems = _check_names(source, [("search", row, name) for row, space in suite.search.items() for name in space])
        problems += check_spaces(suite.search, source)
    return problems


def _check_names(source: Source, paths: Sequence[Path_]) -> list[Problem]:
    problems = []
    for path in paths:
        section = split(path[-1])[0]
        if section not in ("params", "training"):
            hint = f"{nearest(section, ('params', 'training'))}; write FIELD of the method, or training.FIELD"
            problems.append(source.problem(path, f"unknown section {section!r}", hint))
    return problems


def _check_axes(suite: Suite, source: Source) -> list[Problem]:
    problems = []
    if len(suite.axes) > 2 and not suite.each:
        hint = "`each: true` varies one at a time"
        problems.append(source.problem(("axes",), f"{len(suite.axes)} axes are more than a product can show, which is 2", hint))
    for name, values in suite.axes.items():
        if not values:
            problems.append(source.problem(("axes", name), "the axis is empty", "list the values, for example [5, 50, 500]"))
        for number, value in enumerate(values):
            if any(type(value) is type(other) and value == other for other in values[:number]):
                problems.append(source.problem(("axes", name, number), f"the value {value!r} stands here twice", "keep one"))
    return problems
