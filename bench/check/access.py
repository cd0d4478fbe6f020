"""Checks of what a method reaches: nothing withheld, no undeclared need, no global random generator."""

from __future__ import annotations

import ast
import gc
import sys
import types
import weakref
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

import bench.data
from bench.check.miniature import CLASSES, registered
from bench.check.subject import OTHER_SEED, Failure, Outcome, Subject, difference
from bench.method import NEEDS, Method
from bench.trial.evaluate import Protocol
from bench.trial.prepare import split
from bench.trial.task import NeedError

#: what a task refuses to hand out to anyone
WITHHELD = ("clean_labels", "true_labels", "clean", "test", "val", "validation_labels", "test_labels", "evaluator")
#: our own modules that a method may import; the others know true labels, or run trials
ALLOWED = ("bench.method", "bench.ops", "bench.fields", "bench.learner", "bench.trial.task", "methods")
_GRANTED = ("noise_rate", "transition_matrix", "groups", "trusted")


def clean_labels(subject: Subject) -> str:
    """True labels and held-out data raise when asked for, are reachable by no reference, and are not imported."""
    task = subject.base.method.task
    for name in WITHHELD:
        try:
            getattr(task, name)
        except NeedError:
            continue
        raise Failure(f"task.{name} can be read; the harness must withhold it from every method")
    for outcome in _all_runs(subject):
        if outcome.withheld:
            raise Failure(
                f"the method asks for task.{outcome.withheld[0]}; true labels and held-out data are the evaluator's"
            )
    imported = forbidden_imports(subject)
    if imported:
        raise Failure(f"{imported}; a method imports {', '.join(ALLOWED)} of ours, and gets its data from the task")
    count, found = search(subject)
    if found:
        raise Failure(
            f"{found[0]} holds {found[1]}; a method works with task.labels, and keeps nothing of what predict is given"
        )
    return f"{len(WITHHELD)} withheld names raise; none of {count} reachable objects holds true labels or held-out data"


def _all_runs(subject: Subject) -> list[Outcome]:
    return [subject.base, *(outcome for _, outcome in subject.variant_runs)]


def forbidden_imports(subject: Subject) -> str | None:
    """'line N imports NAME' for the first import of ours that is not allowed, or None."""
    for node in ast.walk(ast.parse(subject.source.read_bytes())):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
        for name in (prefix + alias.name for alias in node.names):
            ours = name.split(".")[0] == "bench"
            if ours and not any(name == allowed or name.startswith(allowed + ".") for allowed in ALLOWED):
                return f"line {node.lineno} imports {name}"
    return None


# -- the search --------------------------------------------------------------------------------------------------------
def search(subject: Subject) -> tuple[int, tuple[str, str] | None]:
    """(number of objects seen, (where, what) of the first one that a method must not have)."""
    secrets = Secrets(subject.base)
    seen: dict[int, Any] = {}  # keeps what it has seen alive, so that no id is used twice
    waiting: deque[tuple[str, Any]] = deque([("self", subject.base.method)])
    for cls in type(subject.base.method).__mro__:
        if issubclass(cls, Method) and cls.__module__ == subject.cls.__module__:
            waiting.append((cls.__name__, dict(vars(cls))))
    waiting.append((subject.source.name, dict(vars(sys.modules[subject.cls.__module__]))))
    while waiting:
        where, item = waiting.popleft()
        if id(item) in seen or isinstance(item, _LEAVES):
            continue
        seen[id(item)] = item
        what = secrets.recognise(item)
        if what:
            return len(seen), (where, what)
        waiting.extend((where + step, child) for step, child in _children(item))
    return len(seen), None


#: followed no further: they lead to everything (modules, classes, frames), or hold no data of their own
_LEAVES = (types.ModuleType, type, types.FrameType, types.CodeType, str, bytes, int, float, complex, bool, type(None))


def _children(item: Any) -> list[tuple[str, Any]]:
    """What an object refers to, with how to write it. Of a function only what it closes over, not its globals."""
    if isinstance(item, types.FunctionType):
        closed = zip(item.__code__.co_freevars, item.__closure__ or (), strict=True)
        return [
            *((f" closing over {name}", cell) for name, cell in closed),
            (".__defaults__", item.__defaults__), (".__kwdefaults__", item.__kwdefaults__), ("", vars(item)),
        ]  # fmt: skip
    if isinstance(item, dict):
        return [(f".{k}" if isinstance(k, str) else f"[{k!r:.40}]", v) for k, v in item.items()] + [
            ("", k) for k in item
        ]
    if isinstance(item, (list, tuple)):
        return [(f"[{i}]", value) for i, value in enumerate(item)]
    if isinstance(item, Tensor):
        return [(".grad", item.grad if item.is_leaf else None), ("", vars(item))]
    if isinstance(item, np.ndarray):
        return [(".base", item.base), *((("[object]", x) for x in item.flat) if item.dtype == object else ())]
    if isinstance(item, weakref.ref):
        return [("()", item())]
    named = [(f".{name}", value) for name, value in (getattr(item, "__dict__", None) or {}).items()]
    return named + [("", other) for other in gc.get_referents(item)]


