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
from bench.ops.metrics import group_accuracy, roc_auc
from bench.trial.images import Images

PROTOCOLS = ("last", "last_k", "best_oracle", "selected")
#: `select_by` of a protocol -> series of the curve whose largest value selects the epoch
SELECT_BY = {"accuracy": "val_acc", "worst-group": "val_worst_group_acc", "adjusted": "val_adjusted_acc"}


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
    #: what selects the epoch: accuracy on validation data, that of its worst group (group DRO), or that of its groups weighted
    #: by their shares of the training set (LLC-DRO's released command for Waterbirds; its paper: accuracy)
    select_by: Literal["accuracy", "worst-group", "adjusted"] = "accuracy"

    #: share of the remaining training set that is trained on, drawn anew for each seed: what a method needs in data, or a
    #: cheap cell under a published label vector
    train_fraction: Annotated[float, Range(gt=0, le=1)] = 1.0

    neutral = {"select_by": "accuracy", "train_fraction": 1.0}


@dataclass
class Curve:
    """Per-epoch values; fractions in [0, 1], None where an epoch has no value."""

    epoch: list[int] = field(default_factory=list)
    values: dict[str, list[float | None]] = field(default_factory=dict)
    group_acc: dict[str, list[float]] = field(default_factory=dict)

    def append(self, epoch: int, values: dict[str, float | None], groups: dict[str, float]) -> None:
        for name in {**self.values, **values}:  # a value may be missing in some epochs
            self.values.setdefault(name, [None] * len(self.epoch)).append(values.get(name))
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


class HeldOut:
    """A held-out set: labels int64 [N] and groups int64 [N] or None on the CPU; images behind one of the two sources."""

    def __init__(self, images: Images, labels: NDArray[np.int64], groups: NDArray[np.int64] | None = None) -> None:
        self.images, self.labels = images, torch.as_tensor(labels)
        self.groups = torch.as_tensor(groups) if groups is not None else None

    def predict(self, method: Method, k: int = 1) -> Tensor:
        """The `k` most probable classes int64 [N, k], most probable first, on the CPU."""
        parts = []
        for images in self.images.plain():
            version = images._version
            probabilities = method.predict(images)
            wanted = (len(images), method.task.num_classes)
            if not isinstance(probabilities, Tensor) or tuple(probabilities.shape) != wanted:
                got = tuple(probabilities.shape) if isinstance(probabilities, Tensor) else type(probabilities).__name__
                raise ValueError(f"{method.slug}.predict must return probabilities of shape {wanted}, got {got}")
            if images._version != version:
                raise ValueError(f"{method.slug}.predict wrote into the images that it was given; work on a copy")
            if not bool(torch.isfinite(probabilities).all()):
                raise Diverged("predictions are not finite")
            top = probabilities.argmax(dim=1, keepdim=True) if k == 1 else probabilities.topk(k, dim=1).indices
            parts.append(top.cpu())
        return torch.cat(parts)


@dataclass(frozen=True)
class Truth:
    """What only the harness knows of the training set: is each given label right, the true labels (-1: none of the classes),
    both None where nobody knows, and groups."""

    correct: NDArray[np.bool_] | None
    groups: NDArray[np.int64] | None = None
    true: NDArray[np.int64] | None = None


