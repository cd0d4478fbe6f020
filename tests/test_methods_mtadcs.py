"""mtadcs and mtadcs-plus against the checks of their card, and the need `trusted` from the data to the footnote."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import make_cell, make_task, plain_images, start
from torch import Tensor

import methods.mtadcs
from bench.data import Dataset, Loaded, Split, datasets
from bench.fields import FieldError
from bench.method import methods as all_methods
from bench.report.captions import NEEDS, method_notes, need_note
from bench.trial.evaluate import Protocol
from bench.trial.prepare import _trusted, prepare
from bench.trial.runner import Options
from bench.trial.task import NeedError
from methods.erm import ERM
from methods.mtadcs import MTaDCS
from methods.mtadcs_plus import MTaDCSPlus

COUNT = 24
SMALL = {"queue_size": 40, "width": 5, "warmup": 1, "train_view": "weak"}
OFF = dict.fromkeys(("lof", "confidence_set", "removal", "contrast", "mixup", "correction"), False)


def begun(method: Any, trusted: Tensor | None = None, count: int = COUNT, **training: Any) -> Any:
    training = {"batch_size": 8, "augment": "none", **training}
    granted = {} if trusted is None else {"trusted": trusted}
    return start(method, make_task(torch.arange(count) % 3, training=training, needs=method.needs, granted=granted))


def unprivileged(**params: Any) -> MTaDCS:
    return MTaDCS(**{**SMALL, "trusted_size": 0, **params})


def train(method: Any, epoch: int) -> None:
    method.task.start_epoch(epoch)
    method.epoch(epoch)


def probabilities(classes: Tensor) -> Tensor:
    return F.one_hot(classes, 3).float()


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- how it begins, and Table 3's switches


def test_the_confidence_set_begins_as_the_trusted_samples_or_as_all() -> None:
    method = MTaDCS(**SMALL)
    assert method.needs == {"trusted"} and method.trusted_size == 1000
    begun(method, torch.tensor([3, 7]))
    assert torch.nonzero(method.confident)[:, 0].tolist() == [3, 7]
    assert unprivileged().needs == frozenset() and bool(begun(unprivileged()).confident.all())


def test_without_selection_the_whole_set_is_trained_on_and_nothing_is_needed() -> None:
    method = MTaDCS(**{**SMALL, **OFF})
    assert not method.selects and method.needs == frozenset()
    begun(method)
    for epoch in range(3):
        train(method, epoch)
    assert bool(method.confident.all()) and method.clean_scores() is None


def test_all_switches_off_is_cross_entropy() -> None:
    ours, erm = begun(MTaDCS(**{**SMALL, **OFF})), begun(ERM())
    for epoch in range(2):
        train(ours, epoch)
        train(erm, epoch)
    for a, b in zip(ours.net.network.parameters(), erm.net.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_every_row_of_table_3_has_a_recipe() -> None:
    rows = {recipe.name: recipe.set for recipe in MTaDCS.recipes if "Table 3" in recipe.source}
    marks = [[bool(rows[name][switch]) for switch in OFF] for name in rows]
    assert [sum(row) for row in marks] == [0, 1, 2, 3, 4, 5, 5]  # and all six are the paper's method
    assert [row[:4] for row in marks[:5]] == [[True] * n + [False] * (4 - n) for n in range(5)]
    assert [row[4:] for row in marks[4:]] == [[False, False], [True, False], [False, True]]
    paper = MTaDCS(**{k: v for k, v in MTaDCS.recipes[0].set.items() if "." not in k})
    assert all(getattr(paper, switch) for switch in OFF) and paper.lof_threshold == 1.5 and paper.neighbours == 10


def test_the_defaults_are_the_papers() -> None:
    m = MTaDCSPlus()
    assert (m.warmup, m.neighbours, m.temperature, m.queue_size, m.alpha, m.flip_threshold) == (10, 10, 0.1, 10_000, 0.01, 0.8)
    assert (m.finetune_epochs, m.finetune_lr) == (70, 1e-3)
    epochs = {(r.name, r.when["dataset"]): r.set["training.epochs"] for r in MTaDCSPlus.recipes if r.name != "fixed"}
    assert epochs["paper", ("cifar10", "cifar100")] == 320 and epochs["paper", "webvision50"] == 140


# --- Eqs. 2 and 3: who joins and who leaves


def selected(labels: list[int], predicted: list[int], confident: list[bool], points: Tensor, **params: Any) -> Any:
    method = begun(unprivileged(**params), count=len(labels))
    method.labels, method.confident = torch.tensor(labels), torch.tensor(confident)
    method.select(points, torch.tensor(predicted))
    return method


LINE = torch.arange(6.0)[:, None] * torch.ones(1, 2)


def test_members_leave_and_others_join_by_their_prediction() -> None:
    """Samples 1 and 5 are predicted as something else: 1 leaves, 5 does not join."""
    method = selected([0] * 6, [0, 1, 0, 0, 0, 2], [True, True, False, False, False, False], LINE, lof_threshold=100)
    assert method.confident.tolist() == [True, False, True, True, True, False]
    assert method.task.epoch_log() == {"confident": 4, "selected": 3, "removed": 1}


def test_a_sample_that_is_predicted_otherwise_never_joins_whatever_its_factor() -> None:
    method = selected([0] * 6, [1] * 6, [False] * 6, LINE, lof_threshold=1e30)
    assert not bool(method.confident.any())


def test_the_outlier_of_the_card_stays_out_and_most_of_the_cluster_joins() -> None:
    points = torch.cat([randn(100, 2), torch.tensor([[10.0, 10.0]], dtype=torch.float64)])
    method = selected([0] * 101, [0] * 101, [False] * 101, points)
    assert not method.confident[100] and 85 <= int(method.confident.sum()) <= 99
    from sklearn.neighbors import LocalOutlierFactor

    factors = -LocalOutlierFactor(n_neighbors=10).fit(points.numpy()).negative_outlier_factor_
    assert method.confident.tolist() == (factors <= 1.5).tolist() and 9 < factors[100] < 21


def test_density_is_that_of_the_candidates_of_one_class_alone() -> None:
    """Twelve candidates on a circle; members and another class crowd around one of them and must not count."""
    angle = torch.arange(12) * (2 * math.pi / 12)
    ring = torch.stack([angle.cos(), angle.sin()], dim=1)
    crowd = ring[:1] + 0.001 * torch.randn(24, 2, generator=torch.Generator().manual_seed(0))
    points = torch.cat([ring, crowd])
    labels = [0] * 12 + [0] * 12 + [1] * 12
    confident = [False] * 12 + [True] * 12 + [False] * 12
    method = selected(labels, labels, confident, points, lof_threshold=1.05, neighbours=2)
    assert bool(method.confident[:24].all())  # on a ring alone every factor is 1
    joint = selected(labels, labels, [False] * 36, points, lof_threshold=1.05, neighbours=2)
    assert not joint.confident[11]  # next to the crowd, once that counts


def test_a_lone_candidate_has_no_density() -> None:
    method = selected([0, 0, 1], [0, 0, 1], [False] * 3, LINE[:3], lof_threshold=1e6)
    assert method.confident.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("params", "after"),
    [
        ({}, [True, False, True, False]),
        ({"lof": False}, [True, False, True, True]),
        ({"removal": False}, [True, True, True, False]),
        ({"confidence_set": False}, [False, False, True, False]),
        ({"confidence_set": False, "lof": False}, [True, False, True, True]),
    ],
)
def test_switches_of_the_selection(params: dict[str, Any], after: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """0 and 1 are members, 1 is predicted otherwise; of the others 2 is dense and 3 is not; 0 would not be dense either."""

    def factors(points: Tensor, labels: Tensor, k: int, classes: int, members: Tensor) -> Tensor:
        return torch.where(members, torch.tensor([9.0, 1.0, 1.0, 9.0]), math.nan)

    monkeypatch.setattr(methods.mtadcs, "class_lof", factors)
    method = selected([0] * 4, [0, 1, 0, 0], [True, True, False, False], LINE[:4], **params)
    assert method.confident.tolist() == after


@pytest.mark.parametrize(
    ("params", "width"), [({}, 5), ({"space": "pooled"}, 8), ({"contrast": False}, 8), ({"contrast": False, "mixup": False}, 8)]
)
def test_where_density_is_measured(params: dict[str, Any], width: int) -> None:
    """Projections, 5 wide; the network's 8 features where asked for, and where no loss trains the projection."""
    method = begun(unprivileged(**params))
    probs, points = method.full_pass()
    assert points.shape == (COUNT, width) and not points.requires_grad
    torch.testing.assert_close(points.norm(dim=1), torch.ones(COUNT))
    torch.testing.assert_close(probs, method.predict(plain_images(method.task)))


