"""What forward.py and backward.py share: both against giorgiop/loss-correction (Keras)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common
import numpy as np
import torch
from keras_on_torch import on_logits, stubs
from torch import Tensor, nn

from methods.forward import Forward

#: rows are true classes
GIVEN = torch.tensor([[0.7, 0.3, 0.0, 0.0], [0.1, 0.8, 0.05, 0.05], [0.0, 0.0, 0.9, 0.1], [0.2, 0.0, 0.2, 0.6]])


class NumPy:
    """The keyword that new versions of NumPy have renamed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def percentile(values: Any, q: float, interpolation: str) -> Any:
        return np.percentile(values, q, method=interpolation)


def estimated(folder: Path, probs: Tensor, shrinkage: float, *, filtered: bool) -> Tensor:
    """T as the released estimator finds it on predictions [N, C]. Its filter writes into `values`, which matters nowhere here."""
    path = common.reference_file(folder, "models.py", "31697ebc46")
    estimator = common.definitions(path, "NoiseEstimator", np=NumPy()).NoiseEstimator
    values = probs.double().numpy().copy()
    classifier = SimpleNamespace(classes=probs.shape[1], predict_proba=lambda images: values)
    found = estimator(classifier, alpha=shrinkage, filter_outlier=filtered).fit(None).predict()
    return torch.as_tensor(found).float()


@torch.no_grad()
def predictions(network: nn.Module, task: Any) -> Tensor:
    network.eval()
    return torch.cat([network(images) for images in task.plain_images()]).softmax(dim=1)


def compare(cls: type[Forward], loss_of: Any, cases: tuple[tuple[float | None, float], ...]) -> None:
    """`loss_of(logits, labels, transition)` is our loss per sample; `cases` are (percentile, shrinkage) of estimates."""
    folder = common.reference_path(cls.__doc__)
    path = common.reference_file(folder, "loss.py", "ffbe98d004")
    released = common.module(path, stubs())
    corrected = lambda transition: on_logits(released.robust(cls.slug, transition.double().numpy()))  # noqa: E731
    plain = on_logits(released.crossentropy)
    logits, labels = common.some_logits()
    each = corrected(GIVEN)(logits, labels)
    compared = {"losses per sample, T given": common.difference(loss_of(logits, labels, GIVEN), each)}

    needs = {"needs": frozenset({"transition_matrix"}), "granted": {"transition_matrix": GIVEN}}
    ours, theirs = common.begun(cls(transition="given"), **needs), common.Released()
    for epoch in range(3):
        common.train(ours, epoch)
        theirs.epoch(epoch, lambda network, batch: corrected(GIVEN)(network(batch.images), batch.labels).mean())
    compared["weights and batch statistics after 3 epochs, T given"] = common.difference(ours.net.network, theirs.network)

    for percentile, shrinkage in cases:
        settings, filtered = {"training": {"epochs": 6}}, percentile is not None
        ours = common.begun(cls(percentile=percentile, shrinkage=shrinkage), **settings)
        first, second = common.Released(**settings), common.Released(**settings)
        for epoch in range(3):
            common.train(ours, epoch)
            first.epoch(epoch, lambda network, batch: plain(network(batch.images), batch.labels).mean())
        probs = predictions(first.network, first.task)
        found = estimated(folder, probs, shrinkage, filtered=filtered)
        for epoch in range(3, 6):
            common.train(ours, epoch)
            second.epoch(epoch, lambda network, batch, found=found: corrected(found)(network(batch.images), batch.labels).mean())
        name = f"{'filtered' if filtered else 'not filtered'}, shrinkage {shrinkage:g}"
        compared[f"estimated T after 3 epochs, {name}"] = common.difference(ours.matrix, found)
        compared[f"weights of the second stage after 3 + 3 epochs, {name}"] = common.difference(
            ours.net.network, second.network
        )
    common.write_result(cls.slug, cls.code, compared, notes="Keras backend replaced by torch, epsilon 1e-7")
