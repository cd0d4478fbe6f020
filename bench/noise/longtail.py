"""Class imbalance: a long tail of class sizes (Cui et al., 2019; TABASCO, Lu et al., 2023). Changes the set of samples."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from bench.fields import FieldError, Range
from bench.noise import Corruption, Labels, NoiseInput, NoiseKind


class LongTail(NoiseKind):
    """Class c keeps int(N / K * ratio ** (c / (K - 1))) samples, a random part of it; class 0 is the largest.

    Labels stay as they are. Put label noise after it: `longtail@0.1 + symmetric@0.4`. Classes are true classes; test data
    stay balanced. Papers often give the inverse of `ratio`, the imbalance factor 10 or 100.
    """

    slug = "longtail"
    summary = "class sizes that fall exponentially to `ratio` times the first; combine: longtail@0.1 + symmetric@0.4"
    short_field = "ratio"

    ratio: Annotated[float, Range(gt=0, le=1)] = 0.1

    def definition(self) -> str:
        return f"class c of 0..K-1 keeps int(N/K * {self.ratio:g}^(c/(K-1))) random samples, labels unchanged"

    def corrupt(self, data: NoiseInput, rng: np.random.Generator) -> Corruption:
        true, classes = data.truth, data.num_classes
        kept = []
        for c in range(classes):
            size = int(len(true) / classes * self.ratio ** (c / max(1, classes - 1)))
            kept.append(rng.permutation(np.flatnonzero(true == c))[:size])
            if not len(kept[-1]):
                name = data.class_names[c] if c < len(data.class_names) else c
                raise FieldError("ratio", f"class {name} would keep no sample at ratio {self.ratio:g}", "choose a larger one")
        keep = np.sort(np.concatenate(kept))
        return Corruption(data.labels[keep], keep=keep)

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        return self.corrupt(data, rng).labels
