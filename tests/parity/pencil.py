"""PENCIL against yikun2019/PENCIL, and the paper's form of L_o against ljmiao/PENCIL.

Run: python tests/parity/pencil.py --reference CHECKOUT --paper-form CHECKOUT_OF_LJMIAO
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.pencil import PENCIL

common.CLASSES = 10  # as written into both
STAGE1, STAGE2, EPOCHS = 2, 5, 8
SETTING = (
    "tiny-cnn, 76 random 1x6x6 images, 10 classes, batches of 16, plain images, SGD with momentum 0.9, float32; 2 epochs of "
    "cross-entropy, 3 that move labels, 3 of fine-tuning"
)
NOTES = (
    "the released async=True is no longer Python and became non_blocking=True; its rates of stage 3 are (0.2, 0, 0), integer "
    "division, and so are ours here (finetune_decay 0)"
)


class Loader:
    """The batches of a task as the released loop takes them."""

    def __init__(self, task: Any) -> None:
        self.task = task

    def __len__(self) -> int:
        return -(-self.task.num_samples // self.task.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return ((batch.images, batch.labels, batch.index) for batch in self.task.batches())


def released_code(path: Path, folder: str, **args: Any) -> Any:
    """The functions of the released script, which parses on a Python where `async` was a name."""
    readable = Path(folder, path.name)
    readable.write_text(path.read_text().replace("async=True", "non_blocking=True").replace("async = True", "non_blocking=True"))
    args = {
        "stage1": STAGE1, "stage2": STAGE2, "epochs": EPOCHS, "lr": 0.1, "lr2": 0.2, "datanum": 76, "classnum": 10,
        "dir": folder + "/", "print_freq": 1000, **args,
    }  # fmt: skip
    return common.definitions(
        readable, "train", "AverageMeter", "adjust_learning_rate", accuracy=lambda *_, **__: torch.zeros(2, 1),
        args=SimpleNamespace(**args), np=np, torch=torch, nn=nn, time=time,
    )  # fmt: skip


def official(path: Path, alpha: float, beta: float, lam: float) -> dict[str, float]:
    """All three stages of the released training loop."""
    training = {"epochs": EPOCHS}
    method = PENCIL(stage1=STAGE1, stage2=STAGE2, alpha=alpha, beta=beta, lam=lam, finetune_lr=0.2, finetune_decay=0.0)
    ours, theirs = common.begun(method, training=training), common.Released(training=training)
    rates, labels = [], []
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(folder + "/record")
        released = released_code(path, folder, alpha=alpha, beta=beta, lambda1=lam)
        y: Any = []
        for epoch in range(EPOCHS):
            common.train(ours, epoch)
            released.adjust_learning_rate(theirs.optimizer, epoch)
            theirs.task.start_epoch(epoch)
            with contextlib.redirect_stdout(io.StringIO()):
                released.train(Loader(theirs.task), theirs.network, nn.CrossEntropyLoss(), theirs.optimizer, epoch, y)
            y = np.load(folder + "/y.npy")
            rates.append(common.difference(ours.net.lr, theirs.optimizer.param_groups[0]["lr"]))
            labels.append(common.difference(ours.label_logits, torch.from_numpy(y)))
    name = f"alpha {alpha:g}, beta {beta:g}, lambda {lam:g}"
    return {
        f"learning rates of {EPOCHS} epochs, {name}": max(rates),
        f"label logits after each epoch, {name}": max(labels),
        f"weights and batch statistics after {EPOCHS} epochs, {name}": common.difference(ours.net.network, theirs.network),
    }


def paper_form(path: Path, alpha: float = 0.01, beta: float = 0.1, lam: float = 600.0) -> dict[str, float]:
    """Stage 2 with the third party's loss and its movement of labels at the end of the epoch."""
    args = SimpleNamespace(alpha=alpha, beta=beta)
    released = common.definitions(path, "pencil_loss", args=args, class_num=10, torch=torch, F=F)
    method = PENCIL(stage1=0, stage2=3, alpha=alpha, beta=beta, lam=lam, tie="label")
    ours, theirs = common.begun(method), common.Released()
    labels = ours.label_logits.clone()
    for epoch in range(3):
        common.train(ours, epoch)
        leaves: list[tuple[Tensor, Tensor]] = []

        def loss(network: nn.Module, batch: Any, leaves=leaves) -> Tensor:
            leaves.append((batch.index, labels[batch.index].requires_grad_()))
            return released.pencil_loss(network(batch.images), leaves[-1][1], batch.labels)

        theirs.epoch(epoch, loss)
        for index, leaf in leaves:
            labels[index] -= lam * leaf.grad
    return {
        "label logits after 3 epochs, paper's L_o": common.difference(ours.label_logits, labels),
        "weights and batch statistics after 3 epochs, paper's L_o": common.difference(ours.net.network, theirs.network),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True, help="checkout of yikun2019/PENCIL")
    parser.add_argument("--paper-form", type=Path, required=True, help="checkout of ljmiao/PENCIL")
    given = parser.parse_args()
    path = common.reference_file(given.reference, "PENCIL.py", "59f60ff24b")
    compared = {**official(path, 0.4, 0.1, 600.0), **official(path, 0.1, 0.4, 3000.0)}
    other = common.reference_file(given.paper_form, "pencil_train.py", "8fa9f1441a")
    compared |= {f"{what} (ljmiao/PENCIL @a1b65d2)": value for what, value in paper_form(other).items()}
    common.write_result(PENCIL.slug, PENCIL.code, compared, SETTING, notes=NOTES)


if __name__ == "__main__":
    with common.on_cpu():
        main()
