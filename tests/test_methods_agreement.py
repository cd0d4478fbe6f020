"""decoupling, co-teaching-plus, jocor, group-dro and dro-topk against the checks of their cards, worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small import Table, logits_of, make_task, rows_with_gradient, snapshot, start, table, table_task
from torch import Tensor

from bench.data.cifar import Cifar10, Cifar100
from bench.noise import NoiseInput, noise_class
from bench.ops.groups import cvar, exponentiated_weights, greedy_weights, group_means
from bench.ops.pairs import disagreement, masked_mean, small_loss_among, symmetric_kl
from bench.ops.selection import kept_count, top_k_mean
from bench.training import Training
from methods.co_teaching import CoTeaching
from methods.co_teaching_plus import CoTeachingPlus
from methods.decoupling import Decoupling
from methods.dro_topk import DROTopK
from methods.group_dro import GroupDRO
from methods.jocor import JoCoR

ZERO = torch.zeros(1, dtype=torch.int64)


def taught(method: Any, a: Table, b: Table, labels: Tensor, epoch: int = 50, **task: Any) -> Any:
    task = {"num_classes": a.rows.shape[1], **task}
    method = start(method, table_task(labels, {"a": a, "b": b}, **task), epoch)
    method.epoch(epoch)
    return method


def shifted(a: Table) -> Table:
    """A table that predicts another class for every sample."""
    return Table(a.rows.detach().roll(1, dims=1))


# --- operations


def test_symmetric_kl_by_hand() -> None:
    a, b = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    assert symmetric_kl(a, b).item() == pytest.approx(1.895560, abs=1e-6)
    assert symmetric_kl(b, a).item() == pytest.approx(1.895560, abs=1e-6)
    assert symmetric_kl(a, a).item() == 0.0


def test_symmetric_kl_has_a_gradient_in_both_arguments() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, 4, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(symmetric_kl, (a, b))
    log_a, log_b = a.log_softmax(1), b.log_softmax(1)
    first = (log_a.exp() * (log_a - log_b)).sum(1)  # KL(a || b) alone moves b
    second = (log_b.exp() * (log_b - log_a)).sum(1)
    for term in (first, second):
        assert torch.autograd.grad(term.sum(), b, retain_graph=True)[0].abs().max() > 1e-3
    same = a.detach().clone().requires_grad_()
    gradient = torch.autograd.grad(symmetric_kl(same, a.detach().clone()).sum(), same)[0]
    assert gradient.abs().max() < 1e-12


def test_small_loss_among_counts_and_ranks_inside_the_members() -> None:
    losses = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    members = torch.tensor([False, True, True, False, True])
    assert small_loss_among(losses, members, 0.7).tolist() == [False, True, True, False, False]
    assert small_loss_among(losses, members, 0.2).tolist() == members.tolist()  # floor(0.6) = 0: all of D
    assert small_loss_among(losses, torch.zeros(5, dtype=torch.bool), 0.7).any().item() is False
    assert small_loss_among(torch.zeros(4), torch.ones(4, dtype=torch.bool), 0.5).tolist() == [True, True, False, False]
    many = small_loss_among(torch.rand(128, generator=torch.Generator().manual_seed(0)), torch.arange(128) < 40, 0.55)
    assert many.sum().item() == 22  # |D| = 40, tau = 0.45


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 9), st.booleans()), min_size=1, max_size=20), st.floats(0.05, 1))
def test_small_loss_among_is_a_sort_of_the_members(rows: list[tuple[float, bool]], share: float) -> None:
    losses, members = torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows])
    chosen = small_loss_among(losses, members, share)
    inside = [i for i, r in enumerate(rows) if r[1]]
    count = math.floor(len(inside) * share + 1e-9) or len(inside)
    wanted = sorted(inside, key=lambda i: losses[i].item())[:count]
    assert sorted(wanted) == torch.nonzero(chosen)[:, 0].tolist()


def test_small_loss_among_counts_as_the_whole_batch_does() -> None:
    """0.53 of 100 is 53: in single precision it is 52.99999 even with 1e-9 more. As `kept_count`, and all where that is none."""
    for size in (*range(1, 33), 50, 64, 100, 125, 128):
        losses, everyone = torch.zeros(size), torch.ones(size, dtype=torch.bool)
        for share in (hundredth / 100 for hundredth in range(1, 101)):
            expected = kept_count(share, size) if share * size > 1 - 1e-9 else size
            assert int(small_loss_among(losses, everyone, share).sum()) == expected, (size, share)
    hundred = torch.arange(200) < 100
    assert int(small_loss_among(torch.zeros(200), hundred, 0.53).sum()) == kept_count(0.53, 100) == 53


def test_masked_mean() -> None:
    values = torch.tensor([1.0, 2.0, float("nan")], requires_grad=True)
    mean = masked_mean(values, torch.tensor([True, True, False]))
    assert mean.item() == 1.5
    (gradient,) = torch.autograd.grad(mean, values)
    assert gradient.tolist() == [0.5, 0.5, 0.0]
    assert masked_mean(values, torch.zeros(3, dtype=torch.bool)).item() == 0.0


def test_group_means_and_weights_by_hand() -> None:
    means = group_means(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0, 0, 2]), 4)
    assert means.tolist() == [2.0, 0.0, 2.0, 0.0]
    q = exponentiated_weights(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 2.0]), 0.01)
    assert q.tolist() == pytest.approx([0.497500, 0.502500], abs=1e-6)
    assert (q * torch.tensor([1.0, 2.0])).sum().item() == pytest.approx(1.502500, abs=1e-6)
    assert exponentiated_weights(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1e6]), 0.01).tolist() == [0.0, 1.0]
    # budget 0.3 of the population: group 2 (0.2) wholly, then a half of group 0's share (0.1 of 0.5)
    weights = greedy_weights(torch.tensor([2.0, 1.0, 3.0]), torch.tensor([0.5, 0.3, 0.2]), 0.3)
    assert weights.tolist() == pytest.approx([1 / 3, 0, 2 / 3])
    assert greedy_weights(torch.tensor([2.0, 1.0]), torch.tensor([0.4, 0.6]), 1.0).tolist() == pytest.approx([0.4, 0.6])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=17), st.floats(0.05, 1))
def test_cvar_is_the_minimum_over_eta(values: list[float], tau: float) -> None:
    losses = torch.tensor(values, dtype=torch.float64)
    objective = [eta + (losses - eta).clamp_min(0).mean() / tau for eta in losses]
    assert cvar(losses, tau).item() == pytest.approx(min(objective).item(), abs=1e-9)


def test_cvar_equals_top_k_at_whole_counts_and_checks_tau() -> None:
    losses = torch.rand(10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert cvar(losses, 0.3).item() == pytest.approx(top_k_mean(losses, 0.3).item(), abs=1e-12)
    assert cvar(losses, 1.0).item() == pytest.approx(losses.mean().item())
    for tau in (0.0, 1.5):
        with pytest.raises(ValueError, match="tau"):
            cvar(losses, tau)
    assert torch.autograd.gradcheck(lambda x: cvar(x, 0.35), losses.requires_grad_())


# --- decoupling


def test_decoupling_trains_the_disagreeing_samples_over_a_floor() -> None:
    """Five of 128 disagree, each with a cross-entropy of 1: the loss is 5 / 12.8."""
    a = Table(logits_of([1.0] * 5 + [0.1] * 123))  # p of label 0 is 0.37 for five: they predict class 1
    b = Table(logits_of([0.5] * 5 + [0.1] * 123))  # p is 0.61
    taught(Decoupling(), a, b, ZERO.repeat(128))
    ((loss_a, gradient_a),), ((loss_b, gradient_b),) = a.steps, b.steps
    assert loss_a == pytest.approx(0.390625, abs=1e-6) and loss_b == pytest.approx(0.5 * 0.390625, abs=1e-6)
    assert rows_with_gradient(gradient_a) == rows_with_gradient(gradient_b) == list(range(5))
    a, b = Table(a.rows.detach()), Table(b.rows.detach())
    taught(Decoupling(floor=0.0), a, b, ZERO.repeat(128))
    assert a.steps[0][0] == pytest.approx(1.0, abs=1e-5)


def test_decoupling_with_total_disagreement_is_the_batch_mean() -> None:
    a, labels = table(8, 3), torch.arange(8) % 3
    b = shifted(a)
    taught(Decoupling(), a, b, labels)
    for net in (a, b):
        assert net.steps[0][0] == pytest.approx(F.cross_entropy(net.rows, labels).item())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("method", [Decoupling, lambda: CoTeachingPlus(forget_rate=0.5, warmup=0)])
def test_agreeing_networks_do_not_move(method: Any, optimizer: str) -> None:
    """Weights, momentum and step counters stay as they are after a step that moved them."""
    task = make_task(torch.arange(12) % 3, training={"batch_size": 12, "optimizer": optimizer})
    taught = start(method(), task)
    taught.epoch(0)
    assert taught.a.optimizer.state, "the first epoch has to move something"
    taught.b.network.load_state_dict(taught.a.network.state_dict())
    before = snapshot(taught.a), taught.a.optimizer.state_dict()
    state = [{k: v.clone() for k, v in s.items()} for s in before[1]["state"].values()]
    task.start_epoch(1)
    taught.epoch(1)
    parameters = {name for name, _ in taught.a.network.named_parameters()}
    after = snapshot(taught.a)
    assert all(torch.equal(before[0][name], after[name]) for name in parameters)
    for old, new in zip(state, taught.a.optimizer.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(old[key], new[key]) for key in old)


def test_decoupling_is_blind_to_names_and_warms_up() -> None:
    labels = torch.arange(6) % 3
    runs = []
    for swap in (False, True):
        a, b = table(6, seed=1), table(6, seed=2)
        taught(Decoupling(), *((b, a) if swap else (a, b)), labels)
        runs.append((a.steps[0][0], b.steps[0][0]))
    assert runs[0] == runs[1]
    a = table(6, seed=1)
    taught(Decoupling(warmup=1), a, Table(a.rows.detach()), labels, epoch=0)
    assert a.steps[0][0] == pytest.approx(F.cross_entropy(a.rows, labels).item())


# --- co-teaching+


def test_co_teaching_plus_exchanges_among_the_disagreeing() -> None:
    """Samples 0 to 3 disagree. a ranks 1, 0 first; b ranks 3, 2 first. Sample 0 can be chosen, samples 4 and 5 cannot."""
    a = Table(logits_of([0.2, 0.1, 0.6, 0.5, 0.01, 0.01]))
    b = Table(logits_of([1.2, 1.3, 0.9, 0.8, 0.01, 0.01]))
    method = CoTeachingPlus(forget_rate=0.5, warmup=0, ramp_epochs=1)
    taught(method, a, b, ZERO.repeat(6))
    ((loss_a, gradient_a),), ((loss_b, gradient_b),) = a.steps, b.steps
    assert rows_with_gradient(gradient_a) == [2, 3] and rows_with_gradient(gradient_b) == [0, 1]
    assert loss_a == pytest.approx((0.6 + 0.5) / 2) and loss_b == pytest.approx((1.2 + 1.3) / 2, abs=1e-5)


def test_co_teaching_plus_warms_up_as_co_teaching() -> None:
    labels = torch.arange(16) % 3
    runs = []
    for cls in (CoTeaching, lambda **kw: CoTeachingPlus(warmup=20, **kw)):
        a, b = table(16, seed=1), table(16, seed=2)
        taught(cls(forget_rate=0.4), a, b, labels, epoch=5)
        runs.append((a, b))
    for ours, theirs in zip(*runs, strict=True):
        assert ours.steps[0][0] == pytest.approx(theirs.steps[0][0])
        assert torch.allclose(ours.steps[0][1], theirs.steps[0][1], atol=1e-7)


def test_co_teaching_plus_double_softmax_costs_a_confident_network() -> None:
    """A confident right prediction costs ln(1 + 9/e) = 1.461150 with ten classes, and 0 on logits."""
    a = Table(F.one_hot(torch.zeros(2, dtype=torch.int64), 10) * 200.0)
    b = shifted(a)
    labels = ZERO.repeat(2)
    for double, wanted in ((True, 1.461150), (False, 0.0)):
        a.steps.clear()
        taught(CoTeachingPlus(forget_rate=0.0, warmup=0, double_softmax=double), a, b, labels)
        assert a.steps[0][0] == pytest.approx(wanted, abs=1e-5)


# --- jocor


def test_jocor_by_hand() -> None:
    a, b = Table(torch.tensor([[2.0, 0.0, -1.0]])), Table(torch.tensor([[0.0, 1.0, 0.0]]))
    taught(JoCoR(lam=0.9, forget_rate=0.0), a, b, ZERO)
    assert a.steps[0][0] == pytest.approx(1.878133, abs=1e-6)


def test_jocor_selects_one_half_for_both_by_the_joint_loss() -> None:
    labels = torch.arange(128) % 3
    a, b = table(128, seed=1), table(128, seed=2)
    joint = 0.1 * (F.cross_entropy(a.rows, labels, reduction="none") + F.cross_entropy(b.rows, labels, reduction="none"))
    wanted = (joint + 0.9 * symmetric_kl(a.rows, b.rows)).argsort()[:64].sort().values.tolist()
    method = taught(JoCoR(forget_rate=0.5), a, b, labels)
    assert rows_with_gradient(a.steps[0][1]) == rows_with_gradient(b.steps[0][1]) == wanted
    assert len(a.steps) == len(b.steps) == 1 and a.calls == b.calls
    scores = method.clean_scores()
    assert scores[wanted].min() >= scores.sort().values[64]


def test_jocor_limits() -> None:
    labels = torch.arange(6) % 3
    a, b = table(6, seed=1), table(6, seed=2)
    supervised = (F.cross_entropy(a.rows, labels) + F.cross_entropy(b.rows, labels)).item()
    taught(JoCoR(lam=0.0, forget_rate=0.0), a, b, labels)
    assert a.steps[0][0] == pytest.approx(supervised, abs=1e-6)
    losses = []
    for shift in (0, 1):  # lam = 1 does not read labels
        a, b = table(6, seed=1), table(6, seed=2)
        taught(JoCoR(lam=1.0, forget_rate=0.0), a, b, (labels + shift) % 3)
        losses.append(a.steps[0][0])
    assert losses[0] == losses[1]


def recipe_of(method: Any, name: str, **facts: Any) -> dict[str, Any]:
    """What the recipes of one name set for a cell."""
    return {key: value for r in method.recipes if r.name == name and r.matches(facts) for key, value in r.set.items()}


@pytest.mark.parametrize(
    ("cls", "map_", "measured"), [(Cifar10, "dataset", 0.2), (Cifar100, "superclass", 0.4), (Cifar100, "blocks", 0.4)]
)
@pytest.mark.parametrize("touched", ["exact", "per-class"])
def test_jocor_forgets_half_the_nominal_rate_under_asymmetric_noise(cls: Any, map_: str, measured: float, touched: str) -> None:
    """Of a real draw at 0.4: five of CIFAR-10's classes move, so 0.2 is measured and forgotten; of CIFAR-100 all, so 0.4 is."""
    true = np.arange(10_000) % cls.num_classes
    data = NoiseInput(true, cls.num_classes, dict(cls.confusions), (), superclasses=getattr(cls, "superclasses", ()))
    given = noise_class("asymmetric")(rate=0.4, touched=touched, map=map_).apply(data, np.random.default_rng(0))
    rate = float((given != true).mean())
    exactly = measured == 0.4 or touched == "per-class"  # else 4000 of all samples are drawn, and about half can move
    assert rate == pytest.approx(measured, abs=1e-12 if exactly else 0.01)
    values = recipe_of(JoCoR, "paper", dataset=cls.slug, noise="asymmetric", rate=0.4)
    method = JoCoR(**{key: value for key, value in values.items() if "." not in key})
    task = make_task(torch.arange(6) % 3, needs=frozenset({"noise_rate"}), granted={"noise_rate": rate})
    assert start(method, task)._rate == pytest.approx(0.2, abs=1e-12 if exactly else 0.01)


