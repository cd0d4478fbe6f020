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
from typing import TYPE_CHECKING, Any

from bench.cell import cell_id
from bench.fields import FieldError, nearest
from bench.records import RecordError, load_record, record_files, record_path
from bench.suite import MATCH_KEYS, Grid, MethodEntry, Rule, Suite
from bench.yaml_source import Path_, Problem, Source, SuiteError

if TYPE_CHECKING:
    from bench.noise import PlannedNoise

PLAN_SCHEMA = 1
_KEYS = "params.<field>, <method>.<field>, training.<field>, protocol.<field>"
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
    #: the nominal rate that rules match on, and where label files are: sha256 of the vector -> path or path#key
    rate: float = 0.0
    noise_files: dict[str, str] = field(default_factory=dict)
    #: where its method, noise, data set and seed stand in the suite
    places: tuple[Path_, ...] = ()

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
    overrides: Overrides

    def manifest(self) -> dict[str, Any]:
        """What `bench status` and `bench table` read, so that they need no torch to know what the suite wants."""
        entries = [entry.shown() for entry in self.entries]
        head = {"schema": PLAN_SCHEMA, "suite": self.suite.name, "sources": self.sources}
        if self.overrides.digest():
            head["overrides"] = {"set": dict(self.overrides.set), "seeds": self.overrides.seeds}
        return {**head, "entries": entries}


