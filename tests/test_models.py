"""bench.models: sizes worked out by hand, the features-and-head contract, and where initial weights come from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import make_task
from torch import Tensor, nn

from bench.fields import FieldError
from bench.models import build, model_class, models

SHAPES = [(1, 8, 8), (3, 16, 16), (3, 5, 7)]
every_model = pytest.mark.parametrize("name", sorted(models()))


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


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
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [2, 10])
def test_forward_is_the_head_of_the_features(name: str, shape: tuple[int, int, int], classes: int) -> None:
    network = build({"name": name}, shape, classes).eval()
    batch = images(5, *shape)
    features = network.features(batch)
    logits = network(batch)
    assert features.ndim == 2 and features.shape[0] == 5
    assert isinstance(network.head, nn.Linear) and features.shape[1] == network.head.in_features
    assert logits.shape == (5, classes) and logits.dtype == torch.float32
    assert torch.equal(logits, network.head(features))
    assert not torch.equal(logits[0], logits[1])  # it looks at its input


@every_model
def test_samples_do_not_see_each_other_in_evaluation_mode(name: str) -> None:
    network = build({"name": name}, (1, 8, 8), 10).eval()
    batch = images(6, 1, 8, 8)
    other = torch.cat([batch[:3], images(3, 1, 8, 8) + 1])
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
def test_initial_weights_depend_on_the_init_stream_alone(name: str) -> None:
    def initial(learner: str = "a", global_seed: int = 0, **changes: Any) -> Tensor:
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        task = make_task(torch.arange(6) % 3, **{"model": {"name": name, "widths": [4]}, **changes})
        found = weights(task.learner(learner).network)
        assert torch.equal(torch.get_rng_state(), before)  # the global generator is put back
        return found

    reference = initial()
    # neither the global generator nor method, labels and training matter
    assert torch.equal(reference, initial(global_seed=1))
    assert torch.equal(reference, initial(method="another", training={"lr": 0.5, "batch_size": 2, "optimizer": "adam"}))
    relabelled = make_task(torch.zeros(6, dtype=torch.int64), model={"name": name, "widths": [4]})
    assert torch.equal(reference, weights(relabelled.learner("a").network))
    # learners made earlier do not matter
    task = make_task(torch.arange(6) % 3, model={"name": name, "widths": [4]})
    first = weights(task.learner("b").network)
    assert torch.equal(reference, weights(task.learner("a").network))
    # seed and the learner's name do
    assert not torch.equal(reference, first)
    assert torch.equal(first, initial("b"))
    assert not torch.equal(reference, initial(seed=1))
