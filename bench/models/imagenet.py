"""Networks for large photographs, from torchvision and timm, which are loaded when such a network is built.

Nothing is ever downloaded: pre-trained weights are read from `weights/` in the data folder, from the file that torchvision
would fetch. Sizes are for 1000 classes; one multiply-add counts as two operations.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bench.fields import FieldError
from bench.models import Backbone

#: where torchvision's files are published; each name ends with the first digits of the file's SHA-256
URL = "https://download.pytorch.org/models/"


class Headless(nn.Module):
    """A network of another library that is made to return its pooled features, and its linear layer, an attribute by name."""

    def __init__(self, body: nn.Module, classifier: str) -> None:
        super().__init__()
        head = getattr(body, classifier)
        setattr(body, classifier, nn.Identity())
        self.body, self.head = body, head

    def features(self, images: Tensor) -> Tensor:
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def read_weights(name: str, root: Path | None) -> dict[str, Tensor]:
    """The state dict in `root/weights/name`; `FieldError` where the file is missing or not the published one."""
    get = f"download {URL}{name} into the folder `weights` of the data folder (--data DIR or BENCH_DATA)"
    if root is None:
        raise FieldError("weights", f"{name} is read from the data folder, and none is given", get)
    path = root / "weights" / name
    if not path.is_file():
        raise FieldError("weights", f"{path} is missing", get)
    content = path.read_bytes()
    wanted, found = path.stem.rpartition("-")[2], hashlib.sha256(content).hexdigest()
    if not found.startswith(wanted):
        raise FieldError("weights", f"{path} is damaged: its SHA-256 begins with {found[: len(wanted)]}, not {wanted}", get)
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


class _TorchvisionResNet(Backbone):
    """What the ResNets of torchvision share: weights, another number of input channels, another head."""

    #: value of `weights` -> torchvision's file
    files: ClassVar[dict[str, str]] = {}
    weights: str = "none"

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        import torchvision

        if self.weights != "none" and shape[0] != 3:
            message = f"the weights are for colour images, and these have {shape[0]} channel{'s' * (shape[0] != 1)}"
            raise FieldError("weights", message, "weights: none")
        body = getattr(torchvision.models, self.slug)(weights=None, num_classes=num_classes)
        if shape[0] != 3:
            body.conv1 = nn.Conv2d(shape[0], 64, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
        return Headless(body, "fc")

    def load(self, network: nn.Module, root: Path | None) -> None:
        """The body's weights, and the head's where there are 1000 classes; any other head stays as it was initialised."""
        if self.weights == "none":
            return
        state = read_weights(self.files[self.weights], root)
        head = {key: state.pop(f"fc.{key}") for key in ("weight", "bias")}
        network.body.load_state_dict(state)  # type: ignore[union-attr]
        if network.head.out_features == len(head["bias"]):  # type: ignore[union-attr,arg-type]
            network.head.load_state_dict(head)  # type: ignore[union-attr]


class ResNet18(_TorchvisionResNet):
    """torchvision's ResNet-18: 11 689 512 parameters, 3 628 MFLOP per 224x224 image. From scratch on WebVision: MOIT, Sel-CL."""

    slug = "resnet18"
    summary = "torchvision's ResNet-18 for large images, 11.7 M parameters"
    files = {"imagenet1k-v1": "resnet18-f37072fd.pth"}

    weights: Literal["none", "imagenet1k-v1"] = "none"


class ResNet34(_TorchvisionResNet):
    """torchvision's ResNet-34: 21 797 672 parameters, 7 328 MFLOP per 224x224 image."""

    slug = "resnet34"
    summary = "torchvision's ResNet-34 for large images, 21.8 M parameters"
    files = {"imagenet1k-v1": "resnet34-b627a593.pth"}

    weights: Literal["none", "imagenet1k-v1"] = "none"


class ResNet50(_TorchvisionResNet):
    """torchvision's ResNet-50 (stride in the 3x3 convolution): 25 557 032 parameters, 8 178 MFLOP per 224x224 image.

    The pre-trained network of Clothing1M, Waterbirds and CelebA, always with `imagenet1k-v1`: papers are older than `v2`.
    """

    slug = "resnet50"
    summary = "torchvision's ResNet-50 for large images, 25.6 M parameters"
    files = {"imagenet1k-v1": "resnet50-0676ba61.pth", "imagenet1k-v2": "resnet50-11ad3fa6.pth"}

    weights: Literal["none", "imagenet1k-v1", "imagenet1k-v2"] = "none"


class InceptionResNetV2(Backbone):
    """Inception-ResNet-v2 (Szegedy et al., arXiv 1602.07261) of timm: 55 843 464 parameters, 26 312 MFLOP per 299x299 image.

    The network of WebVision-50, trained from scratch. Layer by layer that of DivideMix's released code, except that the last
    map is averaged over all its pixels instead of 8x8 (the same at 299x299). Images have at least 75x75 pixels.
    """

    slug = "inception-resnet-v2"
    summary = "timm's Inception-ResNet-v2 for WebVision, 55.8 M parameters; needs timm"
    smallest = 75

    def build(self, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        try:
            import timm
        except ImportError:
            raise FieldError("model", f"{self.slug} comes from timm, which is not installed", "pip install timm") from None
        body = timm.create_model("inception_resnet_v2", pretrained=False, num_classes=num_classes, in_chans=shape[0])
        return Headless(body, "classif")