class Secrets:
    """Recognises true training labels, which given labels are right, and held-out images and labels."""

    def __init__(self, outcome: Outcome) -> None:
        cell = outcome.record["cell"]
        with registered():
            loaded = bench.data.load(cell["dataset"])
        train, held_out = split(loaded.train.labels, cell, loaded, Protocol(**cell["protocol"]))
        task = outcome.method.task
        true = loaded.train.labels
        correct = true[train] == task.labels.cpu().numpy()
        self.vectors = {
            "the true labels of the training samples": true[train],
            "the true labels of training and validation samples": true,
            "which training labels are right": correct,
            "which training labels are wrong": ~correct,
            "the test labels": loaded.test.labels,
            "the true validation labels": true[held_out],
        }
        self.images: set[bytes] = set()
        for images in (loaded.test.images, loaded.train.images[held_out]):
            for form in (images, task.normalise(torch.as_tensor(images)).numpy()):
                self.images |= {row.tobytes() for row in form}
        self.pixels = loaded.test.images[0].size

    def recognise(self, item: Any) -> str | None:
        array = _as_array(item)
        if array is None:
            return None
        flat = array.ravel()
        for name, vector in self.vectors.items():
            if flat.shape == vector.shape and np.array_equal(flat, vector):
                return name
            if (
                array.shape == (len(vector), CLASSES)
                and vector.dtype != bool
                and np.array_equal(array.argmax(axis=1), vector)
            ):
                return name + " (as the largest column)"
        if array.size and array.size % self.pixels == 0:
            rows = np.ascontiguousarray(array).reshape(-1, self.pixels)
            if any(row.tobytes() in self.images for row in rows):
                return "held-out images"
        return None


def _as_array(item: Any) -> np.ndarray | None:
    if isinstance(item, Tensor):
        return None if item.is_sparse or item.dtype == torch.bfloat16 else item.detach().cpu().numpy()
    if isinstance(item, np.ndarray):
        return item if item.dtype.kind in "biuf" else None
    if isinstance(item, (list, tuple)) and item and all(isinstance(value, (bool, int, float)) for value in item):
        return np.asarray(item)
    return None


# -- needs -------------------------------------------------------------------------------------------------------------
def needs(subject: Subject) -> str:
    """Declared needs have known names and are read; an undeclared one raises, also where that goes unnoticed."""
    warnings: list[str] = []
    for outcome in _all_runs(subject):
        if outcome.method is None:
            continue  # the check `options` says why
        declared = frozenset(outcome.method.needs)
        unknown = sorted(declared - set(NEEDS))
        if unknown:
            raise Failure(f"unknown need {unknown[0]!r}; valid: {', '.join(NEEDS)}")
        undeclared = sorted({need for need, was_declared in outcome.reads if not was_declared})
        if undeclared:
            raise Failure(
                f"it reads task.{undeclared[0]} without declaring it, and goes on when that raises; "
                f"declare needs = frozenset({{{undeclared[0]!r}}}), or do not read it"
            )
        read = {need for need, _ in outcome.reads}
        if type(outcome.method).validated is not Method.validated:
            read.add("validation")
        warnings += [f"warning: {need} is declared but never read" for need in sorted(declared - read)]
    task = subject.base.method.task
    for need in set(_GRANTED) - frozenset(subject.base.method.needs):
        try:
            getattr(task, need)
        except NeedError as error:
            if need in str(error):
                continue
        raise Failure(f"task.{need} can be read without declaring it, or does not say how; the harness must refuse it")
    shown = sorted(subject.base.method.needs)
    return "; ".join([", ".join(shown) or "none declared, none read", *dict.fromkeys(warnings)])


def random_state(subject: Subject) -> str:
    """Global random generators are where they were, and where they were does not matter."""
    other = subject.run(global_seed=OTHER_SEED).require_done("a run with other global seeds")
    for outcome in (*_all_runs(subject), other):
        if outcome.touched:
            raise Failure(f"a run moves the global random generator of {', '.join(outcome.touched)}; {_STREAMS}")
    found = difference(subject.base.results(), other.results())
    if found:
        raise Failure(f"the state of global random generators moves results: {found} differs; {_STREAMS}")
    return "torch, numpy.random and random are neither moved nor read"


_STREAMS = (
    "draw with torch functions that take generator=task.generator(), for NumPy seed a generator of your own from it"
)
