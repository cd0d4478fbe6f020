"""No noise of ours: the given labels are those that the data set delivers."""

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

    def expected(self, data: NoiseInput) -> float:
        return float((data.labels != data.truth).mean())
