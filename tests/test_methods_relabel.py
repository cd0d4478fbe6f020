"""pencil, selc and joint-opt, whose targets turn into what the network predicts, against the checks of their cards.

Most tests put tables of logits in the place of networks (see `small.Table`), so that every loss, gradient and target can be
worked out by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small import Table, equal, make_task, snapshot, start, table_task
from torch import Tensor

import methods.selc
from bench import api
from bench.fields import FieldError
from methods.erm import ERM
from methods.joint_opt import JointOpt
from methods.pencil import PENCIL
from methods.selc import SELC

LABELS = torch.arange(6) % 3
ROOT = Path(__file__).resolve().parent.parent


class Net(Table):
    """A table in double precision that notes the learning rates it is given."""

    def __init__(self, rows: Tensor, **settings: Any) -> None:
        super().__init__(rows, **settings)
        self.rows = rows.clone().double().requires_grad_()
        self.rates: list[float] = []

    def set_lr(self, value: float) -> None:
        self.rates.append(value)


def net(count: int = 6, classes: int = 3, seed: int = 0, **settings: Any) -> Net:
    return Net(torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)), **settings)


def begun(method: Any, a: Net, labels: Tensor = LABELS, b: Net | None = None, epoch: int = 0, **rest: Any) -> Any:
    """Set up on tables, its state in double precision as theirs."""
    start(method, table_task(labels, {"a": a, "b": b}, **{"num_classes": a.rows.shape[1], **rest}), epoch)
    for name, value in vars(method).items():
        if isinstance(value, Tensor):
            setattr(method, name, value.double())
    return method


def trained(method: Any, epochs: int, begin: int = 0) -> Any:
    for epoch in range(begin, epochs):
        method.task.start_epoch(epoch)
        method.epoch(epoch)
    return method


def onehot(labels: Tensor, classes: int) -> Tensor:
    return F.one_hot(labels, classes).double()


def certain(f: list[float], classes: int = 10) -> Tensor:
    """One row of logits whose softmax is f and (nearly) zeros."""
    return torch.tensor([f + [1e-30] * (classes - len(f))]).double().log().float()


def slope(loss: Callable[[Tensor], float], at: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences of a function of a matrix in double precision."""
    found = torch.zeros_like(at)
    for i in range(at.numel()):
        up, down = at.clone(), at.clone()
        up.view(-1)[i] += step
        down.view(-1)[i] -= step
        found.view(-1)[i] = (loss(up) - loss(down)) / (2 * step)
    return found


def moved_a_little(method: Any) -> Tensor:
    """Label logits between the given label and something else."""
    return 2 * onehot(method.task.labels, 3) + net(seed=9).rows.detach()


# --- pencil


def relabelled(a: Net, labels: Tensor, **params: Any) -> PENCIL:
    """One epoch of stage 2."""
    return trained(begun(PENCIL(**{"stage1": 0, "stage2": 9, **params}), a, labels, training={"epochs": 9}), 1)


@pytest.mark.parametrize(("classes", "share"), [(10, 0.9995916), (100, 0.9955255)])
def test_pencil_starts_at_the_given_labels(classes: int, share: float) -> None:
    method = begun(PENCIL(), net(2, classes), torch.tensor([3, 1]))
    distribution = method.label_logits.softmax(dim=1)
    assert distribution[[0, 1], [3, 1]].tolist() == pytest.approx([share, share], abs=5e-7)


def test_stage_1_is_cross_entropy_and_moves_no_label() -> None:
    a = net()
    method = trained(begun(PENCIL(stage1=2, stage2=3), a, training={"epochs": 4}), 2)
    expected = torch.autograd.grad(F.cross_entropy(a.rows, LABELS), a.rows)[0]
    torch.testing.assert_close(a.steps[0][1], expected)
    assert torch.equal(method.label_logits, 10 * onehot(LABELS, 3)) and method.clean_scores() is None and not a.rates


