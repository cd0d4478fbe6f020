"""The backbones of the papers: published sizes, what is exact about each, initial weights as released."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from light_models import images, light, light_network, needs_timm, on_meta, size
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench.models import build, model_class, models
from bench.models._residual import BasicBlock, PreActBlock
from bench.models.vgg import AdaptiveAverage


def mflops(network: nn.Module, shape: tuple[int, int, int]) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, *shape, device="meta"))
    return counter.get_total_flops() / 1e6


@pytest.fixture
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def grown(in_channels: int, units: int) -> int:
    """Weights of `units` DenseNet-BC units of growth 12, the first of which sees `in_channels`."""
    return sum(2 * (c := in_channels + 12 * i) + c * 48 + 2 * 48 + 9 * 48 * 12 for i in range(units))


def joint(w: int) -> int:
    """Parameters of the PreAct-ResNet-32: per block two norms, two convolutions and, in each stage's first, a projection."""
    first = sum(2 * a + 9 * a * b + 2 * b + 9 * b * b + a * b for a, b in ((w, w), (w, 2 * w), (2 * w, 4 * w)))
    return 27 * w + first + sum(4 * (18 * b * b + 4 * b) for b in (w, 2 * w, 4 * w)) + 8 * w + (4 * w + 1) * 10


#: (slug, shape, classes, parameters, MFLOP per image). Parameters: the released networks', torchvision's and timm's own, and
#: the papers' where they print that many digits; operations follow from the shapes, 2 x 9 x 3 x 64 x 32 x 32 for a stem.
PUBLISHED = [
    ("preact-resnet18", (3, 32, 32), 10, 11_171_274, 1111),  # pytorch-cifar's 11 171 146 and the stem's batch norm
    ("cifar-resnet18", (3, 32, 32), 10, 11_173_962, 1111),
    ("cifar-resnet34", (3, 32, 32), 10, 21_282_122, 2319),
    ("rog-resnet34", (3, 32, 32), 10, 11_773_258, 2015),
    ("resnet32", (3, 32, 32), 10, 464_154, 138),
    ("resnet8", (3, 32, 32), 10, 75_290, 24),
    ("preact-resnet32", (3, 32, 32), 10, joint(32), 553),
    ("wrn-28-2", (3, 32, 32), 10, 1_467_610, 429),
    ("wrn-28-10", (3, 32, 32), 10, 36_479_194, 10487),
    # stem; blocks of 16 units from 24, 108 and 150 channels; transitions from 216 and 300; end from 342
    (
        "densenet100", (3, 32, 32), 10,
        9 * 3 * 24 + grown(24, 16) + grown(108, 16) + grown(150, 16) + 432 + 216 * 108 + 600 + 300 * 150 + 684 + 343 * 10, 576,
    ),  # 769 162
    # stem; 7 units of 9 x c x 12 + 2 c each from 16, 100 and 184 channels; transitions 100 -> 100, 184 -> 184; end from 268
    (
        "selfie-densenet25", (3, 32, 32), 10,
        9 * 3 * 16 + sum(110 * (start + 12 * i) for start in (16, 100, 184) for i in range(7)) + 200 + 100**2 + 368 + 184**2
        + 536 + 269 * 10, 193,
    ),  # 362 242
    ("vgg13", (3, 32, 32), 10, 9_416_010, 457),
    ("vgg19-bn", (3, 64, 64), 10, 139_622_218, 3424),  # torchvision's 143 678 248 with 10 instead of 1000 classes
    # pytorch-cifar's VGG-19 with another end
    ("selfie-vgg19", (3, 32, 32), 10, 20_040_522 - 5130 + 513 * 4096 + 4097 * 4096 + 4 * 4096 + 4097 * 10, 834),
    ("cnn9", (3, 32, 32), 10, 4_434_570, 1491),
    ("cnn7", (3, 32, 32), 10, 518_150, 225),
    ("lenet", (3, 32, 32), 10, 76 * 6 + 151 * 16 + 401 * 120 + 121 * 84 + 85 * 10, 1.3),  # 62 006
    ("cnn6", (3, 32, 32), 10, 9 * (96 + 1024 + 2048 + 4096 + 8192 + 16384) + 4 * 224 + 129 * 10, 35),  # 288 746
    ("resnet18", (3, 224, 224), 1000, 11_689_512, 3628),
    ("resnet34", (3, 224, 224), 1000, 21_797_672, 7328),
    ("resnet50", (3, 224, 224), 1000, 25_557_032, 8178),
    ("inception-resnet-v2", (3, 299, 299), 1000, 55_843_464, 26312),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shape", "classes", "parameters", "mflop"),
    [pytest.param(*row, marks=needs_timm if row[0] == "inception-resnet-v2" else ()) for row in PUBLISHED],
    ids=[row[0] for row in PUBLISHED],
)
def test_sizes_are_the_published_ones(
    name: str, shape: tuple[int, int, int], classes: int, parameters: int, mflop: float
) -> None:
    network = on_meta({"name": name}, shape, classes)
    assert size(network) == parameters
    assert mflops(network, shape) == pytest.approx(mflop, abs=0.06 if mflop < 10 else 0.51)
    said = str(model_class(name).__doc__)
    assert f"{parameters:,}".replace(",", " ") + " parameters" in said and f"{mflop:,} MFLOP".replace(",", " ") in said


