"""ELR against shengliu66/ELR: python tests/parity/elr.py --reference PATH"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import common
import torch

from methods.elr import ELR

SIZE = 76


def main() -> None:
    config: dict[str, Any] = {"train_loss": {"args": {}}}
    parser = SimpleNamespace(ConfigParser=SimpleNamespace(get_instance=lambda: config))
    path = common.reference_file(common.reference_path(__doc__), "ELR/model/loss.py", "752a81cd32")
    released = common.module(path, {"parse_config": parser})
    compared: dict[str, float] = {}
    for lam, beta in ((3.0, 0.7), (7.0, 0.9)):
        config["train_loss"]["args"]["lambda"] = lam
        ours, theirs = common.begun(ELR(lam=lam, beta=beta)), common.Released()
        criterion = released.elr_loss(SIZE, common.CLASSES, beta)
        for epoch in range(3):
            common.train(ours, epoch)
            theirs.epoch(
                epoch, lambda network, batch, criterion=criterion: criterion(batch.index, network(batch.images), batch.labels)
            )
        name = f"lambda {lam:g}, beta {beta:g}"
        compared[f"weights and batch statistics after 3 epochs, {name}"] = common.difference(ours.net.network, theirs.network)
        compared[f"targets after 3 epochs, {name}"] = common.difference(ours.targets, criterion.target)
        logits, labels = common.some_logits(scale=8.0)  # some probabilities are clamped
        again = copy.deepcopy(criterion)
        each = common.per_sample(again, torch.arange(SIZE), logits, labels)
        ours_each = ours.loss(logits, common.Batch(torch.arange(SIZE), labels, ()))
        compared[f"losses per sample, {name}"] = common.difference(ours_each, each)
    common.write_result(ELR.slug, ELR.code, compared)


if __name__ == "__main__":
    with common.on_cpu():
        main()
