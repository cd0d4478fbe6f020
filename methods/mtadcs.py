"""MTaDCS: a confidence set that grows by local outlier factors within each class (Huang et al., ECCV 2024)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.fields import Range
from bench.method import DIGITS, TUNED, EpochMethod, Recipe
from bench.ops.contrast import Queue, weighted_contrast
from bench.ops.losses import cross_entropy, soft_cross_entropy
from bench.ops.mixing import beta_mix_coefficient, mix
from bench.ops.outliers import class_lof
from bench.ops.targets import one_hot

_PAPER = "the paper, section 4.1; PreAct-ResNet-18"
_SET = "; the paper says 'a small number', 1000 is ours"
_CIFAR = {
    "warmup": 10, "training.lr": 0.1, "training.weight_decay": 1e-4, "training.batch_size": 128, "training.epochs": 250,
    "training.schedule": "multistep", "training.milestones": (125, 200),
}  # fmt: skip
_WEBVISION = {
    "trusted_size": 0, "warmup": 40, "training.lr": 0.1, "training.weight_decay": 1e-4, "training.batch_size": 64,
    "training.epochs": 130, "training.schedule": "multistep", "training.milestones": (80, 105),
}  # fmt: skip
_IS_CIFAR = {"dataset": ("cifar10", "cifar100")}
_SWITCHES = {
    "lof": "lof", "cs": "confidence_set", "sr": "removal", "cl": "contrast", "mixup": "mixup", "lc": "correction",
}  # fmt: skip


def _ablation(*parts: str) -> Recipe:
    """A row of Table 3, named by its check marks; the row with all of them is `paper`."""
    switches = {field: part in parts for part, field in _SWITCHES.items()}
    return Recipe("-".join(parts) or "nothing", _PAPER + "; Table 3" + _SET, {**_CIFAR, **switches}, _IS_CIFAR)


class MTaDCS(EpochMethod):
    """Huang et al., "MTaDCS: Moving Trace and Feature Density-based Confidence Sample Selection under Label Noise", ECCV 2024.

    Only the confidence set G, bool [N], is trained on. After an epoch, samples outside it that are predicted as they are
    labelled and lie densely among those of their class join it; members that are predicted as something else leave it.

    G begins as `trusted_size` samples that are known to be right (Section 3.1; a declared need), or as the whole set where that
    is 0, as the paper has it for real noise. The loss on G is the cross-entropy of mixed images plus a supervised contrast of the
    unmixed ones (`width` numbers from one linear layer) with a queue of the momentum encoder's embeddings and labels. From the
    end of the warm-up on an epoch ends with one full pass: correction of labels, Eq. 2 and Eq. 3, in this order, are lines 11, 5,
    7 and 8 of Algorithm 1, which reads the same predictions after its epoch and before the next. Labels are corrected from the
    first epoch after warm-up; with alpha 0.01 the first can flip after 161 epochs of one steady prediction.

    The six switches make Table 3's rows. Without `lof` whoever is predicted as labelled is admitted. Without `confidence_set`
    nobody is a member before the selection, which is then among all samples. Without both, all are trained on throughout, also
    those whose label is corrected.

    There is no released code. What the paper leaves open is set here: the cut at a factor of 1.5; rows of unit length, Euclidean;
    the query network's projections (`space`; the pooled features where there is no contrast, for then nothing trains the
    projection); Beta(1, 1), folded to at least a half, which under random pairs changes nothing; momentum 0.999, updated and
    enqueued after the step; one pass over G per epoch, however small it is (`full_epochs`: as many images as the training set
    has); RandAugment as two operations after crop and flip, of strengths drawn uniformly over FixMatch's ranges, where the usual
    setting for CIFAR is one strength for all, 10 (`train_view`). Readings: Eq. 4 is taken with the logarithm that its printed
    form lacks; Eq. 7 moves towards the one-hot PREDICTION (printed: of the label, which would change nothing; SELC, its source:
    the probabilities, `correct_towards`).

    Logged: the sizes `confident`, `selected`, `removed`, `flipped`. To watch: `confidence_set` as an epoch leaves it, `selected`
    (who would join), and `features`, the points whose density counts, with the set and the current labels.
    Prediction: the query network. Scores for noise identification: 1 for a member of G, plus the share of epochs so far in which
    it was one, below 1; 0 where the label was flipped. So G, as far as its labels are the given ones, is what scores 1 or more.
    """

    slug = "mtadcs"
    title = "MTaDCS"
    paper = "Huang et al., ECCV 2024"
    cost = "7 FE per image of the confidence set (3 without contrast), and 1 FE for every image"
    recipes = (
        Recipe("paper", _PAPER + _SET, _CIFAR, _IS_CIFAR),
        Recipe("paper", "the paper, section 4.1; ResNet-18", _WEBVISION, {"dataset": "webvision50"}),
        Recipe("unprivileged", _PAPER + "; begun with the whole set, as the paper does on WebVision",
               {**_CIFAR, "trusted_size": 0}, _IS_CIFAR),
        _ablation(),
        _ablation("lof"),
        _ablation("lof", "cs"),
        _ablation("lof", "cs", "sr"),
        _ablation("lof", "cs", "sr", "cl"),
        _ablation("lof", "cs", "sr", "cl", "mixup"),
        _ablation("lof", "cs", "sr", "cl", "lc"),
        Recipe("fixed", TUNED.format("digits"),
               {"trusted_size": 0, "momentum": 0.99, "queue_size": 1000, "train_view": "weak", "alpha": 0.05,
                "warmup": 5, "lof_threshold": 1.1}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"),
               {"trusted_size": 0, "momentum": 0.99, "queue_size": 1000, "train_view": "weak", "alpha": 0.05, "warmup": 5},
               {"dataset": "spurious-digits"}),
    )  # fmt: skip

    smoke = {"trusted_size": 12, "warmup": 1, "queue_size": 40}

    trusted_size: Annotated[int, Range(ge=0)] = 1000
    warmup: Annotated[int, Range(ge=1)] = 10
    lof: bool = True
    confidence_set: bool = True
    removal: bool = True
    contrast: bool = True
    mixup: bool = True
    correction: bool = True
    neighbours: Annotated[int, Range(ge=1)] = 10
    lof_threshold: Annotated[float, Range(ge=0)] = 1.5
    space: Literal["projection", "pooled"] = "projection"
    width: Annotated[int, Range(ge=1)] = 128
    queue_size: Annotated[int, Range(ge=1)] = 10_000
    temperature: Annotated[float, Range(gt=0)] = 0.1
    momentum: Annotated[float, Range(ge=0, le=1)] = 0.999
    mixup_alpha: Annotated[float, Range(gt=0)] = 1.0
    alpha: Annotated[float, Range(ge=0, le=1)] = 0.01
    #: from one half on, the class that a label flips to has the largest share
    flip_threshold: Annotated[float, Range(ge=0.5, le=1)] = 0.8
    correct_towards: Literal["prediction", "probabilities"] = "prediction"
    train_view: Literal["mtadcs", "strong", "weak"] = "mtadcs"
    full_epochs: bool = False

    @property
    def selects(self) -> bool:
        return self.lof or self.confidence_set

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"trusted"}) if self.trusted_size and self.selects else frozenset()

    def setup(self, task) -> None:
        self.net = task.learner(extra=lambda width: {"projection": nn.Linear(width, self.width)})
        if self.contrast:
            self.key, self.queue = task.average(self.net), Queue(self.queue_size)
        self.labels = task.labels.clone()
        self.soft_labels = one_hot(task.labels, task.num_classes)
        self.confident = torch.full_like(task.labels, not self.needs, dtype=torch.bool)
        if self.needs:
            self.confident[task.trusted] = True
        self.times = torch.zeros_like(task.labels)  # epochs in which a sample was in the confidence set
        self.epochs = 0

    def epoch(self, epoch: int) -> None:
        self.times, self.epochs = self.times + self.confident, self.epochs + 1
        self.train()
        corrects = self.correction and epoch >= self.warmup
        if corrects or (self.selects and epoch >= self.warmup - 1):
            probs, points = self.full_pass()
            if corrects:
                self.correct(probs)
            if self.selects:
                self.select(points, probs.argmax(dim=1))
            self.task.observe("features", points=lambda: points, members=lambda: self.confident, labels=lambda: self.labels)
        self.task.observe("confidence_set", members=lambda: self.confident, labels=lambda: self.labels)

    # -- training on the confidence set (Eqs. 4 to 6) -----------------------------------------------------------------
    def train(self) -> None:
        for batch in self.task.batches((self.train_view,) * (1 + self.contrast), indices=self.members()):
            labels = self.labels[batch.index]
            query, key = batch.views[0], batch.views[-1]
            if not self.contrast:
                self.net.step(self.class_loss(query, labels))
                continue
            logits, features = self.net.with_features(query)
            embeddings = embed(self.key, self.key.with_features(key)[1])
            self.net.step(self.class_loss(query, labels, logits) + self.local_contrast(features, labels).mean())
            self.key.update(self.momentum)
            self.queue.push(embeddings=embeddings, labels=labels)

    def members(self) -> Tensor:
        """The samples of an epoch, int64: the confidence set, repeated to the size of the training set with `full_epochs`."""
        chosen = torch.nonzero(self.confident)[:, 0]
        if self.full_epochs:
            chosen = chosen.repeat(-(-self.task.num_samples // max(1, len(chosen))))[: self.task.num_samples]
        return chosen

    def class_loss(self, images: Tensor, labels: Tensor, logits: Tensor | None = None) -> Tensor:
        """Eq. 5 as a mean: cross-entropy of mixed images, or of the images themselves, whose `logits` may be at hand."""
        if not self.mixup:
            return cross_entropy(self.net(images) if logits is None else logits, labels).mean()
        generator = self.task.generator("mix")
        share = beta_mix_coefficient(self.mixup_alpha, generator=generator, device=self.task.device)
        partner = torch.randperm(len(labels), generator=generator).to(self.task.device, non_blocking=True)
        images, targets = mix(images, one_hot(labels, self.task.num_classes), share, partner)
        return soft_cross_entropy(self.net(images), targets).mean()

    def local_contrast(self, features: Tensor, labels: Tensor) -> Tensor:
        """Eq. 4 for pooled features [B, D] of the query network; [B], 0 where the queue holds none of the label."""
        queries = embed(self.net, features)
        if len(self.queue) == 0:
            return 0.0 * queries.sum(dim=1)
        same = labels[:, None] == self.queue["labels"]
        return weighted_contrast(queries, self.queue["embeddings"], same, self.temperature)

    # -- between epochs -----------------------------------------------------------------------------------------------
    @torch.no_grad()
    def full_pass(self) -> tuple[Tensor, Tensor]:
        """Probabilities [N, K] and the points whose density counts, rows of unit length."""
        found = self.task.full_pass(self.net)
        if self.space == "pooled" or not self.contrast:
            return found.probs, F.normalize(found.features, dim=1)
        return found.probs, embed(self.net, found.features)

    def correct(self, probs: Tensor) -> None:
        """Eq. 7 on all samples; a sample whose label flips leaves the confidence set, unless no selection could readmit it."""
        if self.correct_towards == "prediction":
            probs = one_hot(probs.argmax(dim=1), self.task.num_classes)
        self.soft_labels = torch.lerp(self.soft_labels, probs, self.alpha)
        share, other = self.soft_labels.scatter(1, self.labels[:, None], 0.0).max(dim=1)
        flipped = share > self.flip_threshold
        self.labels = torch.where(flipped, other, self.labels)
        if self.selects:
            self.confident = self.confident & ~flipped
        self.task.log("flipped", flipped.sum())

    def select(self, points: Tensor, predicted: Tensor) -> None:
        """Eqs. 2 and 3: who joins the confidence set, and who leaves it."""
        agrees = predicted == self.labels
        before = self.confident if self.confidence_set else torch.zeros_like(self.confident)
        joins = agrees & ~before
        if self.lof:
            factors = class_lof(points, self.labels, self.neighbours, self.task.num_classes, members=joins)
            joins = factors <= self.lof_threshold  # NaN, so false, for all others
        leaves = before & ~agrees & self.removal
        self.confident = (before & ~leaves) | joins
        for name, chosen in (("confident", self.confident), ("selected", joins), ("removed", leaves)):
            self.task.log(name, chosen.sum())
        self.task.observe("selected", members=lambda: joins)

    def predict(self, images: Tensor) -> Tensor:
        return self.net.infer(images).softmax(dim=1)

    def clean_scores(self) -> Tensor | None:
        scores = self.confident + self.times / (self.epochs + 1)
        return torch.where(self.labels == self.task.labels, scores, 0.0) if self.selects else None


def embed(net, features: Tensor) -> Tensor:
    """Pooled features [B, D] through the network's projection, rows of unit length; [B, width]."""
    return F.normalize(net.extra["projection"](features), dim=1)
