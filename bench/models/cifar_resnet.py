"""Residual networks for small images: 3x3 stem of stride 1, no max-pooling, average pooling over the last map.

All of them take images of any size and any number of channels. Sizes are for 3x32x32 and ten classes; one multiply-add
counts as two operations.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Literal

from torch import nn

from bench.fields import FieldError, Range
from bench.models import Backbone
from bench.models._residual import BasicBlock, PreActBlock, ResidualNet, conv_stem, he_normal, make_stages, norm_relu


class PreActResNet18(Backbone):
    """The PreAct-ResNet-18 of the DivideMix line: 11 171 274 parameters, 1 111 MFLOP per image.

    As in the released code of M-correction (PaulAlbert31/LabelNoiseCorrection), DivideMix (LiJunnan1992/DivideMix), ELR+ and
    MOIT. It differs from the pre-activation network of He et al. (arXiv 1603.05027) in three ways, all kept here: the stem has
    batch norm and ReLU, blocks without a projection add their first activation instead of their input, and nothing follows
    the last addition (`final_norm` adds batch norm and ReLU there, as TCL does). Initial weights are PyTorch's defaults.
    """

    slug = "preact-resnet18"
    summary = "PreAct-ResNet-18 as released with DivideMix, 11.2 M parameters"

    width: Annotated[int, Range(ge=1)] = 64
    final_norm: bool = False

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        widths = [self.width * factor for factor in (1, 2, 4, 8)]
        stem = conv_stem(shape[0], self.width)
        stages = make_stages(partial(PreActBlock, activated_skip=True), self.width, widths, (2, 2, 2, 2))
        end = norm_relu(widths[-1]) if self.final_norm else nn.Identity()
        return ResidualNet(stem, stages, end, widths[-1], num_classes)


class CifarResNet18(Backbone):
    """ResNet-18 with the 3x3 stem: 11 173 962 parameters, 1 111 MFLOP per image.

    As in kuangliu/pytorch-cifar, of which the released code of Late Stopping has a copy and which Nested Co-teaching's equals:
    basic blocks, 1x1 convolutions with batch norm where shape changes, no bias before batch norm, PyTorch's default initial
    weights.
    """

    slug = "cifar-resnet18"
    summary = "ResNet-18 with a 3x3 stem (pytorch-cifar), 11.2 M parameters"
    _blocks: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)
    _factors: ClassVar[tuple[int, ...]] = (1, 2, 4, 8)
    _module: ClassVar[type[ResidualNet]] = ResidualNet

    width: Annotated[int, Range(ge=1)] = 64

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        widths = [self.width * factor for factor in self._factors]
        stem = conv_stem(shape[0], self.width)
        stages = make_stages(BasicBlock, self.width, widths, self._blocks)
        return self._module(stem, stages, nn.Identity(), widths[-1], num_classes)


class CifarResNet34(CifarResNet18):
    """ResNet-34 with the 3x3 stem: 21 282 122 parameters, 2 319 MFLOP per image.

    As in the released code of ELR and SELC, which have copies of kuangliu/pytorch-cifar; GCE and CIFAR-N name the same network.
    See `cifar-resnet18`.
    """

    slug = "cifar-resnet34"
    summary = "ResNet-34 with a 3x3 stem (ELR, SELC, CIFAR-N), 21.3 M parameters"
    _blocks = (3, 4, 6, 3)


class ResNet32(Backbone):
    """The CIFAR networks of He et al. (arXiv 1512.03385, section 4.2), depth 6n + 2: 464 154 parameters, 138 MFLOP per image.

    Three stages of n basic blocks with 16, 32 and 64 channels, zero-padded skips (`shortcut: pad`, option A). Initial weights
    of convolutions and head are N(0, 2 / fan-in), as in akamaster/pytorch_resnet_cifar10, the usual port. Depths 14, 32 and 44
    are those of forward and backward correction; `shortcut: conv` is the form of ljmiao/PENCIL (466 906 parameters).
    """

    slug = "resnet32"
    summary = "ResNet-32 for CIFAR, 16-32-64 channels, 0.46 M parameters; depth 6n + 2"

    depth: Annotated[int, Range(ge=8)] = 32
    width: Annotated[int, Range(ge=1)] = 16
    shortcut: Literal["pad", "conv"] = "pad"

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        if (self.depth - 2) % 6:
            raise FieldError("depth", f"{self.depth} is no depth of this network", "6n + 2: 8, 14, 20, 32, 44, 56 or 110")
        widths = [self.width, 2 * self.width, 4 * self.width]
        stem = conv_stem(shape[0], self.width)
        stages = make_stages(partial(BasicBlock, shortcut=self.shortcut), self.width, widths, [(self.depth - 2) // 6] * 3)
        network = ResidualNet(stem, stages, nn.Identity(), widths[-1], num_classes)
        he_normal(network, "fan_in")
        nn.init.kaiming_normal_(network.head.weight, nonlinearity="relu")
        return network


class ResNet8(ResNet32):
    """`resnet32` with one block per stage, for CPU cores: 75 290 parameters, 24 MFLOP per image."""

    slug = "resnet8"
    summary = "ResNet-8 for CIFAR, 16-32-64 channels, 75 k parameters, for CPU cores"

    depth: Annotated[int, Range(ge=8)] = 8


class PreActResNet32(Backbone):
    """The PreAct-ResNet-32 of joint optimisation: 1 861 162 parameters, 553 MFLOP per image.

    As in the released code of Tanaka et al. (DaikiTanaka-UT/JointOptimization, Chainer): a bare 3x3 stem, three stages of five
    blocks with 32, 64 and 128 channels, the first block of every stage (also of the first) with a 1x1 projection, batch norm
    and ReLU at the end, batch norm's epsilon 2e-5 (Chainer's). Convolutions start from N(0, 2 / fan-in), the head from
    N(0, 1 / fan-in) with bias 0. PENCIL and MLNT name the same network; PENCIL's file of it is missing from its repository.
    """

    slug = "preact-resnet32"
    summary = "PreAct-ResNet-32 of joint optimisation, 32-64-128 channels, 1.9 M parameters"

    width: Annotated[int, Range(ge=1)] = 32

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        eps = 2e-5
        widths = [self.width, 2 * self.width, 4 * self.width]
        stem = conv_stem(shape[0], self.width, norm=False)
        first, later = partial(PreActBlock, project=True, eps=eps), partial(PreActBlock, eps=eps)
        channels, stages = self.width, []
        for number, width in enumerate(widths):
            blocks = [first(channels, width, 2 if number else 1), *(later(width, width, 1) for _ in range(4))]
            stages.append(nn.Sequential(*blocks))
            channels = width
        network = ResidualNet(stem, stages, norm_relu(channels, eps), channels, num_classes)
        he_normal(network, "fan_in")
        nn.init.kaiming_normal_(network.head.weight, nonlinearity="linear")
        nn.init.zeros_(network.head.bias)
        return network
