"""ScanMix: semantic clustering and semi-supervised learning in turns (Sachdeva et al., Pattern Recognition 2023)."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor, nn

from bench.fields import Range
from bench.learner import Learner
from bench.method import DIGITS, TUNED, Recipe
from bench.ops.clustering import scan_loss
from bench.ops.pretraining import neighbour_pairs
from methods.scan_dividemix import RECIPES, ScanDivideMix


class ScanMix(ScanDivideMix):
    """Sachdeva, Cordeiro, Belagiannis, Reid & Carneiro, "ScanMix: Learning from Severe Label Noise via Semantic Clustering and
    Semi-Supervised Learning", Pattern Recognition 2023.

    Labels of images that look alike should agree. Algorithm 1, by line: pre-training (1), warm-up (2), the split by a mixture on
    losses (3-6), and MixMatch on both parts (7, M-step) are `scan+dividemix`, from which this class inherits. To each network
    a second linear head is added for clusters. The E-step (8-16) takes as semantic neighbours those of an image's `k` nearest,
    as pre-training found them, that the PEER network, before this epoch, classifies alike; the image itself is one of them. The
    M-step for clusters is a pass over all images, one such neighbour drawn for each: SCAN's loss on the cluster head, which
    moves the whole network, with the learning rate `cluster_lr`, or `cluster_lr_noisy` where the estimated noise exceeds
    `switch_rate`. The optimiser and its momentum are those of SSL.

    Paper against code, where the recipe `paper` follows the code and `text` the paper: `entropy_weight` 5 against 2; lambda_u 25
    throughout against DivideMix's. Code alone: SCAN's clustering before all, which both heads begin with; one neighbour
    instead of all; features that rest during warm-up; strong views at high noise (`view`). `cluster_view: scan` keeps the views
    of clustering strong, as released for WebVision. `idle_heads_coast`: the released code pins PyTorch 1.5, where the head that
    a step does not use goes on moving by its momentum and weight decay once it has been trained; newer versions leave it alone.

    Deviations: those of `scan+dividemix`; a last partial batch is left out of clustering alone, whose entropy it would bend.
    Prediction: softmax of the sum of both networks' logits of the classification heads. Scores for noise identification: mean
    of both networks' posteriors.
    """

    slug = "scanmix"
    title = "ScanMix"
    cost = "2 FE while warming up, then 14 FE, and 36 more for each image that counts as clean (2 networks), besides the stages"
    recipes = (
        *RECIPES,
        Recipe("paper", "official code, commit e542e9e: configs; Inception-ResNet-v2",
               {"cluster_view": "scan", "cluster_batch_size": 64, "switch_rate": 1.0}, {"dataset": "webvision50"}),
        Recipe("text", "the paper: the rate of clustering switches as on CIFAR", {"cluster_batch_size": 64},
               {"dataset": "webvision50"}),
        Recipe("fixed", TUNED.format("digits"),
               {"pretext_epochs": 30, "pretext_batch_size": 256, "pretext_temperature": 0.5, "scan_epochs": 10,
                "scan_lr": 0.001, "lambda_u": 0.0, "view": "weak", "cluster_lr": 0.001}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"),
               {"pretext_epochs": 20, "pretext_batch_size": 256, "pretext_temperature": 0.5, "scan_epochs": 10,
                "scan_lr": 0.001, "lambda_u": 0.0, "view": "weak", "warmup": 5}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    smoke = {**ScanDivideMix.smoke, "cluster_batch_size": 32}

    cluster_lr: Annotated[float, Range(gt=0)] = 1e-5
    cluster_lr_noisy: Annotated[float, Range(gt=0)] = 1e-3
    cluster_batch_size: Annotated[int, Range(ge=1)] = 128
    cluster_view: Literal["same", "scan"] = "same"
    idle_heads_coast: bool = True

    def setup(self, task) -> None:
        super().setup(task)
        self.clustered = False

    def begin(self, task, name: str, clustering: dict[str, Tensor], **how) -> Learner:
        net = super().begin(task, name, clustering, extra=lambda width: {"clusters": nn.Linear(width, task.num_classes)}, **how)
        net.extra["clusters"].load_state_dict(net.network.head.state_dict())  # type: ignore[union-attr]
        return net

    def epoch(self, epoch: int) -> None:
        super().epoch(epoch)
        if self.noise is not None:
            self.cluster(self.a, self._predicted_b, self.noise)
            self.cluster(self.b, self._predicted_a, self.noise)
            self.clustered = True

    def cluster(self, net: Learner, predicted: Tensor, noise: float) -> None:
        rate = net.lr
        net.set_lr(self.cluster_lr if noise <= self.switch_rate else self.cluster_lr_noisy)
        view = self.training_view() if self.cluster_view == "same" else self.cluster_view
        size = self.cluster_batch_size
        for anchors, neighbours in neighbour_pairs(self.task, self._neighbours, view=view, batch_size=size, labels=predicted):
            logits = [net.extra["clusters"](net.with_features(images)[1]) for images in (anchors, neighbours)]
            loss, consistency, entropy = scan_loss(*logits, entropy_weight=self.entropy_weight)
            net.step(loss + self.coasting(net.network.head))  # type: ignore[arg-type]
            self.task.log("consistency", consistency)
            self.task.log("cluster_entropy", entropy)
        net.set_lr(rate)

    def update(self, net: Learner, loss: Tensor) -> None:
        net.step(loss + self.coasting(net.extra["clusters"]) if self.clustered else loss)

    def coasting(self, head: nn.Module) -> Tensor | float:
        """Zero, with a zero gradient for a head that would get none: the optimiser then moves it all the same."""
        return 0.0 * sum(weight.sum() for weight in head.parameters()) if self.idle_heads_coast else 0.0
