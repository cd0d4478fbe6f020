"""bench.models: sizes worked out by hand, the features-and-head contract, initial weights, legal fields, the engine's modes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from light_models import every_model, images, light, light_network, named, on_meta, size, smallest
from small import make_task, pixels
from torch import Tensor, nn

from bench.fields import FieldError
from bench.models import build, model_class, models


@pytest.mark.parametrize(
    ("identity", "shape", "classes", "parameters"),
    [
        # per layer: 9 x in x out weights without bias, two per channel of batch norm; then 33 per class
        ({"name": "tiny-cnn"}, (1, 8, 8), 10, 9 * 8 + 16 + 9 * 8 * 16 + 32 + 9 * 16 * 32 + 64 + 33 * 10),  # 6 274
        ({"name": "tiny-cnn"}, (3, 16, 16), 2, 9 * 3 * 8 + 16 + 9 * 8 * 16 + 32 + 9 * 16 * 32 + 64 + 33 * 2),  # 6 154
        ({"name": "tiny-cnn", "widths": [4]}, (1, 8, 8), 3, 9 * 4 + 8 + 5 * 3),
        ({"name": "mlp"}, (1, 8, 8), 10, 65 * 64 + 65 * 64 + 65 * 10),  # 8 970
        ({"name": "mlp", "widths": [7, 5]}, (3, 2, 2), 4, 13 * 7 + 8 * 5 + 6 * 4),
        ({"name": "mlp", "widths": []}, (1, 8, 8), 10, 65 * 10),
    ],
)
def test_parameter_counts(identity: dict[str, Any], shape: tuple[int, int, int], classes: int, parameters: int) -> None:
    assert size(build(identity, shape, classes)) == parameters


@every_model
@pytest.mark.parametrize(("channels", "wider", "classes"), [(1, 0, 2), (3, 3, 10)])
def test_forward_is_the_head_of_the_features(name: str, channels: int, wider: int, classes: int) -> None:
    _, height, width = smallest(name)
    shape = (channels, height, width + wider)
    network = light_network(name, shape, classes)
    batch = images(5, *shape)
    features = network.features(batch)
    logits = network(batch)
    assert features.ndim == 2 and features.shape[0] == 5
    assert isinstance(network.head, nn.Linear) and features.shape[1] == network.head.in_features
    assert logits.shape == (5, classes) and logits.dtype == torch.float32
    assert torch.equal(logits, network.head(features))
    assert not torch.equal(logits[0], logits[1])  # it looks at its input


@pytest.mark.parametrize("name", ["tiny-cnn", "mlp"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (3, 5, 7)])
def test_small_networks_take_small_images(name: str, shape: tuple[int, int, int]) -> None:
    assert build({"name": name}, shape, 3)(images(2, *shape)).shape == (2, 3)


@every_model
def test_samples_do_not_see_each_other_in_evaluation_mode(name: str) -> None:
    shape = smallest(name)
    network = light_network(name, shape, 2)
    batch = images(6, *shape)
    other = torch.cat([batch[:3], images(3, *shape) + 1])
    assert torch.equal(network(batch)[:3], network(other)[:3])
    assert torch.equal(network(batch), network(batch))  # no dropout


def test_tiny_cnn_halves_the_image_with_each_layer() -> None:
    network = build({"name": "tiny-cnn"}, (1, 8, 8), 10)
    sides = [side.shape[-1] for layer in network.body if isinstance(layer, nn.Conv2d)
             for side in [layer(torch.zeros(1, layer.in_channels, 8, 8))]]  # fmt: skip
    assert sides == [4, 4, 4]
    assert network.body(torch.zeros(2, 1, 8, 8)).shape == (2, 32, 1, 1)
    assert network.body(torch.zeros(2, 1, 16, 16)).shape == (2, 32, 2, 2)


def test_the_mlp_has_no_batch_statistics() -> None:
    assert list(build({"name": "mlp"}, (1, 8, 8), 2).buffers()) == []


def test_unknown_names_and_fields_are_errors() -> None:
    with pytest.raises(FieldError, match="unknown model 'tiny-cn'.*did you mean tiny-cnn"):
        build({"name": "tiny-cn"}, (1, 8, 8), 2)
    with pytest.raises(FieldError, match="no field 'width'.*did you mean widths"):
        build({"name": "mlp", "width": [3]}, (1, 8, 8), 2)
    for widths in ([0], [8, -1], "8", [1.5], 8):
        with pytest.raises(FieldError, match="widths"):
            model_class("tiny-cnn")(widths=widths)


# --- initial weights (law 5: the stream `init`)


def weights(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@every_model
def test_initial_weights_depend_on_the_global_generator_alone(name: str) -> None:
    def initial(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return weights(build(light(name), smallest(name), 3))

    with torch.random.fork_rng(devices=[]):
        first, other = initial(0), initial(1)
        assert torch.equal(first, initial(0)) and not torch.equal(first, other)


@pytest.mark.parametrize("name", ["tiny-cnn", "mlp", "cnn6", "preact-resnet18"])
def test_initial_weights_depend_on_the_init_stream_alone(name: str) -> None:
    def initial(learner: str = "a", global_seed: int = 0, **changes: Any) -> Tensor:
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        task = make(torch.arange(6) % 3, **changes)
        found = weights(task.learner(learner).network)
        assert torch.equal(torch.get_rng_state(), before)  # the global generator is put back
        return found

    def make(labels: Tensor, **changes: Any) -> Any:
        return make_task(labels, **{"model": light(name), "images": pixels(6, size=8), **changes})

    reference = initial()
    # neither the global generator nor method, labels and training matter
    assert torch.equal(reference, initial(global_seed=1))
    assert torch.equal(reference, initial(method="another", training={"lr": 0.5, "batch_size": 2, "optimizer": "adam"}))
    assert torch.equal(reference, weights(make(torch.zeros(6, dtype=torch.int64)).learner("a").network))
    # learners made earlier do not matter
    task = make(torch.arange(6) % 3)
    first = weights(task.learner("b").network)
    assert torch.equal(reference, weights(task.learner("a").network))
    # seed and the learner's name do
    assert not torch.equal(reference, first)
    assert torch.equal(first, initial("b"))
    assert not torch.equal(reference, initial(seed=1))


# --- sizes of images, and fields


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("name", [named(name) for name, cls in models().items() if cls.smallest > 1])
def test_too_small_images_are_an_error(name: str) -> None:
    side = model_class(name).smallest
    with pytest.raises(FieldError, match=f"{name} needs images of at least {side}x{side} pixels, these have {side}x{side - 1}"):
        build(light(name), (3, side, side - 1), 2)
    assert on_meta({"name": name}, (3, side, side + 1), 2)(torch.empty(2, 3, side, side + 1, device="meta")).shape == (2, 2)
    with pytest.raises((RuntimeError, ZeroDivisionError)):  # no larger than need be
        with torch.device("meta"):
            below = model_class(name)().build((3, side - 1, side - 1), 2)
        below(torch.empty(2, 3, side - 1, side - 1, device="meta"))


@pytest.mark.parametrize("name", [name for name, cls in models().items() if cls.smallest == 1])
def test_one_pixel_is_enough_for_the_others(name: str) -> None:
    assert on_meta(light(name), (1, 1, 1), 2)(torch.empty(2, 1, 1, 1, device="meta")).shape == (2, 2)


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({"name": "resnet32", "depth": 30}, r"depth: 30 is no depth .*6n \+ 2"),
        ({"name": "wrn-28-2", "depth": 20}, r"depth: 20 is no depth of a wide ResNet .*6n \+ 4"),
        ({"name": "densenet100", "depth": 25}, r"depth: 25 .* with bottlenecks \(6n \+ 4\)"),
        ({"name": "selfie-densenet25", "depth": 26}, r"depth: 26 .* without bottlenecks \(3n \+ 4\)"),
        ({"name": "resnet32", "shortcut": "none"}, "shortcut: 'none' is not a valid value"),
        ({"name": "cnn9", "dropout": 1}, "dropout: 1 is out of range"),
        ({"name": "preact-resnet18", "width": 0}, "width: 0 is out of range"),
        ({"name": "preact-resnet-18"}, "unknown model 'preact-resnet-18'.*did you mean preact-resnet18"),
    ],
)
def test_illegal_fields(identity: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        build(identity, (3, 32, 32), 10)


# --- as the engine runs them


@every_model
def test_bfloat16_and_channels_last(name: str) -> None:
    shape = smallest(name)
    network = light_network(name, shape, 2)
    batch = images(4, *shape)
    with torch.no_grad():
        exact = network(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert network.features(batch).shape == (4, network.head.in_features)
            rough = network(batch)
        last = network(batch.to(memory_format=torch.channels_last))
    assert rough.dtype == torch.bfloat16
    spread = float(exact.abs().max())
    torch.testing.assert_close(rough.float(), exact, rtol=0, atol=0.1 * spread)
    torch.testing.assert_close(last, exact, rtol=0, atol=1e-4 * spread)


@every_model
def test_a_step_reaches_every_parameter(name: str) -> None:
    shape = smallest(name)
    with torch.random.fork_rng(devices=[]):  # weights and dropout
        torch.manual_seed(0)
        network = build(light(name), shape, 3)
        F.cross_entropy(network(images(4, *shape)), torch.tensor([0, 1, 2, 0])).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())
    assert any(bool(p.grad.any()) for p in network.head.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["preact-resnet18", "resnet8", "densenet100", "vgg19-bn", "cnn9", "resnet18"])
def test_networks_compile_as_one_graph(name: str) -> None:
    shape = smallest(name)
    network = light_network(name, shape, 2)
    batch = images(2, *shape)
    torch._dynamo.reset()
    compiled: Any = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(batch), network(batch))
