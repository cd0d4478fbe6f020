"""Soft and hard bootstrapping: labels blended with the network's own prediction (Reed et al., ICLR workshop 2015)."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from bench.fields import Range
from bench.method import DIGITS, TUNED, LossMethod, Recipe
from bench.ops.losses import bootstrap_hard, bootstrap_soft

_CIFAR = {"training.lr": 0.1, "training.batch_size": 128, "training.schedule": "multistep"}
_CODE = "the benchmark of Patrini et al. (loss-correction, commit 15a79de): soft form"
_ARAZO = "the row of Arazo et al. (M-correction, commit 5e9a73e): its schedule; hard form"


class Bootstrap(LossMethod):
    """Reed et al., "Training Deep Neural Networks on Noisy Labels with Bootstrapping", ICLR workshop 2015.

    The target is beta times the given label plus (1 - beta) times what the network says now: its probabilities p (`form:
    soft`) or its arg max (`hard`), so that a consistent prediction overrules a wrong label.

    `beta` null is the paper's: 0.95 for soft, 0.8 for hard. In the soft form the gradient flows through p as target too, as in
    all released code that was read (cross-entropy plus an entropy term); `detach` makes it a constant. The arg max is that of
    the training pass. Logarithms of softmax where released code clips p at 1e-7. The paper's reconstruction variant, which no
    benchmark uses, is left out. Scores for noise identification: minus the last training loss.
    """

    slug = "bootstrap"
    title = "Bootstrap"
    paper = "Reed et al., ICLR workshop 2015, arXiv:1412.6596"
    code = "xingjunm/dimensionality-driven-learning @608a0bb"
    cost = "3 FE"
    recipes = (
        Recipe("paper", _ARAZO, {**_CIFAR, "form": "hard", "training.epochs": 300, "training.milestones": (100, 250),
                                 "training.weight_decay": 1e-4}, {"dataset": ("cifar10", "cifar100")}),
        Recipe("fixed", TUNED.format("digits"), {"form": "hard", "beta": 0.6}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"), {"form": "hard", "beta": 0.6}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    form: Literal["soft", "hard"] = "hard"
    beta: Annotated[float | None, Range(ge=0, le=1)] = None
    detach: bool = False

    def loss(self, logits: Tensor, batch) -> Tensor:
        if self.form == "hard":
            return bootstrap_hard(logits, batch.labels, 0.8 if self.beta is None else self.beta)
        return bootstrap_soft(logits, batch.labels, 0.95 if self.beta is None else self.beta, detach=self.detach)
