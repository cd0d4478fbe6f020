"""MTaDCS+: MTaDCS, fine-tuned on its last confidence set (Huang et al., ECCV 2024)."""

from __future__ import annotations

from typing import Annotated

from bench.fields import FieldError, Range
from bench.method import DIGITS, TUNED, Recipe
from methods.mtadcs import MTaDCS


def _fine_tuned(recipe: Recipe, epochs: int) -> Recipe:
    """A recipe of MTaDCS with `epochs` more."""
    more = {"finetune_epochs": epochs, "finetune_lr": 1e-3, "training.epochs": recipe.set["training.epochs"] + epochs}
    return Recipe(recipe.name, recipe.source + "; fine-tuned", {**recipe.set, **more}, recipe.when)


class MTaDCSPlus(MTaDCS):
    """Huang et al., "MTaDCS: Moving Trace and Feature Density-based Confidence Sample Selection under Label Noise", ECCV 2024.

    MTaDCS, whose last `finetune_epochs` train the same network with a small learning rate on the confidence set as it then is,
    with its corrected labels: cross-entropy of mixed images alone, on weakly augmented ones (Section 4.2).

    `training.epochs` counts both stages, and the first follows the schedule of learning rates of them all: a constant rate,
    milestones and restarts are what they would be without a second stage, but a cosine or linear decay, whose end is that of
    both, is cut off where the second begins. The optimiser goes on with its momentum (the paper does not say). Shapes, needs,
    fields, prediction and scores: see MTaDCS.
    """

    slug = "mtadcs-plus"
    title = "MTaDCS+"
    cost = MTaDCS.cost + "; fine-tuning: 3 FE per image of the confidence set"
    recipes = (  # type: ignore[assignment]
        _fine_tuned(MTaDCS.recipes[0], 70),
        _fine_tuned(MTaDCS.recipes[1], 10),
        _fine_tuned(MTaDCS.recipes[2], 70),
        Recipe("fixed", TUNED.format("digits"),
               {"trusted_size": 0, "momentum": 0.99, "queue_size": 1000, "train_view": "weak", "alpha": 0.05,
                "finetune_epochs": 15, "warmup": 10}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"),
               {"trusted_size": 0, "momentum": 0.99, "queue_size": 1000, "train_view": "weak", "alpha": 0.05,
                "finetune_epochs": 15, "warmup": 10}, {"dataset": "spurious-digits"}),
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
            self.net.step(self.class_loss(batch.images, self.labels[batch.index]))
