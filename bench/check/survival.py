"""Checks under conditions that real data brings about sooner or later."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from bench.check.miniature import SHORT
from bench.check.subject import Failure, Subject
from bench.ops import mixtures

#: one more than two batches of 16, and than one of 32
ODD = {"images": 33}


def _survive(subject: Subject, condition: str, **how: Any) -> None:
    subject.run(**{"epochs": SHORT, "val_fraction": 0, **how}).require_done(condition)


def single_sample(subject: Subject) -> str:
    """A last batch of one sample."""
    _survive(subject, "33 samples in batches of 16", data=ODD)
    return "33 samples in batches of 16"


def batch_of_one(subject: Subject) -> str:
    """Batches of one sample throughout."""
    _survive(subject, "batch size 1", data={"images": 12}, training={"batch_size": 1})
    return "12 samples in batches of 1"


def small_data(subject: Subject) -> str:
    """Fewer samples than the batch size."""
    _survive(subject, "12 samples, batch size 64", data={"images": 12}, training={"batch_size": 64})
    return "12 samples, batch size 64"


def class_missing(subject: Subject) -> str:
    """A class that no given label names."""
    _survive(subject, "no sample is labelled with the last class", noise={"kind": "check-relabel", "given": "missing"})
    return "no sample is labelled with the last class"


def equal_labels(subject: Subject) -> str:
    """One class for all given labels."""
    _survive(subject, "all given labels are 0", noise={"kind": "check-relabel", "given": "equal"})
    return "all given labels are 0"


def empty_sets(subject: Subject) -> str:
    """An empty clean set and an empty noisy set, for methods that divide; indistinguishable samples, for all."""
    same = {**ODD, "identical": True}
    _survive(subject, "identical samples", data=same, noise={"kind": "check-relabel", "given": "equal"})
    driven = []
    for name in _thresholds(subject):
        bounds = subject.cls.fields()[name].range
        for value in (0.0, 1.0):
            if bounds is None or bounds.contains(value):
                driven.append(f"{name}={value:g}")
                _survive(subject, driven[-1], data=ODD, params={name: value})
    if hasattr(sys.modules[subject.cls.__module__], "clean_posterior"):
        for value in (0.0, 1.0):
            driven.append(f"clean_posterior={value:g} for all")
            with _posterior(subject, value) as calls:
                _survive(subject, driven[-1], data=ODD)
            if not calls:
                raise Failure(
                    f"clean_posterior was not called within {SHORT} epochs, so a division into an empty and a full set "
                    "could not be tried; set `smoke` on the class so that the division begins in the second epoch"
                )
    if not driven:
        return "not applicable: no division by a threshold field or a mixture (identical samples: survived)"
    return "identical samples, " + ", ".join(driven)


def _thresholds(subject: Subject) -> list[str]:
    return [name for name, item in subject.cls.fields().items() if "threshold" in name and item.type is float]


@contextmanager
def _posterior(subject: Subject, value: float) -> Iterator[list[int]]:
    """Let the mixture be sure that all samples are clean (1) or none is (0); the list grows with each call."""
    calls: list[int] = []

    def certain(values: Tensor, **settings: Any) -> tuple[Tensor, mixtures.Mixture]:
        calls.append(len(values))
        posterior, mixture = mixtures.clean_posterior(values, **settings)
        return torch.full_like(posterior, value), mixture

    with patch.object(sys.modules[subject.cls.__module__], "clean_posterior", certain):
        yield calls
