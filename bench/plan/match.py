"""Which cells a rule, an exclusion or `--only` means, and which value an override key means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.fields import nearest
from bench.plan.entries import Entry
from bench.suite import MATCH_KEYS
from bench.yaml_source import Problem, SuiteError


def own_key(key: str, cls: Any) -> str | None:
    """The section key that an override key means for this method, None when it is not for this method."""
    section, dot, name = key.partition(".")
    if not dot:
        return None
    if section in ("training", "protocol"):
        return key
    if section == "params":
        return key if name in cls.fields() else None
    return f"params.{name}" if section == cls.slug else None


def matches(match: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    return all(_value_matches(key, wanted, facts) for key, wanted in match.items())


def _value_matches(key: str, wanted: Any, facts: Mapping[str, Any]) -> bool:
    options = wanted if isinstance(wanted, list) else [wanted]
    names = {
        "noise": (facts["noise"], facts["noise_label"]),
        "method": (facts["method"], facts["label"]),
        "dataset": (facts["dataset"], facts["dataset_label"]),
    }.get(key, (facts.get(key),))
    return any(same(option, name) for option in options for name in names)


def same(wanted: Any, name: Any) -> bool:
    """Whether a value of `match` or `--only` names this value of a cell; numbers may be written in any way."""
    if isinstance(name, (int, float)):
        try:
            return not isinstance(wanted, bool) and float(wanted) == name
        except (TypeError, ValueError, OverflowError):
            return False
    return bool(wanted == name)


def axis_names(entry: Entry, axis: str) -> tuple[Any, ...]:
    """What `--only` may call this entry's value on an axis, the label of the table first."""
    if axis == "dataset":
        return entry.dataset, entry.cell["dataset"]["name"]
    if axis == "noise":
        return entry.noise, entry.cell["noise"]["kind"]
    if axis == "rate":
        return (entry.rate,)
    if axis == "method":
        return entry.method, entry.cell["method"]["name"], (entry.variant or {}).get("of", entry.method)
    return (entry.seed,) if axis == "seed" else (entry.cell["model"]["name"],)


def select(entries: list[Entry], only: Mapping[str, Any]) -> list[Entry]:
    """The entries that `--only` keeps. A value that no cell has is an error."""
    whole = entries
    for axis, values in only.items():
        if axis not in MATCH_KEYS:
            raise SuiteError([Problem("--only", None, axis, "unknown axis", nearest(axis, MATCH_KEYS))])
        shown = {name: None for entry in entries for name in axis_names(entry, axis)}
        for value in values:
            if not any(same(value, name) for name in shown):
                names = [str(name) for name in shown]
                message, hint = f"no cell has {axis} {str(value)!r}", nearest(str(value), names)
                if any(same(value, name) for entry in whole for name in axis_names(entry, axis)):
                    message, hint = f"{message} of those that --only keeps before it", f"they have {', '.join(names)}"
                raise SuiteError([Problem("--only", None, axis, message, hint)])
        kept = {name for name in shown if any(same(value, name) for value in values)}
        entries = [entry for entry in entries if kept.intersection(axis_names(entry, axis))]
    return entries
