"""Soft training targets.

Targets are constants of the loss: every function returns a tensor without gradient, whatever goes in. Probabilities are
floating [B, C] with rows summing to 1. Nothing here waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot(labels: Tensor, num_classes: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """int64 labels [B] in 0..C-1 as floating rows [B, C] with a single 1."""
    rows = torch.zeros(labels.shape[0], num_classes, dtype=dtype, device=labels.device)
    return rows.scatter_(1, labels.unsqueeze(1), 1.0)


def refurbish(labels_onehot: Tensor, probs: Tensor, weight: Tensor | float) -> Tensor:
    """w * y + (1 - w) * p: given labels blended with predictions; [B, C].

    labels_onehot, probs: [B, C]. weight: confidence in the given label in [0, 1], floating [B], or one number for all;
    1 returns the given label exactly, 0 the prediction exactly. Source: Li et al., DivideMix, ICLR 2020
    (co-refinement); Chen et al., arXiv 2211.08722 (refurbished labels).
    """
    if isinstance(weight, Tensor):
        weight = weight.detach()
        weight = weight.unsqueeze(1) if weight.dim() == 1 else weight
    return weight * labels_onehot.detach() + (1.0 - weight) * probs.detach()


def sharpen(probs: Tensor, temperature: float) -> Tensor:
    """p_c^(1/T) / sum_c p_c^(1/T); [B, C]. T > 0, else ValueError; T = 1 changes nothing, T -> 0 gives the argmax.

    Source: Berthelot et al., MixMatch, NeurIPS 2019; Li et al., DivideMix, ICLR 2020.
    """
    if temperature <= 0.0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    probs = probs.detach()
    # Relative to the row's largest entry, so that a small temperature cannot underflow a whole row.
    powers = (probs / probs.amax(dim=1, keepdim=True)) ** (1.0 / temperature)
    return powers / powers.sum(dim=1, keepdim=True)


def ensemble_mean(*probs: Tensor) -> Tensor:
    """Mean over networks and views of equally shaped predictions [B, C]; ValueError when none is given.

    Source: Li et al., DivideMix, ICLR 2020 (co-refinement, co-guessing).
    """
    if not probs:
        raise ValueError("ensemble_mean needs at least one prediction")
    return torch.stack([p.detach() for p in probs]).mean(dim=0)