def test_every_model_has_a_published_size() -> None:
    assert {row[0] for row in PUBLISHED} | {"tiny-cnn", "mlp"} == set(models())


@pytest.mark.parametrize(
    ("identity", "parameters"),
    [
        ({"name": "resnet32", "shortcut": "conv"}, 466_906),  # two projections: 16 x 32 + 64 and 32 x 64 + 128 more
        ({"name": "resnet32", "depth": 20}, 269_722),  # He et al., table 6: 0.27 M; 44: 0.66 M; 110: 1.7 M
        ({"name": "resnet32", "depth": 44}, 658_586),
        ({"name": "resnet32", "depth": 110}, 1_727_962),
        ({"name": "wrn-28-2", "depth": 40, "width": 4}, 8_949_210),  # Zagoruyko and Komodakis, table 4: 8.9 M, 11.0 M, 2.2 M
        ({"name": "wrn-28-10", "depth": 16, "width": 8}, 10_961_370),
        ({"name": "wrn-28-2", "depth": 40}, 2_243_546),
        ({"name": "densenet100", "depth": 40, "bottleneck": False, "compression": 1}, 1_019_722),  # Huang et al.: 1.0 M
        ({"name": "preact-resnet18", "final_norm": True}, 11_171_274 + 2 * 512),
        ({"name": "preact-resnet32", "width": 16}, joint(16)),
    ],
)
def test_sizes_of_other_fields(identity: dict[str, Any], parameters: int) -> None:
    assert size(on_meta(identity, (3, 32, 32), 10)) == parameters


# --- against the released code

#: logits of classes 0, 1 and 2 for the second of two images, training mode, as the authors' code computes them in double
#: precision from the same parameters and images
RELEASED = [
    ({"name": "preact-resnet18"}, (2.2387183, -1.1467702, 2.3030839)),  # LiJunnan1992/DivideMix, PreResNet.py
    ({"name": "cifar-resnet18"}, (5.5107807, -4.3983572, 5.5136025)),  # kuangliu/pytorch-cifar, models/resnet.py
    ({"name": "cifar-resnet34"}, (7.1315522, -6.0158777, 7.1176276)),  # shengliu66/ELR, ELR/model/ResNet_Zoo.py
    ({"name": "rog-resnet34"}, (5.3274564, 0.4646566, -4.2270174)),  # pokaxpoka/RoGNoisyLabel, models/resnet.py
    ({"name": "resnet32"}, (1.9928657, 3.2633341, 1.1977817)),  # akamaster/pytorch_resnet_cifar10, resnet.py
    ({"name": "resnet32", "shortcut": "conv"}, (3.9227311, 2.4961122, -1.3333667)),  # ljmiao/PENCIL, resnet.py
    ({"name": "densenet100"}, (1.9645669, -0.7213092, 1.4956601)),  # pokaxpoka/RoGNoisyLabel, models/densenet.py
    ({"name": "wrn-28-2"}, (1.3744645, 0.063573, 0.4378724)),  # xternalz/WideResNet-pytorch, wideresnet.py
    ({"name": "vgg13"}, (2.2001506, -1.1115193, 2.271373)),  # kuangliu/pytorch-cifar, models/vgg.py
    ({"name": "cnn9", "dropout": 0}, (1.3841308, 0.0537743, 0.4417851)),  # bhanML/Co-teaching, model.py, without dropout
    ({"name": "cnn7"}, (0.7248393, 0.7381506, 0.3538346)),  # hongxin001/JoCoR, model/cnn.py
    ({"name": "lenet"}, (1.1548795, 0.3213694, 0.2934402)),  # xingruiyu/coteaching_plus, model.py
]


