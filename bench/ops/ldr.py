"""Label-distributionally robust losses (Zhu, Ying & Yang, ICML 2023). Nothing here waits for the device.

Scores are floating [B, C], half precision raised to float32; labels int64 [B] in 0..C-1; a temperature lambda is one positive
number for all samples, or floating [B].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.ops.losses import at_least_float32


def normalised_scores(logits: Tensor, how: str, *, eps: float = 1e-3) -> Tensor:
    """Scores of a scale that does not depend on that of the logits; [B, C].

    how: "softplus", h / mean_k h_k with h = softplus(logits); "l1", logits / mean_k |logits_k|; "none". The mean counts as
    at least eps, or the gradient of a head that begins with zeros would be infinite. Source: the released code.
    """
    scores = at_least_float32(logits)
    if how == "none":
        return scores
    if how == "softplus":
        scores = F.softplus(scores)
    return scores / scores.abs().mean(dim=1, keepdim=True).clamp_min(eps)


def ldr_kl(scores: Tensor, labels: Tensor, lam: Tensor | float, margin: float) -> Tensor:
    """psi_lambda = lambda log mean_k exp((g_k - g_y + margin [k != y]) / lambda) for every sample; [B].

    It is the worst case over label weights that pay lambda KL(weights || uniform): lambda -> 0 gives the largest
    margin violation, lambda -> infinity their mean; lambda 1 without margin is cross-entropy - ln C. Source: Zhu et al.,
    ICML 2023 (LDR-KL).
    """
    lam = lam if isinstance(lam, Tensor) else torch.full_like(scores[:, 0], lam)
    own = scores.gather(1, labels.unsqueeze(1))
    violation = (scores - own + margin).scatter(1, labels.unsqueeze(1), 0.0)
    return lam * (torch.logsumexp(violation / lam.unsqueeze(1), dim=1) - math.log(scores.shape[1]))


def adapted_lambda(scores: Tensor, lam: Tensor, lam0: float, alpha: float) -> Tensor:
    """lambda_0 (1 - KL(p || uniform) / (alpha ln C)) with p = softmax(g / lambda); [B], no gradient.

    lam [B]: the values of the samples' last visit. A uniform prediction has lambda_0, a certain one nearly lambda_0 (1 - 1 /
    alpha): nearly, because p is mixed with 1e-5 as released. Source: Zhu et al., ICML 2023 (ALDR-KL, algorithm 1).
    """
    probs = (scores.detach() / lam.unsqueeze(1)).softmax(dim=1) + 1e-5
    probs = probs / probs.sum(dim=1, keepdim=True)
    classes = scores.shape[1]
    divergence = (probs * (classes * probs).log()).sum(dim=1)
    return lam0 - lam0 * divergence / (alpha * math.log(classes))


def aldr_kl(scores: Tensor, labels: Tensor, lam: Tensor, lam0: float, margin: float, alpha: float) -> Tensor:
    """psi_lambda - (alpha ln C / (2 lambda_0)) (lambda - lambda_0)^2 for every sample, lambda its own constant; [B].

    lam [B] from `adapted_lambda`. Source: Zhu et al., ICML 2023 (ALDR-KL).
    """
    penalty = alpha * math.log(scores.shape[1]) / (2.0 * lam0) * (lam - lam0) ** 2
    return ldr_kl(scores, labels, lam, margin) - penalty
