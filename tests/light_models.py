"""Every model in a form that a test can afford: the same layers, fewer channels where its fields allow it."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.models import build, model_class, models

LIGHT: dict[str, dict[str, Any]] = {
    "cifar-resnet18": {"width": 4}, "cifar-resnet34": {"width": 4}, "cnn6": {"width": 8}, "preact-resnet18": {"width": 4},
    "preact-resnet32": {"width": 4}, "resnet32": {"width": 4}, "rog-resnet34": {"width": 4}, "densenet100": {"depth": 40},
    "vgg19-bn": {"hidden": 16}, "selfie-vgg19": {"hidden": 16}, "wrn-28-2": {"depth": 10}, "wrn-28-10": {"depth": 10, "width": 3},
}  # fmt: skip

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is an optional extra")


def named(name: str) -> Any:
    """One case of a parametrised test, skipped where the model's package is not installed."""
    return pytest.param(name, marks=needs_timm) if name == "inception-resnet-v2" else name


every_model = pytest.mark.parametrize("name", [named(name) for name in models()])


def light(name: str) -> dict[str, Any]:
    """The identity of the light form."""
    return {"name": name, **LIGHT.get(name, {})}


def smallest(name: str, channels: int = 1) -> tuple[int, int, int]:
    """The shape of the smallest images that it takes, of at least 8x8 pixels."""
    side = max(8, model_class(name).smallest)
    return (channels, side, side)


@functools.lru_cache(maxsize=64)
def light_network(name: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network in evaluation mode that tests share and leave as it is; its running statistics are not the initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(light(name), shape, classes)
        for module in network.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                nn.init.uniform_(module.running_mean, -0.1, 0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def on_meta(identity: dict[str, Any], shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The full network without memory."""
    with torch.device("meta"):
        return build(identity, shape, classes).eval()