def test_nothing_moves_before_the_end_of_the_warm_up() -> None:
    method = begun(MTaDCS(**{**SMALL, "warmup": 2}), torch.tensor([0, 1, 2]))
    method.select = lambda *given: moves.append("select")
    method.correct = lambda *given: moves.append("correct")
    moves: list[str] = []
    seen = []
    for epoch in range(4):
        train(method, epoch)
        seen.append(list(moves))
    assert seen == [[], ["select"], ["select", "correct", "select"], ["select", *["correct", "select"] * 2]]


def test_no_candidate_and_no_member_leave_the_network_as_it_is() -> None:
    method = begun(MTaDCS(**{**SMALL, "lof_threshold": 0.0}), torch.tensor([], dtype=torch.int64))
    before = [p.clone() for p in method.net.network.parameters()]
    for epoch in range(3):
        train(method, epoch)
    assert not bool(method.confident.any()) and method.net.backward_images == 0
    assert all(torch.equal(a, b) for a, b in zip(before, method.net.network.parameters(), strict=True))


@pytest.mark.parametrize("full", [False, True])
def test_an_epoch_is_one_pass_over_the_confidence_set_or_as_long_as_one_over_all(full: bool) -> None:
    method = begun(MTaDCS(**SMALL, full_epochs=full), torch.tensor([2, 4, 9, 17, 23]))
    counts = method.members().bincount(minlength=COUNT)
    assert set(torch.nonzero(counts)[:, 0].tolist()) == {2, 4, 9, 17, 23}
    assert int(counts.sum()) == (COUNT if full else 5) and int(counts.max()) == (5 if full else 1)