class Evaluator:
    """Scores a method after an epoch on validation, test and second test set, and its scores against the truth."""

    def __init__(
        self,
        val: HeldOut | None,
        test: HeldOut,
        truth: Truth,
        group_names: tuple[str, ...] = (),
        *,
        test2: HeldOut | None = None,
        top_k: int = 1,
        num_classes: int = 0,
    ) -> None:
        self._val, self._test, self._test2, self._truth = val, test, test2, truth
        self._group_names, self._top_k, self._num_classes = group_names, top_k, num_classes
        self._last: Tensor | None = None
        train = np.bincount(truth.groups, minlength=len(group_names)) if truth.groups is not None else np.zeros(0)
        self._group_weights = train / max(1.0, train.sum())

    @property
    def truth(self) -> Truth:
        return self._truth

    def evaluate(self, method: Method) -> tuple[dict[str, float | None], dict[str, float]]:
        """What was measured (keys of `MEASURED_METRICS`, as far as they apply), and accuracy per group that has samples."""
        values: dict[str, float | None] = {}
        top = self._test.predict(method, self._top_k)
        hits = top[:, 0] == self._test.labels
        values["test_acc"] = float(hits.double().mean())
        if self._top_k > 1:
            values["test_top5_acc"] = _top_accuracy(top, self._test.labels)
        if self._val is not None:
            right = self._val.predict(method)[:, 0] == self._val.labels
            values["val_acc"] = float(right.double().mean())
            if self._val.groups is not None:
                values |= self._by_group(right, self._val.groups, "val_")[0]
        if self._test2 is not None:
            top2 = self._test2.predict(method, self._top_k)
            values["test2_acc"] = float((top2[:, 0] == self._test2.labels).double().mean())
            if self._top_k > 1:
                values["test2_top5_acc"] = _top_accuracy(top2, self._test2.labels)
        groups: dict[str, float] = {}
        if self._test.groups is not None:
            measured, groups = self._by_group(hits, self._test.groups)
            values |= measured
        values["noise_auc"] = self._noise_auc(method)
        self._last = top[:, 0]
        return values, groups

    def detail(self, method: Method) -> dict[str, Any]:
        """What is measured once, after the last epoch: confusion matrix (rows are true classes), accuracy per class (None for
        one without test images), and noise AUC per group."""
        found: dict[str, Any] = {}
        if self._last is not None and 0 < self._num_classes <= 100:
            pairs = self._test.labels * self._num_classes + self._last
            counts = torch.bincount(pairs, minlength=self._num_classes**2)
            counts = counts.reshape(self._num_classes, self._num_classes)
            found["confusion_last"] = counts.tolist()
            totals = counts.sum(dim=1)
            right = (counts.diagonal() / totals.clamp_min(1)).tolist()
            found["class_acc_last"] = [acc if n else None for acc, n in zip(right, totals.tolist(), strict=True)]
        scores = self._scores(method)
        if scores is not None and self._truth.groups is not None and self._truth.correct is not None:
            found["group_noise_auc_last"] = {
                name: roc_auc(scores[members], self._truth.correct[members])
                for g, name in enumerate(self._group_names)
                if (members := self._truth.groups == g).any()
            }
        return found

    def _by_group(self, hits: Tensor, groups: Tensor, prefix: str = "") -> tuple[dict[str, float | None], dict[str, float]]:
        """(accuracy of the worst group and adjusted accuracy, accuracy of each group that has samples)."""
        found = group_accuracy(hits, groups, len(self._group_names)).tolist()
        shown = {name: value for name, value in zip(self._group_names, found, strict=True) if value == value}
        measured = {f"{prefix}worst_group_acc": min(shown.values()), f"{prefix}adjusted_acc": self._adjusted(found)}
        return measured, shown

    def _adjusted(self, group_acc: list[float]) -> float | None:
        """Group accuracies weighted by the groups' shares of the training set (group DRO's "average")."""
        if len(self._group_weights) != len(group_acc):
            return None
        total = [weight * value for weight, value in zip(self._group_weights, group_acc, strict=True) if weight > 0]
        return float(sum(total)) if all(value == value for value in total) else None

    def _scores(self, method: Method) -> NDArray[np.float32] | None:
        """Finite cleanness scores float32 [N], None when there are none."""
        scores = method.clean_scores()
        if scores is None:
            return None
        array = scores.detach().float().cpu().numpy()
        if array.shape != (method.task.num_samples,):
            raise ValueError(f"{method.slug}.clean_scores must have shape ({method.task.num_samples},), got {array.shape}")
        return array if np.isfinite(array).all() else None

    def _noise_auc(self, method: Method) -> float | None:
        scores = self._scores(method)
        return None if scores is None or self._truth.correct is None else roc_auc(scores, self._truth.correct)


def _top_accuracy(top: Tensor, labels: Tensor) -> float:
    return float((top == labels[:, None]).any(dim=1).double().mean())


#: series of a curve that become metrics under every protocol
MEASURED_METRICS = (
    "test_acc", "worst_group_acc", "adjusted_acc", "test_top5_acc", "test2_acc", "test2_top5_acc", "noise_auc", "val_acc",
)  # fmt: skip


def metrics(curve: Curve, last_k: int, select_by: str = "accuracy") -> dict[str, Any]:
    """Every metric under every protocol: keys `<metric>_<protocol>`. Ties go to the earliest epoch.

    `best_oracle` and `selected` choose one epoch, by the plain accuracy on test and by `SELECT_BY` on validation; worst-group
    accuracy and noise AUC are read at that same epoch.
    """
    count = len(curve.epoch)
    if count == 0:
        return {}
    test = [value if value is not None else -math.inf for value in curve.values["test_acc"]]
    chosen = {"last": count - 1, "best_oracle": max(range(count), key=test.__getitem__)}
    val = curve.values.get(SELECT_BY[select_by])
    if val is not None:
        scores = [value if value is not None else -math.inf for value in val]
        chosen["selected"] = max(range(count), key=scores.__getitem__)
    result: dict[str, Any] = {}
    for name in MEASURED_METRICS:
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