def test_the_movement_of_a_label_by_hand() -> None:
    method = relabelled(Net(certain([0.1, 0.9])), torch.tensor([0]), alpha=0, beta=0, lam=1)
    moved = method.label_logits[0] - 10 * onehot(torch.tensor([0]), 10)[0]
    assert moved[:2].tolist() == pytest.approx([-0.0899592, 0.0899955], abs=1e-6)


def test_the_movement_of_a_label_at_the_published_rate() -> None:
    labels = torch.zeros(128, dtype=torch.int64)
    method = relabelled(Net(certain([0.1, 0.9]).repeat(128, 1)), labels, alpha=0, beta=0, lam=600)
    moved = method.label_logits - 10 * onehot(labels, 10)
    for row in moved:
        assert row[:2].tolist() == pytest.approx([-0.421684, 0.421853], abs=2e-6)


@pytest.mark.parametrize(("tie", "value"), [("label", 0.000409), ("double-softmax", 1.461499)])
def test_the_two_ties_to_the_given_label(tie: str, value: float) -> None:
    """Where the network predicts the label distribution itself, L_c is 0 and nothing else is left."""
    a = Net(10 * onehot(torch.tensor([4]), 10))
    relabelled(a, torch.tensor([4]), alpha=1, beta=0, tie=tie)
    assert a.steps[0][0] == pytest.approx(value, abs=1e-6)


def test_agreement_moves_nothing() -> None:
    a = Net(10 * onehot(LABELS, 3))
    method = relabelled(a, LABELS, alpha=0, beta=0, lam=1e4)
    assert a.steps[0][0] == pytest.approx(0, abs=1e-9) and a.steps[0][1].abs().max() < 1e-9
    torch.testing.assert_close(method.label_logits, 10 * onehot(LABELS, 3), atol=1e-9, rtol=0)


@pytest.mark.parametrize("tie", ["label", "double-softmax"])
def test_pencil_gradients_against_finite_differences(tie: str) -> None:
    """Of the network's logits, and of the label logits, which move by lambda times theirs."""

    def run(rows: Tensor, labels_at: Tensor | None = None) -> tuple[Net, PENCIL]:
        a = Net(rows)
        method = begun(PENCIL(stage1=0, stage2=9, alpha=0.3, beta=0.7, lam=1, tie=tie), a, training={"epochs": 9})
        method.label_logits = moved_a_little(method) if labels_at is None else labels_at
        return a, trained(method, 1)

    rows = net().rows.detach()
    a, method = run(rows)
    before = moved_a_little(method)
    torch.testing.assert_close(a.steps[0][1], slope(lambda x: run(x)[0].steps[0][0], rows), atol=1e-8, rtol=1e-6)
    movement = before - method.label_logits
    assert movement.abs().max() > 1e-3
    torch.testing.assert_close(movement, slope(lambda y: run(rows, y)[0].steps[0][0], before), atol=1e-8, rtol=1e-6)


def test_the_objective_of_pencil_by_hand() -> None:
    """Means over all entries: a K-th of the paper's sums."""
    a = net()
    relabelled(a, LABELS, alpha=0.3, beta=0.7, tie="label")
    f, yd = a.rows.detach().softmax(dim=1), (10 * onehot(LABELS, 3)).softmax(dim=1)
    kl, entropy = (f * (f / yd).log()).sum(dim=1).mean(), -(f * f.log()).sum(dim=1).mean()
    tie = -yd[torch.arange(6), LABELS].log().mean()
    assert a.steps[0][0] == pytest.approx(float(kl / 3 + 0.3 * tie + 0.7 * entropy / 3), rel=1e-6)


