"""scanmix and scan+dividemix against ragavsachdeva/ScanMix @e542e9e: python tests/parity/scanmix.py --reference PATH

Warm-up, division, the semi-supervised pass and the clustering pass of the scripts for CIFAR and WebVision, from one clustering.
scikit-learn's mixture starts where ours does. The two heads are those of the released model.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import common
import numpy as np
import torch
import torch.nn.functional as F
from dividemix import Loader, Pinned
from scan import Features
from small import plain_images
from torch import Tensor, nn

import bench.ops.pretraining
from bench.ops.mixing import beta_mix_coefficient
from bench.ops.pretraining import neighbour_pairs
from methods.scan_dividemix import ScanDivideMix
from methods.scanmix import ScanMix

SIZE, EPOCHS, BATCH, K = 76, 4, 12, 6
TRAINING: dict[str, Any] = {
    "epochs": EPOCHS, "lr": 0.05, "batch_size": BATCH, "augment": "crop-flip", "schedule": "multistep", "milestones": (3,),
}  # fmt: skip
SHORT: dict[str, Any] = {
    "pretext_epochs": 2, "pretext_batch_size": 32, "k": K, "scan_epochs": 1, "scan_batch_size": 32, "warmup": 1,
}  # fmt: skip
CLUSTER = {"cluster_batch_size": 32, "cluster_lr": 1e-3, "cluster_lr_noisy": 1e-2}
SETTING = (
    f"two tiny-cnn, {SIZE} random 1x6x6 images, 4 classes, {EPOCHS} epochs (1 of warm-up) of SGD 0.05 (clustering 0.001, or 0.01 "
    f"above the switch), momentum 0.9, {BATCH} labelled images a batch, 32 pairs, {K} neighbours, float32"
)
NOTES = (
    "same clustering, orders, views, drawn neighbours, mixing coefficients and permutations on both sides; the last partial "
    "labelled and unlabelled batches are kept on both (the released loaders drop them); scikit-learn's mixture from our 2-means "
    "partition; PyTorch 1.5's zero_grad where idle heads coast; WebVision's networks in turns instead of in parallel"
)


class Case:
    """One way of running: fields of ours, and what the released scripts are told."""

    def __init__(self, fields: dict[str, Any], *, threshold: float = 0.5, rate: float = 0.5, mode: str = "sym",
                 webvision: bool = False, clustering: bool = True, lambda_u: float = 25.0) -> None:  # fmt: skip
        self.fields = {**SHORT, **fields, "threshold": threshold, "lambda_u": lambda_u}
        self.threshold, self.rate, self.mode, self.webvision, self.clustering = threshold, rate, mode, webvision, clustering
        self.lambda_u, self.alpha = lambda_u, self.fields.get("alpha", 4.0)

    def method(self) -> Any:
        return ScanMix(**self.fields, **CLUSTER) if self.clustering else ScanDivideMix(**self.fields)


CASES = {
    "low noise": Case({}, threshold=0.3),
    "above the switch (at 0.4), rate 0.9 (history of 5), asymmetric": Case(
        {"history": 5, "confidence_penalty": True, "switch_rate": 0.4}, threshold=0.5, rate=0.9, mode="asym"
    ),
    "newer PyTorch": Case({"idle_heads_coast": False}, threshold=0.3),
    "WebVision": Case(
        {"view": "weak", "cluster_view": "scan", "mix_unlabelled": False, "alpha": 0.5, "switch_rate": 1.0},
        webvision=True, lambda_u=0.0, threshold=0.4,
    ),
    "without clustering": Case({}, threshold=0.3, clustering=False),
}  # fmt: skip


class Coasting(torch.optim.SGD):
    """Gradients become zeros, as in PyTorch before 2.0, not nothing."""

    def zero_grad(self, set_to_none: bool = False) -> None:
        super().zero_grad(set_to_none=False)


class Released:
    """Two released models that begin as ours do, and the bodies of the scripts' loops over epochs."""

    def __init__(self, folder: Any, case: Case, ours: Any) -> None:
        self.case, self.ours, self.task = case, ours, common.tiny_task(training=TRAINING)
        sizes = {"num_class": common.CLASSES, "batch_size": BATCH, "warmup": 1}
        self.p = {**sizes, "T": 0.5, "alpha": case.alpha, "dataset": "webvision"}
        known: dict[str, Any] = {
            "torch": common.Instead(torch, randperm=self.order), "F": F, "GaussianMixture": Pinned, "print": lambda *_: None,
            "np": common.Instead(np, random=SimpleNamespace(beta=self.coefficient)),
        }  # fmt: skip

        def part(name: str, blob: str, *names: str) -> dict[str, Any]:
            return vars(common.definitions(common.reference_file(folder, name, blob), *names, **known))

        known |= part("utils/utils.py", "9971899d6e", "AverageMeter", "ProgressMeter")
        loops = ("train", "warmup", "eval_train", "big_train", "big_warmup", "big_eval_train", "scan")
        self.code = SimpleNamespace(**part("utils/train_utils.py", "0ca5e48367", *(f"scanmix_{name}" for name in loops)))
        self.losses = common.module(common.reference_file(folder, "losses/losses.py", "8ad97e3778"))
        self.penalty = part("ScanMix.py", "4bc037c9d9", "NegEntropy")["NegEntropy"]()
        models = common.module(common.reference_file(folder, "models/models.py", "971fac1868"))
        self.nets = [self.model(models, net) for net in (ours.a, ours.b)]
        coast = case.clustering and ours.idle_heads_coast
        how = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
        self.optimizers = [(Coasting if coast else torch.optim.SGD)(net.parameters(), **how) for net in self.nets]
        self.history: list[list[Tensor]] = [[], []]
        self.rate = self.view = ""  # type: ignore[assignment]
        self.posteriors: list[np.ndarray] = []

    def model(self, models: Any, net: Any) -> Any:
        network = copy.deepcopy(net.network)
        width = network.head.in_features
        made = models.ScanMixModel({"backbone": Features(network), "dim": width}, common.CLASSES)
        for head in (made.dm_head, made.sl_head):
            head.load_state_dict(network.head.state_dict())
        del network.head
        return made

    def order(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self.task.generator("mix"))

    def coefficient(self, alpha: float, _: float) -> float:
        return float(beta_mix_coefficient(alpha, generator=self.task.generator("mix")))

    def epoch(self, epoch: int) -> None:
        self.task.start_epoch(epoch)
        self.set_rate(0.05 if epoch < 3 else 0.005)
        if epoch < 1:
            return self.warm_up(epoch)
        divided = [self.divide(which, epoch) for which in (0, 1)]
        if not self.view:  # the released script finds it out at the end of warm-up, from the same networks
            noise = float(np.mean([(found <= self.case.threshold).mean() for found, _ in divided]))
            low = noise <= self.ours.switch_rate
            self.noise, self.view, self.slow = noise, "weak" if low else "scan", 1e-3 if low else 1e-2
        for which in (0, 1):
            found = divided[1 - which][0]
            self.posteriors.append(divided[which][0])
            train = self.code.scanmix_big_train if self.case.webvision else self.code.scanmix_train
            loaders = self.loaders(found > self.case.threshold, torch.as_tensor(found))
            rest = (self.losses.SemiLoss(), self.case.lambda_u, "cpu")
            self.quietly(train, self.p, epoch, self.nets[which], self.nets[1 - which], self.optimizers[which], *loaders, *rest)
        if self.case.clustering:
            self.set_rate(self.slow)
            for which in (0, 1):
                self.cluster(which, divided[1 - which][1].long(), epoch)

    def set_rate(self, rate: float) -> None:
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = rate

    def warm_up(self, epoch: int) -> None:
        big = self.case.webvision
        view = "weak" if big else "scan"

        def form(batch: Any) -> Any:
            return {"image": batch.images, "target": batch.labels} if big else (batch.images, batch.labels, batch.index)

        for net, optimizer in zip(self.nets, self.optimizers, strict=True):
            loader = Sized(self.task, form, views=(view,), batch_size=2 * BATCH)
            rest = (epoch, net, optimizer, loader, nn.CrossEntropyLoss(), self.penalty, self.case.mode, "cpu")
            if big:
                self.quietly(self.code.scanmix_big_warmup, self.p, *rest)
            else:
                self.quietly(self.code.scanmix_warmup, *rest)

    def divide(self, which: int, epoch: int) -> tuple[np.ndarray, Tensor]:
        args, net, criterion = SimpleNamespace(r=self.case.rate), self.nets[which], nn.CrossEntropyLoss(reduction="none")
        images, labels, index = plain_images(self.task), self.task.labels, torch.arange(SIZE)
        if self.case.webvision:
            made: dict[str, Any] = {}
            batch = {"image": images, "target": labels, "meta": {"index": index}}
            self.quietly(self.code.scanmix_big_eval_train, self.p, args, net, epoch, Listed([batch]), criterion, "cpu", made)
            return made["prob"], made["pl"]
        loader = Listed([(images, labels, index)])
        found, self.history[which], predicted = self.code.scanmix_eval_train(
            args, net, self.history[which], epoch, loader, criterion, "cpu"
        )
        return found, predicted

    def loaders(self, chosen: np.ndarray, weights: Tensor) -> tuple[Loader, Loader]:
        def labelled(batch: Any) -> tuple[Tensor, ...]:
            return *batch.views, batch.labels, weights[batch.index]

        clean, rest = (torch.as_tensor(part.nonzero()[0]) for part in (chosen, ~chosen))
        views = (self.view,) * 2
        return Sized(self.task, labelled, clean, views=views), Sized(self.task, lambda b: b.views, rest, views=views)

    def cluster(self, which: int, predicted: Tensor, epoch: int) -> None:
        view = "scan" if self.case.webvision else self.view
        pairs = neighbour_pairs(self.task, self.ours._neighbours, view=view, batch_size=32, labels=predicted)
        loader = Listed([{"anchor": anchors, "neighbor": others} for anchors, others in pairs])
        criterion = self.losses.SCANLoss(entropy_weight=5.0)
        self.quietly(self.code.scanmix_scan, loader, self.nets[which], criterion, self.optimizers[which], epoch, "cpu")

    def quietly(self, function: Callable[..., Any], *arguments: Any) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            function(*arguments)

    def apart(self, which: int, net: Any) -> float:
        theirs = self.nets[which]
        features = theirs.backbone.network.state_dict()
        own = {name: value for name, value in net.network.state_dict().items() if not name.startswith("head.")}
        found = [common.difference(value, features[name]) for name, value in own.items()]
        found.append(common.difference(net.network.head, theirs.dm_head))
        if self.case.clustering:
            found.append(common.difference(net.extra["clusters"], theirs.sl_head))
        return max(found)


