"""Given labels from a file: any vector that was published, or exported with `bench noise export`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from bench.fields import FieldError, Range, nearest
from bench.noise import Corruption, Labels, NoiseInput, NoiseKind, PlannedNoise, noises, sha256_of
from bench.noise._readers import read_labels, split_location, split_stored, stored_location


class FileNoise(NoiseKind):
    """The label vector of a file (.json, .npy, .npz, .pt, .csv), one label per training image in the data set's order.

    What a cell knows of it is the sha256 of the vector (as little-endian int64), never the path. A suite that gives the
    sha256 beside the path can be planned where the file is not.
    """

    slug = "file"
    summary = "a published label vector: .json (DivideMix, ScanMix), .npy, .npz, .pt, .csv; known by its sha256"
    short_field = "path"
    local = frozenset({"path", "key", "name", "rate", "like"})

    #: relative to the suite, else to the data folder; `key` names the vector where a file holds several
    path: str = ""
    key: str = ""
    #: of the vector; computed from the file when a suite is planned, checked when it is given
    sha256: str = ""
    #: all: one label per training image; first: the file labels the first M, and the others leave the training set
    extent: Literal["all", "first"] = "all"
    #: what tables call it; the name of the file otherwise
    name: str = ""
    #: the nominal rate it was published under, which recipes may match on
    rate: Annotated[float | None, Range(ge=0, le=1)] = None
    #: the kind of noise it is, which recipes may match on: `symmetric`, `asymmetric` or another kind
    like: str = ""

    @classmethod
    def plan(cls, params: Mapping[str, Any], folders: Sequence[Path]) -> PlannedNoise:
        noise = cls(**params)
        if not (noise.path or noise.sha256):
            raise FieldError("path", "noise from a file needs its path", "for example file@noise/0.5_sym.json")
        if noise.like not in ("", *noises()):
            raise FieldError("like", f"unknown kind of noise {noise.like!r}", nearest(noise.like, noises()))
        path, key = split_location(noise.path, lambda place: _find(place, folders))
        key = noise.key or key
        found = _find(path, folders) if noise.path else None
        sha256 = noise.sha256.lower()
        if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
            raise FieldError("sha256", f"{noise.sha256!r} is no SHA-256", "64 hexadecimal digits")
        if found is None and not sha256:
            places = ", ".join(str(folder / path) for folder in folders) or str(path)
            hint = "give its sha256 too to plan without the file"
            raise FieldError("path", f"no file {noise.path}; looked for {places}", hint)
        if found is not None:
            actual = sha256_of(read_labels(found, key))
            if sha256 not in ("", actual):
                raise FieldError("sha256", f"{found}: the labels have the sha256 {actual}, not {sha256}")
            sha256 = actual
        identity = {
            "kind": cls.slug,
            "version": cls.version,
            **cls.identity({"sha256": sha256, "extent": noise.extent}),
        }
        label = noise.name or (f"{cls.slug}@{path.name}" + (f"#{key}" if key else "") if noise.path else cls.label(identity))
        files = {sha256: stored_location(found, key)} if found else {}
        return PlannedNoise(identity, label, noise.rate or 0.0, files, noise.recipe_kind)

    @classmethod
    def label(cls, identity: Mapping[str, Any]) -> str:
        return f"{cls.slug} {identity['sha256'][:12]}".strip()

    @property
    def nominal(self) -> None:
        return None  # a nominal rate is what a suite calls the file, and not part of the cell

    @property
    def recipe_kind(self) -> str:
        return self.like or self.slug

    def definition(self) -> str:
        rest = "" if self.extent == "all" else "; images beyond its length leave the training set"
        return f"the label vector with sha256 {self.sha256}{rest}"

    def corrupt(self, data: NoiseInput, rng: np.random.Generator) -> Corruption:
        stored = data.files.get(self.sha256)
        if stored is None:
            raise FieldError("path", f"no file is known for the label vector with sha256 {self.sha256}")
        path, key = split_stored(stored)
        location = f"{path}#{key}" if key else str(path)
        labels = read_labels(path, key)
        actual = sha256_of(labels)
        if actual != self.sha256:
            raise FieldError(
                "sha256", f"{location}: the file has changed; its labels have the sha256 {actual}, not {self.sha256}"
            )
        return fitted(labels, data, location, self.extent)

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        return self.corrupt(data, rng).labels


def fitted(labels: Labels, data: NoiseInput, location: str, extent: str) -> Corruption:
    """The labels of a file on a data set; raises `FieldError` naming the file where length or range do not fit."""
    count = len(data.labels)
    short = extent == "first" and len(labels) < count
    if len(labels) != count and not short:
        hint = "`extent: first` keeps the first images alone" if len(labels) < count else ""
        raise FieldError("path", f"{location}: {len(labels)} labels, and the training set has {count} images", hint)
    wrong = np.flatnonzero((labels < 0) | (labels >= data.num_classes))
    if len(wrong):
        first = int(wrong[0])
        message = f"{location}: label {labels[first]} of image {first} is outside [0, {data.num_classes})"
        raise FieldError("path", message + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""))
    return Corruption(labels, keep=np.arange(len(labels)) if short else None)


def _find(path: Path, folders: Sequence[Path]) -> Path | None:
    places = [path.expanduser()] if path.is_absolute() or not folders else [folder / path for folder in folders]
    return next((place.resolve() for place in places if place.is_file()), None)
