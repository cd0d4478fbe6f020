"""The cells of a search: those it tries, as far as the records let it choose them, and those of the chosen settings."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.fields import FieldError, convert, nearest
from bench.kinds import split
from bench.plan.axes import auto_label, row_title
from bench.plan.blocks import Block, Row
from bench.plan.entries import Entry
from bench.records import RecordError, first_line, load_record, record_path
from bench.tune.searchers import next_settings
from bench.tune.space import Setting, parse_space, probes, size
from bench.yaml_source import Path_, Problem, SuiteError

if TYPE_CHECKING:
    from bench.plan.planner import Planner

SCHEMA = 1


@dataclass
class Trial:
    """One setting and the mean of its validation accuracies: None when a cell failed, diverged or is still missing."""

    setting: Setting
    cells: list[str]
    #: settings of one batch were proposed together
    batch: int = 1
    value: float | None = None
    #: done, failed, diverged, or missing
    state: str = "missing"
    reason: str | None = None
    seconds: float = 0.0


@dataclass
class Study:
    """The search for one setting of one method: on one data set, for all noises of a block or for one."""

    method: str
    dataset: str
    noises: list[str]
    space: Mapping[str, Any]
    trials: list[Trial] = field(default_factory=list)
    #: searching, chosen, failed (no setting finished), or given (nothing is searched)
    state: str = "searching"
    chosen: int | None = None
    validation: str | None = None

    def shown(self) -> dict[str, Any]:
        """The study as `search.json` holds it."""
        trials = [
            {"number": n, "batch": t.batch, "setting": t.setting, "state": t.state, "value": t.value, "cells": t.cells}
            | ({"reason": t.reason} if t.reason else {})
            for n, t in enumerate(self.trials, 1)
        ]
        best = None if self.chosen is None else self.trials[self.chosen - 1]
        return {
            "method": self.method, "dataset": self.dataset, "noises": self.noises, "space": self.space, "state": self.state,
            "chosen": self.chosen, "setting": best and best.setting, "value": best and best.value,
            "validation": self.validation, "seconds": round(sum(trial.seconds for trial in self.trials), 1), "trials": trials,
        }  # fmt: skip


def search_file(suffix: str | None) -> str:
    """The name of the file beside the records; `suffix` is the digest of the overrides."""
    return f"search-{suffix}.json" if suffix else "search.json"


def planned_search(planner: Planner, blocks: Sequence[Block], folder: Path | None) -> tuple[list[Entry], dict[str, Any] | None]:
    """Entries of trials, then of chosen settings, and the content of `search.json`. Problems go to the planner.

    `folder` holds the records; without it nothing has been run. Raises `SuiteError`, `SearcherMissing`.
    """
    _check(planner, blocks)
    if planner.problems:
        return [], None
    known = _stored(planner, folder)
    trials: list[Entry] = []
    finals: list[Entry] = []
    studies: list[Study] = []
    for block in blocks:
        for part in _parts(block, planner.suite.per):
            rows = []
            begin = len(studies)
            for row in part.rows:
                study, tried, final = _studied(planner, part, row, folder, known)
                studies.append(study)
                trials += tried
                rows += [final] if final is not None else []
            finals += planner.entries(replace(part, rows=rows))
            _note_budget(planner, part, studies[begin:])
            if planner.problems:
                return [], None
    return trials + finals, _content(planner, studies, len(finals))


def _parts(block: Block, per: str) -> list[Block]:
    """What one setting is chosen for: a data set with all its noises, or one noise."""
    parts = [replace(block, datasets=[dataset]) for dataset in block.datasets]
    return parts if per == "dataset" else [replace(part, noises=[noise]) for part in parts for noise in part.noises]


def _studied(
    planner: Planner, part: Block, row: Row, folder: Path | None, known: Sequence[Mapping[str, Any]]
) -> tuple[Study, list[Entry], Row | None]:
    """Replay one search as far as its records go; returns it, its trials' entries, and the row to report, if known."""
    suite = planner.suite
    label, key = _names(planner, row)
    study = Study(label, str(part.datasets[0][0].get("name")), [], suite.search.get(key, {}))
    if key not in suite.search:
        study.state = "given"
        return study, [], row
    space = parse_space(suite.search[key])
    stored = [one for one in known if (one["method"], one["space"]) == (label, _plain(study.space))]
    seeds = [(seed, ("tune_seeds", number)) for number, seed in enumerate(suite.tune_seeds)]
    entries: list[Entry] = []
    for number in itertools.count(1):
        history = [(trial.setting, trial.value) for trial in study.trials]
        settings = _remembered(stored, study.trials) or next_settings(
            suite.searcher, space, suite.search_seed, suite.budget, suite.batch, history
        )
        if not settings:
            break
        rows = [_changed(row, key, label, s, len(study.trials) + n) for n, s in enumerate(settings, 1)]
        made = list(planner.entries(replace(part, rows=rows, seeds=seeds)))
        if planner.problems:
            return study, [], None
        entries += made
        batch = []
        for setting, changed in zip(settings, rows, strict=True):
            own = [entry for entry in made if entry.method == changed.entry.label]
            batch.append(_trial(planner, study, setting, own, folder, number))
        study.trials += batch
        study.dataset, study.noises = made[0].dataset, list(dict.fromkeys(entry.noise for entry in made))
        if any(trial.state == "missing" for trial in batch):
            return study, entries, None
    values = [-1.0 if trial.value is None else trial.value for trial in study.trials]
    best = values.index(max(values))  # of equal ones the first
    if values[best] < 0:
        study.state = "failed"
        return study, entries, replace(row, skip=f"none of the {len(values)} settings that were tried finished")
    study.state, study.chosen = "chosen", best + 1
    final = _changed(row, key, label, study.trials[best].setting, None)
    cls = planner.method(row)
    return study, entries, replace(final, title=row.entry.label or row_title(cls, row.entry))


