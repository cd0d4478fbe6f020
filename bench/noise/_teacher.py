"""Networks that make labels: trained on true labels, asked for class probabilities, cached by content.

Imported by the kinds that need it when they draw, so that `bench.noise` itself needs no torch. A network is trained with
streams of its own, derived from `network_seed` and not from the cell, so that all seeds, rates and types of a kind share it.
On a CPU the same settings give the same bits; a GPU may differ in the last bit, and so in single labels. What has to be the
same everywhere is exported once (`bench noise export`) and used through `file`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bench.cell import stream_seed
from bench.fields import FieldError
from bench.learner import Learner
from bench.models import build
from bench.noise._base import Labels, NoiseInput, Pixels
from bench.ops import augment
from bench.stages import Built, StageStore
from bench.training import Training

#: images per chunk of a pass over all of them
_CHUNK = 1000


@dataclass(frozen=True)
class Teacher:
    """What is trained and how: slug of a model, `Training` fields, seed of its streams."""

    network: str
    training: dict[str, Any]
    seed: int = 0

    def facts(self) -> dict[str, Any]:
        return {"network": self.network, "training": Training.identity(self.training), "seed": self.seed}


#: called after each epoch with a function that predicts the probabilities [n, K] of the images `index`; True ends training
Stop = Callable[[int, Callable[[Labels], NDArray[np.float32]]], bool]


def train(teacher: Teacher, data: NoiseInput, subset: Labels, stop: Stop) -> None:
    """Train on the true labels of the images `subset` until `stop` says so or the epochs are over."""
    pixels, device = data.need_pixels("such"), torch.device(data.device)
    first = pixels(subset[:1])
    shape = (int(first.shape[1]), int(first.shape[2]), int(first.shape[3]))
    training = Training(**{**teacher.training, "batch_size": min(teacher.training["batch_size"], len(subset))})
    with torch.random.fork_rng(devices=[]):  # initialisers of torch.nn know only the global generator
        torch.default_generator.manual_seed(stream_seed("teacher", "init", teacher.facts()))
        network = build({"name": teacher.network}, shape, data.num_classes)
    learner = Learner(network.to(device), training)
    normalise = _normaliser(data, device)
    labels = torch.as_tensor(data.truth[subset])
    for epoch in range(training.epochs):
        generator = torch.Generator()
        generator.manual_seed(stream_seed("teacher", "epoch", teacher.facts(), epoch))
        learner.start_epoch(epoch)
        for part in torch.randperm(len(subset), generator=generator).split(training.batch_size):
            images = torch.as_tensor(pixels(subset[part.numpy()])).to(device)
            images = augment.crop_flip(images, pad=data.pad, flip=data.flip, generator=generator)
            learner.step(functional.cross_entropy(learner(normalise(images)), labels[part].to(device)))
        if stop(epoch, lambda index: _probabilities(learner, pixels, normalise, index)):
            return


def _normaliser(data: NoiseInput, device: torch.device) -> Callable[[Tensor], Tensor]:
    if data.statistics is None:
        raise FieldError("noise", "the mean and deviation of the pixels are not known here")
    mean, std = (torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1) for values in data.statistics())
    return lambda images: augment.normalise(images, mean, std)


def _probabilities(learner: Learner, pixels: Pixels, normalise: Callable[[Tensor], Tensor], index: Labels) -> NDArray[np.float32]:
    parts = []
    for start in range(0, len(index), _CHUNK):
        images = torch.as_tensor(pixels(index[start : start + _CHUNK])).to(learner.device)
        parts.append(learner.infer(normalise(images)).softmax(dim=1).cpu())
    return torch.cat(parts).numpy()


def cached(data: NoiseInput, facts: dict[str, Any], make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """`make()`, or what an earlier call with the same facts about the same images and true labels kept in `data.cache`.

    Pad, flip and pixel statistics are part of what `train` sees, and data sets with the same pictures differ in them.
    Where several processes want it at once, one makes it and the others wait. A damaged file is made again.
    """
    if data.cache is None:
        return make()
    key = {
        "name": f"noise-{facts['what']}", "noise": facts,
        "images": {"dataset": {"name": data.dataset}, "content": content_hash(data)},
        "preprocessing": {"pad": data.pad, "flip": data.flip, "statistics": data.statistics and data.statistics()},
    }  # fmt: skip

    def build() -> Built:
        return Built({"array": torch.from_numpy(np.ascontiguousarray(make()))})

    return StageStore(data.cache).get(key, build)[0]["array"].numpy()


def content_hash(data: NoiseInput) -> str:
    """SHA-256 over true labels, their number of classes and all pixels, in order."""
    pixels = data.need_pixels("such")
    digest = hashlib.sha256(f"{data.num_classes} ".encode() + data.truth.astype("<i8").tobytes())
    for start in range(0, len(data.labels), _CHUNK):
        part = pixels(np.arange(start, min(start + _CHUNK, len(data.labels))))
        digest.update(str(part.shape[1:]).encode() + np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def check_network(slug: str, kind: str) -> None:
    """Raises `FieldError` unless `slug` names a model."""
    from bench.models import models

    if not slug:
        raise FieldError("network", f"{kind} noise needs the network that makes it", "valid: " + ", ".join(models()))
    if slug not in models():
        from bench.fields import nearest

        raise FieldError("network", f"unknown model {slug!r}", nearest(slug, models()))
