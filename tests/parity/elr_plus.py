"""elr-plus against shengliu66/ELR @934af53, folder ELR_plus: python tests/parity/elr_plus.py --reference PATH

The released `_train_epoch` and loss, with both networks and their averages, as on one GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.ops.mixing import beta_mix_coefficient
from methods.elr_plus import ELRPlus

SIZE, EPOCHS, STEPS = 76, 3, 12
TASK: dict[str, Any] = {"training": {"lr": 0.05, "augment": "crop-flip"}}
SETTING = (
    f"two tiny-cnn and their averages, {SIZE} random 1x6x6 images in random crops, 4 classes, {EPOCHS} epochs of SGD 0.05, "
    f"momentum 0.9, batches of 16, ramps of {STEPS} steps, float32"
)
CONFIGURATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "CIFAR-10, ramp of the average": (
        {"lam": 3.0, "beta": 0.7, "ema_steps": STEPS},
        {"mixup_alpha": 1.0, "coef_step": 0, "ema_update": True, "ema_step": STEPS, "lambda": 3.0, "beta": 0.7},
    ),
    "CIFAR-100, ramp of both, labels weighted again": (
        {"lam": 7.0, "beta": 0.9, "ema_steps": STEPS, "coef_steps": STEPS, "reweight_labels": True},
        {"mixup_alpha": 1.0, "coef_step": STEPS, "ema_update": True, "ema_step": STEPS, "lambda": 7.0, "beta": 0.9},
    ),
    "Clothing1M, no ramp, no mixup": (
        {"lam": 3.0, "beta": 0.7, "ema": 0.9, "ema_steps": 0, "alpha": 0.0},
        {"mixup_alpha": 0.0, "coef_step": 0, "ema_update": False, "ema_alpha": 0.9, "lambda": 3.0, "beta": 0.7},
    ),
}


class Progress:
    """Stands for tqdm."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Loader:
    """Batches (images, labels, indices, nothing) of a task."""

    dataset, batch_size = range(SIZE), 16

    def __init__(self, task: Any) -> None:
        self.task = task

    def __iter__(self) -> Iterator[Any]:
        return ((batch.images, batch.labels, batch.index, None) for batch in self.task.batches())


class Released:
    """Two networks and two averages in the hands of the released trainer."""

    def __init__(self, folder: Path, settings: dict[str, Any], weighs_again: bool) -> None:
        self.task = common.tiny_task(**TASK)
        config = {
            "num_classes": common.CLASSES, "ema_alpha": 0.997, **settings,
            "train_loss": {"args": {"lambda": settings["lambda"], "beta": settings["beta"]}},
        }  # fmt: skip
        utils = common.definitions(common.reference_file(folder, "utils/util.py", "89760f73db"), "sigmoid_rampup", np=np)
        known = {"np": common.Instead(np, random=SimpleNamespace(beta=self.coefficient)), "F": F, "tqdm": Progress,
                 "torch": common.Instead(torch, randperm=self.order), **vars(utils)}  # fmt: skip
        code = common.definitions(
            common.reference_file(folder, "trainer/trainer.py", "58b63cc4a0"), "Trainer", BaseTrainer=object, **known
        )
        losses = common.definitions(
            common.reference_file(folder, "model/loss.py", "e12123779b"), "elr_plus_loss", nn=torch.nn, **known
        )
        self.nets = [self.task.learner(name).network for name in ("a", "b")]
        self.averages = [self.task._network(name) for name in ("average-a", "average-b")]
        for average in self.averages:
            average.requires_grad_(False)
        self.criteria = [losses.elr_plus_loss(SIZE, config, "cpu", common.CLASSES, settings["beta"]) for _ in self.nets]
        if weighs_again:  # the released loss does where there are a hundred classes
            for criterion in self.criteria:
                criterion.num_classes = 100
        self.optimizers = [torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3) for net in self.nets]
        self.trainer: Any = code.Trainer.__new__(code.Trainer)
        self.trainer.__dict__.update(
            config=config, metrics=[], len_epoch=1000, log_step=1000, train_loss_list=[], global_step=0,
            writer=Progress(None), data_loader1=Loader(self.task),
        )  # fmt: skip

    def order(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self.task.generator("mix"))

    def coefficient(self, alpha: float, _: float) -> float:
        return float(beta_mix_coefficient(alpha, generator=self.task.generator("mix")))

    def epoch(self, epoch: int) -> None:
        self.task.start_epoch(epoch)
        (net_1, net_2), (average_1, average_2) = self.nets, self.averages
        schedule = SimpleNamespace(get_lr=lambda: 0, step=lambda: None)
        steps = []
        for which, part in enumerate(((net_1, average_1, average_2), (net_2, average_2, average_1))):
            found = self.trainer._train_epoch(
                epoch + 1, *part, Loader(self.task), self.criteria[which], self.optimizers[which], schedule
            )
            steps.append(found["local_step"])
        self.trainer.global_step += steps[0]

    def logits(self, images: Tensor) -> Tensor:
        """As the released `_test_epoch` takes them."""
        with torch.no_grad():
            one, two = (net.eval()(images) for net in self.nets)
        return 0.5 * (one + two)


def main() -> None:
    folder = common.reference_path(__doc__) / "ELR_plus"
    compared: dict[str, float] = {}
    for name, (fields, settings) in CONFIGURATIONS.items():
        method = ELRPlus(**fields)
        ours, theirs = common.begun(method, **TASK), Released(folder, settings, method.reweight_labels)
        losses, released_losses = [], []
        for epoch in range(EPOCHS):
            with common.backward_losses() as taken:
                common.train(ours, epoch)
            losses += taken
            with common.backward_losses() as taken:
                theirs.epoch(epoch)
            released_losses += taken
        compared[f"{name}: losses of {len(losses)} batches"] = common.difference(losses, released_losses)
        for which, letter in enumerate("ab"):
            for what, mine, other in (
                ("memory", getattr(ours, f"memory_{letter}"), theirs.criteria[which].pred_hist),
                ("weights and buffers of the network", getattr(ours, letter).network, theirs.nets[which]),
                ("weights and buffers of the average", getattr(ours, f"average_{letter}").network, theirs.averages[which]),
            ):
                compared[f"{name}: {what} {which + 1}"] = common.difference(mine, other)
        images = torch.cat(list(ours.task.plain_images()))
        compared[f"{name}: predictions"] = common.difference(ours.predict(images), theirs.logits(images).softmax(dim=1))
    notes = (
        "same orders, crops, mixing coefficients and permutations on both sides; one split and one draw of labels for both "
        "networks; the released loss told that it has 100 classes where it weighs labels again"
    )
    common.write_result(ELRPlus.slug, ELRPlus.code, compared, setting=SETTING, notes=notes)


if __name__ == "__main__":
    with common.on_cpu():
        main()
