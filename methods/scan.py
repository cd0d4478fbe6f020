"""SCAN: label-free clustering by adopting nearest neighbours (Van Gansbeke et al., ECCV 2020), the baseline of ScanMix."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from bench.fields import FieldError, Range
from bench.method import DIGITS, TUNED, EpochMethod, Recipe
from bench.ops.clustering import scan_loss
from bench.ops.losses import cross_entropy
from bench.ops.pretraining import match_clusters, neighbour_pairs, network_weights, scan_score
from bench.ops.targets import one_hot
from methods._pretext import MOCO, SIMCLR, Pretext

_ADAM = {
    "training.optimizer": "adam", "training.lr": 1e-4, "training.weight_decay": 1e-4, "training.schedule": "constant",
}  # fmt: skip
_CODE = "configs of the official code of ScanMix, commit e542e9e; ResNet-18 with a 3x3 stem"
_LABEL = {"self_label_epochs": 200, "self_label_batch_size": 1000, "training.epochs": 250}


class SCAN(Pretext, EpochMethod):
    """Van Gansbeke, Vandenhende, Georgoulis, Proesmans & Van Gool, "SCAN: Learning to Classify Images without Labels", ECCV 2020.

    The first row of ScanMix's Table 4: neighbours in the features of SimCLR (a stage, see `Pretext`) mostly share a class, so the
    network, beginning with these features, learns to give an image and one of its `k` neighbours the same confident cluster,
    while clusters stay even: L = mean of -log <p(x), p(x')> - `entropy_weight` H(mean p(x)). One neighbour is drawn per image
    and epoch, the image itself among them, as released. In the last `self_label_epochs` (0 in ScanMix) it learns its own
    confident predictions instead: p > `self_label_threshold` on the plain image is the label of the strong view, classes
    weighing inversely to their share of the batch.

    Clustering ends with the weights of the epoch whose clusters agree best with the neighbourhoods of the training samples
    (released: of the test images). Labels are never trained on: their one use is naming clusters, by the one-to-one matching
    that most GIVEN labels agree with, after every epoch (the paper matches with true labels of the test images; Hungarian
    method). Clustering takes whole batches; self-labelling the last partial one, too, which the released code drops (no
    difference where the batch size divides the number of samples). A batch without a confident prediction trains nothing
    (released: an error).

    Left out: several heads and the weight average, of ImageNet alone. Prediction: the softmax of the one network, clusters in
    the order of their classes. Scores for noise identification: its probability of the given label (ours).
    """

    slug = "scan"
    title = "SCAN"
    paper = "Van Gansbeke et al., ECCV 2020, arXiv:2005.12320"
    code = "wvangansbeke/Unsupervised-Classification @952ec31"
    cost = "7 FE (5 while self-labelling), besides the stage"
    recipes = (
        Recipe("paper", _CODE, {**SIMCLR, **_ADAM, "training.epochs": 50, "training.batch_size": 128}, {"dataset": "cifar10"}),
        Recipe("paper", _CODE, {**SIMCLR, **_ADAM, "training.epochs": 100, "training.batch_size": 1024}, {"dataset": "cifar100"}),
        Recipe("paper", "configs of the official code of ScanMix, commit e542e9e; Inception-ResNet-v2",
               {**MOCO, **_ADAM, "view": "simclr", "training.epochs": 100, "training.batch_size": 256},
               {"dataset": "webvision50"}),
        Recipe("self-label", "configs of the official code, commit 952ec31; ResNet-18 with a 3x3 stem",
               {**SIMCLR, **_ADAM, **_LABEL, "training.batch_size": 128}, {"dataset": "cifar10"}),
        Recipe("fixed", TUNED.format("digits"),
               {"pretext_epochs": 30, "pretext_batch_size": 256, "pretext_temperature": 0.5, "k": 10}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"),
               {"pretext_epochs": 20, "pretext_batch_size": 256, "pretext_temperature": 0.5, "k": 10},
               {"dataset": "spurious-digits"}),
    )  # fmt: skip

    smoke = {"pretext_epochs": 1, "pretext_batch_size": 64, "k": 5, "queue": 64, "self_label_epochs": 1,
             "self_label_batch_size": 16, "self_label_threshold": 0.3}  # fmt: skip

    entropy_weight: Annotated[float, Range(ge=0)] = 5.0
    view: Literal["scan", "simclr"] = "scan"
    self_label_epochs: Annotated[int, Range(ge=0)] = 0
    self_label_batch_size: Annotated[int, Range(ge=1)] = 1000
    self_label_threshold: Annotated[float, Range(ge=0, le=1)] = 0.99

    def setup(self, task) -> None:
        self._clustering = task.epochs - self.self_label_epochs
        if self._clustering < 1:
            raise FieldError("self_label_epochs", f"no epoch of {task.epochs} is left for clustering")
        pretext = self.pretrain(task)
        self._neighbours = pretext["neighbours"]
        self.net = task.learner()
        self.net.network.load_state_dict(network_weights(pretext))
        self.best_score = float("inf")
        self.best_network: dict[str, Tensor] = {}
        self.cluster_of = torch.arange(task.num_classes, device=task.device)
        self.probs: Tensor | None = None

    def epoch(self, epoch: int) -> None:
        if epoch < self._clustering:
            self.cluster()
            logits = self.select(self.task.logits(self.net), last=epoch + 1 == self._clustering)
        else:
            self.self_label(epoch)
            logits = self.task.logits(self.net)
        self.cluster_of = match_clusters(logits.argmax(dim=1), self.task.labels, self.task.num_classes)
        self.probs = logits.softmax(dim=1)[:, self.cluster_of]

    def cluster(self) -> None:
        size = self.task.batch_size
        for anchors, neighbours in neighbour_pairs(self.task, self._neighbours, view=self.view, batch_size=size):
            logits = self.net(anchors), self.net(neighbours)
            loss, consistency, entropy = scan_loss(*logits, entropy_weight=self.entropy_weight)
            self.net.step(loss)
            self.task.log("consistency", consistency)
            self.task.log("entropy", entropy)

    def select(self, logits: Tensor, last: bool) -> Tensor:
        """Remember the best network so far, and end with it; the logits [N, C] of the one that goes on."""
        score = float(scan_score(logits, self._neighbours))
        if score < self.best_score or not self.best_network:
            self.best_score = score
            self.best_network = {name: value.clone() for name, value in self.net.network.state_dict().items()}
        if last:
            self.net.network.load_state_dict(self.best_network)
        return self.task.logits(self.net) if last else logits

    def self_label(self, epoch: int) -> None:
        if epoch == self._clustering:
            self.net.optimizer.state.clear()
        for batch in self.task.batches(("plain", self.view), batch_size=self.self_label_batch_size):
            with torch.no_grad():
                plain = self.net(batch.views[0])
            loss, none = confident_loss(plain, self.net(batch.views[1]), self.self_label_threshold)
            self.net.step(loss, skip=none)

    def predict(self, images: Tensor) -> Tensor:
        return self.net.infer(images).softmax(dim=1)[:, self.cluster_of]

    def clean_scores(self) -> Tensor | None:
        return None if self.probs is None else self.probs.gather(1, self.task.labels[:, None])[:, 0]


def confident_loss(plain: Tensor, strong: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """(loss 0-d, whether no prediction is confident, bool 0-d) of logits [B, C] of plain images and of their strong views.

    Cross-entropy of the strong view with the arg max of the plain one, over samples whose largest probability exceeds
    `threshold`, as a weighted mean: a sample weighs n / n_c for n confident ones, n_c of its class. 0 where there is none.
    """
    confidence, target = plain.detach().softmax(dim=1).max(dim=1)
    chosen = (confidence > threshold).float()
    per_class = one_hot(target, plain.shape[1]) * chosen[:, None]
    weight = chosen / per_class.sum(dim=0)[target].clamp_min(1)
    total = weight.sum()
    return (weight * cross_entropy(strong, target)).sum() / torch.where(total > 0, total, 1.0), total == 0