# --- Eq. 7: label correction


def test_a_label_flips_after_161_epochs_of_one_prediction_and_its_sample_leaves() -> None:
    method = begun(unprivileged())
    predicted = method.task.labels.clone()
    predicted[0] = 1  # its label is 0
    for update in range(1, 162):
        method.correct(probabilities(predicted))
        if update == 160:
            assert torch.equal(method.labels, method.task.labels) and bool(method.confident.all())
            assert float(method.soft_labels[0, 1]) == pytest.approx(0.7997, abs=1e-4)
    assert float(method.soft_labels[0, 1]) == pytest.approx(0.8017, abs=1e-4)
    assert int(method.labels[0]) == 1 and method.confident.tolist() == [False] + [True] * (COUNT - 1)
    assert torch.equal(method.labels[1:], method.task.labels[1:])
    torch.testing.assert_close(method.soft_labels[1:], probabilities(method.task.labels)[1:])
    torch.testing.assert_close(method.soft_labels.sum(dim=1), torch.ones(COUNT))
    method.confident[0] = True
    method.correct(probabilities(predicted))  # the sample has come back with its new label: no second flip
    assert int(method.labels[0]) == 1 and bool(method.confident[0])
    assert method.task.epoch_log()["flipped"] == pytest.approx(1 / 162)


