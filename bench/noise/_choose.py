"""Who is touched, and what is drawn from a row of probabilities: shared by the kinds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.fields import FieldError
from bench.noise._base import Labels


def touched_samples(labels: Labels, num_classes: int, rate: float, how: str, rng: np.random.Generator) -> Labels:
    """Sample numbers int64 [T]. exact: int(rate * N) of all; per-class: int(rate * N_c) of each class; coin: each with
    probability `rate`."""
    count = len(labels)
    if how == "exact":
        return rng.permutation(count)[: int(rate * count)]
    if how == "coin":
        return np.flatnonzero(rng.random(count) < rate)
    members = [np.flatnonzero(labels == c) for c in range(num_classes)]
    return np.concatenate([rng.permutation(m)[: int(rate * len(m))] for m in members])


def draw_from_rows(probabilities: NDArray[np.float64], uniform: NDArray[np.float64]) -> Labels:
    """One class per row of `probabilities` [N, K] by the numbers `uniform` [N] in [0, 1); classes of probability 0 never."""
    cumulative = probabilities.cumsum(axis=1)
    cumulative /= cumulative[:, -1:]
    return (uniform[:, None] >= cumulative).sum(axis=1)


def check_matrix(matrix: NDArray[np.float64], name: str) -> None:
    """Raises `FieldError` under `name` unless [K, K], not negative, every row summing to one within 1e-6."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise FieldError(name, f"a transition matrix is square, this one has the shape {matrix.shape}")
    if not np.isfinite(matrix).all() or (matrix < 0).any() or (matrix > 1).any():
        raise FieldError(name, "a transition matrix holds probabilities, in [0, 1]")
    sums = matrix.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1) > 1e-6)
    if len(wrong):
        row = int(wrong[0])
        raise FieldError(name, f"row {row} of the transition matrix sums to {sums[row]:.6g}, not to 1")
