"""Evaluation: the only place that knows true labels and held-out data.

One curve per trial; every protocol (last, mean of the last k, best on test, selected on validation) is read off it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.fields import Configurable, Range
from bench.method import Method
from bench.ops.metrics import roc_auc

PROTOCOLS = ("last", "last_k", "best_oracle", "selected")


class Diverged(RuntimeError):
    """Training left the finite numbers: the outcome of the cell is 'not converged'."""


class Protocol(Configurable):
    """What is measured and how an epoch is chosen: the `protocol` axis of a cell."""

    slug: ClassVar[str] = "protocol"

    version: Annotated[int, Range(ge=1)] = 1
    #: share of the training set held out, with its noisy labels, where the data set has no official validation split
    val_fraction: Annotated[float, Range(ge=0, lt=1)] = 0.1
    #: auto: the official validation split (true labels) where there is one, else the noisy hold-out
    validation: Literal["auto", "noisy"] = "auto"
    last_k: Annotated[int, Range(ge=1)] = 10


@dataclass
class Curve:
    """Per-epoch values; fractions in [0, 1], None where an epoch has no value."""

    epoch: list[int] = field(default_factory=list)
    values: dict[str, list[float | None]] = field(default_factory=dict)
    group_acc: dict[str, list[float]] = field(default_factory=dict)

    def append(self, epoch: int, values: dict[str, float | None], groups: dict[str, float]) -> None:
        for name, value in values.items():
            self.values.setdefault(name, [None] * len(self.epoch)).append(value)
        for name in groups:
            self.group_acc.setdefault(name, []).append(groups[name])
        self.epoch.append(epoch)

    def as_dict(self) -> dict[str, Any]:
        curve: dict[str, Any] = {"epoch": list(self.epoch), **{k: list(v) for k, v in self.values.items()}}
        return {**curve, "group_acc": {k: list(v) for k, v in self.group_acc.items()}} if self.group_acc else curve

    @classmethod
    def from_dict(cls, curve: dict[str, Any]) -> Curve:
        rest = {k: list(v) for k, v in curve.items() if k not in ("epoch", "group_acc")}
        return cls(list(curve["epoch"]), rest, {k: list(v) for k, v in curve.get("group_acc", {}).items()})


@dataclass(frozen=True)
class HeldOut:
    """Normalised images [N, C, H, W], labels int64 [N], groups int64 [N] or None, on the device."""

    images: Tensor
    labels: Tensor
    groups: Tensor | None = None


class Evaluator:
    """Scores a method after an epoch. `correct` says for each training sample whether its given label is the true one."""

    def __init__(self, val: HeldOut | None, test: HeldOut, correct: NDArray[np.bool_], group_names: tuple[str, ...]) -> None:
        self._val, self._test, self._correct, self._group_names = val, test, correct, group_names
        held_out = (val.images, test.images) if val is not None else (test.images,)
        self._images = torch.cat(held_out)
        self._split = len(val.labels) if val is not None else 0

    def evaluate(self, method: Method) -> tuple[dict[str, float | None], dict[str, float]]:
        """(`test_acc`, `val_acc`, `worst_group_acc`, `noise_auc` as far as measured; accuracy per group)."""
        predicted = self._predict(method)
        hits = (predicted[self._split :] == self._test.labels).cpu()
        values: dict[str, float | None] = {"test_acc": float(hits.double().mean())}
        if self._val is not None:
            values["val_acc"] = float((predicted[: self._split] == self._val.labels).double().mean())
        groups: dict[str, float] = {}
        if self._test.groups is not None:
            of_group = self._test.groups.cpu()
            groups = {name: float(hits[of_group == g].double().mean()) for g, name in enumerate(self._group_names)}
            values["worst_group_acc"] = min(groups.values())
        values["noise_auc"] = self._noise_auc(method)
        return values, groups

    def _predict(self, method: Method) -> Tensor:
        probabilities = method.predict(self._images)
        count = len(self._images)
        if not isinstance(probabilities, Tensor) or probabilities.ndim != 2 or len(probabilities) != count:
            got = tuple(probabilities.shape) if isinstance(probabilities, Tensor) else type(probabilities).__name__
            raise ValueError(f"{method.slug}.predict must return probabilities of shape ({count}, K), got {got}")
        if not bool(torch.isfinite(probabilities).all()):
            raise Diverged("predictions are not finite")
        return probabilities.argmax(dim=1)

    def _noise_auc(self, method: Method) -> float | None:
        scores = method.clean_scores()
        if scores is None:
            return None
        array = scores.detach().float().cpu().numpy()
        if array.shape != self._correct.shape:
            raise ValueError(f"{method.slug}.clean_scores must have shape {self._correct.shape}, got {array.shape}")
        return roc_auc(array, self._correct) if np.isfinite(array).all() else None


def metrics(curve: Curve, last_k: int) -> dict[str, Any]:
    """Every metric under every protocol: keys `<metric>_<protocol>`. Ties go to the earliest epoch.

    `best_oracle` and `selected` choose one epoch, by the plain accuracy on test and on validation; worst-group accuracy
    and noise AUC are read at that same epoch.
    """
    count = len(curve.epoch)
    if count == 0:
        return {}
    test = [value if value is not None else -math.inf for value in curve.values["test_acc"]]
    chosen = {"last": count - 1, "best_oracle": max(range(count), key=test.__getitem__)}
    val = curve.values.get("val_acc")
    if val is not None:
        scores = [value if value is not None else -math.inf for value in val]
        chosen["selected"] = max(range(count), key=scores.__getitem__)
    result: dict[str, Any] = {}
    for name in ("test_acc", "worst_group_acc", "noise_auc", "val_acc"):
        series = curve.values.get(name)
        if series is None:
            continue
        for protocol, index in chosen.items():
            if series[index] is not None:
                result[f"{name}_{protocol}"] = series[index]
        tail = [value for value in series[-last_k:] if value is not None]
        if len(tail) == min(last_k, count):
            result[f"{name}_last_k"] = sum(tail) / len(tail)
    for protocol, index in chosen.items():
        if curve.group_acc:
            result[f"group_acc_{protocol}"] = {group: series[index] for group, series in curve.group_acc.items()}
        if protocol != "last":
            result[f"epoch_{protocol}"] = curve.epoch[index]
    return result
