"""bench.learner: schedules against the papers' plans, steps against torch's own, counters, modes, checkpoints."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small import MLP, TINY_CNN
from torch import Tensor, nn

from bench.fields import FieldError
from bench.learner import Learner, Training
from bench.models import build


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn((count, 1, 6, 6), generator=torch.Generator().manual_seed(seed))


def labels(count: int) -> Tensor:
    return torch.arange(count) % 3


def network(model: dict[str, Any] = TINY_CNN) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(model, (1, 6, 6), 3)


def learner(model: dict[str, Any] = TINY_CNN, precision: str = "float32", log: Any = None, **training: Any) -> Learner:
    return Learner(network(model), Training(**training), precision=precision, log_loss=log)


def train(net: Learner, steps: int, first: int = 0) -> None:
    for number in range(first, first + steps):
        net.step(F.cross_entropy(net(images(8, number)), labels(8)))


def plan(at: range | list[int], **training: Any) -> list[float]:
    return [Training(**training).lr_at(epoch) for epoch in at]


# --- schedules


def test_constant() -> None:
    assert plan(range(5), epochs=5, lr=0.3) == [0.3] * 5


def test_multistep() -> None:
    rates = plan(range(6), epochs=6, lr=0.1, schedule="multistep", milestones=(2, 4), gamma=0.1)
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    elr = plan([39, 40, 79, 80], epochs=120, lr=0.02, schedule="multistep", milestones=(40, 80), gamma=0.01)
    assert elr == pytest.approx([0.02, 2e-4, 2e-4, 2e-6])


def test_cosine_reaches_min_lr_at_the_end() -> None:
    rates = plan(range(5), epochs=4, lr=1.0, min_lr=0.2, schedule="cosine")
    s = math.sqrt(0.5)
    assert rates == pytest.approx([1.0, 0.6 + 0.4 * s, 0.6, 0.6 - 0.4 * s, 0.2])


def test_cosine_restarts_of_the_elr_card() -> None:
    rates = plan(range(150), epochs=150, lr=0.02, min_lr=1e-3, schedule="cosine-restarts", restart_every=10)
    assert rates[0] == rates[10] == rates[140] == 0.02
    assert rates[5] == pytest.approx((0.02 + 1e-3) / 2)
    assert min(rates) == pytest.approx(1e-3 + 0.019 / 2 * (1 + math.cos(0.9 * math.pi)))
    reference = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.02)
    scheduler = reference(optimiser, T_0=10, eta_min=1e-3)
    for rate in rates[:25]:
        assert rate == pytest.approx(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()


def test_linear_plan_of_the_co_teaching_card() -> None:
    training = Training(epochs=200, lr=1e-3, schedule="linear", decay_from=80, optimizer="adam", beta1_after_decay=0.1)
    assert [training.lr_at(e) for e in (0, 79, 80)] == [1e-3] * 3
    assert training.lr_at(140) == pytest.approx(5e-4) and training.lr_at(199) == pytest.approx(1e-3 / 120)
    assert [training.beta1_at(e) for e in (0, 79, 80, 199)] == [None, None, 0.1, 0.1]
    assert Training(schedule="linear", decay_from=3).beta1_at(5) is None
    assert Training(schedule="constant", beta1_after_decay=0.1).beta1_at(5) is None
    net = Learner(network(MLP), training)
    for epoch, beta1, rate in ((0, 0.9, 1e-3), (80, 0.1, 1e-3), (140, 0.1, 5e-4)):
        net.start_epoch(epoch)
        group = net.optimizer.param_groups[0]
        assert group["betas"] == (beta1, 0.999) and group["lr"] == pytest.approx(rate)


def test_plan_of_the_llc_dro_card() -> None:
    """100 rounds after 5 epochs of warm-up: full rate in rounds 0 to 80, a tenth in 81 to 99."""
    rates = plan(range(105), epochs=105, lr=5e-4, schedule="multistep", milestones=(86,))
    assert rates == pytest.approx([5e-4] * 86 + [5e-5] * 19)


def test_warm_up_multiplies_the_schedule() -> None:
    rates = plan(range(5), epochs=5, lr=0.4, lr_warmup_epochs=4, schedule="multistep", milestones=(3,))
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.04, 0.04])


def test_beta1_of_sgd_is_left_alone() -> None:
    net = learner(schedule="linear", beta1_after_decay=0.1)
    net.start_epoch(0)
    assert "betas" not in net.optimizer.param_groups[0]


@settings(deadline=None, database=None, derandomize=True, max_examples=60)
@given(
    st.sampled_from(["constant", "multistep", "cosine", "cosine-restarts", "linear"]), st.integers(1, 50),
    st.integers(0, 60), st.integers(0, 8), st.data(),
)  # fmt: skip
def test_rates_are_positive_and_never_above_lr(schedule: str, epochs: int, decay: int, warm: int, data: Any) -> None:
    training = Training(
        epochs=epochs, lr=0.5, schedule=schedule, decay_from=decay, lr_warmup_epochs=warm, min_lr=0.01,
        milestones=tuple(sorted(data.draw(st.sets(st.integers(0, 50), max_size=3)))),
    )  # fmt: skip
    assert all(0 < training.lr_at(epoch) <= 0.5 for epoch in range(epochs))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"lr": 0}, "lr: 0 is out of range"), ({"momentum": 1.0}, "momentum"), ({"epochs": 0}, "epochs"),
        ({"batch_size": 2.5}, "a whole number"), ({"schedule": "step"}, "one of constant, multistep"),
        ({"learning_rate": 0.1}, "no field"), ({"milestones": "10"}, "a list of a whole number"),
        ({"clip_norm": 0}, "clip_norm"), ({"augment": True}, "crop-flip, none"),
    ],
)  # fmt: skip
def test_settings_are_checked(params: dict[str, Any], words: str) -> None:
    with pytest.raises(FieldError, match=words):
        Training(**params)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(FieldError, match="training.nesterov"):
        learner(nesterov=True, momentum=0)


# --- steps


@pytest.mark.parametrize(
    ("training", "reference"),
    [
        ({"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}, lambda p: torch.optim.SGD(p, 0.1)),
        ({"lr": 0.1, "weight_decay": 1e-2}, lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=1e-2)),
        ({"lr": 0.1, "nesterov": True, "weight_decay": 0.0}, lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True)),
        ({"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1}, lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1)),
        ({"optimizer": "adamw", "lr": 0.01, "weight_decay": 1}, lambda p: torch.optim.AdamW(p, 0.01, weight_decay=1)),
    ],
)
def test_steps_are_those_of_torch(training: dict[str, Any], reference: Any) -> None:
    net, plain = learner(**training), network().train()
    optimiser = reference(plain.parameters())
    for number in range(4):
        batch = images(8, number)
        net.step(F.cross_entropy(net(batch), labels(8)))
        optimiser.zero_grad()
        F.cross_entropy(plain(batch), labels(8)).backward()
        optimiser.step()
        for ours, theirs in zip(net.network.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_start_epoch_sets_the_rate_of_the_next_step() -> None:
    net = learner(MLP, lr=0.1, momentum=0.0, weight_decay=0.0, schedule="multistep", milestones=(1,))
    moves = []
    for epoch in (0, 1):
        net.start_epoch(epoch)
        before = net.network.head.bias.detach().clone()
        loss = net(images(8)).sum() / 8  # its gradient with respect to each bias of the head is 1
        net.step(loss)
        moves.append((before - net.network.head.bias.detach()).tolist())
    assert moves[0] == pytest.approx([0.1] * 3) and moves[1] == pytest.approx([0.01] * 3)


def test_gradients_are_clipped_to_the_norm_over_all_parameters() -> None:
    net = learner(MLP, lr=1.0, momentum=0.0, weight_decay=0.0, clip_norm=0.5)
    before = [p.detach().clone() for p in net.network.parameters()]
    net.step(100 * F.cross_entropy(net(images(8)), labels(8)))
    moved = torch.cat([(a - b).flatten() for a, b in zip(before, net.network.parameters(), strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(0.5, rel=1e-4)


def test_gradients_of_an_earlier_loss_do_not_linger() -> None:
    once, twice = learner(MLP), learner(MLP)
    (twice(images(8, 1)).sum() * 1000).backward()  # a gradient that no step used
    for net in (once, twice):
        net.step(F.cross_entropy(net(images(8)), labels(8)))
    assert torch.equal(once.network.head.weight, twice.network.head.weight)


def test_a_step_needs_a_scalar_and_logs_it_without_its_graph() -> None:
    seen: list[Tensor] = []
    net = learner(MLP, log=seen.append)
    with pytest.raises(ValueError, match=r"scalar loss, got shape \(8,\)"):
        net.step(F.cross_entropy(net(images(8)), labels(8), reduction="none"))
    assert seen == []
    loss = F.cross_entropy(net(images(8)), labels(8))
    net.step(loss)
    assert [float(value) for value in seen] == [float(loss.detach())] and not seen[0].requires_grad


# --- modes


def statistics(net: Learner) -> list[Tensor]:
    return [buffer.clone() for buffer in net.network.buffers()]


def unchanged(net: Learner, before: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, net.network.buffers(), strict=True))


def test_calls_train_and_passes_evaluate() -> None:
    net = learner()
    before = statistics(net)
    net.infer(images(8)), net.features(images(8))
    assert not net.network.training and unchanged(net, before)
    net(images(8))
    assert net.network.training and not unchanged(net, before)
    before = statistics(net)
    with torch.no_grad():
        net(images(8))  # a guessing pass uses and updates batch statistics as well
    assert not unchanged(net, before)


def test_a_single_image_is_normalised_with_the_running_statistics() -> None:
    net = learner()
    train(net, 3)
    before = statistics(net)
    single = net(images(1))
    assert unchanged(net, before) and single.requires_grad
    assert torch.equal(single, net.infer(images(1)))
    net.step(F.cross_entropy(single, labels(1)))  # and it can be trained on
    net(images(8))
    assert net.network.training and not unchanged(net, before)


def test_passes_carry_no_gradient() -> None:
    net = learner()
    assert not net.infer(images(4)).requires_grad and not net.features(images(4)).requires_grad
    assert net(images(4)).requires_grad


@pytest.mark.parametrize("model", [TINY_CNN, MLP], ids=lambda m: m["name"])
def test_infer_is_the_same_in_chunks(model: dict[str, Any]) -> None:
    net = learner(model)
    train(net, 2)
    whole, features = net.infer(images(25)), net.features(images(25))
    assert whole.shape == (25, 3) and features.shape == (25, 8 if model is TINY_CNN else 16)
    for chunk in (1, 7, 24, 25, 26):
        net.chunk = chunk
        torch.testing.assert_close(net.infer(images(25)), whole)
        torch.testing.assert_close(net.features(images(25)), features)
    torch.testing.assert_close(net.network.head(features), whole)
    assert net.infer(images(0)).shape == (0, 3)


# --- counters


def test_images_are_counted_where_they_pass() -> None:
    net = learner()
    net.infer(images(10))
    net.features(images(5))
    assert (net.forward_images, net.backward_images) == (15, 0)
    with torch.no_grad():
        net(images(4))
    assert (net.forward_images, net.backward_images) == (19, 0)
    loss = F.cross_entropy(net(images(8)), labels(8)) + F.cross_entropy(net(images(3)), labels(3))
    assert (net.forward_images, net.backward_images) == (30, 0)
    net.step(loss)
    assert (net.forward_images, net.backward_images) == (30, 11)
    net.step(F.cross_entropy(net(images(2)), labels(2)))
    assert (net.forward_images, net.backward_images) == (32, 13)


def test_passes_without_a_step_are_not_charged_to_the_next_epoch() -> None:
    net = learner()
    net(images(8))
    net.start_epoch(1)
    train(net, 1)
    assert net.backward_images == 8


# --- state


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_restored_learner_goes_on_bit_for_bit(optimizer: str) -> None:
    settings = {"optimizer": optimizer, "lr": 0.01, "schedule": "linear", "decay_from": 1, "beta1_after_decay": 0.3}
    net = learner(**settings)
    net.start_epoch(1)
    train(net, 3)
    state = copy.deepcopy(net.state_dict())
    train(net, 3, first=3)
    other = learner(**settings)
    train(other, 1, first=50)
    other.load_state_dict(state)
    train(other, 3, first=3)
    for a, b in zip(net.network.state_dict().values(), other.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert (other.forward_images, other.backward_images) == (net.forward_images, net.backward_images) == (48, 48)
    group = other.optimizer.param_groups[0]
    assert group["lr"] == net.optimizer.param_groups[0]["lr"]
    assert group.get("betas") == net.optimizer.param_groups[0].get("betas")


# --- precision


@pytest.mark.parametrize("model", [TINY_CNN, MLP], ids=lambda m: m["name"])
def test_bfloat16_computes_in_half_and_returns_float32(model: dict[str, Any]) -> None:
    net, exact = learner(model, precision="bfloat16"), learner(model)
    logits, reference = net(images(16)), exact(images(16))
    assert logits.dtype == torch.float32 and net.infer(images(4)).dtype == torch.float32
    assert net.features(images(4)).dtype == torch.float32
    assert not torch.equal(logits, reference)
    torch.testing.assert_close(logits, reference, rtol=0.1, atol=0.1)
    losses = [F.cross_entropy(net(images(16)), labels(16))]
    for _ in range(20):
        net.step(losses[-1])
        losses.append(F.cross_entropy(net(images(16)), labels(16)))
    assert losses[-1].item() < losses[0].item() / 2
    assert all(p.dtype == torch.float32 for p in net.network.parameters())
