"""Wide residual networks (Zagoruyko and Komodakis, arXiv 1605.07146). They take images of any size and channels."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from torch import nn

from bench.fields import FieldError, Range
from bench.models import Backbone
from bench.models._residual import PreActBlock, ResidualNet, conv_stem, he_normal, make_stages, norm_relu


class WRN282(Backbone):
    """WRN-28-2: 1 467 610 parameters, 429 MFLOP per 3x32x32 image.

    As in the authors' code (szagoruyko/wide-residual-networks): a bare 3x3 stem of 16 channels, three stages of (depth - 4) / 6
    pre-activation blocks with 16, 32 and 64 times `width` channels, 1x1 projections of the first activation where shape
    changes, batch norm and ReLU at the end. Convolutions start from N(0, 2 / fan-in), the head's bias from 0. `dropout`
    stands before the second convolution of each block (the paper tries 0.3 on CIFAR).
    """

    slug = "wrn-28-2"
    summary = "wide ResNet, 28 layers, width 2, 1.5 M parameters"

    depth: Annotated[int, Range(ge=10)] = 28
    width: Annotated[int, Range(ge=1)] = 2
    dropout: Annotated[float, Range(ge=0, lt=1)] = 0.0

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        if (self.depth - 4) % 6:
            raise FieldError("depth", f"{self.depth} is no depth of a wide ResNet", "6n + 4: 10, 16, 22, 28 or 40")
        widths = [16 * self.width, 32 * self.width, 64 * self.width]
        stem = conv_stem(shape[0], 16, norm=False)
        block = partial(PreActBlock, dropout=self.dropout)
        stages = make_stages(block, 16, widths, [(self.depth - 4) // 6] * 3)
        network = ResidualNet(stem, stages, norm_relu(widths[-1]), widths[-1], num_classes)
        he_normal(network, "fan_in")
        nn.init.zeros_(network.head.bias)
        return network


class WRN2810(WRN282):
    """WRN-28-10, the network of ODD and of several label generators: 36 479 194 parameters, 10 487 MFLOP per 3x32x32 image.

    See `wrn-28-2`.
    """

    slug = "wrn-28-10"
    summary = "wide ResNet, 28 layers, width 10, 36.5 M parameters"

    width: Annotated[int, Range(ge=1)] = 10
