"""The noise artefact (law 4): drawn once for (data set, specification, seed), measured, hashed, stored."""

from __future__ import annotations

import functools
import hashlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.cell import canonical_json, stream_seed
from bench.fields import FieldError
from bench.interrupts import finishing
from bench.noise._base import Corruption, Labels, NoiseInput, NoiseKind, Replaced


@dataclass(frozen=True)
class NoisyLabels:
    """A noise artefact: given labels int64 [M], measured rate, row-normalised matrix [K, K] (rows are true classes).

    `true` int64 [M] are the true labels of the same samples, -1 where the picture shows none of the classes (open-set);
    such samples count as wrong in `rate` and are left out of `matrix`. `keep` int64 [M] are the training samples that
    stay, ascending, None when all do. `replaced` are the pictures that the harness has to exchange, after `keep`.
    """

    labels: Labels
    rate: float
    matrix: NDArray[np.float64]
    nominal: float | None
    definition: str
    true: Labels
    keep: Labels | None = None
    replaced: Replaced | None = None
    #: the rate that the convention promises on average, None where it promises none
    expected: float | None = None

    @functools.cached_property
    def sha256(self) -> str:
        """Of the given labels as little-endian int64; where samples leave or pictures are replaced also of these."""
        arrays = [self.labels]
        if self.keep is not None:
            arrays.append(self.keep)
        if self.replaced is not None:
            arrays += [self.replaced.position, self.replaced.index]
        return sha256_of(*arrays)


def sha256_of(*arrays: Labels) -> str:
    """SHA-256 (hexadecimal) of integer vectors as little-endian int64."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return digest.hexdigest()


def transition_matrix(true: Labels, given: Labels, num_classes: int) -> NDArray[np.float64]:
    """[K, K], entry (i, j) = share of samples of true class i that were given label j; a class without samples keeps 1."""
    counts = transition_counts(true, given, num_classes).astype(np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, counts / np.maximum(totals, 1.0), np.eye(num_classes))


def transition_counts(true: Labels, given: Labels, num_classes: int) -> Labels:
    """int64 [K, K]: samples of true class i that were given label j."""
    return np.bincount(true * num_classes + given, minlength=num_classes**2).reshape(num_classes, num_classes)


def build(identity: dict[str, Any]) -> NoiseKind:
    """The kind of a noise axis with its fields set."""
    from bench.noise import noise_class

    return noise_class(identity["kind"])(**{k: v for k, v in identity.items() if k not in ("kind", "version")})


def draw(identity: dict[str, Any], data: NoiseInput, dataset: dict[str, Any], seed: int) -> NoisyLabels:
    """Draw the artefact for (data set, specification, seed). Raises `FieldError` where noise and data set do not fit."""
    kind = build(identity)
    rng = np.random.Generator(np.random.PCG64(stream_seed("noise", dataset, identity, seed)))
    made = checked(kind.corrupt(data, rng), data, kind.slug)
    true = data.truth if made.keep is None else data.truth[made.keep]
    closed = np.ones(len(true), dtype=bool)
    if made.replaced is not None:
        closed[made.replaced.position] = False
    true = np.where(closed, true, -1)
    return NoisyLabels(
        labels=made.labels.astype(np.int64),
        rate=float((made.labels != true).mean()),
        matrix=transition_matrix(true[closed], made.labels[closed], data.num_classes),
        nominal=kind.nominal,
        definition=kind.definition(),
        true=true,
        keep=made.keep,
        replaced=made.replaced,
        expected=kind.expected(data),
    )


def checked(made: Corruption, data: NoiseInput, slug: str) -> Corruption:
    """`made`, or a `FieldError` that names the kind when its labels, kept samples or replaced ones are impossible."""
    count = len(data.labels)
    if made.keep is not None:
        keep = made.keep
        if keep.ndim != 1 or len(keep) == 0 or keep[0] < 0 or keep[-1] >= count or (np.diff(keep) <= 0).any():
            raise FieldError("noise", f"{slug} kept samples that are no ascending selection of {count}")
        count = len(keep)
    labels = made.labels
    if labels.shape != (count,) or labels.min() < 0 or labels.max() >= data.num_classes:
        raise FieldError("noise", f"{slug} produced labels of shape {labels.shape} outside [0, {data.num_classes})")
    if made.replaced is not None:
        position = made.replaced.position
        unique = len(np.unique(position)) == len(position) == len(made.replaced.index)
        if not unique or (len(position) and (position.min() < 0 or position.max() >= count)):
            raise FieldError("noise", f"{slug} replaced pictures outside [0, {count}) or one of them twice")
    return made


def artefact_name(identity: dict[str, Any], dataset: dict[str, Any], seed: int) -> str:
    """Its file in the folder of artefacts."""
    key = hashlib.sha256(canonical_json([dataset, identity, seed]).encode()).hexdigest()[:16]
    return f"{dataset['name']}-{identity['kind']}-{key}.npz"


def artefact(
    identity: dict[str, Any], data: NoiseInput, dataset: dict[str, Any], seed: int, store: Path | None,
    warn: Callable[[str], None] = warnings.warn,
) -> NoisyLabels:  # fmt: skip
    """The artefact, drawn now and kept in the `store` folder; `warn` is told where it cannot be kept.

    Labels are cheap to draw (what is not, the output of label-making networks, has its own cache), so they are always
    drawn and the file serves as the shared, inspectable copy whose hash the records quote; a damaged one is replaced.
    """
    from bench.records import write_atomic

    result = draw(identity, data, dataset, seed)
    if store is not None:
        path = Path(store) / artefact_name(identity, dataset, seed)
        more: dict[str, Any] = {} if result.keep is None else {"keep": result.keep}
        if result.replaced is not None:
            more |= {"replaced": np.stack([result.replaced.position, result.replaced.index])}
        buffer = io.BytesIO()
        with finishing():  # a zip file cannot be torn down half written
            np.savez_compressed(
                buffer, labels=result.labels, matrix=result.matrix, rate=result.rate,
                specification=canonical_json({"dataset": dataset, "noise": identity, "seed": seed}),
                definition=result.definition, sha256=result.sha256, **more,
            )  # fmt: skip
        # Compared byte by byte, never parsed: a zip file can be damaged in ways that only some reader would notice.
        try:
            if not path.exists() or path.read_bytes() != buffer.getvalue():
                write_atomic(path, buffer.getvalue())
        except OSError as error:  # the labels are right all the same
            warn(f"the noise artefact {path.name} could not be kept ({error.strerror or error})")
    return result
