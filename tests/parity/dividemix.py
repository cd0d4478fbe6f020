"""dividemix against LiJunnan1992/DivideMix @d9d3058: python tests/parity/dividemix.py --reference PATH

Warm-up, division, and the semi-supervised epoch of the script for CIFAR, with shifted crops as views. scikit-learn's mixture
starts where ours does.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import common
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.mixture import GaussianMixture
from small import plain_images
from torch import Tensor, nn

from bench.ops.mixing import beta_mix_coefficient
from bench.ops.mixtures import _two_means
from bench.trial.task import Batch
from methods.dividemix import DivideMix

SIZE, EPOCHS = 76, 4
TASK: dict[str, Any] = {"training": {"epochs": EPOCHS, "lr": 0.05, "batch_size": 12, "augment": "crop-flip"}}
SETTING = (
    f"two tiny-cnn, {SIZE} random 1x6x6 images in random crops, 4 classes, {EPOCHS} epochs (1 of warm-up) of SGD 0.05, "
    "momentum 0.9, 12 labelled images a batch, float32"
)
CONFIGURATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "symmetric, lambda_u 25": (
        {"lambda_u": 25.0},
        {"lambda_u": 25, "p_threshold": 0.5, "noise_mode": "sym", "r": 0.5},
    ),
    "asymmetric, rate 0.9 (history of 5), threshold 0.6": (
        {"lambda_u": 50.0, "threshold": 0.6, "history": 5, "confidence_penalty": True},
        {"lambda_u": 50, "p_threshold": 0.6, "noise_mode": "asym", "r": 0.9},
    ),
}


class Pinned(GaussianMixture):
    """scikit-learn's mixture from the partition that ours starts from."""

    def fit(self, X: Tensor, y: Any = None) -> Pinned:
        x = X.double().numpy()[:, 0]
        upper = _two_means(X.double()[:, 0]).numpy()
        parts = [x[~upper], x[upper]]
        self.weights_init = [len(part) / len(x) for part in parts]
        self.means_init = [[part.mean()] for part in parts]
        self.precisions_init = [[[1 / (part.var() + self.reg_covar)]] for part in parts]
        return super().fit(x[:, None])

    def predict_proba(self, X: Tensor) -> np.ndarray:
        return super().predict_proba(X.double().numpy())


class Loader:
    """What the script asks of a loader: batches in new orders, `len(loader.dataset)`, and an iterator with `next`."""

    def __init__(self, task: Any, form: Any, indices: Tensor | None = None, **settings: Any) -> None:
        self.task, self.form, self.indices, self.settings = task, form, indices, settings
        self.dataset = range(task.num_samples if indices is None else len(indices))
        self.batch_size = settings.get("batch_size", task.batch_size)

    def __iter__(self) -> Iterator[Any]:
        return common.OldIterator(map(self.form, self.batches()))

    def batches(self) -> Iterator[Batch]:
        for batch in self.task.batches(indices=self.indices, **self.settings):
            assert len(batch) > 1  # ours normalises an image that comes alone with running statistics
            yield batch


