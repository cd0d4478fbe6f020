"""mixup against facebookresearch/mixup-cifar10: python tests/parity/mixup.py --reference PATH"""

from __future__ import annotations

from types import SimpleNamespace

import common
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.ops.mixing import beta_mix_coefficient
from bench.trial.task import Batch
from methods.mixup import Mixup


def main() -> None:
    path = common.reference_file(common.reference_path(__doc__), "train.py", "7f3bad7f57")
    drawn = SimpleNamespace(share=1.0, order=torch.arange(0))
    released = common.definitions(
        path, "mixup_data", "mixup_criterion",
        np=SimpleNamespace(random=SimpleNamespace(beta=lambda a, b: drawn.share)),
        torch=SimpleNamespace(randperm=lambda count: drawn.order),
    )  # fmt: skip

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        """Their step, with the coefficient and the pairing that ours draws."""
        generator = theirs.task.generator()
        drawn.share = float(beta_mix_coefficient(alpha, generator=generator))
        drawn.order = torch.randperm(len(batch), generator=generator)
        mixed, own, partners, share = released.mixup_data(batch.images, batch.labels, alpha, use_cuda=False)
        value = released.mixup_criterion(F.cross_entropy, network(mixed), own, partners, share)
        values.append(float(value))
        return value

    compared = {}
    for alpha in (1.0, 32.0):
        ours, theirs = common.begun(Mixup(alpha=alpha)), common.Released()
        for epoch in range(3):
            values: list[float] = []
            common.train(ours, epoch)
            theirs.epoch(epoch, loss)
        mean = ours.task.epoch_log()["train_loss"]
        compared[f"mean loss of the third epoch, alpha {alpha:g}"] = common.difference(mean, sum(values) / len(values))
        compared[f"weights and batch statistics after 3 epochs, alpha {alpha:g}"] = common.difference(
            ours.net.network, theirs.network
        )
    notes = "mixing coefficients and pairings of ours, where coefficients are folded, given to both"
    common.write_result(Mixup.slug, Mixup.code, compared, notes=notes)


if __name__ == "__main__":
    main()
