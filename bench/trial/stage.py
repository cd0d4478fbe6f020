"""A stage: expensive work of a method that needs no labels, built once for all cells that it is the same for.

`task.stage(name, key, build)` hands `build` a `Stage`: images, views, networks and random streams, but no labels and nothing
privileged. Everything that decides the result is in the stage's key (`bench.stages` holds what was built under it): what the
method passes, the images and model, and code, library and machine as far as they decide bits. Random streams come from
the first three, so cells of other seeds, noises and methods share a stage wherever they see the same images.
"""

from __future__ import annotations

import copy
import json
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from bench import provenance
from bench.cell import canonical_json
from bench.learner import Average, Learner, Passes
from bench.models import model_class
from bench.stages import Built, address, content_of
from bench.training import Training
from bench.trial.evaluate import Diverged
from bench.trial.task import Batch, NeedError, Task

Tensors = dict[str, Tensor]
Extra = Callable[[int], Mapping[str, nn.Module]]


class UnlabelledBatch(Batch):
    """Some training samples: `index` int64 [B] and `views`, images [B, C, H, W] each; asking for `labels` raises."""

    __slots__ = ()

    def __init__(self, index: Tensor, views: tuple[Tensor, ...]) -> None:
        self.index, self.views = index, views

    @property
    def labels(self) -> NoReturn:  # type: ignore[override]
        raise NeedError("a stage is label-free: its batches have no labels")


class Stage:
    """What `build` works with. `key` is the method's part of the key as JSON values, `inputs` the earlier stages it uses.

    `training` are the `Training` fields in `key["training"]` over that class's defaults (not over the cell's), of every
    learner that is not given others; its `augment` decides what the weak view is. `generator(name)` (a CPU stream of this
    epoch), `plain_images()`, `logits(net)` and `features(net)` are those of a task.
    """

    def __init__(self, task: Task, name: str, key: dict[str, Any], streams: str) -> None:
        self.name, self.key = name, key
        self.inputs: dict[str, Tensors] = {}
        self.training = Training(**key.get("training", {}))
        self.device, self.num_samples, self.num_classes = task.device, task.num_samples, task.num_classes
        images = copy.copy(task._images)
        images.settings = replace(images.settings, crops=self.training.augment == "crop-flip")
        nothing = torch.zeros(self.num_samples, dtype=torch.int64, device=self.device)
        self._task = Task(
            images=images, labels=nothing, num_classes=self.num_classes, training=self.training, model=task._model,
            axes={"stage": streams}, method_name="", needs=frozenset(), granted={}, engine=task._engine, weights=task._weights,
        )  # fmt: skip
        self._task.warnings, self._task._deadline, self._task._time_limit = task.warnings, task._deadline, task._time_limit
        self.generator, self.plain_images = self._task.generator, self._task.plain_images
        self.logits, self.features = self._task.logits, self._task.features
        self._networks: list[Passes] = []

    def __getattr__(self, name: str) -> NoReturn:
        if hasattr(Task, name) or name == "labels":
            raise NeedError(f"a stage is label-free and has no {name}")
        raise AttributeError(f"a stage has no attribute {name!r}")

    def learner(self, name: str = "a", extra: Extra | None = None, training: Mapping[str, Any] | None = None) -> Learner:
        """As `task.learner`; `training` replaces single fields of the stage's for this network (one with its own rate)."""
        own = self.training if training is None else Training(**{**vars(self.training), **training})
        learner = self._task._learner(name, extra, own)
        self._networks.append(learner)
        return learner

    def average(self, learner: Learner, name: str | None = None) -> Average:
        """As `task.average`: a momentum encoder."""
        average = self._task.average(learner, name)
        self._networks.append(average)
        return average

    def epochs(self) -> Iterator[int]:
        """The epochs of `training`, each begun as by `start_epoch`."""
        for epoch in range(self.training.epochs):
            self.start_epoch(epoch)
            yield epoch

    def start_epoch(self, epoch: int) -> None:
        """Begin an epoch: new streams, the learners' rates. Raises `TimeLimit`."""
        self._task._check_deadline()
        self._task.start_epoch(epoch)

    def batches(self, views: tuple[str, ...] = ("weak",), **how: Any) -> Iterator[UnlabelledBatch]:
        """As `task.batches` (`indices`, `batch_size`, `shuffle`), without labels, over all training samples."""
        for batch in self._task.batches(views, **how):
            yield UnlabelledBatch(batch.index, batch.views)

    def build(self, function: Callable[[Stage], Tensors]) -> Built:
        """Run `function`, for the harness. Raises `Diverged` when a tensor that it returns is not finite."""
        with self._task.layer_randomness():
            made = function(self)
        for label, value in made.items() if isinstance(made, Mapping) else ():
            if isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all()):
                raise Diverged(f"stage {self.name!r}: {label} is not finite")
        images = [(net.forward_images, net.backward_images) for net in self._networks]
        return Built(made, sum(forward for forward, _ in images), sum(backward for _, backward in images))


