"""From one row under one noise to its resolved values: recipes, precedence, and the origin of every value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench.fields import FieldError
from bench.plan.axes import resolve_needs
from bench.plan.blocks import Block, Row
from bench.plan.entries import Origins, Overrides
from bench.plan.match import matches, own_key
from bench.suite import Suite
from bench.yaml_source import Path_, Problem, Source


class Resolved(NamedTuple):
    params: dict[str, Any]
    training: dict[str, Any]
    protocol: dict[str, Any]
    needs: tuple[str, ...]
    origins: Origins


class Resolver:
    """Resolves rows, collects the problems that it finds, and remembers which rules and overrides had an effect."""

    def __init__(self, suite: Suite, source: Source, overrides: Overrides) -> None:
        self.suite, self.source, self.overrides = suite, source, overrides
        self.problems: list[Problem] = []
        self.used_rules: set[tuple[int, str]] = set()  # (number of the rule, key)
        self.used_set: set[str] = set()
        self.notes: dict[str, None] = {}  # a set that keeps its order

    def resolve(self, cls: Any, row: Row, block: Block, facts: dict[str, Any]) -> Resolved | None:
        """Method fields, training and protocol with the origin of each value; None when something is wrong."""
        from bench.training import Training
        from bench.trial.evaluate import Protocol

        values, origins, places = self._values(cls, row, block, facts)
        if not self._keeps_what_it_varies(row, origins, places):
            return None
        result = []
        for section, owner in (("params", cls), ("training", Training), ("protocol", Protocol)):
            given = {key.split(".", 1)[1]: value for key, value in values.items() if key.startswith(section + ".")}
            try:
                resolved = owner.identity(given)
            except FieldError as error:
                key = f"{section}.{error.key}"
                self.field_problem(error, key, origins.get(key, "class default"), places.get(key, row.place))
                return None
            for name in resolved:
                origins.setdefault(f"{section}.{name}", "class default")
            result.append(resolved)
        params, training, protocol = result
        needs = self.guard(row.place, lambda: resolve_needs(cls, params))
        if needs is None:
            return None
        for need in needs:
            if need in self.suite.forbid_needs:
                message = f"{cls.slug} needs {need}, which this suite forbids"
                hint = f"remove the method, or take {need} out of forbid_needs"
                self.problems.append(self.source.problem(row.place, message, hint))
        return Resolved(params, training, protocol, needs, origins)

    def _values(
        self, cls: Any, row: Row, block: Block, facts: dict[str, Any]
    ) -> tuple[dict[str, Any], Origins, dict[str, Path_]]:
        """What recipes, suite and command line say, by dotted key: the values, their origins and places."""
        values: dict[str, Any] = {}
        origins: Origins = {}
        places: dict[str, Path_] = {}

        def put(key: str, value: Any, origin: str, place: Path_ = ()) -> None:
            values[key], origins[key], places[key] = value, origin, place

        entry = row.entry
        policy = entry.recipe or {"matched": "fixed", "none": ""}.get(self.suite.policy, self.suite.policy)
        known = {**facts, "noise": facts["recipe_noise"]}  # rules and --only mean the kind itself
        recipes = [recipe for recipe in cls.recipes if recipe.name == policy and recipe.matches(known)]
        if not recipes and (entry.recipe or policy == "paper"):
            note = f"{facts['label']} on {facts['dataset']}: no recipe {policy!r} matches, class defaults are used"
            self.notes[note] = None
        for recipe in recipes:
            for key, value in recipe.set.items():
                if entry.recipe or self.suite.policy != "matched" or not key.startswith("training."):
                    key = key if "." in key else f"params.{key}"
                    put(key, value, f"recipe {recipe.name}: {recipe.source}", row.home)
        layers: list[tuple[Mapping[str, Any], str, Path_]] = [
            (self.suite.training, "training", ("training",)),
            (self.suite.protocol, "protocol", ("protocol",)),
            (block.training, "training", block.training_at),
        ]
        for mapping, section, path in layers:
            for key, value in mapping.items():
                put(f"{section}.{key}", value, self.origin((*path, key)), (*path, key))
        for section, mapping in (("training", entry.training), ("params", entry.params)):
            for key, value in mapping.items():
                put(f"{section}.{key}", value, self.origin(row.at(section, key)), row.at(section, key))
        for number, rule in enumerate(self.suite.where):
            if matches(rule.match, facts):
                for key, value in rule.set.items():
                    target = own_key(key, cls)
                    if target is not None:
                        self.used_rules.add((number, key))
                        path = ("where", number, "set", key)
                        put(target, value, self.origin(path), path)
        for key, value in self.overrides.set.items():
            target = own_key(key, cls)
            if target is not None:
                self.used_set.add(key)
                put(target, value, "command line", ("--set", key))
        return values, origins, places

    def _keeps_what_it_varies(self, row: Row, origins: Origins, places: Mapping[str, Path_]) -> bool:
        """Whether no rule and no `--set` replaces a value that this row is there to vary; a problem for each that does."""
        replaced = [key for key, place in row.varied.items() if places[key] != place]
        for key in replaced:
            message, hint = f"replaces a value of {key.removeprefix('params.')}, which this suite varies", "remove one of them"
            if origins[key] == "command line":
                self.problems.append(Problem("--set", None, key, message, hint))
            else:
                self.problems.append(self.source.problem(places[key], message, hint))
        return not replaced

    # -- places and problems -----------------------------------------------------------------------------------------
    def origin(self, path: Path_) -> str:
        file, line = self.source.where(path)
        return f"{Path(file).name}:{line}" if line else Path(file).name

    def guard(self, path: Path_, build: Any) -> Any:
        """What `build` returns, or None and a problem at `path`."""
        try:
            return build()
        except FieldError as error:
            place = path if error.key in ("method", "dataset", "noise", "needs") else (*path, error.key)
            self.problems.append(self.source.problem(place, error.message, error.hint))
            return None

    def field_problem(self, error: FieldError, key: str, origin: str, place: Path_) -> None:
        if origin == "command line":
            given = place[1] if place[:1] == ("--set",) else key  # as it was written: elr.lam, not params.lam
            self.problems.append(Problem("--set", None, given, error.message, error.hint))
        elif origin.startswith("recipe") or origin == "class default":
            self.problems.append(self.source.problem(place, f"{key} ({origin}): {error.message}", error.hint))
        else:
            self.problems.append(self.source.problem(place, error.message, error.hint))
