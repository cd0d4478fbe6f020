"""bench.learner: steps against torch's own, alone and joint, skipped ones, counters, modes, checkpoints."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small import MLP, TINY_CNN
from torch import Tensor, nn

from bench.learner import Learner
from bench.models import build
from bench.training import Training


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn((count, 1, 6, 6), generator=torch.Generator().manual_seed(seed))


def labels(count: int) -> Tensor:
    return torch.arange(count) % 3


def network(model: dict[str, Any] = TINY_CNN, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(model, (1, 6, 6), 3)


def learner(model: dict[str, Any] = TINY_CNN, *, seed: int = 0, log: Any = None, **training: Any) -> Learner:
    return Learner(network(model, seed), Training(**training), log_loss=log)


def train(net: Learner, steps: int, first: int = 0) -> None:
    for number in range(first, first + steps):
        net.step(F.cross_entropy(net(images(8, number)), labels(8)))


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


# --- steps of several learners


OPTIMISERS: list[tuple[dict[str, Any], Any]] = [
    ({"lr": 0.1, "weight_decay": 1e-2}, lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=1e-2)),
    ({"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1}, lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1)),
    ({"optimizer": "adamw", "lr": 0.01, "weight_decay": 1}, lambda p: torch.optim.AdamW(p, 0.01, weight_decay=1)),
]
NAMES = ["sgd", "adam", "adamw"]


@pytest.mark.parametrize(("training", "reference"), OPTIMISERS, ids=NAMES)
def test_a_joint_step_is_that_of_one_optimiser_over_both(training: dict[str, Any], reference: Any) -> None:
    """An agreement loss, whose gradient mixes both networks."""
    a, b = learner(seed=0, **training), learner(seed=1, **training)
    plain = network(seed=0).train(), network(seed=1).train()
    optimiser = reference([*plain[0].parameters(), *plain[1].parameters()])
    for number in range(4):
        batch = images(8, number)
        a.step(agreement(a(batch), b(batch)), b)
        optimiser.zero_grad()
        agreement(plain[0](batch), plain[1](batch)).backward()
        optimiser.step()
    for net, theirs in zip((a, b), plain, strict=True):
        for p, q in zip(net.network.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)
    assert (a.backward_images, b.backward_images) == (32, 32)


def agreement(x: Tensor, y: Tensor) -> Tensor:
    return (F.cross_entropy(x, labels(8)) + F.cross_entropy(y, labels(8))) / 2 + F.mse_loss(x.softmax(1), y.softmax(1))


def test_a_joint_step_is_logged_once_and_clips_each_learner_by_itself() -> None:
    seen: list[Tensor] = []
    settings: dict[str, Any] = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.5}
    a, b = learner(MLP, log=seen.append, **settings), learner(MLP, seed=1, log=seen.append, **settings)
    before = [flat(a), flat(b)]
    a.step(100 * agreement(a(images(8)), b(images(8))), b)
    assert len(seen) == 1
    for net, was in zip((a, b), before, strict=True):
        assert float((flat(net) - was).norm()) == pytest.approx(0.5, rel=1e-4)


def flat(net: Learner) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.network.parameters()]).clone()


def test_a_learner_that_got_no_gradient_stays_as_it_is() -> None:
    a, b = learner(lr=0.1), learner(seed=1, lr=0.1)
    train(b, 1)
    before = copy.deepcopy(b.state_dict())
    a.step(F.cross_entropy(a(images(8)), labels(8)), b)
    after = b.state_dict()
    assert same(before["network"], after["network"]) and same(before["optimizer"], after["optimizer"])
    loss = torch.zeros((), requires_grad=True) * 2  # of parameters of nobody
    a.step(loss), b.step(loss.detach().requires_grad_() * 2)
    assert same(before["network"], b.state_dict()["network"])


def same(a: Any, b: Any) -> bool:
    """The same bits."""
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return all(map(same, a, b)) if isinstance(a, (list, tuple)) else a == b


@pytest.mark.parametrize("optimizer", NAMES)
def test_parameters_may_get_their_first_gradient_later_than_others(optimizer: str) -> None:
    """A projection head that joins after warm-up: as torch's own optimiser without fused kernels does it."""
    heads = [nn.Linear(8, 2), nn.Linear(8, 2)]
    heads[1].load_state_dict(heads[0].state_dict())
    net = Learner(network(), Training(optimizer=optimizer, lr=0.01), extra=nn.ModuleDict({"head": heads[0]}))
    plain = network().train()
    kinds: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    momentum = {"momentum": 0.9} if optimizer == "sgd" else {}
    optimiser = kinds[optimizer]([*plain.parameters(), *heads[1].parameters()], 0.01, weight_decay=5e-4, fused=False, **momentum)
    for number in range(5):
        logits, features = net.with_features(images(8, number))
        net.step(with_head(logits, features, heads[0], number))
        optimiser.zero_grad()
        features = plain.features(images(8, number))
        with_head(plain.head(features), features, heads[1], number).backward()
        optimiser.step()
    torch.testing.assert_close(heads[0].weight, heads[1].weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(net.network.head.weight, plain.head.weight, rtol=1e-5, atol=1e-7)


def with_head(logits: Tensor, features: Tensor, head: nn.Module, number: int) -> Tensor:
    loss = F.cross_entropy(logits, labels(8))
    return loss + head(features).square().mean() if number >= 2 else loss


# --- skipped steps


@pytest.mark.parametrize("first", [True, False], ids=["first step", "later step"])
@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("training", [case[0] for case in OPTIMISERS], ids=NAMES)
def test_a_skipped_step_changes_no_bit_and_leaves_no_trace(training: dict[str, Any], clip: float | None, first: bool) -> None:
    """Whatever its loss is, here NaN; afterwards all goes on as in a learner that never heard of it."""
    one, two = learner(MLP, clip_norm=clip, **training), learner(MLP, clip_norm=clip, **training)
    if not first:
        train(one, 2), train(two, 2)
    before = copy.deepcopy(one.state_dict())
    one.step(F.cross_entropy(one(images(8, 9)), labels(8)) * torch.nan, skip=torch.tensor(True))
    after = one.state_dict()
    assert same(before["network"], after["network"])
    if not first:
        assert same(before["optimizer"], after["optimizer"]) and len(after["optimizer"]["state"]) == 4
    else:  # where torch has nothing yet, zeros
        assert all(float(torch.as_tensor(v).abs().sum()) == 0 for s in after["optimizer"]["state"].values() for v in s.values())
    train(one, 3, first=2), train(two, 3, first=2)
    assert same(one.state_dict()["network"], two.state_dict()["network"])
    assert same(one.state_dict()["optimizer"], two.state_dict()["optimizer"])


@pytest.mark.parametrize("training", [case[0] for case in OPTIMISERS], ids=NAMES)
def test_a_step_that_is_not_skipped_is_an_ordinary_one(training: dict[str, Any]) -> None:
    one, two = learner(clip_norm=0.5, **training), learner(clip_norm=0.5, **training)
    for number in range(3):
        one.step(F.cross_entropy(one(images(8, number)), labels(8)), skip=torch.tensor(False))
        two.step(F.cross_entropy(two(images(8, number)), labels(8)))
    assert same(one.state_dict(), two.state_dict())


def test_a_joint_step_is_skipped_for_all() -> None:
    a, b = learner(), learner(seed=1)
    before = [copy.deepcopy(net.network.state_dict()) for net in (a, b)]
    a.step(agreement(a(images(8)), b(images(8))), b, skip=torch.tensor(True))
    for net, was in zip((a, b), before, strict=True):
        assert all(same(was[name], p.detach()) for name, p in net.network.named_parameters())


def test_a_skipped_loss_counts_as_zero_in_the_log() -> None:
    """A loss over no samples is NaN, which would read as divergence."""
    seen: list[Tensor] = []
    net = learner(MLP, log=seen.append)
    for skip in (True, False):
        net.step(net(images(8)).sum() * (torch.nan if skip else 1), skip=torch.tensor(skip))
    assert float(seen[0]) == 0 and float(seen[1]) != 0 and not seen[1].isnan()


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


def test_extra_modules_are_in_the_mode_of_the_pass_below_them() -> None:
    """So a batch of one image gets through a head with batch norm."""
    head = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    net = Learner(network(), Training(), extra=nn.ModuleDict({"head": head}))
    for count in (8, 1, 8):
        logits, features = net.with_features(images(count))
        assert head.training == (count > 1)
        net.step(F.cross_entropy(logits, labels(count)) + head(features).square().mean())
    net.infer(images(8))
    assert not head.training and not head[1].training


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