def test_jocor_on_clothing1m_says_what_is_ours() -> None:
    facts = {"dataset": "clothing1m", "noise": "none"}
    values = recipe_of(JoCoR, "paper", **facts)
    plan = Training(**{key.removeprefix("training."): value for key, value in values.items() if "." in key})
    thirds = [plan.lr_at(epoch) for epoch in range(15)]
    assert thirds == pytest.approx([8e-4] * 5 + [2e-4] * 5 + [5e-5] * 5)
    (source,) = {recipe.source for recipe in JoCoR.recipes if recipe.name == "paper" and recipe.matches(facts)}
    assert "ours" in source and "0.2 to 0.4, 0.5 to 0.9" in source and "2e-4 for 5e-4" in source
    assert 0.2 <= values["forget_rate"] <= 0.4 and 0.5 <= values["lam"] <= 0.9


def test_jocor_is_one_adam_over_both_networks() -> None:
    """The same steps as a single Adam over both parameter lists."""
    settings = {"batch_size": 8, "optimizer": "adam", "lr": 0.01, "augment": "none"}
    method = start(JoCoR(forget_rate=0.0), make_task(torch.arange(8) % 3, training=settings))
    other = start(JoCoR(forget_rate=0.0), make_task(torch.arange(8) % 3, training=settings))
    joint = torch.optim.Adam([*other.a.network.parameters(), *other.b.network.parameters()], lr=0.01, weight_decay=5e-4)

    def step(loss: Tensor, *_: Any) -> None:
        joint.zero_grad()
        loss.backward()
        joint.step()

    other.a.step = step
    for _ in range(3):
        for each in (method, other):
            each.task.start_epoch(0)
            each.epoch(0)
    for name in ("a", "b"):
        ours, theirs = snapshot(getattr(method, name)), snapshot(getattr(other, name))
        assert all(torch.allclose(ours[key], theirs[key], atol=1e-6) for key in ours)


