"""What the conformance battery trains on: a data set and a noise that exist only while it runs, and cells made of them.

The images can be learned, but not entirely: one training sample in eight has a label that its image says nothing about.
No honest method can therefore hold the true labels, whatever it infers, which makes looking for them exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal
from unittest.mock import patch

import numpy as np

from bench.data import Dataset, Loaded, Split, datasets
from bench.fields import Range
from bench.method import Method
from bench.models import model_class
from bench.noise import Labels, NoiseInput, NoiseKind, noise_identity, noises, parse_short
from bench.training import Training
from bench.trial.evaluate import Protocol

CLASSES = 4
TEST_IMAGES = 36
#: epochs of a full run: warm-up, and three more so that state from one late epoch can matter in the next
EPOCHS = 4
#: epochs of a run that only has to survive
SHORT = 2
NOISE = "symmetric@0.5"
_SEED = 20221116


class Miniature(Dataset):
    """`images` training images and 36 for testing, 1x8x8, four classes, two groups that say nothing about the class."""

    slug = "check-miniature"
    title = "Miniature"
    embedded = True
    grouped = True
    num_classes = CLASSES
    confusable = True
    summary = "hidden; the data of `bench check`"

    images: Annotated[int, Range(ge=CLASSES)] = 90
    #: all training images are the same one
    identical: bool = False

    def load(self, root: Path | None) -> Loaded:
        rng = np.random.Generator(np.random.PCG64([_SEED, self.images]))
        prototypes = rng.integers(0, 256, (CLASSES, 1, 8, 8))
        train, test = (self._split(count, prototypes, rng) for count in (self.images, TEST_IMAGES))
        labels = train.labels.copy()
        unknowable = rng.permutation(self.images)[: self.images // 8]
        labels[unknowable] = rng.integers(0, CLASSES, len(unknowable))
        images = np.repeat(train.images[:1], self.images, axis=0) if self.identical else train.images
        return Loaded(
            train=Split(images, labels, train.groups),
            test=test,
            class_names=tuple(f"class {c}" for c in range(CLASSES)),
            group_names=("group 0", "group 1"),
            confusions={c: (c + 1) % CLASSES for c in range(CLASSES)},
        )

    def _split(self, count: int, prototypes: np.ndarray, rng: np.random.Generator) -> Split:
        labels = rng.permutation(np.arange(count) % CLASSES)
        pixels = 0.7 * prototypes[labels] + 0.3 * rng.integers(0, 256, (count, 1, 8, 8))
        return Split(np.round(pixels).astype(np.uint8), labels, rng.integers(0, 2, count))


class Relabel(NoiseKind):
    """Given labels that lack the last class, or that are all the same."""

    slug = "check-relabel"
    summary = "hidden; the odd labels of `bench check`"
    short_field = ""

    given: Literal["missing", "equal"] = "missing"

    def definition(self) -> str:
        return "all labels are 0" if self.given == "equal" else "labels of the last class become 0"

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        if self.given == "equal":
            return np.zeros_like(data.labels)
        return np.where(data.labels == data.num_classes - 1, 0, data.labels)


@contextmanager
def registered() -> Iterator[None]:
    """Make the two known by name, as `run_cell` looks them up, and forget them again."""
    with patch.dict(datasets(), {Miniature.slug: Miniature}), patch.dict(noises(), {Relabel.slug: Relabel}):
        yield


def make_cell(
    cls: type[Method],
    params: Mapping[str, Any],
    *,
    data: Mapping[str, Any] | None = None,
    noise: str | dict[str, Any] = NOISE,
    training: Mapping[str, Any] | None = None,
    val_fraction: float = 0.15,
    seed: int = 0,
) -> dict[str, Any]:
    """A cell of `cls` on the miniature; only inside `registered()`. Raises `FieldError` for unknown `params`.

    The defaults leave 76 training and 14 validation images, five batches per epoch, and a learning rate that changes.
    """
    settings = {
        "epochs": EPOCHS, "batch_size": 16, "lr": 0.05, "schedule": "multistep", "milestones": (2,), **(training or {}),
    }  # fmt: skip
    return {
        "dataset": {"name": Miniature.slug, "revision": Miniature.revision, **Miniature.identity(data or {})},
        "noise": noise_identity(parse_short(noise) if isinstance(noise, str) else noise),
        "method": {"name": cls.slug, "version": cls.version, "params": cls.identity(params)},
        "model": {"name": "tiny-cnn", **model_class("tiny-cnn").identity({"widths": (8, 8)})},
        "training": Training.identity(settings),
        "protocol": Protocol.identity({"val_fraction": val_fraction, "last_k": 2}),
        "seed": seed,
    }
