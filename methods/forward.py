"""Forward correction of the loss by a noise transition matrix, given or estimated (Patrini et al., CVPR 2017)."""

from __future__ import annotations

import copy
from typing import Annotated, Literal

import torch
from torch import Tensor

from bench.fields import FieldError, Range
from bench.method import DIGITS, TUNED, LossMethod, Recipe
from bench.ops.transitions import anchor_transition, forward_correction

CODE = "giorgiop/loss-correction @15a79de"
_SOURCE = "official code, commit 15a79de, whose two runs of {} epochs are one of twice as many here; ResNet-{}"
_SGD = {"training.lr": 0.1, "training.batch_size": 128, "training.schedule": "multistep"}
_PLAN = {"checkpoint": "best", **_SGD}
_ONCE = {"transition": "given", **_SGD}
_HUMAN = tuple(f"cifar10n-{which}" for which in ("aggre", "random1", "random2", "random3", "worse"))
_GIVEN = "official code, commit 15a79de, which trains once for {} epochs where the matrix is given; ResNet-{}"
#: milestones count in epochs of the whole training, and each half of "paper" runs through them in its own time; "given" is
#: its second half alone
RECIPES = (
    Recipe("paper", _SOURCE.format(120, "14 or 32"),
           {**_PLAN, "percentile": 97.0, "training.weight_decay": 1e-4, "training.epochs": 240, "training.milestones": (82, 162)},
           {"dataset": "cifar10"}),
    Recipe("paper", _SOURCE.format(150, "44"),
           {**_PLAN, "percentile": None, "training.weight_decay": 1e-3, "training.epochs": 300,
            "training.milestones": (162, 242)}, {"dataset": "cifar100"}),
    Recipe("paper", "a peer's benchmark of CIFAR-10N: 120 epochs of warm-up and 120 corrected ones; ResNet-34",
           {**_PLAN, "training.weight_decay": 1e-4, "training.epochs": 240, "training.milestones": (80, 160)},
           {"dataset": _HUMAN}),
    Recipe("given", _GIVEN.format(120, "14 or 32"),
           {**_ONCE, "training.weight_decay": 1e-4, "training.epochs": 120, "training.milestones": (41, 81)},
           {"dataset": "cifar10"}),
    Recipe("given", _GIVEN.format(150, "44"),
           {**_ONCE, "training.weight_decay": 1e-3, "training.epochs": 150, "training.milestones": (81, 121)},
           {"dataset": "cifar100"}),
    Recipe("given", "a peer's benchmark of CIFAR-10N: its 120 corrected epochs, there with an estimate; ResNet-34",
           {**_ONCE, "training.weight_decay": 1e-4, "training.epochs": 120, "training.milestones": (40, 80)},
           {"dataset": _HUMAN}),
)  # fmt: skip


class Forward(LossMethod):
    """Patrini, Rozza, Menon, Nock & Qu, "Making Deep Neural Networks Robust to Label Noise: a Loss Correction Approach",
    CVPR 2017.

    Predictions p for clean classes go through the noise before they are compared with the given label, -log (p T)_y with
    T_ij = P(given j | true i), so that p itself need not fit the noise. `transition: given` reads the true matrix. `estimated`
    trains by cross-entropy for `estimate_epochs` (null: half of the training), reads T off the predictions at the anchor point
    of each class, and begins anew with that T, from the initial weights. Report the two as two methods: the settings of the
    paper's tables are the recipe `paper` for `estimated`, and for `given`, which has one stage, `recipe: given`.

    Both stages run through the whole learning-rate schedule, compressed to their length. Predictions of the first stage are its
    own; those of the second are p, not p T. `checkpoint: best` estimates by the network of the first stage that was best on
    validation data, as in the paper (by accuracy; there by loss), `last` by its last one.
    `shrinkage` a uses a I + (1 - a) T; 0 in the paper's experiments. Scores: minus the last training loss.

    Deviations: an outlier filter that leaves its column as it was (the released one zeroes values in place, which can move
    the anchors of later classes); anchors among training samples alone, not those held out; the second stage begins with the
    weights that the first began with, which all methods of a seed share, not with new ones.
    """

    slug = "forward"
    title = "Forward"
    paper = "Patrini et al., CVPR 2017, arXiv:1609.03683"
    code = CODE
    cost = "3 FE"
    level = "step"  # a loss, but also two stages
    recipes = (
        *RECIPES,
        Recipe("fixed", TUNED.format("digits"), {"estimate_epochs": 20}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"), {"estimate_epochs": 15}, {"dataset": "spurious-digits"}),
    )

    smoke = {"estimate_epochs": 1}

    transition: Literal["estimated", "given"] = "estimated"
    estimate_epochs: Annotated[int | None, Range(ge=1)] = None
    #: an anchor lies strictly below this percentile of its class's predictions; null: it is their maximum
    percentile: Annotated[float | None, Range(gt=0, lt=100)] = 97.0
    checkpoint: Literal["last", "best"] = "last"
    shrinkage: Annotated[float, Range(ge=0, lt=1)] = 0.0

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        if self.transition == "given":
            return frozenset({"transition_matrix"})
        return frozenset({"validation"}) if self.checkpoint == "best" else frozenset()

    def prepare(self, task) -> None:
        self.matrix = task.transition_matrix if self.transition == "given" else torch.eye(task.num_classes, device=task.device)
        if self.transition == "estimated":
            self._first = task.epochs // 2 if self.estimate_epochs is None else self.estimate_epochs
            if not 0 < self._first < task.epochs:
                raise FieldError("estimate_epochs", f"no epoch of {task.epochs} is left for the other stage")
            self.initial = copy.deepcopy(self.net.network.state_dict())
            self.best_accuracy = -1.0
            self.best_network: dict[str, Tensor] | None = None

    def validated(self, epoch: int, accuracy: float) -> None:
        if self.transition == "estimated" and epoch < self._first and accuracy > self.best_accuracy:
            self.best_accuracy, self.best_network = accuracy, copy.deepcopy(self.net.network.state_dict())

    def start_epoch(self, epoch: int) -> None:
        if self.transition == "estimated":
            if epoch == self._first:
                self.estimate()
            begin, end = (0, self._first) if epoch < self._first else (self._first, self.task.epochs)
            compression = self.task.epochs / (end - begin)
            self.net.set_lr(self.task.training.lr_at((epoch - begin) * compression, compression))

    def estimate(self) -> None:
        if self.best_network is not None:
            self.net.network.load_state_dict(self.best_network)
        estimated = anchor_transition(self.task.predictions(self.net), self.percentile)
        self.matrix = self.shrinkage * self.matrix + (1 - self.shrinkage) * estimated  # it was the identity until now
        self.net.network.load_state_dict(self.initial)
        self.net.optimizer.state.clear()

    def loss(self, logits: Tensor, batch) -> Tensor:
        return forward_correction(logits, batch.labels, self.matrix)