# --- group-dro


def group_task(net: Table, groups: Tensor, labels: Tensor) -> Any:
    granted = {"needs": frozenset({"groups"}), "granted": {"groups": groups}}
    return table_task(labels, {"a": net}, num_classes=net.rows.shape[1], **granted)


def test_group_dro_by_hand() -> None:
    net = Table(logits_of([1.0, 2.0]))
    method = start(GroupDRO(balanced=False), group_task(net, torch.tensor([0, 1]), ZERO.repeat(2)))
    method.epoch(0)
    assert method.weights.tolist() == pytest.approx([0.497500, 0.502500], abs=1e-6)
    assert net.steps[0][0] == pytest.approx(1.502500, abs=1e-5)
    for epoch in range(1, 4):  # the losses stay: q_2 / q_1 = exp(0.01 t)
        method.task.start_epoch(epoch)
        method.epoch(epoch)
    assert (method.weights[1] / method.weights[0]).item() == pytest.approx(math.exp(0.04), abs=1e-5)


def test_group_dro_without_steps_of_the_weights_is_the_mean_of_group_means() -> None:
    net = Table(logits_of([1.0, 1.0, 1.0, 2.0]))
    method = start(GroupDRO(step_size=0.0, balanced=False), group_task(net, torch.tensor([0, 0, 0, 1]), ZERO.repeat(4)))
    method.epoch(0)
    assert net.steps[0][0] == pytest.approx(1.5, abs=1e-6)


