"""Asymmetric noise: labels move to a confusable class along a fixed map (Patrini et al., 2017)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np

from bench.fields import Range
from bench.noise import Labels, NoiseInput, NoiseKind


class Asymmetric(NoiseKind):
    """Touched samples take the label that the data set's map of confusable classes gives them.

    Classes without an arrow keep their label, so where half of the classes move the measured rate is about rate / 2.
    """

    slug = "asymmetric"
    summary = "class-dependent flips along the data set's map of confusable classes"

    rate: Annotated[float, Range(ge=0, le=1)] = 0.4
    #: exact: int(rate * N) of ALL samples are touched, then mapped (DivideMix); per-class: int(rate * N_c) of every
    #: source class; coin: each sample of a source class with probability rate
    touched: Literal["exact", "per-class", "coin"] = "exact"

    @classmethod
    def misfit(cls, dataset: Any) -> str | None:
        return None if dataset.confusable else f"{dataset.slug} has no map of confusable classes"

    def definition(self) -> str:
        return {
            "exact": f"exactly int({self.rate:g} N) of all samples drawn, those of mapped classes take the confusable label",
            "per-class": f"exactly int({self.rate:g} N_c) samples of every mapped class c take the confusable label",
            "coin": f"each sample of a mapped class takes the confusable label with probability {self.rate:g}",
        }[self.touched]

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        target = np.arange(data.num_classes)
        for source, confusable in data.confusions.items():
            target[source] = confusable
        count = len(data.labels)
        if self.touched == "exact":
            chosen = rng.permutation(count)[: int(self.rate * count)]
        elif self.touched == "coin":
            chosen = np.flatnonzero(rng.random(count) < self.rate)
        else:
            members = [np.flatnonzero(data.labels == c) for c in range(data.num_classes)]
            chosen = np.concatenate([rng.permutation(m)[: int(self.rate * len(m))] for m in members])
        given = data.labels.copy()
        given[chosen] = target[given[chosen]]
        return given