def test_labels_are_corrected_without_a_selection_too() -> None:
    """Card, step 5: alpha 0.5 makes the share of a steady other prediction 0.5, 0.75 and 0.875; the third one flips. All stay."""
    method = begun(unprivileged(lof=False, confidence_set=False, contrast=False, mixup=False, alpha=0.5), epochs=6)
    wrong = (method.task.labels + (torch.arange(COUNT) == 4)) % 3  # the network sees another class in sample 4 alone
    method.full_pass = lambda: (probabilities(wrong), torch.zeros(COUNT, 2))
    flipped = []
    for epoch in range(4):
        train(method, epoch)
        flipped.append(int(method.labels[4]) != int(method.task.labels[4]))
        assert bool(method.confident.all()) and len(method.members()) == COUNT
    assert flipped == [False, False, False, True]  # corrections follow epochs 1, 2 and 3, after a warm-up of one
    assert torch.equal(method.labels, wrong) and method.clean_scores() is None
    seen = []
    method.class_loss = lambda images, labels: seen.append(labels) or method.net(images).sum()
    train(method, 4)
    assert torch.equal(torch.cat(seen).bincount(), wrong.bincount())


def test_a_flip_goes_to_the_class_of_the_largest_share() -> None:
    """Shares of 0.5, 0.3 and 0.2: a threshold of 0.25 would flip to the second class."""
    with pytest.raises(FieldError, match="flip_threshold"):
        MTaDCS.resolve({"flip_threshold": 0.25})
    assert MTaDCS.resolve({"flip_threshold": 0.5})["flip_threshold"] == 0.5
    method = begun(unprivileged(alpha=0.0, flip_threshold=0.5))
    method.soft_labels[:2] = torch.tensor([[0.5, 0.3, 0.2], [0.51, 0.49, 0.0]])
    method.labels[:2] = torch.tensor([1, 1])
    method.correct(probabilities(method.labels))
    assert method.labels[:2].tolist() == [1, 0]  # of what is above one half there is one class


def test_correction_can_follow_the_probabilities() -> None:
    probs = torch.tensor([[0.1, 0.6, 0.3]]).repeat(COUNT, 1)
    for towards, row in (("prediction", [0.5, 0.5, 0.0]), ("probabilities", [0.55, 0.3, 0.15])):
        method = begun(unprivileged(alpha=0.5, correct_towards=towards))
        method.correct(probs)
        assert method.soft_labels[0].tolist() == pytest.approx(row)  # label 0


def test_the_corrected_label_is_what_is_trained_on_and_queued() -> None:
    method = begun(unprivileged(mixup=False))
    method.labels = (method.task.labels + 1) % 3
    seen = []
    method.class_loss = lambda images, labels, logits: seen.append(labels) or logits.sum()
    train(method, 0)
    assert torch.cat(seen).bincount().tolist() == [8, 8, 8]
    order = torch.cat([batch.index for batch in again(method)])
    assert torch.equal(torch.cat(seen), (order % 3 + 1) % 3) and torch.equal(method.queue["labels"], torch.cat(seen))


def again(method: Any) -> list[Any]:
    """The batches of an epoch once more."""
    method.task.start_epoch(method.task.current_epoch)
    return list(method.task.batches(("weak", "weak"), indices=torch.arange(COUNT)))


# --- Eq. 4: local supervised contrast


def queued(embeddings: Tensor, labels: Tensor, **params: Any) -> Any:
    method = begun(unprivileged(**{"queue_size": len(labels), **params}))
    method.net.extra["projection"] = torch.nn.Identity()
    method.queue.push(embeddings=embeddings, labels=labels)
    return method


def test_identical_keys_of_the_own_class_give_the_log_of_their_number() -> None:
    keys = torch.ones(10_000, 4) / 2
    method = queued(keys, torch.zeros(10_000, dtype=torch.int64))
    losses = method.local_contrast(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(3).long())
    assert losses.tolist() == pytest.approx([math.log(10_000)] * 3, abs=1e-3)


