"""From a suite to its cells: the product of its axes, each row resolved, each cell hashed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.cell import cell_ids
from bench.fields import FieldError, nearest
from bench.plan import checks
from bench.plan.axes import auto_label, differences, resolve_dataset, resolve_model, resolve_noise, row_title
from bench.plan.blocks import Block, Row, make_blocks
from bench.plan.entries import Entry, Overrides, Plan
from bench.plan.match import matches, select
from bench.plan.resolve import Resolved, Resolver
from bench.suite import Suite
from bench.yaml_source import Path_, Problem, Source, SuiteError


def make_plan(
    suite: Suite,
    source: Source,
    overrides: Overrides | None = None,
    data: str | Path | None = None,
    folder: Path | None = None,
) -> Plan:
    """All cells of the suite, in its order. Raises `SuiteError` with every fault found.

    `data` is the data folder (`bench.data.data_root` where None): label files are looked for beside the suite, then there.
    `folder` holds the suite's records: what a search (kind: tune) tries next, and what it chose, depends on them.
    """
    return Planner(suite, source, overrides or Overrides(), data).plan(folder)


class Planner(Resolver):
    def __init__(self, suite: Suite, source: Source, overrides: Overrides, data: str | Path | None) -> None:
        from bench.data import data_root

        super().__init__(suite, source, overrides)
        self.folders = (source.path.parent, data_root(data))
        self.used_excludes: set[int] = set()
        self.classes: dict[str, Any] = {}
        self.rules_on_seed = any("seed" in rule.match for rule in suite.where)

    def plan(self, folder: Path | None) -> Plan:
        from bench.kinds import marked

        blocks = make_blocks(self.suite, self.source, self.overrides)
        search = None
        if self.suite.kind == "tune":
            from bench.tune.plan import planned_search

            entries, search = planned_search(self, blocks, folder)
        else:
            entries = marked(self.suite, [entry for block in blocks for entry in self.entries(block)])
        checks.check(self, entries)
        if self.problems:
            raise SuiteError(list({str(problem): problem for problem in self.problems}.values()))
        entries = select(entries, self.overrides.only)
        if not entries:
            chosen = "; ".join(f"{axis}={','.join(map(str, values))}" for axis, values in self.overrides.only.items())
            raise SuiteError([Problem(str(self.source.path), None, "", f"no cell matches --only {chosen}")])
        return Plan(self.suite, entries, self.source.relative_files(), list(self.notes), self.overrides, search)

    def entries(self, block: Block) -> Iterator[Entry]:
        """The cells of one block; what is wrong goes to `problems`."""
        from bench.data import dataset_class
        from bench.noise import noise_class

        model = self._model(block)
        for wanted, at_dataset in block.datasets:
            dataset = self.guard(at_dataset, lambda wanted=wanted: resolve_dataset(wanted, self.folders[1]))
            if dataset is None:
                continue
            data_cls = dataset_class(dataset["name"])
            shown_dataset = dataset["name"] + differences(dataset, data_cls.identity({}), skip=("name", "revision"))
            for noise_wanted, at_noise in block.noises:
                planned = self.guard(at_noise, lambda wanted=noise_wanted: resolve_noise(wanted, self.folders))
                if planned is None:
                    continue
                noise = planned.identity
                misfit = noise_class(noise["kind"]).misfit(data_cls, noise)
                if misfit:
                    self.problems.append(self.source.problem(at_noise, f"{noise['kind']} noise does not fit: {misfit}"))
                    continue
                facts = {
                    "dataset": dataset["name"], "noise": noise["kind"], "rate": planned.rate,
                    "recipe_noise": planned.recipe_kind or noise["kind"],
                    "noise_label": planned.label, "dataset_label": shown_dataset, "noise_files": planned.files,
                }  # fmt: skip
                for row in block.rows:
                    cls = self.method(row)
                    if cls is not None and model is not None:
                        axes = {"dataset": dataset, "noise": noise, "model": model}
                        yield from self._cells(block, row, cls, axes, facts, (row.place, at_noise, at_dataset))

    def _cells(
        self, block: Block, row: Row, cls: Any, axes: dict[str, dict], facts: dict, places: tuple[Path_, ...]
    ) -> Iterator[Entry]:
        """One row under one noise: a cell per seed. `places`: where its method, noise and data set stand."""
        entry = row.entry
        if entry.recipe is not None and entry.recipe not in {recipe.name for recipe in cls.recipes}:
            known = {recipe.name for recipe in cls.recipes}
            message = f"{cls.slug} has no recipe {entry.recipe!r}"
            self.problems.append(self.source.problem((*row.home, "recipe"), message, nearest(entry.recipe, known)))
            return
        label = entry.label or auto_label(cls.slug, entry)
        known_as = (row.variant or {}).get("of", label)  # rules mean the row, not one setting that a search tries of it
        facts = {**facts, "model": axes["model"]["name"], "method": cls.slug, "label": known_as}
        path = None
        if entry.method.endswith(".py") or "/" in entry.method:
            path = str((self.source.path.parent / entry.method).resolve())
        title = row.title or entry.label or row_title(cls, entry)
        shared: Resolved | None = None
        for seed, at_seed in block.seeds:
            skip = self._excluded({**facts, "seed": seed}) or row.skip
            if shared is None or self.rules_on_seed:
                shared = self.resolve(cls, row, block, {**facts, "seed": seed})
                if shared is None or not (skip or self._needs_met(cls, row, shared.needs, axes["dataset"])):
                    return
                method = {"name": cls.slug, "version": cls.version, "params": shared.params}
                fixed = {**axes, "method": method, "training": shared.training, "protocol": shared.protocol}
                identity = cell_ids(fixed)
            yield Entry(
                id=identity(seed), cell={**fixed, "seed": seed}, dataset=facts["dataset_label"], noise=facts["noise_label"],
                method=label, seed=seed, title=title, needs=shared.needs, networks=cls.networks,
                skip=skip, method_path=path, origins=shared.origins,
                rate=facts["rate"], noise_files=facts["noise_files"], places=(*places, at_seed),
                variant=_variant(row, cls, shared),
            )  # fmt: skip

    def _needs_met(self, cls: Any, row: Row, needs: tuple[str, ...], dataset: dict[str, Any]) -> bool:
        from bench.data import dataset_class

        options = {key: value for key, value in dataset.items() if key not in ("name", "revision")}
        data = dataset_class(dataset["name"])(**options)
        for need in needs:
            reason = data.unmet(need)
            if reason is not None:
                hint = f"exclude: [{{match: {{dataset: {data.slug}, method: {cls.slug}}}, reason: {need} is not known}}]"
                hint += "; or give it a rate by a parameter, where it has one" if need == "noise_rate" else ""
                self.problems.append(self.source.problem(row.place, f"{cls.slug} needs {need}, but {reason}", hint))
                return False
        return True

    def method(self, row: Row) -> Any:
        """The class of a row, looked up once per name."""
        from bench.method import method_class

        name = row.entry.method
        if name not in self.classes:
            self.classes[name] = self.guard((*row.home, "method"), lambda: method_class(name, self.source.path.parent))
        return self.classes[name]

    def _model(self, block: Block) -> dict[str, Any] | None:
        """The model axis of a grid with the overrides applied."""
        model = block.model
        changes = {key[len("model.") :]: value for key, value in self.overrides.set.items() if key.startswith("model.")}
        self.used_set |= {f"model.{name}" for name in changes}
        if "name" in changes and changes["name"] != model.get("name"):
            model = {}
        try:
            return resolve_model({**model, **changes})
        except FieldError as error:
            name = "name" if error.key == "model" else error.key
            origin = "command line" if name in changes else ""
            self.field_problem(error, f"model.{name}", origin, (*block.model_at, name))
            return None

    def _excluded(self, facts: dict[str, Any]) -> str | None:
        reason = None
        for number, rule in enumerate(self.suite.exclude):
            if matches(rule.match, facts):
                self.used_excludes.add(number)
                reason = rule.reason
        return reason


def _variant(row: Row, cls: Any, values: Resolved) -> dict[str, Any] | None:
    """What plan.json says about a row that a kind of suite made, with the resolved values of the varied fields."""
    if row.variant is None:
        return None
    settings = {}
    for name in row.fields:
        section, _, key = name.rpartition(".")
        known = values.training if section == "training" else values.params
        settings[name] = known[key] if key in known else cls.neutral.get(key)
    return {**row.variant, "settings": settings}
