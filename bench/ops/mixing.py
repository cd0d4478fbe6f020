"""Mixup and the semi-supervised losses of MixMatch and DivideMix. Nothing here waits for the device.

Random numbers come from the given generator alone, on the generator's device, and are moved to where they are needed:
a CPU generator gives the same draws whatever the device of the data.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.ops.losses import at_least_float32, soft_cross_entropy


def beta_mix_coefficient(
    alpha: float, *, generator: torch.Generator, device: torch.device | str | None = None
) -> Tensor:
    """One draw of max(l, 1 - l) with l ~ Beta(alpha, alpha); float32 0-d in [0.5, 1] on `device`.

    alpha > 0, else ValueError. device None: the generator's. Source: Berthelot et al., MixMatch, NeurIPS 2019.
    """
    if alpha <= 0.0:
        raise ValueError(f"alpha must be positive, got {alpha}")
    shape = torch.full((2,), alpha, dtype=torch.float64, device=generator.device)
    # Gamma(alpha) = Gamma(alpha + 1) * U^(1/alpha); in logarithms, since for a small alpha both draws can underflow.
    log_gamma = torch._standard_gamma(shape + 1.0, generator=generator).log()
    log_gamma = log_gamma - torch.empty_like(shape).exponential_(generator=generator) / alpha
    share = torch.sigmoid(log_gamma[0] - log_gamma[1])
    return _moved(torch.maximum(share, 1.0 - share).float(), device or generator.device)


def mix(inputs: Tensor, targets: Tensor, lam: Tensor | float, permutation: Tensor) -> tuple[Tensor, Tensor]:
    """Mixup: lam * a + (1 - lam) * a[permutation] for inputs [B, ...] and targets [B, C] alike.

    lam: one number in [0, 1] (float or 0-d), the share of the row itself; 1 changes nothing. permutation: int64 [B].
    Source: Zhang et al., mixup, ICLR 2018.
    """
    mixed_inputs = lam * inputs + (1.0 - lam) * inputs[permutation]
    mixed_targets = lam * targets + (1.0 - lam) * targets[permutation]
    return mixed_inputs, mixed_targets


def mixmatch_batch(inputs: Tensor, targets: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix a stacked batch with itself: one coefficient per batch, one random permutation of the whole stack.

    inputs [B, ...] and targets [B, C]: labelled views first, unlabelled views after; that order is kept, and each row
    is nearer to itself than to its partner. Source: Li et al., DivideMix, ICLR 2020 (MixMatch step).
    """
    lam = beta_mix_coefficient(alpha, generator=generator, device=inputs.device)
    permutation = torch.randperm(inputs.shape[0], generator=generator, device=generator.device)
    return mix(inputs, targets, lam, _moved(permutation, inputs.device))


def semi_loss(logits_x: Tensor, targets_x: Tensor, logits_u: Tensor, targets_u: Tensor) -> tuple[Tensor, Tensor]:
    """(L_x, L_u) of the labelled rows [X, C] and the unlabelled rows [U, C]; both 0-d, >= 0.

    L_x: mean over rows of -sum_c t_c log p_c. L_u: mean over all U * C entries of (p - t)^2, so it is C times smaller
    than a mean over rows. A part without rows is 0. Targets are constants. Source: Li et al., DivideMix, ICLR 2020,
    with the mean over entries of the released code.
    """
    targets_x, targets_u = targets_x.detach(), targets_u.detach()
    loss_x = soft_cross_entropy(logits_x, targets_x).sum() / max(1, logits_x.shape[0])
    squares = (at_least_float32(logits_u).softmax(dim=1) - targets_u) ** 2
    return loss_x, squares.sum() / max(1, squares.numel())


def linear_rampup(current: float, warmup_end: float, length: float = 16.0) -> float:
    """clip((current - warmup_end) / length, 0, 1); all in epochs, fractions allowed. length > 0, else ValueError.

    Source: Li et al., DivideMix, ICLR 2020 (the weight of L_u).
    """
    if length <= 0.0:
        raise ValueError(f"length must be positive, got {length}")
    return min(1.0, max(0.0, (current - warmup_end) / length))


def _moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    # A plain copy to a GPU waits for the work queued there. Only towards the GPU: the other way it would be unsafe.
    return tensor.to(device, non_blocking=torch.device(device).type == "cuda")
