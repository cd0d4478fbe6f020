"""JoCoR: joint training of two networks with co-regularisation (Wei et al., CVPR 2020)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from bench.fields import Range
from bench.method import DIGITS, TUNED, Recipe, StepMethod
from bench.ops.losses import cross_entropy
from bench.ops.pairs import symmetric_kl
from bench.ops.selection import keep_schedule, small_loss

_PLAN = {
    "training.optimizer": "adam", "training.lr": 1e-3, "training.weight_decay": 0.0, "training.batch_size": 128,
    "training.epochs": 200, "training.schedule": "linear", "training.beta1_after_decay": 0.1, "training.augment": "none",
    "ramp_epochs": 10,
}  # fmt: skip
_CODE = "README and threads of the official repository (commit 86db359; issues 3, 7); 7-layer CNN"
_CLOTHING = (
    "forget rate and lambda are ours, within what the authors would search on validation data (threads 10 and 3 of the official "
    "repository: 0.2 to 0.4, 0.5 to 0.9); the rest is the paper's (not re-read), but for the middle third's rate, 2e-4 for 5e-4"
)


class JoCoR(StepMethod):
    """Wei, Feng, Chen & An, "Combating Noisy Labels by Agreement: A Joint Training Method with Co-Regularization", CVPR 2020.

    The opposite of training on disagreement: a sample's loss is both networks' cross-entropy plus their symmetric KL
    divergence, (1 - lam) (CE_1 + CE_2) + lam (KL(p1 || p2) + KL(p2 || p1)); the samples with the smallest joint loss, on which
    the networks agree early, update both.

    One backward pass with gradient into both arguments of both divergences. The forget rate is `rate_share` times the
    measured noise rate unless `forget_rate` gives it. The released code halves the nominal rate under asymmetric noise: on
    CIFAR-10, where half of the classes move, that is the measured rate already; on CIFAR-100, where all of them do, it takes
    a `rate_share` of one half. Deviations: at least one sample is kept; sorting is stable. Prediction: the mean of both
    networks' probabilities (the paper averages their accuracies). Scores for noise identification: minus the last joint loss.
    """

    slug = "jocor"
    title = "JoCoR"
    paper = "Wei et al., CVPR 2020, arXiv:2003.02752"
    code = "hongxin001/JoCoR @86db359"
    networks = 2
    cost = "6 FE (2 networks)"
    recipes = (
        Recipe("paper", _CODE, {**_PLAN, "lam": 0.9, "training.decay_from": 80}, {"dataset": "cifar10"}),
        Recipe("paper", _CODE, {"lam": 0.65}, {"dataset": "cifar10", "noise": "symmetric", "rate": 0.8}),
        Recipe("paper", _CODE, {**_PLAN, "lam": 0.85, "training.decay_from": 100}, {"dataset": "cifar100"}),
        Recipe("paper", _CODE, {"rate_share": 0.5}, {"dataset": "cifar100", "noise": "asymmetric"}),
        Recipe("paper", _CLOTHING, {"lam": 0.85, "forget_rate": 0.3, "training.optimizer": "adam", "training.lr": 8e-4,
                                    "training.weight_decay": 0.0, "training.batch_size": 64, "training.epochs": 15,
                                    "training.schedule": "multistep", "training.milestones": (5, 10), "training.gamma": 0.25},
               {"dataset": "clothing1m"}),
        Recipe("fixed", TUNED.format("digits"), {"lam": 0.1}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"), {"lam": 0.9}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    smoke = {"ramp_epochs": 2}

    lam: Annotated[float, Range(ge=0, le=1)] = 0.9
    forget_rate: Annotated[float | None, Range(ge=0, lt=1)] = None
    rate_share: Annotated[float, Range(gt=0, le=1)] = 1.0
    ramp_epochs: Annotated[int, Range(ge=1)] = 10

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"noise_rate"}) if self.forget_rate is None else frozenset()

    def setup(self, task) -> None:
        self.a, self.b = task.learner("a"), task.learner("b")
        self.last_losses = torch.full((task.num_samples,), float("nan"), device=task.device)
        self._rate = self.rate_share * task.noise_rate if self.forget_rate is None else self.forget_rate

    def step(self, batch, epoch: int) -> None:
        logits_a, logits_b = self.a(batch.images), self.b(batch.images)
        supervised = cross_entropy(logits_a, batch.labels) + cross_entropy(logits_b, batch.labels)
        losses = (1 - self.lam) * supervised + self.lam * symmetric_kl(logits_a, logits_b)
        chosen = small_loss(losses, keep_schedule(self._rate, self.ramp_epochs, 1.0, epoch))
        self.a.step(losses[chosen].mean(), self.b)
        self.last_losses[batch.index] = losses.detach()

    def predict(self, images: Tensor) -> Tensor:
        return (self.a.infer(images).softmax(dim=1) + self.b.infer(images).softmax(dim=1)) / 2

    def clean_scores(self) -> Tensor:
        return -self.last_losses
