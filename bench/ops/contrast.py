"""Contrastive losses on embeddings, and the queue of earlier embeddings that some of them need.

Embeddings are floating [B, d] of any length: rows are L2-normalised here, in float32 or better whatever autocast says, and
compared by their cosine over a temperature. Losses are per anchor, [B]; the reduction is the caller's. A zero row has
cosine 0 with everything. Time O(B K d), memory some arrays [B, K] for K keys. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.ops.losses import at_least_float32


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss for two views [N, d] of the same N images; [2N]: anchors of the first view, then of the second.

    For anchor i with its other view p: -log( exp(s_ip / T) / sum over the 2N - 1 others j of exp(s_ij / T) ). The mean is
    the textbook loss; the mean of the first N is the variant that SCAN's and ScanMix's code trains with. All embeddings
    equal: ln(2N - 1). T > 0 and equal shapes, else ValueError. Source: Chen et al., SimCLR, ICML 2020, eq. 1.
    """
    if first.shape != second.shape:
        raise ValueError(f"two views of the same images have equal shapes, got {tuple(first.shape)}, {tuple(second.shape)}")
    both = torch.cat([first, second])
    partner = torch.arange(len(both), device=both.device).roll(len(first))
    scores = _scores(both, both, temperature)
    return _log_total(scores, _others(len(both), both.device)) - scores.gather(1, partner.unsqueeze(1)).squeeze(1)


def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """MoCo's loss: cross-entropy of the own key among it and all negatives; [B] >= 0.

    queries, keys: [B, d], row i of one belonging to row i of the other. negatives: [K, d], such as a queue's; none of them
    gives 0. Keys and negatives are constants. T > 0 and widths that match, else ValueError. A queue without structure gives
    about ln(K + 1). Source: He et al., MoCo, CVPR 2020, eq. 1.
    """
    if queries.shape != keys.shape:
        raise ValueError(f"every query has one key, got {tuple(queries.shape)} and {tuple(keys.shape)}")
    own = (_unit(queries) * _unit(keys.detach())).sum(dim=1, keepdim=True) / temperature
    scores = torch.cat([own, _scores(queries, negatives.detach(), temperature)], dim=1)
    return scores.logsumexp(dim=1) - scores[:, 0]


def weighted_contrast(
    queries: Tensor,
    keys: Tensor,
    weights: Tensor,
    temperature: float,
    *,
    candidates: Tensor | None = None,
    form: Literal["out", "in"] = "out",
) -> Tensor:
    """Contrast of queries [B, d] against keys [K, d] whose positives are weighted; [B].

    With p_ij = exp(s_ij / T) / sum over candidates l of exp(s_il / T) and w_ij normalised over j:
    "out": -sum_j w_ij log p_ij; "in": -log sum_j w_ij p_ij, never larger. A query whose weights are all zero has loss 0 and
    no gradient. weights: bool or floating [B, K] >= 0, zero outside the candidates (that is not checked). candidates: bool
    [B, K], the keys that count in the denominator; None for all. Gradients reach both sides: detach the keys of a queue.

    The common form of supervised contrast against a queue (MTaDCS: weights are labels[:, None] == queue labels), of
    MOIT's and Sel-CL's interpolated contrast (twice, for the two labels of a mixed image) and of NGC's (T = 1).
    ValueError: T <= 0, unknown form, shapes that do not match. Source: Khosla et al., NeurIPS 2020, eqs. 2 and 3 with
    weights; Huang et al., MTaDCS, ECCV 2024, eq. 4.
    """
    shape = (queries.shape[0], keys.shape[0])
    for name, mask in (("weights", weights), ("candidates", candidates)):
        if mask is not None and mask.shape != shape:
            raise ValueError(f"expected {name} of shape {shape}, got {tuple(mask.shape)}")
    if form not in ("out", "in"):
        raise ValueError(f"form must be 'out' or 'in', got {form!r}")
    scores = _scores(queries, keys, temperature)
    weights = weights.detach().to(scores.dtype)
    total = weights.sum(dim=1)
    inhabited = total > 0
    total = torch.where(inhabited, total, 1.0)
    if form == "out":
        positive = (weights * scores).sum(dim=1) / total
    else:
        positive = _log_total(scores + weights.clamp_min(torch.finfo(scores.dtype).tiny).log(), weights > 0) - total.log()
    return torch.where(inhabited, _log_total(scores, candidates) - positive, 0.0)


