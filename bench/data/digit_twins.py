"""Embedded counterparts of CIFAR-100 and of data collected on the web, both made of scikit-learn's digits."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.data import Dataset, Loaded, Split
from bench.data.digits import _COMPOSITION_SEED, LOOK_ALIKES, _fold, _sklearn_digits

TINTS = 10


class TintedDigits(Dataset):
    """Ten digits in ten tints: 100 classes of some 14 images, class = 10 * digit + tint, superclass = digit.

    A tint is a hue with a jitter of a third of the distance to the next one, in varying saturation and brightness. Every
    training digit is shown once, every test digit in two tints. The confusable class is the next tint of the same digit.
    """

    slug = "tinted-digits"
    title = "Tinted-Digits"
    embedded = True
    num_classes = 10 * TINTS
    confusable = True
    confusions: ClassVar[dict[int, int]] = {c: c - c % TINTS + (c + 1) % TINTS for c in range(10 * TINTS)}
    superclasses: ClassVar[tuple[int, ...]] = tuple(c // TINTS for c in range(10 * TINTS))
    summary = "the digits in ten tints, 3x8x8, 100 classes in 10 superclasses, 14 images a class; counterpart of CIFAR-100"

    def load(self, root: Path | None) -> Loaded:
        images, digits = _sklearn_digits()
        test = _fold(digits) == 4
        rng = np.random.Generator(np.random.PCG64(_COMPOSITION_SEED))
        train = self._tinted(images[~test], digits[~test], 0, rng)
        shown = [self._tinted(images[test], digits[test], offset, rng) for offset in (0, TINTS // 2)]
        return Loaded(
            train=train,
            test=Split(np.concatenate([part.images for part in shown]), np.concatenate([part.labels for part in shown])),
            class_names=tuple(f"{digit}/{tint}" for digit in range(10) for tint in range(TINTS)),
            confusions=dict(self.confusions),
            superclasses=self.superclasses,
            coarse_labels=train.labels // TINTS,
        )

    def _tinted(self, images: NDArray[np.float64], digits: NDArray[np.int64], offset: int, rng: np.random.Generator) -> Split:
        """The tints of a digit take turns, so that classes are equally large; `offset` is added to the turn."""
        tint = (_fold(digits, TINTS) + offset) % TINTS
        hue = (tint + rng.uniform(-1 / 3, 1 / 3, len(tint))) / TINTS
        colour = 1 - rng.uniform(0.6, 1.0, (len(tint), 1)) * (1 - _hues(hue))
        colour *= rng.uniform(0.7, 1.0, (len(tint), 1))
        pixels = images[:, None] / 16.0 * colour[:, :, None, None]
        return Split(np.round(255.0 * pixels).astype(np.uint8), TINTS * digits + tint)


class WebDigits(Dataset):
    """Digits with the labels of a search that confuses what looks alike: counterpart of WebVision-50 and Clothing1M.

    The fifth of the training images that lie least clearly nearer to their own class's mean than to another's carry the label of
    that other class. The true labels count as unknown. The second test set shows the test digits paler and with
    grain; the top five classes are asked for too.
    """

    slug = "web-digits"
    title = "Web-Digits"
    pictures = "digits"
    embedded = True
    truth_known = False
    num_classes = 10
    confusable = True
    summary = "the digits with 20 % look-alike labels, truth unknown; two test sets, top-1/5; counterpart of WebVision-50"

    def load(self, root: Path | None) -> Loaded:
        images, labels = _sklearn_digits()
        test = _fold(labels) == 4
        rng = np.random.Generator(np.random.PCG64(_COMPOSITION_SEED))
        other = images[test] * 0.7 + rng.normal(0.0, 1.5, images[test].shape)
        return Loaded(
            train=Split(_bytes(images[~test]), _searched(images[~test], labels[~test])),
            test=Split(_bytes(images[test]), labels[test]),
            test2=Split(_bytes(other), labels[test]),
            test2_name="other scanner",
            top_k=(1, 5),
            class_names=tuple(str(digit) for digit in range(10)),
            confusions=dict(LOOK_ALIKES),
            true_labels_known=self.truth_known,
        )


def _searched(images: NDArray[np.float64], labels: NDArray[np.int64], share: float = 0.2) -> NDArray[np.int64]:
    means = np.stack([images[labels == digit].mean(axis=0).ravel() for digit in range(10)])
    distance = np.linalg.norm(images.reshape(len(images), 1, -1) - means, axis=2)
    own = distance[np.arange(len(labels)), labels]
    distance[np.arange(len(labels)), labels] = np.inf
    wrong = np.argsort(distance.min(axis=1) - own, kind="stable")[: round(share * len(labels))]
    given = labels.copy()
    given[wrong] = distance[wrong].argmin(axis=1)
    return given


def _bytes(images: NDArray[np.float64]) -> NDArray[np.uint8]:
    """[N, 8, 8] in 0..16 to uint8 [N, 1, 8, 8]."""
    return np.round(np.clip(images, 0.0, 16.0) * (255.0 / 16.0)).astype(np.uint8)[:, None]


def _hues(hue: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hues [N], in turns, as full colours [N, 3] in [0, 1]."""
    return np.clip(np.abs((hue[:, None] + np.array([0.0, 2 / 3, 1 / 3])) % 1.0 * 6.0 - 3.0) - 1.0, 0.0, 1.0)
