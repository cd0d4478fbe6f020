"""Evaluation metrics. They return host values and may wait for the device: use them after an epoch, not in a step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np

    Array = Tensor | np.ndarray


def roc_auc(scores: Array, positive: Array) -> float | None:
    """Area under the ROC curve: P(score of a positive > score of a negative), ties counting one half; in [0, 1].

    scores: real [N], larger means more positive. positive: bool [N]. None when a class is missing. ValueError when
    shapes differ or a score is NaN. Source: Mann-Whitney U from average ranks.
    """
    scores, positive = torch.as_tensor(scores).detach().double(), torch.as_tensor(positive).bool()
    if scores.dim() != 1 or scores.shape != positive.shape:
        raise ValueError(f"expected two arrays [N], got {tuple(scores.shape)} and {tuple(positive.shape)}")
    if bool(scores.isnan().any()):
        raise ValueError("a score is NaN")
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return None
    _, tie_group, size = scores.unique(return_inverse=True, return_counts=True)
    rank = (size.cumsum(0) - (size - 1) / 2.0).double()[tie_group]  # 1-based, averaged over equal scores
    u = float(rank[positive].sum()) - n_positive * (n_positive + 1) / 2
    return u / (n_positive * n_negative)


def accuracy(predictions: Array, labels: Array) -> float:
    """Share of predictions [N] equal to labels [N] (both integer class ids); in [0, 1], NaN when N = 0.

    ValueError when shapes differ.
    """
    predictions, labels = torch.as_tensor(predictions), torch.as_tensor(labels)
    if predictions.dim() != 1 or predictions.shape != labels.shape:
        raise ValueError(f"expected two arrays [N], got {tuple(predictions.shape)} and {tuple(labels.shape)}")
    return int((predictions == labels).sum()) / len(labels) if len(labels) else math.nan


def group_accuracy(correct: Array, groups: Array, n_groups: int) -> Tensor:
    """Share of correct samples in each group; float64 [n_groups] in [0, 1], NaN for a group without samples.

    correct: bool [N]. groups: int64 [N] in 0..n_groups-1. ValueError when shapes differ or a group is out of range.
    """
    correct, groups = torch.as_tensor(correct), torch.as_tensor(groups)
    if groups.dim() != 1 or correct.shape != groups.shape:
        raise ValueError(f"expected two arrays [N], got {tuple(correct.shape)} and {tuple(groups.shape)}")
    if groups.numel() and not 0 <= int(groups.min()) <= int(groups.max()) < n_groups:
        raise ValueError(f"group ids must lie in 0..{n_groups - 1}")
    totals = torch.bincount(groups, minlength=n_groups)
    return torch.bincount(groups, weights=correct.bool().double(), minlength=n_groups) / totals
