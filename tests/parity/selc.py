"""SELC and SELC+ against MacLLL/SELC: python tests/parity/selc.py --reference PATH"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import common
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.ops.mixing import beta_mix_coefficient
from methods.selc import SELC

TURNING_POINT, EPOCHS, PLUS = 2, 5, 3
SETTING = (
    "tiny-cnn, 76 random 1x6x6 images, 4 classes, SGD 0.1, momentum 0.9, batches of 16, plain images, float32; 2 epochs of "
    "cross-entropy, 3 of correction, then 3 of SELC+"
)
NOTES = (
    "SELC+ draws the same mixup coefficients and partners on both sides; the released one makes an extra forward pass before "
    "each mixed batch, which moves batch statistics, so only its weights are compared"
)


class Loader:
    """The batches of a task as the released loops take them; they ask for `len(loader.dataset)` to print."""

    def __init__(self, task: Any) -> None:
        self.task, self.dataset = task, range(task.num_samples)

    def __len__(self) -> int:
        return -(-self.task.num_samples // self.task.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return ((batch.images, batch.labels, batch.index) for batch in self.task.batches())


class ThreeOutputs(nn.Module):
    """The released networks return three things, of which the loops use the first."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, None, None]:
        return self.network(images), None, None


def quietly(function: Any, *arguments: Any) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        function(*arguments)


def main() -> None:
    folder = common.reference_path(__doc__)
    training = {"epochs": EPOCHS + PLUS}
    method = SELC(alpha=0.9, turning_point=TURNING_POINT, plus=True, plus_epochs=PLUS, mixup_alpha=0.9)
    ours, theirs = common.begun(method, training=training), common.Released(training=training)
    args = SimpleNamespace(gpuid="cpu", log_interval=1000, batch_size=16, alpha=0.9)
    known: dict[str, Any] = {"torch": torch, "np": np, "F": F}

    path = common.reference_file(folder, "class-conditional_noise/train_cifar_with_SELC.py", "f0cae705d1")
    criterion = common.definitions(path, "SELCLoss", **known).SELCLoss(theirs.task.labels, common.CLASSES, TURNING_POINT, 0.9)
    released = common.definitions(path, "train", criterion=criterion, **known)
    for epoch in range(EPOCHS):
        common.train(ours, epoch)
        theirs.task.start_epoch(epoch)
        quietly(released.train, args, ThreeOutputs(theirs.network), Loader(theirs.task), theirs.optimizer, epoch + 1)
    compared = {
        f"weights and batch statistics after {EPOCHS} epochs of SELC": common.difference(ours.net.network, theirs.network),
        f"targets after {EPOCHS} epochs": common.difference(ours.targets, criterion.soft_labels),
    }

    second, task = common.Released("b", training=training), theirs.task
    numpy = SimpleNamespace(
        average=np.average, random=SimpleNamespace(beta=lambda a, b: float(beta_mix_coefficient(a, generator=task.generator())))
    )
    drawn = {**vars(torch), "randperm": lambda count: torch.randperm(count, generator=task.generator())}
    path = common.reference_file(folder, "class-conditional_noise/train_cifar_with_SELC+.py", "3a566b307d")
    plus = common.definitions(
        path, "train", "mixup_data", args=args, np=numpy, torch=SimpleNamespace(**drawn),
        criterion=nn.CrossEntropyLoss(), corrected_labels=criterion.soft_labels.argmax(dim=1).numpy(),
    )  # fmt: skip
    for epoch in range(EPOCHS, EPOCHS + PLUS):
        common.train(ours, epoch)
        task.start_epoch(epoch)
        quietly(plus.train, args, ThreeOutputs(second.network), Loader(task), second.optimizer, epoch)
    weights = zip(ours.net.network.parameters(), second.network.parameters(), strict=True)
    compared[f"weights after {PLUS} epochs of SELC+"] = max(common.difference(a, b) for a, b in weights)
    common.write_result(SELC.slug, SELC.code, compared, SETTING, notes=NOTES)


if __name__ == "__main__":
    with common.on_cpu():
        main()
