"""Co-teaching: two networks exchange their small-loss samples (Han et al., NeurIPS 2018)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from bench.fields import Range
from bench.method import DIGITS, TUNED, Recipe, StepMethod
from bench.ops.losses import cross_entropy
from bench.ops.selection import keep_schedule, small_loss

_PLAN = {
    "training.optimizer": "adam", "training.lr": 1e-3, "training.weight_decay": 0.0, "training.batch_size": 128,
    "training.epochs": 200, "training.schedule": "linear", "training.beta1_after_decay": 0.1, "training.augment": "none",
}  # fmt: skip
_CODE = "official code, commit 7c7fbe2; 9-layer CNN"


class CoTeaching(StepMethod):
    """Han et al., "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels", NeurIPS 2018.

    Networks fit clean samples first, so each ranks the batch by its own loss and hands its R(t) smallest-loss samples to
    the other network to train on; different initialisations make the two filter different errors.

    The forget rate is the noise rate unless `forget_rate` gives it. Deviations: the mean loss is divided by the number of
    kept samples once (the released code divides twice, harmless under Adam only); at least one sample is kept; sorting is
    stable. Prediction: the mean of both networks' probabilities (an ensemble; the paper reports single networks).
    Scores for noise identification: minus the mean of both networks' last losses.
    """

    slug = "co-teaching"
    title = "Co-teaching"
    paper = "Han et al., NeurIPS 2018, arXiv:1804.06872"
    code = "bhanML/Co-teaching @7c7fbe2"
    networks = 2
    cost = "6 FE (2 networks)"
    recipes = (
        Recipe("paper", _CODE, {**_PLAN, "training.decay_from": 80}, {"dataset": "cifar10"}),
        Recipe("paper", _CODE, {**_PLAN, "training.decay_from": 100}, {"dataset": "cifar100"}),
        Recipe("fixed", TUNED.format("digits"), {"ramp_epochs": 10}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"), {"ramp_epochs": 5}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    smoke = {"ramp_epochs": 2}

    forget_rate: Annotated[float | None, Range(ge=0, lt=1)] = None
    ramp_epochs: Annotated[int, Range(ge=1)] = 10
    exponent: Annotated[float, Range(gt=0)] = 1.0

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"noise_rate"}) if self.forget_rate is None else frozenset()

    def setup(self, task) -> None:
        self.a, self.b = task.learner("a"), task.learner("b")
        self.last_losses = torch.full((task.num_samples,), float("nan"), device=task.device)
        self._rate = task.noise_rate if self.forget_rate is None else self.forget_rate

    def step(self, batch, epoch: int) -> None:
        keep = keep_schedule(self._rate, self.ramp_epochs, self.exponent, epoch)
        losses_a = cross_entropy(self.a(batch.images), batch.labels)
        losses_b = cross_entropy(self.b(batch.images), batch.labels)
        chosen_by_a, chosen_by_b = small_loss(losses_a, keep), small_loss(losses_b, keep)
        self.a.step(losses_a[chosen_by_b].mean())
        self.b.step(losses_b[chosen_by_a].mean())
        self.last_losses[batch.index] = (losses_a + losses_b).detach() / 2

    def predict(self, images: Tensor) -> Tensor:
        return (self.a.infer(images).softmax(dim=1) + self.b.infer(images).softmax(dim=1)) / 2

    def clean_scores(self) -> Tensor:
        return -self.last_losses
