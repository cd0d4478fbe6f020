"""Label noise: one file per kind, and the noise artefact (law 4). numpy only.

An artefact is drawn once for (data set, specification, seed) from its own generator. It holds the given labels, their
measured rate and transition matrix, and a hash; every method of a seed reads the same one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.fields import FieldError
from bench.noise._artefact import (
    NoisyLabels,
    artefact,
    artefact_name,
    build,
    draw,
    sha256_of,
    transition_counts,
    transition_matrix,
)
from bench.noise._base import Corruption, Labels, NoiseInput, NoiseKind, PlannedNoise, Replaced
from bench.registry import discover, lookup

__all__ = [
    "Corruption", "Labels", "NoiseInput", "NoiseKind", "NoisyLabels", "PlannedNoise", "Replaced", "artefact",
    "artefact_name", "build", "draw", "noise_class", "noise_identity", "noises", "parse_short", "plan_noise", "sha256_of",
    "short_form",
    "transition_counts", "transition_matrix",
]  # fmt: skip


@functools.cache
def noises() -> dict[str, type[NoiseKind]]:
    return discover("bench.noise", NoiseKind)


def noise_class(kind: str) -> type[NoiseKind]:
    return lookup(noises(), kind, "noise")


def parse_short(text: str) -> dict[str, Any]:
    """`symmetric@0.5` to `{"kind": "symmetric", "rate": "0.5"}`; the value is checked later with the other fields.

    `longtail@0.1 + symmetric@0.4` is a sequence of two, with spaces around the plus sign.
    """
    steps = re.split(r"\s\+\s", text)
    if len(steps) > 1:
        return {"kind": "sequence", "steps": [parse_short(step) for step in steps]}
    kind, at, value = text.partition("@")
    cls = noise_class(kind.strip())
    if not at:
        return {"kind": cls.slug}
    if not cls.short_field:
        raise FieldError("noise", f"{cls.slug} takes no value", f"write {cls.slug} without '@{value}'")
    return {"kind": cls.slug, cls.short_field: value.strip()}


def plan_noise(wanted: str | Mapping[str, Any], folders: Sequence[Path] = ()) -> PlannedNoise:
    """A noise as a suite writes it, short or as a mapping, to what enters a cell. Raises `FieldError`.

    Relative paths of label files are looked for in `folders` (that of the suite, that of the data), in this order.
    """
    specification = parse_short(wanted) if isinstance(wanted, str) else wanted
    if "kind" not in specification:
        raise FieldError("kind", "a noise needs a kind", "valid: " + ", ".join(noises()))
    cls = noise_class(specification["kind"])
    params = {key: value for key, value in specification.items() if key not in ("kind", "version")}
    return cls.plan(params, [Path(folder) for folder in folders])


def noise_identity(specification: Mapping[str, Any]) -> dict[str, Any]:
    """The noise axis of a cell: kind, version and all resolved conventions. Raises `FieldError`."""
    return plan_noise(specification).identity


def short_form(identity: Mapping[str, Any]) -> str:
    """How a noise is called in tables: kind, its rate, and every convention that differs from the default."""
    return noise_class(identity["kind"]).label(identity)
