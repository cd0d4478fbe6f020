"""Part-dependent instance noise (Xia et al., 2020, "Part-dependent label noise"; often just IDN)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.fields import FieldError, Range
from bench.noise import Labels, NoiseInput, NoiseKind
from bench.noise._choose import draw_from_rows, touched_samples

#: images that are projected at a time: small enough for the cache of a core
_CHUNK = 128
#: entries of the Gaussian matrices are multiples of this. Pixels are whole numbers below 256, so every sum of products
#: below is exact in float64, and the labels do not depend on the order in which a machine or its threads add
_GRID = 2.0**-20


class InstancePTD(NoiseKind):
    """Each sample has its own flip rate and its own target distribution, a random projection of its picture.

    q_i ~ Normal(rate, spread^2) truncated to [0, 1]; for each class c a standard normal matrix W_c [d, K]; the target
    distribution is softmax(x_i W_{y_i}) without the own class, times q_i. Where truncation bites, the measured rate is above
    `rate` (0.1 gives 12.9 %). The scale of x matters: on raw or [0, 1] pixels the common brightness decides, and most errors
    of a class go to one target (nearly a pairflip); on normalised pixels they spread.
    """

    slug = "instance-ptd"
    summary = "instance-dependent, part-dependent (Xia et al. 2020): random projections of the picture choose the wrong class"

    rate: Annotated[float, Range(ge=0, le=1)] = 0.4
    #: what is projected: pixels 0..255 (raw), 0..1 (unit), or with the data set's mean and deviation per channel (normalised)
    input: Literal["raw", "unit", "normalised"] = "normalised"
    #: standard deviation of the flip rates
    spread: Annotated[float, Range(ge=0, le=1)] = 0.1
    #: rates: flip rates as above; exact: exactly int(rate N) samples flip, drawn uniformly (ODNL's "dependent")
    touched: Literal["rates", "exact"] = "rates"

    def definition(self) -> str:
        if self.touched == "exact":
            who = f"exactly int({self.rate:g} N) samples flip"
        else:
            who = f"sample i flips with probability q_i ~ Normal({self.rate:g}, {self.spread:g}^2) truncated to [0, 1]"
        scale = {"raw": "0..255", "unit": "0..1", "normalised": "normalised per channel"}[self.input]
        how = f"the softmax of its pixels ({scale}) times a Gaussian matrix of its class"
        return f"{who}, to a class drawn from {how}, own class excluded"

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        pixels = data.need_pixels(self.slug)
        count, given = len(data.labels), data.labels.copy()
        if self.rate == 0 or data.num_classes < 2:  # a truncated normal around 0 would still flip some
            return given
        flips = self._flips(data, rng)
        uniform = rng.random(count)
        shape, scaling = pixels(np.arange(1)).shape[1:], self._scaling(data)
        with _one_thread():  # products of this shape gain nothing from threads, and lose much on a busy machine
            for c in range(data.num_classes):
                members = np.flatnonzero(data.labels == c)
                project = _Projection(shape, scaling, data.num_classes, rng)
                for start in range(0, len(members), _CHUNK):
                    index = members[start : start + _CHUNK]
                    target = draw_from_rows(_softmax_without(project(pixels(index)), c), uniform[index])
                    given[index] = np.where(flips[index], target, c)
        return given

    def _flips(self, data: NoiseInput, rng: np.random.Generator) -> NDArray[np.bool_]:
        """bool [N]: which samples flip."""
        count = len(data.labels)
        if self.touched == "exact":
            flips = np.zeros(count, dtype=bool)
            flips[touched_samples(data.labels, data.num_classes, self.rate, "exact", rng)] = True
            return flips
        return rng.random(count) < truncated_normal(self.rate, self.spread, count, rng)

    def _scaling(self, data: NoiseInput) -> list[tuple[float, float]]:
        """x = scale * pixel + shift: one pair per channel, or one for all."""
        if self.input == "raw":
            return [(1.0, 0.0)]
        if self.input == "unit":
            return [(1 / 255, 0.0)]
        if data.statistics is None:
            raise FieldError("input", "the mean and deviation of the pixels are not known here", "input: unit")
        return [(1 / (255 * std), -mean / std) for mean, std in zip(*data.statistics(), strict=True)]

    def expected(self, data: NoiseInput) -> float | None:
        if self.touched == "exact" or self.rate == 0:
            return self.rate
        return truncated_mean(self.rate, self.spread)


class _Projection:
    """uint8 images [B, C, H, W] to float64 [B, K]: their scaled pixels times a standard normal matrix, rounded to `_GRID`."""

    def __init__(
        self, shape: tuple[int, ...], scaling: list[tuple[float, float]], num_classes: int, rng: np.random.Generator
    ) -> None:
        self.scaling = scaling * shape[0] if len(scaling) == 1 else scaling
        drawn = rng.standard_normal((shape[0], shape[1] * shape[2], num_classes))
        self.matrices = np.round(drawn / _GRID) * _GRID
        self.buffer = np.empty((_CHUNK, shape[0], shape[1] * shape[2]))

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        x = self.buffer[: len(images)]
        x[...] = images.reshape(x.shape)
        result = np.zeros((len(images), self.matrices.shape[2]))
        for channel, (scale, shift) in enumerate(self.scaling):
            matrix = self.matrices[channel]
            result += scale * (x[:, channel] @ matrix) + shift * matrix.sum(axis=0)
        return result


def _one_thread() -> AbstractContextManager[Any]:
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    return threadpool_limits(1, user_api="blas")


def truncated_normal(mean: float, std: float, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """`size` draws of a normal distribution that are redrawn until they lie in [0, 1]; `mean` lies in [0, 1]."""
    drawn = mean + std * rng.standard_normal(size)
    outside = np.flatnonzero((drawn < 0) | (drawn > 1))
    while len(outside):
        drawn[outside] = mean + std * rng.standard_normal(len(outside))
        outside = outside[(drawn[outside] < 0) | (drawn[outside] > 1)]
    return drawn


def truncated_mean(mean: float, std: float) -> float:
    """Expectation of `truncated_normal`."""
    from math import erf, exp, pi, sqrt

    if std == 0:
        return mean
    low, high = -mean / std, (1 - mean) / std
    density = (exp(-low * low / 2) - exp(-high * high / 2)) / sqrt(2 * pi)
    return mean + std * density / (0.5 * (erf(high / sqrt(2)) - erf(low / sqrt(2))))


def _softmax_without(logits: NDArray[np.float64], own: int) -> NDArray[np.float64]:
    """Row-wise softmax of [B, K] with the entry `own` left out (probability 0)."""
    logits[:, own] = -np.inf
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)
