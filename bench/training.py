"""How networks are trained: the `training` axis of a cell."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from bench.fields import Configurable, Range


class Training(Configurable):
    """How networks are trained: the `training` axis of a cell. Epochs are counted from 0 and include warm-up."""

    slug: ClassVar[str] = "training"

    epochs: Annotated[int, Range(ge=1)] = 60
    batch_size: Annotated[int, Range(ge=1)] = 64
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Annotated[float, Range(gt=0)] = 0.05
    momentum: Annotated[float, Range(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Range(ge=0)] = 5e-4
    #: constant | multistep (x gamma at milestones) | cosine (to min_lr at the end) | cosine-restarts (every
    #: `restart_every` epochs) | linear (constant until `decay_from`, then linearly to 0 at the end)
    schedule: Literal["constant", "multistep", "cosine", "cosine-restarts", "linear"] = "constant"
    milestones: tuple[int, ...] = ()
    gamma: Annotated[float, Range(gt=0, le=1)] = 0.1
    min_lr: Annotated[float, Range(ge=0)] = 0.0
    restart_every: Annotated[int, Range(ge=1)] = 10
    decay_from: Annotated[int, Range(ge=0)] = 0
    #: Adam's beta1 once a linear schedule has begun to decay (Co-teaching's plan uses 0.1); null keeps it
    beta1_after_decay: Annotated[float | None, Range(ge=0, lt=1)] = None
    lr_warmup_epochs: Annotated[int, Range(ge=0)] = 0
    clip_norm: Annotated[float | None, Range(gt=0)] = None
    #: weak view: zero-padded random crop, and a flip where the data set's labels allow it; none: the weak view is the
    #: plain image, and the strong view is RandAugment and cutout without the crop
    augment: Literal["crop-flip", "none"] = "crop-flip"
    #: the schedule and its warm-up are followed per epoch, or per step within the epoch
    schedule_by: Literal["epoch", "step"] = "epoch"

    neutral = {"schedule_by": "epoch"}

    def lr_at(self, epoch: float, unit: float = 1.0) -> float:
        """Learning rate from `epoch` on, held for `unit`: both in epochs, (5, 1.0) for the sixth epoch, (5.5, 0.01) for step
        50 of 100 in it. Linear warm-up multiplies it: the first unit gets one share of lr, the last one of warm-up all."""
        if self.schedule == "multistep":
            value = self.lr * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        elif self.schedule == "cosine":
            value = self._cosine(epoch / self.epochs)
        elif self.schedule == "cosine-restarts":
            value = self._cosine((epoch % self.restart_every) / self.restart_every)
        elif self.schedule == "linear" and epoch >= self.decay_from:
            value = self.lr * (self.epochs - epoch) / max(1, self.epochs - self.decay_from)
        else:
            value = self.lr
        if not self.lr_warmup_epochs:
            return value
        return value * min(1.0, (epoch + unit) / self.lr_warmup_epochs)

    def _cosine(self, progress: float) -> float:
        return self.min_lr + 0.5 * (self.lr - self.min_lr) * (1 + math.cos(math.pi * progress))

    def beta1_at(self, epoch: float) -> float | None:
        decayed = self.schedule == "linear" and epoch >= self.decay_from
        return self.beta1_after_decay if decayed and self.beta1_after_decay is not None else None