class Sized(Loader):
    """The released loops ask for the number of batches, to print it."""

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)


class Listed(list):  # type: ignore[type-arg]
    """A loader of ready batches; the dataset is asked for its size."""

    dataset = range(SIZE)


def neighbour_sets(folder: Any) -> float:
    """In how many of 76 rows of neighbours the released data set would draw from another set than ours."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.stack([torch.randperm(SIZE, generator=generator)[: K + 1] for _ in range(SIZE)])
    rows[:, 0] = torch.arange(SIZE)
    labels = torch.randint(common.CLASSES, (SIZE,), generator=generator)
    seen: list[set[int]] = []

    def choice(valid: np.ndarray, _: int) -> np.ndarray:
        seen.append(set(valid.tolist()))
        return valid

    path = common.reference_file(folder, "data/custom_dataset.py", "bf7823f876")
    numpy = common.Instead(np, random=SimpleNamespace(choice=choice))
    dataset = common.definitions(path, "NeighborsDataset", Dataset=object, np=numpy, torch=torch).NeighborsDataset

    class Images:
        transform = staticmethod(lambda image: image)

        def __len__(self) -> int:
            return SIZE

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"image": index, "target": 0}

    made = dataset(Images(), rows.numpy(), K, labels.float())
    for index in range(SIZE):
        made[index]
    drawn: list[set[int]] = [set() for _ in range(SIZE)]
    task = common.tiny_task(training=TRAINING)
    original = bench.ops.pretraining.draw_neighbours
    task.start_epoch(0)

    def observed(neighbours: Tensor, *, allowed: Tensor, **how: Any) -> Tensor:
        for index in range(SIZE):
            drawn[index] = set(neighbours[index][allowed[index]].tolist())
        return original(neighbours, allowed=allowed, **how)

    with common.patch.object(bench.ops.pretraining, "draw_neighbours", observed):
        next(neighbour_pairs(task, rows, view="plain", batch_size=32, labels=labels))
    return float(sum(mine != theirs for mine, theirs in zip(drawn, seen, strict=True)))


def run(folder: Any, name: str, case: Case) -> dict[str, float]:
    ours = common.begun(case.method(), training=TRAINING)
    theirs = Released(folder, case, ours)
    posteriors: list[Tensor] = []
    divide = ours.divide

    def observed(net: Any, history: Any) -> Any:
        made = divide(net, history)
        posteriors.append(made[0])
        return made

    ours.divide = observed
    losses, released = [], []
    for epoch in range(EPOCHS):
        with common.backward_losses() as taken:
            common.train(ours, epoch)
        losses += taken
        with common.backward_losses() as taken:
            theirs.epoch(epoch)
        released += taken
    mine, found = torch.stack(posteriors).numpy(), np.stack(theirs.posteriors)
    clean = mine > ours.threshold
    sizes = clean.sum(axis=1)
    assert sizes.min() > 0 and sizes.max() < SIZE, sizes
    rest = SIZE - sizes  # the released loop hides it when `Loader` says that an unlabelled image comes alone
    assert not ((rest % BATCH == 1) & (-(-sizes // BATCH) > rest // BATCH)).any(), sizes
    print(f"{name}: estimated noise {theirs.noise:.2f}, labelled {sizes.min()} to {sizes.max()}")
    return {
        f"{name}: losses of {len(losses)} batches": common.difference(losses, released),
        f"{name}: posteriors of {len(mine)} divisions": common.difference(mine, found),
        f"{name}: labelled sets that differ": float((clean != (found > ours.threshold)).any(axis=1).sum()),
        f"{name}: estimated noise": abs(ours.noise - theirs.noise),
        f"{name}: weights and batch statistics": max(theirs.apart(0, ours.a), theirs.apart(1, ours.b)),
    }


def main() -> None:
    folder = common.reference_path(__doc__)
    compared = {name: run(folder, name, case) for name, case in CASES.items()}
    rows = {"rows whose neighbours to draw from differ": neighbour_sets(folder)}
    without = compared.pop("without clustering")
    for figures in compared.values():
        rows |= figures
    common.write_result(ScanMix.slug, ScanMix.code, rows, SETTING, notes=NOTES)
    common.write_result(ScanDivideMix.slug, ScanDivideMix.code, without, SETTING, notes=NOTES)


if __name__ == "__main__":
    with common.on_cpu():
        main()
