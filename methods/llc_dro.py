"""LLC + refurbish-DRO: local label consistency and top-tau training on refurbished labels (Chen et al., 2022)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from bench.fields import Range
from bench.learner import Learner
from bench.method import TUNED, EpochMethod, Recipe
from bench.ops.losses import cross_entropy, soft_cross_entropy, uniform_prior_kl
from bench.ops.mixtures import clean_posterior, min_max
from bench.ops.neighbours import knn, local_label_consistency
from bench.ops.selection import top_k_mean
from bench.ops.targets import ensemble_mean, one_hot, refurbish

_GROUPS = {
    "warmup": 5, "ensemble": "probabilities", "gmm_tol": 1e-3, "training.epochs": 105, "training.batch_size": 128,
    "training.lr": 5e-4, "training.weight_decay": 5e-4, "training.schedule": "multistep", "training.milestones": (86,),
}  # fmt: skip
_CIFAR = {
    "warmup": 15, "tau": 1.0, "prior_weight": 2.0, "ensemble": "logits", "gmm_tol": 1e-2, "gmm_reg_covar": 5e-4,
    "training.epochs": 515, "training.batch_size": 448, "training.lr": 0.03, "training.weight_decay": 5e-4,
    "training.schedule": "multistep", "training.milestones": (416,),
}  # fmt: skip
_PAPER = "supplement of the paper and official code, commit d95865a"
_ROLR = "supplement of the paper; what it leaves open from the first author's CIFAR code (Robust-LR, commit 8e5ed31)"


class LLCDRO(EpochMethod):
    """Chen, Zhao, He, Han, Wu & Yao, "Learning with Noisy Labels over Imbalanced Subpopulations", arXiv:2211.08722, 2022.

    Loss cannot tell minority samples from mislabelled ones, but neighbours in feature space can: a sample's confidence is
    the share of its neighbours that carry its label. It blends the given label with both networks' prediction, and only
    the hardest share `tau` of each batch, measured against the blended label, is trained.

    `confidence: loss` with `dro: false` is the paper's improved DivideMix; `confidence: llc` and `dro: true` switch on one
    part each (its Table 4). Prediction: both networks, probabilities or logits added up. Scores for noise identification:
    mean of both networks' confidence.

    Choices where paper and code disagree or are silent: a sample counts as its own neighbour (code); consistency is a
    share, not a count; features come from unaugmented images; the mixture starts from the best 1-D 2-means partition (code:
    unseeded k-means); a degenerate mixture means full confidence in every label, logged as `degenerate_gmm`; at least one
    sample of a batch is trained. The optional power on the pseudo-label (1 everywhere) is left out.
    """

    slug = "llc-dro"
    title = "LLC + refurbish-DRO"
    paper = "Chen et al., 2022, arXiv:2211.08722"
    code = "chenmc1996/LNL-IS @d95865a"
    networks = 2
    cost = "6 FE while warming up, then 2 FE, and 10 more for each of the passes (2 networks)"
    recipes = (
        Recipe("paper", _PAPER, {**_GROUPS, "k": 50, "tau": 0.7, "gmm_reg_covar": 5e-4}, {"dataset": "waterbirds"}),
        Recipe("paper", "tau at 35 and 40 % is illegible in the supplement; CelebA's pattern", {"tau": 0.8},
               {"dataset": "waterbirds", "rate": (0.35, 0.4)}),
        Recipe("paper", _PAPER, {**_GROUPS, "k": 25, "tau": 0.7, "gmm_reg_covar": 1e-3}, {"dataset": "celeba"}),
        Recipe("paper", _PAPER, {"tau": 0.8}, {"dataset": "celeba", "rate": (0.25, 0.3)}),
        Recipe("paper", _ROLR, {**_CIFAR, "k": 1000, "passes": 2}, {"dataset": "cifar10"}),
        Recipe("paper", _ROLR, {**_CIFAR, "k": 400, "passes": 2}, {"dataset": "cifar100"}),
        Recipe("fixed", TUNED.format("digits"),
               {"k": 20, "tau": 1.0, "prior_weight": 2.0, "warmup": 10, "train_view": "weak"}, {"dataset": "digits"}),
        Recipe("fixed", TUNED.format("spurious-digits"),
               {"k": 100, "tau": 0.7, "warmup": 10, "train_view": "weak"}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    smoke = {"warmup": 1, "k": 10, "prior_weight": 1.0}

    warmup: Annotated[int, Range(ge=1)] = 5
    confidence: Literal["llc", "loss"] = "llc"
    dro: bool = True
    k: Annotated[int, Range(ge=1)] = 50
    tau: Annotated[float, Range(gt=0, le=1)] = 0.7
    include_self: bool = True
    train_view: Literal["strong", "weak"] = "strong"
    passes: Annotated[int, Range(ge=1)] = 1
    prior_weight: Annotated[float, Range(ge=0)] = 0.0
    ensemble: Literal["probabilities", "logits"] = "probabilities"
    gmm_tol: Annotated[float, Range(ge=0)] = 1e-3
    gmm_reg_covar: Annotated[float, Range(gt=0)] = 5e-4
    gmm_max_iter: Annotated[int, Range(ge=1)] = 10

    def setup(self, task) -> None:
        self.a, self.b = task.learner("a"), task.learner("b")
        self.clean: Tensor | None = None

    def epoch(self, epoch: int) -> None:
        if epoch < self.warmup:
            self.warm_up(self.a)
            self.warm_up(self.b)
            return
        confidence_a, confidence_b = self.label_confidence(self.a), self.label_confidence(self.b)
        self.clean = (confidence_a + confidence_b) / 2
        for _ in range(self.passes):
            self.train(self.b, self.a, confidence_a)  # each network trusts labels as its peer does
        for _ in range(self.passes):
            self.train(self.a, self.b, confidence_b)

    def warm_up(self, net: Learner) -> None:
        for batch in self.task.batches():
            net.step(cross_entropy(net(batch.images), batch.labels).mean())

    def label_confidence(self, net: Learner) -> Tensor:
        """Posterior [N] that a given label is right, from one network."""
        if self.confidence == "llc":
            neighbours = knn(self.task.features(net), self.k, include_self=self.include_self)
            score = local_label_consistency(neighbours, self.task.labels)
        else:
            score = min_max(cross_entropy(self.task.logits(net), self.task.labels))
        posterior, mixture = clean_posterior(
            score, smaller_is_clean=self.confidence == "loss",
            max_iter=self.gmm_max_iter, tol=self.gmm_tol, reg_covar=self.gmm_reg_covar,
        )  # fmt: skip
        self.task.log("degenerate_gmm", mixture.degenerate.float())
        return posterior

    def train(self, net: Learner, peer: Learner, confidence: Tensor) -> None:
        for batch in self.task.batches(("weak", self.train_view)):
            weak, strong = batch.views
            with torch.no_grad():  # the trained network guesses in training mode, its peer in evaluation mode
                guess = ensemble_mean(net(weak).softmax(dim=1), peer.infer(weak).softmax(dim=1))
                target = refurbish(one_hot(batch.labels, self.task.num_classes), guess, confidence[batch.index])
            logits = net(strong)
            losses = soft_cross_entropy(logits, target)
            loss = top_k_mean(losses, self.tau) if self.dro else losses.mean()
            if self.prior_weight:
                loss = loss + self.prior_weight * uniform_prior_kl(logits.softmax(dim=1).mean(dim=0))
            net.step(loss)

    def predict(self, images: Tensor) -> Tensor:
        logits_a, logits_b = self.a.infer(images), self.b.infer(images)
        if self.ensemble == "logits":
            return (logits_a + logits_b).softmax(dim=1)
        return (logits_a.softmax(dim=1) + logits_b.softmax(dim=1)) / 2

    def clean_scores(self) -> Tensor | None:
        return self.clean