def supervised_contrast(
    embeddings: Tensor,
    labels: Tensor,
    temperature: float,
    *,
    weights: Tensor | None = None,
    form: Literal["out", "in"] = "out",
) -> Tensor:
    """Khosla's loss within a batch: every embedding against all others, those of its label being positive; [M].

    embeddings: [M, d], all views stacked (labels repeated alike). weights: bool or floating [M, M] >= 0 multiplied onto
    the same-label mask: confidences of pairs, or a selection of them. An anchor without a positive has loss 0. With
    unique labels and two views it is nt_xent. All embeddings equal: ln(M - 1). The factor T / T_base of the released code,
    1 by default there, is left out. ValueError: as weighted_contrast. Source: Khosla et al., NeurIPS 2020, eqs. 2 ("out")
    and 3 ("in").
    """
    size = embeddings.shape[0]
    if labels.shape != (size,) or (weights is not None and weights.shape != (size, size)):
        raise ValueError(f"expected labels of shape ({size},) and weights of shape ({size}, {size})")
    others = _others(size, embeddings.device)
    positive = (labels.unsqueeze(1) == labels) & others
    chosen = positive if weights is None else torch.where(positive, weights, 0)
    return weighted_contrast(embeddings, embeddings, chosen, temperature, candidates=others, form=form)


class Queue:
    """The last `size` rows of some tensors that belong together, such as features, labels and indices: a ring buffer.

    queue = Queue(4096); queue.push(features=z, labels=y); queue["features"] is [len(queue), d], no copy, without gradient.
    Rows of one push, in all its tensors, share their places; the order of places is not that of age once the ring is full.
    The names, row shapes, types and device are those of the first push, and later ones must agree. Positions are kept on
    the host: nothing waits for the device. What was read before a push changes with it: push after the backward pass.
    An attribute of a method that is a queue is saved and restored with the method.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a queue holds at least one row, got size {size}")
        self.size = size
        self._next = 0
        self._count = 0
        self._tensors: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return self._count

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> Tensor:
        """The stored rows of one tensor; [len(queue), ...]. KeyError before the first push."""
        return self._tensors[name][: self._count]

    def push(self, **rows: Tensor) -> None:
        """Store rows [B, ...] over the oldest ones; of more than `size` the last count. B may differ between pushes.

        ValueError: no tensor, different numbers of rows, or names, shapes or types other than before.
        """
        lengths = {len(values) for values in rows.values()}
        if len(lengths) != 1:
            raise ValueError(f"one push is of tensors with equally many rows, got {[len(values) for values in rows.values()]}")
        if not self._tensors:
            self._tensors = {name: self._room(values) for name, values in rows.items()}
        self._check_fit(rows)
        count = lengths.pop()
        kept = min(count, self.size)
        head = min(kept, self.size - self._next)  # up to the end of the ring; the rest at its start
        for name, values in rows.items():
            values = values.detach()[count - kept :]
            store = self._tensors[name]
            store[self._next : self._next + head] = values[:head]
            store[: kept - head] = values[head:]
        self._next = (self._next + kept) % self.size
        self._count = min(self._count + kept, self.size)

    def state_dict(self) -> dict[str, Any]:
        """Size, positions and the stored rows, copied."""
        rows = {name: self[name].clone() for name in self._tensors}
        return {"size": self.size, "next": self._next, "tensors": rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what state_dict returned, on the device of its tensors. ValueError for a queue of another size."""
        if state["size"] != self.size:
            raise ValueError(f"the saved queue holds {state['size']} rows, this one {self.size}")
        self._tensors, self._next, self._count = {}, state["next"], 0
        for name, values in state["tensors"].items():
            self._tensors[name] = self._room(values)
            self._tensors[name][: len(values)] = values
            self._count = len(values)

    def _room(self, rows: Tensor) -> Tensor:
        return torch.zeros(self.size, *rows.shape[1:], dtype=rows.dtype, device=rows.device)

    def _check_fit(self, rows: Mapping[str, Tensor]) -> None:
        def kinds(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Any, ...]]:
            return {name: (tuple(tensor.shape[1:]), tensor.dtype) for name, tensor in tensors.items()}

        if kinds(rows) != kinds(self._tensors):
            raise ValueError(f"the queue holds rows of {kinds(self._tensors)} and was given {kinds(rows)}")


def _unit(embeddings: Tensor) -> Tensor:
    return F.normalize(at_least_float32(embeddings), dim=1)


def _scores(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Cosines over the temperature; [B, K]."""
    if temperature <= 0.0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if queries.dim() != 2 or keys.dim() != 2 or queries.shape[1] != keys.shape[1]:
        raise ValueError(f"expected embeddings [B, d] and [K, d], got {tuple(queries.shape)} and {tuple(keys.shape)}")
    with torch.autocast(queries.device.type, enabled=False):
        return _unit(queries) @ _unit(keys).T / temperature


def _others(size: int, device: torch.device) -> Tensor:
    """True off the diagonal; bool [size, size]."""
    return ~torch.eye(size, dtype=torch.bool, device=device)


def _log_total(scores: Tensor, counted: Tensor | None) -> Tensor:
    """Log of the sum of exponentials over the counted columns; [B]. Very negative, without gradient, where none is."""
    if counted is not None:  # not by -inf: a row of nothing else would have NaN gradients
        scores = scores.masked_fill(~counted, torch.finfo(scores.dtype).min)
    return scores.logsumexp(dim=1)