def test_one_group_is_erm() -> None:
    net, labels = table(6), torch.arange(6) % 3
    wanted = F.cross_entropy(net.rows, labels)
    (gradient,) = torch.autograd.grad(wanted, net.rows)
    method = start(GroupDRO(balanced=False), group_task(net, torch.zeros(6, dtype=torch.int64), labels))
    method.epoch(0)
    assert net.steps[0][0] == pytest.approx(wanted.item()) and torch.allclose(net.steps[0][1], gradient)


def test_an_absent_group_loses_weight_by_normalisation_only() -> None:
    """Two batches of one sample each would need a trick; the weights' rule is asked directly."""
    q = exponentiated_weights(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]), 0.01)
    assert q[1].item() == pytest.approx(0.5 / (0.5 * math.exp(0.01) + 0.5))
    net = Table(logits_of([1.0, 1.0]))  # group 1 has no sample at all
    method = start(GroupDRO(balanced=False), group_task(net, torch.tensor([0, 2]), ZERO.repeat(2)))
    method.epoch(0)
    assert method.weights.tolist() == [0.5, 0.0, 0.5]


def test_groups_without_samples_weigh_nothing() -> None:
    """All samples in group 3 are plain training: groups 0 to 2 take no weight from it, and no margin (theirs would be 5)."""
    net, labels = table(6), torch.arange(6) % 3
    wanted = F.cross_entropy(net.rows, labels)
    (gradient,) = torch.autograd.grad(wanted, net.rows)
    for rule in ("exponentiated", "greedy"):
        net.steps.clear()
        method = start(GroupDRO(balanced=False, rule=rule, adjustment=5.0), group_task(net, torch.full((6,), 3), labels))
        method.epoch(0)
        assert method.weights.tolist() == [0, 0, 0, 1]
        assert net.steps[0][0] == pytest.approx(wanted.item()) and torch.allclose(net.steps[0][1], gradient)


