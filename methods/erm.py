"""Empirical risk minimisation: plain cross-entropy on the given labels."""

from __future__ import annotations

from torch import Tensor

from bench.method import LossMethod, Recipe
from bench.ops.losses import cross_entropy


class ERM(LossMethod):
    """Cross-entropy (CE, "standard"); no single paper.

    Early epochs generalise, late ones memorise wrong labels: the gap between the best and the last epoch is the effect
    that every other method tries to remove.
    """

    slug = "erm"
    title = "Cross-Entropy"
    paper = "no single source; the baseline of every paper on noisy labels"
    code = "PaulAlbert31/LabelNoiseCorrection @5e9a73e"
    cost = "3 FE"
    recipes = (
        Recipe("paper", "baseline of M-correction, which later tables repeat: official code, commit 5e9a73e; PreAct-ResNet-18",
               {"training.lr": 0.1, "training.weight_decay": 1e-4, "training.batch_size": 128, "training.epochs": 300,
                "training.schedule": "multistep", "training.milestones": (100, 250)}, {"dataset": ("cifar10", "cifar100")}),
        Recipe("paper", "baseline of MLNT's official code, commit 40f163d; ResNet-50 with ImageNet weights",
               {"training.lr": 8e-4, "training.weight_decay": 1e-3, "training.batch_size": 32, "training.epochs": 3,
                "training.schedule": "multistep", "training.milestones": (2,)}, {"dataset": "clothing1m"}),
    )  # fmt: skip

    def loss(self, logits: Tensor, batch) -> Tensor:
        return cross_entropy(logits, batch.labels)
