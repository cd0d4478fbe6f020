"""CIFAR-10N and CIFAR-100N (Wei et al., ICLR 2022): CIFAR's own images under labels that people gave.

Training labels are delivered as people gave them (`given_labels`); the true ones are CIFAR's, and so are the test sets.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from bench.data import Finding, Loaded, Split
from bench.data._cifar_n import HUMAN_SETS, HumanSet, human_labels
from bench.data._cifar_tables import COARSE_NAMES, SUPERCLASSES
from bench.data.cifar import Cifar10, Cifar100


def _with_human_labels(data: Loaded, human: HumanSet, root: Path | None) -> Loaded:
    """`data` under human labels; the notes of both are kept, and still found only when they are asked for."""
    given = human_labels(human, data.train.labels, root)
    return dataclasses.replace(
        data,
        given_labels=given.labels,
        canonical=lambda: given.canonical and data.canonical,  # type: ignore[arg-type]
        notes=lambda: (*given.notes, *data.notes),  # type: ignore[arg-type]
    )


def _official(human: HumanSet) -> Finding:
    rate = human.wrong / human.size
    text = f"official: {human.wrong:,} of {human.size:,} given labels are wrong, {rate:.2%}"
    return Finding(True, text, {"official_given": {"wrong": human.wrong, "rate": rate}})


class _Human10(Cifar10):
    _human: ClassVar[HumanSet]

    pictures = "cifar10"
    summary = "CIFAR-10 under human labels"
    layout = f"{Cifar10.layout} and cifar-n/CIFAR-10_human.pt"

    def load(self, root: Path | None) -> Loaded:
        return _with_human_labels(super().load(root), self._human, root)

    def check(self, root: Path | None) -> list[Finding]:
        return [*super().check(root), _official(self._human)]


class Cifar10nAggre(_Human10):
    """The majority of three annotators: 9.01 % wrong."""

    slug = "cifar10n-aggre"
    title = "CIFAR-10N aggre"
    summary = "CIFAR-10 under the majority of three annotators, 9.01 % wrong"
    _human = HUMAN_SETS["aggre"]


class Cifar10nRandom1(_Human10):
    """The first annotator: 17.23 % wrong."""

    slug = "cifar10n-random1"
    title = "CIFAR-10N random 1"
    summary = "CIFAR-10 under the labels of the first annotator, 17.23 % wrong"
    _human = HUMAN_SETS["random1"]


class Cifar10nRandom2(_Human10):
    """The second annotator: 18.12 % wrong."""

    slug = "cifar10n-random2"
    title = "CIFAR-10N random 2"
    summary = "CIFAR-10 under the labels of the second annotator, 18.12 % wrong"
    _human = HUMAN_SETS["random2"]


class Cifar10nRandom3(_Human10):
    """The third annotator: 17.64 % wrong."""

    slug = "cifar10n-random3"
    title = "CIFAR-10N random 3"
    summary = "CIFAR-10 under the labels of the third annotator, 17.64 % wrong"
    _human = HUMAN_SETS["random3"]


class Cifar10nWorse(_Human10):
    """A wrong answer wherever one of the three annotators gave one: 40.21 % wrong."""

    slug = "cifar10n-worse"
    title = "CIFAR-10N worse"
    summary = "CIFAR-10 under a wrong label wherever one of three annotators gave one, 40.21 % wrong"
    _human = HUMAN_SETS["worse"]


class Cifar100nFine(Cifar100):
    """One annotator, 100 fine classes: 40.20 % wrong."""

    slug = "cifar100n-fine"
    title = "CIFAR-100N fine"
    pictures = "cifar100"
    summary = "CIFAR-100 under one annotator's fine labels, 40.20 % wrong"
    layout = f"{Cifar100.layout} and cifar-n/CIFAR-100_human.pt"
    _human: ClassVar[HumanSet] = HUMAN_SETS["fine"]

    normalisation: Literal["dividemix", "elr", "none"] = "elr"  # what the authors of the labels use

    def load(self, root: Path | None) -> Loaded:
        return _with_human_labels(self._task(super().load(root)), self._human, root)

    def check(self, root: Path | None) -> list[Finding]:
        return [*super().check(root), _official(self._human)]

    def _task(self, data: Loaded) -> Loaded:
        """The classes that are learned."""
        return data


class Cifar100nCoarse(Cifar100nFine):
    """The superclasses of the fine human labels, 20 classes: 26.40 % wrong."""

    slug = "cifar100n-coarse"
    title = "CIFAR-100N coarse"
    summary = "CIFAR-100's 20 superclasses under one annotator's labels, 26.40 % wrong"
    num_classes = len(COARSE_NAMES)
    confusable = False
    confusions: ClassVar[dict[int, int]] = {}
    superclasses: ClassVar[tuple[int, ...]] = ()
    _human = HUMAN_SETS["coarse"]

    def _task(self, data: Loaded) -> Loaded:
        # `Cifar100.load` has checked that the superclass of every image is the one that this table has for its class.
        table = np.asarray(SUPERCLASSES, dtype=np.int64)
        return dataclasses.replace(
            data,
            train=Split(data.train.images, table[data.train.labels]),
            test=Split(data.test.images, table[data.test.labels]),
            class_names=COARSE_NAMES,
            confusions={},
            superclasses=None,
            coarse_labels=None,
            canonical=lambda: data.canonical,  # type: ignore[arg-type]
            notes=lambda: data.notes,  # type: ignore[arg-type]
        )
