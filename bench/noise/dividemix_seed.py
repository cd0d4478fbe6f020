"""DivideMix's label generator and ScanMix's variant of it, bit for bit (Li et al., 2020; Sachdeva et al., 2021)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np

from bench.fields import FieldError, Range
from bench.noise import Labels, NoiseInput, NoiseKind


class DivideMixSeed(NoiseKind):
    """The labels that DivideMix's program writes when it is started with `seed`; all cell seeds get the same ones.

    Python's generator is seeded, a list of all sample numbers shuffled, its first int(rate * N) entries are touched. Then
    samples are walked in order; symmetric mode draws randint(0, K-1) for each touched one, asymmetric mode maps it and
    draws nothing. The touched sets of two rates are nested. ScanMix shuffles a second list of the same length in between.
    """

    slug = "dividemix-seed"
    summary = "DivideMix's generator with its seed, bit for bit (seed 123), and ScanMix's variant with one more shuffle"

    rate: Annotated[float, Range(ge=0, le=1)] = 0.5
    mode: Literal["sym", "asym"] = "sym"
    variant: Literal["dividemix", "scanmix"] = "dividemix"
    #: what the program is started with (`--seed`)
    seed: int = 123

    @classmethod
    def misfit(cls, dataset: Any, fields: Mapping[str, Any] | None = None) -> str | None:
        if (fields or {}).get("mode") != "asym":
            return None
        if getattr(dataset, "superclasses", ()):
            return f"the program has no map for {dataset.slug}; use asymmetric with `map: superclass` or `map: blocks`"
        return None if dataset.confusable else f"{dataset.slug} has no map of confusable classes"

    @property
    def recipe_kind(self) -> str:
        return {"sym": "symmetric", "asym": "asymmetric"}[self.mode]

    def definition(self) -> str:
        who = "DivideMix's" if self.variant == "dividemix" else "ScanMix's"
        what = {
            "sym": "relabelled uniformly with any of the K classes, their own included",
            "asym": "drawn, those of mapped classes take the confusable label",
        }[self.mode]
        return f"{who} generator with seed {self.seed}: exactly int({self.rate:g} N) samples {what}; the same for all seeds"

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        generator = random.Random(self.seed)
        chosen = self._shuffled(generator, len(data.labels))
        given = data.labels.copy()
        if self.mode == "asym":
            if not data.confusions:
                raise FieldError("noise", "asymmetric noise needs a map of confusable classes, and this data set has none")
            target = np.arange(data.num_classes)
            target[list(data.confusions)] = list(data.confusions.values())
            given[chosen] = target[given[chosen]]
        else:
            last = data.num_classes - 1
            given[np.sort(chosen)] = [generator.randint(0, last) for _ in chosen]
        return given

    def touched(self, count: int) -> Labels:
        """The touched samples of `count`, in the order of the shuffled list (what ScanMix's files call closed_noise)."""
        return self._shuffled(random.Random(self.seed), count)

    def _shuffled(self, generator: random.Random, count: int) -> Labels:
        order = list(range(count))
        generator.shuffle(order)
        if self.variant == "scanmix":  # a list for open-set noise, which the program shuffles and does not use
            generator.shuffle(list(range(count)))
        return np.array(order[: int(self.rate * count)], dtype=np.int64)

    def expected(self, data: NoiseInput) -> float | None:
        if self.mode == "sym":
            return self.rate * (1 - 1 / data.num_classes)
        moving = np.isin(data.labels, [a for a, b in data.confusions.items() if a != b])
        return self.rate * float(moving.mean())
