"""Joint Optimization against DaikiTanaka-UT/JointOptimization: python tests/parity/joint_opt.py --reference PATH

The released code is Chainer's; its losses and its update of labels run here on torch, through stand-ins for the few functions
that they use.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import common
import numpy as np
import torch
from torch import Tensor, nn

from methods.joint_opt import JointOpt

common.CLASSES = 10  # as written into the released code
BEGIN, RELABEL, RETRAIN = 11, 14, 6
SETTING = (
    "tiny-cnn, 76 random 1x6x6 images, 10 classes, SGD 0.1, momentum 0.9, batches of 16, plain images, float32; 14 epochs of "
    "relabelling, labels replaced from epoch 11 on, then 6 of retraining at 0.2, 0.02, 0.002"
)
NOTES = "losses and label update are the released ones on stand-ins for Chainer; the optimiser is torch's on both sides"


def softmax(logits: Tensor) -> Tensor:
    probs = logits.softmax(dim=1)
    probs.array = probs.detach()  # type: ignore[attr-defined]
    return probs


#: chainer.functions, as far as the two losses go
FUNCTIONS = SimpleNamespace(
    softmax=softmax, log_softmax=lambda x: x.log_softmax(dim=1), log=torch.log,
    mean=lambda x, axis=None: x.mean() if axis is None else x.mean(dim=axis),
    sum=lambda x, axis=None: x.sum() if axis is None else x.sum(dim=axis), accuracy=lambda logits, labels: None,
)  # fmt: skip
CHAINER = SimpleNamespace(
    Chain=object, dataset=SimpleNamespace(DatasetMixin=object), config=SimpleNamespace(train=True),
    report=lambda values, chain: None,
    cuda=SimpleNamespace(to_gpu=torch.from_numpy, to_cpu=lambda tensor: tensor.numpy()),
)  # fmt: skip


def bare(cls: Any, **attributes: Any) -> Any:
    """An object that no constructor has touched."""
    made = cls.__new__(cls)
    vars(made).update(attributes)
    return made


def relabelling(folder: Any, ours: Any, theirs: common.Released) -> tuple[dict[str, float], Tensor]:
    path = common.reference_file(folder, "first_step_train.py", "6dab800c52")
    released = common.definitions(path, "TrainChain", "TrainData", chainer=CHAINER, F=FUNCTIONS, np=np)
    count, labels = theirs.task.num_samples, theirs.task.labels
    chain = bare(
        released.TrainChain, model=theirs.network, alpha=1.2, beta=0.8, p=np.full(10, 0.1, dtype=np.float32),
        results=np.zeros((count, 10), dtype=np.float32),
    )  # fmt: skip
    data = bare(
        released.TrainData, count=0, args=SimpleNamespace(begin=BEGIN, epoch=-1), labels=labels.numpy(),
        soft_labels=np.eye(10, dtype=np.float32)[labels], prediction=np.zeros((count, 10, 10), dtype=np.float32),
    )  # fmt: skip
    targets = []
    for epoch in range(RELABEL):
        common.train(ours, epoch)

        def loss(network: nn.Module, batch: Any) -> Tensor:
            soft = torch.from_numpy(data.soft_labels)[batch.index]
            return chain(batch.images, batch.labels, soft, batch.index)

        theirs.epoch(epoch, loss)
        data.label_update(chain.results)
        targets.append(common.difference(ours.targets, torch.from_numpy(data.soft_labels)))
    return {
        f"targets after each of {RELABEL} epochs": max(targets),
        "the ring of predictions": common.difference(ours.history, torch.from_numpy(data.prediction)),
        f"weights and batch statistics after {RELABEL} epochs": common.difference(ours.net.network, theirs.network),
    }, torch.from_numpy(data.soft_labels)


def retraining(folder: Any, ours: Any, theirs: common.Released, targets: Tensor) -> dict[str, float]:
    path = common.reference_file(folder, "second_step_train.py", "08f78216b3")
    released = common.definitions(path, "TrainChain", chainer=CHAINER, F=FUNCTIONS)
    chain = bare(released.TrainChain, model=theirs.network)
    for epoch in range(RELABEL, RELABEL + RETRAIN):
        common.train(ours, epoch)
        passed = epoch - RELABEL
        theirs.optimizer.param_groups[0]["lr"] = 0.2 * 0.1 ** sum(passed >= t for t in (int(RETRAIN / 3), int(RETRAIN * 2 / 3)))
        theirs.epoch(epoch, lambda network, batch: chain(batch.images, batch.labels, targets[batch.index]))
    return {
        f"weights and batch statistics after {RETRAIN} epochs of retraining": common.difference(ours.net.network, theirs.network)
    }


def main() -> None:
    folder = common.reference_path(__doc__)
    training = {"epochs": RELABEL + RETRAIN}
    method = JointOpt(relabel_epochs=RELABEL, begin=BEGIN, alpha=1.2, beta=0.8, retrain_lr=0.2)
    ours = common.begun(method, training=training)
    compared, targets = relabelling(folder, ours, common.Released(training=training))
    compared |= retraining(folder, ours, common.Released("b", training=training), targets)
    common.write_result(JointOpt.slug, JointOpt.code, compared, SETTING, notes=NOTES)


if __name__ == "__main__":
    main()
