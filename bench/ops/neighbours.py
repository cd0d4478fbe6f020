"""Exact nearest neighbours by cosine similarity, and what they say about labels."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

FAISS_ABOVE = 20_000  # points; below, importing faiss costs more than it saves


def knn(
    features: Tensor,
    k: int,
    *,
    include_self: bool = True,
    backend: Literal["auto", "torch", "faiss"] = "auto",
    chunk: int = 1024,
) -> Tensor:
    """Indices of the k most similar rows of features [N, d] for every row, most similar first; int64 [N, k].

    Rows are L2-normalised here and compared in float32, without gradient; a zero row is equally far from everything.
    With include_self a point is always its own first neighbour (exact duplicates cannot push it out), otherwise it is
    never its own. k is cut to N (N - 1 without self): read the width of the result, not k.

    backend: "auto" takes faiss when it is installed, N > FAISS_ABOVE and features are on the CPU, else torch. Each
    backend repeats its own bits; between backends, or chunk sizes, near-ties may be ordered differently. chunk: queries
    at a time; memory is chunk x N similarities, never N x N. ValueError: features not 2-D, empty or not finite, k < 1,
    chunk < 1, unknown backend. ImportError: backend "faiss" without faiss. Source: Chen et al., arXiv 2211.08722
    (the released code includes the point itself).
    """
    if features.dim() != 2 or features.shape[0] == 0:
        raise ValueError(f"expected features of shape [N > 0, d], got {tuple(features.shape)}")
    if k < 1 or chunk < 1:
        raise ValueError(f"k and chunk must be at least 1, got {k} and {chunk}")
    unit = F.normalize(features.detach().float(), dim=1)
    if not bool(unit.isfinite().all()):
        raise ValueError("a feature is not finite")
    n = unit.shape[0]
    others = min(k - int(include_self), n - 1)
    search = _searcher(unit, backend)
    result = torch.empty(n, others + int(include_self), dtype=torch.int64, device=unit.device)
    for start in range(0, n, chunk):
        rows = unit[start : start + chunk]
        own = torch.arange(start, start + rows.shape[0], device=unit.device).unsqueeze(1)
        found = _without_own(search(rows, others + 1), own)
        result[start : start + chunk] = torch.cat([own, found], dim=1) if include_self else found
    return result


def local_label_consistency(neighbours: Tensor, labels: Tensor) -> Tensor:
    """Share of a point's neighbours that carry its own label; float32 [N] in [0, 1].

    neighbours: int64 [N, k >= 1] from knn, else ValueError. labels: int64 [N], the given ones. With the point itself
    among its neighbours the smallest value is 1/k. Source: Chen et al., arXiv 2211.08722, eq. 1, divided by k.
    """
    k = neighbours.shape[1]
    if k < 1:
        raise ValueError("label consistency needs at least one neighbour per point")
    rows = max(1, 4_000_000 // k)  # a gather of all N x k labels at once can take gigabytes
    agreeing = [
        (labels[near] == own.unsqueeze(1)).sum(dim=1)
        for near, own in zip(neighbours.split(rows), labels.split(rows), strict=True)
    ]
    return torch.cat(agreeing).float() / k


def _searcher(unit: Tensor, backend: str) -> Callable[[Tensor, int], Tensor]:
    """A function (queries [n, d], count) -> the `count` most similar rows of `unit`, most similar first; [n, count]."""
    if backend not in ("auto", "torch", "faiss"):
        raise ValueError(f"backend must be 'auto', 'torch' or 'faiss', got {backend!r}")
    large_on_cpu = unit.shape[0] > FAISS_ABOVE and unit.device.type == "cpu"
    if backend == "faiss" or (backend == "auto" and large_on_cpu and importlib.util.find_spec("faiss")):
        import faiss

        index = faiss.IndexFlatIP(unit.shape[1])
        index.add(unit.cpu().numpy())
        return lambda queries, count: torch.from_numpy(index.search(queries.cpu().numpy(), count)[1]).to(unit.device)
    return lambda queries, count: (queries @ unit.T).topk(count, dim=1).indices


def _without_own(found: Tensor, own: Tensor) -> Tensor:
    """found [n, m] without the index own [n, 1] of its row, or without its first one where that is absent; [n, m - 1].

    Absent means that all of found lie as close to the point as the point itself, so it does not matter which goes.
    """
    position = (found == own).int().argmax(dim=1, keepdim=True)
    column = torch.arange(found.shape[1] - 1, device=found.device)
    return found.gather(1, column + (column >= position))
