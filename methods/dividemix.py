"""DivideMix: co-divide, co-refine and co-guess with MixMatch (Li, Socher & Hoi, ICLR 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from torch import Tensor

from bench.fields import Range
from bench.learner import Learner
from bench.method import DIGITS, TUNED, EpochMethod, Recipe
from bench.ops.losses import cross_entropy, negative_entropy, uniform_prior_kl
from bench.ops.mixing import linear_rampup, mixmatch_batch, semi_loss
from bench.ops.mixtures import clean_posterior, min_max
from bench.ops.targets import ensemble_mean, one_hot, refurbish, sharpen

_CIFAR = {
    "alpha": 4.0, "temperature": 0.5, "threshold": 0.5, "training.lr": 0.02, "training.weight_decay": 5e-4,
    "training.batch_size": 64, "training.epochs": 300, "training.schedule": "multistep", "training.milestones": (150,),
}  # fmt: skip
_CODE = "official code, commit d9d3058; PreAct-ResNet-18"
_ISSUES = "lambda_u from the authors' and users' threads of the official repository (#10, #15, #26, #50), InstanceGM#1, C2D#2"
_ANALOGY = "; they speak of 0.4 alone, and 0.49 is treated as it is, by analogy"


def _cell(dataset: str, noise: str, *rates: float, source: str = _ISSUES, **values) -> Recipe:
    return Recipe("paper", source, values, {"dataset": dataset, "noise": noise, "rate": rates})


class DivideMix(EpochMethod):
    """Li, Socher & Hoi, "DivideMix: Learning with Noisy Labels as Semi-supervised Learning", ICLR 2020.

    Each epoch a two-component Gaussian mixture on per-sample losses divides the data into a labelled (clean) and an
    unlabelled (noisy) set; each network is trained on the division made by its peer, with MixMatch.

    `training.batch_size` counts labelled images; warm-up uses twice as many, as released. Prediction: softmax of the sum
    of both networks' logits. Scores for noise identification: mean of both networks' posteriors of the clean component.

    Deviations: the mixture starts from the best 1-D 2-means partition (the released one from an unseeded k-means); loss
    averaging over the last epochs is the field `history` (released: 5 where the nominal rate is exactly 0.9); an empty
    labelled set gives a warm-up epoch for that network and an empty unlabelled set drops L_u (released: both crash).
    The trained network guesses in training mode, unlabelled images first, as released: its batch statistics feel the order.

    To watch: `loss`, the scaled losses of the first network with their mixture; `clean_set`, by the mean of both posteriors.
    """

    slug = "dividemix"
    title = "DivideMix"
    paper = "Li et al., ICLR 2020, arXiv:2002.07394"
    code = "LiJunnan1992/DivideMix @d9d3058"
    version = 2  # unlabelled images are guessed before labelled ones are refined
    networks = 2
    cost = "6 FE while warming up, then 2 FE, and 36 more for each image that counts as clean (2 networks)"
    recipes = (
        Recipe("paper", _CODE, {**_CIFAR, "warmup": 10}, {"dataset": "cifar10"}),
        Recipe("paper", _CODE, {**_CIFAR, "warmup": 30, "lambda_u": 150}, {"dataset": "cifar100"}),
        Recipe("paper", _CODE + ": penalty in asymmetric mode only", {"confidence_penalty": True}, {"noise": "asymmetric"}),
        _cell("cifar10", "symmetric", 0.2, lambda_u=0),
        _cell("cifar10", "symmetric", 0.5, lambda_u=25),
        _cell("cifar10", "symmetric", 0.8, lambda_u=25),
        _cell("cifar10", "symmetric", 0.9, lambda_u=50, threshold=0.6, history=5),
        _cell("cifar10", "asymmetric", 0.4, 0.49, source=_ISSUES + _ANALOGY, lambda_u=0),
        _cell("cifar100", "symmetric", 0.2, lambda_u=25),
        _cell("cifar100", "symmetric", 0.9, lambda_u=150, threshold=0.6, history=5),
        Recipe("fixed", TUNED.format("digits"), {"lambda_u": 0.0, "warmup": 10}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"), {"lambda_u": 0.0, "warmup": 10}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    smoke = {"warmup": 1}

    warmup: Annotated[int, Range(ge=1)] = 10
    threshold: Annotated[float, Range(ge=0, le=1)] = 0.5
    lambda_u: Annotated[float, Range(ge=0)] = 25.0
    ramp_epochs: Annotated[float, Range(gt=0)] = 16.0
    alpha: Annotated[float, Range(gt=0)] = 4.0
    temperature: Annotated[float, Range(gt=0)] = 0.5
    prior_weight: Annotated[float, Range(ge=0)] = 1.0
    confidence_penalty: bool = False
    history: Annotated[int, Range(ge=1)] = 1

    def setup(self, task) -> None:
        self.a, self.b = task.learner("a"), task.learner("b")
        self.losses_a: list[Tensor] = []
        self.losses_b: list[Tensor] = []
        self.confidence: Tensor | None = None

    def epoch(self, epoch: int) -> None:
        if epoch < self.warmup:
            self.warm_up(self.a)
            self.warm_up(self.b)
            return
        confidence_a = self.co_divide(self.a, self.losses_a)
        confidence_b = self.co_divide(self.b, self.losses_b)
        self.confidence = confidence = (confidence_a + confidence_b) / 2
        self.task.observe("clean_set", members=lambda: confidence > self.threshold)
        self.train(self.a, self.b, confidence_b, epoch)  # each network learns from its peer's division
        self.train(self.b, self.a, confidence_a, epoch)

    def warm_up(self, net: Learner) -> None:
        for batch in self.task.batches(batch_size=2 * self.task.batch_size):
            logits = net(batch.images)
            losses = cross_entropy(logits, batch.labels)
            if self.confidence_penalty:
                losses = losses + negative_entropy(logits)
            net.step(losses.mean())

    def co_divide(self, net: Learner, history: list[Tensor]) -> Tensor:
        """Posterior [N] that a sample belongs to the mixture component of small losses."""
        return self.posterior(self.task.logits(net), history)

    def posterior(self, logits: Tensor, history: list[Tensor]) -> Tensor:
        history.append(min_max(cross_entropy(logits, self.task.labels)))
        del history[: -self.history]
        losses = torch.stack(history).mean(dim=0)
        posterior, mixture = clean_posterior(losses, smaller_is_clean=True, max_iter=10, tol=1e-2, reg_covar=5e-4)
        self.task.observe("loss", values=lambda: losses, mixture=lambda: mixture)
        return posterior

    def train(self, net: Learner, peer: Learner, confidence: Tensor, epoch: int) -> None:
        labelled = torch.nonzero(confidence > self.threshold)[:, 0]
        unlabelled = torch.nonzero(confidence <= self.threshold)[:, 0]
        if len(labelled) == 0:
            return self.warm_up(net)
        views = (self.training_view(),) * 2
        guesses = self.task.cycle(views, indices=unlabelled) if len(unlabelled) else None
        batches_per_epoch = len(labelled) // self.task.batch_size + 1
        for number, batch in enumerate(self.task.batches(views, indices=labelled)):
            x1, x2 = batch.views
            guessed = () if guesses is None else self.co_guess(net, peer, guesses)
            refined = self.co_refine(net, x1, x2, batch.labels, confidence[batch.index])
            inputs, targets = [x1, x2], [refined, refined]
            if guessed:
                u1, u2, guess = guessed
                inputs, targets = [*inputs, u1, u2], [*targets, guess, guess]
            mixed, aims = self.mixmatch(inputs, targets)
            logits, split = net(mixed), 2 * len(batch)
            loss_x, loss_u = semi_loss(logits[:split], aims[:split], logits[split:], aims[split:])
            ramp = linear_rampup(epoch + number / batches_per_epoch, self.warmup, self.ramp_epochs)
            prior = uniform_prior_kl(logits.softmax(dim=1).mean(dim=0))
            self.update(net, loss_x + self.lambda_u * ramp * loss_u + self.prior_weight * prior)

    # what ScanMix does its own way
    def training_view(self) -> str:
        return "weak"

    def mixmatch(self, inputs: list[Tensor], targets: list[Tensor]) -> tuple[Tensor, Tensor]:
        return mixmatch_batch(torch.cat(inputs), torch.cat(targets), self.alpha, self.task.generator("mix"))

    def update(self, net: Learner, loss: Tensor) -> None:
        net.step(loss)

    @torch.no_grad()
    def co_refine(self, net: Learner, x1: Tensor, x2: Tensor, labels: Tensor, confidence: Tensor) -> Tensor:
        probs = ensemble_mean(net(x1).softmax(dim=1), net(x2).softmax(dim=1))
        return sharpen(refurbish(one_hot(labels, self.task.num_classes), probs, confidence), self.temperature)

    @torch.no_grad()
    def co_guess(self, net: Learner, peer: Learner, guesses: Iterator) -> tuple[Tensor, Tensor, Tensor]:
        u1, u2 = next(guesses).views
        both = peer.infer(torch.cat([u1, u2])).softmax(dim=1)  # evaluation mode: one pass for both views is exact
        probs = ensemble_mean(net(u1).softmax(dim=1), net(u2).softmax(dim=1), *both.chunk(2))
        return u1, u2, sharpen(probs, self.temperature)

    def predict(self, images: Tensor) -> Tensor:
        return (self.a.infer(images) + self.b.infer(images)).softmax(dim=1)

    def clean_scores(self) -> Tensor | None:
        return self.confidence