@pytest.mark.parametrize("empty", [True, False])
def test_without_a_key_of_the_class_the_loss_is_0_with_a_finite_gradient(empty: bool) -> None:
    method = queued(F.normalize(randn(6, 4)), torch.ones(6, dtype=torch.int64))
    if empty:
        method.queue = methods.mtadcs.Queue(6)
    features = randn(2, 4, seed=1).requires_grad_()
    losses = method.local_contrast(features, torch.zeros(2).long())
    (gradient,) = torch.autograd.grad(losses.sum(), features)
    assert losses.tolist() == [0, 0] and gradient.tolist() == [[0] * 4] * 2


def test_contrast_equals_its_equation_with_the_logarithm() -> None:
    keys, features = F.normalize(randn(7, 4)), randn(3, 4, seed=1)
    key_labels, labels = torch.tensor([0, 1, 0, 2, 1, 0, 1]), torch.tensor([1, 0, 2])
    method = queued(keys, key_labels, temperature=0.3)
    expected = []
    for z, y in zip(F.normalize(features), labels, strict=True):
        likeness = [math.exp(float(z @ key) / 0.3) for key in keys]
        own = [math.log(value / sum(likeness)) for value, k in zip(likeness, key_labels, strict=True) if k == y]
        expected.append(-sum(own) / len(own))
    assert method.local_contrast(features, labels).tolist() == pytest.approx(expected)
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: method.local_contrast(x, labels), (features,))


def test_the_momentum_encoder_follows_after_the_step_and_has_no_gradient() -> None:
    method = begun(unprivileged(momentum=0.9), batch_size=COUNT)
    old = [p.clone() for p in [*method.key.network.parameters(), *method.key.extra.parameters()]]
    train(method, 0)
    query = [*method.net.network.parameters(), *method.net.extra.parameters()]
    key = [*method.key.network.parameters(), *method.key.extra.parameters()]
    for before, now, followed in zip(old, key, query, strict=True):
        torch.testing.assert_close(now, 0.9 * before + 0.1 * followed.detach())
        assert now.grad is None and not now.requires_grad
    assert method.net.extra["projection"].weight.grad is None or not bool(method.net.extra["projection"].weight.grad.any())
    train(method, 1)  # the queue was empty in the first step
    assert bool(method.net.extra["projection"].weight.grad.any())


def test_the_queue_holds_members_alone_and_grows_after_the_step() -> None:
    trusted = torch.tensor([0, 4, 8, 10, 11])
    method = begun(MTaDCS(**SMALL), trusted)
    lengths = []
    contrast = method.local_contrast
    method.local_contrast = lambda *given: lengths.append(len(method.queue)) or contrast(*given)
    train(method, 0)
    assert lengths == [0] and len(method.queue) == 5
    assert method.queue["labels"].sort().values.tolist() == sorted((trusted % 3).tolist())
    torch.testing.assert_close(method.queue["embeddings"].norm(dim=1), torch.ones(5))


def test_keys_are_the_momentum_encoders_of_the_second_view() -> None:
    method = begun(unprivileged(train_view="strong"), batch_size=COUNT)
    for p in method.key.network.parameters():
        p.mul_(1.5)
    method.task.start_epoch(0)
    (batch,) = method.task.batches(("strong", "strong"), indices=method.members())
    expected = methods.mtadcs.embed(method.key, method.key.with_features(batch.views[1])[1])
    train(method, 0)
    torch.testing.assert_close(method.queue["embeddings"], expected)
    assert not torch.equal(batch.views[0], batch.views[1])


# --- Eq. 5


def test_mixing_with_nobody_is_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods.mtadcs, "beta_mix_coefficient", lambda *given, **named: torch.tensor(1.0))
    method = begun(unprivileged())
    images, labels = plain_images(method.task)[:8], method.task.labels[:8]
    loss = method.class_loss(images, labels)
    torch.testing.assert_close(loss, F.cross_entropy(method.net(images), labels))