def _changed(row: Row, key: str, label: str, setting: Setting, number: int | None) -> Row:
    """The row with a setting: trial `number`, or the chosen one."""
    params, training, varied = dict(row.entry.params), dict(row.entry.training), {}
    for name, value in setting.items():
        section, field_name = split(name)
        (training if section == "training" else params)[field_name] = value
        varied[f"{section}.{field_name}"] = ("search", key, name)
    shown = label if number is None else f"{label} #{number}"
    entry = row.entry.model_copy(update={"label": shown, "params": params, "training": training})
    variant: dict[str, Any] = {"of": label, "changes": setting} | ({} if number is None else {"trial": number})
    place: Path_ = row.place if number is None else ("search", key, f"#{number}")
    return Row(entry, place, row.home, varied, variant, tuple(setting))


def _trial(planner: Planner, study: Study, setting: Setting, entries: list[Entry], folder: Path | None, batch: int) -> Trial:
    """What the records say about a setting. A cell that failed or diverged makes it the worst there is."""
    wanted = [entry for entry in entries if not entry.skip]
    trial = Trial(setting, [entry.id for entry in wanted], batch)
    records = [_record(folder, entry.id) for entry in wanted]
    if any(record is None for record in records):
        return trial
    found = [record for record in records if record is not None]
    for record in found:
        cost = record.get("cost") or {}
        trial.seconds += sum(cost.get(name, 0.0) for name in ("setup_seconds", "train_seconds", "eval_seconds"))
    bad = [record for record in found if record["status"] != "done"]
    if bad or not found:
        trial.state = bad[0]["status"] if bad else "failed"
        trial.reason = first_line(bad[0]["reason"], 200) if bad else "all of its cells are excluded"
        return trial
    metric = planner.suite.select
    if any(metric not in record["metrics"] for record in found):
        message = f"{metric} cannot choose: the cells of {entries[0].label()} have no validation split"
        problem = planner.source.problem(("protocol", "val_fraction"), message, "set protocol.val_fraction above 0")
        raise SuiteError([problem])
    study.validation = found[0]["data"].get("validation")
    trial.state, trial.value = "done", round(math.fsum(r["metrics"][metric] for r in found) / len(found), 9)
    return trial


def _record(folder: Path | None, identity: str) -> dict[str, Any] | None:
    """The record of a cell, None where it is missing or cannot be trusted."""
    path = record_path(folder, identity) if folder is not None else None
    try:
        return load_record(path) if path is not None and path.exists() else None
    except RecordError:
        return None


# -- what search.json remembers ----------------------------------------------------------------------------------------
def _stored(planner: Planner, folder: Path | None) -> list[Mapping[str, Any]]:
    """Studies of the last plan, if it searched in the same way: a proposal that was made once stays."""
    if folder is None or planner.suite.searcher == "random":
        return []
    try:
        content = json.loads((folder / search_file(planner.overrides.digest())).read_bytes())
        same = all(content[name] == value for name, value in _how(planner).items())
        return list(content["studies"]) if same and content["schema"] == SCHEMA else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _remembered(stored: Sequence[Mapping[str, Any]], history: Sequence[Trial]) -> list[Setting] | None:
    """The batch that followed this very history in one of the studies of a method and space, None where it is not known.

    Cells tell studies of other data sets and noises apart; their first batches, which follow no history, are the same.
    """
    begun = [(trial.setting, trial.value, trial.cells) for trial in history]
    for study in stored:
        trials, rest = study["trials"][: len(begun)], study["trials"][len(begun) :]
        if rest and [(t["setting"], t["value"], t["cells"]) for t in trials] == begun:
            return [t["setting"] for t in rest if t["batch"] == rest[0]["batch"]]
    return None