def test_fine_tuning_leaves_labels_alone_and_restarts_the_rate() -> None:
    a = net(lr=0.1)
    method = trained(begun(PENCIL(stage1=0, stage2=1), a, training={"epochs": 10}), 1)
    labels = method.label_logits.clone()
    trained(method, 10, 1)
    assert torch.equal(method.label_logits, labels)
    assert a.rates == pytest.approx([0.2] * 3 + [0.02] * 3 + [0.002] * 3)
    log_f = a.rows.detach().log_softmax(dim=1)  # one more step, of L_c alone
    method.epoch(9)
    assert a.steps[-1][0] == pytest.approx(float((log_f.exp() * (log_f - labels.log_softmax(dim=1))).mean()), rel=1e-6)


def test_the_released_rates_and_the_plan() -> None:
    for params, rates in (({"finetune_decay": 0.0}, [0.2, 0, 0]), ({"finetune_lr": None}, [])):
        a = net()
        trained(begun(PENCIL(stage1=0, stage2=1, **params), a, training={"epochs": 4}), 4)
        assert a.rates == rates


def test_pencil_stages_by_default_are_the_papers_share() -> None:
    for epochs, stages in ((320, (70, 200)), (60, (13, 37)), (1, (0, 0))):
        method = begun(PENCIL(), net(), training={"epochs": epochs})
        assert (method._stage1, method._stage2) == stages


def test_pencil_moves_only_rows_of_the_batch_and_scores_labels() -> None:
    method = begun(PENCIL(stage1=0, stage2=9), net(), training={"epochs": 9})
    method.start_epoch(0)
    (batch,) = method.task.batches(indices=torch.tensor([1, 4]))
    method.step(batch, 0)
    changed = (method.label_logits != 10 * onehot(LABELS, 3)).any(dim=1)
    assert changed.tolist() == [False, True, False, False, True, False]
    expected = method.label_logits.softmax(dim=1)[torch.arange(6), LABELS]
    assert method.clean_scores().tolist() == pytest.approx(expected.tolist())


def test_a_contradicted_label_flips_in_a_dozen_epochs() -> None:
    labels = torch.zeros(128, dtype=torch.int64)
    method = begun(PENCIL(stage1=0, stage2=50, alpha=0, beta=0), Net(certain([0.01, 0.99]).repeat(128, 1)), labels,
                   training={"epochs": 50})  # fmt: skip
    flipped = []
    for epoch in range(16):
        trained(method, epoch + 1, epoch)
        flipped.append(bool((method.label_logits.argmax(dim=1) == 1).all()))
    assert flipped.index(True) in range(10, 14)


def test_certain_predictions_and_labels_stay_finite() -> None:
    a = Net(torch.tensor([[200.0, -200.0, 0.0]]).repeat(6, 1))
    method = begun(PENCIL(stage1=0, stage2=2), a, training={"epochs": 3})
    method.label_logits = torch.tensor([[-300.0, 300.0, 0.0]]).repeat(6, 1)
    trained(method, 3)
    assert all(math.isfinite(loss) and bool(torch.isfinite(gradient).all()) for loss, gradient in a.steps)
    assert torch.isfinite(method.label_logits).all()


def test_the_labels_of_pencil_move_before_they_stay() -> None:
    """200 of 320 epochs are 12 of 20: stage 2 would begin at 13 and be over at 12."""
    with pytest.raises(FieldError, match=r"stage2: labels would move from epoch 13 on .* from epoch 12 on.* \(14 or more"):
        begun(PENCIL(stage1=13), net(), training={"epochs": 20})
    with pytest.raises(FieldError, match="stage2"):
        begun(PENCIL(stage1=5, stage2=5), net(), training={"epochs": 20})
    begun(PENCIL(stage1=11), net(), training={"epochs": 20})
    begun(PENCIL(stage1=70, stage2=200), net(), training={"epochs": 20})  # a training that ends early is no contradiction
    begun(PENCIL(stage1=1), net(), training={"epochs": 3})  # a trial: 200 of 320 epochs are 1 of 3


# --- selc