def test_mixed_loss_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods.mtadcs, "beta_mix_coefficient", lambda *given, **named: torch.tensor(0.7))
    monkeypatch.setattr(torch, "randperm", lambda n, generator: torch.arange(n).roll(1))
    method = begun(unprivileged())
    images, labels = plain_images(method.task)[:6], method.task.labels[:6]
    found = method.class_loss(images, labels)
    log_p = method.net(0.7 * images + 0.3 * images.roll(1, 0)).log_softmax(dim=1)
    expected = -(0.7 * log_p[range(6), labels] + 0.3 * log_p[range(6), labels.roll(1)]).mean()
    torch.testing.assert_close(found, expected)


# --- cost


@pytest.mark.parametrize(
    ("params", "forward", "backward", "keys"),
    [({}, 3, 2, 1), ({"mixup": False}, 2, 1, 1), ({"contrast": False}, 2, 1, 0), ({"contrast": False, "mixup": False}, 2, 1, 0)],
)
def test_passes_per_image(params: dict[str, Any], forward: int, backward: int, keys: int) -> None:
    """Of the network 2 per member and one more of every image: 3 * 2 + 1 + 1 FE where all are members."""
    method = begun(unprivileged(**params))
    train(method, 0)
    assert (method.net.forward_images, method.net.backward_images) == (forward * COUNT, backward * COUNT)
    assert (method.key.forward_images if keys else 0) == keys * COUNT


# --- scores and traces


def test_scores_tell_the_confidence_set_apart() -> None:
    method = begun(unprivileged())
    method.epochs = 4
    method.confident = torch.arange(COUNT) < 12
    method.times = torch.arange(COUNT) % 5
    method.labels = torch.where(torch.arange(COUNT) == 3, 2, method.task.labels)
    scores = method.clean_scores()
    assert float(scores[3]) == 0 and float(scores[4]) == pytest.approx(1.8) and float(scores[14]) == pytest.approx(0.8)
    assert torch.equal(scores >= 1, method.confident & (method.labels == method.task.labels))


def test_epochs_in_the_set_are_counted() -> None:
    method = begun(MTaDCS(**{**SMALL, "warmup": 9}), torch.tensor([1, 5]))
    for epoch in range(3):
        train(method, epoch)
    assert method.times.tolist() == [3 if i in (1, 5) else 0 for i in range(COUNT)] and method.epochs == 3


def test_what_can_be_watched() -> None:
    method = begun(unprivileged(lof_threshold=1e9, correction=False))
    shown: dict[str, Any] = {}
    method.task.observe = lambda name, **kinds: shown.setdefault(name, {what: call().clone() for what, call in kinds.items()})
    train(method, 0)
    assert torch.equal(shown["confidence_set"]["members"], method.confident) and not shown["selected"]["members"].any()
    features = shown["features"]
    assert torch.equal(features["members"], method.confident) and torch.equal(features["labels"], method.labels)
    torch.testing.assert_close(features["points"], method.full_pass()[1])
    outside = ~method.confident
    shown.clear()
    train(method, 1)
    selected = shown["selected"]["members"]
    assert torch.equal(selected & outside, selected) and torch.equal(shown["confidence_set"]["members"] & selected, selected)


# --- MTaDCS+


def test_fine_tuning_trains_the_last_confidence_set_and_moves_nothing_else() -> None:
    method = begun(MTaDCSPlus(**{**SMALL, "trusted_size": 0, "finetune_epochs": 2, "lof_threshold": 100.0}), epochs=4)
    for epoch in range(2):
        train(method, epoch)
    chosen = torch.arange(COUNT) % 4 == 0
    method.confident = chosen.clone()
    state = [t.clone() for t in (method.labels, method.soft_labels, method.times, method.queue["labels"])]
    counts = method.net.forward_images, method.net.backward_images, method.key.forward_images
    seen = []
    loss = method.class_loss
    method.class_loss = lambda images, labels: seen.append(labels) or loss(images, labels)
    for epoch in (2, 3):
        train(method, epoch)
        assert method.net.lr == 1e-3
    assert torch.equal(method.confident, chosen)
    assert [len(labels) for labels in seen] == [6, 6]
    after = (method.labels, method.soft_labels, method.times, method.queue["labels"])
    assert all(torch.equal(a, b) for a, b in zip(state, after, strict=True))
    passes = method.net.forward_images, method.net.backward_images, method.key.forward_images
    assert [b - a for a, b in zip(counts, passes, strict=True)] == [12, 12, 0]


