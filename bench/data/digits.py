"""The embedded data sets: real handwritten digits that ship inside scikit-learn.

`digits` is scikit-learn's 1 797 images of 8x8 pixels (the test part of the UCI "Optical Recognition of Handwritten
Digits" set). `spurious-digits` composes the same digits on two kinds of wave texture so that the background predicts the
label in training but not in test: the small counterpart of Waterbirds (Sagawa et al., 2020).
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.data import DataError, Dataset, Loaded, Split
from bench.fields import Range

#: digits that look alike, as in the MNIST experiments of Patrini et al. (2017): 7->1, 2->7, 3->8, 5<->6
LOOK_ALIKES = {7: 1, 2: 7, 3: 8, 5: 6, 6: 5}
_LOOPS = (0, 6, 8, 9)  # digits with a closed loop
_COMPOSITION_SEED = 20221116


def _sklearn_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Images float64 [1797, 8, 8] in 0..16 and labels, from the file that scikit-learn ships.

    Read directly where it stands: importing `sklearn.datasets` for it costs every worker process some seconds.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("the embedded digits ship inside scikit-learn, which is not installed: pip install scikit-learn")
    path = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    if path.exists():
        with gzip.open(path, "rt") as file:
            table = np.loadtxt(file, delimiter=",")
        return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits  # a version that keeps its data elsewhere

    bunch = load_digits()
    return bunch.images, bunch.target.astype(np.int64)


def _fold(labels: NDArray[np.int64], parts: int = 5) -> NDArray[np.int64]:
    """Position of each sample within its class, modulo `parts`: a stratified split that needs no random numbers."""
    fold = np.empty(len(labels), dtype=np.int64)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        fold[members] = np.arange(len(members)) % parts
    return fold


class Digits(Dataset):
    """1 797 images 1x8x8, ten classes; every fifth image of each class is test (1 442 / 355)."""

    slug = "digits"
    title = "Digits"
    embedded = True
    num_classes = 10
    confusable = True
    summary = "scikit-learn's 1 797 handwritten digits, 1x8x8, 10 classes; ships with scikit-learn"

    def load(self, root: Path | None) -> Loaded:
        images, labels = _sklearn_digits()
        pixels = np.round(images * (255.0 / 16.0)).astype(np.uint8)[:, None]
        test = _fold(labels) == 4
        return Loaded(
            train=Split(pixels[~test], labels[~test]),
            test=Split(pixels[test], labels[test]),
            class_names=tuple(str(digit) for digit in range(10)),
            confusions=dict(LOOK_ALIKES),
        )


class SpuriousDigits(Dataset):
    """'Has the digit a loop?' on a background that agrees with the answer in 95 % of the training images.

    Groups are 2 * label + background. Training follows `correlation`; validation and test show every digit on both
    backgrounds, so that within a class the two groups are equally large. All labels of validation are true labels.
    """

    slug = "spurious-digits"
    title = "Spurious-Digits"
    embedded = True
    grouped = True
    num_classes = 2
    confusable = True
    summary = "the same digits on correlated wave textures, 3x16x16, 2 classes, 4 groups; counterpart of Waterbirds"

    #: share of training images whose background agrees with the label
    correlation: Annotated[float, Range(ge=0.5, le=1)] = 0.95
    #: amplitude of the texture against the digit's: the difficulty of looking past the background
    contrast: Annotated[float, Range(ge=0, le=1)] = 0.4
    #: pictures made of each training digit, each on a texture of its own
    copies: Annotated[int, Range(ge=1)] = 2
    _groups: ClassVar[tuple[str, ...]] = ("no loop/rows", "no loop/columns", "loop/rows", "loop/columns")

    def load(self, root: Path | None) -> Loaded:
        images, digits = _sklearn_digits()
        labels = np.isin(digits, _LOOPS).astype(np.int64)
        fold = _fold(digits)
        rng = np.random.Generator(np.random.PCG64(_COMPOSITION_SEED))
        large = _enlarge(images / 16.0)

        train = np.repeat(np.flatnonzero(fold < 3), self.copies)
        agree = np.ones(len(train), dtype=bool)
        for label in (0, 1):  # an exact share within each class
            members = np.flatnonzero(labels[train] == label)
            agree[rng.permutation(members)[: len(members) - round(self.correlation * len(members))]] = False
        background = np.where(agree, labels[train], 1 - labels[train])
        splits = [self._compose(large[train], labels[train], background, rng)]
        for part in (3, 4):
            chosen = np.repeat(np.flatnonzero(fold == part), 2)
            both = np.tile(np.array([0, 1]), len(chosen) // 2)
            splits.append(self._compose(large[chosen], labels[chosen], both, rng))
        return Loaded(
            train=splits[0],
            val=splits[1],
            test=splits[2],
            class_names=("no loop", "loop"),
            group_names=self._groups,
            confusions={0: 1, 1: 0},
        )

    def _compose(
        self, digits: NDArray[np.float64], labels: NDArray[np.int64], background: NDArray[np.int64], rng: np.random.Generator
    ) -> Split:
        texture = _waves(background, digits.shape[-1] + 2, rng) * self.contrast
        canvas = np.zeros((len(digits), 1, 16, 16))
        canvas[:, 0, 1:15, 1:15] = digits
        # The digit is painted over the texture: where ink is full nothing of the background shows.
        pixels = texture * (1.0 - canvas) + canvas
        images = np.round(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)
        return Split(images, labels, 2 * labels + background)


def _enlarge(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N, 8, 8] to [N, 14, 14], bilinear, corners aligned."""
    position = np.linspace(0.0, 7.0, 14)
    low = np.minimum(position.astype(int), 6)
    share = position - low
    rows = images[:, low] * (1 - share)[None, :, None] + images[:, low + 1] * share[None, :, None]
    return rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share


def _waves(kind: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """[N, 3, size, size] in [0, 1]: waves that run across rows (kind 0) or across columns (kind 1).

    Frequency, phase, tilt and colour vary from image to image; only the direction tells the two kinds apart, so the
    background has to be seen as a texture and no average of pixels gives it away.
    """
    count = len(kind)
    frequency = rng.uniform(0.8, 1.6, count)
    phase = rng.uniform(0.0, 2 * np.pi, count)
    tilt = rng.uniform(-0.35, 0.35, count)
    colour = rng.uniform(0.4, 1.0, (count, 3))
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    along = np.where(kind[:, None, None] == 0, rows + tilt[:, None, None] * columns, columns + tilt[:, None, None] * rows)
    wave = 0.5 + 0.5 * np.sin(frequency[:, None, None] * along + phase[:, None, None])
    return colour[:, :, None, None] * wave[:, None]
