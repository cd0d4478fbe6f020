"""Human noise: the re-annotation of CIFAR-10 and CIFAR-100 (Wei et al., 2022, CIFAR-N) on top of the data set itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from bench.fields import FieldError
from bench.noise import Labels, NoiseInput, NoiseKind, transition_matrix
from bench.noise._choose import draw_from_rows

#: share of wrong labels, counted from the released files
_RATES = {"aggre": 0.0901, "random1": 0.1723, "random2": 0.1812, "random3": 0.1764, "worse": 0.4021, "fine": 0.402}


class Human(NoiseKind):
    """The labels that people gave, from the released file in the data folder; the same for all seeds. Altered ones are refused.

    `cifar10n-worse` and its kin are the same labels as data sets of their own; as a noise they stand in one table beside
    injected ones. With `twin` labels are drawn from the measured transition matrix instead, sample by sample: the same
    matrix, and nothing that depends on the picture.
    """

    slug = "human"
    summary = "CIFAR-N: labels that people gave to cifar10 (aggre, random1-3, worse) or cifar100 (fine), from the released file"
    short_field = "labels"

    labels: Literal["aggre", "random1", "random2", "random3", "worse", "fine"] = "worse"
    #: a synthetic twin: drawn from the transition matrix of these labels
    twin: bool = False

    @classmethod
    def misfit(cls, dataset: Any, fields: Mapping[str, Any] | None = None) -> str | None:
        valid = {"cifar10": ("aggre", "random1", "random2", "random3", "worse"), "cifar100": ("fine",)}.get(dataset.slug, ())
        if not valid:
            return f"there are no human labels for {dataset.slug}, only for cifar10 and cifar100"
        wanted = (fields or {}).get("labels")
        return (
            f"{dataset.slug} has no human labels {wanted!r}; valid: {', '.join(valid)}" if wanted not in (None, *valid) else None
        )

    def definition(self) -> str:
        of = "CIFAR-100N" if self.labels == "fine" else "CIFAR-10N"
        if self.twin:
            return f"each label drawn from its class's row of the measured transition matrix of {of} {self.labels}"
        return f"the human labels {self.labels} of {of}"

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        from bench.data._cifar_n import HUMAN_SETS, human_labels

        human = HUMAN_SETS[self.labels]
        if data.dataset != human.base or len(data.labels) != human.size:
            raise FieldError("labels", f"{self.labels} labels are those of {human.base}'s {human.size:,} training images")
        found = human_labels(human, data.truth, data.root)
        if not found.canonical:  # a cell says no more of them than their name, which has to mean one vector
            hint = "bring back the released file, or name these labels by what they are: `file` noise with its path and key"
            raise FieldError("labels", f"{found.file.parent}: {'; '.join(found.notes)}", hint)
        if not self.twin:
            return found.labels.copy()
        matrix = transition_matrix(data.truth, found.labels, data.num_classes)
        return draw_from_rows(matrix[data.labels], rng.random(len(data.labels)))

    @property
    def nominal(self) -> float:
        return _RATES[self.labels]

    def expected(self, data: NoiseInput) -> float:
        return self.nominal
