"""Early-learning regularisation (Liu et al., NeurIPS 2020)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from bench.fields import Range
from bench.method import DIGITS, TUNED, LossMethod, Recipe
from bench.ops.losses import cross_entropy, elr_regulariser

_CIFAR = {"training.lr": 0.02, "training.weight_decay": 1e-3, "training.batch_size": 128}
_STEP10 = {
    "training.epochs": 120, "training.schedule": "multistep", "training.milestones": (40, 80), "training.gamma": 0.01,
}  # fmt: skip
_CODE = "official code, commit 934af53; ResNet-34, 45 000 training images"


class ELR(LossMethod):
    """Liu, Niles-Weed, Razavian & Fernandez-Granda, "Early-Learning Regularization Prevents Memorization", NeurIPS 2020.

    A running average t_i of each sample's prediction remembers what the network believed early on; log(1 - <p, t>) keeps
    predictions aligned with it, which cancels the gradient of wrong labels and sustains that of right ones.

    t starts at zero, is updated before the loss and is a constant in it; p is clamped to [1e-4, 1 - 1e-4], as released.
    Scores for noise identification are t_i at the given label (ours: the paper only compares the arg max).
    """

    slug = "elr"
    title = "ELR"
    paper = "Liu et al., NeurIPS 2020, arXiv:2007.00151"
    code = "shengliu66/ELR @934af53"
    cost = "3 FE"
    recipes = (
        Recipe("paper", _CODE + ", shipped cosine configuration",
               {**_CIFAR, "lam": 3, "beta": 0.7, "training.epochs": 150, "training.schedule": "cosine-restarts",
                "training.restart_every": 10, "training.min_lr": 1e-3}, {"dataset": "cifar10", "noise": "symmetric"}),
        Recipe("paper", _CODE, {**_CIFAR, **_STEP10, "lam": 1, "beta": 0.9}, {"dataset": "cifar10", "noise": "asymmetric"}),
        Recipe("paper", _CODE,
               {**_CIFAR, **_STEP10, "lam": 7, "beta": 0.9, "training.epochs": 150, "training.milestones": (80, 120)},
               {"dataset": "cifar100"}),
        Recipe("paper", "paper (not re-read); ResNet-50 with ImageNet weights",
               {"lam": 3, "beta": 0.7, "training.lr": 1e-3, "training.weight_decay": 1e-3, "training.epochs": 10,
                "training.schedule": "multistep", "training.milestones": (5,)}, {"dataset": "clothing1m"}),
        Recipe("fixed", TUNED.format("digits"), {"lam": 7.0, "beta": 0.9}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"), {"lam": 3.0, "beta": 0.7}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    lam: Annotated[float, Range(ge=0)] = 3.0
    beta: Annotated[float, Range(ge=0, lt=1)] = 0.7

    def prepare(self, task) -> None:
        self.targets = torch.zeros(task.num_samples, task.num_classes, device=task.device)

    def loss(self, logits: Tensor, batch) -> Tensor:
        probs = logits.softmax(dim=1).clamp(1e-4, 1 - 1e-4)
        with torch.no_grad():
            believed = probs / probs.sum(dim=1, keepdim=True)
            targets = self.beta * self.targets[batch.index] + (1 - self.beta) * believed
            self.targets[batch.index] = targets
        return cross_entropy(logits, batch.labels) + self.lam * elr_regulariser(probs, targets)

    def clean_scores(self) -> Tensor:
        return self.targets.gather(1, self.task.labels[:, None])[:, 0]
