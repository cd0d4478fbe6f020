"""MTaDCS+: MTaDCS, fine-tuned on its last confidence set (Huang et al., ECCV 2024)."""

from __future__ import annotations

from typing import Annotated

from bench.fields import FieldError, Range
from bench.method import Recipe
from bench.ops.losses import cross_entropy
from methods.mtadcs import _CIFAR, _IS_CIFAR, _PAPER, _SET, _WEBVISION, MTaDCS

_FINE = {"finetune_lr": 1e-3, "finetune_epochs": 70, "training.epochs": 320}


class MTaDCSPlus(MTaDCS):
    """Huang et al., "MTaDCS: Moving Trace and Feature Density-based Confidence Sample Selection under Label Noise", ECCV 2024.

    MTaDCS, whose last `finetune_epochs` train the same network with a small learning rate on the confidence set as it then is,
    with its corrected labels: cross-entropy of mixed images alone, on weakly augmented ones (Section 4.2).

    `training.epochs` counts both stages; the schedule of learning rates runs through the first as if there were no second. The
    optimiser goes on with its momentum (the paper does not say). Shapes, needs, fields, prediction and scores: see MTaDCS.
    """

    slug = "mtadcs-plus"
    title = "MTaDCS+"
    cost = MTaDCS.cost + "; 3 FE per image of the confidence set in the fine-tuning"
    recipes = (
        Recipe("paper", _PAPER + _SET, {**_CIFAR, **_FINE}, _IS_CIFAR),
        Recipe("paper", "the paper, section 4.1; ResNet-18",
               {**_WEBVISION, **_FINE, "finetune_epochs": 10, "training.epochs": 140}, {"dataset": "webvision50"}),
        Recipe("unprivileged", _PAPER + "; begun with the whole set, as the paper does on WebVision",
               {**_CIFAR, **_FINE, "trusted_size": 0}, _IS_CIFAR),
    )  # fmt: skip

    smoke = {**MTaDCS.smoke, "finetune_epochs": 1}

    finetune_epochs: Annotated[int, Range(ge=1)] = 70
    finetune_lr: Annotated[float, Range(gt=0)] = 1e-3

    def setup(self, task) -> None:
        self._first = task.epochs - self.finetune_epochs
        if self._first < 1:
            raise FieldError("finetune_epochs", f"no epoch of {task.epochs} is left for the training before it")
        super().setup(task)

    def epoch(self, epoch: int) -> None:
        if epoch < self._first:
            return super().epoch(epoch)
        self.net.set_lr(self.finetune_lr)
        for batch in self.task.batches(("weak",), indices=self.members()):
            labels = self.labels[batch.index]
            if self.mixup:
                loss = self.mixed_loss(batch.images, labels)
            else:
                loss = cross_entropy(self.net(batch.images), labels).mean()
            self.net.step(loss)
