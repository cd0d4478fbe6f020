"""Plain convolutional networks of the Co-teaching line, and a small one for CPU cores.

Sizes are for 3x32x32 and ten classes; one multiply-add counts as two operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor, nn

from bench.fields import Range
from bench.models import Backbone


class PlainNet(nn.Module):
    """Layers from images to one vector, and a linear layer."""

    def __init__(self, layers: Sequence[nn.Module], width: int, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class CNN9(Backbone):
    """The 9-layer CNN of Co-teaching: 4 434 570 parameters, 1 491 MFLOP per image.

    Han et al. (arXiv 1804.06872, table 2) and their released code (bhanML/Co-teaching): 3x3 convolutions with bias, batch norm
    and leaky ReLU (slope 0.01), 128-128-128, 256-256-256 and, without padding, 512-256-128 channels; 2x2 max-pooling and
    channel-wise dropout after the third and the sixth; average pooling; PyTorch's default initial weights. The released code
    calls `dropout2d` in a way that leaves it on during evaluation; here it is off, as in the paper.
    Images have at least 28x28 pixels.
    """

    slug = "cnn9"
    summary = "9-layer CNN of Co-teaching, 4.4 M parameters"
    smallest = 28

    dropout: Annotated[float, Range(ge=0, lt=1)] = 0.25

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        channels, layers = shape[0], []
        for number, width in enumerate((128, 128, 128, 256, 256, 256, 512, 256, 128), start=1):
            conv = nn.Conv2d(channels, width, 3, padding=1 if number <= 6 else 0)
            layers += [conv, nn.BatchNorm2d(width), nn.LeakyReLU(0.01, inplace=True)]
            if number in (3, 6):
                layers += [nn.MaxPool2d(2), nn.Dropout2d(self.dropout)]
            channels = width
        return PlainNet([*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()], channels, num_classes)


class CNN7(Backbone):
    """The 7-layer CNN of JoCoR and Co-teaching+: 518 150 parameters, 225 MFLOP per image.

    As in the released code (hongxin001/JoCoR, xingruiyu/coteaching_plus): 3x3 convolutions with bias, batch norm and ReLU,
    64-64, 128-128 and 196-16 channels, 2x2 max-pooling after each pair; the last map is flattened (256 features at 32x32);
    no dropout; PyTorch's default initial weights. Images have at least 8x8 pixels.
    """

    slug = "cnn7"
    summary = "7-layer CNN of JoCoR and Co-teaching+, 0.52 M parameters"
    smallest = 8

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        channels, layers = shape[0], []
        for number, width in enumerate((64, 64, 128, 128, 196, 16), start=1):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            if number % 2 == 0:
                layers.append(nn.MaxPool2d(2))
            channels = width
        return PlainNet([*layers, nn.Flatten()], channels * (shape[1] // 8) * (shape[2] // 8), num_classes)


class LeNet(Backbone):
    """The small CNN of Co-teaching+ on CIFAR-10: 62 006 parameters, 1.3 MFLOP per image.

    As in the released code (xingruiyu/coteaching_plus): two 5x5 convolutions of 6 and 16 channels without padding, each with
    ReLU and 2x2 max-pooling, linear layers of 120 and 84 units with ReLU; no batch norm. Images have at least 16x16 pixels.
    """

    slug = "lenet"
    summary = "two 5x5 convolutions and two hidden layers (Co-teaching+ on CIFAR-10), 62 k parameters"
    smallest = 16

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        channels, layers = shape[0], []
        for width in (6, 16):
            layers += [nn.Conv2d(channels, width, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
            channels = width
        layers.append(nn.Flatten())
        inputs = 16 * (((shape[1] - 4) // 2 - 4) // 2) * (((shape[2] - 4) // 2 - 4) // 2)
        for width in (120, 84):
            layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True)]
            inputs = width
        return PlainNet(layers, inputs, num_classes)


class CNN6(Backbone):
    """Six 3x3 convolutions for CIFAR-sized images on CPU cores: 288 746 parameters, 35 MFLOP per image.

    Ours, of no paper: convolutions without bias, batch norm, ReLU; 32-32-64-64-128-128 channels, every second one of stride 2;
    average pooling; PyTorch's default initial weights. Images may have any size.
    """

    slug = "cnn6"
    summary = "six 3x3 convolutions, 32-64-128 channels, 0.29 M parameters, for CPU cores"

    width: Annotated[int, Range(ge=1)] = 32

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        channels, layers = shape[0], []
        for number, factor in enumerate((1, 1, 2, 2, 4, 4)):
            conv = nn.Conv2d(channels, factor * self.width, 3, stride=1 + number % 2, padding=1, bias=False)
            channels = factor * self.width
            layers += [conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        return PlainNet([*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()], channels, num_classes)
