"""Symmetric (uniform) noise, with the conventions in circulation as explicit fields."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from bench.fields import FieldError, Range
from bench.noise import Labels, NoiseInput, NoiseKind
from bench.noise._choose import touched_samples


class Symmetric(NoiseKind):
    """A share `rate` of the samples gets a random label.

    | convention | fields | wrong labels | used by |
    |---|---|---|---|
    | A | touched: exact, own_class: true (the default) | rate (1 - 1/K) | DivideMix and the tables built on it |
    | B | touched: coin, own_class: false | rate | Co-teaching, JoCoR, SELFIE, PLC's hybrid noise |
    | C | touched: exact, own_class: false | exactly int(rate N) | MOIT, ODNL |
    | D | touched: per-class, own_class: false | exactly int(rate N_c) in each class | RoG, Nested Co-teaching |
    | E | touched: coin, own_class: true | rate (1 - 1/K) | M-correction, PENCIL; TABASCO after `longtail` |

    A's "50 %" changes 45 % of CIFAR-10's labels: never compare an A number with a C number.
    """

    slug = "symmetric"
    summary = "uniform relabelling; default: exact count, own class included (DivideMix's convention)"
    neutral = {"targets": "uniform"}

    rate: Annotated[float, Range(ge=0, le=1)] = 0.5
    #: exact: int(rate * N) samples; per-class: int(rate * N_c) of every class; coin: each sample with probability rate
    touched: Literal["exact", "per-class", "coin"] = "exact"
    #: may a touched sample keep its own label by chance?
    own_class: bool = True
    #: uniform over classes, or in proportion to the class frequencies, so that a long tail stays one (RoLT, H2E)
    targets: Literal["uniform", "frequency"] = "uniform"

    def definition(self) -> str:
        who = {
            "exact": f"exactly int({self.rate:g} N) samples",
            "per-class": f"exactly int({self.rate:g} N_c) samples of every class c",
            "coin": f"each sample with probability {self.rate:g}",
        }[self.touched]
        what = "any of the K classes, its own included" if self.own_class else "one of the K-1 other classes"
        how = "uniformly" if self.targets == "uniform" else "in proportion to class frequencies"
        return f"{who} relabelled {how} with {what}"

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        classes = data.num_classes
        if classes < 2 and not self.own_class:
            raise FieldError("noise", "symmetric noise without the own class needs a second class")
        given = data.labels.copy()
        chosen = touched_samples(data.labels, classes, self.rate, self.touched, rng)
        if self.targets == "frequency":
            given[chosen] = self._by_frequency(data, given[chosen], rng)
        elif self.own_class:
            given[chosen] = rng.integers(0, classes, len(chosen))
        else:
            given[chosen] = (given[chosen] + rng.integers(1, classes, len(chosen))) % classes
        return given

    def _by_frequency(self, data: NoiseInput, labels: Labels, rng: np.random.Generator) -> Labels:
        share = _frequencies(data)
        upper = share.cumsum()
        if self.own_class:
            point = rng.random(len(labels)) * upper[-1]
        else:  # a point on the line of all classes with the own one cut out
            point = rng.random(len(labels)) * (upper[-1] - share[labels])
            point += np.where(point >= upper[labels] - share[labels], share[labels], 0.0)
        found = np.searchsorted(upper, point, side="right")
        return np.minimum(found, np.flatnonzero(share)[-1])

    def expected(self, data: NoiseInput) -> float:
        if not self.own_class:
            return self.rate
        share = _frequencies(data) if self.targets == "frequency" else np.full(data.num_classes, 1 / data.num_classes)
        return self.rate * float(1 - (share * _frequencies(data)).sum())


def _frequencies(data: NoiseInput) -> NDArray[np.float64]:
    return np.bincount(data.labels, minlength=data.num_classes) / len(data.labels)
