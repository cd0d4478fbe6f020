"""Exact nearest neighbours by cosine similarity, and what they say about labels.

The searches wait for the device once: they are for the pass over all data between two epochs, not for a step.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

FAISS_ABOVE = 20_000  # points; below, importing faiss costs more than it saves
FAISS_QUERIES = 1024  # at a time; a sixth of that takes up to ten times as long, four times as many 60 MB more

Backend = Literal["auto", "torch", "faiss"]
# (queries [n, d], count) -> the `count` largest inner products with the base and their rows, largest first; both [n, count]
_Search = Callable[[Tensor, int], tuple[Tensor, Tensor]]


class Neighbours(NamedTuple):
    """Neighbours of every query, most similar first; N queries, k neighbours."""

    indices: Tensor  # int64 [N, k]
    similarities: Tensor  # float32 [N, k], cosines


def knn(
    features: Tensor, k: int, *, include_self: bool = True, backend: Backend = "auto", chunk: int | None = None
) -> Tensor:
    """Indices of the k most similar rows of features [N, d] for every row, most similar first; int64 [N, k].

    Rows are L2-normalised here and compared in float32, without gradient; a zero row is equally far from everything.
    With include_self a point is always its own first neighbour (exact duplicates cannot push it out), otherwise it is
    never its own. k is cut to N (N - 1 without self): read the width of the result, not k.

    backend: "auto" takes faiss when it is installed, N > FAISS_ABOVE and features are on the CPU, else torch. Each
    backend repeats its own bits; between backends, or chunk sizes, near-ties may be ordered differently. chunk: queries
    at a time (None: what fits the memory below).

    Time O(N^2 d). Memory beyond features and result: the normalised rows (4 N d bytes) and one block of chunk x N
    similarities, by default at most 1,024 queries and the larger of 32 MiB and an eighth of the normalised rows; on
    CUDA 8,192 queries and 1 GiB. faiss takes 1,024 queries and some 15 MiB at k = 200. Never N x N.

    ValueError: features not 2-D, empty or not finite (a row whose length overflows float32 included), k < 1, chunk < 1,
    unknown backend. ImportError: backend "faiss" without faiss. Source: Chen et al., arXiv 2211.08722 (the released code
    includes the point itself).
    """
    return _among(features, k, include_self, backend, chunk, similarities=False)[0]


def knn_similarities(
    features: Tensor, k: int, *, include_self: bool = False, backend: Backend = "auto", chunk: int | None = None
) -> Neighbours:
    """As knn, with the cosines: the weights of a neighbour graph or of a vote. Without the point itself by default."""
    indices, similarities = _among(features, k, include_self, backend, chunk, similarities=True)
    assert similarities is not None
    return Neighbours(indices, similarities)


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


def top_columns(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """torch.topk(scores, k) along the rows of scores [n, m]: values and int64 columns, both [n, k], largest first.

    Wide rows are searched in two rounds: the k groups of columns with the largest maxima hold k largest entries, so only
    their members are compared. Twice as fast at k = 200 of 50,000, three times at k = 10; of equal entries another one
    may be taken. Memory: O(n sqrt(m k)). NaN is not supported.
    """
    m = scores.shape[1]
    size = math.isqrt(m // max(1, k))  # balances the two rounds
    if m <= 2048 or size < 4:
        values, columns = scores.topk(k, dim=1)
        return values, columns
    groups = m // size  # group j: columns j, j + groups, j + 2 groups, ...
    best = scores[:, : groups * size].unflatten(1, (size, groups)).amax(1).topk(k, dim=1, sorted=False).indices
    member = torch.arange(size, device=scores.device) * groups
    candidates = (best.unsqueeze(1) + member.view(1, -1, 1)).flatten(1)
    rest = torch.arange(groups * size, m, device=scores.device).expand(scores.shape[0], -1)
    candidates = torch.cat([candidates, rest], dim=1)
    values, position = scores.gather(1, candidates).topk(k, dim=1)
    return values, candidates.gather(1, position)


def check_finite(features: Tensor) -> None:
    """ValueError where features [N, ...] hold NaN or infinity; block by block, since isfinite takes twice their memory."""
    finite = [block.isfinite().all() for block in features.detach().split(2**14)]
    if finite and not bool(torch.stack(finite).all()):
        raise ValueError("a feature is not finite")


def _among(
    features: Tensor, k: int, include_self: bool, backend: str, chunk: int | None, *, similarities: bool
) -> tuple[Tensor, Tensor | None]:
    """Neighbours of every row among the rows, and their cosines where asked."""
    _check(features, k, chunk)
    unit = _unit_rows(features)
    n = unit.shape[0]
    others = min(k - int(include_self), n - 1)
    width = others + int(include_self)
    # int32 until the normalised rows are gone: the two never need their full memory together
    indices = torch.empty(n, width, dtype=torch.int32, device=unit.device)
    cosines = torch.empty(n, width, dtype=torch.float32, device=unit.device) if similarities else None
    for rows, values, found in _search_all(unit, unit, others + 1, backend, chunk):
        own = torch.arange(rows.start, rows.stop, device=unit.device).unsqueeze(1)
        kept = _all_but(found, own)
        near = found.gather(1, kept)
        indices[rows] = torch.cat([own, near], dim=1) if include_self else near
        if cosines is not None:
            cosines[rows, int(include_self) :] = values.gather(1, kept)
            if include_self:
                cosines[rows, 0] = unit[rows].square().sum(dim=1)
    del unit
    return indices.long(), cosines


def _check(features: Tensor, k: int, chunk: int | None) -> None:
    if features.dim() != 2 or features.shape[0] == 0:
        raise ValueError(f"expected features of shape [N > 0, d], got {tuple(features.shape)}")
    if k < 1 or (chunk is not None and chunk < 1):
        raise ValueError(f"k and chunk must be at least 1, got {k} and {chunk}")


def _unit_rows(features: Tensor) -> Tensor:
    """The rows at unit length, float32, in new memory and no more than that."""
    unit = torch.empty(features.shape, dtype=torch.float32, device=features.device)
    finite = torch.ones((), dtype=torch.bool, device=features.device)
    block = max(1, 2**20 // max(1, features.shape[1]))
    for rows, target in zip(features.detach().split(block), unit.split(block), strict=True):
        rows = rows.float()
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        finite &= length.isfinite().all()
        torch.div(rows, length.clamp_min_(1e-12), out=target)
    if not bool(finite):
        raise ValueError("a feature is not finite, or a row of features too long for float32")
    return unit


def _search_all(
    queries: Tensor, base: Tensor, count: int, backend: str, chunk: int | None
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(rows, similarities, indices) for one block of queries after the other, all unit rows."""
    if backend not in ("auto", "torch", "faiss"):
        raise ValueError(f"backend must be 'auto', 'torch' or 'faiss', got {backend!r}")
    large_on_cpu = base.shape[0] > FAISS_ABOVE and base.device.type == "cpu"
    with_faiss = backend == "faiss" or (backend == "auto" and large_on_cpu and importlib.util.find_spec("faiss") is not None)
    if chunk is None:
        chunk = FAISS_QUERIES if with_faiss else _queries_that_fit(base)
    chunk = min(chunk, max(1, queries.shape[0]))
    search = _faiss_search(base) if with_faiss else _torch_search(base, chunk)
    for start in range(0, queries.shape[0], chunk):
        rows = slice(start, min(start + chunk, queries.shape[0]))
        yield rows, *search(queries[rows], count)


