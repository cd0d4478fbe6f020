"""Samples by how often they were in a set that a method keeps, and how far such groups lie from it."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.ops.targets import one_hot


def sample_types(times: Tensor, epochs: int, few: int = 10) -> dict[str, Tensor]:
    """The four types of Huang et al., ECCV 2024, section 4.6; bool [N] each. `times` int64 [N]: of `epochs` epochs a sample
    was in the set in so many, and outside in the rest.

    Fewer than `few` outside: clean and easy; of the others, fewer than `few` inside: mislabelled and easy; of the rest, those
    that were inside at least as often as outside are clean and hard.
    """
    outside = epochs - times
    clean_easy = outside < few
    mislabelled_easy = (times < few) & ~clean_easy
    hard = ~clean_easy & ~mislabelled_easy
    return {
        "clean_easy": clean_easy, "clean_hard": hard & (times >= outside),
        "mislabelled_easy": mislabelled_easy, "mislabelled_hard": hard & (times < outside),
    }  # fmt: skip


def centre_distance(points: Tensor, labels: Tensor, some: Tensor, others: Tensor, num_classes: int) -> Tensor:
    """Distance between the class centres of `some` and of `others`, bool [N] both, mean over the classes that both have; NaN
    where there are none. points: [N, d]; labels: int64 [N]; 0-d."""

    def centres(members: Tensor) -> tuple[Tensor, Tensor]:
        share = one_hot(labels, num_classes, dtype=points.dtype) * members[:, None]
        counts = share.sum(dim=0)
        return share.T @ points / counts.clamp_min(1)[:, None], counts > 0

    (a, in_a), (b, in_b) = centres(some), centres(others)
    both = in_a & in_b
    return (torch.linalg.vector_norm(a - b, dim=1) * both).sum() / both.sum()
