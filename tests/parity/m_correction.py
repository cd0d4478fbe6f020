"""m-correction against PaulAlbert31/LabelNoiseCorrection @5e9a73e: python tests/parity/m_correction.py --reference PATH

All three variants through all their stages: mixup, dynamic mixup, bootstrapping, and after every epoch the beta mixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import common
import numpy as np
import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.ops.mixing import beta_mix_coefficient
from methods.m_correction import MCorrection

SIZE, WARMUP, ALONE, TEMPERATURES = 76, 2, 1, 3
EPOCHS = {"M-DYR-H": 5, "M-DYR-S": 5, "MD-DYR-SH": 7}
TASK: dict[str, Any] = {"training": {"epochs": 7, "augment": "crop-flip"}}
SETTING = (
    f"tiny-cnn, {SIZE} random 1x6x6 images in random crops, 4 classes, 5 epochs (MD-DYR-SH: 7) of SGD 0.1, momentum 0.9, "
    f"batches of 16, {WARMUP} epochs of warm-up, then {ALONE} of dynamic mixup alone (MD-DYR-SH), float32"
)
NAMES = (
    "track_training_loss", "train_mixUp", "mixup_data", "mixup_criterion", "reg_loss_class", "mixup_data_Boot",
    "train_mixUp_HardBootBeta", "mixup_criterion_mixSoft", "train_mixUp_SoftBootBeta", "mixup_data_beta",
    "mixup_criterion_beta", "train_mixUp_Beta", "mixup_criterion_SoftHard", "train_mixUp_SoftHardBetaDouble",
    "compute_probabilities_batch", "weighted_mean", "fit_beta_weighted", "BetaMixture1D",
)  # fmt: skip


class Loader:
    """What the released functions ask of a loader of (images, labels)."""

    def __init__(self, task: Any, **settings: Any) -> None:
        self.task, self.settings, self.dataset = task, settings, range(SIZE)
        self.seen: list[Any] = []

    def __len__(self) -> int:
        return -(-SIZE // self.task.batch_size)

    def __iter__(self) -> Iterator[Any]:
        self.seen = list(self.task.batches(**self.settings))
        return ((batch.images, batch.labels) for batch in self.seen)


class Released:
    """A plain network trained by the released functions; the body of the released loop over epochs."""

    def __init__(self, path: Any, variant: str) -> None:
        self.task, self.variant = common.tiny_task(**TASK), variant
        self.net = self.task.learner("a").network
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        self.code: Any = common.definitions(
            path, *NAMES, nn=nn, F=F, stats=scipy.stats, print=lambda *_: None,
            torch=common.Instead(torch, randperm=self.order),
            np=common.Instead(np, random=SimpleNamespace(beta=self.coefficient)),
        )  # fmt: skip
        self.code.reg_loss_class.__defaults__ = (common.CLASSES,)
        self.fit: tuple[Any, ...] = (None, None, None)  # mixture, upper and lower bound
        self.plan = (1, 0)  # of the temperature

    def order(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self.task.generator("mix"))

    def coefficient(self, alpha: float, _: float) -> float:
        return float(beta_mix_coefficient(alpha, generator=self.task.generator("mix")))

    def epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """(losses [N] of all samples after the epoch, their B [N])."""
        self.task.start_epoch(epoch)
        start = (SimpleNamespace(log_interval=1000, batch_size=16), self.net, "cpu", Loader(self.task), self.optimizer, epoch + 1)
        if epoch < WARMUP:
            self.code.train_mixUp(*start, 32)
        elif self.variant == "M-DYR-H":
            self.code.train_mixUp_HardBootBeta(*start, 32, *self.fit, 1.0, common.CLASSES)
        elif self.variant == "M-DYR-S":
            self.code.train_mixUp_SoftBootBeta(*start, 32, *self.fit, 1.0, common.CLASSES)
        elif epoch < WARMUP + ALONE:
            self.code.train_mixUp_Beta(*start, 32, *self.fit)
        else:
            found = self.code.train_mixUp_SoftHardBetaDouble(*start, *self.fit, *self.plan, TEMPERATURES, 1.0, common.CLASSES)
            self.plan = found[2:]
        loader = Loader(self.task, shuffle=False, batch_size=1024)
        losses, _, _, *fit = self.code.track_training_loss(start[0], self.net, "cpu", loader, epoch + 1, *self.fit)
        self.fit = tuple(fit)
        ((images, labels),) = [(batch.images, batch.labels) for batch in loader.seen]
        noisy = self.code.compute_probabilities_batch(images, labels, self.net, *self.fit)
        return torch.as_tensor(losses), noisy.clamp(1e-4, 1 - 1e-4)


def main() -> None:
    path = common.reference_file(common.reference_path(__doc__), "utils.py", "c813fb7af4")
    compared: dict[str, float] = {}
    for variant, epochs in EPOCHS.items():
        method = MCorrection(variant=variant, warmup=WARMUP, mixup_epochs=ALONE, temperature_epochs=TEMPERATURES)
        ours, theirs = common.begun(method, **TASK), Released(path, variant)
        tracked: list[Tensor] = []
        track = ours.track
        ours.track = lambda track=track, tracked=tracked: tracked.append(track()) or tracked[-1]
        apart: dict[str, list[float]] = {}
        for epoch in range(epochs):
            with common.backward_losses() as losses:
                common.train(ours, epoch)
            with common.backward_losses() as released_losses:
                found, noisy = theirs.epoch(epoch)
            mixture, high, low = theirs.fit
            means = mixture.alphas / (mixture.alphas + mixture.betas)
            assert means[1] > means[0]  # the released order of components is that of their means
            for what, mine, other in (
                ("losses of the batches", losses, released_losses),
                ("tracked losses of the samples", tracked[-1], found),
                ("percentiles", torch.stack([ours.fit["low"] + 1e-5, ours.fit["high"]]), torch.cat([low, high])),
                ("alphas and betas, relative to them", ours.fit["alphas"] / mixture.alphas, torch.ones(2)),
                ("alphas and betas, relative to them", ours.fit["betas"] / mixture.betas, torch.ones(2)),
                ("weights of the mixture", ours.fit["weights"], mixture.weight),
                ("B of the samples", 1 - ours.clean, noisy),
                ("weights and buffers of the network", ours.net.network, theirs.net),
            ):
                apart.setdefault(what, []).append(common.difference(mine, other))
        compared |= {f"{variant}: {what} in {epochs} epochs": max(values) for what, values in apart.items()}
    notes = (
        "same orders, crops, pairings and folded mixing coefficients on both sides; the soft variant's class prior told the "
        "number of classes, which the released one takes for 10"
    )
    common.write_result(MCorrection.slug, MCorrection.code, compared, setting=SETTING, notes=notes)


if __name__ == "__main__":
    main()
