"""Histograms that stay on the device."""

from __future__ import annotations

import torch
from torch import Tensor


def shares(values: Tensor, bins: int, end: float) -> Tensor:
    """Share of values [N >= 1] in each of `bins` >= 1 equal parts of [0, end]; floating [bins] in [0, 1].

    The first part is open to the left, the last one to the right, and a part does not hold its lower edge. Values that are
    not a number count in none, so that shares then sum to less than 1. The same bits on every run; no wait for the device.
    """
    edges = torch.linspace(0, end, bins + 1, device=values.device, dtype=values.dtype)[1:-1]
    known = (~values.isnan()).sum().view(1)
    ordered = values.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).sort().values
    below = torch.searchsorted(ordered, edges, right=True)
    return torch.cat([torch.zeros_like(known), below, known]).diff() / len(values)