def test_selc_begins_with_cross_entropy() -> None:
    a = net()
    method = trained(begun(SELC(turning_point=2), a), 2)
    expected = torch.autograd.grad(F.cross_entropy(a.rows, LABELS), a.rows)[0]
    for _, gradient in a.steps:
        torch.testing.assert_close(gradient, expected)
    assert torch.equal(method.targets, onehot(LABELS, 3)) and method.clean_scores() is None
    trained(method, 3, 2)
    assert not torch.equal(method.targets, onehot(LABELS, 3)) and method.clean_scores() is not None


def test_the_first_correction_by_hand() -> None:
    a = Net(torch.tensor([[0.1, 0.9]]).log())
    method = trained(begun(SELC(turning_point=0), a, torch.tensor([0])), 1)
    assert method.targets[0].tolist() == pytest.approx([0.91, 0.09])
    assert a.steps[0][0] == pytest.approx(2.104835, abs=1e-6)
    assert method.clean_scores().tolist() == pytest.approx([0.91])


def test_the_given_label_keeps_the_weight_alpha_to_the_k() -> None:
    a = net()
    method = trained(begun(SELC(turning_point=0), a, training={"epochs": 20}), 10)
    weight = 0.9**10
    assert weight == pytest.approx(0.348678, abs=1e-6)
    expected = weight * onehot(LABELS, 3) + (1 - weight) * a.rows.detach().softmax(dim=1)
    torch.testing.assert_close(method.targets, expected, atol=1e-9, rtol=0)


def test_the_gradient_of_selc_is_p_minus_the_updated_target() -> None:
    a = net()
    method = trained(begun(SELC(turning_point=0, alpha=0.6), a), 2)
    expected = (a.rows.detach().softmax(dim=1) - method.targets) / 6
    torch.testing.assert_close(a.steps[-1][1], expected, atol=1e-7, rtol=0)


def test_selc_without_correction_is_cross_entropy() -> None:
    ours, erm = (start(method, make_task(LABELS.repeat(5))) for method in (SELC(turning_point=1, alpha=1.0), ERM()))
    for method in (ours, erm):
        trained(method, 3)
    for name, value in ours.net.network.state_dict().items():
        torch.testing.assert_close(value, erm.net.network.state_dict()[name], atol=1e-6, rtol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 1), st.integers(0, 1000), st.floats(0.1, 50))
def test_targets_stay_distributions_and_only_seen_rows_move(alpha: float, seed: int, scale: float) -> None:
    a = Net(scale * net(seed=seed).rows.detach())
    method = begun(SELC(turning_point=0, alpha=alpha), a)
    method.correcting = True
    for indices in ([0, 3], [3, 5]):
        (batch,) = method.task.batches(indices=torch.tensor(indices))
        method.step(batch, 0)
    torch.testing.assert_close(method.targets.sum(dim=1), torch.ones(6).double(), atol=1e-9, rtol=0)
    assert torch.equal(method.targets[[1, 2, 4]], onehot(LABELS, 3)[[1, 2, 4]])


def turning(monkeypatch: pytest.MonkeyPatch, distances: list[float], **params: Any) -> list[bool]:
    """Whether labels are corrected in each epoch, when the losses of the epochs lie so far apart."""
    left = iter(distances)
    mixture = lambda losses: SimpleNamespace(means=torch.tensor([1.0, 1.0 + next(left)]))  # noqa: E731
    monkeypatch.setattr(methods.selc, "gaussian_mixture_1d", mixture)
    method = begun(SELC(turning="estimated", **params), net(), training={"epochs": 50})
    found = []
    for epoch in range(8):
        trained(method, epoch + 1, epoch)
        found.append(not torch.equal(method.targets, onehot(LABELS, 3)))
    return found


def test_the_turning_point_is_a_peak_that_was_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = [0.1, 0.4, 0.3, 0.35, 0.2, 0.1, 0.1, 0.1]
    assert turning(monkeypatch, peak, turning_point=9, patience=2).index(True) == 4  # peak in epoch 1, passed after epoch 3
    assert turning(monkeypatch, peak, turning_point=9, patience=4).index(True) == 6
    assert turning(monkeypatch, peak, turning_point=2, patience=4).index(True) == 2  # at the latest
    assert True not in turning(monkeypatch, [0.1 * i for i in range(8)], turning_point=9, patience=2)


