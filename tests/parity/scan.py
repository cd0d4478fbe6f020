"""scan against wvangansbeke/Unsupervised-Classification @952ec31: python tests/parity/scan.py --reference PATH

SimCLR with its schedule and its search for neighbours, the clustering epochs with their choice of the best, and self-labelling.
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import common
import faiss
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.ops.pretraining import match_clusters, neighbour_pairs, network_weights, projection, scan, scan_score, simclr
from bench.trial.stage import Stage
from methods.scan import SCAN, confident_loss

SIZE, EPOCHS, K = 76, 3, 6
SGD = {"epochs": EPOCHS, "batch_size": 16, "lr": 0.1, "weight_decay": 1e-3, "schedule": "cosine", "min_lr": 1e-4}
KEY = {"temperature": 0.1, "dimension": 8, "k": K, "training": SGD}
CLUSTER = {"entropy_weight": 5.0, "view": "scan", "k": K, "training": {**SGD, "schedule": "constant"}}
SETTING = (
    f"tiny-cnn, {SIZE} random 1x6x6 images in the views of SimCLR and SCAN, {EPOCHS} epochs each of SimCLR, clustering and "
    f"self-labelling, SGD 0.1 (cosine for SimCLR), momentum 0.9, batches of 16, {K} neighbours, float32"
)
NOTES = (
    "same initial weights, orders, views and drawn neighbours on both sides; the search for neighbours on the CPU; clusterings "
    "are scored on training samples on both sides, where the released script takes test images"
)


class Features(nn.Module):
    """The network without its head, as the released models take it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.features(images)  # type: ignore[operator]


class Loader:
    """Batches in the released form; the released loops ask for their number."""

    def __init__(self, batches: Iterable[Any], form: Any) -> None:
        self.batches = [form(batch) for batch in batches]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def pair_of_views(batch: Any) -> dict[str, Tensor]:
    return {"image": batch.views[0], "image_augmented": batch.views[1], "target": batch.index}


def quietly(function: Any, *arguments: Any) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        function(*arguments)


def whole(batches: Iterable[Any]) -> list[Any]:
    return [batch for batch in batches if len(batch) == 16]


def stage(name: str, key: dict[str, Any]) -> Stage:
    return Stage(common.tiny_task(), name, key, name)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)


def apart(network: nn.Module, features: nn.Module, head: nn.Module | None) -> float:
    """Of our network from a released model: its features with their statistics, and its head."""
    theirs = features.network.state_dict()
    found = [common.difference(v, theirs[name]) for name, v in network.state_dict().items() if not name.startswith("head.")]
    return max(found + ([] if head is None else [common.difference(network.head, head)]))  # type: ignore[arg-type]


def released_code(folder: Any) -> SimpleNamespace:
    def part(name: str, blob: str, *names: str) -> dict[str, Any]:
        return vars(common.definitions(common.reference_file(folder, name, blob), *names, **known))

    losses = common.module(common.reference_file(folder, "losses/losses.py", "7aa01562c6"))
    models = common.module(common.reference_file(folder, "models/models.py", "182631d371"))
    known: dict[str, Any] = {"torch": torch, "np": np, "F": F, "math": math, "entropy": losses.entropy}
    known |= part("utils/utils.py", "4ece867063", "AverageMeter", "ProgressMeter")
    loops = part("utils/train_utils.py", "0addcdb43c", "simclr_train", "scan_train", "selflabel_train")
    loops |= part("utils/evaluate_utils.py", "5723c094ee", "scan_evaluate")
    loops |= part("utils/common_config.py", "60d5bdf66a", "adjust_learning_rate")
    loops |= part("utils/memory.py", "3015402e9e", "MemoryBank")
    return SimpleNamespace(losses=losses, models=models, **loops)


def compare_simclr(code: Any, compared: dict[str, float]) -> dict[str, Tensor]:
    ours_stage, theirs = stage("simclr", KEY), stage("simclr", KEY)
    with common.backward_losses() as losses:
        made = simclr(ours_stage)
    start = theirs.learner(extra=lambda width: {"projection": projection(width, 8)})
    model = code.models.ContrastiveModel({"backbone": Features(start.network), "dim": start.network.head.in_features}, "mlp", 8)
    model.contrastive_head.load_state_dict(start.extra["projection"].state_dict())
    optimizer, criterion = sgd(model), code.losses.SimCLRLoss(0.1)
    plan = {"optimizer_kwargs": {"lr": 0.1}, "scheduler": "cosine", "scheduler_kwargs": {"lr_decay_rate": 0.1}, "epochs": EPOCHS}
    with common.backward_losses() as released_losses:
        for epoch in theirs.epochs():
            code.adjust_learning_rate(plan, optimizer, epoch)
            batches = whole(theirs.batches(("simclr", "simclr")))
            loader = Loader(batches, pair_of_views)
            quietly(code.simclr_train, loader, model, criterion, optimizer, epoch)
    compared[f"SimCLR: losses of {len(losses)} batches"] = common.difference(losses, released_losses)
    ours = ours_stage._networks[0].network
    compared["SimCLR: weights and batch statistics"] = apart(ours, model.backbone, None)
    bank = code.MemoryBank(SIZE, 8, common.CLASSES, 0.1)
    model.eval()
    unit = model(torch.cat(list(theirs.plain_images()))).detach()
    bank.update(unit, torch.zeros(SIZE, dtype=torch.int64))
    on_cpu = common.Instead(faiss, index_cpu_to_all_gpus=lambda index: index)
    with patch.dict(sys.modules, {"faiss": on_cpu}):
        found = torch.as_tensor(bank.mine_nearest_neighbors(K, calculate_accuracy=False))
    rows = torch.arange(SIZE)[:, None]
    cosines = [(unit[rows] * unit[near]).sum(dim=2) for near in (made["neighbours"], found)]  # near-ties may change places
    compared["similarities of the neighbours"] = common.difference(*cosines)
    return made