class Released:
    """Two plain networks, trained by the functions of the script."""

    def __init__(self, path: Any, settings: dict[str, Any]) -> None:
        self.task = common.tiny_task(**TASK)
        self.nets = [self.task.learner(name).network for name in ("a", "b")]
        self.optimizers = [torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3) for net in self.nets]
        self.history: list[list[Tensor]] = [[], []]
        self.posteriors: list[list[np.ndarray]] = []
        args = SimpleNamespace(
            batch_size=12, num_class=common.CLASSES, alpha=4.0, T=0.5, dataset="tiny", num_epochs=EPOCHS, **settings
        )
        known = {
            "args": args, "torch": common.Instead(torch, randperm=self.order, zeros=self.zeros), "F": F, "warm_up": 1,
            "np": common.Instead(np, random=SimpleNamespace(beta=self.coefficient)), "CE": nn.CrossEntropyLoss(reduction="none"),
            "CEloss": nn.CrossEntropyLoss(), "GaussianMixture": Pinned, "sys": SimpleNamespace(stdout=io.StringIO()),
        }  # fmt: skip
        names = ("train", "warmup", "eval_train", "linear_rampup", "SemiLoss", "NegEntropy")
        self.code = common.definitions(path, *names, **known)
        self.set(criterion=self.code.SemiLoss(), conf_penalty=self.code.NegEntropy())
        self.threshold = settings["p_threshold"]

    def set(self, **known: Any) -> None:
        self.code.train.__globals__.update(known)

    def order(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self.task.generator("mix"))

    def coefficient(self, alpha: float, _: float) -> float:
        return float(beta_mix_coefficient(alpha, generator=self.task.generator("mix")))

    @staticmethod
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(*((SIZE,) if shape == (50_000,) else shape))

    def epoch(self, epoch: int) -> None:
        """The body of the script's loop over epochs."""
        self.task.start_epoch(epoch)
        if epoch < 1:
            loader = Loader(self.task, lambda batch: (batch.images, batch.labels, batch.index), batch_size=24)
            for net, optimizer in zip(self.nets, self.optimizers, strict=True):
                self.code.warmup(epoch, net, optimizer, loader)
            return
        self.set(eval_loader=[(plain_images(self.task), self.task.labels, torch.arange(SIZE))])
        probabilities = []
        for which, net in enumerate(self.nets):
            found, self.history[which] = self.code.eval_train(net, self.history[which])
            probabilities.append(found)
        self.posteriors.append(probabilities)
        for which in (0, 1):
            found = probabilities[1 - which]
            labelled, unlabelled = self.loaders(found > self.threshold, torch.as_tensor(found))
            self.code.train(epoch, self.nets[which], self.nets[1 - which], self.optimizers[which], labelled, unlabelled)

    def loaders(self, chosen: np.ndarray, weights: Tensor) -> tuple[Loader, Loader]:
        def labelled(batch: Batch) -> tuple[Tensor, ...]:
            return *batch.views, batch.labels, weights[batch.index]

        clean, rest = (torch.as_tensor(part.nonzero()[0]) for part in (chosen, ~chosen))
        views = ("weak", "weak")
        return Loader(self.task, labelled, clean, views=views), Loader(self.task, lambda b: b.views, rest, views=views)


def main() -> None:
    path = common.reference_file(common.reference_path(__doc__), "Train_cifar.py", "d30216976a")
    compared: dict[str, float] = {}
    for name, (fields, settings) in CONFIGURATIONS.items():
        ours, theirs = common.begun(DivideMix(warmup=1, **fields), **TASK), Released(path, settings)
        posteriors: list[Tensor] = []
        divide = ours.co_divide

        def observed(net: Any, history: Any, divide: Any = divide, posteriors: Any = posteriors) -> Tensor:
            posteriors.append(divide(net, history))
            return posteriors[-1]

        ours.co_divide = observed
        losses, released_losses = [], []
        for epoch in range(EPOCHS):
            with common.backward_losses() as taken:
                common.train(ours, epoch)
            losses += taken
            with common.backward_losses() as taken:
                theirs.epoch(epoch)
            released_losses += taken
        found = np.stack([p for pair in theirs.posteriors for p in pair])
        mine = torch.stack(posteriors).numpy()
        clean = mine > ours.threshold
        sizes = clean.sum(axis=1)
        assert sizes.min() > 0 and sizes.max() < SIZE, sizes
        compared[f"{name}: losses of {len(losses)} batches"] = common.difference(losses, released_losses)
        compared[f"{name}: posteriors of {len(mine)} divisions"] = common.difference(mine, found)
        compared[f"{name}: labelled sets that differ"] = float((clean != (found > ours.threshold)).any(axis=1).sum())
        for which, net in enumerate((ours.a, ours.b)):
            compared[f"{name}: weights and buffers of network {which + 1}"] = common.difference(net.network, theirs.nets[which])
    notes = (
        "same orders, crops, mixing coefficients and permutations on both sides; scikit-learn's mixture from our 2-means "
        "partition instead of an unseeded k-means; 50 000 losses made 76"
    )
    common.write_result(DivideMix.slug, DivideMix.code, compared, setting=SETTING, notes=notes)


if __name__ == "__main__":
    with common.on_cpu():
        main()