@pytest.mark.parametrize(
    ("plan", "rates"),
    [
        ({"schedule": "multistep", "milestones": (1,)}, [1.0, 0.1, 0.001, 0.001]),
        ({"schedule": "cosine"}, [1.0, 0.853553, 0.001, 0.001]),  # (1 + cos(pi / 4)) / 2: of four epochs, not of two (0.5)
        ({"schedule": "linear"}, [1.0, 0.75, 0.001, 0.001]),
    ],
    ids=str,
)
def test_a_decay_to_the_end_spans_both_stages(plan: dict[str, Any], rates: list[float]) -> None:
    method = begun(MTaDCSPlus(**{**SMALL, "trusted_size": 0, "finetune_epochs": 2}), epochs=4, lr=1.0, **plan)
    method.train = lambda: None
    method.class_loss = lambda images, labels: method.net(images).sum() * 0
    found = []
    for epoch in range(4):
        train(method, epoch)
        found.append(method.net.lr)
    assert found == pytest.approx(rates, abs=1e-6)


def test_before_fine_tuning_it_is_mtadcs() -> None:
    plus = begun(MTaDCSPlus(**{**SMALL, "trusted_size": 0, "finetune_epochs": 1}))
    plain = begun(unprivileged())
    for epoch in range(3):
        train(plus, epoch)
        train(plain, epoch)
        assert torch.equal(plus.confident, plain.confident)
    assert all(torch.equal(a, b) for a, b in zip(plus.net.network.parameters(), plain.net.network.parameters(), strict=True))


def test_fine_tuning_leaves_room_for_training() -> None:
    with pytest.raises(FieldError, match="no epoch of 4 is left"):
        begun(MTaDCSPlus(**SMALL, finetune_epochs=4), torch.tensor([0]))


# --- the need `trusted`


class Unknown(Dataset):
    """Digits-like data whose true labels nobody knows."""

    slug = "unknown-truth"
    title = "Unknown"
    embedded = True
    num_classes = 2
    summary = "for a test"

    def load(self, root: Any) -> Loaded:
        images = np.random.default_rng(0).integers(0, 256, (20, 1, 6, 6)).astype(np.uint8)
        split = Split(images, np.arange(20) % 2)
        return Loaded(train=split, test=split, class_names=("a", "b"), true_labels_known=False)


def prepared(size: int = 25, slug: str = "mtadcs", **cell: Any) -> tuple[Any, Any, dict[str, Any]]:
    record: dict[str, Any] = {}
    params = {"trusted_size": size} if slug != "erm" else {}
    wanted = make_cell(slug, params, **cell)
    method = all_methods()[slug](**wanted["method"]["params"])
    task, evaluator = prepare(wanted, Options("test"), method, Protocol(**wanted["protocol"]), record)
    return task, evaluator, record


def test_trusted_samples_are_right_balanced_and_as_many_as_asked_for() -> None:
    task, evaluator, record = prepared(25)
    assert task.trusted.dtype == torch.int64 and record["data"]["trusted"] == len(task.trusted) == 25
    assert evaluator._truth.correct[task.trusted.numpy()].all() and not evaluator._truth.correct.all()
    assert task.labels[task.trusted].bincount(minlength=10).tolist() == [3] * 5 + [2] * 5
    assert task.trusted.tolist() == sorted(set(task.trusted.tolist()))


