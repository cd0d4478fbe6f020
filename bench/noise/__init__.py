"""Label noise: one file per kind, and the noise artefact (law 4). numpy only.

An artefact is drawn once for (data set, specification, seed) from its own generator. It holds the given labels, their
measured rate and transition matrix, and a hash; every method of a seed reads the same one.
"""

from __future__ import annotations

import functools
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.cell import canonical_json, stream_seed
from bench.fields import Configurable, FieldError
from bench.registry import discover, lookup

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class NoiseInput:
    """What a kind of noise may look at: true labels int64 [N], the number of classes and the confusable classes."""

    labels: Labels
    num_classes: int
    confusions: dict[int, int]
    class_names: tuple[str, ...]


class NoiseKind(Configurable):
    """One kind of label noise. Its fields fix every convention that `noise.md` of the reference library lists."""

    slug: ClassVar[str] = ""
    version: ClassVar[int] = 1
    summary: ClassVar[str] = ""
    #: the field that the short form `kind@value` sets; "" when the kind takes none
    short_field: ClassVar[str] = "rate"

    @classmethod
    def misfit(cls, dataset: Any) -> str | None:
        """Why this kind is not defined on a data set class, or None; asked when a suite is planned."""
        return None

    def definition(self) -> str:
        """One sentence, printed under every table, that leaves no convention open."""
        raise NotImplementedError

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        """The given labels, int64 [N]. Raises `FieldError` when the kind does not fit the data set."""
        raise NotImplementedError

    @property
    def nominal(self) -> float:
        return float(getattr(self, "rate", 0.0))


@dataclass(frozen=True)
class NoisyLabels:
    """A noise artefact: given labels int64 [N], measured rate, row-normalised matrix [K, K] (rows are true classes)."""

    labels: Labels
    rate: float
    matrix: NDArray[np.float64]
    nominal: float
    definition: str

    @functools.cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.labels.astype("<i8").tobytes()).hexdigest()


@functools.cache
def noises() -> dict[str, type[NoiseKind]]:
    return discover("bench.noise", NoiseKind)


def noise_class(kind: str) -> type[NoiseKind]:
    return lookup(noises(), kind, "noise")


def parse_short(text: str) -> dict[str, Any]:
    """`symmetric@0.5` to `{"kind": "symmetric", "rate": "0.5"}`; the value is checked later with the other fields."""
    kind, at, value = text.partition("@")
    cls = noise_class(kind.strip())
    if not at:
        return {"kind": cls.slug}
    if not cls.short_field:
        raise FieldError("noise", f"{cls.slug} takes no value", f"write {cls.slug} without '@{value}'")
    return {"kind": cls.slug, cls.short_field: value.strip()}


def noise_identity(specification: dict[str, Any]) -> dict[str, Any]:
    """The noise axis of a cell: kind, version and all resolved conventions. Raises `FieldError`."""
    if "kind" not in specification:
        raise FieldError("kind", "a noise needs a kind", "valid: " + ", ".join(noises()))
    cls = noise_class(specification["kind"])
    fields = cls.identity({key: value for key, value in specification.items() if key not in ("kind", "version")})
    return {"kind": cls.slug, "version": cls.version, **fields}


def short_form(identity: dict[str, Any]) -> str:
    """How a noise is called in tables: kind, its rate, and every convention that differs from the default."""
    cls = noise_class(identity["kind"])
    defaults = cls.identity({})
    text = cls.slug
    if cls.short_field:
        text += f"@{identity[cls.short_field]:g}"
    others = [f"{k}={v}" for k, v in identity.items() if k not in ("kind", "version", cls.short_field) and v != defaults.get(k)]
    return text + (f" ({', '.join(others)})" if others else "")


def transition_matrix(true: Labels, given: Labels, num_classes: int) -> NDArray[np.float64]:
    """[K, K], entry (i, j) = share of samples of true class i that were given label j; a class without samples keeps 1."""
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (true, given), 1.0)
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, counts / np.maximum(totals, 1.0), np.eye(num_classes))


def draw(identity: dict[str, Any], data: NoiseInput, dataset: dict[str, Any], seed: int) -> NoisyLabels:
    """Draw the artefact for (data set, specification, seed). Raises `FieldError` where noise and data set do not fit."""
    cls = noise_class(identity["kind"])
    kind = cls(**{key: value for key, value in identity.items() if key not in ("kind", "version")})
    rng = np.random.Generator(np.random.PCG64(stream_seed("noise", dataset, identity, seed)))
    given = kind.apply(data, rng)
    if given.shape != data.labels.shape or given.min() < 0 or given.max() >= data.num_classes:
        raise FieldError("noise", f"{cls.slug} produced labels of shape {given.shape} outside [0, {data.num_classes})")
    return NoisyLabels(
        labels=given.astype(np.int64),
        rate=float((given != data.labels).mean()),
        matrix=transition_matrix(data.labels, given, data.num_classes),
        nominal=kind.nominal,
        definition=kind.definition(),
    )


def artefact(
    identity: dict[str, Any], data: NoiseInput, dataset: dict[str, Any], seed: int, store: Path | None
) -> NoisyLabels:
    """The artefact from the `store` folder, or drawn now and stored there.

    A stored file that is damaged or differs from what its specification draws is replaced; labels are cheap to draw, so
    they are always drawn and the file serves as the shared, inspectable copy whose hash the records quote.
    """
    from bench.records import write_atomic

    result = draw(identity, data, dataset, seed)
    if store is not None:
        key = hashlib.sha256(canonical_json([dataset, identity, seed]).encode()).hexdigest()[:16]
        path = Path(store) / f"{dataset['name']}-{identity['kind']}-{key}.npz"
        if not path.exists() or _stored_sha256(path) != result.sha256:
            buffer = io.BytesIO()
            np.savez_compressed(
                buffer, labels=result.labels, matrix=result.matrix, rate=result.rate,
                specification=canonical_json({"dataset": dataset, "noise": identity, "seed": seed}),
                definition=result.definition, sha256=result.sha256,
            )  # fmt: skip
            write_atomic(path, buffer.getvalue())
    return result


def _stored_sha256(path: Path) -> str | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return hashlib.sha256(stored["labels"].astype("<i8").tobytes()).hexdigest()
    except (OSError, ValueError, KeyError, EOFError):
        return None
    except Exception as error:  # zipfile.BadZipFile and zlib.error have no common base
        if type(error).__module__ in ("zipfile", "zlib"):
            return None
        raise
