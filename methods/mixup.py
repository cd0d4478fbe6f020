"""mixup: training on convex combinations of pairs of samples (Zhang et al., ICLR 2018)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from bench.fields import Range
from bench.method import DIGITS, TUNED, Recipe, StepMethod
from bench.ops.losses import soft_cross_entropy
from bench.ops.mixing import beta_mix_coefficient, mix
from bench.ops.targets import one_hot

_PLAN = {
    "training.lr": 0.1, "training.weight_decay": 1e-4, "training.batch_size": 128, "training.epochs": 200,
    "training.schedule": "multistep", "training.milestones": (101, 151),
}  # fmt: skip
_CORRUPTED = "table of corrupted labels of the paper (not re-read); schedule of the official code, commit eaff31a"


class Mixup(StepMethod):
    """Zhang, Cisse, Dauphin & Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018.

    Images and targets are blended in random pairs, x = l x_i + (1 - l) x_j with one l ~ Beta(alpha, alpha) a batch; being
    linear between samples, the network memorises wrong labels more slowly. Images are blended after augmentation.

    Deviation: l is folded to max(l, 1 - l). Under a uniformly random pairing this changes nothing: swapping l and 1 - l only
    renames which partner comes first, so a batch of blends has the same distribution. alpha 0 is cross-entropy.
    Prediction: the one network, on plain images. No scores for noise identification: no loss belongs to one sample.
    """

    slug = "mixup"
    title = "mixup"
    paper = "Zhang et al., ICLR 2018, arXiv:1710.09412"
    code = "facebookresearch/mixup-cifar10 @eaff31a"
    cost = "3 FE"
    recipes = (
        Recipe("paper", _CORRUPTED, {**_PLAN, "alpha": 32}, {"dataset": "cifar10"}),
        Recipe("paper", _CORRUPTED, {"alpha": 8}, {"dataset": "cifar10", "noise": "symmetric", "rate": 0.2}),
        Recipe("paper", "default of the official code, commit eaff31a", {"alpha": 1}, {"dataset": "cifar10", "noise": "none"}),
        Recipe("paper", "M-correction's runs of mixup (Arazo et al., ICML 2019): its official code, commit 5e9a73e",
               {**_PLAN, "alpha": 32, "training.epochs": 300, "training.milestones": (100, 250)}, {"dataset": "cifar100"}),
        Recipe("fixed", TUNED.format("digits"), {"alpha": 8}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"), {"alpha": 32}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    alpha: Annotated[float, Range(ge=0)] = 32.0

    def setup(self, task) -> None:
        self.net = task.learner()

    def step(self, batch, epoch: int) -> None:
        generator, count = self.task.generator(), len(batch)
        share = beta_mix_coefficient(self.alpha, generator=generator, device=self.task.device) if self.alpha else 1.0
        partner = torch.randperm(count, generator=generator).to(self.task.device, non_blocking=True)
        images, targets = mix(batch.images, one_hot(batch.labels, self.task.num_classes), share, partner)
        self.net.step(soft_cross_entropy(self.net(images), targets).mean())

    def predict(self, images: Tensor) -> Tensor:
        return self.net.infer(images).softmax(dim=1)
