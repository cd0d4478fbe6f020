"""Open-set noise: some training pictures show none of the classes (EvidentialMix, Sachdeva et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np

from bench.fields import FieldError, Range
from bench.noise import Corruption, Labels, NoiseInput, NoiseKind, Replaced


class OpenSet(NoiseKind):
    """Of exactly int(rate N) noisy samples the first int(open * that) show a picture of another data set under their old
    label; the others keep their picture and get a wrong label.

    EvidentialMix calls `rate` rho and `open` 1 - omega. Replaced samples count as wrong in every rate, whatever their label
    says. The pictures are distinct training pictures of `source`, of the same size.
    """

    slug = "open-set"
    summary = "a share of the pictures replaced by another data set's, labels kept; the rest of the noise closed-set"

    rate: Annotated[float, Range(ge=0, le=1)] = 0.4
    #: share of the noisy samples whose picture is replaced
    open: Annotated[float, Range(ge=0, le=1)] = 1.0
    #: what happens to the other noisy samples: a uniform label, own class included, or the data set's confusable class
    closed: Literal["symmetric", "asymmetric"] = "symmetric"
    #: slug of the data set whose training pictures come in
    source: str = "cifar100"
    #: its revision; filled in when a suite is planned
    revision: str = ""

    @classmethod
    def identity(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        from bench.data import datasets

        found = super().identity(params)
        source = datasets().get(found["source"])
        if source is not None and not found["revision"]:
            found["revision"] = source.revision
        return found

    @classmethod
    def label(cls, identity: Mapping[str, Any]) -> str:
        return super().label({name: value for name, value in identity.items() if name != "revision"})

    def validate(self) -> None:
        from bench.data import dataset_class

        if self.open > 0:
            try:
                dataset_class(self.source)
            except FieldError as error:
                raise FieldError("source", error.message, error.hint) from None

    @classmethod
    def misfit(cls, dataset: Any, fields: Mapping[str, Any] | None = None) -> str | None:
        from bench.data import datasets

        fields = fields or {}
        source = str(fields.get("source"))
        if source == dataset.slug:
            return f"its pictures would come from {dataset.slug} itself"
        if fields.get("open") != 0 and _pictures(datasets().get(source)) == _pictures(dataset):
            return f"its pictures would come from {source}, which has those of {dataset.slug}"
        if fields.get("closed") == "asymmetric" and not dataset.confusable:
            return f"{dataset.slug} has no map of confusable classes"
        return None

    def definition(self) -> str:
        who = f"exactly int({self.rate:g} N) samples are noisy"
        if self.open == 1:
            return f"{who}: their label is kept, their picture replaced by one of {self.source}'s training set"
        closed = "are relabelled uniformly, own class included" if self.closed == "symmetric" else "take the confusable label"
        return (
            f"{who}: of a share {self.open:g} of these the label is kept and the picture replaced by one of {self.source}'s "
            f"training set, the others {closed}"
        )

    def corrupt(self, data: NoiseInput, rng: np.random.Generator) -> Corruption:
        count = len(data.labels)
        noisy = rng.permutation(count)[: int(self.rate * count)]
        split = int(self.open * len(noisy))
        position, wrong = noisy[:split], noisy[split:]
        given = data.labels.copy()
        if self.closed == "symmetric":
            given[wrong] = rng.integers(0, data.num_classes, len(wrong))
        else:
            if not data.confusions:
                raise FieldError("closed", "this data set has no map of confusable classes", "closed: symmetric")
            target = np.arange(data.num_classes)
            target[list(data.confusions)] = list(data.confusions.values())
            given[wrong] = target[given[wrong]]
        if not len(position):
            return Corruption(given)
        available = data.source_size(self.source) if data.source_size else 0
        if available < len(position):
            message = f"{self.source} has {available} training pictures, {len(position)} are to be replaced"
            raise FieldError("source", message, "lower rate or open")
        index = rng.permutation(available)[: len(position)]
        source = {"name": self.source, "revision": self.revision}
        return Corruption(given, replaced=Replaced(position, index, source))

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        return self.corrupt(data, rng).labels

    def expected(self, data: NoiseInput) -> float:
        if self.closed == "symmetric":
            closed = 1 - 1 / data.num_classes
        else:
            closed = float(np.isin(data.labels, [a for a, b in data.confusions.items() if a != b]).mean())
        return self.rate * (self.open + (1 - self.open) * closed)


def _pictures(dataset: Any) -> str | None:
    """Slug of the data set that a data set class has its pictures from: its own where nothing else is said."""
    return getattr(dataset, "pictures", "") or getattr(dataset, "slug", None)