def test_trusted_samples_are_drawn_by_seed_and_nested_in_larger_draws() -> None:
    few, more = prepared(7)[0].trusted, prepared(40)[0].trusted
    assert set(few.tolist()) < set(more.tolist())
    assert torch.equal(prepared(40, "mtadcs-plus")[0].trusted, more)  # whichever method asks
    assert not torch.equal(prepared(40, seed=1)[0].trusted, more)


def test_a_class_with_too_few_right_labels_gives_all_it_has() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    correct = np.array([1, 1, 1, 1, 1, 0, 0, 0], dtype=bool)
    cell = {"dataset": {"name": "x"}, "seed": 0}
    found = _trusted(6, labels, correct, cell, 3)
    assert np.bincount(labels[found], minlength=3).tolist() == [2, 1, 0] and correct[found].all()
    assert len(_trusted(6, labels, np.zeros(8, dtype=bool), cell, 3)) == 0


def test_trusted_samples_are_withheld_unless_declared() -> None:
    for task, _, record in (prepared(slug="erm"), prepared(0)):
        assert "trusted" not in task._granted and "trusted" not in record["data"]
        with pytest.raises(NeedError, match="read task.trusted without declaring it"):
            _ = task.trusted


def test_where_nobody_knows_the_truth_none_can_be_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(datasets(), Unknown.slug, Unknown)
    task, _, _ = prepared(dataset="unknown-truth", noise="none")
    with pytest.raises(NeedError, match="needs trusted, which this data set does not have"):
        _ = task.trusted


class Verified(Unknown):
    """Of 20 samples, whose truth is unknown, the last eight were looked at by hand."""

    slug = "verified-by-hand"

    def load(self, root: Any) -> Loaded:
        return dataclasses.replace(super().load(root), trusted=np.arange(12, 20))


def test_what_the_data_set_names_as_verified_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(datasets(), Verified.slug, Verified)
    task, _, record = prepared(6, dataset=Verified.slug, noise="none", protocol={"val_fraction": 0.0})
    assert set(task.trusted.tolist()) < set(range(12, 20)) and record["data"]["trusted"] == 6
    assert task.labels[task.trusted].bincount().tolist() == [3, 3]
    everything = prepared(1000, dataset=Verified.slug, noise="none", protocol={"val_fraction": 0.0})[0]
    assert everything.trusted.tolist() == list(range(12, 20))
    held = prepared(1000, dataset=Verified.slug, noise="none", protocol={"val_fraction": 0.5})[0]
    shown = {image.numpy().tobytes() for image in plain_images(held)[held.trusted]}
    assert len(held.trusted) < 8 and shown < {image.numpy().tobytes() for image in plain_images(everything)[12:]}
    noisy = prepared(1000, dataset=Verified.slug, noise="symmetric@0.5", protocol={"val_fraction": 0.0})[0]
    labels = everything.labels
    assert noisy.trusted.tolist() == [i for i in range(12, 20) if noisy.labels[i] == labels[i]]  # no longer right: not trusted


def test_the_footnote_says_how_many() -> None:
    from bench.report.aggregate import Block, MethodInfo, Outcome, TableData

    def outcome(method: str, count: int | None) -> Outcome:
        data = {} if count is None else {"trusted": count}
        return Outcome({"method": method}, "done", None, {"data": data})

    infos = {name: MethodInfo(name, ("trusted",), 1) for name in ("a", "b", "c")}
    infos["d"] = MethodInfo("d", (), 1)
    found = {("x", "1"): (outcome("a", 1000), outcome("a", 1000)), ("x", "2"): (outcome("b", 950), outcome("b", 1000))}
    block = Block("x", ("x",), ("1", "2"), {}, found, {})
    marks, notes = method_notes(TableData("s", "t", infos, (block,)), infos)
    text = NEEDS["trusted"]
    assert [note for _, note in notes] == [
        f"{text}: 1000 (privileged information)", f"{text}: 950 to 1000 (privileged information)",
        f"{text} (privileged information)",
    ]  # fmt: skip
    assert marks == {"a": ["a"], "b": ["b"], "c": ["c"]} and need_note("trusted") == notes[2][1]
