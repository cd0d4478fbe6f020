"""LDR-KL and ALDR-KL: label-distributionally robust losses (Zhu, Ying & Yang, ICML 2023)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from bench.fields import Range
from bench.method import DIGITS, TUNED, LossMethod, Recipe
from bench.ops.ldr import adapted_lambda, aldr_kl, ldr_kl, normalised_scores


class LDR(LossMethod):
    """Zhu, Ying & Yang, "Label Distributionally Robust Losses for Multi-class Classification: Consistency, Robustness and
    Adaptivity", ICML 2023.

    The loss is the worst case over weights of the classes' margin violations, at the price of `lam` times their divergence from
    uniform: a large lam averages (robust), a small one takes the largest. ALDR-KL (`adaptive`) has a lambda_i per sample in
    [lam (1 - 1 / alpha), lam], smaller the more certain its prediction: certain samples near a max-margin loss, uncertain ones
    near averaging. `adaptive: false` is LDR-KL; with `normalise: none`, `margin: 0`, `lam: 1` that is cross-entropy - ln C.

    Scores are normalised as released (softplus for LDR-KL and on CIFAR-100, else by their mean absolute value), so the loss has
    no scale, and weight decay sets the effective learning rate. lambda_i comes from the prediction at hand and the lambda_i of
    the last visit. Deviations: none in the loss; batches are shuffled (released: fixed), predictions are softmax of the
    raw logits, as released. Scores for noise identification: minus the last training loss.
    """

    slug = "ldr"
    title = "ALDR-KL"
    paper = "Zhu et al., ICML 2023, arXiv:2112.14869"
    code = "Optimization-AI/ICML2023_LDR @732fc85"
    cost = "3 FE"
    recipes = (
        Recipe("paper", "official code, commit 732fc85: shipped lambda; the learning rate is validated there; ResNet-18",
               {"lam": 10, "normalise": "softplus", "margin": 0.1, "alpha": 2, "training.lr": 0.01,
                "training.weight_decay": 5e-3, "training.batch_size": 64, "training.epochs": 30,
                "training.schedule": "multistep", "training.milestones": (10, 20)}, {"dataset": "cifar100"}),
        Recipe("fixed", TUNED.format("digits"), {"lam": 10.0, "normalise": "l1"}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"), {"lam": 0.1, "normalise": "l1"}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    adaptive: bool = True
    lam: Annotated[float, Range(gt=0)] = 10.0
    margin: Annotated[float, Range(ge=0)] = 0.1
    alpha: Annotated[float, Range(gt=1)] = 2.0
    normalise: Literal["softplus", "l1", "none"] = "softplus"

    def prepare(self, task) -> None:
        self.lambdas = torch.full((task.num_samples,), self.lam, device=task.device)

    def loss(self, logits: Tensor, batch) -> Tensor:
        scores = normalised_scores(logits, self.normalise)
        if not self.adaptive:
            return ldr_kl(scores, batch.labels, self.lam, self.margin)
        lambdas = adapted_lambda(scores, self.lambdas[batch.index], self.lam, self.alpha)
        self.lambdas[batch.index] = lambdas
        return aldr_kl(scores, batch.labels, lambdas, self.lam, self.margin, self.alpha)
