"""Symmetric (uniform) noise, with the conventions in circulation as explicit fields."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from bench.fields import Range
from bench.noise import Labels, NoiseInput, NoiseKind


class Symmetric(NoiseKind):
    """A share `rate` of the samples gets a random label.

    The default (exact count, own class included) is what DivideMix and the tables built on it use; their "50 %" changes
    45 % of CIFAR-10's labels. With `own_class: false` the rate is the share of wrong labels.
    """

    slug = "symmetric"
    summary = "uniform relabelling; default: exact count, own class included (DivideMix's convention)"

    rate: Annotated[float, Range(ge=0, le=1)] = 0.5
    #: exact: int(rate * N) samples; per-class: int(rate * N_c) of every class; coin: each sample with probability rate
    touched: Literal["exact", "per-class", "coin"] = "exact"
    #: may a touched sample keep its own label by chance?
    own_class: bool = True

    def definition(self) -> str:
        who = {
            "exact": f"exactly int({self.rate:g} N) samples",
            "per-class": f"exactly int({self.rate:g} N_c) samples of every class c",
            "coin": f"each sample with probability {self.rate:g}",
        }[self.touched]
        what = "any of the K classes, its own included" if self.own_class else "one of the K-1 other classes"
        return f"{who} relabelled uniformly with {what}"

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        given, count = data.labels.copy(), len(data.labels)
        if self.touched == "exact":
            chosen = rng.permutation(count)[: int(self.rate * count)]
        elif self.touched == "coin":
            chosen = np.flatnonzero(rng.random(count) < self.rate)
        else:
            members = [np.flatnonzero(data.labels == c) for c in range(data.num_classes)]
            chosen = np.concatenate([rng.permutation(m)[: int(self.rate * len(m))] for m in members])
        if self.own_class:
            given[chosen] = rng.integers(0, data.num_classes, len(chosen))
        else:
            given[chosen] = (given[chosen] + rng.integers(1, data.num_classes, len(chosen))) % data.num_classes
        return given