def _how(planner: Planner) -> dict[str, Any]:
    suite = planner.suite
    names = ("searcher", "search_seed", "budget", "batch", "tune_seeds", "select", "per", "search")
    return _plain({name: getattr(suite, name) for name in names})


def _plain(value: Any) -> Any:
    """As it comes back out of a JSON file."""
    return json.loads(json.dumps(value))


def _content(planner: Planner, studies: Sequence[Study], finals: int) -> dict[str, Any]:
    trials = [trial for study in studies for trial in study.trials]
    states = {state: sum(trial.state == state for trial in trials) for state in ("done", "failed", "diverged", "missing")}
    return {
        "schema": SCHEMA, "suite": planner.suite.name, **_how(planner), "seeds": _seeds(planner),
        "spent": {"settings": len(trials), "cells": sum(len(trial.cells) for trial in trials), **states,
                  "seconds": round(sum(trial.seconds for trial in trials), 1)},
        "final_cells": finals, "studies": [study.shown() for study in studies],
    }  # fmt: skip


def _seeds(planner: Planner) -> list[int]:
    return list(planner.overrides.seeds if planner.overrides.seeds is not None else planner.suite.seeds)


def _note_budget(planner: Planner, part: Block, studies: Sequence[Study]) -> None:
    """The budget in one line: what `bench plan` shows before anything has run."""
    suite = planner.suite
    searched = [study for study in studies if study.state != "given"]
    counts = [min(suite.budget, size(parse_space(study.space)) or suite.budget) for study in searched]
    cells = sum(counts) * len(part.noises) * len(suite.tune_seeds)
    done = sum(trial.state != "missing" for study in searched for trial in study.trials)
    dataset = part.datasets[0][0].get("name")
    final = len(part.rows) * len(part.noises) * len(part.seeds)
    note = (
        f"search on {dataset}: {len(searched)} methods x {suite.budget} settings x {len(part.noises)} noises x "
        f"{len(suite.tune_seeds)} tune seeds = {cells} cells ({done} of {sum(counts)} settings known); "
        f"then {final} cells of the chosen settings on fresh seeds"
    )
    planner.notes[note] = None
    for study, count in zip(searched, counts, strict=True):
        if count < suite.budget:
            planner.notes[f"{study.method}: its space has only {count} settings, all are tried"] = None
    for study in studies:
        if study.state == "given":
            planner.notes[f"{study.method}: nothing is searched, it runs as given"] = None


# -- validation --------------------------------------------------------------------------------------------------------
def _names(planner: Planner, row: Row) -> tuple[str, str]:
    """What tables call the row, and its key in `search`."""
    cls = planner.method(row)
    label = row.entry.label or (auto_label(cls.slug, row.entry) if cls is not None else row.entry.method)
    return label, label if label in planner.suite.search else row.entry.method


def _check(planner: Planner, blocks: Sequence[Block]) -> None:
    suite, source = planner.suite, planner.source
    known: dict[str, None] = {}
    for block in blocks:
        for seed, at_seed in block.seeds:
            if seed in suite.tune_seeds:
                message, hint = f"seed {seed} is in tune_seeds too", "a setting is reported on seeds that did not choose it"
                given = planner.overrides.seeds is not None
                problem = Problem("--seeds", None, "", message, hint) if given else source.problem(at_seed, message, hint)
                planner.problems.append(problem)
        for row in block.rows:
            label, key = _names(planner, row)
            known |= {label: None, row.entry.method: None}
            cls = planner.method(row)
            if cls is not None and key in suite.search:
                _check_values(planner, cls, key)
    for key in suite.search:
        if key not in known:
            planner.problems.append(source.problem(("search", key), f"no row is called {key!r}", nearest(key, known)))


def _check_values(planner: Planner, cls: Any, key: str) -> None:
    """Whether the method and the training take what the spaces hold: said before the first draw, at the place."""
    from bench.training import Training

    for name, value, place in probes(planner.suite.search[key], ("search", key)):
        section, field_name = split(name)
        fields = Training.fields() if section == "training" else cls.fields()
        try:
            if field_name not in fields:
                what = "training" if section == "training" else cls.slug
                raise FieldError(field_name, f"{what} has no field {field_name!r}", nearest(field_name, fields))
            convert(fields[field_name], value)
        except FieldError as error:
            place = place if field_name in fields else place[:3]
            planner.problems.append(planner.source.problem(place, error.message, error.hint))
