"""Losses corrected by a noise transition matrix, and its estimate from anchor points. The losses do not wait for the device.

A transition matrix is floating [C, C], T_ij = P(given label j | true class i): rows are true classes and sum to 1. Logits
are floating [B, C], labels int64 [B] in 0..C-1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.ops.losses import at_least_float32


def forward_correction(logits: Tensor, labels: Tensor, transition: Tensor, *, eps: float = 1e-7) -> Tensor:
    """-log (p T)_y for every sample; [B] >= 0: cross-entropy after the clean-class posterior p went through the noise.

    Probabilities are clipped to [eps, 1 - eps], as released: beyond that a class has no gradient. The identity as T gives
    cross-entropy. Source: Patrini et al., CVPR 2017 (forward correction).
    """
    noisy = _clipped(logits, eps) @ transition
    noisy_y = noisy.gather(1, labels.unsqueeze(1)).squeeze(1)
    return -noisy_y.clamp_min(torch.finfo(noisy_y.dtype).tiny).log()  # a column of zeros: no class can be given that label


def backward_correction(logits: Tensor, labels: Tensor, inverse: Tensor, *, eps: float = 1e-7) -> Tensor:
    """sum_c (T^-1)_yc (-log p_c) for every sample; [B], possibly negative: un-mixes the losses of the classes.

    inverse: T^-1 [C, C], as from `inverse_transition`. Its mean over labels drawn from row i of T is -log p_i: unbiased.
    Probabilities are clipped to [eps, 1 - eps], as released, which bounds the loss from below. Source: Patrini et al.,
    CVPR 2017 (backward correction).
    """
    return -(inverse[labels] * _clipped(logits, eps).log()).sum(dim=1)


def inverse_transition(transition: Tensor, *, rtol: float = 1e-6) -> Tensor:
    """T^-1 [C, C], computed in float64, in the type of T; a singular T has its pseudo-inverse instead.

    Singular values below rtol times the largest count as zero; where none are, it is the ordinary inverse.
    """
    return torch.linalg.pinv(transition.double(), rtol=rtol).to(transition.dtype)


def anchor_transition(probs: Tensor, percentile: float | None = 97.0) -> Tensor:
    """Estimate of T [C, C] from noisy-label predictions [N, C]: row i is the prediction at the anchor point of class i.

    The anchor of a class is the sample that is most surely of it; with a percentile in (0, 100), the surest of those
    strictly below that percentile of the class's column ("higher" interpolation), because the very surest are outliers.
    Where no sample lies below (a constant column) it is the first sample. Rows are normalised. Source: Patrini et al.,
    CVPR 2017, section 4.2 and the released code; but columns are filtered independently of each other.
    """
    if percentile is not None:
        if not 0.0 < percentile < 100.0:
            raise ValueError(f"percentile must lie in (0, 100), got {percentile}")
        bound = probs.sort(dim=0).values[math.ceil(percentile / 100 * (len(probs) - 1))]
        anchors = probs.masked_fill(probs >= bound, -1.0).argmax(dim=0)
    else:
        anchors = probs.argmax(dim=0)
    rows = probs[anchors]
    return rows / rows.sum(dim=1, keepdim=True)


def _clipped(logits: Tensor, eps: float) -> Tensor:
    return at_least_float32(logits).softmax(dim=1).clamp(eps, 1.0 - eps)
