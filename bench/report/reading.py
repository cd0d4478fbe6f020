"""Plain data from YAML, read strictly: each function returns the value or raises `SpecError` with its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.report.spec import SpecError, nearest

Place = tuple[Any, ...]


def expect_mapping(value: Any, at: Place, allowed: Iterable[str]) -> dict[str, Any]:
    allowed = tuple(allowed)
    if not isinstance(value, Mapping):
        raise SpecError(at, f"expected a mapping with keys among {', '.join(allowed)}, got {value!r}")
    for key in value:
        if key not in allowed:
            raise SpecError((*at, key), f"unknown key {key!r}{nearest(key, allowed)}")
    return dict(value)


def pairs(item: Mapping[str, Any], at: Place, key: str) -> list[tuple[str, Any]]:
    value = item.get(key, {})
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise SpecError((*at, key), f"expected a mapping of names, got {value!r}")
    return list(value.items())


def expect_list(value: Any, at: Place) -> list[Any]:
    if not isinstance(value, list):
        raise SpecError(at, f"expected a list, got {value!r}")
    return value


def expect_texts(value: Any, at: Place) -> list[str]:
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise SpecError(at, f"expected text or a list of texts, got {value!r}")
    return value


def expect_text(item: Mapping[str, Any], at: Place, key: str, default: str | None = None) -> str:
    value = item.get(key, default)
    if not isinstance(value, str):
        raise SpecError((*at, key) if key in item else at, f"expected text for {key}, got {value!r}")
    return value


def expect_whole(item: Mapping[str, Any], at: Place, key: str, default: int) -> int:
    value = item.get(key, default)
    if type(value) is not int or not 0 <= value <= 6:
        raise SpecError((*at, key), f"expected an integer from 0 to 6, got {value!r}")
    return value