@pytest.mark.parametrize(("identity", "logits"), RELEASED, ids=lambda value: value["name"] if isinstance(value, dict) else "")
def test_outputs_are_those_of_the_released_code(identity: dict[str, Any], logits: tuple[float, ...]) -> None:
    network = build(identity, (3, 32, 32), 10).double()
    for parameter in network.parameters():  # values that depend on the shape alone: the order of the layers does not matter
        wave = torch.arange(parameter.numel(), dtype=torch.float64).sin().view(parameter.shape)
        value = wave * math.sqrt(2 / parameter[0].numel()) if parameter.ndim > 1 else 0.1 * wave + 0.5
        parameter.data.copy_(value)
    batch = torch.arange(2 * 3 * 32 * 32, dtype=torch.float64).mul(0.37).sin().view(2, 3, 32, 32)
    with torch.no_grad():
        assert network(batch)[1, :3].tolist() == pytest.approx(logits, abs=1e-6)


# --- what is exact about each network


def zeroed(block: Any) -> Any:
    """A block whose residual branch is zero, so that it returns what its skip does."""
    for norm in (block.bn2,) if isinstance(block, BasicBlock) else ():
        nn.init.zeros_(norm.weight)
    if isinstance(block, PreActBlock):
        nn.init.zeros_(block.conv2.weight)
    return block.eval()


def test_the_zero_padded_skip_takes_every_second_pixel() -> None:
    given = images(2, 4, 5, 5)
    found = zeroed(BasicBlock(4, 8, 2, "pad"))(given)
    assert found.shape == (2, 8, 3, 3)
    assert torch.equal(found[:, 2:6], F.relu(given[:, :, ::2, ::2])) and not found[:, :2].any() and not found[:, 6:].any()


def test_skips_of_pre_activation_blocks() -> None:
    given = images(2, 4, 5, 5)
    active = F.relu(given / math.sqrt(1 + 1e-5))  # batch norm's running statistics are 0 and 1
    assert torch.equal(zeroed(PreActBlock(4, 4, 1))(given), given)
    torch.testing.assert_close(zeroed(PreActBlock(4, 4, 1, activated_skip=True))(given), active)
    for block in (PreActBlock(4, 4, 1, project=True), PreActBlock(4, 8, 1), PreActBlock(4, 4, 2)):
        expected = F.conv2d(active, block.shortcut.weight, stride=block.conv1.stride)
        torch.testing.assert_close(zeroed(block)(given), expected)


def blocks(network: Any) -> list[list[Any]]:
    return [list(stage) for stage in network.stages]


