"""DivideMix from SCAN's network: ScanMix without semantic clustering (Sachdeva et al., Pattern Recognition 2023, Table 4)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from bench.fields import Range
from bench.learner import Learner
from bench.method import DIGITS, TUNED, Recipe
from bench.ops.losses import cross_entropy, negative_entropy
from bench.ops.pretraining import network_weights, scan
from methods._pretext import MOCO, SIMCLR, Pretext
from methods.dividemix import DivideMix

_PLAN = {
    "threshold": 0.5, "temperature": 0.5, "entropy_weight": 5.0, "training.lr": 0.02, "training.weight_decay": 5e-4,
    "training.batch_size": 64, "training.schedule": "multistep",
}  # fmt: skip
_CIFAR = {**SIMCLR, **_PLAN, "alpha": 4.0, "lambda_u": 25, "training.epochs": 300, "training.milestones": (150,)}
_CODE = "official code, commit e542e9e: configs, and its defaults where the commands of its README set nothing"
_TEXT = "the paper, where the code says otherwise; lambda_u as DivideMix's, which it refers to"


def _cifar(name: str, source: str, entropy_weight: float, dataset: str, **values: float) -> Recipe:
    fields = {**_CIFAR, "entropy_weight": entropy_weight, **values}
    return Recipe(name, source + "; ResNet-18 with a 3x3 stem", fields, {"dataset": dataset})


def _text(dataset: str, noise: str, rates: tuple[float, ...], **values: float) -> Recipe:
    return Recipe("text", _TEXT, values, {"dataset": dataset, "noise": noise, "rate": rates})


_WEBVISION = {
    **MOCO, **_PLAN, "alpha": 0.5, "lambda_u": 0, "warmup": 1, "view": "weak", "mix_unlabelled": False, "scan_view": "simclr",
    "scan_epochs": 100, "scan_batch_size": 256, "training.epochs": 100, "training.milestones": (50,),
}  # fmt: skip
_IS_WEBVISION = {"dataset": "webvision50"}
_CIFAR100 = {"warmup": 30, "scan_epochs": 100, "scan_batch_size": 1024}
_PENALTY = {"confidence_penalty": True}
_SYSTEMATIC = {"noise": ("asymmetric", "semantic")}
_AVERAGED = {"dataset": ("cifar10", "cifar100"), "noise": "symmetric", "rate": 0.9}
#: "paper" is what the published figures come from, the released code; "text" what the paper itself says
RECIPES = (
    _cifar("paper", _CODE, 5.0, "cifar10", warmup=10),
    _cifar("paper", _CODE, 5.0, "cifar100", **_CIFAR100),
    Recipe("paper", _CODE, _PENALTY, _SYSTEMATIC),
    Recipe("paper", _CODE, {"history": 5}, _AVERAGED),
    Recipe("paper", "official code, commit e542e9e: configs; Inception-ResNet-v2", _WEBVISION, _IS_WEBVISION),
    _cifar("text", _TEXT, 2.0, "cifar10", warmup=10),
    _cifar("text", _TEXT, 2.0, "cifar100", **_CIFAR100),
    Recipe("text", _TEXT, _PENALTY, _SYSTEMATIC),
    Recipe("text", _TEXT, {"history": 5}, _AVERAGED),
    _text("cifar10", "symmetric", (0.2,), lambda_u=0),
    _text("cifar10", "symmetric", (0.9,), lambda_u=50, threshold=0.6),
    _text("cifar10", "asymmetric", (0.4, 0.49), lambda_u=0),
    _text("cifar100", "symmetric", (0.5, 0.8), lambda_u=150),
    _text("cifar100", "symmetric", (0.9,), lambda_u=150, threshold=0.6),
    Recipe("text", _TEXT + "; Inception-ResNet-v2", {**_WEBVISION, "entropy_weight": 2.0}, _IS_WEBVISION),
)  # fmt: skip


class ScanDivideMix(Pretext, DivideMix):
    """Sachdeva, Cordeiro, Belagiannis, Reid & Carneiro, "ScanMix: Learning from Severe Label Noise via Semantic Clustering and
    Semi-Supervised Learning", Pattern Recognition 2023; the row "self-supervised pre-training + SSL" of Table 4.

    Both networks begin as SCAN left its network: pre-training (`Pretext`) and clustering are stages that need no labels and are
    shared between cells. Warm-up moves the heads alone, the features standing still but for batch statistics. From then on
    DivideMix, in the views below.

    `view`: of warm-up and SSL. `switch`, as released (the paper does not say): strong while warming up, and afterwards weak
    where the estimated noise, the mean share of samples that either mixture calls noisy after warm-up, is at most
    `switch_rate`. "scan" is the strong view, RandAugment and cutout. `mix_unlabelled: false`, as released for WebVision, mixes
    as before but learns from the labelled part alone. `one_checkpoint` (released): one clustering for both networks, which
    then differ by the order of batches only; without it the second network has a clustering of its own.

    Deviations: those of DivideMix; the last partial batch is kept (released: dropped, DivideMix keeps it); SCAN's epoch is
    chosen on training images (released: test images); on WebVision, too, the second network guesses with the first as just
    trained (released there: in parallel). 300 epochs (the released loop runs 301). Prediction: softmax of the sum of both
    networks' logits. Scores for noise identification: mean of both networks' posteriors.
    """

    slug = "scan+dividemix"
    title = "SCAN + DivideMix"
    paper = "Sachdeva et al., Pattern Recognition 2023, arXiv:2103.11395"
    code = "ragavsachdeva/ScanMix @e542e9e"
    version = 1
    networks = 2
    cost = "2 FE while warming up, then 2 FE, and 36 more for each image that counts as clean (2 networks), besides the stages"
    recipes: ClassVar[tuple[Recipe, ...]] = (  # type: ignore[assignment]
        *RECIPES,
        Recipe("fixed", TUNED.format("digits"),
               {"pretext_epochs": 30, "pretext_batch_size": 256, "pretext_temperature": 0.5, "scan_epochs": 10,
                "scan_lr": 0.001, "lambda_u": 0.0, "view": "weak"}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"),
               {"pretext_epochs": 20, "pretext_batch_size": 256, "pretext_temperature": 0.5, "scan_epochs": 10,
                "scan_lr": 0.001, "lambda_u": 0.0, "view": "weak", "warmup": 5}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    smoke = {"pretext_epochs": 1, "pretext_batch_size": 64, "k": 5, "queue": 64, "scan_epochs": 1, "scan_batch_size": 32,
             "warmup": 1}  # fmt: skip

    entropy_weight: Annotated[float, Range(ge=0)] = 5.0
    scan_view: Literal["scan", "simclr"] = "scan"
    scan_epochs: Annotated[int, Range(ge=1)] = 50
    scan_batch_size: Annotated[int, Range(ge=1)] = 128
    scan_lr: Annotated[float, Range(gt=0)] = 1e-4
    one_checkpoint: bool = True
    view: Literal["switch", "weak", "scan"] = "switch"
    switch_rate: Annotated[float, Range(ge=0, le=1)] = 0.6
    mix_unlabelled: bool = True

    def setup(self, task) -> None:
        pretext = self.pretrain(task)
        adam = {"optimizer": "adam", "schedule": "constant", "lr": self.scan_lr, "weight_decay": 1e-4}
        key = {
            "entropy_weight": self.entropy_weight, "view": self.scan_view, "k": self.k,
            "training": {**adam, "epochs": self.scan_epochs, "batch_size": self.scan_batch_size},
        }  # fmt: skip
        count = 1 if self.one_checkpoint else 2
        runs = [task.stage("scan", {**key, "run": run}, scan, inputs={"pretext": pretext}) for run in range(count)]
        self._neighbours = pretext["neighbours"]
        self.a, self.b = self.begin(task, "a", runs[0]), self.begin(task, "b", runs[-1])
        self.losses_a: list[Tensor] = []
        self.losses_b: list[Tensor] = []
        self.confidence: Tensor | None = None
        self.noise: float | None = None

    def begin(self, task, name: str, clustering: dict[str, Tensor], **how) -> Learner:
        net = task.learner(name, **how)
        net.network.load_state_dict(network_weights(clustering))
        return net

    def epoch(self, epoch: int) -> None:
        if epoch < self.warmup:
            self.warm_up(self.a)
            self.warm_up(self.b)
            return
        confidence_a, self._predicted_a = self.divide(self.a, self.losses_a)
        confidence_b, self._predicted_b = self.divide(self.b, self.losses_b)
        self.confidence = confidence = (confidence_a + confidence_b) / 2
        self.task.observe("clean_set", members=lambda: confidence > self.threshold)
        if self.noise is None:
            self.noise = float((torch.cat([confidence_a, confidence_b]) <= self.threshold).float().mean())
        self.task.log("estimated_noise", self.noise)
        self.train(self.a, self.b, confidence_b, epoch)  # each network learns from its peer's division
        self.train(self.b, self.a, confidence_a, epoch)

    def training_view(self) -> str:
        if self.view != "switch":
            return self.view
        return "weak" if self.noise is not None and self.noise <= self.switch_rate else "scan"

    def warm_up(self, net: Learner) -> None:
        for batch in self.task.batches((self.training_view(),), batch_size=2 * self.task.batch_size):
            with torch.no_grad():
                _, features = net.with_features(batch.images)
            logits = net.network.head(features)  # type: ignore[operator]
            losses = cross_entropy(logits, batch.labels)
            if self.confidence_penalty:
                losses = losses + negative_entropy(logits)
            net.step(losses.mean())

    def divide(self, net: Learner, history: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(posterior [N] of the mixture component of small losses, predicted class int64 [N])."""
        logits = self.task.logits(net)
        return self.posterior(logits, history), logits.argmax(dim=1)

    def mixmatch(self, inputs: list[Tensor], targets: list[Tensor]) -> tuple[Tensor, Tensor]:
        mixed, aims = super().mixmatch(inputs, targets)
        split = len(mixed) if self.mix_unlabelled else len(inputs[0]) + len(inputs[1])
        return mixed[:split], aims[:split]
