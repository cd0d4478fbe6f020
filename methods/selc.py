"""SELC: given labels turn into a running average of predictions (Lu & He, IJCAI 2022), and SELC+, which trains anew on them."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from bench.fields import FieldError, Range
from bench.method import DIGITS, TUNED, Recipe, StepMethod
from bench.ops.losses import cross_entropy, soft_cross_entropy
from bench.ops.mixing import beta_mix_coefficient, mix
from bench.ops.mixtures import gaussian_mixture_1d
from bench.ops.targets import one_hot

_CODE = "official code, commit 69bcf1e; ResNet-34"
_PLAN = {
    "alpha": 0.9, "turning_point": 40, "training.lr": 0.02, "training.weight_decay": 1e-3, "training.batch_size": 128,
    "training.epochs": 200, "training.schedule": "multistep", "training.milestones": (40, 80),
}  # fmt: skip
#: milestones count in epochs of the whole training, and each stage runs through them in its own time
_PLUS = {
    "plus": True, "mixup_alpha": 0.9, "plus_epochs": 200, "training.epochs": 400, "training.milestones": (80, 160),
}  # fmt: skip
_CIFAR = {"dataset": ("cifar10", "cifar100")}


def _cell(name: str, turning_point: int, dataset: str, noise: str, *rates: float) -> Recipe:
    where = {"dataset": dataset, "noise": noise, "rate": rates}
    return Recipe(name, "official code, commit 69bcf1e: its table of cells", {"turning_point": turning_point}, where)


class SELC(StepMethod):
    """Lu & He, "SELC: Self-Ensemble Label Correction Improves Learning with Noisy Labels", IJCAI 2022.

    A network is right about wrong labels before it learns them by heart. After `turning_point` epochs of cross-entropy each
    target t_i [K], which starts as the given label, becomes alpha t_i + (1 - alpha) p_i whenever its sample is seen, and the
    loss is the cross-entropy of t_i: after k corrections the given label keeps the weight alpha^k.

    p_i is the prediction of the training pass, before the step; t_i is a constant of the loss. `plus` (SELC+): in the last
    `plus_epochs` (null: half of the training) a fresh network learns arg max t_i with mixup; both stages run through the whole
    schedule of learning rates, compressed to their length. Null for `turning_point`: a fifth of the first stage, as 40 of 200.

    `turning: estimated` begins the correction sooner: once the means of two Gaussians fitted to an epoch's training losses have
    not moved further apart for `patience` epochs. Ours, after an idea of the paper whose code is not released: there corrections
    begin ten epochs before such a distance peaks, which takes a run of its own to know.

    Deviations: log-softmax (the released log of a softmax gives NaN for certain networks); no discarded forward pass before
    each mixed one, which moves batch statistics in the released SELC+; mixup's coefficient is folded to at least a half, which
    under random pairs changes nothing. The released code has the mixup parameter share the flag of alpha. Prediction: the one
    network, in SELC+ the fresh one. Scores for noise identification: t_i at the given label, once corrections have begun.
    """

    slug = "selc"
    title = "SELC"
    paper = "Lu & He, IJCAI 2022, arXiv:2205.01156"
    code = "MacLLL/SELC @69bcf1e"
    cost = "3 FE"
    recipes = (
        Recipe("paper", _CODE, _PLAN, _CIFAR),
        _cell("paper", 30, "cifar10", "symmetric", 0.4, 0.6),
        _cell("paper", 30, "cifar100", "symmetric", 0.2, 0.6),
        _cell("paper", 20, "cifar100", "symmetric", 0.4),
        _cell("paper", 20, "cifar100", "asymmetric", 0.4),
        Recipe("plus", _CODE + "; SELC+", {**_PLAN, **_PLUS}, _CIFAR),
        _cell("plus", 30, "cifar10", "symmetric", 0.4, 0.6),
        _cell("plus", 30, "cifar100", "symmetric", 0.2, 0.6),
        _cell("plus", 20, "cifar100", "symmetric", 0.4),
        _cell("plus", 20, "cifar100", "asymmetric", 0.4),
        Recipe("paper", "official code, commit 69bcf1e; Inception-ResNet-v2",
               {**_PLAN, "training.lr": 0.01, "training.weight_decay": 5e-4, "training.batch_size": 32,
                "training.epochs": 100}, {"dataset": "webvision50"}),
        Recipe("paper", "official code, commit 69bcf1e; ResNet-50 with ImageNet weights",
               {**_PLAN, "alpha": 0.8, "turning_point": 5, "training.lr": 0.01, "training.batch_size": 64, "training.epochs": 40,
                "training.milestones": (10, 20)}, {"dataset": "clothing1m"}),
        Recipe("paper", "official code, commit 69bcf1e, which counts epochs from 0 here; VGG-19-BN",
               {**_PLAN, "turning_point": 41, "training.lr": 0.1, "training.momentum": 0, "training.epochs": 100,
                "training.milestones": (50, 75), "training.gamma": 0.2}, {"dataset": "animal10n"}),
        Recipe("fixed", TUNED.format("digits"), {"turning_point": 6}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"),
               {"turning_point": 4, "plus": True, "plus_epochs": 15}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    smoke = {"turning_point": 1, "plus_epochs": 1}

    alpha: Annotated[float, Range(ge=0, le=1)] = 0.9
    turning: Literal["fixed", "estimated"] = "fixed"
    turning_point: Annotated[int | None, Range(ge=0)] = None
    patience: Annotated[int, Range(ge=1)] = 5
    plus: bool = False
    plus_epochs: Annotated[int | None, Range(ge=1)] = None
    mixup_alpha: Annotated[float, Range(gt=0)] = 0.9

    def setup(self, task) -> None:
        self.net = task.learner()
        self.targets = one_hot(task.labels, task.num_classes)
        self.correcting = False
        self._first = task.epochs
        if self.plus:
            self.fresh = task.learner("b")
            self._first -= task.epochs // 2 if self.plus_epochs is None else self.plus_epochs
            if not 0 < self._first < task.epochs:
                raise FieldError("plus_epochs", f"no epoch of {task.epochs} is left for the other stage")
        self._turning_point = self._first // 5 if self.turning_point is None else self.turning_point
        never = self.plus and self.turning == "fixed" and self._turning_point >= self._first
        if never and task.epochs > 3:  # no more epochs than stages are a trial, whatever it leaves out
            raise FieldError(
                "turning_point", f"labels would change after {self._turning_point} epochs, the first stage has {self._first}",
                f"0 to {self._first - 1}, or fewer plus_epochs",
            )  # fmt: skip
        if self.turning == "estimated":
            self.last_losses = torch.full((task.num_samples,), float("nan"), device=task.device)
            self.distances: list[float] = []

    def epoch(self, epoch: int) -> None:
        if self.plus:
            self.change_stage(epoch)
        self.correcting = self.correcting or epoch >= self._turning_point
        super().epoch(epoch)
        if self.turning == "estimated" and not self.correcting:
            self.correcting = self.turned()

    def change_stage(self, epoch: int) -> None:
        if epoch == self._first:
            self.net, self.fresh = self.fresh, self.net
        begin, end = (0, self._first) if epoch < self._first else (self._first, self.task.epochs)
        compression = self.task.epochs / (end - begin)
        self.net.set_lr(self.task.training.lr_at((epoch - begin) * compression, compression))

    def turned(self) -> bool:
        """Whether clean and noisy losses have come closer: the largest distance lies `patience` epochs back."""
        means = gaussian_mixture_1d(self.last_losses).means
        self.distances.append(float(means[1] - means[0]))
        return len(self.distances) - 1 - self.distances.index(max(self.distances)) >= self.patience

    def step(self, batch, epoch: int) -> None:
        if epoch >= self._first:
            return self.net.step(self.mixed_loss(batch))
        logits = self.net(batch.images)
        self.net.step(self.corrected_loss(logits, batch) if self.correcting else self.early_loss(logits, batch))

    def early_loss(self, logits: Tensor, batch) -> Tensor:
        losses = cross_entropy(logits, batch.labels)
        if self.turning == "estimated":
            self.last_losses[batch.index] = losses.detach()
        return losses.mean()

    def corrected_loss(self, logits: Tensor, batch) -> Tensor:
        targets = self.alpha * self.targets[batch.index] + (1 - self.alpha) * logits.detach().softmax(dim=1)
        self.targets[batch.index] = targets
        return soft_cross_entropy(logits, targets).mean()

    def mixed_loss(self, batch) -> Tensor:
        generator = self.task.generator()
        share = beta_mix_coefficient(self.mixup_alpha, generator=generator, device=self.task.device)
        partner = torch.randperm(len(batch), generator=generator).to(self.task.device, non_blocking=True)
        corrected = one_hot(self.targets[batch.index].argmax(dim=1), self.task.num_classes)
        images, targets = mix(batch.images, corrected, share, partner)
        return soft_cross_entropy(self.net(images), targets).mean()

    def predict(self, images: Tensor) -> Tensor:
        return self.net.infer(images).softmax(dim=1)

    def clean_scores(self) -> Tensor | None:
        return self.targets.gather(1, self.task.labels[:, None])[:, 0] if self.correcting else None
