"""Which figures a suite wants: its `figures:` section, a list of kinds or of mappings, and the validation of it.

    figures:
      - curves
      - {kind: sensitivity, metric: worst_group_acc, methods: [llc-dro]}

Nothing here imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.report.spec import METRICS, PROTOCOLS, SpecError, nearest

Where = tuple[str | int, ...]


@dataclass(frozen=True)
class Option:
    """One setting of a kind of figure.

    type: 'choice' (of `choices`), 'names' (a list of text, or one), 'text', 'epochs' (whole numbers from 1, or one), 'count' (a
    whole number from 1), 'flag', or 'values' (a mapping of names to plain values).
    """

    type: str
    default: Any
    meaning: str
    choices: tuple[str, ...] = ()


#: what every kind takes
COMMON: dict[str, Option] = {
    "datasets": Option("names", None, "data sets to draw, as the plan calls them"),
    "noises": Option("names", None, "noises to draw, as the plan calls them"),
    "methods": Option("names", None, "methods to draw, as the plan calls them, in this order"),
}
#: of kinds that draw a watched quantity
QUANTITY = Option("text", None, "name of the watched quantity; by default the first of this kind that a method's records have")
METRIC = Option("choice", "test_acc", "measured quantity", tuple(METRICS))
PROTOCOL = Option("choice", "last", "which epoch's value", tuple(PROTOCOLS))


@dataclass(frozen=True)
class FigureSpec:
    """A wanted figure. `options` holds what was set; `filled` adds the defaults."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def filled(self) -> dict[str, Any]:
        return {name: option.default for name, option in options_of(self.kind).items()} | dict(self.options)


def options_of(kind: str) -> dict[str, Option]:
    """The options of a kind, common ones first."""
    from bench.report.plots import module_of

    return COMMON | module_of(kind).OPTIONS


def every() -> list[FigureSpec]:
    """Every kind with its defaults."""
    from bench.report.plots import kinds

    return [FigureSpec(kind) for kind in kinds()]


def validate(section: Any, where: str = "figures") -> tuple[FigureSpec, ...]:
    """The wanted figures of a `figures:` section; None wants none in particular. Raises `SpecError`."""
    if section is None:
        return ()
    if not isinstance(section, Sequence) or isinstance(section, str):
        raise SpecError((where,), f"expected a list of kinds of figure or mappings with `kind:`, got {section!r}")
    return tuple(_figure(item, (where, i)) for i, item in enumerate(section))


def _figure(item: Any, where: Where) -> FigureSpec:
    from bench.report.plots import kinds

    if isinstance(item, str):
        item = {"kind": item}
    if not isinstance(item, Mapping) or "kind" not in item:
        raise SpecError(where, f"expected the name of a kind, or a mapping with `kind:`, got {item!r}")
    kind = item["kind"]
    if kind not in kinds():
        raise SpecError((*where, "kind"), f"unknown kind of figure {kind!r}{nearest(kind, kinds())}")
    known, options = options_of(kind), {}
    for name, value in item.items():
        if name == "kind":
            continue
        if name not in known:
            raise SpecError(where, f"{kind} has no option {name!r}{nearest(name, known)}")
        options[name] = _checked(known[name], value, (*where, name))
    return FigureSpec(kind, options)


def _checked(option: Option, value: Any, where: Where) -> Any:
    """The value as its option keeps it: lists become tuples, a single entry of a list may stand alone."""
    if option.type == "choice":
        if value not in option.choices:
            raise SpecError(where, f"unknown value {value!r}{nearest(value, option.choices)}")
        return value
    if option.type in ("names", "epochs"):
        values = tuple(value) if isinstance(value, list | tuple) else (value,)
        right = isinstance if option.type == "names" else _is_count
        if not values or not all(right(entry, str) for entry in values) or len(set(values)) < len(values):
            what = "different names" if option.type == "names" else "different epochs, counted from 1"
            raise SpecError(where, f"expected a list of {what}, got {value!r}")
        return values
    fits, words = {
        "text": (isinstance(value, str), "text"),
        "count": (_is_count(value), "a whole number, 1 or more"),
        "flag": (isinstance(value, bool), "true or false"),
        "values": (isinstance(value, Mapping), "a mapping of names to values"),
    }[option.type]
    if not fits:
        raise SpecError(where, f"expected {words}, got {value!r}")
    return value


def _is_count(value: Any, _: Any = None) -> bool:
    return type(value) is int and value >= 1
