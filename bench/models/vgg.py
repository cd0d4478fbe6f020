"""VGG networks with batch norm (Simonyan and Zisserman, arXiv 1409.1556). Images have at least 32x32 pixels.

One multiply-add counts as two operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from bench.fields import Range
from bench.models import Backbone
from bench.models._residual import he_normal

#: convolutions per stage of the paper's configurations B and E
_VGG13, _VGG19 = (2, 2, 2, 2, 2), (2, 2, 4, 4, 4)
_WIDTHS = (64, 128, 256, 512, 512)


def _convolutions(channels: int, counts: Sequence[int]) -> nn.Module:
    """Stages of 3x3 convolutions with bias, batch norm and ReLU, each ended by 2x2 max-pooling."""
    layers: list[nn.Module] = []
    for width, count in zip(_WIDTHS, counts, strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class VGGModule(nn.Module):
    """Convolutions, hidden layers from the last map to one vector, linear layer."""

    def __init__(self, body: nn.Module, hidden: Sequence[nn.Module], head: nn.Linear) -> None:
        super().__init__()
        self.body, self.hidden, self.head = body, nn.Sequential(*hidden), head

    def features(self, images: Tensor) -> Tensor:
        return self.hidden(self.body(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def _averages(size: int, bins: int) -> Tensor:
    """[bins, size]: row i averages the pixels from floor(i size / bins) to ceil((i + 1) size / bins), the last left out."""
    weights = torch.zeros(bins, size)
    for i in range(bins):
        begin, end = i * size // bins, -(-(i + 1) * size // bins)
        weights[i, begin:end] = 1 / (end - begin)
    return weights


class AdaptiveAverage(nn.Module):
    """`nn.AdaptiveAvgPool2d` from a fixed size [h, w] as two products; CUDA has no deterministic gradient of the original."""

    rows: Tensor
    columns: Tensor

    def __init__(self, size: tuple[int, int], bins: int) -> None:
        super().__init__()
        self.same = size == (bins, bins)
        self.register_buffer("rows", _averages(size[0], bins), persistent=False)
        self.register_buffer("columns", _averages(size[1], bins).T.contiguous(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images if self.same else self.rows @ images @ self.columns


class VGG19BN(Backbone):
    """VGG-19 with batch norm in torchvision's form, the network of ANIMAL-10N: 139 622 218 parameters, 3 424 MFLOP at 64x64.

    What PLC, SELC and Nested Co-teaching train from scratch on ANIMAL-10N (their released code copies or calls torchvision's
    `vgg19_bn`): the last map (2x2 for 64x64 images) is stretched to 7x7 by adaptive average pooling, followed by two hidden
    layers of 4096 units with dropout 0.5. Initial weights are torchvision's: convolutions N(0, 2 / fan-out), linear layers
    N(0, 0.01), biases 0. SELFIE's own VGG-19 is `selfie-vgg19`.
    """

    slug = "vgg19-bn"
    summary = "VGG-19 with batch norm in torchvision's form (ANIMAL-10N), 139.6 M parameters"
    smallest = 32

    hidden: Annotated[int, Range(ge=1)] = 4096
    dropout: Annotated[float, Range(ge=0, lt=1)] = 0.5

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        body = _convolutions(shape[0], _VGG19)
        hidden: list[nn.Module] = [AdaptiveAverage((shape[1] // 32, shape[2] // 32), 7), nn.Flatten()]
        for inputs in (_WIDTHS[-1] * 49, self.hidden):
            hidden += [nn.Linear(inputs, self.hidden), nn.ReLU(inplace=True), nn.Dropout(self.dropout)]
        network = VGGModule(body, hidden, nn.Linear(self.hidden, num_classes))
        he_normal(network, "fan_out")
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)
        return network


class SelfieVGG19(Backbone):
    """SELFIE's VGG-19: 38 975 306 parameters, 834 MFLOP per 3x32x32 image.

    As in the released code (kaist-dmlab/SELFIE, TensorFlow): the last map is flattened, the two hidden layers of 4096 units
    have batch norm before ReLU and dropout 0.5 after it. Convolutions start from N(0, 2 / fan-out), linear layers from
    N(0, 2 / fan-in), biases from 0.
    """

    slug = "selfie-vgg19"
    summary = "VGG-19 with batch norm in all layers (SELFIE), 39 M parameters at 32x32"
    smallest = 32

    hidden: Annotated[int, Range(ge=1)] = 4096
    dropout: Annotated[float, Range(ge=0, lt=1)] = 0.5

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        body = _convolutions(shape[0], _VGG19)
        hidden: list[nn.Module] = [nn.Flatten()]
        for inputs in (_WIDTHS[-1] * (shape[1] // 32) * (shape[2] // 32), self.hidden):
            norm, dropout = nn.BatchNorm1d(self.hidden), nn.Dropout(self.dropout)
            hidden += [nn.Linear(inputs, self.hidden), norm, nn.ReLU(inplace=True), dropout]
        network = VGGModule(body, hidden, nn.Linear(self.hidden, num_classes))
        he_normal(network, "fan_out")
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        return network


class VGG13(Backbone):
    """VGG-13 for CIFAR: 9 416 010 parameters, 457 MFLOP per 3x32x32 image.

    RoG names VGG-13 for its semantic noise and has not released it. This is the form of kuangliu/pytorch-cifar: batch norm,
    average pooling of the last map (one pixel at 32x32), no hidden layer, PyTorch's default initial weights.
    """

    slug = "vgg13"
    summary = "VGG-13 with batch norm and no hidden layers (pytorch-cifar), 9.4 M parameters"
    smallest = 32

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        body = _convolutions(shape[0], _VGG13)
        return VGGModule(body, [nn.AdaptiveAvgPool2d(1), nn.Flatten()], nn.Linear(_WIDTHS[-1], num_classes))
