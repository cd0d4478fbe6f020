"""Parts that the residual networks share: two kinds of blocks, the network around them, and the initialisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

#: (input channels, output channels, stride) -> one block
MakeBlock = Callable[[int, int, int], nn.Module]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each followed by batch norm; ReLU after the addition (He et al., arXiv 1512.03385).

    Where shape changes, the skip is a strided 1x1 convolution with batch norm ("conv": option B of the paper) or every second
    pixel with zero channels on both sides ("pad": option A).
    """

    def __init__(self, channels: int, out: int, stride: int, shortcut: Literal["conv", "pad"] = "conv") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            if shortcut == "pad":
                self.shortcut = _Pad(stride, out - channels)
            else:
                self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(images)), inplace=True)
        return F.relu(self.bn2(self.conv2(hidden)) + self.shortcut(images), inplace=True)


class _Pad(nn.Module):
    def __init__(self, stride: int, missing: int) -> None:
        super().__init__()
        self.stride, self.before, self.after = stride, missing // 2, missing - missing // 2

    def forward(self, images: Tensor) -> Tensor:
        return F.pad(images[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class PreActBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions, nothing after the addition (He et al., arXiv 1603.05027).

    Where shape changes (or `project`), the skip is a 1x1 convolution of the first activation. Elsewhere it is the block's
    input, or, with `activated_skip`, its first activation. Dropout stands before the second convolution.
    """

    def __init__(
        self, channels: int, out: int, stride: int, *,
        activated_skip: bool = False, project: bool = False, dropout: float = 0.0, eps: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels, eps=eps)
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out, eps=eps)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        changed = project or stride != 1 or channels != out
        self.activated_skip = activated_skip or changed
        self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False) if changed else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        active = F.relu(self.bn1(images), inplace=True)
        skip = self.shortcut(active if self.activated_skip else images)
        hidden = F.relu(self.bn2(self.conv1(active)), inplace=True)
        return self.conv2(self.dropout(hidden)) + skip


class ResidualNet(nn.Module):
    """Stem, stages of blocks, what ends them, average pooling over all pixels, and one linear layer."""

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], end: nn.Module, width: int, num_classes: int) -> None:
        super().__init__()
        self.stem, self.stages, self.end = stem, nn.Sequential(*stages), end
        self.head = nn.Linear(width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        return self.end(self.stages(self.stem(images))).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def make_stages(block: MakeBlock, channels: int, widths: Sequence[int], counts: Sequence[int]) -> list[nn.Module]:
    """One stage per width, of `count` blocks each; every stage but the first halves the image with its first block."""
    stages: list[nn.Module] = []
    for number, (width, count) in enumerate(zip(widths, counts, strict=True)):
        blocks = []
        for position in range(count):
            blocks.append(block(channels, width, 2 if number > 0 and position == 0 else 1))
            channels = width
        stages.append(nn.Sequential(*blocks))
    return stages


def conv_stem(channels: int, width: int, *, norm: bool = True) -> nn.Module:
    """A 3x3 convolution of stride 1 without bias, then (with `norm`) batch norm and ReLU."""
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)) if norm else conv


def norm_relu(width: int, eps: float = 1e-5) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(width, eps=eps), nn.ReLU(inplace=True))


def he_normal(network: nn.Module, mode: Literal["fan_in", "fan_out"]) -> None:
    """All convolutions from N(0, 2 / fan) (He et al., arXiv 1502.01852), their biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