@pytest.mark.parametrize("step_size", [0.01, 100.0])
def test_the_margin_of_a_group_without_samples_does_not_matter(step_size: float) -> None:
    """Groups 0 and 2 have 1 and 4 samples of loss 1: margins 5 and 2.5, weights 1 to exp(-2.5 step_size)."""
    net, groups = Table(logits_of([1.0] * 5)), torch.tensor([0, 2, 2, 2, 2])
    method = start(GroupDRO(balanced=False, adjustment=5.0, step_size=step_size), group_task(net, groups, ZERO.repeat(5)))
    method.epoch(0)
    other = math.exp(-2.5 * step_size)
    assert method.weights[1] == 0
    assert method.weights.tolist() == pytest.approx([1 / (1 + other), 0, other / (1 + other)], abs=1e-6)
    assert net.steps[0][0] == pytest.approx(1.0, abs=1e-5)


def test_the_adjustment_raises_weights_and_not_the_loss() -> None:
    """C = 1, n = (1, 4): margins 1 and 0.5 on equal losses."""
    net = Table(logits_of([1.0] * 5))
    groups = torch.tensor([0, 1, 1, 1, 1])
    method = start(GroupDRO(adjustment=1.0, balanced=False), group_task(net, groups, ZERO.repeat(5)))
    method.epoch(0)
    assert (method.weights[0] / method.weights[1]).item() == pytest.approx(math.exp(0.01 * 0.5), abs=1e-6)
    assert net.steps[0][0] == pytest.approx(1.0, abs=1e-5)


