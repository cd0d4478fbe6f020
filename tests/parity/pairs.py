"""Two networks trained by the loss of a released two-network method, as the other side of the scripts beside this file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import TRAINING, begun, difference, tiny_task
from torch import Tensor

#: every label counts as wrong or right for the purity that the released losses report; it decides nothing
PURITY = np.zeros(10_000)
SETTING = (
    "two tiny-cnn, 76 random 1x6x6 images, 4 classes, 3 epochs of SGD 0.02, momentum 0.9, batches of 16, plain images, "
    "drop rate 0.3, float32"
)
RATE = 0.3
#: slow, so that the networks go on disagreeing
SLOW = {"training": {"lr": 0.02}}

#: (logits_a, logits_b, labels, index) -> the two scalars that the released code takes gradients of; None: no step is taken
PairLoss = Callable[[Tensor, Tensor, Tensor, np.ndarray], tuple[Tensor, Tensor] | None]


class ReleasedPair:
    """Two plain torch networks on the tiny task; `together`: one optimiser over both and one backward pass."""

    def __init__(self, *, together: bool = False) -> None:
        self.task = tiny_task(**SLOW)
        self.nets = [self.task.learner(name).network for name in ("a", "b")]
        lists = [list(net.parameters()) for net in self.nets]
        settings: dict[str, Any] = {key: {**TRAINING, **SLOW["training"]}[key] for key in ("lr", "momentum", "weight_decay")}
        groups = [lists[0] + lists[1]] if together else lists
        self.optimizers = [torch.optim.SGD(group, **settings) for group in groups]
        self.losses: list[float] = []

    def epoch(self, epoch: int, loss: PairLoss) -> None:
        self.task.start_epoch(epoch)
        for batch in self.task.batches():
            a, b = (net.train()(batch.images) for net in self.nets)
            losses = loss(a, b, batch.labels, batch.index.numpy())
            self.losses.append(float(losses[0].detach()) if losses else 0.0)
            if losses is None:
                continue
            for number, optimizer in enumerate(self.optimizers):
                optimizer.zero_grad()
                losses[number].backward(retain_graph=number + 1 < len(self.optimizers))
                optimizer.step()


def compare(method: Any, released: ReleasedPair, loss: PairLoss) -> dict[str, float]:
    """Three epochs of both; losses of every batch of the first network, and both networks afterwards."""
    method = begun(method, **SLOW)
    taken: list[float] = []
    step = method.a.step

    def observed(value: Tensor, *rest: Any, **options: Any) -> None:
        taken.append(float(value.detach()))
        step(value, *rest, **options)

    method.a.step = observed
    for epoch in range(1, 4):  # the drop rate ramps in epoch 0
        released.epoch(epoch, loss)
        method.task.start_epoch(epoch)
        method.epoch(epoch)
    return {
        "loss of each of 15 batches, first network": difference(taken, released.losses),
        "weights and buffers of the first network after 3 epochs": difference(method.a.network, released.nets[0]),
        "weights and buffers of the second network after 3 epochs": difference(method.b.network, released.nets[1]),
    }
