"""The loss-level methods against the checks of their cards, and the recipes of all methods."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small import Table, make_task, pixels, plain_images, start, table_task
from torch import Tensor

from bench.method import NEEDS, EpochMethod, LossMethod, Recipe, StepMethod, methods
from bench.training import Training
from bench.trial.task import Batch
from methods.elr import ELR
from methods.erm import ERM
from methods.gce import GCE


def batch_of(labels: list[int], index: list[int] | None = None) -> Batch:
    chosen = torch.tensor(index if index is not None else list(range(len(labels))))
    return Batch(chosen, torch.tensor(labels), (torch.zeros(len(labels), 1, 1, 1),))


def logits(*probabilities: list[float]) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log().float().requires_grad_()


def of_label(p: float) -> list[float]:
    return [p, 1 - p]


def gradient(loss: Tensor, inputs: Tensor) -> Tensor:
    return torch.autograd.grad(loss, inputs, retain_graph=True)[0]


def begun(method: LossMethod, count: int = 4, classes: int = 3, **settings: Any) -> Any:
    return start(method, make_task(torch.arange(count) % classes, num_classes=classes, **settings))


# --- recipes


RECIPES = [(cls, recipe) for cls in methods().values() for recipe in cls.recipes]


@pytest.mark.parametrize(("cls", "recipe"), RECIPES, ids=lambda x: x.slug if isinstance(x, type) else x.name)
def test_recipes_set_fields_that_exist_to_values_that_are_legal(cls: Any, recipe: Recipe) -> None:
    own = {key: value for key, value in recipe.set.items() if "." not in key}
    training = {key.removeprefix("training."): value for key, value in recipe.set.items() if "." in key}
    assert all(key.startswith("training.") for key in recipe.set if "." in key)
    cls.resolve(own)
    Training.resolve(training)
    assert len(recipe.source) > 10 and isinstance(recipe.when, Mapping)


@pytest.mark.parametrize("cls", methods().values(), ids=methods())
def test_methods_say_what_they_are(cls: Any) -> None:
    assert cls.title and cls.paper and cls.__doc__ and cls.level in ("loss", "step", "epoch")
    assert set(cls().needs) <= set(NEEDS)


def test_a_pixel_task_hands_out_its_indices() -> None:
    """The stand-in for a learner that these tests lean on."""
    net = Table(torch.zeros(5, 2))
    task = table_task(torch.arange(5) % 2, {"a": net}, num_classes=2, training={"batch_size": 2})
    task.start_epoch(0)
    for batch in task.batches():
        net(batch.images)
        assert net.calls[-1] == ("forward", batch.index.tolist())
    assert task.logits(net).shape == (5, 2) and net.calls[-1] == ("infer", [0, 1, 2, 3, 4])


# --- all loss-level methods: one mean loss and one step per batch, scores from the last losses


def test_the_harness_trains_on_the_mean_loss() -> None:
    net = Table(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))
    task = table_task(torch.tensor([0, 1, 2, 2, 1, 0]), {"a": net}, training={"batch_size": 4})
    method = start(ERM(), task)
    assert method.clean_scores().isnan().all()
    method.epoch(0)
    first, second = (index for what, index in net.calls)
    losses = F.cross_entropy(net.rows.detach(), task.labels, reduction="none")
    assert [loss for loss, _ in net.steps] == pytest.approx([float(losses[i].mean()) for i in (first, second)])
    torch.testing.assert_close(method.clean_scores(), -losses)
    assert net.steps[0][1][second].abs().sum() == 0 and net.steps[0][1][first].abs().sum() > 0


def test_a_hook_that_is_missing_is_named() -> None:
    class Bare(LossMethod):
        slug = "bare"

    class Empty(EpochMethod):
        slug = "empty"

    says = r"bare does not define loss\(logits, batch\), which a method of the loss level must"
    with pytest.raises(NotImplementedError, match=says):
        begun(Bare()).epoch(0)
    method: Any = Empty()
    for hook in ("setup", "epoch", "predict"):
        with pytest.raises(NotImplementedError, match=rf"empty does not define {hook}\("):
            getattr(method, hook)(None)
    with pytest.raises(NotImplementedError, match=r"does not define step\("):
        StepMethod().step(batch_of([0]), 0)


def test_losses_that_are_not_per_sample_are_refused() -> None:
    class Averaged(LossMethod):
        slug = "averaged"

        def loss(self, logits: Tensor, batch: Batch) -> Tensor:
            return F.cross_entropy(logits, batch.labels)

    with pytest.raises(ValueError, match=r"averaged.loss must return one loss per sample, shape \(4,\); it returned"):
        begun(Averaged()).epoch(0)


def test_predictions_are_the_probabilities_of_the_network() -> None:
    method = begun(ERM())
    images = plain_images(method.task)
    torch.testing.assert_close(method.predict(images), method.net.infer(images).softmax(dim=1))
    assert not method.predict(images).requires_grad


# --- erm


def test_erm_of_indifferent_logits_is_ln_c() -> None:
    losses = ERM().loss(torch.zeros(3, 10), batch_of([0, 5, 9]))
    assert losses.tolist() == pytest.approx([2.302585] * 3, abs=1e-6)


def test_erm_is_stochastic_gradient_descent_on_cross_entropy() -> None:
    settings = {"training": {"batch_size": 5, "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}}
    method, plain = begun(ERM(), 12, **settings), make_task(torch.arange(12) % 3, **settings)
    network = plain.learner("a").network.train()
    plain.start_epoch(0)
    for batch in plain.batches():
        loss = F.cross_entropy(network(batch.images), batch.labels)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, slope in zip(network.parameters(), gradients, strict=True):
                parameter -= 0.1 * slope
    method.epoch(0)
    for ours, theirs in zip(method.net.network.state_dict().values(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)


# --- gce


def lq(p: float, q: float) -> float:
    return (1 - p**q) / q


def test_gce_card_values() -> None:
    losses = GCE(q=0.7).loss(logits(*map(of_label, (0.5, 0.1, 0.9, 1e-15))), batch_of([0] * 4))
    assert losses.tolist() == pytest.approx([0.549183, 1.143534, 0.101569, 1.428571], abs=1e-5)


def test_gce_lies_between_cross_entropy_and_absolute_error() -> None:
    p = [0.05, 0.3, 0.7, 1 - 1e-9]
    small = GCE(q=1e-4).loss(logits(*map(of_label, p)), batch_of([0] * 4))
    assert small.tolist() == pytest.approx([-math.log(x) for x in p], abs=1e-3)
    one = GCE(q=1.0).loss(logits(*map(of_label, p)), batch_of([0] * 4))
    assert one.tolist() == pytest.approx([1 - x for x in p], abs=1e-6)


def test_gce_weighs_the_gradient_of_cross_entropy() -> None:
    x = logits([0.2, 0.5, 0.3], [0.7, 0.2, 0.1])
    labels = torch.tensor([1, 2])
    p = x.detach().softmax(dim=1)[torch.arange(2), labels]
    ours = gradient(GCE(q=0.7).loss(x, batch_of([1, 2])).sum(), x)
    torch.testing.assert_close(ours, p[:, None] ** 0.7 * gradient(F.cross_entropy(x, labels, reduction="sum"), x))


def test_truncated_gce_card_value() -> None:
    method = begun(GCE(truncated=True, prune_from=0, prune_every=1), 2, 2)
    method.keep = torch.tensor([1.0, 0.0])
    x = logits([0.6, 0.4], [0.6, 0.4])
    losses = method.loss(x, batch_of([0, 1]))
    assert float(losses.detach().mean()) == pytest.approx(-0.059854, abs=1e-6)  # the pruned sample counts in the mean
    assert losses[0].item() == pytest.approx(lq(0.6, 0.7) - lq(0.5, 0.7)) and losses[1] == 0
    # changing the weight of one sample leaves the gradient of the other
    before = gradient(losses.sum(), x)
    method.keep = torch.tensor([1.0, 1.0])
    after = gradient(method.loss(x, batch_of([0, 1])).sum(), x)
    assert before[1].abs().sum() == 0 and after[1].abs().sum() > 0
    torch.testing.assert_close(after[0], before[0])


def test_the_weight_of_a_sample_goes_by_its_index() -> None:
    method = begun(GCE(truncated=True), 4, 2)
    method.keep = torch.tensor([1.0, 0.0, 1.0, 0.0])
    losses = method.loss(logits(*[[0.9, 0.1]] * 2), batch_of([0, 0], index=[3, 2]))
    assert losses[0] == 0 and losses[1] < 0


@pytest.mark.parametrize("truncated", [False, True])
def test_gce_scores_rise_with_the_probability_of_the_label(truncated: bool) -> None:
    """Minus L_q of p = 0.6, 0.1, 0.9, 0.4; those of 0.1 and 0.4 are dropped, and their training loss of 0 would be the best."""
    p = (0.6, 0.1, 0.9, 0.4)
    net = Table(logits(*map(of_label, p)).detach())
    net.network = torch.nn.Linear(1, 1)  # type: ignore[attr-defined]
    method = start(GCE(truncated=truncated), table_task(torch.zeros(4, dtype=torch.int64), {"a": net}, num_classes=2))
    if truncated:
        method.keep = torch.tensor([1.0, 0.0, 1.0, 0.0])
    for batch in method.task.batches():
        method.step(batch, 1)
    scores = method.clean_scores()
    assert scores.tolist() == pytest.approx([-lq(x, 0.7) for x in p], abs=1e-5)
    assert scores.tolist() == pytest.approx([-0.429474, -1.143534, -0.101569, -0.676353], abs=1e-5)
    assert scores.argsort().tolist() == [1, 3, 0, 2]
    trained = [lq(x, 0.7) - lq(0.5, 0.7) if x > 0.5 else 0.0 for x in p] if truncated else [lq(x, 0.7) for x in p]
    assert net.steps[0][0] == pytest.approx(sum(trained) / 4, abs=1e-5)


def truncated(**params: Any) -> tuple[GCE, Any]:
    method = begun(GCE(truncated=True, **params), 30, training={"batch_size": 10})
    return method, method.net


def test_samples_above_k_are_kept() -> None:
    """The direction of the rule, on a table: p_y = 0.51, 0.5, 0.49, 0.9."""
    x = logits(*map(of_label, (0.51, 0.49, 0.1, 0.9))).detach()
    net = Table(x)
    net.network = torch.nn.Linear(1, 1)  # type: ignore[attr-defined]
    task = table_task(torch.zeros(4, dtype=torch.int64), {"a": net}, num_classes=2)
    method = start(GCE(truncated=True, k=0.5, prune_from=0), task)
    method.start_epoch(0)
    assert method.keep.tolist() == [1, 0, 0, 1]


def test_a_refresh_borrows_the_best_network_and_leaves_the_current_one() -> None:
    method, net = truncated(prune_from=2, prune_every=3, k=0.35)
    method.epoch(0)
    method.validated(0, 0.5)
    best = copy.deepcopy(net.network.state_dict())
    best_p = method.task.logits(net).softmax(dim=1).gather(1, method.task.labels[:, None])[:, 0]
    for _ in range(6):
        method.epoch(1)
    method.validated(1, 0.4)  # worse: not borrowed
    current = copy.deepcopy(net.state_dict())
    current_p = method.task.logits(net).softmax(dim=1).gather(1, method.task.labels[:, None])[:, 0]
    assert not torch.equal(best_p > 0.35, current_p > 0.35) and bool((method.keep == 1).all())
    method.start_epoch(2)
    assert torch.equal(method.keep, (best_p > 0.35).float())
    for name, value in net.network.state_dict().items():  # weights and batch statistics
        assert torch.equal(value, current["network"][name])
        assert torch.equal(method.best_network[name], best[name])
    moments = [state["momentum_buffer"] for state in net.optimizer.state.values()]
    assert all(torch.equal(a, b["momentum_buffer"])
               for a, b in zip(moments, current["optimizer"]["state"].values(), strict=True))  # fmt: skip


def test_the_best_network_is_the_earliest_of_the_best() -> None:
    method, net = truncated()
    states = []
    for accuracy in (0.5, 0.7, 0.7, 0.6):
        method.epoch(0)
        states.append(copy.deepcopy(net.network.state_dict()))
        method.validated(0, accuracy)
    assert torch.equal(method.best_network["head.weight"], states[1]["head.weight"])
    assert not torch.equal(states[1]["head.weight"], states[2]["head.weight"])


def test_weights_are_refreshed_on_schedule() -> None:
    method, _ = truncated(prune_from=3, prune_every=4)
    refreshed = []
    for epoch in range(13):
        method.keep = torch.full((30,), 7.0)
        method.start_epoch(epoch)
        if not bool((method.keep == 7.0).all()):
            refreshed.append(epoch)
    assert refreshed == [3, 7, 11]


def test_a_batch_without_kept_samples_trains_nothing() -> None:
    method = begun(GCE(truncated=True, k=0.99, prune_from=0))
    method.epoch(0)
    assert bool((method.keep == 0).all())
    x = logits([0.6, 0.3, 0.1], [0.7, 0.2, 0.1])
    losses = method.loss(x, batch_of([0, 1]))
    assert losses.tolist() == [0, 0] and bool((gradient(losses.sum(), x) == 0).all())
    assert all(p.isfinite().all() for p in method.net.network.parameters())


def test_the_plain_form_prunes_nothing_and_needs_nothing() -> None:
    method = begun(GCE(prune_from=0))
    method.epoch(0)
    assert not hasattr(method, "keep") and method.needs == frozenset()
    assert GCE(truncated=True).needs == {"validation"}


# --- elr


def test_elr_without_the_regulariser_is_cross_entropy() -> None:
    x, labels = logits([0.7, 0.2, 0.1], [0.1, 0.1, 0.8]), torch.tensor([1, 2])
    losses = begun(ELR(lam=0)).loss(x, batch_of([1, 2]))
    torch.testing.assert_close(losses, F.cross_entropy(x, labels, reduction="none"))
    torch.testing.assert_close(gradient(losses.sum(), x), gradient(F.cross_entropy(x, labels, reduction="sum"), x))


def test_elr_card_values() -> None:
    method = begun(ELR(lam=3, beta=0.7))
    loss = method.loss(logits([0.7, 0.2, 0.1]), batch_of([1]))
    assert method.targets[0].tolist() == pytest.approx([0.21, 0.06, 0.03])
    assert loss.tolist() == pytest.approx([1.079226], abs=1e-6)
    assert (loss - -math.log(0.2)).tolist() == pytest.approx([3 * -0.176737], abs=3e-6)


def test_targets_approach_a_constant_prediction() -> None:
    method = begun(ELR(beta=0.7))
    for _ in range(3):
        method.loss(logits([0.7, 0.2, 0.1]), batch_of([0], index=[2]))
    assert method.targets[2].tolist() == pytest.approx([0.657 * p for p in (0.7, 0.2, 0.1)])


def test_elr_gradient_of_the_card() -> None:
    """-lam / (1 - <p, t>) * p (t - <p, t>) on top of cross-entropy; t is a constant."""
    method = begun(ELR(lam=3, beta=0.7))
    method.targets[0] = torch.tensor([0.1, 0.5, 0.2])
    x = logits([0.7, 0.2, 0.1])
    loss = method.loss(x, batch_of([1]))
    p, t = x.detach().softmax(dim=1)[0], method.targets[0]
    assert t.tolist() == pytest.approx([0.28, 0.41, 0.17])  # 0.7 t + 0.3 p
    inner = (p * t).sum()
    expected = -3 / (1 - inner) * p * (t - inner) + p - torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(gradient(loss.sum(), x)[0], expected, rtol=1e-5, atol=1e-6)


def test_elr_is_bounded_where_predictions_are_certain() -> None:
    method = begun(ELR(lam=1, beta=0.0), classes=2)
    loss = method.loss(torch.tensor([[200.0, -200.0]]), batch_of([0]))
    assert loss.tolist() == pytest.approx([math.log(2e-4)], abs=1e-3)  # -8.517
    x = torch.tensor([[900.0, -900.0]], requires_grad=True)
    assert gradient(method.loss(x, batch_of([1])).sum(), x).isfinite().all()


def test_only_rows_of_the_batch_change() -> None:
    method = begun(ELR())
    method.targets[:] = 0.2
    method.loss(logits([0.7, 0.2, 0.1], [0.1, 0.1, 0.8]), batch_of([0, 1], index=[3, 1]))
    assert (method.targets[[0, 2]] == 0.2).all() and not (method.targets[[1, 3]] == 0.2).all(dim=1).any()
    assert not method.targets.requires_grad and method.targets.shape == (4, 3)
    assert method.targets[3].argmax() == 0 and method.targets[1].argmax() == 2


def test_elr_scores_are_the_targets_at_the_given_labels() -> None:
    method = begun(ELR(), 6, images=pixels(6))
    method.epoch(0)
    expected = [float(method.targets[i, int(label)]) for i, label in enumerate(method.task.labels)]
    assert method.clean_scores().tolist() == pytest.approx(expected)
    assert (method.targets.sum(dim=1) - 0.3).abs().max() < 1e-5  # each sample was seen once: t = 0.3 p
