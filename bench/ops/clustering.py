"""Grouping points by their features: k-means, the SCAN loss and label propagation on a graph."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.ops.losses import at_least_float32
from bench.ops.neighbours import check_finite
from bench.ops.randaugment import move

BLOCK = 2**23  # numbers in one temporary array: 32 MiB of float32
LOG_FLOOR = -100.0  # smallest logarithm in the SCAN loss


class KMeans(NamedTuple):
    """A clustering of N points into K clusters; all on one device."""

    centres: Tensor  # floating [K, d]
    labels: Tensor  # int64 [N], the nearest centre
    inertia: Tensor  # float64 0-d, sum of squared distances to the nearest centre
    n_iter: int  # rounds used
    converged: bool  # no label changed in the last round


def k_means(
    features: Tensor,
    num_clusters: int,
    *,
    generator: torch.Generator | None = None,
    start: Tensor | None = None,
    max_iter: int = 100,
) -> KMeans:
    """Lloyd's iteration on features [N, d] (half precision is raised to float32), no gradient.

    start: centres [K, d]; None draws them by k-means++ from `generator`. A round assigns every point to its nearest centre
    (the lower number of equally near ones) and moves centres to the means of their points; a centre without points moves to
    the point farthest from its own centre, the next such centre to the next farthest. Stops when no label changes, asking
    the device once a round: not for a step. Identical points leave centres on top of one another, the lowest holding them.

    Time O(rounds N K d). Memory beyond features: 24 N bytes and blocks of 32 MiB. ValueError: features not 2-D or not
    finite, not 1 <= K <= N, neither start nor generator or both, start of another shape, max_iter < 1.
    Source: Lloyd, 1982; Arthur & Vassilvitskii, SODA 2007; empty clusters as in scikit-learn.
    """
    if features.dim() != 2 or not 1 <= num_clusters <= features.shape[0] or max_iter < 1:
        raise ValueError(f"out of range: features {tuple(features.shape)}, {num_clusters} clusters, max_iter={max_iter}")
    if (generator is None) == (start is None):
        raise ValueError("give either a generator or the centres to start from")
    x = at_least_float32(features.detach())
    check_finite(x)
    if start is not None and start.shape != (num_clusters, x.shape[1]):
        raise ValueError(f"expected a start of shape {(num_clusters, x.shape[1])}, got {tuple(start.shape)}")
    if start is None:
        assert generator is not None
        start = k_means_plus_plus(x, num_clusters, generator=generator)
    labels, distance = _assign(x, start.detach().to(x))
    n_iter, converged = 0, False
    while n_iter < max_iter and not converged:
        centres, before = _means(x, labels, distance, num_clusters), labels
        labels, distance = _assign(x, centres)
        n_iter, converged = n_iter + 1, torch.equal(labels, before)
    return KMeans(centres, labels, distance.double().sum(), n_iter, converged)


def k_means_plus_plus(features: Tensor, num_clusters: int, *, generator: torch.Generator) -> Tensor:
    """K rows of features [N, d] to start k-means from; [K, d].

    The first is drawn uniformly, each next one with probability proportional to the squared distance to the nearest chosen
    so far; once all distances are zero, the last row. Drawn on the generator's device, so a CPU generator makes the same
    draws for any device. No wait for the device. O(N K d). ValueError: N < 1.
    Source: Arthur & Vassilvitskii, SODA 2007 (one candidate a draw; scikit-learn compares several).
    """
    n = features.shape[0]
    if n < 1:
        raise ValueError("k-means++ needs at least one point")
    draws = torch.rand(num_clusters, generator=generator, dtype=torch.float64, device=generator.device)
    draws = move(draws, features.device)
    chosen = (draws[:1] * n).long().clamp_(max=n - 1)
    centres = [features[chosen]]
    distance = (features - centres[0]).square().sum(dim=1).double()
    for draw in draws[1:]:
        total = distance.cumsum(0)
        chosen = torch.searchsorted(total, (draw * total[-1]).view(1), right=True).clamp_(max=n - 1)
        centres.append(features[chosen])
        distance = torch.minimum(distance, (features - centres[-1]).square().sum(dim=1).double())
    return torch.cat(centres)


def scan_loss(anchor_logits: Tensor, neighbour_logits: Tensor, *, entropy_weight: float = 5.0) -> tuple[Tensor, Tensor, Tensor]:
    """(consistency - entropy_weight * entropy, consistency, entropy) for cluster logits [B, C] of pairs; all 0-d.

    consistency: mean of -log <p(anchor), p(neighbour)>, each at most 100; in [0, 100]. entropy: of the mean anchor
    prediction, natural logarithm; in [0, ln C]. Gradients reach both views. Sum the first over several heads. An empty
    batch gives zeros. Source: Van Gansbeke et al., SCAN, ECCV 2020, eq. 2, in the form of the released code (one neighbour
    per anchor, entropy of anchors alone, the bound of 100).
    """
    anchor, neighbour = (F.log_softmax(at_least_float32(logits), dim=1) for logits in (anchor_logits, neighbour_logits))
    batch = max(1, anchor.shape[0])
    agreement = torch.logsumexp(anchor + neighbour, dim=1).clamp_min(LOG_FLOOR)
    consistency = -agreement.sum() / batch
    mean = anchor.exp().sum(dim=0) / batch
    entropy = -(mean * mean.clamp_min(torch.finfo(mean.dtype).tiny).log()).sum()
    return consistency - entropy_weight * entropy, consistency, entropy


def draw_neighbours(rows: Tensor, *, generator: torch.Generator, allowed: Tensor | None = None) -> Tensor:
    """One index out of each of rows [B, m >= 1], uniformly among the allowed; int64 [B].

    rows: int64, as mined by bench.ops.neighbours.knn (the point itself in column 0). allowed: bool [B, m], None for all;
    a row without any gives its column 0. Drawn on the generator's device, no wait for the device. ValueError: m = 0, or
    allowed of another shape. Source: SCAN (one neighbour per anchor); ScanMix, arXiv 2103.11395 (only neighbours whose
    prediction agrees with the anchor's).
    """
    if rows.dim() != 2 or rows.shape[1] < 1 or (allowed is not None and allowed.shape != rows.shape):
        raise ValueError(f"expected rows [B, m >= 1] and allowed of that shape, got {tuple(rows.shape)}")
    keys = move(torch.rand(rows.shape, generator=generator, device=generator.device), rows.device)
    if allowed is not None:
        keys = torch.where(allowed, keys, -1.0)
    return rows.gather(1, keys.argmax(dim=1, keepdim=True)).squeeze(1)


def neighbour_graph(indices: Tensor, similarities: Tensor, *, power: float = 3.0) -> Tensor:
    """The normalised graph D^-1/2 (A + A^T) D^-1/2 of nearest neighbours; float32 sparse CSR [N, N].

    indices, similarities: [N, k] from bench.ops.neighbours.knn_similarities, without the point itself. A_ij =
    max(similarity, 0)^power; where i and j are neighbours of each other both weights count. An entry of the diagonal counts
    as 0, a point without weights has an empty row. Memory: 2 N k entries, some 150 N k bytes while it is built.
    ValueError: shapes that differ, power <= 0. Source: Iscen et al., CVPR 2019, section 3 (power 3); NGC (Wu et al., ICCV 2021).
    """
    if indices.dim() != 2 or indices.shape != similarities.shape:
        raise ValueError(f"expected two arrays [N, k], got {tuple(indices.shape)} and {tuple(similarities.shape)}")
    if power <= 0.0:
        raise ValueError(f"power must be positive, got {power}")
    n, k = indices.shape
    row = torch.arange(n, device=indices.device).repeat_interleave(k)
    column = indices.flatten()
    weight = torch.where(row == column, 0.0, similarities.detach().float().flatten().clamp_min(0.0) ** power)
    degree = torch.zeros(n, dtype=torch.float64, device=row.device)
    degree = degree.index_add(0, row, weight.double()).index_add(0, column, weight.double())
    scale = torch.where(degree > 0, degree, 1.0).rsqrt()
    weight = (weight * scale[row] * scale[column]).float()
    both = torch.stack([torch.cat([row, column]), torch.cat([column, row])])
    graph = torch.sparse_coo_tensor(both, weight.repeat(2), (n, n), check_invariants=False).coalesce()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return graph.to_sparse_csr()


def propagate_labels(
    graph: Tensor, seeds: Tensor, *, alpha: float = 0.99, max_iter: int = 20, tolerance: float = 1e-6
) -> Tensor:
    """Label scores Z >= 0 that solve (I - alpha W) Z = Y by conjugate gradients; float32 [N, C].

    graph: W from neighbour_graph. seeds: Y, floating [N, C]: rows one-hot where the label is known and zero elsewhere, or
    soft; scale its columns to balance the classes. Each class stops on its own once its residual is below tolerance times
    its seeds' norm, or after max_iter products; negative results become 0. Divide rows by their sums for soft labels; rows
    that no seed reaches stay 0, as does a class without seeds. The number of products is fixed: no wait for the device.

    Time O(max_iter N k C), memory 4 arrays [N, C]. ValueError: seeds of another length, alpha outside [0, 1), max_iter < 1.
    Source: Iscen et al., CVPR 2019, eq. 10 (alpha 0.99, 20 iterations, tolerance 1e-6); NGC uses alpha 0.5.
    """
    if seeds.dim() != 2 or graph.shape != (seeds.shape[0], seeds.shape[0]):
        raise ValueError(f"expected a graph [N, N] and seeds [N, C], got {tuple(graph.shape)} and {tuple(seeds.shape)}")
    if not 0.0 <= alpha < 1.0 or max_iter < 1 or tolerance < 0:
        raise ValueError(f"out of range: alpha={alpha}, max_iter={max_iter}, tolerance={tolerance}")
    solution = torch.zeros(seeds.shape, device=seeds.device)
    residual = seeds.detach().float().clone()
    direction = residual
    squares = residual.square().sum(dim=0)
    enough = squares * tolerance**2
    for _ in range(max_iter):
        product = direction - alpha * (graph @ direction)
        active = squares > enough
        step = torch.where(active, squares / (direction * product).sum(dim=0), 0.0)
        solution = solution + step * direction
        residual = residual - step * product
        after = residual.square().sum(dim=0)
        direction = residual + torch.where(active, after / squares, 0.0) * direction
        squares = after
    return solution.clamp_min(0.0)


def _assign(x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centre of every row of x [N, d], and the squared distance to it; int64 [N] and floating [N]."""
    shift = centres.mean(dim=0)  # far from the origin the products would cancel
    squares = (centres - shift).square().sum(dim=1)
    labels, distances = [], []
    for rows in x.split(max(1, BLOCK // max(centres.shape))):
        nearest = torch.addmm(squares, rows - shift, (centres - shift).T, alpha=-2).argmin(dim=1)
        labels.append(nearest)
        distances.append((rows - centres[nearest]).square().sum(dim=1))
    return torch.cat(labels), torch.cat(distances)


def _means(x: Tensor, labels: Tensor, distance: Tensor, num_clusters: int) -> Tensor:
    """Means of the clusters of x [N, d]; an empty one gets a point far from its centre."""
    cluster = torch.arange(num_clusters, device=x.device)
    counts, sums = x.new_zeros(num_clusters), x.new_zeros(num_clusters, x.shape[1])
    size = max(1, BLOCK // num_clusters)
    for rows, own in zip(x.split(size), labels.split(size), strict=True):
        one_hot = (own == cluster[:, None]).to(x.dtype)  # a product with it repeats its bits on a GPU, index_add does not
        counts += one_hot.sum(dim=1)
        sums += one_hot @ rows
    empty = counts == 0
    far = distance.topk(num_clusters).indices
    substitute = x[far[(empty.cumsum(0) - 1).clamp_min(0)]]
    return torch.where(empty[:, None], substitute, sums / counts.clamp_min(1)[:, None])
