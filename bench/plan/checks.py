"""What is wrong with a suite although each of its cells is right: rules without effect, rows that stand twice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.fields import nearest
from bench.plan.entries import Entry, Overrides
from bench.yaml_source import Path_, Problem

if TYPE_CHECKING:
    from bench.plan.planner import Planner

_KEYS = "params.<field>, <method>.<field>, training.<field>, protocol.<field>"


def check(planner: Planner, entries: list[Entry]) -> None:
    """Add what is found to the planner's problems."""
    if not planner.problems:  # a rule may only seem unused because its cells could not be resolved
        _check_rules(planner)
    if not planner.problems:
        _check_overrides(planner, entries)
        _check_resources(planner, entries)
        _check_watched(planner, entries)
    _check_duplicates(planner, entries)


def _check_rules(planner: Planner) -> None:
    suite, source = planner.suite, planner.source
    for number, rule in enumerate(suite.where):
        unused = [key for key in rule.set if (number, key) not in planner.used_rules]
        if (unused or not rule.set) and not _moot(rule.match, planner.overrides):
            message = f"this rule sets {', '.join(unused) or 'nothing'} on no cell"
            hint = f"keys are {_KEYS}; check `match` too"
            planner.problems.append(source.problem(("where", number, "set", *unused[:1]), message, hint))
    for number, exclude in enumerate(suite.exclude):
        if number not in planner.used_excludes and not _moot(exclude.match, planner.overrides):
            planner.problems.append(source.problem(("exclude", number), "this rule matches no cell", "check `match`"))
    for number, need in enumerate(suite.forbid_needs):
        from bench.method import NEEDS

        if need not in NEEDS:
            problem = source.problem(("forbid_needs", number), f"unknown need {need!r}", nearest(need, NEEDS))
            planner.problems.append(problem)


def _moot(match: Mapping[str, Any], overrides: Overrides) -> bool:
    """Whether a rule may match nothing because the command line replaced what it matches on."""
    model = any(key.startswith("model.") for key in overrides.set)
    return ("seed" in match and overrides.seeds is not None) or ("model" in match and model)


def _check_overrides(planner: Planner, entries: list[Entry]) -> None:
    for key in planner.overrides.set:
        if key not in planner.used_set:
            hint = f"keys are {_KEYS}, model.<field>"
            known = {name for entry in entries for name in entry.origins}
            known |= {f"{cls.slug}.{name}" for cls in planner.classes.values() for name in cls.fields()}
            hint = f"{nearest(key, known)}; {hint}"
            planner.problems.append(Problem("--set", None, key, "sets nothing in this suite", hint))


def _check_resources(planner: Planner, entries: list[Entry]) -> None:
    known = {name for entry in entries for name in (entry.cell["method"]["name"], entry.method)}
    for name in planner.suite.resources.methods:
        if name not in known:
            message, hint = f"no cell has the method {name!r}", nearest(name, known)
            planner.problems.append(planner.source.problem(("resources", "methods", name), message, hint))


def _check_watched(planner: Planner, entries: list[Entry]) -> None:
    """Epochs that no cell has, unless the command line made training shorter; a note for names that nobody seems to show."""
    from bench.method import Method, method_file
    from bench.watch import GENERIC

    watched = planner.suite.watched()
    most = max((entry.cell["training"]["epochs"] for entry in entries), default=0)
    for name, epochs in watched:
        if isinstance(epochs, tuple) and max(epochs) > most and "training.epochs" not in planner.overrides.set:
            message, hint = f"no cell has an epoch {max(epochs)}", f"training.epochs is {most}; epochs are counted from 1"
            planner.problems.append(planner.source.problem(("watch", name), message, hint))
    unknown = [name for name, _ in watched if name not in GENERIC]
    bases = {base for cls in planner.classes.values() if cls for base in cls.__mro__} if unknown else set()
    files = {method_file(base) for base in bases if issubclass(base, Method) and base.__module__ != Method.__module__}
    # what a method observes stands in quotes in its source: known without running it
    texts = {word for file in files if file.is_file() for word in re.findall(r"""["']([\w-]+)["']""", file.read_text("utf-8"))}
    for name in unknown:
        if name not in texts:
            planner.notes[f"watch: no method here is known to show {name!r}; of every method: {', '.join(GENERIC)}"] = None


def _check_duplicates(planner: Planner, entries: list[Entry]) -> None:
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
        message = f"{same}: {entry.label()}; the first is in {planner.origin(at_first)}"
        faults.setdefault(at, planner.source.problem(at, message, hint))
    planner.problems += faults.values()
    shared = len(entries) - len({entry.id for entry in entries})
    if shared and not planner.problems:
        planner.notes[f"{shared} rows share a cell with another row and are run once"] = None
