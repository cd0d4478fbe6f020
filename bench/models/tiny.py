"""Small networks for the embedded data sets and for CPU cores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from bench.fields import Range
from bench.models import Backbone


class TinyCNNModule(nn.Module):
    """Strided 3x3 convolutions with batch normalisation and ReLU, average pooling, one linear layer."""

    def __init__(self, in_channels: int, num_classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            layers += [
                nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            in_channels = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(in_channels, num_classes)

    def features(self, images: Tensor) -> Tensor:
        return self.body(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class TinyCNN(Backbone):
    """About 6 000 parameters on digits; one epoch of digits takes some 25 ms on one core."""

    slug = "tiny-cnn"
    summary = "three strided 3x3 convolutions with batch norm, 8-16-32 channels"

    widths: Annotated[tuple[int, ...], Range(ge=1)] = (8, 16, 32)

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        return TinyCNNModule(shape[0], num_classes, self.widths)


class MLPModule(nn.Module):
    def __init__(self, inputs: int, num_classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True)]
            inputs = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, num_classes)

    def features(self, images: Tensor) -> Tensor:
        return self.body(torch.flatten(images, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class MLP(Backbone):
    """Fully connected layers with ReLU on the flattened image; no batch normalisation."""

    slug = "mlp"
    summary = "fully connected ReLU network, 64-64 units"

    widths: Annotated[tuple[int, ...], Range(ge=1)] = (64, 64)

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        return MLPModule(math.prod(shape), num_classes, self.widths)