def test_the_mixture_sees_the_training_losses_of_the_epoch() -> None:
    a = net()
    method = trained(begun(SELC(turning="estimated", turning_point=3), a, training={"epochs": 9}), 1)
    torch.testing.assert_close(method.last_losses, F.cross_entropy(a.rows.detach(), LABELS, reduction="none"))
    assert len(method.distances) == 1 and method.distances[0] >= 0
    far = Net(torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 0, 9], [9, 0, 0], [9, 0, 0], [9, 0, 0]]))
    assert trained(begun(SELC(turning="estimated", turning_point=3), far), 1).distances[0] == pytest.approx(9, abs=0.1)


def plus(a: Net, b: Net, **training: Any) -> SELC:
    return begun(SELC(turning_point=1, plus=True, plus_epochs=3, alpha=0.0), a, b=b, training={"epochs": 6, **training})


def test_selc_plus_trains_a_fresh_network_on_the_corrected_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def unmixed(images: Tensor, targets: Tensor, share: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
        asked.append((float(share), sorted(partner.tolist())))
        return images, targets

    monkeypatch.setattr(methods.selc, "mix", unmixed)
    a, b = net(seed=1), net(seed=2)
    method = trained(plus(a, b), 6)
    assert len(a.steps) == 3 and len(b.steps) == 3 and method.net is b
    corrected = a.rows.detach().argmax(dim=1)  # alpha is 0
    assert not torch.equal(corrected, LABELS)
    assert b.steps[0][0] == pytest.approx(float(F.cross_entropy(b.rows.detach(), corrected)), rel=1e-6)
    assert all(0.5 <= share <= 1 and partner == list(range(6)) for share, partner in asked)
    assert len({share for share, _ in asked}) == 3  # one coefficient a batch


def test_selc_plus_mixes_images_and_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods.selc, "beta_mix_coefficient", lambda alpha, **_: torch.tensor(0.75))
    method = start(SELC(plus=True, plus_epochs=1), make_task(LABELS, training={"batch_size": 6, "augment": "none"}), 3)
    (batch,) = method.task.batches()
    partner = torch.randperm(6, generator=make_generator(method.task))
    loss = method.mixed_loss(batch)
    logits = method.net(0.75 * batch.images + 0.25 * batch.images[partner])
    given_labels = batch.labels  # targets were never corrected
    expected = 0.75 * F.cross_entropy(logits, given_labels) + 0.25 * F.cross_entropy(logits, given_labels[partner])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def make_generator(task: Any) -> torch.Generator:
    """A copy of the method's random stream as it stands."""
    copy = torch.Generator()
    copy.set_state(task.generator().get_state())
    return copy


def test_both_stages_of_selc_plus_run_through_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods.selc, "mix", lambda images, targets, *_: (images, targets))
    a, b = net(seed=1), net(seed=2)
    trained(plus(a, b, lr=0.1, schedule="multistep", milestones=(2, 4)), 6)
    assert a.rates == b.rates == pytest.approx([0.1, 0.01, 0.001])


def test_selc_stages_by_default() -> None:
    assert begun(SELC(), net(), training={"epochs": 200})._turning_point == 40
    method = begun(SELC(plus=True), net(), b=net(), training={"epochs": 400})
    assert (method._first, method._turning_point) == (200, 40)
    with pytest.raises(FieldError, match="no epoch of 3 is left"):
        begun(SELC(plus=True, plus_epochs=3), net(), b=net(), training={"epochs": 3})


