"""What a record keeps of a watched quantity: one class per kind. It knows the truth; methods never get here.

Each has `see(epoch, parts)`, called once for each epoch in which the method showed the quantity, `state_dict`, and
`result`, the block of the record. Epochs count from 0. Parts are tensors on the CPU; numbers have six significant digits.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.ops.sample_types import centre_distance, sample_types
from bench.trial.evaluate import Truth

BINS = 50
SCATTER = 1000  # samples of a t-SNE
GALLERY = 24  # images
LARGEST = 96  # pixels of their longer side
TYPES = ("clean_easy", "clean_hard", "mislabelled_easy", "mislabelled_hard")

Parts = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """What is known of the training set and is the same in all epochs: `given` int64 [N] on the CPU."""

    truth: Truth
    given: Tensor
    num_classes: int
    epochs: int
    classes: tuple[str, ...] | None = None

    @property
    def correct(self) -> NDArray[np.bool_] | None:
        return self.truth.correct


class Series:
    """A watched quantity over the epochs. `wanted`: "all", "last", or epochs counted from 1."""

    kind = ""

    def __init__(self, facts: Facts, wanted: str | tuple[int, ...]) -> None:
        self.facts, self.wanted = facts, wanted
        self.at: dict[str, Any] = {}
        self.times = torch.zeros(len(facts.given), dtype=torch.int64)  # epochs in which a sample was in the set
        self.seen = 0  # epochs in which the method showed the set

    def due(self, epoch: int) -> bool:
        return self.wanted in ("all", "last") or epoch + 1 in self.wanted

    def see(self, epoch: int, parts: Parts) -> None:
        if self.due(epoch):
            self.keep(epoch, self.entry(parts))

    def entry(self, parts: Parts) -> Any:
        raise NotImplementedError

    def keep(self, epoch: int, entry: Any) -> None:
        """Under the name of the epoch, in the place of the epoch before where only the last is wanted."""
        if self.wanted == "last":
            self.at.clear()
        self.at[str(epoch)] = entry

    def count(self, members: Tensor) -> dict[str, Tensor]:
        """Note who is in the set this epoch; the sample types so far."""
        self.times += members
        self.seen += 1
        return sample_types(self.times, self.seen)

    def result(self) -> dict[str, Any]:
        return {"kind": self.kind, "at": self.at}

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("facts", "wanted")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


class Members(Series):
    """Size, precision and recall of a set, and the four sample types; `counts` are those of ten epochs and of the last one,
    or of the epochs that were asked for."""

    kind = "members"

    def __init__(self, facts: Facts, wanted: str | tuple[int, ...]) -> None:
        super().__init__(facts, wanted)
        self.epoch: list[int] = []
        self.lists: dict[str, list[Any]] = {name: [] for name in ("size", "precision", "recall")}
        self.sizes: dict[str, list[int]] = {name: [] for name in TYPES}
        self.right: dict[str, list[float | None]] = {name: [] for name in TYPES}

    def see(self, epoch: int, parts: Parts) -> None:
        members = parts["members"]
        types = self.count(members)
        if not self.due(epoch):
            return
        every = (self.epoch, *self.lists.values(), *self.sizes.values(), *self.right.values())
        if self.wanted == "last":
            for values in every:
                values.clear()
        self.epoch.append(epoch)
        self.lists["size"].append(int(members.sum()))
        for name, share in zip(("precision", "recall"), self.quality(members.numpy(), parts.get("labels")), strict=True):
            self.lists[name].append(share)
        for name, rows in types.items():
            self.sizes[name].append(int(rows.sum()))
            self.right[name].append(self.quality(rows.numpy())[0])
        self.at = {key: value for key, value in self.at.items() if self.is_kept(int(key))}
        lengths = epoch + 2
        self.at[str(epoch)] = split(self.facts, self.times.numpy(), lambda times: np.bincount(times, minlength=lengths).tolist())

    def is_kept(self, epoch: int) -> bool:
        """Whether the counts of an epoch stay when a later one is seen: each would be as long as the training."""
        if self.wanted == "all":
            tenth = max(1, self.facts.epochs // 10)
            return (epoch + 1) % tenth == 0
        return self.wanted != "last"

    def quality(self, chosen: NDArray[np.bool_], labels: Tensor | None = None) -> tuple[float | None, float | None]:
        """(precision, recall) of a set of samples against the truth; None where the denominator is 0, or nobody knows. `labels`
        int64 [N]: those that the method has by now, where they are not the given ones."""
        correct, true = self.facts.correct, self.facts.truth.true
        if correct is None:
            return None, None
        if labels is not None and true is not None:
            correct = labels.numpy() == true
        hits = int((chosen & correct).sum())
        return tuple(short(hits / total) if total else None for total in (int(chosen.sum()), int(correct.sum())))  # type: ignore[return-value]

    def result(self) -> dict[str, Any]:
        known = self.facts.correct is not None
        lists = {name: values if known or name == "size" else None for name, values in self.lists.items()}
        types = {"epoch": self.epoch, "sizes": self.sizes, "correct": self.right if known else None}
        return {"kind": self.kind, "epoch": self.epoch, **lists, "counts": self.at, "types": types}


class Values(Series):
    """Histograms from 0 (or the smallest value) to the largest, of the rightly and of the wrongly labelled."""

    kind = "values"

    def entry(self, parts: Parts) -> Any:
        values = parts["values"].double().numpy()
        simulated = parts["simulated"].double().numpy() if parts.get("simulated") is not None else np.zeros(0)
        finite = np.concatenate([part[np.isfinite(part)] for part in (values, simulated)])
        low, high = (min(0.0, finite.min()), max(finite.min(), finite.max())) if len(finite) else (0.0, 1.0)
        edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)

        def histogram(part: NDArray[np.float64]) -> list[int]:
            return np.histogram(part[np.isfinite(part)], edges)[0].tolist()

        found = {"edges": [short(edge) for edge in edges], **split(self.facts, values, histogram)}
        if parts.get("mixture") is not None:
            found["mixture"] = {name: _shorts(value) for name, value in parts["mixture"].items()}
        if parts.get("simulated") is not None:
            found["simulated"] = histogram(simulated)
        if parts.get("threshold") is not None:
            found["threshold"] = short(parts["threshold"])
        return found


class Points(Series):
    """Where at most 1000 samples lie (t-SNE), and the distances of the sample types from the set that was shown with them."""

    kind = "points"

    def __init__(self, facts: Facts, wanted: str | tuple[int, ...]) -> None:
        super().__init__(facts, wanted)
        self.distance: dict[str, list[Any]] = {}
        self.waiting: dict[str, Tensor] = {}  # epoch -> points [<= 1000, D] that may still be replaced by a later epoch's

    def see(self, epoch: int, parts: Parts) -> None:
        points = parts["points"].float()
        if parts.get("members") is not None:
            labels = self.facts.given if parts.get("labels") is None else parts["labels"]
            types = self.count(parts["members"])
            self.distance.setdefault("epoch", []).append(epoch)
            for name, rows in types.items():
                apart = centre_distance(points, labels, rows, parts["members"], self.facts.num_classes)
                self.distance.setdefault(name, []).append(short(float(apart)))
        if not self.due(epoch):
            return
        chosen = points[self.drawn()].clone()
        if self.wanted == "last":
            self.waiting = {str(epoch): chosen}
        else:
            self.keep(epoch, self.scatter(chosen))

    def drawn(self) -> Tensor:
        count = len(self.facts.given)
        size = min(count, SCATTER)
        return torch.arange(size) * count // size

    def scatter(self, points: Tensor) -> dict[str, Any]:
        index = self.drawn()
        finite = points.isfinite().all(dim=1)
        place = tsne(points[finite].numpy())
        rows = index[finite].numpy()
        true = self.facts.truth.true
        return {
            "x": [short(x) for x in place[:, 0]], "y": [short(y) for y in place[:, 1]],
            "given": self.facts.given[rows].tolist(), "true": true[rows].tolist() if true is not None else None,
        }  # fmt: skip

    def result(self) -> dict[str, Any]:
        at = {**self.at, **{epoch: self.scatter(points) for epoch, points in self.waiting.items()}}
        return {"kind": self.kind, "at": at, **({"distance": self.distance} if self.distance else {})}


class Gallery(Series):
    """The images that a method trusts least. Parts: `scores` [N] and `pixels`, index int64 [n] to uint8 [n, C, H, W]."""

    kind = "gallery"

    def entry(self, parts: Parts) -> Any:
        scores = parts["scores"].double()
        finite = torch.nonzero(scores.isfinite())[:, 0]
        index = finite[scores[finite].argsort(stable=True)][:GALLERY]
        true = self.facts.truth.true
        return [
            {
                "index": i, "given": int(self.facts.given[i]), "true": int(true[i]) if true is not None else None,
                "score": short(float(scores[i])), "png": png(image),
            }
            for i, image in zip(index.tolist(), parts["pixels"](index) if len(index) else [], strict=True)
        ]  # fmt: skip

    def result(self) -> dict[str, Any]:
        return {"kind": self.kind, "classes": list(self.facts.classes) if self.facts.classes else None, "at": self.at}


SERIES: dict[str, type[Series]] = {series.kind: series for series in (Members, Values, Points, Gallery)}


def split(facts: Facts, values: NDArray[Any], summary: Any) -> dict[str, Any]:
    """`summary` of the rightly and of the wrongly labelled among values [N]; of `all` where nobody knows which they are."""
    correct = facts.correct
    if correct is None:
        return {"clean": None, "noisy": None, "all": summary(values)}
    return {"clean": summary(values[correct]), "noisy": summary(values[~correct])}


def tsne(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points [n, D] in the plane, [n, 2]; the same for the same points. Fewer than four are left at the origin."""
    if len(points) < 4 or not np.ptp(points, axis=0).any():
        return np.zeros((len(points), 2), dtype=np.float32)
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity, start = min(30.0, (len(points) - 1) / 3), "pca" if points.shape[1] > 1 else "random"
    with threadpool_limits(1):  # sums over threads would depend on their number
        return TSNE(2, perplexity=perplexity, init=start, random_state=0, n_jobs=1).fit_transform(points)


def png(image: Tensor) -> str:
    """An image uint8 [C, H, W] with one or three channels as base64 of a PNG, at most `LARGEST` pixels wide and high."""
    from PIL import Image

    array = image.permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    picture.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def short(value: float) -> float | None:
    """Six significant digits; None for what is no number."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _shorts(value: Any) -> Any:
    return [short(item) for item in value] if isinstance(value, list) else value