@dataclass(frozen=True)
class Overrides:
    """What the command line asks for: `only` axis -> values, `set` dotted key -> value, seeds."""

    only: Mapping[str, Any] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """From Python a single value need not be a list."""
        only = {axis: list(v) if isinstance(v, (list, tuple, set)) else [v] for axis, v in self.only.items()}
        object.__setattr__(self, "only", only)

    def digest(self) -> str | None:
        """Names the set of cells these overrides make, None when they leave the suite's cells as they are."""
        if not self.set and self.seeds is None:
            return None
        text = json.dumps([dict(self.set), list(self.seeds) if self.seeds is not None else None], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def make_plan(
    suite: Suite, source: Source, overrides: Overrides | None = None, data: str | Path | None = None
) -> Plan:
    """All cells of the suite, in its order. Raises `SuiteError` with every fault found.

    `data` is the data folder (`bench.data.data_root` where None): label files are looked for beside the suite, then there.
    """
    return _Planner(suite, source, overrides or Overrides(), data).plan()


class _Planner:
    def __init__(self, suite: Suite, source: Source, overrides: Overrides, data: str | Path | None) -> None:
        from bench.data import data_root

        self.suite, self.source, self.overrides = suite, source, overrides
        self.folders = (source.path.parent, data_root(data))
        self.problems: list[Problem] = []
        self.used_rules: set[tuple[int, str]] = set()  # (number of the rule, key)
        self.used_excludes: set[int] = set()
        self.used_set: set[str] = set()
        self.notes: dict[str, None] = {}  # a set that keeps its order
        self.classes: dict[str, Any] = {}
        self.rules_on_seed = any("seed" in rule.match for rule in suite.where)

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
        entries = self._selected(entries)
        if not entries:
            chosen = "; ".join(f"{axis}={','.join(map(str, values))}" for axis, values in self.overrides.only.items())
            raise SuiteError([Problem(str(self.source.path), None, "", f"no cell matches --only {chosen}")])
        return Plan(self.suite, entries, self.source.relative_files(), list(self.notes), self.overrides)

    def _block(self, block: Grid, prefix: Path_) -> Iterator[Entry]:
        from bench.data import dataset_class
        from bench.noise import noise_class

        seeds = list(self.overrides.seeds) if self.overrides.seeds is not None else list(block.seeds or [0])
        model = self._model(block, prefix)
        for d, wanted in enumerate(block.datasets or []):
            at_dataset = self._at("datasets", prefix, d)
            dataset = self._guard(at_dataset, lambda wanted=wanted: _dataset(wanted, self.folders[1]))
            if dataset is None:
                continue
            data_cls = dataset_class(dataset["name"])
            shown_dataset = dataset["name"] + _differences(dataset, data_cls.identity({}), skip=("name", "revision"))
            for n, noise_wanted in enumerate(block.noises or []):
                at_noise = self._at("noises", prefix, n)
                planned = self._guard(at_noise, lambda wanted=noise_wanted: _noise(wanted, self.folders))
                if planned is None:
                    continue
                noise = planned.identity
                misfit = noise_class(noise["kind"]).misfit(data_cls, noise)
                if misfit:
                    self.problems.append(self.source.problem(at_noise, f"{noise['kind']} noise does not fit: {misfit}"))
                    continue
                for m, entry in enumerate(block.methods or []):
                    facts = {
                        "dataset": dataset["name"], "noise": noise["kind"], "rate": planned.rate,
                        "noise_label": planned.label, "dataset_label": shown_dataset, "noise_files": planned.files,
                    }  # fmt: skip
                    where = self._at("methods", prefix, m)
                    cls = self._method(entry, where)
                    if cls is not None and model is not None:
                        axes = {"dataset": dataset, "noise": noise, "model": model}
                        places = (where, at_noise, at_dataset)
                        yield from self._cells(block, prefix, cls, entry, axes, facts, seeds, places)

    def _cells(
        self,
        block: Grid,
        prefix: Path_,
        cls: Any,
        entry: MethodEntry,
        axes: dict[str, dict],
        facts: dict,
        seeds: list[int],
        places: tuple[Path_, ...],
    ) -> Iterator[Entry]:
        """One row under one noise: a cell per seed. `places`: where its method, noise and data set stand."""
        where = places[0]
        if entry.recipe is not None and entry.recipe not in {recipe.name for recipe in cls.recipes}:
            known = {recipe.name for recipe in cls.recipes}
            message = f"{cls.slug} has no recipe {entry.recipe!r}"
            self.problems.append(self.source.problem((*where, "recipe"), message, nearest(entry.recipe, known)))
            return
        label = entry.label or _auto_label(cls.slug, entry)
        facts = {**facts, "model": axes["model"]["name"], "method": cls.slug, "label": label}
        path = None
        if entry.method.endswith(".py") or "/" in entry.method:
            path = str((self.source.path.parent / entry.method).resolve())
        shared = None
        for number, seed in enumerate(seeds):
            if shared is None or self.rules_on_seed:
                shared = self._resolve(cls, entry, where, block, prefix, {**facts, "seed": seed})
                if shared is None:
                    return
            params, training, protocol, needs, origins = shared
            method = {"name": cls.slug, "version": cls.version, "params": params}
            cell = {**axes, "method": method, "training": training, "protocol": protocol, "seed": seed}
            yield Entry(
                id=cell_id(cell), cell=cell, dataset=facts["dataset_label"], noise=facts["noise_label"], method=label,
                seed=seed, title=entry.label or _title(cls, entry), needs=needs, networks=cls.networks,
                skip=self._excluded({**facts, "seed": seed}), method_path=path, origins=origins, rate=facts["rate"],
                noise_files=facts["noise_files"],
                places=(*places, self._at("seeds", prefix, number)),
            )  # fmt: skip

    def _resolve(
        self, cls: Any, entry: MethodEntry, where: Path_, block: Grid, prefix: Path_, facts: dict
    ) -> tuple | None:
        """Method fields, training and protocol with the origin of each value; None when something is wrong."""
        from bench.training import Training
        from bench.trial.evaluate import Protocol

        values: dict[str, Any] = {}
        origins: Origins = {}
        places: dict[str, Path_] = {}

        def put(key: str, value: Any, origin: str, place: Path_ = ()) -> None:
            values[key], origins[key], places[key] = value, origin, place

        policy = entry.recipe or {"matched": "fixed", "none": ""}.get(self.suite.policy, self.suite.policy)
        recipes = [recipe for recipe in cls.recipes if recipe.name == policy and recipe.matches(facts)]
        if not recipes and (entry.recipe or policy == "paper"):
            note = f"{facts['label']} on {facts['dataset']}: no recipe {policy!r} matches, class defaults are used"
            self.notes[note] = None
        for recipe in recipes:
            for key, value in recipe.set.items():
                if entry.recipe or self.suite.policy != "matched" or not key.startswith("training."):
                    put(key if "." in key else f"params.{key}", value, f"recipe {recipe.name}: {recipe.source}", where)
        layers: list[tuple[Mapping[str, Any], str, Path_]] = [
            (self.suite.training, "training", ("training",)),
            (self.suite.protocol, "protocol", ("protocol",)),
            (block.training, "training", (*prefix, "training")),
            (entry.training, "training", (*where, "training")),
            (entry.params, "params", (*where, "params")),
        ]
        for mapping, section, path in layers:
            for key, value in mapping.items():
                put(f"{section}.{key}", value, self._origin((*path, key)), (*path, key))
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
                key = f"{section}.{error.key}"
                self._field_problem(error, key, origins.get(key, "class default"), places.get(key, where))
                return None
            for name in resolved:
                origins.setdefault(f"{section}.{name}", "class default")
            result.append(resolved)
        params, training, protocol = result
        needs = self._guard(where, lambda: _needs(cls, params))
        if needs is None:
            return None
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
                self.used_rules.add((number, key))
                path = ("where", number, "set", key)
                put(target, value, self._origin(path), path)

    def _method(self, entry: MethodEntry, where: Path_) -> Any:
        """The class of a row, looked up once per name."""
        from bench.method import method_class

        if entry.method not in self.classes:
            found = self._guard((*where, "method"), lambda: method_class(entry.method, self.source.path.parent))
            self.classes[entry.method] = found
        return self.classes[entry.method]

    def _model(self, block: Grid, prefix: Path_) -> dict[str, Any] | None:
        """The model axis of a grid with the overrides applied."""
        model = block.model or {}
        changes = {key[len("model.") :]: value for key, value in self.overrides.set.items() if key.startswith("model.")}
        self.used_set |= {f"model.{name}" for name in changes}
        if "name" in changes and changes["name"] != model.get("name"):
            model = {}
        try:
            return _model({**model, **changes})
        except FieldError as error:
            name = "name" if error.key == "model" else error.key
            origin = "command line" if name in changes else ""
            self._field_problem(error, f"model.{name}", origin, self._at("model", prefix, name))
            return None

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
            place = path if error.key in ("method", "dataset", "noise", "needs") else (*path, error.key)
            self.problems.append(self.source.problem(place, error.message, error.hint))
            return None

    def _field_problem(self, error: FieldError, key: str, origin: str, place: Path_) -> None:
        if origin == "command line":
            self.problems.append(Problem("--set", None, key, error.message, error.hint))
        elif origin.startswith("recipe") or origin == "class default":
            self.problems.append(self.source.problem(place, f"{key} ({origin}): {error.message}", error.hint))
        else:
            self.problems.append(self.source.problem(place, error.message, error.hint))

    def _check_rules(self) -> None:
        if self.problems:
            return  # a rule may only seem unused because its cells could not be resolved
        for number, rule in enumerate(self.suite.where):
            unused = [key for key in rule.set if (number, key) not in self.used_rules]
            if (unused or not rule.set) and not self._moot(rule.match):
                message = f"this rule sets {', '.join(unused) or 'nothing'} on no cell"
                hint = f"keys are {_KEYS}; check `match` too"
                self.problems.append(self.source.problem(("where", number, "set", *unused[:1]), message, hint))
        for number, exclude in enumerate(self.suite.exclude):
            if number not in self.used_excludes and not self._moot(exclude.match):
                message = "this rule matches no cell"
                self.problems.append(self.source.problem(("exclude", number), message, "check `match`"))
        for number, need in enumerate(self.suite.forbid_needs):
            from bench.method import NEEDS

            if need not in NEEDS:
                problem = self.source.problem(("forbid_needs", number), f"unknown need {need!r}", nearest(need, NEEDS))
                self.problems.append(problem)

    def _moot(self, match: Mapping[str, Any]) -> bool:
        """Whether a rule may match nothing because the command line replaced what it matches on."""
        model = any(key.startswith("model.") for key in self.overrides.set)
        return ("seed" in match and self.overrides.seeds is not None) or ("model" in match and model)

    def _check_overrides(self, entries: list[Entry]) -> None:
        if self.problems:
            return
        for key in self.overrides.set:
            if key not in self.used_set:
                hint = f"keys are {_KEYS}, model.<field>"
                known = {name for entry in entries for name in entry.origins}
                known |= {f"{cls.slug}.{name}" for cls in self.classes.values() for name in cls.fields()}
                hint = f"{nearest(key, known)}; {hint}"
                self.problems.append(Problem("--set", None, key, "sets nothing in this suite", hint))

    def _selected(self, entries: list[Entry]) -> list[Entry]:
        """The entries that `--only` keeps. A value that no cell has is an error."""
        for axis, values in self.overrides.only.items():
            if axis not in MATCH_KEYS:
                raise SuiteError([Problem("--only", None, axis, "unknown axis", nearest(axis, MATCH_KEYS))])
            shown = {name: None for entry in entries for name in _axis_names(entry, axis)}
            for value in values:
                if not any(_same(value, name) for name in shown):
                    hint = nearest(str(value), map(str, shown))
                    raise SuiteError([Problem("--only", None, axis, f"no cell has {axis} {str(value)!r}", hint)])
            kept = {name for name in shown if any(_same(value, name) for value in values)}
            entries = [entry for entry in entries if kept.intersection(_axis_names(entry, axis))]
        return entries

    def _check_duplicates(self, entries: list[Entry]) -> None:
        seen: dict[tuple, Entry] = {}
        faults: dict[Path_, Problem] = {}  # one per place, however many cells it makes
        for entry in entries:
            first = seen.setdefault((entry.dataset, entry.noise, entry.method, entry.seed), entry)
            if first is entry:
                continue
            at, at_first = next(pair for pair in zip(entry.places, first.places, strict=True) if pair[0] != pair[1])
            same, hint = "the same cell stands here twice", "remove one of them"
            if first.id != entry.id:
                same, hint = "two rows have the same label", "give one of them a `label`"
            message = f"{same}: {entry.label()}; the first is in {self._origin(at_first)}"
            faults.setdefault(at, self.source.problem(at, message, hint))
        self.problems += faults.values()
        shared = len(entries) - len({entry.id for entry in entries})
        if shared and not self.problems:
            self.notes[f"{shared} rows share a cell with another row and are run once"] = None


def _dataset(wanted: dict[str, Any], root: Path) -> dict[str, Any]:
    """The data set axis; `root` is the data folder, which some data sets have to look into to know what they are."""
    from bench.data import dataset_class

    if "name" not in wanted:
        raise FieldError("dataset", "a data set needs a name")
    cls = dataset_class(wanted["name"])
    if cls.evaluation_only:
        raise FieldError("dataset", f"{cls.slug} is a test set, nothing can be trained on it")
    resolved = cls.resolve({key: value for key, value in wanted.items() if key != "name"})
    return {"name": cls.slug, "revision": cls.revision, **cls.identity(cls.planned(resolved, root))}


def _noise(wanted: str | dict[str, Any], folders: Sequence[Path]) -> PlannedNoise:
    """`folders`: where the relative paths of label files begin."""
    from bench.noise import plan_noise

    if isinstance(wanted, dict) and "version" in wanted:
        raise FieldError("version", "the version of a noise is the code's, it cannot be chosen", "remove it")
    return plan_noise(wanted, folders)


def _needs(cls: Any, params: dict[str, Any]) -> tuple[str, ...]:
    from bench.method import NEEDS

    needs = cls(**params).needs
    if isinstance(needs, str) or not set(needs) <= set(NEEDS):
        raise FieldError("needs", f"{cls.slug} declares needs = {needs!r}", "a set of names among " + ", ".join(NEEDS))
    return tuple(sorted(needs))


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
    return any(_same(option, name) for option in options for name in names)


def _same(wanted: Any, name: Any) -> bool:
    """Whether a value of `match` or `--only` names this value of a cell; numbers may be written in any way."""
    if isinstance(name, (int, float)):
        try:
            return not isinstance(wanted, bool) and float(wanted) == name
        except (TypeError, ValueError, OverflowError):
            return False
    return bool(wanted == name)


def _axis_names(entry: Entry, axis: str) -> tuple[Any, ...]:
    """What `--only` may call this entry's value on an axis, the label of the table first."""
    if axis == "dataset":
        return entry.dataset, entry.cell["dataset"]["name"]
    if axis == "noise":
        return entry.noise, entry.cell["noise"]["kind"]
    if axis == "rate":
        return (entry.rate,)
    if axis == "method":
        return entry.method, entry.cell["method"]["name"]
    return (entry.seed,) if axis == "seed" else (entry.cell["model"]["name"],)


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
    present = {path.stem for path in record_files(folder)}
    for entry in entries:
        identity = entry["id"]
        if identity in states and states[identity] != "skipped":
            continue
        if entry["skip"]:
            states[identity] = "skipped"
        elif identity not in present:
            states[identity] = "missing"
        else:
            try:
                records[identity] = load_record(record_path(folder, identity))
                states[identity] = records[identity]["status"]
            except RecordError as error:
                corrupt[identity], states[identity] = str(error), "corrupt"
    return Scan(records, corrupt, states)