def compare_stage(code: Any, pretext: dict[str, Tensor], compared: dict[str, float]) -> None:
    """The clustering that ScanMix begins with: its epochs, and the epoch that is kept."""
    ours_stage, theirs = stage("scan", CLUSTER), stage("scan", CLUSTER)
    ours_stage.inputs = {"pretext": pretext}
    with common.backward_losses() as losses:
        made = network_weights(scan(ours_stage))
    network = theirs.learner().network
    network.load_state_dict(network_weights(pretext))
    model = code.models.ClusteringModel({"backbone": Features(network), "dim": network.head.in_features}, common.CLASSES)
    model.cluster_head[0].load_state_dict(network.head.state_dict())
    optimizer, criterion = sgd(model), code.losses.SCANLoss(entropy_weight=5.0)
    best, chosen, scores = 1e4, {}, []
    with common.backward_losses() as released_losses:
        for epoch in theirs.epochs():
            pairs = neighbour_pairs(theirs, pretext["neighbours"], view="scan", batch_size=16)
            loader = Loader(pairs, lambda pair: {"anchor": pair[0], "neighbor": pair[1]})
            quietly(code.scan_train, loader, model, criterion, optimizer, epoch)
            model.eval()
            with torch.no_grad():
                logits = model(torch.cat(list(theirs.plain_images())))[0]
            shown = {"probabilities": logits.softmax(dim=1), "neighbors": pretext["neighbours"][:, :6]}
            score = code.scan_evaluate([shown])["lowest_loss"]
            scores.append((float(scan_score(logits, pretext["neighbours"])), score))
            if score < best:
                best, chosen = score, {name: value.clone() for name, value in model.state_dict().items()}
    compared[f"clustering: losses of {len(losses)} batches"] = common.difference(losses, released_losses)
    compared["clustering: scores of epochs"] = max(abs(mine - theirs) for mine, theirs in scores)
    names = {name: f"backbone.network.{name}" for name in made} | {f"head.{w}": f"cluster_head.0.{w}" for w in ("weight", "bias")}
    compared["clustering: the network that is kept"] = max(common.difference(v, chosen[names[name]]) for name, v in made.items())


def compare_method(code: Any, compared: dict[str, float]) -> None:
    """The method `scan`: clustering for two epochs, and two of self-labelling, on a learner of its own."""
    method = SCAN(pretext_epochs=1, pretext_batch_size=32, k=K, self_label_epochs=2, self_label_batch_size=16,
                  self_label_threshold=0.28)  # fmt: skip
    training = {"epochs": 4, "augment": "none"}
    ours, task = common.begun(method, training=training), common.tiny_task(training=training)
    network = task.learner().network
    network.load_state_dict(ours.net.network.state_dict())
    model = code.models.ClusteringModel({"backbone": Features(network), "dim": network.head.in_features}, common.CLASSES)
    model.cluster_head[0].load_state_dict(network.head.state_dict())
    optimizer = sgd(model)
    for epoch in range(4):
        with common.backward_losses() as losses:
            common.train(ours, epoch)
        task.start_epoch(epoch)
        with common.backward_losses() as released:
            if epoch < 2:
                loader = Loader(neighbour_pairs(task, ours._neighbours, view="scan", batch_size=16),
                                lambda pair: {"anchor": pair[0], "neighbor": pair[1]})  # fmt: skip
                quietly(code.scan_train, loader, model, code.losses.SCANLoss(5.0), optimizer, epoch)
            else:
                if epoch == 2:  # the kept network goes on, with a new optimiser
                    kept = ours.best_network
                    model.load_state_dict({
                        **{f"backbone.network.{name}": value for name, value in kept.items()},
                        **{f"cluster_head.0.{w}": kept[f"head.{w}"] for w in ("weight", "bias")},
                    })  # fmt: skip
                    optimizer = sgd(model)
                loader = Loader(task.batches(("plain", "scan"), batch_size=16), pair_of_views)
                quietly(code.selflabel_train, loader, model, code.losses.ConfidenceBasedCE(0.28, True), optimizer, epoch)
        what = "clustering" if epoch < 2 else "self-labelling"
        name = f"method, {what}: losses of the batches"
        compared[name] = max(compared.get(name, 0.0), common.difference(losses, released))
    compared["method: weights and batch statistics at the end"] = apart(ours.net.network, model.backbone, model.cluster_head[0])


def main() -> None:
    code = released_code(common.reference_path(__doc__))
    compared: dict[str, float] = {}
    plain, strong = common.some_logits()[0], common.some_logits(count=77)[0][1:]
    theirs = code.losses.ConfidenceBasedCE(0.6, True)(plain, strong)
    compared["self-labelling loss, 76 logits"] = common.difference(confident_loss(plain, strong, 0.6)[0], theirs)
    pretext = compare_simclr(code, compared)
    compare_stage(code, pretext, compared)
    compare_method(code, compared)
    shuffled = torch.tensor([2, 0, 3, 1])
    assert match_clusters(shuffled[torch.arange(SIZE) % 4], torch.arange(SIZE) % 4, 4).tolist() == shuffled.tolist()
    common.write_result(SCAN.slug, SCAN.code, compared, SETTING, notes=NOTES)


if __name__ == "__main__":
    with common.on_cpu():
        main()