def test_selc_plus_corrects_labels_before_it_begins_anew() -> None:
    """Of 20 epochs 16 are the fresh network's: a correction after 6 would never come, and its labels were the given ones."""
    fields: dict[str, Any] = {"plus": True, "plus_epochs": 16, "turning_point": 6}
    with pytest.raises(FieldError, match=r"turning_point: .* after 6 epochs, the first stage has 4 \(0 to 3, or fewer plus"):
        begun(SELC(**fields), net(), b=net(), training={"epochs": 20})
    with pytest.raises(FieldError, match="turning_point"):
        begun(SELC(**fields | {"turning_point": 4}), net(), b=net(), training={"epochs": 20})
    for fine in ({"turning_point": 3}, {"plus": False}, {"turning": "estimated"}, {"plus_epochs": 13}):
        begun(SELC(**fields | fine), net(), b=net(), training={"epochs": 20})
    begun(SELC(plus=True, **SELC.smoke), net(), b=net(), training={"epochs": 2})  # a trial: an epoch of each stage


def test_selc_is_finite_where_predictions_are_certain() -> None:
    a = Net(torch.tensor([[200.0, -200.0, 0.0]]).repeat(6, 1))
    trained(begun(SELC(turning_point=0), a), 2)
    assert all(math.isfinite(loss) and bool(torch.isfinite(gradient).all()) for loss, gradient in a.steps)


# --- joint-opt


def joint(a: Net, labels: Tensor = LABELS, b: Net | None = None, epochs: int = 90, **params: Any) -> JointOpt:
    params = {"relabel_epochs": epochs - 10, **params}
    return begun(JointOpt(**params), a, labels, b, training={"epochs": epochs})


def test_joint_opt_without_penalties_is_cross_entropy() -> None:
    a = net()
    trained(joint(a, alpha=0, beta=0), 1)
    torch.testing.assert_close(a.steps[0][1], torch.autograd.grad(F.cross_entropy(a.rows, LABELS), a.rows)[0])


@pytest.mark.parametrize(("alpha", "beta", "total"), [(0, 0, 2.302585), (1, 0, 4.605170), (0, 1, 4.605170), (1.2, 0.8, 6.907755)])
def test_indifferent_logits_cost_ln_c_in_every_term(alpha: float, beta: float, total: float) -> None:
    a = Net(torch.zeros(5, 10))
    trained(joint(a, torch.arange(5), alpha=alpha, beta=beta), 1)
    assert a.steps[0][0] == pytest.approx(total, abs=1e-6)


def test_joint_opt_gradient_against_finite_differences() -> None:
    rows = net().rows.detach()

    def run(at: Tensor, **params: Any) -> Net:
        a = Net(at)
        trained(joint(a, **params), 1)
        return a

    for prior in ("uniform", "labels"):
        params = {"alpha": 1.2, "beta": 0.8, "prior": prior}
        gradient = slope(lambda x, params=params: run(x, **params).steps[0][0], rows)
        torch.testing.assert_close(run(rows, **params).steps[0][1], gradient, atol=1e-8, rtol=1e-6)


def test_the_prior_is_content_with_its_own_shares() -> None:
    """Uniform predictions under the uniform prior; those of the label frequencies under theirs."""
    for prior, labels in (("uniform", LABELS), ("labels", torch.tensor([0, 0, 0, 1, 1, 2]))):
        shares = torch.tensor([1 / 3] * 3 if prior == "uniform" else [1 / 2, 1 / 3, 1 / 6])
        a, b = (Net(shares.log().repeat(6, 1)) for _ in range(2))
        trained(joint(a, labels, alpha=1, beta=0, prior=prior), 1)
        trained(joint(b, labels, alpha=0, beta=0, prior=prior), 1)
        torch.testing.assert_close(a.steps[0][1], b.steps[0][1], atol=1e-7, rtol=0)
        entropy = -float((shares * shares.log()).sum())
        assert a.steps[0][0] - b.steps[0][0] == pytest.approx(entropy, abs=1e-6)


