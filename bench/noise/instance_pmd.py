"""Polynomial-margin-diminishing noise, types I to III (Zhang et al., 2021, PLC): errors where a network is unsure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.fields import FieldError, Range
from bench.noise import Labels, NoiseInput, NoiseKind
from bench.noise._choose import draw_from_rows

Array = NDArray[np.float64]


class InstancePMD(NoiseKind):
    """eta is the softmax of a network trained on all true labels; u and s are its best and second class, m = eta_u - eta_s.

    paper: a label is drawn from eta, and where it is u it becomes s with probability min(1, factor f), with f of type I
    (1 - m^2)/2, II 1 - m^3, III 1 - (m + m^2 + m^3)/3. code: as PLC's program made the released arrays, the label is u with
    probability min(1, (1 - f)/factor) (type I: 1 - f at least 1/2) and s otherwise. The factor is found such that the expected
    share of wrong labels is `rate`. PLC adds uniform or asymmetric noise on top: `instance-pmd@0.35 + symmetric@0.3`.
    """

    slug = "instance-pmd"
    summary = "instance-dependent, polynomial margin diminishing (PLC) types I-III: flips to the second class of a clean network"

    rate: Annotated[float, Range(ge=0, le=1)] = 0.35
    type: Literal["I", "II", "III"] = "I"
    rule: Literal["paper", "code"] = "paper"
    #: slug of the model that is trained on the true labels; must be given (PLC: PreAct-ResNet-34)
    network: str = ""
    #: PLC trains briefly, so that eta stays soft: SGD with Nesterov momentum 0.9, constant rate, crop and flip
    epochs: Annotated[int, Range(ge=1)] = 25
    lr: Annotated[float, Range(gt=0)] = 1e-3
    batch_size: Annotated[int, Range(ge=2)] = 128
    weight_decay: Annotated[float, Range(ge=0)] = 5e-4
    network_seed: Annotated[int, Range(ge=0)] = 0

    def validate(self) -> None:
        from bench.noise._teacher import check_network

        check_network(self.network, self.slug)

    def definition(self) -> str:
        f = {"I": "(1 - m^2)/2", "II": "1 - m^3", "III": "1 - (m + m^2 + m^3)/3"}[self.type]
        network = f"a {self.network} trained {self.epochs} epochs on true labels"
        if self.rule == "paper":
            how = f"labels drawn from the softmax of {network}; its best class becomes its second with probability a f"
        else:
            how = f"labels are the best class of {network} with probability (1 - f)/a, else its second"
        return f"{how}, f = {f} of its margin m, a such that {self.rate:g} of all are wrong on average"

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        if self.rate == 0:
            return data.labels.copy()
        return corrupt_by_margin(self._probabilities(data), data.truth, self, rng)

    def _probabilities(self, data: NoiseInput) -> Array:
        """[N, K] in evaluation mode without augmentation."""
        from bench.noise._teacher import Teacher, cached, train

        training = {
            "epochs": self.epochs, "batch_size": self.batch_size, "lr": self.lr, "weight_decay": self.weight_decay,
            "nesterov": True,
        }  # fmt: skip
        teacher = Teacher(self.network, training, self.network_seed)
        everything = np.arange(len(data.labels))

        def make() -> NDArray[np.float32]:
            found: list[NDArray[np.float32]] = []

            def examine(epoch: int, predict: Callable[[Labels], NDArray[np.float32]]) -> bool:
                if epoch + 1 == self.epochs:
                    found.append(predict(everything))
                return False

            train(teacher, data, everything, examine)
            return found[0]

        facts: dict[str, Any] = {"what": "softmax", "teacher": teacher.facts()}
        return cached(data, facts, make).astype(np.float64)

    def expected(self, data: NoiseInput) -> float:
        return self.rate


def margin_function(kind: str, margin: Array) -> Array:
    """f of the margin m in [0, 1]: PLC's tau before its constant factor."""
    if kind == "I":
        return (1 - margin**2) / 2
    if kind == "II":
        return 1 - margin**3
    return 1 - (margin + margin**2 + margin**3) / 3


def corrupt_by_margin(eta: Array, true: Labels, noise: InstancePMD, rng: np.random.Generator) -> Labels:
    """Given labels int64 [N] from class probabilities `eta` [N, K]; raises `FieldError` when no factor gives the rate."""
    eta = eta / eta.sum(axis=1, keepdims=True)
    rows = np.arange(len(eta))
    order = np.argsort(-eta, axis=1, kind="stable")
    best, second = order[:, 0], order[:, 1]
    f = margin_function(noise.type, eta[rows, best] - eta[rows, second])
    by_paper = noise.rule == "paper"

    def to_second(factor: float) -> Array:
        """Probability [N] that the second class takes the place of the best one."""
        if by_paper:
            return np.minimum(1.0, factor * f)
        stay = np.maximum(1 - f, 0.5) if noise.type == "I" else 1 - f
        return 1 - np.minimum(1.0, stay / max(factor, 1e-300))

    def wrong(factor: float) -> float:
        """Expected share of wrong labels."""
        moved = to_second(factor)
        at_best = eta[rows, best] if by_paper else np.ones(len(eta))
        right = at_best * np.where(best == true, 1 - moved, np.where(second == true, moved, 0.0))
        if by_paper:
            right = right + np.where(best == true, 0.0, eta[rows, true])
        return float(1 - right.mean())

    factor = _solve(wrong, noise)
    start = draw_from_rows(eta, rng.random(len(eta))) if by_paper else best
    flips = rng.random(len(eta)) < to_second(factor)
    return np.where(flips & (start == best), second, start)


def _solve(wrong: Callable[[float], float], noise: InstancePMD) -> float:
    """The factor at which `wrong`, which grows with it, is the wanted rate."""
    low, high = 0.0, 1.0
    if wrong(low) > noise.rate:
        message = f"the network alone is wrong on {100 * wrong(low):.1f} % of the labels, more than {100 * noise.rate:g} %"
        raise FieldError("rate", message, f"train it longer (epochs: {noise.epochs}, lr: {noise.lr:g}) or ask for more noise")
    while wrong(high) < noise.rate:
        high *= 2
        if high > 1e9:
            message = f"no factor makes {100 * noise.rate:g} % of the labels wrong: the network is too sure of them"
            raise FieldError("rate", message, f"train it more briefly (epochs: {noise.epochs}) or ask for less noise")
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if wrong(middle) < noise.rate else (low, middle)
    return high
