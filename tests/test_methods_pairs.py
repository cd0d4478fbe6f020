"""co-teaching and dividemix against the checks of their cards.

Most tests put tables of logits in the place of networks (see `small.Table`), so that each loss, each gradient and each
look at an image can be worked out by hand.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small import (
    Table,
    equal,
    fitted,
    logits_of,
    make_task,
    plain_images,
    real,
    rows_with_gradient,
    snapshot,
    start,
    table,
    table_task,
)
from torch import Tensor

import methods.dividemix
from bench.ops.mixtures import min_max
from methods.co_teaching import CoTeaching
from methods.dividemix import DivideMix

ZERO = torch.zeros(1, dtype=torch.int64)


# --- co-teaching


def taught(a: Table, b: Table, labels: Tensor, epoch: int = 20, **params: Any) -> CoTeaching:
    task = table_task(labels, {"a": a, "b": b}, num_classes=a.rows.shape[1])
    method = start(CoTeaching(**params), task, epoch)
    method.epoch(epoch)
    return method


def test_each_network_learns_from_its_peers_choice() -> None:
    """l1 chooses {0, 2}, l2 chooses {1, 2}: network a learns from {1, 2}, network b from {0, 2}."""
    a, b = Table(logits_of([0.1, 0.9, 0.2, 0.8])), Table(logits_of([0.7, 0.1, 0.3, 0.8]))
    method = taught(a, b, ZERO.repeat(4), forget_rate=0.5)
    ((loss_a, gradient_a),), ((loss_b, gradient_b),) = a.steps, b.steps
    assert rows_with_gradient(gradient_a) == [1, 2] and rows_with_gradient(gradient_b) == [0, 2]
    assert loss_a == pytest.approx((0.9 + 0.2) / 2) and loss_b == pytest.approx((0.7 + 0.3) / 2)
    assert a.calls == b.calls and len(a.calls) == 1  # the same batch, and one pass to rank and to train
    assert method.clean_scores().tolist() == pytest.approx([-0.4, -0.5, -0.25, -0.8])


def test_swapping_the_networks_swaps_their_losses() -> None:
    first = table(12, seed=1), table(12, seed=2)
    second = table(12, seed=2), table(12, seed=1)
    labels = torch.arange(12) % 3
    taught(*first, labels, forget_rate=0.3)
    taught(*second, labels, forget_rate=0.3)
    assert first[0].steps[0][0] == second[1].steps[0][0] and first[1].steps[0][0] == second[0].steps[0][0]
    assert first[0].steps[0][0] != first[1].steps[0][0]
    assert torch.equal(first[0].steps[0][1], second[1].steps[0][1])


@pytest.mark.parametrize(("rate", "kept"), [(0.2, 102), (0.5, 64), (0.45, 70)])
def test_the_number_kept_is_rounded_down(rate: float, kept: int) -> None:
    a, b = table(128, seed=1), table(128, seed=2)
    taught(a, b, torch.arange(128) % 3, forget_rate=rate)
    assert len(rows_with_gradient(a.steps[0][1])) == len(rows_with_gradient(b.steps[0][1])) == kept


@pytest.mark.parametrize(("epoch", "kept"), [(0, 36), (1, 34), (2, 32), (3, 30), (9, 18), (10, 18), (150, 18)])
def test_the_forget_rate_rises_over_ten_epochs(epoch: int, kept: int) -> None:
    """tau = 0.5: 0, 0.05556, 0.11111, 0.16667, ..., 0.5 of 36 samples."""
    a, b = table(36, seed=1), table(36, seed=2)
    taught(a, b, torch.arange(36) % 3, epoch, forget_rate=0.5)
    assert len(rows_with_gradient(a.steps[0][1])) == kept


def test_nothing_forgotten_is_two_independent_runs_of_cross_entropy() -> None:
    settings: dict[str, Any] = {"training": {"batch_size": 8, "lr": 0.05}}
    method = start(CoTeaching(forget_rate=0.0), make_task(torch.arange(30) % 3, **settings))
    apart = make_task(torch.arange(30) % 3, **settings)
    nets = [apart.learner("a"), apart.learner("b")]
    for epoch in range(2):
        method.task.start_epoch(epoch)
        method.epoch(epoch)
        apart.start_epoch(epoch)
        for batch in apart.batches():
            for net in nets:
                net.step(F.cross_entropy(net(batch.images), batch.labels))
    for ours, theirs in zip((method.a, method.b), nets, strict=True):
        for x, y in zip(ours.network.state_dict().values(), theirs.network.state_dict().values(), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)
    assert not torch.equal(method.a.network.head.weight, method.b.network.head.weight)


def test_the_forget_rate_is_the_noise_rate_unless_given() -> None:
    assert CoTeaching().needs == {"noise_rate"} and CoTeaching(forget_rate=0.1).needs == frozenset()
    a, b = table(20, seed=1), table(20, seed=2)
    told: dict[str, Any] = {"needs": frozenset({"noise_rate"}), "granted": {"noise_rate": 0.25}}
    start(CoTeaching(), table_task(torch.arange(20) % 3, {"a": a, "b": b}, **told), 20).epoch(20)
    assert len(rows_with_gradient(a.steps[0][1])) == 15


def test_at_least_one_sample_is_kept() -> None:
    a, b = table(2, seed=1), table(2, seed=2)
    taught(a, b, torch.tensor([0, 1]), forget_rate=0.9)
    assert math.isfinite(a.steps[0][0]) and len(rows_with_gradient(a.steps[0][1])) == 1


def test_cost_of_co_teaching() -> None:
    method = real(CoTeaching(forget_rate=0.3), 33, 8)
    method.epoch(1)
    nets = (method.a, method.b)
    assert sum(net.forward_images + 2 * net.backward_images for net in nets) == 6 * 33 and CoTeaching.cost.startswith("6 FE")


def test_co_teaching_predicts_with_the_mean_probability() -> None:
    a, b = Table(torch.tensor([[0.8, 0.2]]).log()), Table(torch.tensor([[0.3, 0.7]]).log())
    method = start(CoTeaching(forget_rate=0.1), table_task(ZERO, {"a": a, "b": b}, num_classes=2))
    assert method.predict(plain_images(method.task))[0].tolist() == pytest.approx([0.55, 0.45])


# --- dividemix

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def mixing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods.dividemix, "mixmatch_batch", lambda inputs, targets, *_: (inputs, targets))


def mixed(a: Table, b: Table, confidence: dict[str, Tensor], epoch: int = 1, size: int = 8, **params: Any) -> DivideMix:
    """One epoch after warm-up in which the divisions are as given."""
    task = table_task(LABELS[: len(a.rows)], {"a": a, "b": b}, training={"batch_size": size})
    method = start(DivideMix(**{"warmup": 1, **params}), task, epoch)
    method.co_divide = lambda net, history: confidence["a" if net is a else "b"]
    method.epoch(epoch)
    return method


def clean(*indices: int, count: int = 8) -> Tensor:
    confidence = torch.full((count,), 0.1)
    confidence[list(indices)] = 0.9
    return confidence


def test_a_network_is_trained_on_the_division_of_its_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    mixing_off(monkeypatch)
    a, b = table(8, seed=1), table(8, seed=2)
    method = mixed(a, b, {"a": clean(0, 1, 2), "b": clean(3, 4)})
    for net, labelled in ((a, {3, 4}), (b, {0, 1, 2})):
        guesses = [set(index) for what, index in net.calls if what == "guess"]
        unlabelled = set(range(8)) - labelled
        assert guesses == [unlabelled, unlabelled, labelled, labelled]  # two views each, in the released order
        ((_, mixed_rows),) = [call for call in net.calls if call[0] == "forward"]
        split = 2 * len(labelled)
        assert set(mixed_rows[:split]) == labelled and set(mixed_rows[split:]) == unlabelled
    # the peer looks at the unlabelled images of the other in one pass of both views
    assert [sorted(index) for what, index in b.calls if what == "infer"] == [sorted([0, 1, 2, 5, 6, 7] * 2)]
    assert [sorted(index) for what, index in a.calls if what == "infer"] == [sorted([3, 4, 5, 6, 7] * 2)]
    assert method.clean_scores().tolist() == pytest.approx([0.5] * 5 + [0.1] * 3)


def test_both_divisions_are_made_before_either_network_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    method = start(DivideMix(warmup=1), table_task(LABELS, {"a": table(8), "b": table(8)}))
    name = {id(method.a): "a", id(method.b): "b"}
    monkeypatch.setattr(method, "co_divide", lambda net, history: events.append(name[id(net)]) or clean(0, 1))
    monkeypatch.setattr(method, "train", lambda net, peer, w, epoch: events.append((name[id(net)], name[id(peer)])))
    method.epoch(1)
    assert events == ["a", "b", ("a", "b"), ("b", "a")]


def test_confidence_at_the_threshold_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    mixing_off(monkeypatch)
    a, b = table(4, seed=1), table(4, seed=2)
    w = torch.tensor([0.5, 0.625, 0.75, 0.875])
    mixed(a, b, {"a": w, "b": w}, threshold=0.625)
    assert set(a.calls[0][1]) == {0, 1} and set(a.calls[2][1]) == {2, 3}


def sharpened(p: Tensor) -> Tensor:
    return p**2 / (p**2).sum(dim=1, keepdim=True)


def test_the_objective_of_a_step_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """L_x + lambda L_u + R of network a in the middle of the ramp, with its gradient."""
    mixing_off(monkeypatch)
    a, b = table(8, seed=1), table(8, seed=2)
    w = clean(0, 1, 2, 3)
    mixed(a, b, {"a": w, "b": w}, epoch=9, lambda_u=30.0)
    rows = table(8, seed=1).rows
    p, peer = rows.softmax(dim=1), table(8, seed=2).rows.softmax(dim=1)
    refined = sharpened(w[:4, None] * F.one_hot(LABELS[:4], 3) + (1 - w[:4, None]) * p[:4]).detach()
    guessed = sharpened((p[4:] + peer[4:]) / 2).detach()
    loss_x = -(refined * p[:4].log()).sum(dim=1).mean()
    loss_u = ((p[4:] - guessed) ** 2).mean()  # over rows and classes
    prior = (1 / 3 * (1 / 3 / p.mean(dim=0)).log()).sum()
    loss = loss_x + 30 * 0.5 * loss_u + prior
    assert a.steps[0][0] == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(a.steps[0][1], torch.autograd.grad(loss, rows)[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("epoch", "weights"),
    [(10, [0.0, 25 / 48]), (18, [12.5, 12.5 + 25 / 48]), (25, [23.4375, 23.4375 + 25 / 48]), (26, [25.0, 25.0])],
)
def test_the_unsupervised_weight_rises_over_sixteen_epochs(
    monkeypatch: pytest.MonkeyPatch, epoch: int, weights: list[float]
) -> None:
    """lambda_u = 25, W = 10; two batches, and n_b = floor(4 / 2) + 1 = 3 in the ramp, as released."""
    monkeypatch.setattr(methods.dividemix, "semi_loss", lambda lx, tx, lu, tu: (0 * lx.sum(), 1 + 0 * lu.sum()))
    a, b = table(8, seed=1), table(8, seed=2)
    w = clean(0, 1, 2, 3)
    mixed(a, b, {"a": w, "b": w}, epoch, size=2, warmup=10, lambda_u=25, prior_weight=0)
    assert [loss for loss, _ in a.steps] == pytest.approx(weights)


def test_full_confidence_without_sharpening_returns_the_given_labels() -> None:
    net = table(8)
    method = start(DivideMix(temperature=1.0), table_task(LABELS, {"a": net, "b": table(8)}))
    images = plain_images(method.task)
    refined = method.co_refine(net, images, images, LABELS, torch.ones(8))
    assert torch.equal(refined, F.one_hot(LABELS, 3).float()) and not refined.requires_grad


class Answers:
    """A network that says given probabilities, one after the other."""

    def __init__(self, *probabilities: tuple[float, float]) -> None:
        self.waiting = [torch.tensor([p]).log().requires_grad_() for p in probabilities]

    def __call__(self, images: Tensor) -> Tensor:
        return self.waiting.pop(0)

    def infer(self, images: Tensor) -> Tensor:
        return torch.cat([self.waiting.pop(0).detach() for _ in range(2)])


def test_refined_and_guessed_targets_of_the_card() -> None:
    method = start(DivideMix(temperature=0.5), table_task(ZERO, {"a": table(1), "b": table(1)}, num_classes=2))
    x = plain_images(method.task)
    refined = method.co_refine(Answers((0.2, 0.8), (0.4, 0.6)), x, x, ZERO, torch.tensor([0.8]))
    assert refined[0].tolist() == pytest.approx([0.974183, 0.025817], abs=1e-6)
    guesses = method.task.cycle(("weak", "weak"), indices=ZERO)
    own, peer = Answers((0.1, 0.9), (0.3, 0.7)), Answers((0.5, 0.5), (0.7, 0.3))
    u1, u2, guessed = method.co_guess(own, peer, guesses)
    assert guessed[0].tolist() == pytest.approx([0.16 / 0.52, 0.36 / 0.52])  # the mean of four is (0.4, 0.6)
    assert torch.equal(u1, x) and torch.equal(u2, x)
    assert not refined.requires_grad and not guessed.requires_grad


def test_mixing_draws_from_the_methods_own_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def record(inputs: Tensor, targets: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        asked.append((alpha, generator))
        return inputs, targets

    monkeypatch.setattr(methods.dividemix, "mixmatch_batch", record)
    method = mixed(table(8, seed=1), table(8, seed=2), {"a": clean(0), "b": clean(0)}, alpha=4.0)
    assert asked == [(4.0, method.task.generator("mix"))] * 2


def test_without_unlabelled_images_there_is_no_unsupervised_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    mixing_off(monkeypatch)
    a, b = table(8, seed=1), table(8, seed=2)
    mixed(a, b, {"a": clean(0), "b": torch.ones(8)}, epoch=99, prior_weight=0, temperature=1.0)
    assert a.steps[0][0] == pytest.approx(float(F.cross_entropy(table(8, seed=1).rows.detach(), LABELS)), rel=1e-5)
    assert not [call for call in b.calls[:1] if call[0] == "infer"]  # nothing to guess for a


def test_without_labelled_images_a_network_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    mixing_off(monkeypatch)
    a, b = table(8, seed=1), table(8, seed=2)
    mixed(a, b, {"a": clean(0, 1), "b": torch.zeros(8)}, size=2)
    assert [(what, len(index)) for what, index in a.calls if what != "infer"] == [("forward", 4)] * 2
    assert [(what, len(index)) for what, index in b.calls if what == "forward"] == [("forward", 8)]
    losses = F.cross_entropy(table(8, seed=1).rows.detach(), LABELS, reduction="none")
    for (_, index), (loss, _) in zip([call for call in a.calls if call[0] == "forward"], a.steps, strict=True):
        assert loss == pytest.approx(float(losses[index].mean()))


@pytest.mark.parametrize("penalty", [False, True])
def test_warm_up_trains_each_network_alone_on_twice_the_batch(penalty: bool) -> None:
    a, b = table(8, seed=1), table(8, seed=2)
    task = table_task(LABELS, {"a": a, "b": b}, training={"batch_size": 2})
    method = start(DivideMix(warmup=3, confidence_penalty=penalty), task, 2)
    method.epoch(2)
    for net, seed in ((a, 1), (b, 2)):
        assert [(what, len(index)) for what, index in net.calls] == [("forward", 4)] * 2
        assert sorted(net.calls[0][1] + net.calls[1][1]) == list(range(8))
        p = table(8, seed=seed).rows.detach().softmax(dim=1)
        losses = -p.log()[torch.arange(8), LABELS] + penalty * (p * p.log()).sum(dim=1)
        assert [loss for loss, _ in net.steps] == pytest.approx([float(losses[index].mean()) for _, index in net.calls])
    assert a.calls[0][1] != b.calls[0][1] and method.clean_scores() is None


def test_small_losses_are_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fitted(monkeypatch, methods.dividemix)
    net = Table(logits_of([0.1, 2.0, 0.2, 2.2, 0.15, 2.1]))
    method = start(DivideMix(), table_task(ZERO.repeat(6), {"a": net, "b": net}, num_classes=2))
    posterior = method.co_divide(net, [])
    assert (posterior > 0.5).tolist() == [True, False] * 3
    ((values, settings),) = asked
    assert values.tolist() == pytest.approx([0, 1.9 / 2.1, 0.1 / 2.1, 1, 0.05 / 2.1, 2 / 2.1], abs=1e-5)
    assert settings == {"smaller_is_clean": True, "max_iter": 10, "tol": 1e-2, "reg_covar": 5e-4}
    assert net.calls == [("infer", list(range(6)))]  # all images, without augmentation and gradient


def test_losses_are_averaged_over_the_last_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fitted(monkeypatch, methods.dividemix)
    method = start(DivideMix(history=2), table_task(LABELS, {"a": table(8), "b": table(8)}))
    history: list[Tensor] = []
    vectors = []
    for seed in range(3):
        net = table(8, seed=seed)
        vectors.append(min_max(F.cross_entropy(net.rows.detach(), LABELS, reduction="none")))
        method.co_divide(net, history)
    expected = [vectors[0], (vectors[0] + vectors[1]) / 2, (vectors[1] + vectors[2]) / 2]
    for (values, _), mean in zip(asked, expected, strict=True):
        torch.testing.assert_close(values, mean)
    assert len(history) == 2


def test_cost_of_an_epoch_of_dividemix() -> None:
    """Per labelled image and network: 4 guesses by itself, 2 by its peer, 4 trained, that is 4 + 2 + 3 x 4 = 18."""
    method = real(DivideMix(warmup=1), 32, 8)
    w = clean(*range(16), count=32)
    method.co_divide = lambda net, history: w
    method.epoch(1)
    for net in (method.a, method.b):
        assert net.forward_images == 16 * (4 + 2 + 4) and net.backward_images == 16 * 4
    counted = sum(net.forward_images + 2 * net.backward_images for net in (method.a, method.b))
    assert counted == 18 * 16 * 2
    assert "then 2 FE, and 36 more for each image that counts as clean" in DivideMix.cost


def test_cost_of_dividing_and_warming_up() -> None:
    method = real(DivideMix(warmup=1), 32, 8)
    method.epoch(0)
    for net in (method.a, method.b):
        assert (net.forward_images, net.backward_images) == (32, 32)
    assert DivideMix.cost.startswith("6 FE while warming up")
    method.co_divide(method.a, [])
    assert (method.a.forward_images, method.b.forward_images) == (64, 32)


def test_unlabelled_batches_are_drawn_in_a_cycle() -> None:
    """Ten labelled and three unlabelled images in batches of four: 4 + 4 + 2 beside 3 + 3 + 3."""
    method = real(DivideMix(warmup=1), 13, 4)
    method.train(method.a, method.b, clean(*range(10), count=13), 1)
    assert method.a.backward_images == 2 * 10 + 2 * 9
    assert method.b.forward_images == 2 * 9 and method.b.backward_images == 0


def test_the_trained_network_guesses_in_training_mode_and_its_peer_does_not() -> None:
    method = real(DivideMix(), 16, 8, lr=1e-30)
    before = snapshot(method.a), snapshot(method.b)
    method.train(method.a, method.b, clean(*range(8), count=16), 1)
    after = snapshot(method.a), snapshot(method.b)
    assert equal(after[1], before[1])  # the peer is only looked at
    assert not torch.equal(after[0]["body.1.running_mean"], before[0]["body.1.running_mean"])
    assert after[0]["body.1.num_batches_tracked"] == 5  # four guesses and the training pass of one batch


def test_dividemix_predicts_with_the_sum_of_logits() -> None:
    a, b = Table(torch.tensor([[2.0, 0.0]])), Table(torch.tensor([[0.0, 5.0]]))
    method = start(DivideMix(), table_task(ZERO, {"a": a, "b": b}, num_classes=2))
    first = 1 / (1 + math.e**3)
    assert method.predict(plain_images(method.task))[0].tolist() == pytest.approx([first, 1 - first])
