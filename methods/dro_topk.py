"""Top-k DRO: the mean of the largest losses of each batch, without groups (Levy et al., NeurIPS 2020)."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from bench.fields import Range
from bench.method import DIGITS, TUNED, LossMethod, Recipe
from bench.ops.groups import cvar
from bench.ops.losses import cross_entropy
from bench.ops.selection import top_k_mean


class DROTopK(LossMethod):
    """Levy, Carmon, Duchi & Sidford, "Large-Scale Methods for Distributionally Robust Optimization", NeurIPS 2020; as the
    DRO part of Chen et al., arXiv:2211.08722.

    Without group labels, the risk of the worst group is bounded by the mean of the largest share `tau` of the losses. On
    noisy labels those are largely the wrong ones: this is the control that shows why refurbishing must come first.

    Losses [B] are cross-entropy; max(1, floor(tau B)) are kept, also in a smaller last batch. `form: cvar` counts the sample
    at the edge by its fraction, as the CVaR code of SubpopBench does. tau = 1 is ERM. No paper gives tau for plain top-k:
    the default lies in the range that Chen et al. sweep (0.5 to 0.9). Samples are scored by their last loss.
    """

    slug = "dro-topk"
    title = "Top-k DRO"
    paper = "Levy et al., NeurIPS 2020, arXiv:2010.05893"
    code = "YyzHarry/SubpopBench @4d3dbbe"
    cost = "3 FE"
    recipes = (
        Recipe("fixed", TUNED.format("digits"), {"tau": 0.7}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"), {"tau": 0.7}, {"dataset": "spurious-digits"}),
    )

    tau: Annotated[float, Range(gt=0, le=1)] = 0.7
    form: Literal["top-k", "cvar"] = "top-k"

    def loss(self, logits: Tensor, batch) -> Tensor:
        return cross_entropy(logits, batch.labels)

    def reduce(self, losses: Tensor) -> Tensor:
        return top_k_mean(losses, self.tau) if self.form == "top-k" else cvar(losses, self.tau)
