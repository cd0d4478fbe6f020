"""Losses over groups of a batch, known or not: group means, the worst-case weights of group DRO, and CVaR."""

from __future__ import annotations

import torch
from torch import Tensor


def group_means(losses: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Mean of the losses [B] of each group, groups int64 [B] in 0..G-1; [G], 0 for a group without samples.

    Source: Sagawa et al., group DRO, ICLR 2020.
    """
    member = torch.nn.functional.one_hot(groups, num_groups).to(losses.dtype)
    return (losses @ member) / member.sum(dim=0).clamp_min(1)


def exponentiated_weights(weights: Tensor, losses: Tensor, step_size: float) -> Tensor:
    """q_g <- q_g exp(step_size * loss_g), normalised; weights and losses [G], no gradient.

    Source: Sagawa et al., group DRO, ICLR 2020 (algorithm 1).
    """
    # the largest exponent is taken out of the product: it cancels, and nothing overflows
    exponent = step_size * losses.detach()
    raised = weights * torch.exp(exponent - exponent.max())
    return raised / raised.sum()


def greedy_weights(reference: Tensor, fractions: Tensor, budget: float) -> Tensor:
    """Weights [G] that fill a `budget` in (0, 1] of the population with the groups of the largest reference losses [G].

    `fractions` [G] are the groups' shares of the training set; the last group that still fits partly gets the rest.
    Source: released code of group DRO (greedy variant).
    """
    order = torch.sort(reference.detach(), descending=True, stable=True).indices
    share = fractions[order]
    before = torch.cumsum(share, dim=0) - share
    filled = torch.minimum((budget - before).clamp_min(0), share) / budget
    return torch.zeros_like(filled).scatter_(0, order, filled)


def cvar(losses: Tensor, tau: float) -> Tensor:
    """Mean of the worst share `tau` in (0, 1] of the losses [B], the sample at the edge counted by its fraction; 0-d.

    It is min over eta of eta + mean((loss - eta)_+) / tau. Equals `bench.ops.selection.top_k_mean` where tau * B is an
    integer. Raises `ValueError` for another tau. Source: Levy et al., NeurIPS 2020; Rockafellar & Uryasev, 2000.
    """
    if not 0.0 < tau <= 1.0:
        raise ValueError(f"tau must lie in (0, 1], got {tau}")
    ordered = torch.sort(losses, descending=True, stable=True).values
    mass = tau * len(ordered)
    weight = (mass - torch.arange(len(ordered), device=losses.device, dtype=losses.dtype)).clamp(0, 1)
    return (weight * ordered).sum() / mass
