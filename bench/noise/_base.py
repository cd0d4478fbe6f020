"""The contract of a kind of label noise: what it sees, what it returns, how it is planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.fields import Configurable, FieldError

Labels = NDArray[np.int64]
#: image numbers int64 [B] -> their pixels uint8 [B, C, H, W]
Pixels = Callable[[Labels], NDArray[np.uint8]]


@dataclass(frozen=True)
class NoiseInput:
    """What a kind of noise may look at. `labels` int64 [N] are what it changes: the labels as the data set delivers them,
    or what an earlier step of a sequence left. `true` are the true labels where they differ from these.
    """

    labels: Labels
    num_classes: int
    confusions: dict[int, int]
    class_names: tuple[str, ...]
    true: Labels | None = None
    #: slug of the data set, and its data folder
    dataset: str = ""
    root: Path | None = None
    #: class -> superclass
    superclasses: tuple[int, ...] = ()
    pixels: Pixels | None = None
    #: mean and standard deviation per channel on the [0, 1] scale, computed when asked for
    statistics: Callable[[], tuple[tuple[float, ...], tuple[float, ...]]] | None = None
    #: geometry of the weak view, for networks that make labels
    pad: int = 0
    flip: bool = False
    #: slug of another data set -> how many training images it has
    source_size: Callable[[str], int] | None = None
    #: sha256 of a label vector -> `path#key` of a file that holds it, the key empty where none is needed
    files: Mapping[str, str] = field(default_factory=dict)
    #: where the outputs of label-making networks are kept between cells, and the device that trains them
    cache: Path | None = None
    device: str = "cpu"

    @classmethod
    def of(cls, data: Any, dataset: str = "", **more: Any) -> NoiseInput:
        """From a `bench.data.Loaded`; `more` are the fields that concern the machine: root, files, cache, device."""
        images = data.train.images
        return cls(
            labels=data.train.labels if data.given_labels is None else data.given_labels,
            true=data.train.labels,
            num_classes=data.num_classes,
            confusions=data.confusions,
            class_names=data.class_names,
            dataset=dataset,
            superclasses=tuple(data.superclasses or ()),
            pixels=images.fetch if hasattr(images, "fetch") else images.__getitem__,
            statistics=lambda: data.channel_statistics,
            pad=data.pad,
            flip=data.flip,
            source_size=lambda slug: _training_images(slug, more.get("root")),
            **more,
        )

    @property
    def truth(self) -> Labels:
        """The true labels int64 [N]."""
        return self.labels if self.true is None else self.true

    def need_pixels(self, kind: str) -> Pixels:
        if self.pixels is None:
            raise FieldError("noise", f"{kind} noise looks at the images, and none were given to it")
        return self.pixels

    def with_labels(self, labels: Labels) -> NoiseInput:
        """The same samples after a step of a sequence."""
        return replace(self, labels=labels, true=self.truth)

    def part(self, index: Labels) -> NoiseInput:
        """The same for the samples `index` alone."""
        pixels = self.pixels
        return replace(self, labels=self.labels[index], true=self.truth[index], pixels=pixels and (lambda i: pixels(index[i])))


def _training_images(slug: str, root: Path | None) -> int:
    from bench.data import dataset_class, load

    return len(load({"name": slug, "revision": dataset_class(slug).revision}, root).train)


@dataclass(frozen=True)
class Replaced:
    """Training pictures that another data set's stand in for: training image `position[i]` (counted among the kept ones)
    shows training image `index[i]` of the data set `source` (`{"name", "revision", ...fields}`); both int64 [R]."""

    position: Labels
    index: Labels
    source: dict[str, Any]


@dataclass(frozen=True)
class Corruption:
    """What noise makes of N samples: given labels int64 [M], the kept samples int64 [M] ascending (None: all N, M = N),
    and pictures that are replaced."""

    labels: Labels
    keep: Labels | None = None
    replaced: Replaced | None = None


@dataclass(frozen=True)
class PlannedNoise:
    """A noise as a suite asks for it: what enters cells and what tables call it. The others never enter a cell: the nominal
    rate that recipes match on, where its label files are (sha256 of the vector -> `path#key`, the key may be empty), and the
    kind that recipes take it for ("": its own)."""

    identity: dict[str, Any]
    label: str
    rate: float = 0.0
    files: dict[str, str] = field(default_factory=dict)
    recipe_kind: str = ""


class NoiseKind(Configurable):
    """One kind of label noise. Its fields fix every convention that `noise.md` of the reference library lists."""

    slug: ClassVar[str] = ""
    version: ClassVar[int] = 1
    summary: ClassVar[str] = ""
    #: the field that the short form `kind@value` sets; "" when the kind takes none
    short_field: ClassVar[str] = "rate"
    #: fields that say where something lies or what it is called: never part of a cell
    local: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def identity(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in super().identity(params).items() if name not in cls.local}

    @classmethod
    def plan(cls, params: Mapping[str, Any], folders: Sequence[Path]) -> PlannedNoise:
        """The noise that `params` ask for; `folders` are where relative paths begin. Raises `FieldError`."""
        identity = {"kind": cls.slug, "version": cls.version, **cls.identity(params)}
        noise = cls(**params)
        noise.validate()
        return PlannedNoise(identity, cls.label(identity), noise.nominal or 0.0, recipe_kind=noise.recipe_kind)

    @classmethod
    def label(cls, identity: Mapping[str, Any]) -> str:
        """How tables call it: kind, the value of the short form, and every convention that differs from the default."""
        defaults = cls.identity({})
        text = cls.slug
        if cls.short_field in identity:
            value = identity[cls.short_field]
            text += f"@{value:g}" if isinstance(value, (int, float)) else f"@{value}"
        skip = ("kind", "version", cls.short_field)
        others = [f"{k}={v}" for k, v in identity.items() if k not in skip and v != defaults.get(k)]
        return text + (f" ({', '.join(others)})" if others else "")

    def validate(self) -> None:
        """Raises `FieldError` when fields that are legal one by one do not go together."""

    @classmethod
    def misfit(cls, dataset: Any, fields: Mapping[str, Any] | None = None) -> str | None:
        """Why this kind is not defined on a data set class, or None; asked when a suite is planned.

        With `fields` (the noise axis of a cell) the answer is about that noise, without about the kind.
        """
        return None

    def definition(self) -> str:
        """One sentence, printed under every table, that leaves no convention open."""
        raise NotImplementedError

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        """The given labels, int64 [N]. Raises `FieldError` when the kind does not fit the data set."""
        raise NotImplementedError

    def corrupt(self, data: NoiseInput, rng: np.random.Generator) -> Corruption:
        """Labels, and for kinds that override this also which samples stay and which pictures are replaced."""
        return Corruption(self.apply(data, rng))

    def expected(self, data: NoiseInput) -> float | None:
        """The rate that the convention gives on average over draws, None where only the labels can tell."""
        return None

    @property
    def recipe_kind(self) -> str:
        """The kind that recipes of methods take it for: another one where this is that kind by another generator."""
        return self.slug

    @property
    def nominal(self) -> float | None:
        """The rate that it is called by, None where only the labels can tell."""
        return float(getattr(self, "rate", None) or 0.0)
