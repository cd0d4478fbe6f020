"""Generalised cross-entropy L_q, and its truncated form (Zhang & Sabuncu, NeurIPS 2018)."""

from __future__ import annotations

import copy
from typing import Annotated

import torch
from torch import Tensor

from bench.fields import Range
from bench.method import DIGITS, TUNED, LossMethod, Recipe
from bench.ops.losses import gce, gce_truncated, truncated_gce_weights

_CIFAR = {
    "q": 0.7, "k": 0.5, "prune_every": 10, "training.lr": 0.01, "training.weight_decay": 1e-4,
    "training.batch_size": 128, "training.schedule": "multistep",
}  # fmt: skip


class GCE(LossMethod):
    """Zhang & Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels", NeurIPS 2018.

    L_q = (1 - p_y^q) / q lies between cross-entropy (q -> 0) and the mean absolute error (q = 1) and weighs a sample's
    cross-entropy gradient by p_y^q. With `truncated`, samples with p_y <= k are dropped: from `prune_from` on, every
    `prune_every` epochs, the best network so far (on validation) decides which.

    Deviations: the truncated form trains the live network after a refresh (a widespread re-implementation trains a stale
    copy in that epoch, and refreshes one epoch earlier); weights come from one pass over unaugmented images; "best so far"
    is chosen on validation data, as in the paper, not on test data. Losses are averaged over the batch, dropped samples
    included. Scores for noise identification: minus the last L_q, in the truncated form as well, where the training loss of a
    dropped sample is 0, and so above that of a kept one.
    """

    slug = "gce"
    title = "GCE"
    paper = "Zhang & Sabuncu, NeurIPS 2018, arXiv:1805.07836"
    code = "AlanChou/Truncated-Loss @fef5908"
    cost = "3 FE (truncated: one forward pass more every prune_every epochs)"
    recipes = (
        Recipe("paper", "paper, via a re-implementation that follows it; ResNet-34",
               {**_CIFAR, "prune_from": 40, "training.epochs": 120, "training.milestones": (40, 80)}, {"dataset": "cifar10"}),
        Recipe("paper", "paper, via a re-implementation that follows it; ResNet-34",
               {**_CIFAR, "prune_from": 80, "training.epochs": 150, "training.milestones": (80, 120)}, {"dataset": "cifar100"}),
        Recipe("paper", "a peer's benchmark of CIFAR-10N; ResNet-34",
               {**_CIFAR, "prune_from": 40, "training.weight_decay": 5e-4, "training.epochs": 100, "training.milestones": (60,)},
               {"dataset": tuple(f"cifar10n-{which}" for which in ("aggre", "random1", "random2", "random3", "worse"))}),
        Recipe("fixed", "paper: one q for every data set, noise and rate", {"q": 0.7, "k": 0.5}),
        Recipe("fixed", TUNED.format("digits"), {"q": 0.7}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"), {"q": 0.9}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    smoke = {"prune_from": 1, "prune_every": 1}

    q: Annotated[float, Range(gt=0, le=1)] = 0.7
    truncated: bool = False
    k: Annotated[float, Range(gt=0, lt=1)] = 0.5
    prune_from: Annotated[int, Range(ge=0)] = 40
    prune_every: Annotated[int, Range(ge=1)] = 10

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"validation"}) if self.truncated else frozenset()

    def prepare(self, task) -> None:
        if self.truncated:
            self.keep = torch.ones(task.num_samples, device=task.device)
            self.best_accuracy, self.best_network = -1.0, copy.deepcopy(self.net.network.state_dict())

    def validated(self, epoch: int, accuracy: float) -> None:
        if accuracy > self.best_accuracy:
            self.best_accuracy, self.best_network = accuracy, copy.deepcopy(self.net.network.state_dict())

    def start_epoch(self, epoch: int) -> None:
        if self.truncated and epoch >= self.prune_from and (epoch - self.prune_from) % self.prune_every == 0:
            current = copy.deepcopy(self.net.network.state_dict())
            self.net.network.load_state_dict(self.best_network)
            self.keep = truncated_gce_weights(self.task.logits(self.net), self.task.labels, self.k).float()
            self.net.network.load_state_dict(current)

    def loss(self, logits: Tensor, batch) -> Tensor:
        plain = gce(logits, batch.labels, self.q)
        self._plain = plain.detach().float()
        return gce_truncated(logits, batch.labels, self.q, self.k, self.keep[batch.index]) if self.truncated else plain

    def step(self, batch, epoch: int) -> None:
        super().step(batch, epoch)
        self.last_losses[batch.index] = self._plain
