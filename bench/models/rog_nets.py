"""Networks of RoG (Lee et al., ICML 2019) and of SELFIE (Song et al., ICML 2019) on CIFAR that no one else uses in this form.

`layer_features` returns the pooled features of the layers that RoG fits its classifiers to; its last entry is `features`.
Sizes are for 3x32x32 and ten classes; one multiply-add counts as two operations. RoG's VGG-13 is `vgg13`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from bench.fields import FieldError, Range
from bench.models import Backbone
from bench.models._residual import ResidualNet, conv_stem, he_normal, norm_relu
from bench.models.cifar_resnet import CifarResNet34

#: units of DenseNet's last block, counted from 0, that RoG reads besides the last layer
_ROG_UNITS = (5, 10)


class _Unit(nn.Module):
    """Batch norm, ReLU, 3x3 convolution to `growth` channels, put beside the input; first a 1x1 with `bottleneck`."""

    def __init__(self, channels: int, growth: int, bottleneck: bool, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if bottleneck:
            layers += [norm_relu(channels), nn.Conv2d(channels, 4 * growth, 1, bias=False), *_dropout(dropout)]
            channels = 4 * growth
        layers += [norm_relu(channels), nn.Conv2d(channels, growth, 3, padding=1, bias=False), *_dropout(dropout)]
        self.body = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images, self.body(images)], dim=1)


def _dropout(rate: float) -> list[nn.Module]:
    return [nn.Dropout(rate)] if rate else []


class DenseNetModule(nn.Module):
    """A 3x3 stem, three dense blocks with two transitions between them, batch norm and ReLU, average pooling, linear layer."""

    def __init__(
        self, channels: int, num_classes: int, *, stem: int, units: int, growth: int, bottleneck: bool, compression: float,
        dropout: float, relu: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        width, body = stem, [conv_stem(channels, stem, norm=False)]
        for number in range(3):
            block = [_Unit(width + unit * growth, growth, bottleneck, dropout) for unit in range(units)]
            width += units * growth
            if number < 2:
                out = max(1, int(width * compression))
                conv = [nn.Conv2d(width, out, 1, bias=False), *([nn.ReLU(inplace=True)] if relu else [])]
                body += [*block, norm_relu(width), *conv, *_dropout(dropout), nn.AvgPool2d(2)]
                width = out
        self.body, self.last, self.end = nn.Sequential(*body), nn.Sequential(*block), norm_relu(width)
        self.head = nn.Linear(width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        return self.end(self.last(self.body(images))).mean(dim=(2, 3))

    def layer_features(self, images: Tensor) -> list[Tensor]:
        """Pooled features [B, D] of units 5 and 10 of the last block (where it has them) and of the last layer."""
        found, maps = [], self.body(images)
        for number, unit in enumerate(self.last):
            maps = unit(maps)
            if number in _ROG_UNITS:
                found.append(maps.mean(dim=(2, 3)))
        return [*found, self.end(maps).mean(dim=(2, 3))]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class DenseNet100(Backbone):
    """DenseNet-BC with 100 layers and growth 12: 769 162 parameters, 576 MFLOP per image.

    Huang et al. (arXiv 1608.06993) in the form of RoG's released code (pokaxpoka/RoGNoisyLabel, after
    andreasveit/densenet-pytorch): a stem of 2 x growth channels, bottlenecks of 4 x growth, half of the channels kept by each
    transition; convolutions from N(0, 2 / fan-out), the head's bias 0. `bottleneck: false` and `compression: 1` give the plain
    DenseNet of the paper, with a stem of 16 channels. Images have at least 4x4 pixels.
    """

    slug = "densenet100"
    summary = "DenseNet-BC, 100 layers, growth 12 (RoG), 0.77 M parameters"
    smallest = 4
    _relu: ClassVar[bool] = False  # ReLU after the convolution of a transition

    depth: Annotated[int, Range(ge=7)] = 100
    growth: Annotated[int, Range(ge=1)] = 12
    bottleneck: bool = True
    compression: Annotated[float, Range(gt=0, le=1)] = 0.5
    dropout: Annotated[float, Range(ge=0, lt=1)] = 0.0

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        per_unit = 6 if self.bottleneck else 3
        if (self.depth - 4) % per_unit:
            with_or_without = "with" if self.bottleneck else "without"
            raise FieldError("depth", f"{self.depth} is no depth of a DenseNet {with_or_without} bottlenecks", f"{per_unit}n + 4")
        network = DenseNetModule(
            shape[0], num_classes, stem=2 * self.growth if self.bottleneck else 16, units=(self.depth - 4) // per_unit,
            growth=self.growth, bottleneck=self.bottleneck, compression=self.compression, dropout=self.dropout, relu=self._relu,
        )  # fmt: skip
        he_normal(network, "fan_out")
        nn.init.zeros_(network.head.bias)
        return network


class SelfieDenseNet25(DenseNet100):
    """SELFIE's DenseNet with 25 layers and growth 12: 362 242 parameters, 193 MFLOP per image.

    As in the released code (kaist-dmlab/SELFIE, TensorFlow): a stem of 16 channels, no bottlenecks, transitions that keep all
    channels and have a ReLU of their own, dropout 0.2 after every convolution but the stem's, N(0, 2 / fan-out). The head,
    which TensorFlow draws from a truncated normal, starts from PyTorch's default weights and bias 0.
    """

    slug = "selfie-densenet25"
    summary = "DenseNet, 25 layers, growth 12, dropout 0.2 (SELFIE), 0.36 M parameters"
    _relu = True

    depth: Annotated[int, Range(ge=7)] = 25
    bottleneck: bool = False
    compression: Annotated[float, Range(gt=0, le=1)] = 1.0
    dropout: Annotated[float, Range(ge=0, lt=1)] = 0.2


class RogResNetModule(ResidualNet):
    def layer_features(self, images: Tensor) -> list[Tensor]:
        """Pooled features [B, D] of every block of the last stage."""
        *stages, last = self.stages.children()
        found, maps = [], nn.Sequential(*stages)(self.stem(images))
        for block in last.children():
            maps = block(maps)
            found.append(maps.mean(dim=(2, 3)))
        return found


class RogResNet34(CifarResNet34):
    """`cifar-resnet34` with 256 instead of 512 channels in the last stage, as in RoG's released code.

    11 773 258 parameters, 2 015 MFLOP per image.
    """

    slug = "rog-resnet34"
    summary = "ResNet-34 with a 3x3 stem and 256 channels in the last stage (RoG), 11.8 M parameters"
    _factors = (1, 2, 4, 4)
    _module = RogResNetModule
