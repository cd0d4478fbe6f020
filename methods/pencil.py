"""PENCIL: label distributions learned by back-propagation (Yi & Wu, CVPR 2019)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from bench.fields import FieldError, Range
from bench.method import DIGITS, TUNED, Recipe, StepMethod
from bench.ops.losses import cross_entropy
from bench.ops.targets import one_hot

_STAGES = {"stage1": 70, "stage2": 200, "training.epochs": 320}
_PLAN = {
    "training.weight_decay": 1e-4, "training.batch_size": 128, "training.schedule": "constant", "finetune_lr": 0.2,
}  # fmt: skip
_CODE = "official code, commit 8a89ed5: its defaults for every noise; PreAct ResNet-32, 45 000 training images"


class PENCIL(StepMethod):
    """Yi & Wu, "Probabilistic End-to-end Noise Correction for Learning with Noisy Labels", CVPR 2019.

    Each sample has a vector of label logits; the loss of the network moves it, too, by gradient descent, so that the label
    distribution y^d = softmax(label logits) drifts from the given label towards what the network predicts steadily.

    Stage 1, cross-entropy on given labels; label logits [N, K] are `scale` times their one-hot rows. Stage 2, from epoch
    `stage1`: L_c + alpha L_o + beta L_e with the reversed KL(f || y^d), the tie L_o of y^d to the given label, and the entropy of
    f; one backward pass moves network and labels, each sample once per epoch. Stage 3, from epoch `stage2`: labels stay,
    L_c alone, learning rate `finetune_lr` times `finetune_decay` for each third (null: the schedule goes on). Null for a stage:
    the paper's share of the training, 70 and 200 of 320 epochs. Stages 1 and 2 want a constant rate.

    L_c and L_e are means over all B * K entries, a K-th of the paper's sums, so `lam` goes with batch size and classes: rescale
    it with B * K. `tie: double-softmax` is the released L_o, cross-entropy of y^d taken for logits, which the released alpha
    belongs to; `label` is the paper's -log y^d of the given label, whose gradient vanishes slower: some 40 times less alpha.

    Deviations: log y^d comes from a log-softmax; the released integer division, which leaves a rate of 0 after the first third
    of stage 3, needs `finetune_decay` 0; samples that an epoch leaves out keep their label. Prediction: the one network.
    Scores for noise identification: y^d at the given label, once stage 2 has begun.
    """

    slug = "pencil"
    title = "PENCIL"
    paper = "Yi & Wu, CVPR 2019, arXiv:1903.07788"
    code = "yikun2019/PENCIL @8a89ed5"
    cost = "3 FE"
    recipes = (
        Recipe("paper", _CODE, {**_PLAN, **_STAGES, "training.lr": 0.06, "alpha": 0.4, "beta": 0.1, "lam": 600},
               {"dataset": "cifar10"}),
        Recipe("paper", "paper, as quoted in thread #4 of the official repository", {"alpha": 0.1, "beta": 0.4},
               {"dataset": "cifar10", "noise": "asymmetric"}),
        Recipe("paper", "paper (not re-read); PreAct ResNet-32",
               {**_PLAN, **_STAGES, "training.lr": 0.35, "alpha": 0.1, "beta": 0.4, "lam": 10000}, {"dataset": "cifar100"}),
        Recipe("paper", "paper (not re-read), batch size and weight decay of joint-opt's run; ResNet-50 with ImageNet weights",
               {"alpha": 0.08, "beta": 0.8, "lam": 3000, "finetune_lr": 5e-4, "stage1": 5, "stage2": 10, "training.epochs": 20,
                "training.lr": 1.6e-3, "training.schedule": "multistep", "training.milestones": (5,), "training.gamma": 0.5,
                "training.weight_decay": 1e-3, "training.batch_size": 32}, {"dataset": "clothing1m"}),
        Recipe("fixed", TUNED.format("digits"),
               {"stage1": 13, "stage2": 37, "finetune_lr": 0.05, "lam": 300.0, "alpha": 0.1, "beta": 0.4}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"),
               {"stage1": 7, "stage2": 19, "finetune_lr": 0.05, "lam": 300.0}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    smoke = {"stage1": 1, "stage2": 2}

    stage1: Annotated[int | None, Range(ge=0)] = None
    stage2: Annotated[int | None, Range(ge=0)] = None
    alpha: Annotated[float, Range(ge=0)] = 0.4
    beta: Annotated[float, Range(ge=0)] = 0.1
    lam: Annotated[float, Range(ge=0)] = 600.0
    tie: Literal["double-softmax", "label"] = "double-softmax"
    scale: Annotated[float, Range(gt=0)] = 10.0
    finetune_lr: Annotated[float | None, Range(gt=0)] = 0.2
    finetune_decay: Annotated[float, Range(ge=0, le=1)] = 0.1

    def setup(self, task) -> None:
        self.net = task.learner()
        self.label_logits = self.scale * one_hot(task.labels, task.num_classes)
        self.stage = 1
        self._stage1 = task.epochs * 70 // 320 if self.stage1 is None else self.stage1
        self._stage2 = task.epochs * 200 // 320 if self.stage2 is None else self.stage2
        if self._stage2 <= self._stage1 and task.epochs > 3:  # no more epochs than stages are a trial, whatever it leaves out
            raise FieldError(
                "stage2", f"labels would move from epoch {self._stage1} on and stay from epoch {self._stage2} on: never move",
                f"{self._stage1 + 1} or more, or a smaller stage1",
            )  # fmt: skip

    def start_epoch(self, epoch: int) -> None:
        self.stage = 3 if epoch >= self._stage2 else 2 if epoch >= self._stage1 else 1
        if self.stage == 3 and self.finetune_lr is not None:
            third = 3 * (epoch - self._stage2) // (self.task.epochs - self._stage2)
            self.net.set_lr(self.finetune_lr * self.finetune_decay**third)

    def step(self, batch, epoch: int) -> None:
        logits = self.net(batch.images)
        if self.stage == 1:
            return self.net.step(cross_entropy(logits, batch.labels).mean())
        log_f = logits.log_softmax(dim=1)
        label_logits = self.label_logits[batch.index].requires_grad_(self.stage == 2)
        log_yd = label_logits.log_softmax(dim=1)
        loss = (log_f.exp() * (log_f - log_yd)).mean()
        if self.stage == 2:
            tie = cross_entropy(log_yd.exp() if self.tie == "double-softmax" else log_yd, batch.labels).mean()
            entropy = -(log_f.exp() * log_f).mean()
            loss = loss + self.alpha * tie + self.beta * entropy
            (gradient,) = torch.autograd.grad(loss, label_logits, retain_graph=True)  # goes no way into the network
            self.label_logits[batch.index] = label_logits.detach() - self.lam * gradient
        self.net.step(loss)

    def predict(self, images: Tensor) -> Tensor:
        return self.net.infer(images).softmax(dim=1)

    def clean_scores(self) -> Tensor | None:
        if self.stage == 1:
            return None
        return self.label_logits.softmax(dim=1).gather(1, self.task.labels[:, None])[:, 0]