def test_skips_of_the_residual_networks() -> None:
    divide = blocks(build({"name": "preact-resnet18", "width": 2}, (3, 8, 8), 2))
    assert all(block.activated_skip for stage in divide for block in stage)
    assert [[isinstance(block.shortcut, nn.Conv2d) for block in stage] for stage in divide] == [[False] * 2] + [[True, False]] * 3
    joint = blocks(build({"name": "preact-resnet32", "width": 2}, (3, 8, 8), 2))
    assert [[isinstance(block.shortcut, nn.Conv2d) for block in stage] for stage in joint] == [[True] + [False] * 4] * 3
    assert [[block.activated_skip for block in stage] for stage in joint] == [[True] + [False] * 4] * 3
    wide = blocks(build({"name": "wrn-28-2", "depth": 16, "width": 1}, (3, 8, 8), 2))
    assert [[isinstance(block.shortcut, nn.Conv2d) for block in stage] for stage in wide] == [[False] * 2] + [[True, False]] * 2
    assert not wide[0][0].activated_skip and not wide[1][1].activated_skip
    plain = blocks(build({"name": "resnet8"}, (3, 8, 8), 2))
    assert [type(stage[0].shortcut).__name__ for stage in plain] == ["Identity", "_Pad", "_Pad"]


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("preact-resnet18", [32, 16, 8, 4]), ("cifar-resnet34", [32, 16, 8, 4]), ("resnet32", [32, 16, 8]),
        ("preact-resnet32", [32, 16, 8]), ("wrn-28-2", [32, 16, 8]),
    ],
)  # fmt: skip
def test_sides_of_the_stages(name: str, sides: list[int]) -> None:
    network: Any = light_network(name, (3, 32, 32), 2)
    maps, found = network.stem(images(1, 3, 32, 32)), []
    for stage in network.stages:
        maps = stage(maps)
        found.append(maps.shape[-1])
    assert found == sides


def test_what_ends_the_pre_activation_networks(seeded: None) -> None:
    batch = images(8, 3, 8, 8)
    assert build({"name": "preact-resnet18", "width": 4}, (3, 8, 8), 2).features(batch).min() < 0
    for identity in ({"name": "preact-resnet18", "width": 4, "final_norm": True}, light("wrn-28-2"), light("preact-resnet32")):
        assert build(identity, (3, 8, 8), 2).features(batch).min() >= 0
    norms = [m for m in build(light("preact-resnet32"), (3, 8, 8), 2).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 31 and {norm.eps for norm in norms} == {2e-5}


def test_dropout_of_the_plain_and_wide_networks(seeded: None) -> None:
    cnn = build({"name": "cnn9", "dropout": 0.5}, (1, 28, 28), 2)
    layers = list(cnn.body)
    at = [number for number, layer in enumerate(layers) if isinstance(layer, nn.Dropout2d)]
    assert [isinstance(layers[number - 1], nn.MaxPool2d) for number in at] == [True, True]
    dropped = (layers[at[0]].train()(torch.ones(4, 128, 2, 2)) == 0).float().mean(dim=(2, 3))
    assert set(dropped.unique().tolist()) == {0.0, 1.0}  # whole channels
    assert [layer.padding[0] for layer in layers if isinstance(layer, nn.Conv2d)] == [1] * 6 + [0] * 3
    assert {layer.negative_slope for layer in layers if isinstance(layer, nn.LeakyReLU)} == {0.01}
    wide = build({"name": "wrn-28-2", "depth": 10, "dropout": 0.3}, (1, 8, 8), 2)
    assert [m.p for m in wide.modules() if isinstance(m, nn.Dropout)] == [0.3] * 3
    assert not any(isinstance(m, nn.Dropout) for m in build(light("wrn-28-2"), (1, 8, 8), 2).modules())
    selfie = build({"name": "selfie-densenet25"}, (1, 8, 8), 2)
    assert [m.p for m in selfie.modules() if isinstance(m, nn.Dropout)] == [0.2] * 23  # 21 units, two transitions


def test_activations_of_the_networks_of_selfie() -> None:
    def relus(name: str) -> int:
        return sum(isinstance(m, nn.ReLU) for m in on_meta({"name": name}, (3, 32, 32), 10).modules())

    assert relus("densenet100") == 48 * 2 + 2 + 1
    assert relus("selfie-densenet25") == 21 + 2 * 2 + 1  # one more after the convolution of each transition
    vgg: Any = on_meta({"name": "selfie-vgg19"}, (3, 32, 32), 10)
    hidden = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout]
    assert [type(layer) for layer in vgg.hidden] == [nn.Flatten, *hidden, *hidden] and relus("selfie-vgg19") == 16 + 2


