"""Joint optimisation of network and labels, then a fresh network on the final labels (Tanaka et al., CVPR 2018)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from bench.fields import FieldError, Range
from bench.method import DIGITS, TUNED, EpochMethod, Recipe
from bench.ops.losses import negative_entropy, soft_cross_entropy
from bench.ops.targets import one_hot

_CIFAR = {
    "relabel_epochs": 200, "begin": 70, "retrain_lr": 0.2, "training.epochs": 320, "training.batch_size": 128,
    "training.weight_decay": 1e-4, "training.schedule": "constant",
}  # fmt: skip
_STRONG = {"alpha": 1.2, "beta": 0.8}
_PAPER = "paper; 200 and 120 epochs; PreAct ResNet-32, 45 000 training images"


class JointOpt(EpochMethod):
    """Tanaka, Ikami, Yamasaki & Aizawa, "Joint Optimization Framework for Learning with Noisy Labels", CVPR 2018.

    A large constant learning rate keeps a network from learning wrong labels by heart: its averaged predictions then replace
    all labels, epoch after epoch. A prior on classes and an entropy term keep the labels from collapsing.

    Relabelling, `relabel_epochs`: L = L_c + alpha L_p + beta L_e with the cross-entropy of the targets t [N, K], the
    cross-entropy -sum_c pi_c log s_c of the batch's mean prediction s under the prior pi, and the entropy of predictions. From
    the end of epoch number `begin` on (counted from 1), t is the mean of the last `window` predictions of each sample, as seen
    in training; `update: hard` takes its arg max. Retraining, the other epochs: a fresh network, L_c alone, learning rate
    `retrain_lr`, a tenth of it after each third (null: the schedule goes on). Relabelling wants a constant rate. Null for
    `relabel_epochs` and `begin`: the paper's share of the training, 200 and 70 of 320 epochs.

    Memory: a ring of predictions, float32 [N, window, K], 20 MB for CIFAR-10 and 560 MB for Clothing1M, freed when retraining
    begins. A running average would be K numbers a sample, but of another shape than the published mean of ten epochs.

    Deviation: the mean is over what the ring holds, where the released code counts empty slots as zeros (it differs if `begin` is
    less than `window`, or if an epoch leaves samples out, which keep their label until they are seen). Prediction: the network of
    the current stage. Scores for noise identification: t at the given label, once labels have been replaced.
    """

    slug = "joint-opt"
    title = "Joint Optimization"
    paper = "Tanaka et al., CVPR 2018, arXiv:1803.11364"
    code = "DaikiTanaka-UT/JointOptimization @7e7a30d"
    cost = "3 FE"
    networks = 2
    recipes = (
        Recipe("paper", _PAPER + "; its learning rate depends on the noise rate, and only 0.08 and 0.03 are known to us",
               {**_CIFAR, **_STRONG, "training.lr": 0.08}, {"dataset": "cifar10"}),
        Recipe("paper", _PAPER, {"alpha": 0.8, "beta": 0.4, "training.lr": 0.03}, {"dataset": "cifar10", "noise": "asymmetric"}),
        Recipe("paper", "paper (not re-read); ResNet-50 with ImageNet weights",
               {**_STRONG, "relabel_epochs": 10, "begin": 1, "prior": "labels", "retrain_lr": 5e-4, "training.epochs": 20,
                "training.lr": 8e-4, "training.weight_decay": 1e-3, "training.batch_size": 32, "training.schedule": "constant"},
               {"dataset": "clothing1m"}),
        Recipe("fixed", TUNED.format("digits"),
               {"relabel_epochs": 38, "begin": 13, "retrain_lr": 0.05, "alpha": 0.8, "beta": 0.4}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"),
               {"relabel_epochs": 19, "begin": 7, "window": 10, "retrain_lr": 0.05}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    smoke = {"relabel_epochs": 1, "begin": 1}

    relabel_epochs: Annotated[int | None, Range(ge=1)] = None
    begin: Annotated[int | None, Range(ge=1)] = None
    window: Annotated[int, Range(ge=1)] = 10
    alpha: Annotated[float, Range(ge=0)] = 1.2
    beta: Annotated[float, Range(ge=0)] = 0.8
    update: Literal["soft", "hard"] = "soft"
    #: pi: equal shares, or those of the given labels
    prior: Literal["uniform", "labels"] = "uniform"
    retrain_lr: Annotated[float | None, Range(gt=0)] = 0.2

    def setup(self, task) -> None:
        self.net, self.fresh = task.learner("a"), task.learner("b")
        self.targets = one_hot(task.labels, task.num_classes)
        self.history: Tensor | None = torch.zeros(task.num_samples, self.window, task.num_classes, device=task.device)
        self.relabelled = False
        self._relabel_epochs = task.epochs * 200 // 320 if self.relabel_epochs is None else self.relabel_epochs
        self._begin = task.epochs * 70 // 320 if self.begin is None else self.begin
        if not 0 < self._relabel_epochs < task.epochs:
            raise FieldError("relabel_epochs", f"no epoch of {task.epochs} is left for the other stage")
        if self._begin > self._relabel_epochs:
            raise FieldError(
                "begin", f"labels would be replaced after epoch {self._begin} first, and only {self._relabel_epochs} relabel",
                f"1 to {self._relabel_epochs}, or more relabel_epochs",
            )  # fmt: skip
        uniform = torch.full_like(self.targets[0], 1 / task.num_classes)
        self._prior = self.targets.mean(dim=0) if self.prior == "labels" else uniform

    def epoch(self, epoch: int) -> None:
        if epoch < self._relabel_epochs:
            self.relabel(epoch)
            return
        if epoch == self._relabel_epochs:
            self.net, self.fresh, self.history = self.fresh, self.net, None
        self.retrain(epoch)

    def relabel(self, epoch: int) -> None:
        assert self.history is not None
        for batch in self.task.batches():
            logits = self.net(batch.images)
            probs = logits.softmax(dim=1)
            self.history[batch.index, epoch % self.window] = probs.detach()
            mean = probs.mean(dim=0).clamp_min(torch.finfo(probs.dtype).tiny)
            classification = soft_cross_entropy(logits, self.targets[batch.index]).mean()
            prior = -(self._prior * mean.log()).sum()
            entropy = -negative_entropy(logits).mean()
            self.net.step(classification + self.alpha * prior + self.beta * entropy)
        if epoch + 1 >= self._begin:
            self.update_labels(self.history.sum(dim=1))

    def update_labels(self, total: Tensor) -> None:
        """Replace labels by the mean of predictions, given their sum [N, K] over the ring; empty slots are zeros."""
        mass = total.sum(dim=1, keepdim=True)
        mean = torch.where(mass > 0, total / mass, self.targets)
        self.targets = one_hot(mean.argmax(dim=1), self.task.num_classes) if self.update == "hard" else mean
        self.relabelled = True

    def retrain(self, epoch: int) -> None:
        if self.retrain_lr is not None:
            third = 3 * (epoch - self._relabel_epochs) // (self.task.epochs - self._relabel_epochs)
            self.net.set_lr(self.retrain_lr * 0.1**third)
        for batch in self.task.batches():
            self.net.step(soft_cross_entropy(self.net(batch.images), self.targets[batch.index]).mean())

    def predict(self, images: Tensor) -> Tensor:
        return self.net.infer(images).softmax(dim=1)

    def clean_scores(self) -> Tensor | None:
        return self.targets.gather(1, self.task.labels[:, None])[:, 0] if self.relabelled else None
