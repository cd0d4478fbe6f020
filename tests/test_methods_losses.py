"""mixup, bootstrap, forward, backward and ldr against the checks of their cards; what a pass of the loss-level methods costs."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small import Table, equal, make_task, pixels, plain_images, snapshot, start, table, table_task
from torch import Tensor

import methods.mixup
from bench.fields import FieldError
from bench.method import Method
from bench.ops.losses import bootstrap_hard, bootstrap_soft
from bench.ops.mixing import beta_mix_coefficient, mix
from bench.ops.targets import one_hot
from bench.ops.transitions import anchor_transition, backward_correction
from bench.training import Training
from bench.trial.task import Batch
from methods.backward import Backward
from methods.bootstrap import Bootstrap
from methods.elr import ELR
from methods.erm import ERM
from methods.forward import Forward
from methods.gce import GCE
from methods.ldr import LDR
from methods.mixup import Mixup

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
#: rows are true classes
GIVEN = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.8, 0.1], [0.0, 0.2, 0.8]])


def some(labels: Tensor = LABELS, index: Tensor | None = None) -> Batch:
    return Batch(torch.arange(len(labels)) if index is None else index, labels, ())


def rows(count: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def begun(method: Method, count: int = 30, **more: Any) -> Any:
    return start(method, make_task(torch.arange(count) % 3, images=pixels(count), **more))


def one_epoch(method: Any, epoch: int) -> None:
    method.task.start_epoch(epoch)
    method.epoch(epoch)


# --- cost: forward-equivalents per image and epoch, as declared

COSTS = [ERM(), ELR(), GCE(), Mixup(), Bootstrap(), Bootstrap(form="soft"), LDR(), LDR(adaptive=False), Forward()]


@pytest.mark.parametrize("method", COSTS, ids=lambda m: type(m).__name__)
def test_an_epoch_costs_one_forward_and_one_backward_pass(method: Any) -> None:
    method = begun(copy.deepcopy(method), training={"batch_size": 8})
    one_epoch(method, 0)
    assert (method.net.forward_images, method.net.backward_images) == (30, 30)
    assert method.cost.startswith("3 FE")


def test_pruning_costs_a_forward_pass_in_its_epochs() -> None:
    method = begun(GCE(truncated=True, prune_from=1, prune_every=2), training={"batch_size": 8})
    passes = []
    for epoch in range(4):
        before = method.net.forward_images
        one_epoch(method, epoch)
        passes.append((method.net.forward_images - before) / 30)
    assert passes == [1, 2, 1, 2] and method.net.backward_images == 4 * 30


def test_estimating_costs_one_forward_pass_in_all() -> None:
    method = begun(Forward(), training={"batch_size": 8, "epochs": 4})
    for epoch in range(4):
        one_epoch(method, epoch)
    assert (method.net.forward_images, method.net.backward_images) == (5 * 30, 4 * 30) and method.networks == 1


# --- mixup


def test_mixup_without_mixing_is_cross_entropy_bit_for_bit() -> None:
    ours, plain = begun(Mixup(alpha=0.0)), begun(ERM())
    for epoch in range(2):
        one_epoch(ours, epoch)
        one_epoch(plain, epoch)
    assert equal(snapshot(ours.net), snapshot(plain.net))
    net = table(8)
    task = table_task(LABELS, {"a": net})
    start(Mixup(alpha=0.0), task).epoch(0)
    assert net.steps[0][0] == pytest.approx(float(F.cross_entropy(table(8).rows.detach(), LABELS)), abs=1e-7)
    assert sorted(net.calls[0][1]) == list(range(8))  # the images went in as they are


def drawn(monkeypatch: pytest.MonkeyPatch, share: float, order: list[int]) -> None:
    monkeypatch.setattr(methods.mixup, "beta_mix_coefficient", lambda *_, **__: torch.tensor(share))
    monkeypatch.setattr(methods.mixup.torch, "randperm", lambda count, generator: torch.tensor(order))


def test_mixup_blends_images_and_losses_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    method = begun(Mixup(), 4)
    batch = next(iter(method.task.batches()))
    seen: list[Tensor] = []
    logits = rows(4).requires_grad_()
    losses: list[Tensor] = []

    class Net:
        def __call__(self, images: Tensor) -> Tensor:
            seen.append(images)
            return logits

        def step(self, loss: Tensor) -> None:
            losses.append(loss)

    method.net = Net()
    drawn(monkeypatch, 0.7, [1, 3, 2, 0])
    method.step(batch, 0)
    x, y, partner = batch.images, batch.labels, torch.tensor([1, 3, 2, 0])
    torch.testing.assert_close(seen[0], 0.7 * x + 0.3 * x[partner])
    two_terms = 0.7 * F.cross_entropy(logits, y) + 0.3 * F.cross_entropy(logits, y[partner])
    torch.testing.assert_close(losses[0], two_terms, atol=1e-6, rtol=0)
    ours, theirs = (torch.autograd.grad(loss, logits)[0] for loss in (losses[0], two_terms))
    torch.testing.assert_close(ours, theirs)
    logits = torch.zeros(4, 3)
    method.step(batch, 0)
    assert losses[1].item() == pytest.approx(math.log(3))  # whatever the labels


@settings(deadline=None, database=None, derandomize=True, max_examples=30)
@given(st.floats(0, 1), st.integers(2, 9), st.integers(0, 2**31))
def test_folding_the_coefficient_only_renames_partners(share: float, size: int, seed: int) -> None:
    """(1 - l, pairing) and (l, inverse pairing) make the same blends in another order, so max(l, 1 - l) loses nothing."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(size, 2, generator=generator), one_hot(torch.randint(3, (size,), generator=generator), 3)
    order = torch.randperm(size, generator=generator)
    a, b = mix(x, y, 1 - share, order), mix(x, y, share, order.argsort())
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other[order])


