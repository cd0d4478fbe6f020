"""L_q and its truncated form against AlanChou/Truncated-Loss: python tests/parity/gce.py --reference PATH"""

from __future__ import annotations

import copy

import common
import torch

from methods.gce import GCE

SIZE = 76


def main() -> None:
    released = common.module(common.reference_file(common.reference_path(__doc__), "TruncatedLoss.py", "bcaff26c0a"))
    logits, labels = common.some_logits()
    compared: dict[str, float] = {}

    plain = released.TruncatedLoss(q=0.7, k=1.0, trainset_size=SIZE)  # L_q(1) = 0: nothing is subtracted
    ours, theirs = common.begun(GCE(q=0.7)), common.Released()
    each = common.per_sample(plain, logits, labels, torch.arange(SIZE))
    batch = common.Batch(torch.arange(SIZE), labels, ())
    compared["losses per sample, L_q"] = common.difference(ours.loss(logits, batch), each)
    for epoch in range(3):
        common.train(ours, epoch)
        theirs.epoch(epoch, lambda network, batch: plain(network(batch.images), batch.labels, batch.index))
    compared["weights and batch statistics after 3 epochs, L_q"] = common.difference(ours.net.network, theirs.network)

    # Three epochs, the first is the best; its network chooses the weights before the third, which trains the live one.
    settings = {"needs": frozenset({"validation"})}
    ours, theirs = common.begun(GCE(q=0.7, k=0.27, truncated=True, prune_from=2), **settings), common.Released()
    criterion = released.TruncatedLoss(q=0.7, k=0.27, trainset_size=SIZE)
    best = theirs.network
    for epoch, accuracy in enumerate((0.5, 0.4, 0.3)):
        if epoch == 2:
            best.eval()
            for start in range(0, SIZE, 16):
                images = torch.cat(list(theirs.task.plain_images()))[start : start + 16]
                given = theirs.task.labels[start : start + 16]
                criterion.update_weight(best(images), given, torch.arange(start, start + len(given)))
        common.train(ours, epoch)
        ours.validated(epoch, accuracy)
        theirs.epoch(epoch, lambda network, batch: criterion(network(batch.images), batch.labels, batch.index))
        if epoch == 0:
            best = copy.deepcopy(theirs.network)
    kept = int(ours.keep.sum())
    compared[f"weights v after the refresh ({kept} of {SIZE} kept)"] = common.difference(ours.keep[:, None], criterion.weight)
    each = common.per_sample(criterion, logits, labels, torch.arange(SIZE))
    compared["losses per sample, truncated"] = common.difference(ours.loss(logits, batch), each)
    compared["weights and batch statistics after 3 epochs, truncated"] = common.difference(ours.net.network, theirs.network)
    common.write_result(
        GCE.slug, GCE.code, compared,
        notes="CUDA replaced by the CPU; after the refresh the live network is trained, where the released loop trains a copy",
    )  # fmt: skip


if __name__ == "__main__":
    with common.on_cpu():
        main()
