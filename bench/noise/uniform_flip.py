"""Uniform flips of binary labels, as llc-dro corrupts Waterbirds and CelebA (Chen et al., 2022)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np

from bench.fields import Range
from bench.noise import Labels, NoiseInput, NoiseKind


class UniformFlip(NoiseKind):
    slug = "uniform-flip"
    summary = "binary labels flipped, uniformly over all training samples"

    rate: Annotated[float, Range(ge=0, le=1)] = 0.3
    #: exact: int(rate * N) samples; coin: each sample with probability rate
    touched: Literal["exact", "coin"] = "exact"

    @classmethod
    def misfit(cls, dataset: Any) -> str | None:
        return None if dataset.num_classes == 2 else f"{dataset.slug} has {dataset.num_classes} classes, not two; use symmetric"

    def definition(self) -> str:
        if self.touched == "exact":
            return f"exactly int({self.rate:g} N) training labels flipped, uniformly over samples and so over groups"
        return f"each training label flipped with probability {self.rate:g}"

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        count = len(data.labels)
        if self.touched == "exact":
            chosen = rng.permutation(count)[: int(self.rate * count)]
        else:
            chosen = np.flatnonzero(rng.random(count) < self.rate)
        given = data.labels.copy()
        given[chosen] = 1 - given[chosen]
        return given