def test_layers_that_rog_reads() -> None:
    dense: Any = light_network("densenet100", (3, 32, 32), 2)
    full: Any = on_meta({"name": "densenet100"}, (3, 32, 32), 10)
    assert [tuple(layer.shape) for layer in full.layer_features(torch.empty(2, 3, 32, 32, device="meta"))] == [
        (2, 150 + 6 * 12), (2, 150 + 11 * 12), (2, 342)
    ]  # fmt: skip
    res: Any = light_network("rog-resnet34", (3, 32, 32), 2)
    batch = images(4, 3, 32, 32)
    with torch.no_grad():
        for network, count in ((dense, 2), (res, 3)):  # six units of the light DenseNet's last block: only unit 5
            found = network.layer_features(batch)
            assert len(found) == count and torch.equal(found[-1], network.features(batch))
        maps = dense.body(batch)
        torch.testing.assert_close(dense.layer_features(batch)[0], dense.last[:6](maps).mean(dim=(2, 3)))
        maps = res.stages[:3](res.stem(batch))
        torch.testing.assert_close(res.layer_features(batch)[1], res.stages[3][:2](maps).mean(dim=(2, 3)))


@pytest.mark.parametrize("sides", [(1, 1), (2, 2), (3, 2), (7, 7), (5, 9), (14, 7)])
def test_adaptive_average(sides: tuple[int, int]) -> None:
    given = images(2, 3, *sides)
    torch.testing.assert_close(AdaptiveAverage(sides, 7)(given), F.adaptive_avg_pool2d(given, 7))


# --- initial weights as released


@pytest.mark.parametrize(
    ("identity", "fan"),
    [
        ({"name": "resnet32"}, "in"), ({"name": "preact-resnet32"}, "in"), ({"name": "wrn-28-2"}, "in"),
        ({"name": "densenet100"}, "out"), ({"name": "selfie-densenet25"}, "out"), ({"name": "selfie-vgg19", "hidden": 8}, "out"),
        ({"name": "vgg19-bn", "hidden": 8}, "out"), ({"name": "preact-resnet18"}, "default"), ({"name": "cnn9"}, "default"),
        ({"name": "cifar-resnet18"}, "default"), ({"name": "vgg13"}, "default"), ({"name": "cnn7"}, "default"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["name"],
)  # fmt: skip
def test_initial_convolutions(seeded: None, identity: dict[str, Any], fan: str) -> None:
    network = build(identity, (3, 32, 32), 10)
    ratios, checked = [], 0
    for conv in (m for m in network.modules() if isinstance(m, nn.Conv2d)):
        fan_in, fan_out = conv.weight[0].numel(), conv.weight.shape[0] * conv.weight[0, 0].numel()
        # PyTorch's default is uniform with variance 1 / (3 fan-in)
        variance = {"in": 2 / fan_in, "out": 2 / fan_out, "default": 1 / (3 * fan_in)}[fan]
        ratios.append(float(conv.weight.detach().var()) / variance)
        checked += conv.weight.numel()
        if fan != "default" and conv.bias is not None:
            assert not conv.bias.any()
    weight = torch.tensor(ratios)
    assert checked > 40_000 and abs(float(weight.mean()) - 1) < 0.05


def test_initial_heads(seeded: None) -> None:
    def head(name: str, **fields: Any) -> Any:
        return build({"name": name, **fields}, (3, 32, 32), 1000).requires_grad_(False).head

    assert float(head("resnet32").weight.var()) == pytest.approx(2 / 64, rel=0.03)
    joint = head("preact-resnet32")
    assert float(joint.weight.var()) == pytest.approx(1 / 128, rel=0.03) and not joint.bias.any()
    assert not head("wrn-28-2").bias.any() and not head("densenet100").bias.any() and head("cifar-resnet18").bias.any()
    assert float(head("vgg19-bn", hidden=100).weight.std()) == pytest.approx(0.01, rel=0.03)
    assert float(head("selfie-vgg19", hidden=100).weight.var()) == pytest.approx(2 / 100, rel=0.03)
