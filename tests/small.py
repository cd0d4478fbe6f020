"""Small tasks and cells that several test files share."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bench.data import dataset_class
from bench.learner import Learner
from bench.method import Method, method_class
from bench.noise import noise_identity, parse_short
from bench.ops.mixtures import clean_posterior
from bench.training import Training
from bench.trial.evaluate import Protocol
from bench.trial.images import ResidentImages, ViewSettings
from bench.trial.task import Task

TINY_CNN: dict[str, Any] = {"name": "tiny-cnn", "widths": [4, 8]}
MLP: dict[str, Any] = {"name": "mlp", "widths": [16]}


def pixels(count: int, *, size: int = 6, channels: int = 1, seed: int = 0) -> Tensor:
    """Random uint8 images [count, channels, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)


def make_task(
    labels: Tensor,
    *,
    images: Tensor | None = None,
    num_classes: int = 3,
    training: Mapping[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    pad: int = 1,
    flip: bool = False,
    seed: int = 0,
    method: str = "some-method",
    needs: frozenset[str] = frozenset(),
    granted: Mapping[str, Any] | None = None,
    **rest: Any,
) -> Task:
    """A task on random images that no test knows; start its epoch before iterating."""
    images = pixels(len(labels)) if images is None else images
    channels = images.shape[1]
    settings = Training(**{"epochs": 4, **(training or {})})
    views = ViewSettings(pad, flip, (0.5,) * channels, (0.25,) * channels, crops=settings.augment == "crop-flip")
    return Task(
        images=ResidentImages(images, views), labels=labels, num_classes=num_classes, training=settings,
        model=model or TINY_CNN, axes={"dataset": {"name": "random"}, "seed": seed}, method_name=method, needs=needs,
        granted=dict(granted or {}), **rest,
    )  # fmt: skip


def plain_images(task: Task) -> Tensor:
    """All training images of a task, normalised, in index order."""
    return torch.cat(list(task.plain_images()))


def start(method: Method, task: Task, epoch: int = 0) -> Any:
    """What the harness does before the first epoch."""
    method.task = task
    method.setup(task)
    task.start_epoch(epoch)
    return method


def make_cell(
    method: str | type[Method] = "erm",
    params: Mapping[str, Any] | None = None,
    *,
    dataset: str = "digits",
    noise: str | dict[str, Any] = "symmetric@0.5",
    model: dict[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """A resolved cell of two short epochs."""
    cls = method_class(method) if isinstance(method, str) else method
    data = dataset_class(dataset)
    return {
        "dataset": {"name": dataset, "revision": data.revision, **data.identity({})},
        "noise": noise_identity(parse_short(noise) if isinstance(noise, str) else noise),
        "method": {"name": cls.slug, "version": cls.version, "params": cls.identity(params or {})},
        "model": model or TINY_CNN,
        "training": Training.identity({"epochs": 2, "batch_size": 128, **(training or {})}),
        "protocol": Protocol.identity(protocol or {}),
        "seed": seed,
    }


class Table:
    """Stands for a learner: the logits of a sample are a row of `rows`, so every loss and gradient can be worked out.

    It goes with `table_task`, whose images carry their index. `calls` lists (what, indices); `steps` holds, for each
    step, the loss and its gradient with respect to all rows.
    """

    def __init__(self, rows: Tensor, features: Tensor | None = None, lr: float = 0.0) -> None:
        self.rows = rows.clone().float().requires_grad_()
        self.table = features
        self.lr = lr
        self.calls: list[tuple[str, list[int]]] = []
        self.steps: list[tuple[float, Tensor]] = []

    def __call__(self, images: Tensor) -> Tensor:
        what = "forward" if torch.is_grad_enabled() else "guess"
        return self.rows[self._index(what, images)]

    def infer(self, images: Tensor) -> Tensor:
        return self.rows.detach()[self._index("infer", images)]

    def features(self, images: Tensor) -> Tensor:
        assert self.table is not None
        return self.table[self._index("features", images)]

    def step(self, loss: Tensor, *others: Table, skip: Tensor | None = None) -> None:
        tables = (self, *others)
        gradients = torch.autograd.grad(loss, [table.rows for table in tables])
        if skip is not None and bool(skip):
            return
        for table, gradient in zip(tables, gradients, strict=True):
            table.steps.append((float(loss.detach()), gradient))
            with torch.no_grad():
                table.rows -= table.lr * gradient

    def _index(self, what: str, images: Tensor) -> Tensor:
        index = ((images.flatten(1)[:, 0] * 0.25 + 0.5) * 255).round().long()
        self.calls.append((what, index.tolist()))
        return index


def table_task(labels: Tensor, nets: Mapping[str, Table], **settings: Any) -> Task:
    """A task whose one-pixel images carry their index, without augmentation, with the given learners."""
    count = len(labels)
    training = {"augment": "none", "batch_size": count, **settings.pop("training", {})}
    images = torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1)
    task = make_task(labels, images=images, training=training, **settings)
    task.learner = lambda name="a": nets[name]  # type: ignore[method-assign,assignment]
    return task


def logits_of(losses: list[float]) -> Tensor:
    """Two-class logits [N, 2] whose cross-entropy with label 0 is as given."""
    p = torch.exp(-torch.tensor(losses, dtype=torch.float64))
    return torch.stack([p, 1 - p], dim=1).log().float()


def table(count: int, classes: int = 3, seed: int = 0, **settings: Any) -> Table:
    return Table(torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)), **settings)


def rows_with_gradient(gradient: Tensor) -> list[int]:
    return torch.nonzero(gradient.abs().sum(dim=1))[:, 0].tolist()


def fitted(monkeypatch: Any, module: Any) -> list[tuple[Tensor, dict[str, Any]]]:
    """What a method's module will ask of the mixture: values and settings."""
    asked: list[tuple[Tensor, dict[str, Any]]] = []

    def record(values: Tensor, **settings: Any) -> Any:
        asked.append((values, settings))
        return clean_posterior(values, **settings)

    monkeypatch.setattr(module, "clean_posterior", record)
    return asked


def real(method: Method, count: int, size: int, **training: Any) -> Any:
    """A method with real networks on random images, in epoch 1."""
    return start(method, make_task(torch.arange(count) % 3, training={"batch_size": size, **training}), 1)


def snapshot(net: Learner) -> dict[str, Tensor]:
    return copy.deepcopy(net.network.state_dict())


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)
