"""Backward correction of the loss by a noise transition matrix, given or estimated (Patrini et al., CVPR 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.method import DIGITS, TUNED, Recipe
from bench.ops.transitions import backward_correction, inverse_transition
from methods.forward import RECIPES, Forward


class Backward(Forward):
    """Patrini, Rozza, Menon, Nock & Qu, "Making Deep Neural Networks Robust to Label Noise: a Loss Correction Approach",
    CVPR 2017.

    The losses of all classes are un-mixed by the inverse of T, sum_c (T^-1)_yc (-log p_c): its mean over noisy labels is the
    loss of the true label. It can be negative, and it explodes where T is close to singular (`condition_number` in the curve).

    T, its stages and fields are those of `forward`. Deviation: a singular T has a pseudo-inverse (released: an error).
    Prediction: arg max of p. Scores for noise identification: minus the last training loss.
    """

    slug = "backward"
    title = "Backward"
    recipes = (
        *RECIPES,
        Recipe("fixed", TUNED.format("digits"), {"estimate_epochs": 20, "shrinkage": 0.5}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"),
               {"estimate_epochs": 10, "shrinkage": 0.5}, {"dataset": "spurious-digits"}),
    )  # fmt: skip

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._inverse = inverse_transition(self.matrix)
        self.task.log("condition_number", torch.linalg.cond(self.matrix))

    def loss(self, logits: Tensor, batch) -> Tensor:
        return backward_correction(logits, batch.labels, self._inverse)
