"""Symmetric cross-entropy (Wang et al., ICCV 2019): a complete method, outside of the package."""

from typing import Annotated

from torch import Tensor

from bench.fields import Range
from bench.method import LossMethod, Recipe
from bench.ops.losses import cross_entropy


class SCE(LossMethod):
    """Cross-entropy plus its reverse, -sum_c p_c log y_c, where log 0 is taken as a finite number.

    For a one-hot y the reverse is -log_zero * (1 - p_y): bounded, so that no wrong label can dominate.
    """

    slug = "my-sce"
    title = "SCE"
    paper = "Wang et al., ICCV 2019, arXiv:1908.06112"
    recipes = (Recipe("paper", "official code", {"alpha": 6.0, "beta": 0.1}, {"dataset": "cifar100"}),)

    alpha: Annotated[float, Range(ge=0)] = 0.1
    beta: Annotated[float, Range(ge=0)] = 1.0
    log_zero: Annotated[float, Range(lt=0)] = -9.21  # log 1e-4, as released

    def loss(self, logits: Tensor, batch) -> Tensor:
        p_y = logits.softmax(dim=1).gather(1, batch.labels[:, None])[:, 0]
        return self.alpha * cross_entropy(logits, batch.labels) - self.beta * self.log_zero * (1 - p_y)