def test_greedy_group_dro_follows_running_losses() -> None:
    net = Table(logits_of([1.0, 2.0, 2.0, 2.0]))
    groups = torch.tensor([0, 1, 1, 1])
    method = start(GroupDRO(rule="greedy", budget=0.75, balanced=False), group_task(net, groups, ZERO.repeat(4)))
    method.epoch(0)
    assert method.average.tolist() == pytest.approx([1.0, 2.0], abs=1e-5)  # begun with the first batch
    assert method.weights.tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    method.follow(torch.tensor([3.0, 0.0]), torch.tensor([True, False]))
    assert method.average.tolist() == pytest.approx([0.9 * 1.0 + 0.1 * 3.0, 2.0], abs=1e-5)


def test_batches_are_balanced_over_groups() -> None:
    groups = torch.tensor([0] * 900 + [1] * 100)
    granted = {"needs": frozenset({"groups"}), "granted": {"groups": groups}}
    method = start(GroupDRO(), make_task(torch.arange(1000) % 3, **granted))
    drawn = method.samples(0)
    assert len(drawn) == 1000 and 420 < (groups[drawn] == 1).sum().item() < 580
    assert not torch.equal(drawn, method.samples(0))  # a stream, not one draw
    assert start(GroupDRO(balanced=False), make_task(torch.arange(1000) % 3, **granted)).samples(0) is None


# --- dro-topk


def test_dro_topk_keeps_the_largest_losses() -> None:
    net = Table(logits_of([0.1, 0.9, 0.5, 0.7]))
    method = start(DROTopK(tau=0.5), table_task(ZERO.repeat(4), {"a": net}, num_classes=2))
    method.epoch(0)
    ((loss, gradient),) = net.steps
    assert loss == pytest.approx(0.8, abs=1e-5) and rows_with_gradient(gradient) == [1, 3]
    assert method.clean_scores().tolist() == pytest.approx([-0.1, -0.9, -0.5, -0.7], abs=1e-5)


def test_dro_topk_forms_and_limits() -> None:
    labels = torch.arange(5) % 3
    losses = F.cross_entropy(table(5).rows, labels, reduction="none")
    for params, wanted in (
        ({"tau": 1.0}, losses.mean()),
        ({"tau": 0.01}, losses.max()),
        ({"tau": 0.5, "form": "cvar"}, cvar(losses, 0.5)),
        ({"tau": 0.5}, losses.topk(2).values.mean()),
    ):
        net = table(5)
        start(DROTopK(**params), table_task(labels, {"a": net}, num_classes=3)).epoch(0)
        assert net.steps[0][0] == pytest.approx(wanted.item(), abs=1e-6)


# --- cost


@pytest.mark.parametrize(
    ("method", "passes"),
    [
        (lambda: Decoupling(), 2),
        (lambda: CoTeachingPlus(forget_rate=0.2), 2),
        (lambda: JoCoR(forget_rate=0.2), 2),
        (lambda: DROTopK(), 1),
        (lambda: GroupDRO(), 1),
    ],
)
def test_passes_per_image_and_epoch(method: Any, passes: int) -> None:
    """A forward and a backward pass per network: 3 FE each."""
    granted = {"needs": frozenset({"groups"}), "granted": {"groups": torch.arange(24) % 2}}
    trained = start(method(), make_task(torch.arange(24) % 3, training={"batch_size": 8}, **granted))
    trained.epoch(0)
    nets = trained.counted_networks()
    assert len(nets) == passes and type(trained).cost.startswith(f"{3 * passes} FE")
    assert [net.forward_images for net in nets] == [net.backward_images for net in nets] == [24] * passes


def test_disagreement() -> None:
    assert disagreement(torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([[0.0, 1], [0, 1]])).tolist() == [True, False]
