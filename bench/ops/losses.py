"""Per-sample losses and batch penalties.

Logits are floating tensors [B, C] of raw scores; labels are int64 [B] in 0..C-1. Half-precision logits are raised to
float32 first, float32 and float64 are kept. A function returning [B] leaves the reduction to its caller. Nothing here
waits for the device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Half-precision values as float32; float32 and float64 unchanged."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _check_q(q: float) -> None:
    if not 0.0 < q <= 1.0:
        raise ValueError(f"q must lie in (0, 1], got {q}")


def _check_k(k: float) -> None:
    if not 0.0 < k < 1.0:
        raise ValueError(f"k is a probability and must lie in (0, 1), got {k}")


def _label_probability(logits: Tensor, labels: Tensor) -> Tensor:
    probs = at_least_float32(logits).softmax(dim=1)
    return probs.gather(1, labels.unsqueeze(1)).squeeze(1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p_y for every sample; [B] >= 0. All-equal logits give ln C."""
    return F.cross_entropy(at_least_float32(logits), labels, reduction="none")


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-sum_c t_c log p_c for every sample; [B].

    targets: floating [B, C]. They are not detached here, since label-learning methods differentiate through them; the
    functions of bench.ops.targets return constants.
    """
    return -(targets * F.log_softmax(at_least_float32(logits), dim=1)).sum(dim=1)


def gce(logits: Tensor, labels: Tensor, q: float, *, eps: float = 1e-8) -> Tensor:
    """Generalised cross-entropy L_q = (1 - (p_y + eps)^q) / q; [B], between -eps and 1/q.

    q in (0, 1], else ValueError: 1 gives 1 - p_y, the limit 0 is cross-entropy. eps bounds the derivative of the
    power where p_y vanishes. Source: Zhang & Sabuncu, NeurIPS 2018 (the L_q loss).
    """
    _check_q(q)
    # expm1 of a logarithm is the same function, without the cancellation of 1 - p^q when q is small.
    return -torch.expm1(q * torch.log(_label_probability(logits, labels) + eps)) / q


def gce_truncated(logits: Tensor, labels: Tensor, q: float, k: float, keep: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Truncated L_q for fixed weights: v * (L_q(p_y) - L_q(k)); [B], negative where p_y > k.

    keep: v, bool or floating [B] in {0, 1}, from truncated_gce_weights. k in (0, 1), q in (0, 1], else ValueError.
    Take the mean over the whole batch: dropped samples count in it. Source: Zhang & Sabuncu, NeurIPS 2018
    (truncated L_q, alternate convex search), with the constant moved inside the sum over samples.
    """
    _check_k(k)
    losses = gce(logits, labels, q, eps=eps)
    return keep.to(losses.dtype) * (losses - (1.0 - k**q) / q)


def truncated_gce_weights(logits: Tensor, labels: Tensor, k: float) -> Tensor:
    """The other half of the search: v = 1 where p_y > k, else 0; bool [B], no gradient. k in (0, 1), else ValueError.

    The same rule as L_q(p_y) < L_q(k), for every q. Source: Zhang & Sabuncu, NeurIPS 2018
    (alternate convex search).
    """
    _check_k(k)
    return _label_probability(logits.detach(), labels) > k


def bootstrap_soft(logits: Tensor, labels: Tensor, beta: float, *, detach: bool = False) -> Tensor:
    """-sum_c [beta y_c + (1 - beta) p_c] log p_c for every sample; [B] >= 0: beta CE plus (1 - beta) times the entropy.

    beta in [0, 1], the weight of the given label. detach: p in the brackets is a constant, which is self-training, another
    loss. Source: Reed et al., ICLR workshop 2015 (soft bootstrapping).
    """
    log_probs = F.log_softmax(at_least_float32(logits), dim=1)
    probs = log_probs.exp()
    believed = -((probs.detach() if detach else probs) * log_probs).sum(dim=1)
    return beta * cross_entropy(logits, labels) + (1.0 - beta) * believed


def bootstrap_hard(logits: Tensor, labels: Tensor, beta: float) -> Tensor:
    """-sum_c [beta y_c + (1 - beta) z_c] log p_c with z the one-hot argmax of p, for every sample; [B] >= 0.

    beta in [0, 1], the weight of the given label. Of equal logits the first class counts. Source: Reed et al., ICLR
    workshop 2015 (hard bootstrapping).
    """
    return beta * cross_entropy(logits, labels) + (1.0 - beta) * cross_entropy(logits, logits.argmax(dim=1))


def elr_regulariser(probs_clamped: Tensor, targets: Tensor) -> Tensor:
    """log(1 - <p, t>) for every sample; [B] <= 0.

    probs_clamped: [B, C] softmax clamped to [1e-4, 1 - 1e-4] by the caller (the clamp keeps the logarithm finite and
    cuts the gradient of clamped classes). targets: [B, C] running averages, rows summing to at most 1, taken as
    constants. Keep both in float32 or better. Source: Liu et al., ELR, NeurIPS 2020.
    """
    return torch.log1p(-(at_least_float32(probs_clamped) * targets.detach()).sum(dim=1))


def negative_entropy(logits: Tensor) -> Tensor:
    """sum_c p_c log p_c for every sample; [B] in [-ln C, 0].

    Added to the loss it discourages confident predictions. Source: Li et al., DivideMix, ICLR 2020, warm-up.
    """
    log_probs = F.log_softmax(at_least_float32(logits), dim=1)
    return (log_probs.exp() * log_probs).sum(dim=1)


def uniform_prior_kl(mean_probs: Tensor) -> Tensor:
    """KL(uniform || mean prediction) = sum_c (1/C) log((1/C) / p_c); 0-d, >= 0, 0 when uniform.

    mean_probs: [C], the batch mean of softmax outputs with its gradient. A probability that underflowed to zero counts
    as the smallest normal number, so the value stays finite. Source: Li et al., DivideMix, ICLR 2020 (L_reg).
    """
    probs = at_least_float32(mean_probs)
    prior = 1.0 / probs.shape[0]
    return (prior * (prior / probs.clamp_min(torch.finfo(probs.dtype).tiny)).log()).sum()
