"""The learner: one network with its optimiser, schedule and precision; everything a method trains.

Calling a learner is a forward pass in training mode; `infer` and `features` are passes in evaluation mode without
gradient; `step` is one update. The learner counts the images that go forward and backward, so the cost of a method is
measured, not declared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bench.fields import Configurable, FieldError, Range


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

    def lr_at(self, epoch: int) -> float:
        """Learning rate of an epoch. The schedule is per epoch; linear warm-up multiplies it."""
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
        return value * min(1.0, (epoch + 1) / self.lr_warmup_epochs) if self.lr_warmup_epochs else value

    def _cosine(self, progress: float) -> float:
        return self.min_lr + 0.5 * (self.lr - self.min_lr) * (1 + math.cos(math.pi * progress))

    def beta1_at(self, epoch: int) -> float | None:
        decayed = self.schedule == "linear" and epoch >= self.decay_from
        return self.beta1_after_decay if decayed and self.beta1_after_decay is not None else None


class Learner:
    """One network being trained. Built by `task.learner(name)`, never by a method itself."""

    #: images per chunk of a full pass in evaluation mode
    chunk = 1024

    def __init__(
        self,
        network: nn.Module,
        training: Training,
        *,
        precision: str = "float32",
        log_loss: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.network = network
        self.training = training
        self.device = next(network.parameters()).device
        self._autocast = precision != "float32"
        self._dtype = torch.bfloat16
        self._log_loss = log_loss
        self.forward_images = 0
        self.backward_images = 0
        self._since_step = 0
        self.optimizer = _optimizer(network, training)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits [B, K] in float32, in training mode (batch statistics), with gradient where it is enabled.

        A batch of one image has no batch statistics: it is normalised with the running ones.
        """
        wanted = images.shape[0] > 1
        if self.network.training != wanted:
            self.network.train(wanted)
        self.forward_images += images.shape[0]
        if torch.is_grad_enabled():
            self._since_step += images.shape[0]
        return self._forward(self.network, images)

    def infer(self, images: Tensor) -> Tensor:
        """Logits [N, K] in evaluation mode without gradient, in chunks."""
        return self._evaluate(self.network, images)

    def features(self, images: Tensor) -> Tensor:
        """Pooled penultimate features [N, D] in evaluation mode without gradient, in chunks."""
        features: Any = self.network.features
        return self._evaluate(features, images)

    def step(self, loss: Tensor) -> None:
        """One update on a scalar loss. The loss goes to the epoch's log without waiting for the device."""
        if loss.ndim != 0:
            raise ValueError(f"step needs a scalar loss, got shape {tuple(loss.shape)}; average over the batch first")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.training.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.training.clip_norm)
        self.optimizer.step()
        self.backward_images += self._since_step
        self._since_step = 0
        if self._log_loss is not None:
            self._log_loss(loss.detach())

    def start_epoch(self, epoch: int) -> None:
        """Set the learning rate (and Adam's beta1) of this epoch; called by the harness."""
        self._since_step = 0  # passes of the last epoch that no step followed; a resumed run does not know of them
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.lr_at(epoch)
            beta1 = self.training.beta1_at(epoch)
            if beta1 is not None and "betas" in group:
                group["betas"] = (beta1, group["betas"][1])

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "forward_images": self.forward_images,
            "backward_images": self.backward_images,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.forward_images, self.backward_images = state["forward_images"], state["backward_images"]

    def _forward(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        if not self._autocast:
            return function(images)
        with torch.autocast(self.device.type, dtype=self._dtype):
            return function(images).float()

    @torch.no_grad()
    def _evaluate(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        if self.network.training:
            self.network.eval()
        self.forward_images += images.shape[0]
        if images.shape[0] <= self.chunk:
            return self._forward(function, images)
        return torch.cat([self._forward(function, part) for part in images.split(self.chunk)])


def _optimizer(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    parameters = [p for p in network.parameters() if p.requires_grad]
    if training.optimizer == "sgd":
        if training.nesterov and training.momentum == 0:
            raise FieldError("training.nesterov", "Nesterov needs a momentum", "set training.momentum above 0")
        return torch.optim.SGD(
            parameters, training.lr, training.momentum, weight_decay=training.weight_decay, nesterov=training.nesterov,
            fused=True,
        )  # fmt: skip
    cls = torch.optim.Adam if training.optimizer == "adam" else torch.optim.AdamW
    return cls(parameters, training.lr, betas=(0.9, 0.999), weight_decay=training.weight_decay, fused=True)
