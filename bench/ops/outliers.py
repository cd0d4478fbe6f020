"""Local outlier factors, of all points or within each class.

Exact, in float64, and without an N x N matrix. Both functions wait for the device: they are for the pass over all data
between two epochs, not for a step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.ops.neighbours import check_finite, top_columns

BLOCK = 2**22  # float64 numbers in one temporary array: 32 MiB


def lof(features: Tensor, k: int) -> Tensor:
    """Local outlier factor of every row of features [N, d] by Euclidean distance; float64 [N] > 0, about 1 in a cluster.

    k: neighbours, the point itself not counted, cut to N - 1. With dist_k(o) the distance of o to its k-th neighbour,
    reach(p, o) = max(dist_k(o), |p - o|) and density(p) = 1 / (mean of reach(p, o) over the neighbours o of p + 1e-10),
    the factor is the mean density of the neighbours of p over that of p. These are the numbers of scikit-learn's
    LocalOutlierFactor (with the sign turned), duplicates included: copies of one another have 1, a point whose neighbours
    are all copies up to 1e10 times its distance. (Its brute-force search may see copies apart; its trees do not.) Exactly k
    neighbours count, also where several are equally far: then which one does is arbitrary, and may change the factor by
    some hundredths. A single point has no factor: inf.

    Normalise the rows first for the factor by angle. Time O(N^2 d). Memory beyond features: O(N (d + k)), and at most some
    150 MB of blocks up to N = 4 million, never N x N. ValueError: features not 2-D or not finite, k < 1.
    Source: Breunig et al., SIGMOD 2000; used by MTaDCS (Huang et al., ECCV 2024).
    """
    _check(features, k)
    return _lof(features.detach().double(), k)


def class_lof(features: Tensor, labels: Tensor, k: int, num_classes: int, members: Tensor | None = None) -> Tensor:
    """lof within each class on its own: only points of the same label, and among `members`, are neighbours; float64 [N].

    labels: int64 [N] in 0..num_classes-1. members: bool [N], None for all; the others get NaN, for which every comparison
    is false. k is cut to the size of the class less one; a point alone in its class gets inf. So `class_lof(...) <= cut`
    is never true for a point that was not rated. One class after the other: time O(sum n_c^2 d), memory as lof for the
    largest class. ValueError: as lof, shapes that do not match, or a member's label out of range.
    Source: Huang et al., MTaDCS, ECCV 2024 (candidates of one class alone).
    """
    _check(features, k)
    n = features.shape[0]
    if labels.shape != (n,) or (members is not None and members.shape != (n,)):
        raise ValueError(f"expected labels and members of shape [{n}]")
    members = torch.ones_like(labels, dtype=torch.bool) if members is None else members
    if bool((((labels < 0) | (labels >= num_classes)) & members).any()):
        raise ValueError(f"labels must lie in 0..{num_classes - 1}")
    group = torch.where(members, labels, num_classes)
    counts = torch.bincount(group, minlength=num_classes + 1).tolist()
    factors = torch.full((n,), math.nan, dtype=torch.float64, device=features.device)
    for rows in group.argsort(stable=True).split(counts)[:num_classes]:
        factors[rows] = _lof(features.detach()[rows].double(), k)
    return factors


def _check(features: Tensor, k: int) -> None:
    if features.dim() != 2:
        raise ValueError(f"expected features of shape [N, d], got {tuple(features.shape)}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    check_finite(features)


def _lof(x: Tensor, k: int) -> Tensor:
    """lof of float64 x [N, d]."""
    n = x.shape[0]
    if n < 2:
        return x.new_full((n,), math.inf)
    distance, near = _euclidean_neighbours(x, min(k, n - 1))
    reach = torch.maximum(distance, distance.amax(dim=1)[near])
    density = 1.0 / (reach.mean(dim=1) + 1e-10)
    return density[near].mean(dim=1) / density


def _euclidean_neighbours(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances and indices of the k nearest other rows of float64 x [N > k, d]; both [N, k]."""
    n, d = x.shape
    x = x - x.mean(dim=0)  # distances stay, the rounding errors of the products shrink
    squares = x.square().sum(dim=1)
    rows_at_once = max(1, BLOCK // max(n, k * d))
    scores = x.new_empty(min(rows_at_once, n), n)
    distances, indices = x.new_empty(n, k), torch.empty(n, k, dtype=torch.int64, device=x.device)
    for start in range(0, n, rows_at_once):
        rows = x[start : start + rows_at_once]
        score = torch.addmm(squares, rows, x.T, beta=-1, alpha=2, out=scores[: len(rows)])
        score.diagonal(start).fill_(-math.inf)
        near = top_columns(score, k)[1]
        indices[start : start + rows_at_once] = near
        # from differences, not from the products above: duplicates are exactly 0 apart
        distances[start : start + rows_at_once] = (x[near] - rows.unsqueeze(1)).square_().sum(dim=2).sqrt_()
    return distances, indices
