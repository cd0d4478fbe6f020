"""Choosing samples of a batch by their loss: the small ones (co-teaching) or the large ones (top-k, CVaR).

Both keep a fixed share of the batch, so counts follow from shapes and nothing here waits for the device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def keep_schedule(rate: float, ramp_epochs: int, exponent: float, epoch: int) -> float:
    """Share of the batch to keep at an epoch: R(t) = 1 - tau(t), in [0, 1].

    The drop rate tau(t) is linspace(0, rate**exponent, ramp_epochs)[t] for t < ramp_epochs, and `rate` from then on.
    rate in [0, 1]; ramp_epochs >= 0 (0: no ramp); exponent > 0; epoch >= 0; ValueError otherwise.
    Source: Han et al., Co-teaching, NeurIPS 2018, in the form of the released code.
    """
    if not 0.0 <= rate <= 1.0 or ramp_epochs < 0 or exponent <= 0.0 or epoch < 0:
        raise ValueError(f"out of range: rate={rate}, ramp_epochs={ramp_epochs}, exponent={exponent}, epoch={epoch}")
    if epoch >= ramp_epochs:
        return 1.0 - rate
    end = rate**exponent
    if epoch == ramp_epochs - 1:  # the end point exactly, unless it is the only point: then linspace has its start
        return 1.0 - end if ramp_epochs > 1 else 1.0
    return 1.0 - epoch * (end / (ramp_epochs - 1))


def kept_count(share: float, size: int) -> int:
    """max(1, floor(share * size)): how many of `size` samples a share keeps.

    share in [0, 1], size >= 1, else ValueError. A product one rounding error below an integer counts as that integer:
    (1 - 0.9) * 10 keeps 1 and 0.29 * 100 keeps 29, where plain truncation says 0 and 28.
    """
    if not 0.0 <= share <= 1.0 or size < 1:
        raise ValueError(f"share must lie in [0, 1] and size be positive, got {share} and {size}")
    return max(1, math.floor(share * size + 1e-9))


def small_loss(losses: Tensor, keep_rate: float) -> Tensor:
    """Positions of the kept_count(keep_rate, B) smallest of the losses [B], ascending by loss; int64 [m].

    Equal losses keep their order in the batch; NaN counts as the largest. Source: Han et al., Co-teaching,
    NeurIPS 2018 (selection within the batch, floor as in the released code).
    """
    count = kept_count(keep_rate, losses.shape[0])
    return torch.sort(losses.detach(), stable=True).indices[:count]


def top_k_mean(losses: Tensor, tau: float) -> Tensor:
    """Mean of the kept_count(tau, B) largest of the losses [B]; 0-d.

    tau in (0, 1], else ValueError; 1 is the ordinary mean. All other samples get exactly zero gradient; of equal
    losses the earlier in the batch counts. A NaN loss makes the result NaN. Source: Chen et al., arXiv 2211.08722
    (top-tau DRO); Levy et al., NeurIPS 2020 (the CVaR that it equals when tau * B is an integer).
    """
    if tau <= 0.0:
        raise ValueError(f"tau must lie in (0, 1], got {tau}")
    count = kept_count(tau, losses.shape[0])
    return torch.sort(losses, descending=True, stable=True).values[:count].mean()
