"""No noise: the given labels are the true ones."""

from __future__ import annotations

import numpy as np

from bench.noise import Labels, NoiseInput, NoiseKind


class NoNoise(NoiseKind):
    slug = "none"
    summary = "the labels as the data set delivers them"
    short_field = ""

    def definition(self) -> str:
        return "labels as delivered"

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        return data.labels.copy()
