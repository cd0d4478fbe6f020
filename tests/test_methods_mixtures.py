"""m-correction and elr-plus against the checks of their cards.

Tables of logits stand for networks where a loss, a gradient or an order of passes is worked out by hand (`small.Table`). The
mixture's own numbers (moments, ten EM steps, the table) are in `test_ops_beta_mixture.py`.
"""

from __future__ import annotations

import io
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import Table, equal, make_task, plain_images, real, snapshot, start, table, table_task
from torch import Tensor
from torch.autograd import gradcheck

import methods.elr_plus
import methods.m_correction
from bench.ops.beta_mixture import beta_mixture, loss_range, scale_losses
from bench.trial.task import Batch
from methods.elr import ELR
from methods.elr_plus import ELRPlus, reweighted
from methods.m_correction import MCorrection, blend, mixed_loss, trust

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
VARIANTS = ("M-DYR-H", "M-DYR-S", "MD-DYR-SH")


def random_rows(count: int, classes: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def recipe(method: Any, **facts: Any) -> dict[str, Any]:
    """What the recipes called `paper` set for a cell."""
    found: dict[str, Any] = {}
    for entry in method.recipes:
        if entry.name == "paper" and entry.matches(facts):
            found.update(entry.set)
    return found


# --- m-correction: the mixture


def tracked(method: MCorrection, losses: Tensor) -> MCorrection:
    """The method after it has looked at samples with these losses."""
    method.track = lambda: losses  # type: ignore[method-assign]
    method.model_losses()
    return method


def two_groups(seed: int = 0, count: int = 60) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.rand(count, generator=generator) * 0.8, 2 + torch.rand(count // 2, generator=generator)])


def some(count: int = 90, **params: Any) -> MCorrection:
    return start(MCorrection(**params), make_task(torch.arange(count) % 3))


def test_the_mixture_is_fitted_to_the_losses_between_two_percentiles() -> None:
    losses = two_groups()
    losses[0] = 1e4  # an outlier: it would squeeze the others
    method = tracked(some(), losses)
    scaled, inside = scale_losses(losses, loss_range(losses))
    expected = beta_mixture(scaled, n_iter=10, keep=inside)
    assert 0 < int((~inside).sum()) < 12
    for name in ("alphas", "betas", "weights"):
        torch.testing.assert_close(method.fit[name], getattr(expected, name))
    assert (method.fit["low"], method.fit["high"]) == loss_range(losses)
    noisy = method.posterior(losses)
    assert noisy.min() >= 1e-4 and noisy.max() <= 1 - 1e-4
    assert (noisy[1:60] < 0.5).all() and (noisy[60:] > 0.5).all() and noisy[0] > 0.5
    torch.testing.assert_close(method.clean_scores(), 1 - noisy)


def test_ten_steps_of_em_are_not_convergence() -> None:
    """Halves of Beta(2, 8) and Beta(8, 2), as on the card: here between their percentiles and stretched to [0, 1]."""
    generator = np.random.default_rng(0)
    losses = torch.from_numpy(np.concatenate([generator.beta(2, 8, 5000), generator.beta(8, 2, 5000)])).float()
    gaps, at_09 = [], []
    for steps in (10, 100):
        method = tracked(some(em_steps=steps), losses)
        means = method.fit["alphas"] / (method.fit["alphas"] + method.fit["betas"])
        gaps.append(float(means[1] - means[0]))
        at_09.append(float(method.posterior(torch.tensor([0.9]))))
    assert gaps[0] < gaps[1] - 0.1 and at_09[0] < 0.97 and at_09[1] > 0.999
    assert MCorrection.em_steps == 10


def test_equal_losses_say_nothing_and_a_fit_without_a_range_keeps_the_last() -> None:
    method = tracked(some(), torch.ones(90))
    assert bool(method.fit["degenerate"]) and (method.clean_scores() == 0.5).all()
    assert (method.posterior(torch.tensor([0.0, 1.0, 9.0])) == 0.5).all()
    before = {name: value.clone() for name, value in tracked(method, two_groups()).fit.items()}
    assert not bool(method.fit["degenerate"])
    tracked(method, torch.ones(90))
    assert all(torch.equal(method.fit[name], value) for name, value in before.items())
    assert method.posterior(torch.tensor([0.1, 2.5])).tolist() == pytest.approx([0.0, 1.0], abs=0.1)
    tracked(method, torch.full((90,), float("nan")))
    assert all(torch.equal(method.fit[name], value) for name, value in before.items())


def test_losses_are_tracked_in_evaluation_mode_on_the_weak_view_of_every_sample() -> None:
    tasks = [make_task(torch.arange(30) % 3, subset=lambda seed: torch.arange(10)) for _ in range(2)]
    weak, plain = start(MCorrection(), tasks[0]), start(MCorrection(tracked_view="plain"), tasks[1])
    before = snapshot(weak.net)
    assert weak.track().shape == plain.track().shape == (30,)  # not the subset of the epoch alone
    torch.testing.assert_close(plain.track(), plain.task.losses(plain.net))
    assert not torch.allclose(weak.track(), plain.track()) and equal(before, snapshot(weak.net))


def test_each_epoch_uses_the_mixture_of_the_epoch_before(monkeypatch: pytest.MonkeyPatch) -> None:
    method = real(MCorrection(warmup=1), 32, 8)
    used: list[Any] = []
    posterior = method.posterior
    monkeypatch.setattr(method, "posterior", lambda losses: used.append(method.fit) or posterior(losses))
    method.epoch(0)
    first, used[:] = method.fit, []
    method.epoch(1)
    assert all(fit is first for fit in used[:-1]) and len(used) == 5 and used[-1] is method.fit is not first


@pytest.mark.parametrize("variant", VARIANTS)
def test_resuming_between_two_epochs_changes_no_bit(variant: str) -> None:
    params: dict[str, Any] = {"variant": variant, "warmup": 1, "mixup_epochs": 0}

    def advanced(method: Any, *epochs: int) -> Any:
        for epoch in epochs:
            method.task.start_epoch(epoch)
            method.epoch(epoch)
        return method

    def fresh() -> Any:
        return real(MCorrection(**params), 32, 8)

    assert fresh().state_dict()["fit"] == {} and fresh().clean_scores() is None
    file = io.BytesIO()
    torch.save(advanced(fresh(), 0).state_dict(), file)
    file.seek(0)
    resumed = fresh()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    whole, resumed = advanced(fresh(), 0, 1), advanced(resumed, 1)
    assert set(whole.fit) == {"low", "high", "alphas", "betas", "weights", "degenerate"}
    assert equal(whole.fit, resumed.fit) and torch.equal(whole.clean, resumed.clean)
    assert equal(snapshot(whole.net), snapshot(resumed.net))


# --- m-correction: the steps


def stepped(monkeypatch: pytest.MonkeyPatch, net: Table, epoch: int, noisy: Tensor | None = None, **params: Any) -> Any:
    """One epoch of one batch of a table, whose images stay unmixed; `mixed` lists the shares of images."""
    task = table_task(LABELS[: len(net.rows)], {"a": net})
    method = start(MCorrection(**{"warmup": 1, "mixup_epochs": 1, "temperature_epochs": 3, **params}), task, epoch)
    method.mixed = mixed = []
    monkeypatch.setattr(methods.m_correction, "blend", lambda images, share, partner: mixed.append((share, partner)) or images)
    tracked(method, torch.linspace(0.0, 3.0, len(net.rows)))
    if noisy is not None:
        method.posterior = lambda losses: noisy[net.calls[-1][1]]
    method.epoch(epoch)
    return method


@pytest.mark.parametrize(
    ("variant", "epoch", "passes"),
    [
        ("M-DYR-H", 0, ["forward"]),
        ("M-DYR-H", 1, ["guess", "forward", "infer"]),
        ("M-DYR-S", 1, ["guess", "infer", "forward"]),
        ("MD-DYR-SH", 0, ["forward"]),
        ("MD-DYR-SH", 1, ["infer", "forward"]),
        ("MD-DYR-SH", 2, ["guess", "infer", "forward"]),
    ],
)
def test_passes_stand_in_the_released_order(monkeypatch: pytest.MonkeyPatch, variant: str, epoch: int, passes: list[str]) -> None:
    net = table(8)
    stepped(monkeypatch, net, epoch, variant=variant)
    assert [what for what, _ in net.calls] == passes and len(net.steps) == 1


def expected_loss(rows: Tensor, index: list[int], share: Any, partner: Tensor, noisy: Tensor, target: Tensor) -> Tensor:
    """Step 5 of the card plus R, for the batch `index` of the table."""
    p, noisy = rows[index].softmax(dim=1), noisy[index]
    bootstrapped = (1 - noisy[:, None]) * F.one_hot(LABELS[index], 3) + noisy[:, None] * target[index]
    mixed = share * bootstrapped + (1 - share) * bootstrapped[partner]
    return -(mixed * p.log()).sum(dim=1).mean() + (1 / 3 * (1 / 3 / p.mean(dim=0)).log()).sum()


@pytest.mark.parametrize("variant", VARIANTS)
def test_bootstrapping_by_hand(monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    net, noisy = table(8, seed=3), torch.linspace(0.1, 0.9, 8)
    method = stepped(monkeypatch, net, 3, noisy, variant=variant)
    rows = table(8, seed=3).rows
    ((share, partner),) = method.mixed
    index = net.calls[0][1]
    temperature = 1 - 0.999 / 2 if variant == "MD-DYR-SH" else 1.0  # the second of three epochs
    target = (rows.detach() / temperature).softmax(dim=1)
    if variant == "M-DYR-H":
        target = F.one_hot(target.argmax(dim=1), 3)
    if variant == "MD-DYR-SH":
        torch.testing.assert_close(share, trust(noisy[index], partner))
        share = 0.5
    else:
        assert share.ndim == 0 and 0.5 <= share < 0.8  # Beta(32, 32) is narrow
    loss = expected_loss(rows, index, share, partner, noisy, target)
    assert net.steps[0][0] == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(net.steps[0][1], torch.autograd.grad(loss, rows)[0], rtol=1e-4, atol=1e-6)


def test_dynamic_mixup_alone_mixes_labels_independently_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    net, noisy = table(8, seed=3), torch.linspace(0.1, 0.9, 8)
    drawn: list[Tensor] = []
    coefficient = MCorrection.coefficient
    monkeypatch.setattr(MCorrection, "coefficient", lambda self: drawn.append(coefficient(self)) or drawn[-1])
    method = stepped(monkeypatch, net, 1, noisy, variant="MD-DYR-SH")
    ((share, partner),), index = method.mixed, net.calls[0][1]
    torch.testing.assert_close(share, trust(noisy[index], partner))
    (label_share,) = drawn
    losses = -table(8, seed=3).rows.detach().log_softmax(dim=1)[index]
    labels = LABELS[index]
    own, other = losses.gather(1, labels[:, None])[:, 0], losses.gather(1, labels[partner][:, None])[:, 0]
    assert label_share.ndim == 0
    assert net.steps[0][0] == pytest.approx(float((label_share * own + (1 - label_share) * other).mean()), rel=1e-5)


def test_without_trusted_losses_only_labels_count() -> None:
    """B = 0: mixup's cross-entropy plus R, whatever is predicted; B = 1: the labels do not matter."""
    method, partner, share = some(9, prior_weight=2.0), torch.randperm(9, generator=torch.Generator().manual_seed(1)), 0.7
    logits, labels, target = random_rows(9), torch.arange(9) % 3, random_rows(9, seed=1).softmax(dim=1)
    zero, one = torch.zeros(9, dtype=torch.float64), torch.ones(9, dtype=torch.float64)
    p = logits.softmax(dim=1).mean(dim=0)
    expected = share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, labels[partner])
    expected = expected + 2 * (1 / 3 * (1 / 3 / p).log()).sum()
    for other in (target, target.flip(0)):
        torch.testing.assert_close(method.bootstrapped(logits, labels, other, zero, share, partner), expected)
    free = [method.bootstrapped(logits, given, target, one, share, partner) for given in (labels, labels.flip(0))]
    assert torch.equal(*free) and not torch.equal(free[0], expected)


def test_the_prior_of_the_card() -> None:
    method, one = some(3), torch.ones(1)
    for mean, value in (((0.7, 0.2, 0.1), 0.324287), ((1 / 3, 1 / 3, 1 / 3), 0.0)):
        logits = torch.tensor([mean], dtype=torch.float64).log()
        args = (logits, torch.tensor([0]), torch.tensor([[1.0, 0.0, 0.0]]), one, 1.0, torch.tensor([0]))
        assert float(method.bootstrapped(*args)) + math.log(mean[0]) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("share", [0.3, torch.tensor(0.6, dtype=torch.float64)])
def test_gradients_of_the_losses(share: Any) -> None:
    method, partner = some(6), torch.tensor([3, 0, 5, 1, 2, 4])
    labels, noisy = torch.arange(6) % 3, torch.linspace(0.05, 0.95, 6, dtype=torch.float64)
    target, logits = random_rows(6, seed=1).softmax(dim=1), random_rows(6).requires_grad_()
    assert gradcheck(lambda x: method.bootstrapped(x, labels, target, noisy, share, partner), logits)
    assert gradcheck(lambda x: mixed_loss(x, labels, torch.as_tensor(share), partner), logits)


def test_trust_of_the_card() -> None:
    swap = torch.tensor([1, 0])
    assert trust(torch.tensor([0.9, 0.1]), swap).tolist() == pytest.approx([0.1, 0.9])
    assert trust(torch.tensor([0.3, 0.3]), swap).tolist() == [0.5, 0.5]
    assert trust(torch.tensor([1 - 1e-4, 1 - 1e-4]), swap).tolist() == [0.5, 0.5]
    images = torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    assert blend(images, torch.tensor([0.1, 0.9]), swap).flatten().tolist() == pytest.approx([4.6, 4.6])
    assert blend(images, torch.tensor(0.75), swap).flatten().tolist() == [2.0, 4.0]


def test_temperature_of_the_card() -> None:
    """Counted from 1: bootstrapping begins in epoch 111 with T = 1, reaches 0.001 in epoch 199 and stays there."""
    method = MCorrection(variant="MD-DYR-SH")
    assert method.temperature(111 - 1) == 1.0
    assert [method.temperature(epoch - 1) for epoch in (199, 200, 300)] == pytest.approx([0.001] * 3)
    assert method.temperature(155 - 1) == pytest.approx(0.5005)  # half-way
    assert MCorrection(temperature_epochs=1).temperature(200) == 1.0


@pytest.mark.parametrize(
    ("variant", "epoch", "cost"),
    [("M-DYR-H", 0, 4), ("M-DYR-H", 1, 6), ("M-DYR-S", 1, 6), ("MD-DYR-SH", 1, 5), ("MD-DYR-SH", 2, 6)],
)
def test_cost_of_m_correction(variant: str, epoch: int, cost: int) -> None:
    method = tracked(real(MCorrection(variant=variant, warmup=1, mixup_epochs=1), 33, 8), torch.rand(33))
    del method.track
    method.epoch(epoch)
    assert method.net.forward_images + 2 * method.net.backward_images == cost * 33
    assert MCorrection.cost == "4 FE while warming up, then 6 FE (5 in the epochs of dynamic mixup alone)"


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_image_or_equal_images_are_survived(variant: str) -> None:
    method = real(MCorrection(variant=variant, warmup=1, mixup_epochs=0), 9, 8)
    for epoch in range(3):
        method.task.start_epoch(epoch)
        method.epoch(epoch)
    assert all(value.isfinite().all() for value in snapshot(method.net).values()) and method.clean_scores().isfinite().all()


def test_the_papers_variant_of_each_cell() -> None:
    def variant(dataset: str, noise: str, rate: float) -> str:
        return recipe(MCorrection, dataset=dataset, noise=noise, rate=rate).get("variant", MCorrection.variant)

    cells = [("cifar10", 0.8), ("cifar10", 0.9), ("cifar100", 0.5), ("cifar100", 0.8), ("cifar100", 0.9)]
    assert [variant(dataset, "symmetric", rate) for dataset, rate in cells] == [
        "M-DYR-H", "MD-DYR-SH", "MD-DYR-SH", "M-DYR-H", "MD-DYR-SH",
    ]  # fmt: skip
    assert recipe(MCorrection, dataset="cifar10")["training.milestones"] == (100, 250)  # bootstrapping begins five later


# --- elr-plus


class Follower(Table):
    """Stands for a weight average: its passes have no gradient and its updates are written down."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__(rows)
        self.decays: list[float] = []

    def __call__(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return super().__call__(images)

    def update(self, decay: float) -> None:
        self.decays.append(decay)


def plus(rows: Tensor, peer: Tensor, labels: Tensor, size: int | None = None, **params: Any) -> Any:
    """elr-plus with tables: both networks have `rows`, both averages `peer`."""
    classes, averages = rows.shape[1], {"average-a": Follower(peer), "average-b": Follower(peer)}
    training = {"batch_size": size or len(labels)}
    task = table_task(labels, {"a": Table(rows), "b": Table(rows)}, num_classes=classes, training=training)
    task.average = lambda learner, name: averages[name]  # type: ignore[method-assign,assignment]
    return start(ELRPlus(**params), task)


def test_without_mixup_and_with_an_equal_peer_it_is_elr() -> None:
    """alpha = 0, g2 = f1, no ramp, ten classes: the loss of ELR from the same memory, epoch after epoch."""
    rows, labels = random_rows(20, 10).float(), torch.arange(20) % 10
    method = plus(rows, rows, labels, alpha=0, lam=3, beta=0.7)
    other = start(ELR(lam=3, beta=0.7), table_task(labels, {"a": Table(rows)}, num_classes=10))
    for epoch in range(3):
        method.task.start_epoch(epoch)
        method.epoch(epoch)
        x = rows.clone().requires_grad_()
        loss = other.loss(x, Batch(torch.arange(20), labels, ())).mean()
        for net, memory in ((method.a, method.memory_a), (method.b, method.memory_b)):
            assert net.steps[-1][0] == pytest.approx(float(loss.detach()), rel=1e-5)
            torch.testing.assert_close(net.steps[-1][1], torch.autograd.grad(loss, x, retain_graph=True)[0], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(memory, other.targets)


def test_decay_of_the_card() -> None:
    method = ELRPlus()
    found = [method.decay(step) for step in (1, 19_999, 39_999, 90_000)]
    assert found == pytest.approx([0.006721, 0.285645, 0.997, 0.997], abs=1e-6)
    plain = ELRPlus(ema=0.9999, ema_steps=0)
    assert [plain.decay(step) for step in (1, 3, 10**6)] == [0.5, 0.75, 0.9999]


def test_both_networks_count_the_same_steps_epoch_after_epoch() -> None:
    rows = random_rows(8).float()
    method = plus(rows, rows, LABELS, size=3, ema_steps=10)
    for epoch in range(2):
        method.task.start_epoch(epoch)
        method.epoch(epoch)
    expected = [ELRPlus(ema_steps=10).decay(step) for step in range(1, 7)]
    assert method.steps == 6 and method.average_a.decays == method.average_b.decays == expected


def test_the_penalty_rises_over_its_ramp() -> None:
    method = ELRPlus(lam=7.0, coef_steps=40_000)
    logits, labels, targets = random_rows(5), F.one_hot(torch.arange(5) % 3, 3).double(), random_rows(5, seed=1).softmax(dim=1)
    plain = ELRPlus(lam=0.0).loss(logits, labels, targets, 1)
    penalty = [float(method.loss(logits, labels, targets, step) - plain) for step in (20_000, 40_000, 50_000)]
    full = 7 * float(torch.log(1 - (logits.softmax(dim=1) * targets).sum(dim=1)).mean())
    assert penalty == pytest.approx([full * math.exp(-5 / 4), full, full])
    assert float(ELRPlus(lam=7.0).loss(logits, labels, targets, 1) - plain) == pytest.approx(full)  # no ramp


def with_share(monkeypatch: pytest.MonkeyPatch, share: float) -> list[tuple[Tensor, Tensor]]:
    """Coefficients are `share`, pairs of samples are swapped; lists (labels, targets) of each loss."""
    seen: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(methods.elr_plus, "beta_mix_coefficient", lambda alpha, **_: torch.tensor(share))
    monkeypatch.setattr(torch, "randperm", lambda count, **_: torch.arange(count).flip(0))
    monkeypatch.setattr(methods.elr_plus, "mix", lambda images, labels, share, partner: (
        images, share * labels + (1 - share) * labels[partner]))  # fmt: skip
    monkeypatch.setattr(
        ELRPlus, "loss", lambda self, logits, labels, targets, step: seen.append((labels, targets)) or logits.sum()
    )
    return seen


def test_targets_of_the_card_are_those_of_the_batch_mixed_like_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    sure = torch.tensor([[0.0, 200.0], [200.0, 0.0]])  # sample 1 is the first of the batch
    seen = with_share(monkeypatch, 0.75)
    method = plus(sure, sure, torch.tensor([1, 0]), beta=0.0)
    method.epoch(0)
    assert [targets.tolist() for _, targets in seen] == [[[0.75, 0.25], [0.25, 0.75]]] * 2
    assert method.memory_a.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_labels_are_weighted_again_by_the_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed, q = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.25, 0.75]])
    assert reweighted(mixed, q).tolist() == [[0.5, 0.5]]
    pure = torch.tensor([[1.0, 0.0]])
    assert reweighted(pure, q).tolist() == [[1.0, 0.0]] and reweighted(pure, torch.tensor([[0.0, 1.0]])).tolist() == [[0.0, 0.0]]
    seen = with_share(monkeypatch, 0.75)
    even, labels = torch.tensor([[0.0, 200.0], [200.0, 0.0]]), torch.tensor([0, 1])
    for again, expected in ((True, [[0.5, 0.5], [0.5, 0.5]]), (False, [[0.25, 0.75], [0.75, 0.25]])):
        plus(even, even, labels, beta=0.0, reweight_labels=again).epoch(0)
        assert [found.tolist() for found, _ in seen] == [expected] * 2
        seen.clear()


def test_the_memory_follows_the_average_of_the_other_network_on_unmixed_images() -> None:
    rows, labels = random_rows(8).float(), LABELS
    method = plus(rows, rows, labels, beta=0.9, alpha=0)
    peer_a, peer_b = (random_rows(8, seed=seed).float() for seed in (1, 2))
    method.average_a.rows, method.average_b.rows = peer_a, peer_b
    method.task.batches = lambda: iter([Batch(torch.tensor([2, 5]), labels[[2, 5]], (plain_images(method.task)[[2, 5]],))])
    method.memory_a[:] = 0.2
    method.epoch(0)
    expected = torch.full((8, 3), 0.2)
    expected[[2, 5]] = 0.18 + 0.1 * peer_b[[2, 5]].softmax(dim=1)
    torch.testing.assert_close(method.memory_a, expected)
    torch.testing.assert_close(method.memory_b[[2, 5]], 0.1 * peer_a[[2, 5]].softmax(dim=1))
    assert not method.memory_a.requires_grad and (method.memory_b[[0, 1, 3, 4, 6, 7]] == 0).all()
    assert method.average_b.calls == method.average_a.calls == [("guess", [2, 5])]
    torch.testing.assert_close(method.clean_scores(), torch.stack([
        (method.memory_a[i, label] + method.memory_b[i, label]) / 2 for i, label in enumerate(labels)]))  # fmt: skip


def test_gradient_of_the_loss() -> None:
    method = ELRPlus(lam=7.0, coef_steps=100)
    labels, targets = random_rows(6, seed=1).softmax(dim=1), random_rows(6, seed=2).softmax(dim=1)
    assert gradcheck(lambda x: method.loss(x, labels, targets, 60), random_rows(6).requires_grad_())
    certain = torch.tensor([[900.0, -900.0, 0.0]], requires_grad=True)
    loss = method.loss(certain, torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]), 100)
    loss.backward()
    assert loss.isfinite() and certain.grad is not None and certain.grad.isfinite().all()


def test_a_network_is_trained_beside_the_others_average_alone() -> None:
    """f1 does not depend on f2; the averages get no gradient, follow their own network, and keep their own statistics."""
    ends = []
    for nudge in (0.0, 1.0):
        method = real(ELRPlus(ema_steps=4), 32, 8)
        with torch.no_grad():
            method.b.network.head.weight += nudge
        before = [snapshot(net) for net in method.counted_networks()]
        assert not any(equal(before[0], other) for other in before[1:])  # four different beginnings
        method.train(method.a, method.average_a, method.average_b, method.memory_a)
        after = [snapshot(net) for net in (method.a, method.average_a, method.average_b)]
        ends.append(after[0])
        assert not any(p.requires_grad or p.grad is not None for p in method.average_b.network.parameters())
        statistics = {name for name in before[0] if "running" in name or "tracked" in name}
        names = {id(method.average_a): after[1], id(method.average_b): after[2]}
        for net, was in zip(method.counted_networks(), before, strict=True):
            if id(net) in names:
                changed = {name for name in was if not torch.equal(was[name], names[id(net)][name])}
                assert changed == (statistics if net is method.average_b else set(was) - statistics)
    assert equal(*ends)


def test_elr_plus_predicts_with_the_mean_of_the_logits() -> None:
    rows = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    method = plus(rows, rows, torch.tensor([0, 1]))
    method.b.rows = torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    assert method.predict(plain_images(method.task))[0].tolist() == pytest.approx([1 / (1 + math.e), math.e / (1 + math.e)])


def test_cost_of_elr_plus() -> None:
    method = real(ELRPlus(), 33, 8)
    method.epoch(1)
    nets = {name: getattr(method, name) for name in ("a", "b", "average_a", "average_b")}
    assert {name: net.forward_images for name, net in nets.items()} == dict.fromkeys(nets, 33)
    backward = [net.backward_images for net in (method.a, method.b)]
    assert sum(net.forward_images for net in nets.values()) + 2 * sum(backward) == 8 * 33 and ELRPlus.cost.startswith("8 FE")


def test_the_papers_settings_of_elr_plus() -> None:
    found = {name: recipe(ELRPlus, **facts) for name, facts in {
        "symmetric": {"dataset": "cifar10", "noise": "symmetric"}, "asymmetric": {"dataset": "cifar10", "noise": "asymmetric"},
        "hundred": {"dataset": "cifar100", "noise": "symmetric"}, "human": {"dataset": "cifar10n-worse"},
    }.items()}  # fmt: skip
    assert [(r["lam"], r["beta"], r.get("coef_steps", 0), r["training.epochs"]) for r in found.values()] == [
        (3, 0.7, 0, 200), (1, 0.9, 0, 200), (7, 0.9, 40_000, 250), (3, 0.7, 0, 200),
    ]  # fmt: skip
    assert found["hundred"]["reweight_labels"] and SimpleNamespace(**found["hundred"]).ema_steps == 40_000
