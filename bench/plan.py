"""From a suite to its cells: grid expansion, recipes, precedence, and the state of every cell.

Precedence is command line > suite > recipe > class default. Within the suite the more specific place wins: suite, grid,
method entry, then the `where` rules in order. The origin of every value is kept, so that `bench plan` and `bench show`
can say where it came from.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.cell import cell_id
from bench.fields import FieldError, nearest
from bench.records import RecordError, load_record, record_path
from bench.suite import MATCH_KEYS, Grid, MethodEntry, Rule, Suite
from bench.yaml_source import Path_, Problem, Source, SuiteError

PLAN_SCHEMA = 1
Origins = dict[str, str]


@dataclass(frozen=True)
class Entry:
    """One cell that a suite wants, with what tables call it. `skip` is the reason of an exclude rule."""

    id: str
    cell: dict[str, Any]
    dataset: str
    noise: str
    method: str
    seed: int
    title: str
    needs: tuple[str, ...]
    networks: int
    skip: str | None = None
    method_path: str | None = None
    origins: Origins = field(default_factory=dict)

    def label(self) -> str:
        return f"{self.dataset} {self.noise} {self.method} seed {self.seed}"

    def shown(self) -> dict[str, Any]:
        """The entry as `plan.json` and the report take it."""
        return {
            "id": self.id, "dataset": self.dataset, "noise": self.noise, "method": self.method, "seed": self.seed,
            "title": self.title, "needs": list(self.needs), "networks": self.networks, "skip": self.skip,
        }  # fmt: skip


@dataclass(frozen=True)
class Plan:
    suite: Suite
    entries: list[Entry]
    sources: dict[str, str]
    notes: list[str]

    def manifest(self) -> dict[str, Any]:
        """What `bench status` and `bench table` read, so that they need no torch to know what the suite wants."""
        entries = [entry.shown() for entry in self.entries]
        return {"schema": PLAN_SCHEMA, "suite": self.suite.name, "sources": self.sources, "entries": entries}


@dataclass(frozen=True)
class Overrides:
    """What the command line asks for: `only` axis -> values, `set` dotted key -> value, seeds."""

    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] | None = None

    def digest(self) -> str | None:
        """Names the set of cells these overrides make, None when they leave the suite's cells as they are."""
        if not self.set and self.seeds is None:
            return None
        text = json.dumps([dict(self.set), list(self.seeds) if self.seeds is not None else None], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def make_plan(suite: Suite, source: Source, overrides: Overrides | None = None) -> Plan:
    """All cells of the suite, in its order. Raises `SuiteError` with every fault found."""
    return _Planner(suite, source, overrides or Overrides()).plan()


class _Planner:
    def __init__(self, suite: Suite, source: Source, overrides: Overrides) -> None:
        self.suite, self.source, self.overrides = suite, source, overrides
        self.problems: list[Problem] = []
        self.used_rules: set[int] = set()
        self.used_excludes: set[int] = set()
        self.used_set: set[str] = set()
        self.notes: list[str] = []
        self.rules_on_seed = any("seed" in rule.match for rule in [*suite.where, *suite.exclude])

    def plan(self) -> Plan:
        entries: list[Entry] = []
        for number, block in enumerate(self.suite.blocks()):
            prefix: Path_ = ("grids", number) if self.suite.grids else ()
            entries.extend(self._block(block, prefix))
        self._check_rules()
        self._check_overrides(entries)
        self._check_duplicates(entries)
        if self.problems:
            raise SuiteError(list({str(problem): problem for problem in self.problems}.values()))
        entries = [entry for entry in entries if _selected(entry, self.overrides.only)]
        if not entries:
            chosen = "; ".join(f"{axis}={','.join(values)}" for axis, values in self.overrides.only.items())
            raise SuiteError([Problem(str(self.source.path), None, "", f"no cell matches --only {chosen}")])
        return Plan(self.suite, entries, self.source.files, self.notes)

    def _block(self, block: Grid, prefix: Path_) -> Iterator[Entry]:
        from bench.data import dataset_class
        from bench.noise import noise_class, noise_identity, parse_short, short_form

        seeds = list(self.overrides.seeds) if self.overrides.seeds is not None else list(block.seeds or [0])
        for d, wanted in enumerate(block.datasets or []):
            at_dataset = self._at("datasets", prefix, d)
            dataset = self._guard(at_dataset, lambda wanted=wanted: _dataset(wanted))
            if dataset is None:
                continue
            data_cls = dataset_class(dataset["name"])
            shown_dataset = dataset["name"] + _differences(dataset, data_cls.identity({}), skip=("name", "revision"))
            for n, noise_wanted in enumerate(block.noises or []):
                at_noise = self._at("noises", prefix, n)
                noise = self._guard(
                    at_noise,
                    lambda w=noise_wanted: noise_identity(parse_short(w) if isinstance(w, str) else w),
                )
                if noise is None:
                    continue
                misfit = noise_class(noise["kind"]).misfit(data_cls)
                if misfit:
                    self.problems.append(self.source.problem(at_noise, f"{noise['kind']} noise does not fit: {misfit}"))
                    continue
                for m, entry in enumerate(block.methods or []):
                    facts = {
                        "dataset": dataset["name"], "noise": noise["kind"], "rate": noise.get("rate", 0.0),
                        "noise_label": short_form(noise), "dataset_label": shown_dataset,
                    }  # fmt: skip
                    yield from self._cells(block, prefix, m, entry, dataset, noise, facts, seeds)

    def _cells(
        self, block: Grid, prefix: Path_, m: int, entry: MethodEntry, dataset: dict, noise: dict, facts: dict, seeds: list[int]
    ) -> Iterator[Entry]:
        from bench.method import method_class

        where = self._at("methods", prefix, m)
        cls = self._guard((*where, "method"), lambda: method_class(entry.method, self.source.path.parent))
        model = self._guard(self._at("model", prefix), lambda: _model(self._model_with_overrides(block.model or {})))
        if cls is None or model is None:
            return
        if entry.recipe is not None and entry.recipe not in {recipe.name for recipe in cls.recipes}:
            known = {recipe.name for recipe in cls.recipes}
            message = f"{cls.slug} has no recipe {entry.recipe!r}"
            self.problems.append(self.source.problem((*where, "recipe"), message, nearest(entry.recipe, known)))
            return
        facts = {**facts, "model": model["name"], "method": cls.slug, "label": entry.label or _auto_label(cls.slug, entry)}
        path = None
        if entry.method.endswith(".py") or "/" in entry.method:
            path = str((self.source.path.parent / entry.method).resolve())
        shared = None
        for seed in seeds:
            if shared is None or self.rules_on_seed:
                shared = self._resolve(cls, entry, where, block, prefix, {**facts, "seed": seed})
                if shared is None:
                    return
            params, training, protocol, needs, origins = shared
            cell = {
                "dataset": dataset, "noise": noise,
                "method": {"name": cls.slug, "version": cls.version, "params": params},
                "model": model, "training": training, "protocol": protocol, "seed": seed,
            }  # fmt: skip
            yield Entry(
                id=cell_id(cell), cell=cell, dataset=facts["dataset_label"], noise=facts["noise_label"], method=facts["label"],
                seed=seed, title=entry.label or _title(cls, entry), needs=needs, networks=cls.networks,
                skip=self._excluded({**facts, "seed": seed}), method_path=path, origins=origins,
            )  # fmt: skip

    def _resolve(self, cls: Any, entry: MethodEntry, where: Path_, block: Grid, prefix: Path_, facts: dict) -> tuple | None:
        """Method fields, training and protocol with the origin of each value; None when something is wrong."""
        from bench.learner import Training
        from bench.trial.evaluate import Protocol

        values: dict[str, Any] = {}
        origins: Origins = {}

        def put(key: str, value: Any, origin: str) -> None:
            values[key], origins[key] = value, origin

        policy = entry.recipe or {"matched": "fixed", "none": ""}.get(self.suite.policy, self.suite.policy)
        for recipe in cls.recipes:
            if recipe.name == policy and recipe.matches(facts):
                for key, value in recipe.set.items():
                    if not (key.startswith("training.") and self.suite.policy == "matched"):
                        put(key if "." in key else f"params.{key}", value, f"recipe {recipe.name}: {recipe.source}")
        layers: list[tuple[Mapping[str, Any], str, Path_]] = [
            (self.suite.training, "training", ("training",)),
            (self.suite.protocol, "protocol", ("protocol",)),
            (block.training, "training", (*prefix, "training")),
            (entry.training, "training", (*where, "training")),
            (entry.params, "params", (*where, "params")),
        ]
        for mapping, section, path in layers:
            for key, value in mapping.items():
                put(f"{section}.{key}", value, self._origin((*path, key)))
        for number, rule in enumerate(self.suite.where):
            if _matches(rule.match, facts):
                self._apply_rule(number, rule, cls, put)
        for key, value in self.overrides.set.items():
            target = _own_key(key, cls)
            if target is not None:
                self.used_set.add(key)
                put(target, value, "command line")

        result = []
        for section, owner in (("params", cls), ("training", Training), ("protocol", Protocol)):
            given = {key.split(".", 1)[1]: value for key, value in values.items() if key.startswith(section + ".")}
            try:
                resolved = owner.identity(given)
            except FieldError as error:
                self._field_problem(error, section, where, origins.get(f"{section}.{error.key}", ""))
                return None
            for name in resolved:
                origins.setdefault(f"{section}.{name}", "class default")
            result.append(resolved)
        params, training, protocol = result
        needs = tuple(sorted(cls(**params).needs))
        for need in needs:
            if need in self.suite.forbid_needs:
                message = f"{cls.slug} needs {need}, which this suite forbids"
                hint = f"remove the method, or take {need} out of forbid_needs"
                self.problems.append(self.source.problem(where, message, hint))
        return params, training, protocol, needs, origins

    def _apply_rule(self, number: int, rule: Rule, cls: Any, put: Any) -> None:
        for key, value in rule.set.items():
            target = _own_key(key, cls)
            if target is not None:
                self.used_rules.add(number)
                put(target, value, self._origin(("where", number, "set", key)))

    def _model_with_overrides(self, model: dict[str, Any]) -> dict[str, Any]:
        changes = {key[len("model.") :]: value for key, value in self.overrides.set.items() if key.startswith("model.")}
        self.used_set |= {key for key in self.overrides.set if key.startswith("model.")}
        if "name" in changes and changes["name"] != model.get("name"):
            model = {}
        return {**model, **changes}

    def _excluded(self, facts: dict[str, Any]) -> str | None:
        reason = None
        for number, rule in enumerate(self.suite.exclude):
            if _matches(rule.match, facts):
                self.used_excludes.add(number)
                reason = rule.reason
        return reason

    # -- places and problems -----------------------------------------------------------------------------------------
    def _at(self, axis: str, prefix: Path_, *rest: Any) -> Path_:
        """Where an axis stands: in the grid itself if it has one, else at the top of the suite."""
        own = (*prefix, axis)
        return (*own, *rest) if own in self.source.lines else (axis, *rest)

    def _origin(self, path: Path_) -> str:
        file, line = self.source.where(path)
        return f"{Path(file).name}:{line}" if line else Path(file).name

    def _guard(self, path: Path_, build: Any) -> Any:
        try:
            return build()
        except FieldError as error:
            file, line = self.source.where((*path, error.key))
            key = error.key if error.key in ("method", "dataset", "noise", "model") else f"{error.key}"
            self.problems.append(Problem(file, line, key, error.message, error.hint))
            return None

    def _field_problem(self, error: FieldError, section: str, where: Path_, origin: str) -> None:
        if origin == "command line":
            self.problems.append(Problem("--set", None, f"{section}.{error.key}", error.message, error.hint))
            return
        if origin.startswith("recipe"):
            self.problems.append(self.source.problem(where, f"{origin}: {error}"))
            return
        file, _, line = origin.partition(":")
        path: Path_ = (*where, section, error.key)
        shown, known_line = self.source.where(path if path in self.source.lines else (section, error.key))
        number = int(line) if line.isdigit() else known_line
        self.problems.append(Problem(shown, number, f"{section}.{error.key}", error.message, error.hint))

    def _check_rules(self) -> None:
        if self.problems:
            return  # a rule may only seem unused because its cells could not be resolved
        for number, rule in enumerate(self.suite.where):
            if number not in self.used_rules:
                keys = ", ".join(rule.set)
                message = f"this rule sets {keys} on no cell"
                hint = "keys are params.<field>, <method>.<field>, training.<field>, protocol.<field>; check `match` too"
                self.problems.append(self.source.problem(("where", number), message, hint))
        for number in range(len(self.suite.exclude)):
            if number not in self.used_excludes:
                self.problems.append(self.source.problem(("exclude", number), "this rule matches no cell", "check `match`"))
        for number, need in enumerate(self.suite.forbid_needs):
            from bench.method import NEEDS

            if need not in NEEDS:
                problem = self.source.problem(("forbid_needs", number), f"unknown need {need!r}", nearest(need, NEEDS))
                self.problems.append(problem)

    def _check_overrides(self, entries: list[Entry]) -> None:
        if self.problems:
            return
        for key in self.overrides.set:
            if key not in self.used_set:
                hint = "keys are params.<field>, <method>.<field>, training.<field>, protocol.<field>, model.<field>"
                known = sorted({name for entry in entries for name in entry.origins})
                self.problems.append(Problem("--set", None, key, "sets nothing in this suite", nearest(key, known) + "; " + hint))
        for axis, values in self.overrides.only.items():
            if axis not in MATCH_KEYS:
                self.problems.append(Problem("--only", None, axis, "unknown axis", nearest(axis, MATCH_KEYS)))
                continue
            for value in values:
                if not any(_selected(entry, {axis: [value]}) for entry in entries):
                    known = sorted({str(_axis_values(entry, axis)[0]) for entry in entries})
                    problem = Problem("--only", None, axis, f"no cell has {axis} {value!r}", nearest(value, known))
                    self.problems.append(problem)

    def _check_duplicates(self, entries: list[Entry]) -> None:
        seen: dict[tuple, Entry] = {}
        for entry in entries:
            key = (entry.dataset, entry.noise, entry.method, entry.seed)
            if key in seen:
                same = "the same cell stands here twice" if seen[key].id == entry.id else "two rows have the same label"
                hint = "remove one of them" if seen[key].id == entry.id else "give one of them a `label`"
                self.problems.append(Problem(str(self.source.path), None, entry.label(), same, hint))
            seen[key] = entry
        shared = sum(count - 1 for count in Counter(entry.id for entry in entries).values())
        if shared and not self.problems:
            self.notes.append(f"{shared} rows share a cell with another row and are run once")


def _dataset(wanted: dict[str, Any]) -> dict[str, Any]:
    from bench.data import dataset_class

    if "name" not in wanted:
        raise FieldError("dataset", "a data set needs a name")
    cls = dataset_class(wanted["name"])
    fields = cls.identity({key: value for key, value in wanted.items() if key != "name"})
    return {"name": cls.slug, "revision": cls.revision, **fields}


def _model(wanted: dict[str, Any]) -> dict[str, Any]:
    from bench.models import model_class

    if "name" not in wanted:
        raise FieldError("model", "a model needs a name")
    cls = model_class(wanted["name"])
    return {"name": cls.slug, **cls.identity({key: value for key, value in wanted.items() if key != "name"})}


def _own_key(key: str, cls: Any) -> str | None:
    """The section key that an override key means for this method, None when it is not for this method."""
    section, dot, name = key.partition(".")
    if not dot:
        return None
    if section in ("training", "protocol"):
        return key
    if section == "params":
        return key if name in cls.fields() else None
    return f"params.{name}" if section == cls.slug else None


def _matches(match: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    return all(_value_matches(key, wanted, facts) for key, wanted in match.items())


def _value_matches(key: str, wanted: Any, facts: Mapping[str, Any]) -> bool:
    options = wanted if isinstance(wanted, list) else [wanted]
    names = {
        "noise": (facts["noise"], facts["noise_label"]),
        "method": (facts["method"], facts["label"]),
        "dataset": (facts["dataset"], facts["dataset_label"]),
    }.get(key, (facts.get(key),))
    return any(option in names for option in options)


def _axis_values(entry: Entry, axis: str) -> tuple[str, ...]:
    cell = entry.cell
    values: dict[str, tuple[Any, ...]] = {
        "dataset": (entry.dataset, cell["dataset"]["name"]), "noise": (entry.noise, cell["noise"]["kind"]),
        "rate": (cell["noise"].get("rate", 0.0),), "method": (entry.method, cell["method"]["name"]),
        "seed": (entry.seed,), "model": (cell["model"]["name"],),
    }  # fmt: skip
    return tuple(str(value) for value in values[axis])


def _selected(entry: Entry, only: Mapping[str, Sequence[str]]) -> bool:
    return all(any(value in _axis_values(entry, axis) for value in values) for axis, values in only.items())


def _differences(values: Mapping[str, Any], defaults: Mapping[str, Any], skip: Sequence[str] = ()) -> str:
    changed = [f"{key}={value}" for key, value in values.items() if key not in skip and value != defaults.get(key)]
    return f" ({', '.join(changed)})" if changed else ""


def _auto_label(slug: str, entry: MethodEntry) -> str:
    parts = [f"{key}={value}" for key, value in {**entry.params, **entry.training}.items()]
    parts += [entry.recipe] if entry.recipe else []
    return slug + (f" ({', '.join(parts)})" if parts else "")


def _title(cls: Any, entry: MethodEntry) -> str:
    return (cls.title or cls.slug) + _auto_label("", entry)


# -- states ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Scan:
    """What the results folder holds of a plan: records by id, corrupt files by id, and the state of every cell."""

    records: dict[str, dict[str, Any]]
    corrupt: dict[str, str]
    states: dict[str, str]

    def counts(self) -> dict[str, int]:
        return dict(Counter(self.states.values()))


def scan(entries: Sequence[Mapping[str, Any]], folder: Path) -> Scan:
    """States by id: done, failed, diverged, skipped, missing, or corrupt (the message of the loader is kept)."""
    records: dict[str, dict[str, Any]] = {}
    corrupt: dict[str, str] = {}
    states: dict[str, str] = {}
    for entry in entries:
        identity = entry["id"]
        if identity in states and states[identity] != "skipped":
            continue
        path = record_path(folder, identity)
        if entry["skip"]:
            states[identity] = "skipped"
        elif not path.exists():
            states[identity] = "missing"
        else:
            try:
                records[identity] = load_record(path)
                states[identity] = records[identity]["status"]
            except RecordError as error:
                corrupt[identity], states[identity] = str(error), "corrupt"
    return Scan(records, corrupt, states)
