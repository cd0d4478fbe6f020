"""What two networks say about one batch: where they disagree, how far apart they are, whom they select.

Counts that depend on the data stay on the device: nothing here waits for it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.ops.losses import at_least_float32


def disagreement(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """Where the arg max of two networks' logits [B, K] differs; bool [B]. Source: Malach & Shalev-Shwartz, NeurIPS 2017."""
    return logits_a.detach().argmax(dim=1) != logits_b.detach().argmax(dim=1)


def symmetric_kl(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """KL(p_a || p_b) + KL(p_b || p_a) for every sample; [B] >= 0, with gradient into both arguments of both terms.

    Source: Wei et al., JoCoR, CVPR 2020 (co-regularisation).
    """
    log_a, log_b = (F.log_softmax(at_least_float32(logits), dim=1) for logits in (logits_a, logits_b))
    return ((log_a.exp() - log_b.exp()) * (log_a - log_b)).sum(dim=1)


def small_loss_among(losses: Tensor, members: Tensor, share: float) -> Tensor:
    """The floor(share * |D|) smallest losses [B] among `members` D, bool [B]; all of D when that is none. bool [B].

    Equal losses keep their order in the batch; NaN counts as the largest. Source: Yu et al., Co-teaching+, ICML 2019,
    with the rule of the released code for an empty selection.
    """
    wanted = torch.floor(members.sum().double() * share + 1e-9)  # in float32 1e-9 would vanish, and 0.53 of 100 be 52
    wanted = torch.where(wanted > 0, wanted, members.sum())
    order = torch.sort(losses.detach().masked_fill(~members, torch.inf), stable=True).indices
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return members & (rank < wanted)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values [B] where `mask`, bool [B]; 0 where there are none; 0-d."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)
