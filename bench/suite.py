"""The suite file: schema and strict validation. What it expands to is the plan's business (`bench.plan`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bench.fields import FieldError, nearest
from bench.kinds import check as check_kind
from bench.report.spec import SpecError, TableSpec
from bench.watch import Watch
from bench.watch import parse as parse_watch
from bench.yaml_source import Path_, Problem, Source, SuiteError, read

#: cell fields that `where`, `exclude` and `--only` can match on
MATCH_KEYS = ("dataset", "noise", "rate", "method", "seed", "model")
MAX_SEEDS = 10_000


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def seed_list(value: Any) -> Any:
    """A number N is the first N seeds, 0 to N-1: in a suite, on the command line, from Python."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MAX_SEEDS:
            alone = f"; the seed {value} alone is [{value}]" if value >= 0 else ", and a seed is 0 or more"
            raise ValueError(f"a number of seeds is 1 to {MAX_SEEDS}{alone}")
        return list(range(value))
    return list(value) if isinstance(value, (tuple, range)) else value


def _method(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


def _mapping(value: Any) -> Any:
    return {} if value is None else value


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MethodEntry(_Strict):
    """One row: a slug or the path of a Python file, with what this suite sets about it."""

    method: str
    label: str | None = None
    recipe: str | None = None
    params: dict[str, Any] = {}
    training: dict[str, Any] = {}


class Rule(_Strict):
    """Cells that match get these values; of several matching rules the last wins."""

    match: dict[str, Any]
    set: dict[str, Any]


class Exclude(_Strict):
    match: dict[str, Any]
    reason: Annotated[str, Field(min_length=1)]


class Share(_Strict):
    """What cells of one method occupy, where it is not what the others do."""

    cpu: Annotated[float, Field(gt=0)] | None = None
    gpu: Annotated[float, Field(ge=0)] | None = None
    memory: Annotated[float, Field(gt=0)] | None = None


class Resources(_Strict):
    """Where and how cells run. Nothing here enters a cell's identity."""

    cpu: Annotated[float, Field(gt=0)] = 1.0
    gpu: Annotated[float, Field(ge=0)] = 0.0
    #: GiB that Ray sets aside for a cell; `measured`: what earlier records of its method, data set and model say
    memory: Annotated[float, Field(gt=0)] | Literal["measured"] | None = None
    #: slug or label -> what its cells occupy instead
    methods: dict[str, Share] = {}
    time_limit: Annotated[float, Field(gt=0)] | None = None
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 30.0
    #: epochs, counted from 1, that a checkpoint follows as well
    checkpoint_epochs: Annotated[list[Annotated[int, Field(ge=1, strict=True)]], BeforeValidator(_as_list)] = []
    #: a folder, or an address such as s3://bucket/folder, that checkpoints go to; the results folder where none is given
    checkpoint_dir: Annotated[str, Field(min_length=1)] | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = False
    compile: Literal["off", "default", "cuda-graphs"] = "off"
    deterministic: bool = False
    tf32: bool = False

    def share(self, *names: str) -> tuple[float, float, float | None]:
        """(CPUs, GPUs, GiB or None) of a method that has these names; of several, the last that is listed counts."""
        own = [self.methods[name] for name in names if name in self.methods]
        cpu = next((one.cpu for one in reversed(own) if one.cpu is not None), self.cpu)
        gpu = next((one.gpu for one in reversed(own) if one.gpu is not None), self.gpu)
        memory = self.memory if isinstance(self.memory, float) else None
        return cpu, gpu, next((one.memory for one in reversed(own) if one.memory is not None), memory)


Noises = Annotated[list[str | dict[str, Any]], BeforeValidator(_as_list), Field(min_length=1)]
Named = Annotated[dict[str, Any], BeforeValidator(_named)]
Datasets = Annotated[list[Named], BeforeValidator(_as_list), Field(min_length=1)]
Row = Annotated[MethodEntry, BeforeValidator(_method)]
Methods = Annotated[list[Row], BeforeValidator(_as_list), Field(min_length=1)]
Seeds = Annotated[list[Annotated[int, Field(ge=0, strict=True)]], BeforeValidator(seed_list), Field(min_length=1)]


class Grid(_Strict):
    """One block of the product data sets x noises x methods x seeds; what it leaves out comes from the suite."""

    datasets: Datasets | None = None
    noises: Noises | None = None
    methods: Methods | None = None
    seeds: Seeds | None = None
    model: Named | None = None
    training: dict[str, Any] = {}


class Suite(_Strict):
    """A parsed suite. Names and values of methods, data sets, noises and fields are checked by the plan."""

    #: ablation and sensitivity add rows made of `base`; tune searches settings. Which keys each has: `bench.kinds`
    kind: Literal["grid", "ablation", "sensitivity", "tune"] = "grid"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    title: str = ""
    description: str = ""
    datasets: Datasets | None = None
    noises: Noises | None = None
    methods: Methods | None = None
    seeds: Seeds = [0]
    grids: list[Grid] = []
    model: Named = {"name": "tiny-cnn"}
    training: dict[str, Any] = {}
    protocol: dict[str, Any] = {}
    #: which recipes apply: paper (per-cell values included), fixed (no knowledge of the noise), matched (fixed, but
    #: everything under `training` is the suite's own), or none
    policy: Literal["paper", "fixed", "matched", "none"] = "fixed"
    where: list[Rule] = []
    exclude: list[Exclude] = []
    forbid_needs: list[str] = []
    resources: Resources = Resources()
    table: dict[str, Any] = {}
    #: kinds of figure with their options, see `bench.report.plots`
    figures: Any = None
    base: Row | None = None
    variants: dict[str, Annotated[dict[str, Any], BeforeValidator(_mapping)]] = {}
    axes: dict[str, Annotated[list[Any], BeforeValidator(_as_list)]] = {}
    each: bool = False
    search: dict[str, dict[str, dict[str, Any]]] = {}
    #: distinct settings that are tried of every method
    budget: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 1
    searcher: Literal["random", "bayesian"] = "random"
    search_seed: Annotated[int, Field(ge=0, strict=True)] = 0
    #: settings that a Bayesian search proposes at once; its proposals depend on this and not on which trial ends first
    batch: Annotated[int, Field(ge=1, strict=True)] = 4
    tune_seeds: Seeds = [1000]
    #: what chooses: validation accuracy after the last epoch, averaged over the last k, or at the selected epoch
    select: Literal["val_acc_last", "val_acc_last_k", "val_acc_selected"] = "val_acc_last"
    #: one setting per data set (the mean over its noises decides), or one per data set and noise
    per: Literal["dataset", "cell"] = "dataset"
    #: quantities that records are to show, see `bench.watch`
    watch: Any = None

    def blocks(self) -> list[Grid]:
        """The grids with the suite's own axes filled in; one block of those axes when there are no grids."""
        blocks = []
        for grid in self.grids or [Grid()]:
            own = {axis: getattr(grid, axis) for axis in ("datasets", "noises", "methods", "seeds", "model")}
            axes = {axis: getattr(self, axis) if value is None else value for axis, value in own.items()}
            blocks.append(Grid.model_construct(**axes, training=grid.training))
        return blocks

    def kind_facts(self) -> dict[str, Any]:
        """What plan.json says about the kind of the suite; nothing for a grid."""
        from bench.kinds import facts

        return facts(self)

    def watched(self) -> Watch:
        return parse_watch(self.watch)[0]

    def table_spec(self) -> TableSpec:
        return TableSpec.from_dict({"title": self.title, **self.table} if self.title else self.table)


def load_suite(path: Path) -> tuple[Suite, Source]:
    """Parse and validate a suite file. Raises `SuiteError` listing every fault with file, line and key."""
    source = read(Path(path))
    data = {"name": Path(path).stem, **source.data}
    try:
        suite = Suite.model_validate(data)
    except ValidationError as error:
        raise SuiteError(_problems(error, source)) from None
    problems = [
        source.problem(("where", i, "match", key), f"unknown cell field {key!r}", nearest(key, MATCH_KEYS))
        for i, rule in enumerate(suite.where)
        for key in rule.match
        if key not in MATCH_KEYS
    ]
    problems += [
        source.problem(("exclude", i, "match", key), f"unknown cell field {key!r}", nearest(key, MATCH_KEYS))
        for i, rule in enumerate(suite.exclude)
        for key in rule.match
        if key not in MATCH_KEYS
    ]
    for i, grid in enumerate(suite.blocks()):
        for axis in ("datasets", "noises", "methods") if suite.kind == "grid" else ("datasets", "noises"):
            if not getattr(grid, axis):
                where: Path_ = ("grids", i) if suite.grids else ()
                problems.append(source.problem(where, f"the grid is empty: it has no {axis}", f"add `{axis}: [...]`"))
    problems += [source.problem(("watch", *path), message, hint) for path, message, hint in parse_watch(suite.watch)[1]]
    problems += check_kind(suite, source)
    problems += _figure_problems(suite, source)
    try:
        suite.table_spec()
    except SpecError as error:
        problems.append(source.problem(error.path, error.message))
    except ValueError as error:
        key, _, message = str(error).partition(": ")
        problems.append(source.problem(tuple(key.split(".")), message))
    if problems:
        raise SuiteError(problems)
    return suite, source


def _figure_problems(suite: Suite, source: Source) -> list[Problem]:
    if suite.figures is None:
        return []
    from bench.report.plots.spec import validate
    from bench.report.spec import SpecError

    try:
        validate(suite.figures)
    except SpecError as error:
        return [source.problem(error.path, error.message)]
    return []


def _problems(error: ValidationError, source: Source) -> list[Problem]:
    """Our words for what pydantic found: one problem per place, without the names of its own machinery."""
    problems: dict[Path_, Problem] = {}
    for item in error.errors():
        path = tuple(part for part in item["loc"] if part not in ("str", "dict[str,any]"))
        kind, message, hint = item["type"], item["msg"].removeprefix("Value error, "), ""
        if kind == "extra_forbidden":
            message = f"unknown key {path[-1]!r}"
            hint = _section_hint(source, path, item["input"]) or nearest(str(path[-1]), _keys_at(path))
        elif kind == "missing":
            message = f"the key {path[-1]!r} is missing"
        elif kind == "too_short":
            message, hint = "the grid is empty: this list has no entries", "list at least one"
        elif path == ("name",):
            message = f"{item['input']!r} cannot be the name of a suite, which is its folder of results"
            hint = "letters, digits, '.', '_' and '-'; give one with `name:` or rename the file"
        elif kind == "list_type" and path[-1:] in (("seeds",), ("tune_seeds",)):
            message, hint = f"{item['input']!r} is neither a number nor a list", "3 is the first three, [4, 7] are these two"
        elif path in problems:  # a value that fits none of several types
            message = f"{item['input']!r} is neither a name nor a mapping"
        elif kind in ("dict_type", "model_type"):
            what = "neither a name nor a mapping" if {"methods", "datasets", "base"} & set(path[-2:]) else "not a mapping"
            message = "it is empty" if item["input"] is None else f"{item['input']!r} is {what}"
            hint = f"a mapping such as {_EXAMPLES[path[-1]]}" if path[-1] in _EXAMPLES else ""
        elif not isinstance(item["input"], (dict, list)):
            message = f"{item['input']!r}: {message[0].lower()}{message[1:]}"
        problems[path] = source.problem(path, message, hint)
    return list(problems.values())


_EXAMPLES = {
    "training": "{epochs: 60}", "model": "{name: tiny-cnn}, or its name", "protocol": "{last_k: 10}", "resources": "{cpu: 1}",
    "params": "{lam: 1}", "table": "{protocols: [last]}",
}  # fmt: skip


def _section_hint(source: Source, path: Path_, value: Any) -> str:
    """Where a field belongs that stands beside the name of its method; "" for any other unknown key."""
    entry: Any = source.data
    try:
        for part in path[:-1]:
            entry = entry if part == 0 and isinstance(entry, dict) else entry[part]  # one row need not be a list
        name = entry["method"]
        from bench.method import method_class
        from bench.training import Training

        for section, owner in (("params", method_class(name, source.path.parent)), ("training", Training)):
            if path[-1] in owner.fields():
                return f"write it in {section}: {{{path[-1]}: {json.dumps(value)}}}"
    except (KeyError, IndexError, TypeError, AttributeError, ImportError, FieldError):
        pass  # the name of the method is wrong as well, which the plan says
    return ""


_NESTED: dict[Any, type[BaseModel]] = {
    "grids": Grid, "methods": MethodEntry, "base": MethodEntry, "where": Rule, "exclude": Exclude,
    "resources": Resources,
}  # fmt: skip


def _keys_at(path: Path_) -> list[str]:
    """The keys that are valid beside the unknown one."""
    model: type[BaseModel] = Suite
    for part in path[:-1]:
        model = _NESTED.get(part, model)
    names = list(model.model_fields)
    return [*names, "include"] if model is Suite else names
