"""Uniform flips of binary labels, as llc-dro corrupts Waterbirds and CelebA (Chen et al., 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np

from bench.fields import FieldError, Range
from bench.noise import Labels, NoiseInput, NoiseKind
from bench.noise._choose import touched_samples


class UniformFlip(NoiseKind):
    slug = "uniform-flip"
    summary = "binary labels flipped, uniformly over all training samples"

    rate: Annotated[float, Range(ge=0, le=1)] = 0.3
    #: exact: int(rate * N) samples; coin: each sample with probability rate
    touched: Literal["exact", "coin"] = "exact"

    @classmethod
    def misfit(cls, dataset: Any, fields: Mapping[str, Any] | None = None) -> str | None:
        if dataset.num_classes in (0, 2):  # 0: only the files tell
            return None
        return f"{dataset.slug} has {dataset.num_classes} classes, not two; use symmetric"

    def definition(self) -> str:
        if self.touched == "exact":
            return f"exactly int({self.rate:g} N) training labels flipped, uniformly over samples and so over groups"
        return f"each training label flipped with probability {self.rate:g}"

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        if data.num_classes != 2:
            raise FieldError("noise", f"uniform-flip needs two classes, not {data.num_classes}", "use symmetric")
        chosen = touched_samples(data.labels, 2, self.rate, self.touched, rng)
        given = data.labels.copy()
        given[chosen] = 1 - given[chosen]
        return given

    def expected(self, data: NoiseInput) -> float:
        return self.rate
