"""ELR+: early-learning regularisation with two networks, weight averaging and mixup (Liu et al., NeurIPS 2020)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from bench.fields import Range
from bench.learner import Average, Learner
from bench.method import DIGITS, TUNED, EpochMethod, Recipe
from bench.ops.losses import elr_regulariser, soft_cross_entropy
from bench.ops.mixing import beta_mix_coefficient, mix
from bench.ops.targets import one_hot

_CIFAR = {
    "training.lr": 0.02, "training.weight_decay": 5e-4, "training.batch_size": 128, "training.epochs": 200,
    "training.schedule": "multistep", "training.milestones": (150,), "alpha": 1.0, "ema": 0.997, "ema_steps": 40_000,
}  # fmt: skip
_CODE = "official code, commit 934af53, folder ELR_plus; PreAct-ResNet-18"


class ELRPlus(EpochMethod):
    """Liu, Niles-Weed, Razavian & Fernandez-Granda, "Early-Learning Regularization Prevents Memorization", NeurIPS 2020.

    ELR whose target memory t [N, K] of each network follows the weight average (EMA) of the OTHER network on images before
    mixup; the networks themselves are trained on mixed images, labels and targets.

    An epoch trains the first network over all samples, then the second; both count the same global steps s. The averages
    start from weights of their own and run in training mode, so their batch statistics are their own. `ema_steps` 0: the
    weight average has decay min(1 - 1/(s + 1), ema) instead of a ramp (released: `ema_update: false`). `reweight_labels` is
    the released code's step for CIFAR-100: y' <- y' * q, normalised. Deviations: both networks see one draw of noise and one
    split (released: each its own). Prediction: softmax of the mean of both networks' logits, as released on one GPU (on two:
    the first network and the second's average). Scores for noise identification: mean of both memories at the given label
    (ours, as for ELR); to watch, as `confidence`.
    """

    slug = "elr-plus"
    title = "ELR+"
    paper = "Liu et al., NeurIPS 2020, arXiv:2007.00151"
    code = "shengliu66/ELR @934af53"
    networks = 2
    cost = "8 FE (2 networks: 3 each, and 1 for the peer's average)"
    recipes = (
        Recipe("paper", _CODE, {**_CIFAR, "lam": 3, "beta": 0.7}, {"dataset": "cifar10"}),
        Recipe("paper", _CODE, {"lam": 1, "beta": 0.9}, {"dataset": "cifar10", "noise": "asymmetric"}),
        Recipe("paper", "a peer's benchmark of CIFAR-10N; ResNet-34", {**_CIFAR, "lam": 3, "beta": 0.7},
               {"dataset": tuple(f"cifar10n-{which}" for which in ("aggre", "random1", "random2", "random3", "worse"))}),
        Recipe("paper", _CODE,
               {**_CIFAR, "lam": 7, "beta": 0.9, "coef_steps": 40_000, "reweight_labels": True, "training.epochs": 250,
                "training.milestones": (200,)}, {"dataset": "cifar100"}),
        Recipe("paper", _CODE.replace("PreAct-ResNet-18", "ResNet-50"),
               {"lam": 3, "beta": 0.7, "ema": 0.9999, "ema_steps": 0, "training.lr": 2e-3, "training.weight_decay": 1e-3,
                "training.batch_size": 64, "training.epochs": 15, "training.schedule": "multistep",
                "training.milestones": (7,)}, {"dataset": "clothing1m"}),
        Recipe("paper", _CODE.replace("PreAct-ResNet-18", "Inception-ResNet-v2"),
               {"lam": 3, "beta": 0.7, "alpha": 1.5, "ema_steps": 0, "training.lr": 0.02, "training.weight_decay": 5e-4,
                "training.batch_size": 32, "training.epochs": 100, "training.schedule": "multistep",
                "training.milestones": (50,)}, {"dataset": "webvision50"}),
        Recipe("fixed", TUNED.format("digits"),
               {"lam": 7.0, "beta": 0.9, "coef_steps": 700, "ema": 0.95, "ema_steps": 700}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"),
               {"lam": 1.0, "beta": 0.7, "ema": 0.95, "ema_steps": 600}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    lam: Annotated[float, Range(ge=0)] = 3.0
    beta: Annotated[float, Range(ge=0, lt=1)] = 0.7
    alpha: Annotated[float, Range(ge=0)] = 1.0
    coef_steps: Annotated[int, Range(ge=0)] = 0
    ema: Annotated[float, Range(ge=0, lt=1)] = 0.997
    ema_steps: Annotated[int, Range(ge=0)] = 40_000
    reweight_labels: bool = False

    def setup(self, task) -> None:
        self.a, self.b = task.learner("a"), task.learner("b")
        self.average_a, self.average_b = task.average(self.a, "average-a"), task.average(self.b, "average-b")
        self.memory_a = torch.zeros(task.num_samples, task.num_classes, device=task.device)
        self.memory_b = torch.zeros_like(self.memory_a)
        self.steps = 0

    def epoch(self, epoch: int) -> None:
        self.train(self.a, self.average_a, self.average_b, self.memory_a)
        self.steps += self.train(self.b, self.average_b, self.average_a, self.memory_b)
        self.task.observe("confidence", values=self.clean_scores)

    def train(self, net: Learner, average: Average, peer: Average, memory: Tensor) -> int:
        """One pass over the data; returns its number of steps."""
        generator, device, step = self.task.generator("mix"), self.task.device, self.steps
        for batch in self.task.batches():
            step += 1
            share = beta_mix_coefficient(self.alpha, generator=generator, device=device) if self.alpha else 1.0
            partner = torch.randperm(len(batch), generator=generator).to(device, non_blocking=True)
            images, labels = mix(batch.images, one_hot(batch.labels, self.task.num_classes), share, partner)
            logits = net(images)
            believed = peer(batch.images).softmax(dim=1)
            targets = self.beta * memory[batch.index] + (1 - self.beta) * believed
            memory[batch.index] = targets
            targets = share * targets + (1 - share) * targets[partner]
            if self.reweight_labels:
                labels = reweighted(labels, targets)
            net.step(self.loss(logits, labels, targets, step))
            average.update(self.decay(step))
        return step - self.steps

    def loss(self, logits: Tensor, labels: Tensor, targets: Tensor, step: int) -> Tensor:
        """Mean of -sum_c y'_c log p_c + rho(s) lam log(1 - <p, q>) for labels y' [B, K] and targets q [B, K]; 0-d."""
        probs = logits.softmax(dim=1).clamp(1e-4, 1 - 1e-4)
        penalty = _rampup(step, self.coef_steps) * self.lam * elr_regulariser(probs, targets)
        return (soft_cross_entropy(logits, labels) + penalty).mean()

    def decay(self, step: int) -> float:
        """Decay of the weight average at global step `step`, counted from 1."""
        return self.ema * _rampup(step + 1, self.ema_steps) if self.ema_steps else min(1 - 1 / (step + 1), self.ema)

    def predict(self, images: Tensor) -> Tensor:
        return ((self.a.infer(images) + self.b.infer(images)) / 2).softmax(dim=1)

    def clean_scores(self) -> Tensor:
        memory = (self.memory_a + self.memory_b) / 2
        return memory.gather(1, self.task.labels[:, None])[:, 0]


def reweighted(labels: Tensor, targets: Tensor) -> Tensor:
    """Labels [B, K] times targets [B, K], each row divided by its sum (zeros where the two have no class in common)."""
    product = labels * targets
    return product / product.sum(dim=1, keepdim=True).clamp_min(torch.finfo(product.dtype).tiny)


def _rampup(step: int, length: int) -> float:
    """exp(-5 (1 - min(step / length, 1))^2); 1 for length 0 (Laine & Aila, ICLR 2017)."""
    return math.exp(-5 * (1 - min(step / length, 1)) ** 2) if length else 1.0
