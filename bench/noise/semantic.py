"""Semantic noise: the predictions of a network trained on few clean samples (RoG, Lee et al., 2019)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.fields import FieldError, Range
from bench.noise import Labels, NoiseInput, NoiseKind

#: samples outside the clean subset on which the error is watched between epochs
_WATCHED = 5000


class Semantic(NoiseKind):
    """A network sees a class-balanced share of the training set with true labels; its prediction for every training image
    becomes the given label, so that the rate is its error and wrong labels are plausible ones.

    `target` trains until the error over all labels is within `tolerance` of `rate`; `end` trains all epochs, and a rate that
    then misses by more than `tolerance` is an error that says to change `share` (labels are never resampled). All seeds of a
    cell share the labels of one `network_seed`, as everybody shares the published files. RoG, from memory: share 0.05 on
    CIFAR-10, 0.2 on CIFAR-100; to compare with published rows use those files through `file`.
    """

    slug = "semantic"
    summary = "predictions of a network trained on few clean samples to a target error (RoG); cached by content"

    rate: Annotated[float, Range(ge=0, le=1)] = 0.32
    #: slug of the model that makes the labels; must be given
    network: str = ""
    #: share of each class that it is trained on
    share: Annotated[float, Range(gt=0, le=1)] = 0.05
    stop: Literal["target", "end"] = "target"
    tolerance: Annotated[float, Range(gt=0, le=1)] = 0.01
    #: predicted: its own training samples get its prediction too; true: they keep their label
    subset: Literal["predicted", "true"] = "predicted"
    epochs: Annotated[int, Range(ge=1)] = 200
    #: SGD, momentum 0.9, divided by 10 after half and three quarters of the epochs, crop and flip
    lr: Annotated[float, Range(gt=0)] = 0.1
    batch_size: Annotated[int, Range(ge=2)] = 128
    weight_decay: Annotated[float, Range(ge=0)] = 5e-4
    network_seed: Annotated[int, Range(ge=0)] = 0

    def validate(self) -> None:
        from bench.noise._teacher import check_network

        check_network(self.network, self.slug)

    def definition(self) -> str:
        until = f"for {self.epochs} epochs"
        if self.stop == "target":
            until = f"until its error is {self.rate:g} +- {self.tolerance:g}"
        own = "" if self.subset == "predicted" else ", these samples keeping theirs"
        subset = f"a clean share {self.share:g} of each class"
        return f"every label is the prediction of a {self.network} trained on {subset} {until}{own}"

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        if self.rate == 0:
            return data.labels.copy()
        from bench.noise._teacher import Teacher, cached

        milestones = (self.epochs // 2, self.epochs * 3 // 4)
        training = {
            "epochs": self.epochs, "batch_size": self.batch_size, "lr": self.lr, "weight_decay": self.weight_decay,
            "schedule": "multistep", "milestones": milestones,
        }  # fmt: skip
        teacher = Teacher(self.network, training, self.network_seed)
        goal = {"rate": self.rate, "tolerance": self.tolerance} if self.stop == "target" else {}
        facts = {
            "what": "semantic", "version": self.version, "teacher": teacher.facts(), "share": self.share,
            "stop": self.stop, "subset": self.subset, **goal,
        }  # fmt: skip
        labels = cached(data, facts, lambda: self._make(data, teacher)).astype(np.int64)
        error = float((labels != data.truth).mean())
        if abs(error - self.rate) > self.tolerance:
            raise FieldError("rate", *self._missed(error))
        return labels

    def _missed(self, error: float) -> tuple[str, str]:
        wanted = f"{100 * self.rate:g} +- {100 * self.tolerance:g} %"
        message = f"the labels of {self.network} are {100 * error:.2f} % wrong, not {wanted}"
        if error > self.rate:
            return message, f"give it more clean data (share: {self.share:g}) or more epochs (epochs: {self.epochs})"
        return message, f"give it less clean data (share: {self.share:g})"

    def clean_subset(self, data: NoiseInput) -> Labels:
        """The class-balanced samples int64 that the network is trained on, ascending."""
        rng = np.random.Generator(np.random.PCG64([self.network_seed, 0x5E3A]))
        size = max(1, int(self.share * len(data.labels) / data.num_classes))
        members = [np.flatnonzero(data.truth == c) for c in range(data.num_classes)]
        return np.sort(np.concatenate([rng.permutation(m)[:size] for m in members]))

    def _make(self, data: NoiseInput, teacher: Any) -> Labels:
        from bench.noise._teacher import train

        subset, everything = self.clean_subset(data), np.arange(len(data.labels))
        unseen = np.setdiff1d(everything, subset)
        rng = np.random.Generator(np.random.PCG64([self.network_seed, 0x0A7C]))
        watched = np.sort(rng.permutation(unseen if len(unseen) else everything)[:_WATCHED])
        best: list[Any] = [np.inf, data.truth]  # distance to the target, labels

        def examine(epoch: int, predict: Callable[[Labels], NDArray[np.float32]]) -> bool:
            last = epoch + 1 == self.epochs
            if self.stop == "end" and not last:
                return False
            # the error on samples that it never saw says whether a pass over all of them is worth it
            seen = 1 - len(subset) / len(everything)
            near = abs((predict(watched).argmax(1) != data.truth[watched]).mean() * seen - self.rate) < 3 * self.tolerance
            if not (near or last):
                return False
            labels = predict(everything).argmax(1).astype(np.int64)
            if self.subset == "true":
                labels[subset] = data.truth[subset]
            distance = abs((labels != data.truth).mean() - self.rate)
            if distance < best[0] or self.stop == "end":
                best[:] = distance, labels
            return best[0] <= self.tolerance and self.stop == "target"

        train(teacher, data, subset, examine)  # labels that miss the target are kept too: other cells then fail at once
        return best[1]

    def expected(self, data: NoiseInput) -> float:
        return self.rate
