"""Backbones by slug. Every network maps images [B, C, H, W] to logits [B, K] and exposes its pooled features.

A network is an `nn.Module` with `features(images) -> [B, D]` (penultimate, pooled) and `head` (the last linear layer), so
that `network(images) == network.head(network.features(images))`.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from torch import nn

from bench.fields import Configurable
from bench.registry import discover, lookup


class Backbone(Configurable):
    """How to build one network; its fields are part of the cell."""

    slug: ClassVar[str] = ""
    summary: ClassVar[str] = ""

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """A freshly initialised network for images of `shape` (C, H, W); the caller pins the randomness (`init` stream)."""
        raise NotImplementedError


@functools.cache
def models() -> dict[str, type[Backbone]]:
    return discover("bench.models", Backbone)


def model_class(name: str) -> type[Backbone]:
    return lookup(models(), name, "model")


def build(identity: dict[str, Any], shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The network of a cell's model axis (`{"name", ...fields}`)."""
    fields = {key: value for key, value in identity.items() if key != "name"}
    return model_class(identity["name"])(**fields).build(shape, num_classes)
