"""What methods that begin with label-free pre-training have in common: its settings, and the stage that does it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from torch import Tensor

from bench.fields import Range
from bench.ops.pretraining import moco, simclr

#: fields and sources of the papers' pre-training, for the recipes of the methods
SIMCLR = {
    "pretext": "simclr", "pretext_epochs": 500, "pretext_batch_size": 512, "pretext_lr": 0.4, "pretext_temperature": 0.1,
}  # fmt: skip
MOCO = {
    "pretext": "moco", "pretext_epochs": 500, "pretext_batch_size": 128, "pretext_lr": 0.015, "pretext_temperature": 0.2,
    "queue": 65536, "momentum": 0.999,
}  # fmt: skip


class Pretext:
    """Fields of pre-training, for `class X(Pretext, EpochMethod)`; defaults are SCAN's and ScanMix's for CIFAR.

    SGD with momentum 0.9, weight decay 1e-4 and a cosine of the rate, to a thousandth (SimCLR) or to 0 (MoCo); projections of
    128 dimensions; the `k` nearest neighbours of every sample. All cells with the same images share one run.
    """

    pretext: Literal["simclr", "moco"] = "simclr"
    pretext_epochs: Annotated[int, Range(ge=1)] = 500
    pretext_batch_size: Annotated[int, Range(ge=2)] = 512
    pretext_lr: Annotated[float, Range(gt=0)] = 0.4
    pretext_temperature: Annotated[float, Range(gt=0)] = 0.1
    k: Annotated[int, Range(ge=1)] = 20
    queue: Annotated[int, Range(ge=1)] = 65536
    momentum: Annotated[float, Range(ge=0, lt=1)] = 0.999

    def pretrain(self, task: Any) -> dict[str, Tensor]:
        """Weights of a network ("network.<name>") and "neighbours", int64 [N, k + 1], the sample itself first."""
        training = {
            "epochs": self.pretext_epochs, "batch_size": self.pretext_batch_size, "lr": self.pretext_lr, "weight_decay": 1e-4,
            "schedule": "cosine", "min_lr": self.pretext_lr * 1e-3 if self.pretext == "simclr" else 0.0,
        }  # fmt: skip
        key = {"temperature": self.pretext_temperature, "dimension": 128, "k": self.k, "training": training}
        if self.pretext == "simclr":
            return task.stage("simclr", key, simclr)
        return task.stage("moco", {**key, "queue": self.queue, "momentum": self.momentum, "groups": 8}, moco)
