"""LDR-KL and ALDR-KL against Optimization-AI/ICML2023_LDR: python tests/parity/ldr.py --reference PATH"""

from __future__ import annotations

from typing import Any

import common
import torch
import torch.nn.functional as F

from methods.ldr import LDR

SIZE = 76


def main() -> None:
    path = common.reference_file(common.reference_path(__doc__), "loss.py", "b8130b837d")
    released = common.module(path)
    compared: dict[str, float] = {}
    cases: list[tuple[str, dict[str, Any]]] = [
        ("ALDR-KL, softplus, lambda 10", {"lam": 10.0, "normalise": "softplus"}),
        ("ALDR-KL, softplus, lambda 1", {"lam": 1.0, "normalise": "softplus"}),
        ("ALDR-KL, l1, lambda 1, alpha 3", {"lam": 1.0, "normalise": "l1", "alpha": 3.0}),
        ("LDR-KL, lambda 1", {"lam": 1.0, "adaptive": False, "normalise": "softplus"}),
        ("LDR-KL, lambda 0.1, margin 2", {"lam": 0.1, "adaptive": False, "normalise": "softplus", "margin": 2.0}),
    ]
    for name, params in cases:
        ours, theirs = common.begun(LDR(**params)), common.Released()
        if ours.adaptive:
            criterion = released.ALDRLoss_V1(
                SIZE, threshold=ours.margin, Lambda=ours.lam, alpha=ours.alpha, softplus=ours.normalise == "softplus"
            )
        else:
            plain = released.LDRLoss_V1(threshold=ours.margin, Lambda=ours.lam)
            criterion = lambda scores, targets, ids, plain=plain: plain(scores, targets)  # noqa: E731
        for epoch in range(3):
            common.train(ours, epoch)
            theirs.epoch(
                epoch, lambda network, batch, criterion=criterion: criterion(
                    network(batch.images), F.one_hot(batch.labels, common.CLASSES), batch.index
                )
            )  # fmt: skip
        compared[f"weights and batch statistics after 3 epochs, {name}"] = common.difference(ours.net.network, theirs.network)
        logits, labels = common.some_logits()
        given = {"index": torch.arange(SIZE), "labels": labels}
        if ours.adaptive:
            compared[f"lambdas after 3 epochs, {name}"] = common.difference(ours.lambdas[:, None], criterion.Lambda)
        each = common.per_sample(criterion, logits, F.one_hot(labels, common.CLASSES), given["index"])
        compared[f"losses per sample, {name}"] = common.difference(ours.loss(logits, common.Batch(**given, views=())), each)
    notes = "SGD of torch and shuffled batches on both sides; CUDA replaced by the CPU"
    common.write_result(LDR.slug, LDR.code, compared, notes=notes)


if __name__ == "__main__":
    with common.on_cpu():
        main()
