"""Co-teaching+: small-loss exchange among samples on which the networks disagree (Yu et al., ICML 2019)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from bench.fields import Range
from bench.method import DIGITS, TUNED, Recipe, StepMethod
from bench.ops.losses import cross_entropy
from bench.ops.pairs import disagreement, masked_mean, small_loss_among
from bench.ops.selection import keep_schedule

_PLAN = {
    "training.optimizer": "adam", "training.lr": 1e-3, "training.weight_decay": 0.0, "training.batch_size": 128,
    "training.epochs": 200, "training.schedule": "linear", "training.decay_from": 80, "training.beta1_after_decay": 0.1,
    "training.augment": "none", "ramp_epochs": 10,
}  # fmt: skip
_CODE = "official code, commit a68ed61; small CNNs"


class CoTeachingPlus(StepMethod):
    """Yu, Han, Yao, Niu, Tsang & Sugiyama, "How does Disagreement Help Generalization against Label Corruption?", ICML 2019.

    Two networks that exchange small-loss samples grow alike and stop helping each other. After `warmup` epochs of plain
    Co-teaching, each ranks only the samples D on which the two predict different classes, and hands its floor(R(t) |D|)
    smallest-loss ones to the other (all of D if that is none).

    Deviations: losses are taken from logits; the released code passes softmax outputs to the cross-entropy
    (`double_softmax: true`). The mean loss is divided by the number of kept samples once (released: twice). Where nobody
    disagrees nothing moves (released: both networks train on the whole batch in the first 5000/epoch batches of an
    epoch, else step on a zero loss). A sample of index 0 can be selected (released: lost). Left out: the paper's drop rate that
    grows beyond the noise rate, which the released code does not ship. Prediction: the mean of both networks'
    probabilities (the paper reports single networks). Scores: minus the mean of both networks' last losses.
    """

    slug = "co-teaching-plus"
    title = "Co-teaching+"
    paper = "Yu et al., ICML 2019, arXiv:1901.04215"
    code = "xingruiyu/coteaching_plus @a68ed61"
    version = 2  # shares of the disagreeing samples are counted in double precision: in some batches one sample more
    networks = 2
    cost = "6 FE (2 networks)"
    recipes = (
        Recipe("paper", _CODE, {**_PLAN, "warmup": 20}, {"dataset": "cifar10"}),
        Recipe("paper", _CODE, {**_PLAN, "warmup": 5}, {"dataset": "cifar100"}),
        Recipe("fixed", TUNED.format("digits"), {"warmup": 10}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"), {"warmup": 20}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    smoke = {"warmup": 1, "ramp_epochs": 2}

    forget_rate: Annotated[float | None, Range(ge=0, lt=1)] = None
    warmup: Annotated[int, Range(ge=0)] = 20
    ramp_epochs: Annotated[int, Range(ge=1)] = 10
    double_softmax: bool = False

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"noise_rate"}) if self.forget_rate is None else frozenset()

    def setup(self, task) -> None:
        self.a, self.b = task.learner("a"), task.learner("b")
        self.last_losses = torch.full((task.num_samples,), float("nan"), device=task.device)
        self._rate = task.noise_rate if self.forget_rate is None else self.forget_rate

    def step(self, batch, epoch: int) -> None:
        keep = keep_schedule(self._rate, self.ramp_epochs, 1.0, epoch)
        logits_a, logits_b = self.a(batch.images), self.b(batch.images)
        disagree = disagreement(logits_a, logits_b)
        self.task.log("disagreement", disagree.float().mean())
        if epoch < self.warmup:
            disagree = disagree | True
        elif self.double_softmax:
            logits_a, logits_b = logits_a.softmax(dim=1), logits_b.softmax(dim=1)
        losses_a, losses_b = cross_entropy(logits_a, batch.labels), cross_entropy(logits_b, batch.labels)
        chosen_by_a = small_loss_among(losses_a, disagree, keep)
        chosen_by_b = small_loss_among(losses_b, disagree, keep)
        self.a.step(masked_mean(losses_a, chosen_by_b), skip=~disagree.any())
        self.b.step(masked_mean(losses_b, chosen_by_a), skip=~disagree.any())
        self.last_losses[batch.index] = (losses_a + losses_b).detach() / 2

    def predict(self, images: Tensor) -> Tensor:
        return (self.a.infer(images).softmax(dim=1) + self.b.infer(images).softmax(dim=1)) / 2

    def clean_scores(self) -> Tensor:
        return -self.last_losses
