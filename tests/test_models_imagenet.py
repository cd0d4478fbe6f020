"""The backbones that come from torchvision and timm, and pre-trained weights from local files."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from light_models import images, light_network, needs_timm, on_meta
from torch import Tensor, nn

from bench.fields import FieldError
from bench.models import build, model_class
from bench.models.imagenet import read_weights


@pytest.fixture
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_resnets_are_torchvisions(name: str) -> None:
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        theirs = getattr(torchvision.models, name)(num_classes=7).eval()
        torch.manual_seed(3)
        ours: Any = build({"name": name}, (3, 40, 40), 7).eval()
    pairs = list(zip(theirs.state_dict().items(), ours.state_dict().items(), strict=True))
    assert all(a == b.replace("body.", "").replace("head.", "fc.") and torch.equal(x, y) for (a, x), (b, y) in pairs)
    batch = images(2, 3, 40, 40)
    assert torch.equal(theirs(batch), ours(batch))
    assert model_class(name).files == {
        f"imagenet1k-v{version}": str(weights.url).rsplit("/", 1)[1]
        for weights in torchvision.models.get_model_weights(name)
        for version in [weights.name[-1]]
    }


def test_the_stem_for_other_channels_starts_as_torchvisions_does(seeded: None) -> None:
    stem: Any = build({"name": "resnet18"}, (1, 32, 32), 7).body.conv1
    assert stem.weight.shape == (64, 1, 7, 7) and stem.stride == (2, 2) and stem.padding == (3, 3) and stem.bias is None
    assert float(stem.weight.detach().var()) == pytest.approx(2 / (64 * 49), rel=0.1)  # fan-out


def test_vgg19_bn_is_torchvisions() -> None:
    import torchvision

    with torch.device("meta"):
        theirs = torchvision.models.vgg19_bn(num_classes=10).eval()
    shapes = [tuple(p.shape) for p in theirs.parameters()]
    assert shapes == [tuple(p.shape) for p in on_meta({"name": "vgg19-bn"}, (3, 64, 64), 10).parameters()]
    kinds = [type(layer) for layer in theirs.classifier]
    for side in (64, 96):  # the last map is 2x2 and 3x3
        ours: Any = light_network("vgg19-bn", (3, side, side), 2)
        theirs.features.load_state_dict(ours.body.state_dict(), assign=True)
        assert kinds == [type(layer) for layer in (*list(ours.hidden)[2:], ours.head)]
        theirs.classifier = nn.Sequential(*list(ours.hidden)[2:], ours.head)
        batch = images(2, 3, side, side)
        torch.testing.assert_close(theirs(batch), ours(batch))


@needs_timm
def test_inception_resnet_v2_averages_the_last_map() -> None:
    network: Any = light_network("inception-resnet-v2", (3, 75, 78), 10)
    batch = images(2, 3, 75, 78)
    with torch.no_grad():
        torch.testing.assert_close(network.features(batch), network.body.forward_features(batch).mean(dim=(2, 3)))


def test_a_missing_timm_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(FieldError, match=r"inception-resnet-v2 comes from timm.*pip install timm"):
        build({"name": "inception-resnet-v2"}, (3, 75, 75), 2)


# --- pre-trained weights from local files


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeded: None) -> tuple[Path, dict[str, Tensor]]:
    """A data folder with a file of weights for resnet18, named as its content wants it."""
    import torchvision

    state = torchvision.models.resnet18(num_classes=1000).state_dict()
    (tmp_path / "weights").mkdir()
    torch.save(state, tmp_path / "weights" / "new.pth")
    digest = hashlib.sha256((tmp_path / "weights" / "new.pth").read_bytes()).hexdigest()
    path = (tmp_path / "weights" / "new.pth").rename(tmp_path / "weights" / f"resnet18-{digest[:8]}.pth")
    monkeypatch.setitem(model_class("resnet18").files, "imagenet1k-v1", path.name)
    return path, state


def test_weights_are_read_from_a_local_file(stored: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = stored
    identity = {"name": "resnet18", "weights": "imagenet1k-v1"}
    root = path.parent.parent
    torch.manual_seed(1)
    network: Any = build(identity, (3, 32, 32), 5, root)
    torch.manual_seed(1)
    plain: Any = build({"name": "resnet18"}, (3, 32, 32), 5, root)
    assert all(torch.equal(value, state[key]) for key, value in network.body.state_dict().items())
    assert len(network.body.state_dict()) == len(state) - 2
    assert torch.equal(network.head.weight, plain.head.weight)  # five classes: a new head, from the same stream
    assert not torch.equal(plain.body.conv1.weight, network.body.conv1.weight)
    whole: Any = build(identity, (3, 32, 32), 1000, root)
    assert torch.equal(whole.head.weight, state["fc.weight"]) and torch.equal(whole.head.bias, state["fc.bias"])


def test_errors_of_weights(stored: tuple[Path, dict[str, Tensor]]) -> None:
    path, _ = stored
    identity = {"name": "resnet18", "weights": "imagenet1k-v1"}
    root = path.parent.parent
    with pytest.raises(FieldError, match="weights are for colour images, and these have 1 channel") as caught:
        build(identity, (1, 32, 32), 5, root)
    assert caught.value.key == "weights"
    with pytest.raises(FieldError, match="read from the data folder, and none is given.*--data DIR or BENCH_DATA"):
        build(identity, (3, 32, 32), 5)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(FieldError, match=r"\.pth is damaged: its SHA-256 begins with [0-9a-f]{8}, not [0-9a-f]{8}"):
        build(identity, (3, 32, 32), 5, root)
    path.unlink()
    with pytest.raises(FieldError) as caught:
        build(identity, (3, 32, 32), 5, root)
    told = str(caught.value)
    assert f"{path} is missing" in told and f"download https://download.pytorch.org/models/{path.name}" in told
    assert "--data DIR or BENCH_DATA" in told
    with pytest.raises(FieldError, match="'imagenet1k-v2' is not a valid value.*none, imagenet1k-v1"):
        build({"name": "resnet34", "weights": "imagenet1k-v2"}, (3, 32, 32), 5, root)


def test_weights_never_run_code(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "new.pth"
    torch.save({"fc": Path("/")}, path)
    path = path.rename(path.with_name(f"x-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"))
    with pytest.raises(Exception, match="[Ww]eights.only"):
        read_weights(path.name, tmp_path)