@pytest.mark.parametrize(("alpha", "variance"), [(32.0, 1 / 260), (1.0, 1 / 12)])
def test_variance_of_the_mixing_coefficient(alpha: float, variance: float) -> None:
    generator = torch.Generator().manual_seed(1)
    draws = torch.stack([beta_mix_coefficient(alpha, generator=generator) for _ in range(10_000)])
    assert float(((draws - 0.5) ** 2).mean()) == pytest.approx(variance, rel=0.05)


def test_one_coefficient_and_one_pairing_per_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def recorded(inputs: Tensor, targets: Tensor, share: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
        asked.append((float(share), partner.tolist()))
        return mix(inputs, targets, share, partner)

    monkeypatch.setattr(methods.mixup, "mix", recorded)
    method = begun(Mixup(alpha=1.0), 40, training={"batch_size": 16})
    one_epoch(method, 0)
    assert [len(partner) for _, partner in asked] == [16, 16, 8]
    assert all(sorted(partner) == list(range(len(partner))) for _, partner in asked)
    assert len({share for share, _ in asked}) == 3 and asked[0][1] != asked[1][1]


def test_mixup_predicts_plain_images_and_scores_nothing() -> None:
    method = begun(Mixup())
    images = plain_images(method.task)
    torch.testing.assert_close(method.predict(images), method.net.infer(images).softmax(dim=1))
    assert torch.equal(method.predict(images), method.predict(images)) and method.clean_scores() is None


# --- bootstrap


def test_the_weight_of_the_given_label_is_the_papers_of_each_form() -> None:
    logits = rows()
    for form, loss, paper in (("soft", bootstrap_soft, 0.95), ("hard", bootstrap_hard, 0.8)):
        assert torch.equal(Bootstrap(form=form).loss(logits, some()), loss(logits, LABELS, paper))
        assert torch.equal(Bootstrap(form=form, beta=0.3).loss(logits, some()), loss(logits, LABELS, 0.3))
        assert torch.equal(Bootstrap(form=form, beta=0.0).loss(logits, some()), loss(logits, LABELS, 0.0))


def test_detaching_changes_gradients_and_not_losses() -> None:
    logits = rows().requires_grad_()
    whole, half = (Bootstrap(form="soft", beta=0.5, detach=detach).loss(logits, some()) for detach in (False, True))
    assert torch.equal(whole, half)
    a, b = (torch.autograd.grad(loss.sum(), logits)[0] for loss in (whole, half))
    assert (a - b).abs().max() > 0.01
    torch.testing.assert_close(b, 0.5 * (logits.detach().softmax(1) - one_hot(LABELS, 3)))


# --- forward and backward with a given matrix


def told(method: Method, net: Table) -> Any:
    task = table_task(LABELS, {"a": net}, needs=frozenset({"transition_matrix"}), granted={"transition_matrix": GIVEN})
    return start(method, task)


@pytest.mark.parametrize("cls", [Forward, Backward])
def test_a_given_matrix_is_used_from_the_first_epoch(cls: type[Forward]) -> None:
    net = table(8)
    method = told(cls(transition="given"), net)
    assert method.needs == {"transition_matrix"}
    method.epoch(0)
    logits = table(8).rows
    if cls is Forward:
        losses = -(logits.softmax(1) @ GIVEN).log()[torch.arange(8), LABELS]
    else:
        losses = -(torch.linalg.inv(GIVEN)[LABELS] * logits.log_softmax(1)).sum(dim=1)
        (condition,) = method.task.epoch_log().values()  # a table logs no loss
        assert condition == pytest.approx(float(torch.linalg.cond(GIVEN)))
    assert net.steps[0][0] == pytest.approx(float(losses.detach().mean()), rel=1e-5)
    torch.testing.assert_close(net.steps[0][1], torch.autograd.grad(losses.mean(), logits)[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(method.clean_scores(), -losses.detach(), rtol=1e-5, atol=1e-6)


def test_the_matrix_is_no_part_of_predictions() -> None:
    """Under 60 % pairflip arg max p and arg max p T differ: p counts."""
    net = Table(torch.tensor([[0.9, 0.06, 0.04]]).log())
    flip = torch.tensor([[0.4, 0.6, 0.0], [0.0, 0.4, 0.6], [0.6, 0.0, 0.4]])
    task = table_task(LABELS[:1], {"a": net}, needs=frozenset({"transition_matrix"}), granted={"transition_matrix": flip})
    method = start(Forward(transition="given"), task)
    p = method.predict(plain_images(task))
    assert p[0].tolist() == pytest.approx([0.9, 0.06, 0.04]) and (p @ flip).argmax() == 1


# --- forward and backward with an estimated matrix


@pytest.mark.parametrize("cls", [Forward, Backward])
def test_the_first_stage_is_cross_entropy(cls: type[Forward]) -> None:
    ours, plain = begun(cls(estimate_epochs=2)), begun(ERM())
    for epoch in range(2):
        one_epoch(ours, epoch)
        one_epoch(plain, epoch)
    assert torch.equal(ours.matrix, torch.eye(3))
    for name, value in snapshot(plain.net).items():
        torch.testing.assert_close(ours.net.network.state_dict()[name], value)
    torch.testing.assert_close(ours.clean_scores(), plain.clean_scores())


@pytest.mark.parametrize("percentile", [97.0, 50.0, None])
def test_the_second_stage_begins_anew_with_the_estimate(percentile: float | None) -> None:
    method = begun(Forward(estimate_epochs=2, percentile=percentile))
    initial = snapshot(method.net)
    for epoch in range(2):
        one_epoch(method, epoch)
    assert method.net.optimizer.state and not equal(snapshot(method.net), initial)
    expected = anchor_transition(method.task.predictions(method.net), percentile)
    method.task.start_epoch(2)
    method.start_epoch(2)
    torch.testing.assert_close(method.matrix, expected)
    torch.testing.assert_close(method.matrix.sum(dim=1), torch.ones(3))
    assert not method.net.optimizer.state and equal(snapshot(method.net), initial)
    matrix = method.matrix.clone()
    one_epoch(method, 3)
    assert torch.equal(method.matrix, matrix) and not matrix.requires_grad  # it stays
    images = plain_images(method.task)
    torch.testing.assert_close(method.predict(images), method.net.infer(images).softmax(dim=1))


def test_the_second_stage_trains_on_the_corrected_loss() -> None:
    """As one epoch of the same network with the estimate as a given matrix."""
    ours = begun(Forward(estimate_epochs=2, shrinkage=0.25))
    for epoch in range(2):
        one_epoch(ours, epoch)
    expected = 0.25 * torch.eye(3) + 0.75 * anchor_transition(ours.task.predictions(ours.net))
    need = "transition_matrix"
    other = begun(Forward(transition="given"), needs=frozenset({need}), granted={need: expected})
    for method in (ours, other):
        one_epoch(method, 2)
    torch.testing.assert_close(ours.matrix, expected)
    for name, value in snapshot(other.net).items():
        torch.testing.assert_close(ours.net.network.state_dict()[name], value)
    torch.testing.assert_close(ours.clean_scores(), other.clean_scores())


def test_backward_follows_the_estimate() -> None:
    method = begun(Backward(estimate_epochs=1, shrinkage=0.5))
    one_epoch(method, 0)
    assert method.task.epoch_log()["condition_number"] == pytest.approx(1)
    one_epoch(method, 1)
    assert method.task.epoch_log()["condition_number"] == pytest.approx(float(torch.linalg.cond(method.matrix)), rel=1e-5)
    logits = rows()
    expected = backward_correction(logits, LABELS, torch.linalg.inv(method.matrix))
    torch.testing.assert_close(method.loss(logits, some()), expected, rtol=1e-4, atol=1e-5)


SCHEDULES: list[dict[str, Any]] = [
    {"schedule": "multistep", "milestones": (6, 9)}, {"schedule": "cosine"}, {"schedule": "linear", "decay_from": 6},
    {"schedule": "cosine", "lr_warmup_epochs": 3},
]  # fmt: skip


@pytest.mark.parametrize("plan", SCHEDULES, ids=str)
def test_each_stage_runs_through_the_schedule(plan: dict[str, Any]) -> None:
    """Four and eight of twelve epochs: what a network trained for so many epochs, with milestones scaled alike, would see."""
    settings = {**plan, "epochs": 12, "lr": 0.5}
    method = begun(Forward(estimate_epochs=4), 6, training=settings)
    seen = []
    for epoch in range(12):
        one_epoch(method, epoch)
        seen.append(method.net.lr)
    for length, rates in ((4, seen[:4]), (8, seen[4:])):
        alone = {name: value * length // 12 for name, value in plan.items() if isinstance(value, int)}
        alone["milestones"] = tuple(milestone * length // 12 for milestone in plan.get("milestones", ()))
        expected = Training(**{**settings, **alone, "epochs": length})
        assert rates == pytest.approx([expected.lr_at(epoch) for epoch in range(length)])
    assert len(set(seen)) > 2


def test_the_best_network_of_the_first_stage_can_estimate() -> None:
    method = begun(Forward(estimate_epochs=3, checkpoint="best"), training={"epochs": 6})
    assert method.needs == {"validation"} and Forward().needs == frozenset()
    for epoch, accuracy in enumerate((0.4, 0.6, 0.6)):
        one_epoch(method, epoch)
        method.validated(epoch, accuracy)
        if epoch == 1:
            best = anchor_transition(method.task.predictions(method.net))
    last = anchor_transition(method.task.predictions(method.net))
    one_epoch(method, 3)
    torch.testing.assert_close(method.matrix, best)
    assert (best - last).abs().max() > 1e-4
    method.validated(3, 0.9)
    assert method.best_accuracy == 0.6  # later epochs are of no interest


def rates(cls: type[Forward], name: str, dataset: str) -> list[float]:
    """The learning rate of each epoch under the recipes of one name."""
    found: dict[str, Any] = {}
    for recipe in cls.recipes:
        if recipe.name == name and recipe.matches({"dataset": dataset, "noise": "asymmetric", "rate": 0.4}):
            found |= recipe.set
    own = {key: value for key, value in found.items() if "." not in key}
    training = {key.removeprefix("training."): value for key, value in found.items() if "." in key}
    granted = {"needs": cls(**own).needs, "granted": {"transition_matrix": GIVEN}}
    method, seen = begun(cls(**own), 3, training=training, **granted), []
    for epoch in range(method.task.epochs):
        method.task.start_epoch(epoch)
        method.start_epoch(epoch)
        seen.append(method.net.lr)
    return seen


@pytest.mark.parametrize("cls", [Forward, Backward])
@pytest.mark.parametrize(
    ("dataset", "drops"), [("cifar10", (41, 81, 120)), ("cifar100", (81, 121, 150)), ("cifar10n-worse", (40, 80, 120))]
)
def test_a_given_matrix_has_the_rates_of_the_second_stage(cls: type[Forward], dataset: str, drops: tuple[int, ...]) -> None:
    """0.1, 0.01 and 0.001 of the published run, which an estimate repeats for its two stages."""
    first, second, end = drops
    expected = [0.1] * first + [0.01] * (second - first) + [0.001] * (end - second)
    given, estimated = rates(cls, "given", dataset), rates(cls, "paper", dataset)
    assert given == pytest.approx(expected)
    assert len(estimated) == 2 * end and estimated[:end] == estimated[end:] == pytest.approx(given)


@pytest.mark.parametrize(("epochs", "asked", "first"), [(8, None, 4), (9, None, 4), (9, 7, 7)])
def test_how_the_epochs_are_split(epochs: int, asked: int | None, first: int) -> None:
    method = begun(Forward(estimate_epochs=asked), 6, training={"epochs": epochs})
    switched = []
    for epoch in range(epochs):
        one_epoch(method, epoch)
        switched.append(not torch.equal(method.matrix, torch.eye(3)))
    assert switched.index(True) == first and switched == sorted(switched)


@pytest.mark.parametrize(("epochs", "asked"), [(4, 4), (4, 9), (1, None)])
def test_both_stages_need_an_epoch(epochs: int, asked: int | None) -> None:
    with pytest.raises(FieldError, match="estimate_epochs"):
        begun(Forward(estimate_epochs=asked), training={"epochs": epochs})
    begun(Forward(transition="given", estimate_epochs=asked), needs=frozenset({"transition_matrix"}),
          granted={"transition_matrix": GIVEN}, training={"epochs": epochs})  # fmt: skip


def test_the_estimate_finds_the_noise_of_separable_classes() -> None:
    """Images that give their class away, 30 % of each class flipped to the next: T is found within 0.1."""
    true = torch.arange(600) % 3
    generator = torch.Generator().manual_seed(0)
    labels = torch.where(torch.rand(600, generator=generator) < 0.3, (true + 1) % 3, true)
    images = pixels(600) // 4
    images[torch.arange(600), 0, true] += 150
    training = {"epochs": 8, "batch_size": 32, "lr": 0.05, "augment": "none"}
    method = start(Forward(estimate_epochs=7), make_task(labels, images=images, training=training))
    for epoch in range(8):
        one_epoch(method, epoch)
    expected = 0.7 * torch.eye(3) + 0.3 * torch.eye(3).roll(1, dims=1)
    assert (method.matrix - expected).abs().max() < 0.1


# --- ldr


def test_ldr_without_its_parts_is_cross_entropy() -> None:
    method = begun(LDR(adaptive=False, normalise="none", margin=0.0, lam=1.0))
    logits = rows()
    torch.testing.assert_close(method.loss(logits, some()), F.cross_entropy(logits, LABELS, reduction="none") - math.log(3))


@pytest.mark.parametrize("normalise", ["softplus", "l1"])
def test_aldr_by_hand(normalise: str) -> None:
    """Two visits of a sample: lambda is read at the lambda of the last visit, and is a constant of the loss."""
    lam, alpha, margin = 0.5, 3.0, 0.1
    method = begun(LDR(lam=lam, alpha=alpha, margin=margin, normalise=normalise))
    x = rows(1).requires_grad_()
    own = torch.tensor([1])
    current = torch.tensor(lam)
    for _ in range(2):
        g = F.softplus(x) if normalise == "softplus" else x
        g = g / g.abs().mean()
        p = (g.detach() / current).softmax(1) + 1e-5
        p = p / p.sum()
        current = lam - lam * (p * (3 * p).log()).sum() / (alpha * math.log(3))
        shifted = torch.stack([g[0, k] - g[0, 1] + margin * (k != 1) for k in range(3)])
        expected = current * (shifted / current).exp().mean().log() - alpha * math.log(3) / (2 * lam) * (current - lam) ** 2
        loss = method.loss(x, some(own, torch.tensor([4])))
        torch.testing.assert_close(loss[0], expected)
        torch.testing.assert_close(torch.autograd.grad(loss.sum(), x)[0], torch.autograd.grad(expected, x)[0])
        assert method.lambdas[4].item() == pytest.approx(float(current), abs=1e-6)
    assert lam * (1 - 1 / alpha) < current < lam


def test_only_the_lambdas_of_the_batch_change() -> None:
    method = begun(LDR(lam=1.0))
    method.loss(3 * rows(2), some(LABELS[:2], torch.tensor([7, 2])))
    changed = method.lambdas != 1
    assert changed.nonzero()[:, 0].tolist() == [2, 7] and not method.lambdas.requires_grad
    fixed = begun(LDR(adaptive=False))
    fixed.loss(3 * rows(2), some(LABELS[:2], torch.tensor([7, 2])))
    assert bool((fixed.lambdas == fixed.lam).all())


def test_the_scale_of_logits_means_nothing_to_aldr() -> None:
    losses = [begun(LDR(normalise="l1", lam=1.0)).loss(scale * rows(), some()) for scale in (1.0, 7.0)]
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize(("adaptive", "normalise"), [*itertools.product((True, False), ("softplus", "l1", "none"))])
def test_ldr_learns(adaptive: bool, normalise: str) -> None:
    method = begun(LDR(adaptive=adaptive, normalise=normalise, lam=1.0), training={"epochs": 25, "lr": 0.1, "augment": "none"})
    images = plain_images(method.task)
    before = float((method.predict(images).argmax(1) == method.task.labels).float().mean())
    for epoch in range(25):
        one_epoch(method, epoch)
    assert (method.predict(images).argmax(1) == method.task.labels).float().mean() > max(0.6, before)