def run(
    task: Task, name: str, key: Mapping[str, Any], build: Callable[[Stage], Tensors],
    inputs: Mapping[str, Tensors], per_seed: bool,
) -> Tensors:  # fmt: skip
    """See `Task.stage`."""
    _check_function(name, build)
    text = canonical_json(dict(key))
    decided = {
        "name": name, "method": json.loads(text), "images": task._samples, "model": task._model,
        "views": {"shape": list(task._images.shape), "pad": task._images.settings.pad, "flip": task._images.settings.flip},
        "inputs": {label: _input(task, label, tensors) for label, tensors in inputs.items()},
    }  # fmt: skip
    if per_seed:
        decided["seed"] = task._axes["seed"]
    stage = Stage(task, name, json.loads(text), address(decided))  # what is built sees what is hashed: lists for tuples

    def make() -> Built:
        stage.inputs = {label: {part: value.clone() for part, value in made.items()} for label, made in inputs.items()}
        with task._label_free(name):
            return stage.build(build)

    tensors, info = task._store.get(
        {**decided, "bits": _bits(task, build)}, make, warn=task._warn, waiting=task._check_deadline
    )
    task.stages.append(info)
    return {label: tensor.to(task.device) for label, tensor in tensors.items()}


def _check_function(name: str, build: Any) -> None:
    plain = isinstance(build, types.FunctionType) and not (build.__closure__ or build.__defaults__ or build.__kwdefaults__)
    if not plain:
        raise TypeError(
            f"stage {name!r} is built by a plain function of a stage, defined at module level or as a staticmethod: what it "
            "took from elsewhere (self, surrounding variables) would not be in its key; pass such values in `key`"
        )


def _input(task: Task, label: str, tensors: Tensors) -> str:
    content = content_of(tensors)
    if content not in {info.content for info in task.stages}:
        raise NeedError(f"the input {label!r} is not what an earlier stage returned; a stage is label-free, and so is its input")
    return content


def _bits(task: Task, build: Callable[..., Any]) -> dict[str, Any]:
    """What moves bits and not meaning: code, torch, engine, and the machine where the same bits are promised."""
    files = [build.__code__.co_filename, __file__, sys.modules[model_class(task._model["name"]).__module__].__file__ or ""]
    facts = provenance.describe(task.device, "", Path(files[0]).resolve())
    machine: dict[str, Any] = {"type": task.device.type}
    if task.device.type == "cpu":
        machine |= {"name": facts["device"], "threads": torch.get_num_threads()}
    elif task._engine.deterministic:
        machine |= {"name": facts["device"]}
    code = [provenance.code_fingerprint(Path(file).resolve()) for file in files]
    return {"code": code, "torch": facts["torch"], "engine": task._engine.describe(), "device": machine}
