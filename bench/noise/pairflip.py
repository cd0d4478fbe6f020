"""Pairflip: every class is taken for one other class (Han et al., 2018)."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from bench.fields import FieldError, Range
from bench.noise import Labels, NoiseInput, NoiseKind
from bench.noise._choose import touched_samples

#: the seed with which GLC, and TABASCO after it, draw one target per row
_TARGET_SEED = 1


class Pairflip(NoiseKind):
    """Touched samples of class c take the label c + 1 (the last class: 0); every class moves, so the rate is the rate."""

    slug = "pairflip"
    summary = "each class flips to the next one (Co-teaching), or to one random class (TABASCO's flip)"

    rate: Annotated[float, Range(ge=0, le=1)] = 0.45
    #: coin: each sample with probability rate; exact: int(rate * N); per-class: int(rate * N_c) of every class
    touched: Literal["coin", "exact", "per-class"] = "coin"
    #: next: class c to c + 1 mod K; random: one other class per class, the same draw for all seeds (NumPy seed 1)
    target: Literal["next", "random"] = "next"

    def definition(self) -> str:
        who = {
            "exact": f"exactly int({self.rate:g} N) samples take",
            "per-class": f"exactly int({self.rate:g} N_c) samples of every class c take",
            "coin": f"each sample takes, with probability {self.rate:g},",
        }[self.touched]
        what = "the label of the next class" if self.target == "next" else "the label of one other class, drawn once per class"
        return f"{who} {what}"

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        if data.num_classes < 2:
            raise FieldError("noise", "pairflip needs at least two classes")
        chosen = touched_samples(data.labels, data.num_classes, self.rate, self.touched, rng)
        given = data.labels.copy()
        given[chosen] = self.targets(data.num_classes)[given[chosen]]
        return given

    def targets(self, num_classes: int) -> Labels:
        """int64 [K]: where each class goes."""
        classes = np.arange(num_classes)
        if self.target == "next":
            return (classes + 1) % num_classes
        legacy = np.random.RandomState(_TARGET_SEED)  # a private generator of the kind that the published code seeds
        return np.array([legacy.choice(classes[classes != c]) for c in classes])

    def expected(self, data: NoiseInput) -> float:
        return self.rate
