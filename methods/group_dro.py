"""Group DRO: minimise the loss of the worst group, groups known (Sagawa et al., ICLR 2020)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from bench.fields import Range
from bench.method import TUNED, Recipe, StepMethod
from bench.ops.groups import exponentiated_weights, greedy_weights, group_means
from bench.ops.losses import cross_entropy

_README = "README of the official code, commit cbbc1c5; ResNet-50 with ImageNet weights"
_PLAN = {"training.weight_decay": 1e-4, "training.batch_size": 128, "training.schedule": "constant", "training.augment": "none"}


class GroupDRO(StepMethod):
    """Sagawa, Koh, Hashimoto & Liang, "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020.

    A weight per group is raised exponentially with the group's loss, and the weighted mean of the groups' losses is
    minimised: the network plays against the worst group. Batches are balanced over groups; strong weight decay or an early
    stop (the `selected` protocol) is part of the method.

    Groups are the true ones, which reveal true labels (a need). A group that is absent from a batch has loss 0 there, so its
    weight shrinks by normalisation only; one without any training sample has weight 0 from the start.
    `adjustment` adds C / sqrt(n_g) to a group's loss before its weight is raised. `rule: greedy`
    fills the share `budget` of the population with the groups of the largest running losses (the released "btl").
    Deviations: the adjustment never enters the minimised loss (released: its value, not its gradient); epochs are selected by
    plain validation accuracy as for every method (released: by the worst group's).
    """

    slug = "group-dro"
    title = "Group DRO"
    paper = "Sagawa et al., ICLR 2020, arXiv:1911.08731"
    code = "kohpangwei/group_DRO @cbbc1c5"
    cost = "3 FE"
    needs = frozenset({"groups"})
    recipes = (
        Recipe("paper", _README, {**_PLAN, "training.lr": 1e-3, "training.epochs": 300}, {"dataset": "waterbirds"}),
        Recipe("paper", _README, {**_PLAN, "training.lr": 1e-4, "training.epochs": 50}, {"dataset": "celeba"}),
        Recipe("fixed", TUNED.format("spurious-digits"), {"rule": "greedy", "budget": 0.2}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    step_size: Annotated[float, Range(ge=0)] = 0.01
    adjustment: Annotated[float, Range(ge=0)] = 0.0
    balanced: bool = True
    rule: Literal["exponentiated", "greedy"] = "exponentiated"
    budget: Annotated[float, Range(gt=0, le=1)] = 0.2
    running: Annotated[float, Range(gt=0, le=1)] = 0.1

    def setup(self, task) -> None:
        self.net = task.learner()
        self._groups = task.groups
        self._sizes = torch.bincount(self._groups).float()
        count, self._present = len(self._sizes), (self._sizes > 0).float()
        self.weights = self._present / self._present.sum()
        self.average = torch.zeros(count, device=task.device)
        self.seen = torch.zeros(count, dtype=torch.bool, device=task.device)

    def samples(self, epoch: int) -> Tensor | None:
        """As many draws as there are samples, with replacement, every group equally likely."""
        if not self.balanced:
            return None
        chances = (1 / self._sizes)[self._groups].cpu()
        drawn = torch.multinomial(chances, len(chances), replacement=True, generator=self.task.generator("groups"))
        return drawn.to(self.task.device)

    def step(self, batch, epoch: int) -> None:
        losses = cross_entropy(self.net(batch.images), batch.labels)
        groups = self._groups[batch.index]
        means = group_means(losses, groups, len(self._sizes))
        margin = self.adjustment / self._sizes.clamp_min(1).sqrt() * self._present
        if self.rule == "exponentiated":
            self.weights = exponentiated_weights(self.weights, means.detach() + margin, self.step_size)
        else:
            present = torch.nn.functional.one_hot(groups, len(self._sizes)).sum(dim=0) > 0
            self.follow(means.detach(), present)
            self.weights = greedy_weights(self.average + margin, self._sizes / self._sizes.sum(), self.budget)
        self.net.step(self.weights @ means)

    def follow(self, means: Tensor, present: Tensor) -> None:
        """Exponential averages of the groups' losses, begun with a group's first batch."""
        old = torch.where(self.seen, 1 - self.running * present.float(), 0.0)
        self.average = old * self.average + (1 - old) * means
        self.seen = self.seen | present

    def predict(self, images: Tensor) -> Tensor:
        return self.net.infer(images).softmax(dim=1)