def _queries_that_fit(base: Tensor) -> int:
    on_cuda = base.device.type == "cuda"
    budget = 2**30 if on_cuda else max(2**25, 4 * base.numel() // 8)
    return min(max(1, budget // (4 * base.shape[0])), 8192 if on_cuda else 1024)


def _torch_search(base: Tensor, chunk: int) -> _Search:
    """The search for at most `chunk` queries at a time."""
    similarities = base.new_empty(chunk, base.shape[0])  # one buffer: fresh memory for every block would double the time

    def search(queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        with _full_precision():
            block = torch.mm(queries, base.T, out=similarities[: queries.shape[0]])
        return top_columns(block, count)

    return search


def _faiss_search(base: Tensor) -> _Search:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    array = base.cpu().numpy()  # searched in place: an index would hold a copy

    def search(queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        values, found = faiss.knn(queries.cpu().numpy(), array, count, metric=faiss.METRIC_INNER_PRODUCT)
        return torch.from_numpy(values).to(base.device), torch.from_numpy(found).to(base.device)

    return search


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Float32 products on CUDA as they are written: TensorFloat-32, which a trial may have allowed, would mix up neighbours."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32 = before


def _all_but(found: Tensor, own: Tensor) -> Tensor:
    """Columns of found [n, m] without the index own [n, 1] of its row, or without its first where it is absent; [n, m - 1].

    Absent means that all of found lie as close to the point as the point itself, so it does not matter which goes.
    """
    position = (found == own).int().argmax(dim=1, keepdim=True)
    column = torch.arange(found.shape[1] - 1, device=found.device)
    return column + (column >= position)