def test_a_class_without_labels_or_without_predictions_leaves_the_prior_finite() -> None:
    for prior in ("labels", "uniform"):
        a = Net(torch.tensor([[100.0, 0.0, -2000.0]]).repeat(4, 1))
        trained(joint(a, torch.zeros(4, dtype=torch.int64), prior=prior, begin=1), 2)
        assert all(math.isfinite(loss) and bool(torch.isfinite(gradient).all()) for loss, gradient in a.steps)


def test_labels_are_the_mean_of_the_last_ten_predictions_from_epoch_70_on() -> None:
    a = net(lr=0.3)
    method = joint(a, begin=70)
    seen = []
    for epoch in range(71):
        seen.append(a.rows.detach().softmax(dim=1))
        trained(method, epoch + 1, epoch)
        if epoch + 1 == 69:
            assert torch.equal(method.targets, onehot(LABELS, 3)) and method.clean_scores() is None
        if epoch + 1 == 70:
            torch.testing.assert_close(method.targets, torch.stack(seen[60:70]).mean(dim=0), atol=1e-9, rtol=0)
            torch.testing.assert_close(method.targets.sum(dim=1), torch.ones(6).double(), atol=1e-9, rtol=0)
            assert method.clean_scores().tolist() == method.targets[torch.arange(6), LABELS].tolist()
            ring = method.history.clone()
    changed = (method.history != ring).flatten(2).any(dim=2).any(dim=0)
    assert changed.tolist() == [True] + [False] * 9  # number 71 goes to slot 0
    torch.testing.assert_close(method.targets, torch.stack(seen[61:71]).mean(dim=0), atol=1e-9, rtol=0)
    assert (seen[60] - seen[70]).abs().max() > 1e-3


def test_slots_that_are_empty_do_not_count() -> None:
    a = net(lr=1.0)
    method = joint(a, begin=1, window=4)
    first = a.rows.detach().softmax(dim=1)
    trained(method, 1)
    second = a.rows.detach().softmax(dim=1)
    torch.testing.assert_close(method.targets, first, atol=1e-9, rtol=0)
    trained(method, 2, 1)
    torch.testing.assert_close(method.targets, (first + second) / 2, atol=1e-9, rtol=0)
    method.update_labels(torch.cat([torch.zeros(3, 3), torch.full((3, 3), 0.5)]).double())
    torch.testing.assert_close(method.targets[:3].double(), ((first + second) / 2)[:3], atol=1e-9, rtol=0)
    torch.testing.assert_close(method.targets[3:], torch.full((3, 3), 1 / 3).double())


def test_hard_labels_are_the_largest_of_the_mean() -> None:
    a = net(lr=0.5)
    soft, hard = joint(net(lr=0.5), begin=1), joint(a, begin=1, update="hard")
    trained(soft, 1)
    trained(hard, 1)
    assert torch.equal(hard.targets.double(), onehot(soft.targets.argmax(dim=1), 3))


def test_retraining_takes_a_fresh_network_and_its_own_rates() -> None:
    a, b = net(lr=1.0), net(seed=5)
    method = trained(joint(a, b=b, epochs=9, relabel_epochs=3, begin=2), 9)
    assert len(a.steps) == 3 and len(b.steps) == 6 and method.net is b and method.history is None
    expected = -(method.targets * b.rows.detach().log_softmax(dim=1)).sum(dim=1).mean()
    assert b.steps[0][0] == pytest.approx(float(expected), rel=1e-6)
    assert not a.rates and b.rates == pytest.approx([0.2, 0.2, 0.02, 0.02, 0.002, 0.002])
    c = net(seed=5)
    trained(joint(net(lr=1.0), b=c, epochs=9, relabel_epochs=3, begin=2, retrain_lr=None), 9)
    assert c.rates == []


