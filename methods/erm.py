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
    recipes = (
        Recipe(
            "paper",
            "DivideMix's baseline (Li et al., ICLR 2020): PreAct-ResNet-18; settings not re-read in the paper",
            {
                "training.lr": 0.02, "training.weight_decay": 5e-4, "training.batch_size": 128, "training.epochs": 300,
                "training.schedule": "multistep", "training.milestones": (150,),
            },
            when={"dataset": ("cifar10", "cifar100")},
        ),
    )  # fmt: skip

    def loss(self, logits: Tensor, batch) -> Tensor:
        return cross_entropy(logits, batch.labels)
