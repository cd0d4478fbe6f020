"""odd against the checks of its card."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from small import equal, make_task, pixels, snapshot, start
from torch import Tensor, nn

from methods.erm import ERM
from methods.odd import ODD, uniform_label_losses


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer(weight: Tensor, bias: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.load_state_dict({"weight": weight, "bias": bias})
    return made


def begun(count: int = 60, labels: Tensor | None = None, **fields: Any) -> Any:
    """ODD on random images in batches of 16, removing after the second epoch unless told otherwise."""
    training, subset = {"epochs": 8, "batch_size": 16, "lr": 0.05, **fields.pop("training", {})}, fields.pop("subset", None)
    labels = torch.randint(3, (count,), generator=seeded(1)) if labels is None else labels
    method = ODD(**{"removal_epoch": 2, "min_spread": 0.0, "draws": 2000, **fields})
    return start(method, make_task(labels, images=pixels(len(labels)), training=training, subset=subset))


def train(method: Any, *epochs: int) -> None:
    for epoch in epochs:
        method.task.start_epoch(epoch)
        method.epoch(epoch)


# -- the simulation


def test_a_layer_of_zeros_simulates_ln_c() -> None:
    losses = uniform_label_losses(layer(torch.zeros(10, 4), torch.zeros(10)), 500, None, seeded())
    assert losses.shape == (500,)
    torch.testing.assert_close(losses, torch.full((500,), math.log(10)))
    assert [float(torch.quantile(losses, p)) for p in (0.01, 0.5, 0.99)] == pytest.approx([math.log(10)] * 3)


def test_a_bias_alone_gives_two_losses() -> None:
    """b = (2, 0, 0, 0): ln(e^2 + 3) - 2 with probability 1/4, ln(e^2 + 3) otherwise."""
    bias = torch.tensor([2.0, 0.0, 0.0, 0.0])
    losses = uniform_label_losses(layer(torch.zeros(4, 5), bias), 40_000, None, seeded())
    total = math.log(math.exp(2) + 3)
    small = (losses - (total - 2)).abs() < 1e-5
    assert bool((small | ((losses - total).abs() < 1e-5)).all())
    assert float(small.float().mean()) == pytest.approx(0.25, abs=0.01)


def test_simulated_features_are_rectified_normal() -> None:
    """E[h] = 0.398942 and E[h^2] = 0.5 for each unit."""
    seen: list[Tensor] = []

    class Watched(nn.Linear):
        def forward(self, features: Tensor) -> Tensor:
            seen.append(features)
            return super().forward(features)

    uniform_label_losses(Watched(4, 3), 250_000, None, seeded())
    features = torch.cat(seen)
    assert features.shape == (250_000, 4) and float(features.min()) == 0.0
    assert float(features.mean()) == pytest.approx(0.398942, abs=2e-3)
    assert float(features.square().mean()) == pytest.approx(0.5, abs=2e-3)
    assert max(len(part) for part in seen) == 8192


def test_the_simulation_of_a_real_layer_is_cross_entropy() -> None:
    """Two classes: the loss of label k is softplus of the difference of the other logit and its own."""
    weight, bias = torch.tensor([[1.0, -2.0], [0.5, 1.0]]), torch.tensor([0.3, -0.1])
    found = uniform_label_losses(layer(weight, bias), 1000, None, seeded(3))
    again = seeded(3)
    labels = torch.randint(2, (1000,), generator=again)
    hidden = torch.randn(1000, 2, generator=again).clamp_min(0)
    logits = hidden @ weight.T + bias
    margin = logits[torch.arange(1000), 1 - labels] - logits[torch.arange(1000), labels]
    torch.testing.assert_close(found, F.softplus(margin))
    assert not found.requires_grad


def test_own_features_in_the_place_of_simulated_ones() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    head = layer(torch.eye(2), torch.zeros(2))
    losses = uniform_label_losses(head, 4000, features, seeded())
    possible = torch.tensor([F.softplus(torch.tensor(x)).item() for x in (-1.0, 1.0, -2.0, 2.0)])
    nearest = (losses[:, None] - possible).abs().argmin(dim=1)
    assert bool((losses - possible[nearest]).abs().max() < 1e-6)
    assert nearest.bincount(minlength=4).tolist() == pytest.approx([1000] * 4, abs=150)


def test_the_simulation_does_not_know_the_labels() -> None:
    a, b = begun(labels=torch.zeros(60, dtype=torch.int64)), begun(labels=torch.arange(60) % 3)
    first = a.simulate()
    assert torch.equal(first, b.simulate()) and not torch.equal(first, a.simulate())
    a.task.start_epoch(0)
    assert torch.equal(first, a.simulate())


@given(st.lists(st.floats(0, 100), min_size=2, max_size=2, unique=True))
def test_a_larger_percentile_removes_no_more(pair: list[float]) -> None:
    method = begun()
    train(method, 0, 1)
    method.kept = None
    simulated, kept = torch.rand(500, generator=seeded(2)) * 3, []
    for percentile in sorted(pair):
        method.kept, method.percentile = None, percentile
        method.remove(simulated)
        kept.append(set() if method.kept is None else set(method.kept.tolist()))
    assert kept[0] <= kept[1]


# -- removal


def test_exactly_what_lies_above_the_limit_goes_and_stays_away() -> None:
    method = begun(percentile=40.0)
    train(method, 0)
    assert method.kept is None
    train(method, 1)
    limit = method.task.epoch_log()["limit"]
    scores = method.losses.mean(dim=0)
    assert method.kept.tolist() == torch.nonzero(scores <= limit)[:, 0].tolist()
    assert 0 < len(method.kept) < 60
    assert method.task.epoch_log()["removed"] == pytest.approx(1 - len(method.kept) / 60)
    before = method.losses.clone()
    seen: list[Tensor] = []
    batches = method.task.batches
    method.task.batches = lambda *a, **k: (seen.append(batch.index) or batch for batch in batches(*a, **k))
    kept = method.kept.clone()
    for epoch in (2, 3):
        seen.clear()
        train(method, epoch)
        assert sorted(torch.cat(seen).tolist()) == kept.tolist() == method.kept.tolist()
        assert len(seen) == math.ceil(len(kept) / 16)
    assert torch.equal(before, method.losses)  # the scores are those of the removal
    torch.testing.assert_close(method.clean_scores(), -scores)


def test_until_the_removal_it_is_plain_training_and_then_plain_training_on_the_rest() -> None:
    method = begun(percentile=40.0)
    task = make_task(method.task.labels, images=pixels(60), training={"epochs": 8, "batch_size": 16, "lr": 0.05})
    plain = start(ERM(), task)
    train(method, 0, 1)
    train(plain, 0, 1)
    assert equal(snapshot(method.net), snapshot(plain.net))
    torch.testing.assert_close(method.losses[1], plain.last_losses)
    train(method, 2)
    task.start_epoch(2)
    for batch in task.batches(indices=method.kept):
        plain.step(batch, 2)
    assert equal(snapshot(method.net), snapshot(plain.net))


def test_losses_are_averaged_over_the_last_epochs() -> None:
    method = begun(removal_epoch=4, averaged=3, percentile=60.0)
    rows = []
    for epoch in range(4):
        train(method, epoch)
        rows.append(method.losses[epoch % 3].clone())
        known = torch.stack(rows[-3:]).mean(dim=0)
        torch.testing.assert_close(method.averages(), known)
        torch.testing.assert_close(method.clean_scores(), -known)
    assert not torch.equal(rows[0], rows[1]) and method.kept is not None


def test_when_it_removes() -> None:
    assert begun(removal_epoch=None)._removal == 3 and begun(removal_epoch=5)._removal == 5  # three eighths of 8
    assert begun(removal_epoch=None, training={"epochs": 1})._removal == 1


def test_it_waits_for_a_simulation_that_says_something() -> None:
    method = begun(min_spread=1e6)
    train(method, 0, 1, 2)
    assert method.kept is None and method.task.epoch_log()["simulated_spread"] < 1e6
    method.min_spread = 0.0
    train(method, 3)
    assert method.kept is not None


def test_it_waits_where_nothing_would_be_left() -> None:
    method = begun()
    train(method, 0, 1)
    method.kept = None
    method.remove(torch.zeros(100))  # every loss is above 0
    assert method.kept is None
    method.losses[:, 7] = float("nan")  # not seen, which is no reason to stay: its loss is above 0 as well
    method.remove(torch.zeros(100))
    assert method.kept is None and bool(method.losses[:, 7].isnan().all())


def subsets(size: int, count: int = 60) -> Any:
    """Of each epoch another random subset, as a data set may draw it."""
    return lambda seed: torch.randperm(count, generator=seeded(seed % 2**31))[:size]


def test_who_was_not_seen_is_judged_by_a_pass_over_all() -> None:
    """Each epoch sees 20 of 60: at the removal the 2 epochs before have seen 40 at most. Kept are the scores up to the limit."""
    method = begun(percentile=40.0, removal_epoch=4, subset=subsets(20))
    drawn = []
    for epoch in range(4):
        train(method, epoch)
        drawn.append(set(method.task.epoch_samples().tolist()))
        known = set(torch.nonzero(method.losses[epoch % 2].isfinite())[:, 0].tolist()) if method.kept is None else drawn[-1]
        assert known == drawn[-1]  # a ring of whole epochs: nothing older than two is in it
    seen = drawn[2] | drawn[3]
    assert len(seen) <= 40 < 60
    found, limit = method.task.full_pass(method.net).losses, method.task.epoch_log()["limit"]
    scores = method.averages()
    unseen = sorted(set(range(60)) - seen)
    torch.testing.assert_close(scores[unseen], found[unseen])
    assert method.kept.tolist() == torch.nonzero(scores <= limit)[:, 0].tolist()
    assert 0 < len(method.kept) < 60 and not set(unseen) <= set(method.kept.tolist())
    torch.testing.assert_close(method.clean_scores(), -scores)


def test_after_the_removal_an_epoch_is_what_is_left_of_its_subset() -> None:
    method = begun(percentile=40.0, subset=subsets(20))
    train(method, 0, 1)
    kept = set(method.kept.tolist())
    asked: list[Tensor] = []
    batches = method.task.batches
    method.task.batches = lambda *a, **k: (asked.append(batch.index) or batch for batch in batches(*a, **k))
    for epoch in (2, 3):
        asked.clear()
        train(method, epoch)
        drawn = set(method.task.epoch_samples().tolist())
        assert sorted(torch.cat(asked).tolist()) == sorted(drawn & kept) and 0 < len(drawn & kept) < 20
        assert len(asked) == math.ceil(len(drawn & kept) / 16)
    method.kept = torch.tensor(sorted(set(range(60)) - drawn))  # nothing of it is left: the epoch moves nothing
    before = snapshot(method.net)
    train(method, 3)
    assert equal(before, snapshot(method.net))


def test_what_the_features_are_like_is_logged() -> None:
    method = begun()
    train(method, 0, 1)
    features, log = method.task.features(method.net), method.task.epoch_log()
    assert log["feature_mean"] == pytest.approx(float(features.mean()), rel=1e-5)
    assert log["feature_variance"] == pytest.approx(float(features.var(dim=0, correction=0).mean()), rel=1e-5)


def test_uniform_labels_are_told_from_right_ones() -> None:
    """40 % uniform labels on images that can be told apart: the losses rank them, and few right labels go."""
    generator = seeded(5)
    prototypes = torch.randint(0, 256, (4, 1, 6, 6), generator=generator)
    truth = torch.arange(400) % 4
    images = (0.7 * prototypes[truth] + 0.3 * torch.randint(0, 256, (400, 1, 6, 6), generator=generator)).to(torch.uint8)
    uniform = torch.rand(400, generator=generator) < 0.4
    labels = torch.where(uniform, torch.randint(4, (400,), generator=generator), truth)
    training = {"epochs": 20, "batch_size": 32, "lr": 0.1, "augment": "none"}
    task = make_task(labels, images=images, num_classes=4, training=training, model={"name": "tiny-cnn", "widths": [8, 16]})
    method = start(ODD(removal_epoch=4, percentile=10.0), task)
    train(method, *range(4))
    wrong, scores = labels != truth, method.averages()
    above = (scores[wrong][:, None] > scores[~wrong][None, :]).float().mean()
    assert float(above) > 0.9
    removed = torch.ones(400, dtype=torch.bool)
    removed[method.kept] = False
    assert float(wrong[removed].float().mean()) > 0.9 and float(removed[wrong].float().mean()) > 0.5


# -- mixup


def test_mixed_losses_do_not_count() -> None:
    """With mixup from the start the losses come from unmixed images in evaluation mode, in the epochs that are averaged."""
    method = begun(mixup=1.0, removal_epoch=4, averaged=2, percentile=60.0, training={"augment": "none"})
    train(method, 0, 1)
    assert not method.recorded and method.clean_scores() is None
    assert method.net.forward_images == 2 * 60
    watched: list[tuple[Tensor, Tensor]] = []
    infer = method.net.infer
    method.net.infer = lambda images: watched.append((images, infer(images))) or watched[-1][1]
    before = snapshot(method.net)
    train(method, 2)
    assert method.net.forward_images == 2 * 60 + 2 * 60 and sum(len(images) for images, _ in watched) == 60
    assert not equal(before, snapshot(method.net))
    plain = torch.cat(list(method.task.plain_images()))
    shown, logits = (torch.cat(parts) for parts in zip(*watched, strict=True))
    index = (plain.flatten(1)[None] == shown.flatten(1)[:, None]).all(dim=2).int().argmax(dim=1)
    expected = F.cross_entropy(logits, method.task.labels[index], reduction="none")
    torch.testing.assert_close(method.losses[0][index], expected)
    train(method, 3)
    assert method.kept is not None and bool(method.clean_scores().isfinite().all())


def test_mixup_from_the_removal_on_leaves_the_first_phase_alone() -> None:
    late, plain = begun(mixup=1.0, mixup_from="removal"), begun()
    for method in (late, plain):
        train(method, 0, 1)
    assert equal(snapshot(late.net), snapshot(plain.net)) and torch.equal(late.kept, plain.kept)
    for method in (late, plain):
        train(method, 2)
    assert not equal(snapshot(late.net), snapshot(plain.net))
    assert late.net.forward_images == plain.net.forward_images


# -- cost and what can be watched


def test_the_cost_is_that_of_plain_training() -> None:
    """3 FE a sample; the removal looks at all features once."""
    method = begun()
    train(method, 0)
    assert (method.net.forward_images, method.net.backward_images) == (60, 60)
    train(method, 1)
    assert (method.net.forward_images, method.net.backward_images) == (60 + 60 + 60, 120)
    train(method, 2)
    kept = len(method.kept)
    assert (method.net.forward_images, method.net.backward_images) == (180 + kept, 120 + kept)


def test_losses_can_be_watched_until_the_removal() -> None:
    method = begun()
    shown: dict[str, Any] = {}
    method.task.observe = lambda name, **kinds: shown.update({what: call() for what, call in kinds.items()})
    train(method, 0)
    assert torch.equal(shown["values"], method.averages()) and shown["simulated"].shape == (2000,)
    assert torch.equal(shown["threshold"], torch.quantile(shown["simulated"], 0.1))
    train(method, 1)
    removed = method.averages() > shown["threshold"]
    assert torch.equal(torch.nonzero(~removed)[:, 0], method.kept) and 0 < int(removed.sum()) < 60
    shown.clear()
    train(method, 2)
    assert not shown
