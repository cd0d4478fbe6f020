"""Decoupling: two networks, updated only where they disagree (Malach & Shalev-Shwartz, NeurIPS 2017)."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from bench.fields import Range
from bench.method import DIGITS, TUNED, Recipe, StepMethod
from bench.ops.losses import cross_entropy
from bench.ops.pairs import disagreement

_PLAN = {
    "training.optimizer": "adam", "training.lr": 1e-3, "training.weight_decay": 0.0, "training.batch_size": 128,
    "training.epochs": 200, "training.schedule": "linear", "training.decay_from": 80, "training.beta1_after_decay": 0.1,
    "training.augment": "none",
}  # fmt: skip
_BASELINE = "as a baseline in Co-teaching (Han et al., NeurIPS 2018); the paper itself has no CIFAR setting"


class Decoupling(StepMethod):
    """Malach & Shalev-Shwartz, "Decoupling 'when to update' from 'how to update'", NeurIPS 2017.

    A sample updates the two networks only while they predict different classes for it. Once they agree, right or wrong,
    its gradient stops, and with it the memorisation of its label.

    Each network uses its own cross-entropy on the shared set of disagreement; predictions come from the same training-mode
    pass as the losses. The sum is divided by max(|D|, `floor` * batch size), as released, so that a tiny set makes no huge
    step; `floor: 0` is the plain mean. Where nobody disagrees neither weights nor optimisers move (released: the step is
    taken with a zero gradient). Left out: the buffered variant and the class weights of the released script, which were made
    for its binary task. Prediction: the mean of both networks' probabilities (the papers report single networks).
    """

    slug = "decoupling"
    title = "Decoupling"
    paper = "Malach & Shalev-Shwartz, NeurIPS 2017, arXiv:1706.02613"
    code = "emalach/UpdateByDisagreement @86d01a8"
    networks = 2
    cost = "6 FE (2 networks)"
    recipes = (
        Recipe("paper", _BASELINE, _PLAN, {"dataset": ("cifar10", "cifar100")}),
        Recipe("fixed", TUNED.format("digits"), {"floor": 0.1, "warmup": 0}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"), {"floor": 0.0, "warmup": 0}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    smoke = {"warmup": 1}

    warmup: Annotated[int, Range(ge=0)] = 0
    floor: Annotated[float, Range(ge=0, le=1)] = 0.1

    def setup(self, task) -> None:
        self.a, self.b = task.learner("a"), task.learner("b")

    def step(self, batch, epoch: int) -> None:
        logits_a, logits_b = self.a(batch.images), self.b(batch.images)
        update = disagreement(logits_a, logits_b)
        self.task.log("disagreement", update.float().mean())
        if epoch < self.warmup:
            update = update | True
        count = update.sum().clamp_min(max(1.0, self.floor * self.task.batch_size))
        for net, logits in ((self.a, logits_a), (self.b, logits_b)):
            net.step((update * cross_entropy(logits, batch.labels)).sum() / count, skip=~update.any())

    def predict(self, images: Tensor) -> Tensor:
        return (self.a.infer(images).softmax(dim=1) + self.b.infer(images).softmax(dim=1)) / 2
