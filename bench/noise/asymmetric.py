"""Asymmetric noise: labels move to a confusable class along a fixed map (Patrini et al., 2017)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np

from bench.fields import FieldError, Range
from bench.noise import Labels, NoiseInput, NoiseKind
from bench.noise._choose import touched_samples

BLOCK = 5


class Asymmetric(NoiseKind):
    """Touched samples take the label that a map of confusable classes gives them.

    Classes without an arrow keep their label, so where half of the classes move the measured rate is about rate / 2.
    CIFAR-100 has two maps of the same name in the literature, which are different noises; one of them must be chosen.
    """

    slug = "asymmetric"
    summary = "class-dependent flips along a map: the data set's, blocks of five class numbers, or true superclasses"
    neutral = {"map": "dataset"}

    rate: Annotated[float, Range(ge=0, le=1)] = 0.4
    #: exact: int(rate * N) of ALL samples are touched, then mapped (DivideMix); per-class: int(rate * N_c) of every
    #: source class (Nested Co-teaching); coin: each sample of a source class with probability rate (Patrini);
    #: sequential: classes in order, rate of all that carry the class's label by then, so that what moved to a later
    #: class can move again (ELR: 18.4 % wrong at 0.4 on CIFAR-10)
    touched: Literal["exact", "per-class", "coin", "sequential"] = "exact"
    #: dataset: its map of confusable classes; blocks: class i to the next in its block of five numbers, the last to the
    #: first (Patrini's CIFAR-100, ELR, PLC, SELC); superclass: the same within true superclasses (MOIT, Sel-CL, PropMix)
    map: Literal["dataset", "blocks", "superclass"] = "dataset"

    @classmethod
    def misfit(cls, dataset: Any, fields: Mapping[str, Any] | None = None) -> str | None:
        superclasses = getattr(dataset, "superclasses", ())
        wanted = (fields or {}).get("map", "dataset")
        if wanted == "superclass" and not superclasses:
            return f"{dataset.slug} has no superclasses"
        if wanted == "blocks" and dataset.num_classes % BLOCK:
            return f"{dataset.slug} has {dataset.num_classes} classes, which are no blocks of {BLOCK}"
        if wanted == "dataset" and fields is not None and superclasses:
            return f"two noises of {dataset.slug} have this name; choose `map: superclass` or `map: blocks`"
        if wanted == "dataset" and not dataset.confusable:
            return f"{dataset.slug} has no map of confusable classes"
        return None

    def definition(self) -> str:
        who = {
            "exact": f"exactly int({self.rate:g} N) of all samples drawn, those of mapped classes take the confusable label",
            "per-class": f"exactly int({self.rate:g} N_c) samples of every mapped class c take the confusable label",
            "coin": f"each sample of a mapped class takes the confusable label with probability {self.rate:g}",
            "sequential": f"mapped classes in order, a share {self.rate:g} of all samples that then carry the label takes "
            "the confusable one",
        }[self.touched]
        where = {
            "dataset": "",
            "blocks": "; class numbers in blocks of five, each to the next, the last to the first",
            "superclass": "; within true superclasses, each class to the next, the last to the first",
        }[self.map]
        return who + where

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        target = self.targets(data)
        given = data.labels.copy()
        if self.touched == "sequential":
            for source in np.flatnonzero(target != np.arange(data.num_classes)):
                members = rng.permutation(np.flatnonzero(given == source))
                given[members[: math.ceil(self.rate * len(members))]] = target[source]
            return given
        chosen = touched_samples(data.labels, data.num_classes, self.rate, self.touched, rng)
        given[chosen] = target[given[chosen]]
        return given

    def targets(self, data: NoiseInput) -> Labels:
        """int64 [K]: where each class goes; itself where it stays. Raises `FieldError` when the data set has no such map."""
        target = np.arange(data.num_classes)
        if self.map == "blocks":
            if data.num_classes % BLOCK:
                raise FieldError("map", f"{data.num_classes} classes are no blocks of {BLOCK}")
            return target // BLOCK * BLOCK + (target + 1) % BLOCK
        if self.map == "superclass":
            if not data.superclasses:
                raise FieldError("map", "this data set has no superclasses", "choose another map")
            groups = np.asarray(data.superclasses)
            for group in np.unique(groups):
                members = np.flatnonzero(groups == group)
                target[members] = np.roll(members, -1)
            return target
        if not data.confusions:
            raise FieldError("noise", "asymmetric noise needs a map of confusable classes, and this data set has none")
        for source, confusable in data.confusions.items():
            target[source] = confusable
        return target

    def expected(self, data: NoiseInput) -> float:
        """For `sequential` by following the expected masses, else the share of the classes that move."""
        target = self.targets(data)
        mass = np.diag(np.bincount(data.labels, minlength=data.num_classes) / len(data.labels))  # [true, given]
        before = mass.copy()
        for source in np.flatnonzero(target != np.arange(data.num_classes)):
            moved = self.rate * (mass if self.touched == "sequential" else before)[:, source]
            mass[:, source] -= moved
            mass[:, target[source]] += moved
        return float(mass.sum() - mass.trace())
