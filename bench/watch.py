"""Watched quantities: what a suite asks to be shown of training, by name.

A method offers a quantity with one call, `self.task.observe(NAME, kind=callable, ...)`; a suite asks for it::

    watch: [confidence_set, gallery]                            # in the epochs that are usual for its kind
    watch: {loss: [1, 10, 60], confidence_set: all}             # all, last, or a list of epochs counted from 1

What was asked for enters the record under `watched` and decides nothing: it is no part of a cell's identity, and a cell
that is done stays done although its record lacks a name. `bench run --force` runs it again, with the same result.

====================  =======  ========================================================================================
kind                  epochs   what a record keeps
====================  =======  ========================================================================================
`members` [N] bool    all      size, precision and recall of a set; how often samples were in it; the four sample types
`values` [N]          last     histograms of the rightly and of the wrongly labelled
`points` [N, D]       last     t-SNE of 1000 samples; distances of the sample types from a set
`gallery`             last     the 24 images with the lowest `clean_scores`
====================  =======  ========================================================================================

`last` is the last epoch in which a method shows a quantity. Nothing here imports torch: suites are read without it.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from bench.fields import nearest

#: kind -> the epochs of a name for which a suite gives none
KINDS = {"members": "all", "values": "last", "points": "last", "gallery": "last"}
#: kind -> what a call of `task.observe` may pass beside it
BESIDE: dict[str, tuple[str, ...]] = {
    "points": ("members", "labels"), "values": ("mixture", "simulated", "threshold"), "members": ("labels",),
}  # fmt: skip
#: names that the harness shows of every method, and their kinds
GENERIC = {"gallery": "gallery", "losses": "values"}
WORDS = ("all", "last")

#: "all", "last", epochs counted from 1, or None: those of `KINDS`
Epochs = str | tuple[int, ...] | None
Watch = tuple[tuple[str, Epochs], ...]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class Fault(NamedTuple):
    """What is wrong with a suite's `watch`: where below it, what, and what would be valid."""

    path: tuple[Any, ...]
    message: str
    hint: str


def parse(value: Any) -> tuple[Watch, list[Fault]]:
    """The names of a suite's `watch` with their epochs, and everything that is wrong with it. Which names there are,
    methods decide: one that nobody offers is a warning in the record."""
    if isinstance(value, str):
        value = [value]
    if value is None or value == []:
        return (), []
    if isinstance(value, list):
        items = [((i,), name, None) for i, name in enumerate(value)]
    elif isinstance(value, dict):
        items = [((name,), name, epochs) for name, epochs in value.items()]  # type: ignore[misc]
    else:
        return (), [Fault((), f"{value!r} is not a list of names", "a list of names, or names with epochs: {loss: [1, 60]}")]
    found: dict[str, Epochs] = {}
    faults = []
    for path, name, epochs in items:
        fault = _name_fault(name, found) or _epochs_fault(epochs)
        if fault:
            faults.append(Fault(path, *fault))
        else:
            found[name] = tuple(sorted(set(epochs))) if isinstance(epochs, list) else epochs
    return tuple(found.items()), faults


def _name_fault(name: Any, found: dict[str, Epochs]) -> tuple[str, str] | None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"{name!r} is not the name of a quantity", "letters, digits, _ and -; epochs stand behind a name: {loss: [1, 60]}"
    if name in found:
        return f"{name!r} stands here twice", "remove one of them"
    return None


def _epochs_fault(epochs: Any) -> tuple[str, str] | None:
    if epochs is None or epochs in WORDS:
        return None
    if isinstance(epochs, list) and epochs and all(type(epoch) is int and epoch >= 1 for epoch in epochs):
        return None
    hint = "epochs are all, last, or a list of numbers counted from 1"
    if isinstance(epochs, str):
        return f"unknown epochs {epochs!r}", f"{nearest(epochs, WORDS)}; {hint}"
    return f"{epochs!r} are no epochs", hint


def kind_of(given: Any) -> str:
    """The kind of a call of `task.observe`, from the names of what it passes. Raises `ValueError`."""
    valid = {name for kind, beside in BESIDE.items() for name in (kind, *beside)}
    for name in given:
        if name not in valid:
            raise ValueError(f"task.observe knows no {name!r}; {nearest(name, valid)}")
    kind = next((kind for kind in BESIDE if kind in given), None)
    if kind is None:
        raise ValueError(f"task.observe needs one of {', '.join(BESIDE)}; it was given {', '.join(given) or 'nothing'}")
    for name in given:
        if name != kind and name not in BESIDE[kind]:
            raise ValueError(f"task.observe: {kind} takes no {name}; " + (f"valid: {', '.join(BESIDE[kind])}" if BESIDE[kind] else
                             "observe them under two names"))  # fmt: skip
    return kind


def epochs_of(epochs: Epochs, kind: str) -> str | tuple[int, ...]:
    """The epochs that are meant: "all", "last", or numbers from 1."""
    return KINDS[kind] if epochs is None else epochs