def test_retraining_starts_anew_and_never_reads_the_given_labels() -> None:
    ends = []
    for labels in (LABELS.repeat(4), torch.zeros(24, dtype=torch.int64)):
        method = start(JointOpt(relabel_epochs=2, begin=1), make_task(LABELS.repeat(4), training={"epochs": 4}))
        initial = snapshot(method.fresh)
        trained(method, 2)
        assert equal(snapshot(method.fresh), initial) and not equal(snapshot(method.net), initial)
        assert not torch.equal(initial["head.weight"], snapshot(method.net)["head.weight"])
        method.task.labels = labels
        trained(method, 4, 2)
        ends.append(snapshot(method.net))
    assert equal(*ends)


def test_joint_opt_stages_by_default_are_the_papers_share() -> None:
    method = joint(net(), epochs=320, relabel_epochs=None)
    assert (method._relabel_epochs, method._begin) == (200, 70)
    with pytest.raises(FieldError, match="no epoch of 3 is left"):
        joint(net(), epochs=3, relabel_epochs=3)


def test_joint_opt_relabels_before_it_retrains() -> None:
    """Ten epochs relabel, and 70 of 320 of the training are 13 of 60: the labels would never move."""
    with pytest.raises(FieldError, match=r"begin: labels would be replaced after epoch 13 first, and only 10 relabel \(1 to 10"):
        joint(net(), epochs=60, relabel_epochs=10)
    method = trained(joint(net(lr=0.3), b=net(seed=1), epochs=60, relabel_epochs=10, begin=10), 10)
    assert method.relabelled  # at the end of the last one, which is enough


# --- all three


STAGED = {"joint-opt": JointOpt, "pencil": PENCIL, "selc": SELC}


def test_every_suite_and_recipe_leaves_every_stage_an_epoch() -> None:
    """Set-up, which would refuse, of each such cell of the suites, of each recipe in its own training, and of `smoke`."""
    tried: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {}
    for path in sorted((ROOT / "suites").rglob("*.yaml")):
        if any(slug in path.read_text() for slug in STAGED):
            for entry in api.read_plan(path, results=ROOT / "results").entries:
                cls, params = STAGED.get(entry.cell["method"]["name"]), entry.cell["method"]["params"]
                training = {"epochs": entry.cell["training"]["epochs"]}
                if cls is not None:
                    tried[repr((cls, params, training))] = cls, params, training
    budgets = {"digits": 60, "spurious-digits": 30}
    for cls in STAGED.values():
        tried[cls.slug] = cls, dict(cls.smoke), {"epochs": 2}
        for recipe in cls.recipes:
            cells = [r for r in cls.recipes if r.name == recipe.name and _may_meet(r.when, recipe.when)]
            values = {key: value for r in cells for key, value in r.set.items()}
            epochs = values.get("training.epochs") or budgets[str(np.atleast_1d(recipe.when["dataset"])[0])]
            own = {key: value for key, value in values.items() if "." not in key}
            tried[repr((cls, own, epochs))] = cls, own, {"epochs": epochs}
    assert len(tried) > 20
    for cls, params, training in tried.values():
        begun(cls(**params), net(), b=net(), training=training)


def _may_meet(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether some cell of what `other` matches has all that `one` asks for, as far as `other` says it."""
    return all(key in other and set(np.atleast_1d(other[key])) <= set(np.atleast_1d(value)) for key, value in one.items())


@pytest.mark.parametrize(
    ("method", "nets"),
    [
        (PENCIL(stage1=1, stage2=2), 1),
        (SELC(turning_point=1, turning="estimated"), 1),
        (SELC(turning_point=1, plus=True, plus_epochs=1), 2),
        (JointOpt(relabel_epochs=2, begin=1), 2),
    ],
    ids=["pencil", "selc", "selc-plus", "joint-opt"],
)
def test_an_epoch_costs_one_forward_and_one_backward_pass(method: Any, nets: int) -> None:
    method = trained(start(method, make_task(LABELS.repeat(3), training={"epochs": 3, "batch_size": 5})), 3)
    assert len(method.learners()) == nets and type(method).cost == "3 FE"
    assert sum(each.forward_images for each in method.learners()) == 3 * 18
    assert sum(each.backward_images for each in method.learners()) == 3 * 18
