"""Backbones by slug. Every network maps images [B, C, H, W] to logits [B, K] and exposes its pooled features.

A network is an `nn.Module` with `features(images) -> [B, D]` (penultimate, pooled) and `head` (the last linear layer), so
that `network(images) == network.head(network.features(images))`.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from bench.fields import Configurable, FieldError
from bench.registry import discover, lookup


class Backbone(Configurable):
    """How to build one network; its fields are part of the cell."""

    slug: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    #: images need at least this many pixels on each side
    smallest: ClassVar[int] = 1

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """A freshly initialised network for images of `shape` (C, H, W); the caller pins the randomness (`init` stream)."""
        raise NotImplementedError

    def load(self, network: nn.Module, root: Path | None) -> None:
        """Load pre-trained weights from a local file below the data root `root`; most backbones have none.

        Raises `FieldError` that says where the file belongs and where it comes from.
        """


@functools.cache
def models() -> dict[str, type[Backbone]]:
    return discover("bench.models", Backbone)


def model_class(name: str) -> type[Backbone]:
    return lookup(models(), name, "model")


def build(identity: dict[str, Any], shape: tuple[int, int, int], num_classes: int, root: Path | None = None) -> nn.Module:
    """The network of a cell's model axis (`{"name", ...fields}`) for images of `shape` (C, H, W).

    `root` is the data folder, whose folder `weights` holds pre-trained weights. Raises `FieldError` where name, fields, weights
    or the size of the images do not fit.
    """
    backbone = model_class(identity["name"])(**{key: value for key, value in identity.items() if key != "name"})
    if min(shape[1:]) < backbone.smallest:
        found, least = f"{shape[1]}x{shape[2]}", f"{backbone.smallest}x{backbone.smallest}"
        raise FieldError("model", f"{backbone.slug} needs images of at least {least} pixels, these have {found}")
    network = backbone.build(shape, num_classes)
    backbone.load(network, root)
    return network
