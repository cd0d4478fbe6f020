"""llc-dro against the checks of its card, with tables of logits in the place of networks (see `small.Table`)."""

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
    plain_images,
    real,
    rows_with_gradient,
    snapshot,
    start,
    table,
    table_task,
)
from torch import Tensor

import methods.llc_dro
from bench.ops import augment
from bench.training import Training
from methods.llc_dro import LLCDRO

ZERO = torch.zeros(1, dtype=torch.int64)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


@pytest.fixture
def strong_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The strong view of image i is image i + 8: tables have separate rows for it."""
    monkeypatch.setattr(augment, "strong", lambda images, **settings: images + 8)


def refurbished(
    a: Table, b: Table, w: dict[str, Tensor], labels: Tensor = LABELS, size: int = 8, **params: Any
) -> LLCDRO:
    """One round with the confidences as given."""
    task = table_task(labels, {"a": a, "b": b}, num_classes=a.rows.shape[1], training={"batch_size": size})
    method = start(LLCDRO(**{"warmup": 1, **params}), task, 1)
    method.label_confidence = lambda net: w["a" if net is a else "b"]
    method.epoch(1)
    return method


def test_b_is_trained_with_the_confidence_of_a_and_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    method = start(LLCDRO(warmup=1, passes=2), table_task(LABELS, {"a": table(8), "b": table(8)}))
    name = {id(method.a): "a", id(method.b): "b"}
    w = {"a": torch.full((8,), 0.25), "b": torch.full((8,), 0.75)}
    monkeypatch.setattr(method, "label_confidence", lambda net: events.append(name[id(net)]) or w[name[id(net)]])
    monkeypatch.setattr(
        method, "train", lambda net, peer, c: events.append((name[id(net)], name[id(peer)], float(c[0])))
    )
    method.epoch(1)
    assert events == ["a", "b", *[("b", "a", 0.25)] * 2, *[("a", "b", 0.75)] * 2]
    assert method.clean_scores().tolist() == [0.5] * 8


@pytest.mark.usefixtures("strong_rows")
def test_perturbing_the_confidence_of_b_leaves_its_own_step_unchanged() -> None:
    runs = []
    for level in (0.3, 0.9):
        a, b = table(16, seed=1, lr=1.0), table(16, seed=2, lr=1.0)
        refurbished(a, b, {"a": torch.full((8,), 0.5), "b": torch.full((8,), level)}, size=4)
        runs.append((a, b))
    (a1, b1), (a2, b2) = runs
    assert [loss for loss, _ in b1.steps] == [loss for loss, _ in b2.steps] and torch.equal(b1.rows, b2.rows)
    assert [loss for loss, _ in a1.steps] != [loss for loss, _ in a2.steps] and not torch.equal(a1.rows, a2.rows)


@pytest.mark.usefixtures("strong_rows")
def test_a_round_by_hand() -> None:
    """b learns first from both networks' guesses on the weak view; a then sees the b that has learnt."""
    a, b = table(16, seed=1, lr=2.0), table(16, seed=2, lr=2.0)
    w = {"a": torch.linspace(0, 1, 8), "b": torch.linspace(1, 0, 8)}
    refurbished(a, b, w, tau=0.5)
    rows = {"a": table(16, seed=1).rows, "b": table(16, seed=2).rows}
    given = F.one_hot(LABELS, 3)
    for net, peer, confidence, done in (("b", "a", w["a"], b), ("a", "b", w["b"], a)):
        guess = (rows[net][:8].softmax(dim=1) + rows[peer][:8].softmax(dim=1)) / 2
        target = (confidence[:, None] * given + (1 - confidence[:, None]) * guess).detach()
        losses = -(target * rows[net][8:].log_softmax(dim=1)).sum(dim=1)
        loss = losses.sort().values[4:].mean()  # the largest int(0.5 x 8)
        assert done.steps[0][0] == pytest.approx(float(loss.detach()), rel=1e-5)
        (gradient,) = torch.autograd.grad(loss, rows[net])
        torch.testing.assert_close(done.steps[0][1], gradient, rtol=1e-4, atol=1e-6)
        assert rows_with_gradient(gradient) == sorted((8 + losses.argsort()[4:]).tolist())  # strong views only
        rows[net] = (rows[net] - 2.0 * gradient).detach().requires_grad_()


def test_the_target_of_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """label 0, w = 0.25, p_f = (0.2, 0.8), p_g = (0.4, 0.6): y* = (0.475, 0.525)."""
    seen = []

    def record(logits: Tensor, target: Tensor) -> Tensor:
        seen.append(target)
        return logits.sum(dim=1)

    monkeypatch.setattr(methods.llc_dro, "soft_cross_entropy", record)
    f, g = Table(torch.tensor([[0.2, 0.8]]).log()), Table(torch.tensor([[0.4, 0.6]]).log())
    quarter = torch.tensor([0.25])
    refurbished(f, g, {"a": quarter, "b": quarter}, labels=ZERO, train_view="weak")
    assert len(seen) == 2 and all(target[0].tolist() == pytest.approx([0.475, 0.525]) for target in seen)
    assert not any(target.requires_grad for target in seen)


def test_only_the_hardest_samples_are_trained() -> None:
    """losses 0.1, 0.9, 0.5, 0.3, 0.7 and tau = 0.7: the three largest, mean 0.7."""
    b = Table(logits_of([0.1, 0.9, 0.5, 0.3, 0.7]))
    sure = torch.ones(5)
    a = table(5, 2)
    refurbished(a, b, {"a": sure, "b": sure}, labels=ZERO.repeat(5), tau=0.7, train_view="weak")
    assert b.steps[0][0] == pytest.approx(0.7) and rows_with_gradient(b.steps[0][1]) == [1, 2, 4]


@pytest.mark.parametrize(("size", "kept"), [(128, 89), (59, 41), (1, 1)])
def test_the_number_trained_is_rounded_down(size: int, kept: int) -> None:
    a, b = table(size, seed=1), table(size, seed=2)
    w = torch.full((size,), 0.5)
    refurbished(a, b, {"a": w, "b": w}, labels=torch.arange(size) % 3, size=size, tau=0.7, train_view="weak")
    assert len(rows_with_gradient(b.steps[0][1])) == kept


@pytest.mark.usefixtures("strong_rows")
@pytest.mark.parametrize("params", [{"tau": 1.0}, {"dro": False, "tau": 0.5}])
def test_full_confidence_and_all_samples_is_cross_entropy_on_the_strong_view(params: dict[str, Any]) -> None:
    a, b = table(16, seed=1), table(16, seed=2)
    refurbished(a, b, {"a": torch.ones(8), "b": torch.ones(8)}, **params)
    for net, seed in ((a, 1), (b, 2)):
        rows = table(16, seed=seed).rows
        loss = F.cross_entropy(rows[8:], LABELS)
        assert net.steps[0][0] == pytest.approx(float(loss.detach()), rel=1e-6)
        torch.testing.assert_close(net.steps[0][1], torch.autograd.grad(loss, rows)[0])


@pytest.mark.usefixtures("strong_rows")
@pytest.mark.parametrize(("view", "trained"), [("strong", range(8, 16)), ("weak", range(8))])
def test_which_view_is_trained(view: str, trained: range) -> None:
    a, b = table(16, seed=1), table(16, seed=2)
    refurbished(a, b, {"a": torch.ones(8), "b": torch.ones(8)}, train_view=view)
    for net in (a, b):
        looks = {what: sorted(index) for what, index in net.calls}
        assert looks == {"guess": list(range(8)), "infer": list(range(8)), "forward": list(trained)}


def test_the_prior_is_added_with_its_weight() -> None:
    w = {"a": torch.ones(8), "b": torch.ones(8)}
    losses = []
    for weight in (0.0, 2.0):
        b = table(8, seed=2)
        refurbished(table(8, seed=1), b, w, train_view="weak", prior_weight=weight)
        losses.append(b.steps[0][0])
    mean = table(8, seed=2).rows.detach().softmax(dim=1).mean(dim=0)
    prior = float((1 / 3 * (1 / 3 / mean).log()).sum())
    assert losses[1] - losses[0] == pytest.approx(2 * prior, abs=1e-6) and prior > 0


def angles(*degrees: float) -> Tensor:
    radians = torch.deg2rad(torch.tensor(degrees))
    return 3 * torch.stack([radians.cos(), radians.sin()], dim=1)


@pytest.mark.parametrize(
    ("params", "consistency"),
    [
        ({"k": 2}, [1, 1, 0.5, 1]), ({"k": 3}, [2 / 3, 2 / 3, 1 / 3, 2 / 3]),
        ({"k": 2, "include_self": False}, [0.5, 0.5, 0, 0.5]),
    ],
)  # fmt: skip
def test_local_label_consistency_of_the_card(
    monkeypatch: pytest.MonkeyPatch, params: dict[str, Any], consistency: list[float]
) -> None:
    """Features at 0, 10, 25 and 90 degrees with labels 0, 0, 1, 1."""
    asked = fitted(monkeypatch, methods.llc_dro)
    net = Table(torch.zeros(4, 2), features=angles(0, 10, 25, 90))
    task = table_task(torch.tensor([0, 0, 1, 1]), {"a": net, "b": net}, num_classes=2)
    start(LLCDRO(**params, gmm_tol=0.5, gmm_reg_covar=0.25, gmm_max_iter=7), task, 1).label_confidence(net)
    ((values, settings),) = asked
    assert values.tolist() == pytest.approx(consistency)
    assert settings == {"smaller_is_clean": False, "max_iter": 7, "tol": 0.5, "reg_covar": 0.25}
    assert net.calls == [("features", [0, 1, 2, 3])]


def test_confidence_from_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fitted(monkeypatch, methods.llc_dro)
    net = Table(logits_of([0.1, 2.0, 0.2, 2.2, 0.15, 2.1]))
    task = table_task(ZERO.repeat(6), {"a": net, "b": net}, num_classes=2)
    posterior = start(LLCDRO(confidence="loss"), task, 1).label_confidence(net)
    assert (posterior > 0.5).tolist() == [True, False] * 3
    assert asked[0][0].min() == 0 and asked[0][0].max() == 1 and asked[0][1]["smaller_is_clean"] is True
    assert net.calls == [("infer", list(range(6)))]


def test_confidence_separates_wrong_labels_of_perfect_clusters() -> None:
    """Three tight clusters, a fifth of the labels wrong: every right label is trusted more than every wrong one."""
    true = torch.arange(60) % 3
    given = torch.where(torch.arange(60) % 5 == 0, (true + 1) % 3, true)
    noise = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    net = Table(torch.zeros(60, 3), features=F.one_hot(true, 3) + 0.05 * noise)
    posterior = start(LLCDRO(k=15), table_task(given, {"a": net, "b": net}), 1).label_confidence(net)
    assert posterior[given == true].min() > 0.5 > posterior[given != true].max()


def test_a_degenerate_mixture_trusts_every_label_and_is_logged() -> None:
    net = Table(torch.zeros(4, 2), features=angles(0, 1, 90, 91))
    task = table_task(torch.tensor([0, 0, 1, 1]), {"a": net, "b": net}, num_classes=2)
    method = start(LLCDRO(k=2), task, 1)
    assert method.label_confidence(net).tolist() == [1.0] * 4
    assert task.epoch_log() == {"degenerate_gmm": 1.0}
    net.table = angles(0, 10, 25, 90)
    assert method.label_confidence(net).tolist() != [1.0] * 4
    assert task.epoch_log() == {"degenerate_gmm": 0.5}  # of two fits


def test_llc_dro_warms_up_with_cross_entropy() -> None:
    a, b = table(8, seed=1), table(8, seed=2)
    task = table_task(LABELS, {"a": a, "b": b}, training={"batch_size": 4})
    method = start(LLCDRO(warmup=2), task, 1)
    method.epoch(1)
    for net, seed in ((a, 1), (b, 2)):
        losses = F.cross_entropy(table(8, seed=seed).rows.detach(), LABELS, reduction="none")
        assert [(what, len(index)) for what, index in net.calls] == [("forward", 4)] * 2
        assert [loss for loss, _ in net.steps] == pytest.approx([float(losses[index].mean()) for _, index in net.calls])
    assert method.clean_scores() is None


def test_warm_up_has_its_own_rate_batches_and_penalty() -> None:
    """Robust-LR: rate 0.02, and -H(p) added where asked for; later epochs follow the plan again."""
    a, b = table(8, seed=1), table(8, seed=2)
    task = table_task(LABELS, {"a": a, "b": b})
    method = start(LLCDRO(warmup=2, warmup_batch_size=3, confidence_penalty=True), task, 1)
    method.epoch(1)
    for net, seed in ((a, 1), (b, 2)):
        rows = table(8, seed=seed).rows.detach()
        losses = F.cross_entropy(rows, LABELS, reduction="none") + (rows.softmax(1) * rows.log_softmax(1)).sum(dim=1)
        assert [len(index) for _, index in net.calls] == [3, 3, 2]
        assert [loss for loss, _ in net.steps] == pytest.approx([float(losses[index].mean()) for _, index in net.calls])
    method = real(LLCDRO(warmup=1, warmup_lr=0.02, k=5), 16, 8, lr=0.5)
    rates: list[float] = []
    for net in (method.a, method.b):
        net.step = lambda loss, net=net, step=net.step: rates.append(net.lr) or step(loss)
    for epoch in (0, 1):
        method.task.start_epoch(epoch)
        method.epoch(epoch)
    assert rates == [0.02] * 4 + [0.5] * 4


def test_losses_are_averaged_over_the_history_of_each_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fitted(monkeypatch, methods.llc_dro)
    a, b = Table(logits_of([0.0, 1.0, 2.0])), Table(logits_of([2.0, 1.0, 0.0]))
    method = start(LLCDRO(confidence="loss", history=2), table_task(ZERO.repeat(3), {"a": a, "b": b}, num_classes=2), 1)
    for rows in ([0.0, 1.0, 2.0], [0.0, 2.0, 2.0], [0.0, 0.0, 1.0]):
        a.rows = logits_of(rows).requires_grad_()
        method.label_confidence(method.a)
    method.label_confidence(method.b)
    found = [values.tolist() for values, _ in asked]
    assert found == [pytest.approx(row, abs=1e-5) for row in ([0, 0.5, 1], [0, 0.75, 1], [0, 0.5, 1], [1, 0.5, 0])]
    assert (len(method.losses_a), len(method.losses_b)) == (2, 1)


def test_where_labels_are_given_none_is_doubted() -> None:
    a, b = table(8, seed=1), table(8, seed=2)
    method = start(LLCDRO(warmup=1, confidence="given", dro=False, train_view="weak"), table_task(LABELS, {"a": a, "b": b}), 1)
    method.epoch(1)
    for net, seed in ((a, 1), (b, 2)):
        assert not [what for what, _ in net.calls if what == "features"]
        assert net.steps[0][0] == pytest.approx(float(F.cross_entropy(table(8, seed=seed).rows.detach(), LABELS)), rel=1e-6)
    assert method.clean_scores() is None  # it estimates nothing


@pytest.mark.usefixtures("strong_rows")
def test_the_gradient_of_a_step_is_that_of_finite_differences() -> None:
    """Refurbished targets, hardest half and prior; through the strong view alone."""
    w = {"a": torch.full((8,), 0.5), "b": torch.linspace(0.1, 0.9, 8)}

    def step(rows: Tensor) -> tuple[float, Tensor]:
        a, b = table(16, seed=1), Table(torch.zeros(0, 3))
        b.rows = rows.clone().requires_grad_()
        refurbished(a, b, w, tau=0.5, prior_weight=2.0)
        return b.steps[0]

    rows = table(16, seed=2).rows.detach().double()
    _, gradient = step(rows)
    assert rows_with_gradient(gradient) == list(range(8, 16))  # the prior reaches all strong views
    for place in [(i, c) for i in range(8, 16) for c in range(3)]:
        change = torch.zeros_like(rows)
        change[place] = 1e-5
        slope = (step(rows + change)[0] - step(rows - change)[0]) / 2e-5
        assert slope == pytest.approx(float(gradient[place]), abs=1e-6)


def settings(name: str, **cell: Any) -> dict[str, Any]:
    """What a recipe sets for a cell."""
    found: dict[str, Any] = {}
    for recipe in LLCDRO.recipes:
        if recipe.name == name and recipe.matches(cell):
            found |= recipe.set
    return found


@pytest.mark.parametrize(
    ("dataset", "rate", "expected"),
    [
        ("waterbirds", 0.25, (50, 0.7, 5e-4, 105, 128, 5e-4)), ("waterbirds", 0.4, (50, 0.8, 5e-4, 105, 128, 5e-4)),
        ("celeba", 0.2, (25, 0.7, 1e-3, 105, 128, 5e-4)), ("celeba", 0.3, (25, 0.8, 1e-3, 105, 128, 5e-4)),
        ("cifar10", 0.5, (1000, 1.0, 5e-4, 515, 448, 0.03)), ("cifar100", 0.5, (400, 1.0, 5e-4, 515, 448, 0.03)),
        ("webvision50", None, (10, 1.0, 1e-3, 301, 160, 0.01)), ("animal10n", None, (5000, 0.9, 5e-4, 515, 128, 0.01)),
    ],
)
def test_the_supplements_settings(dataset: str, rate: float | None, expected: tuple[Any, ...]) -> None:
    found = settings("paper", dataset=dataset, rate=rate)
    names = ("k", "tau", "gmm_reg_covar", "training.epochs", "training.batch_size", "training.lr")
    assert tuple(found[name] for name in names) == expected
    LLCDRO(**{name: value for name, value in found.items() if "." not in name})


def test_how_long_the_mixtures_of_the_recipes_are_fitted() -> None:
    """Ten iterations where the supplement or the code says so; for WebVision it names scikit-learn's default."""
    from sklearn.mixture import GaussianMixture

    default = GaussianMixture().max_iter
    found = {name: settings("paper", dataset=name) for name in ("waterbirds", "celeba", "cifar10", "animal10n", "webvision50")}
    fitted = {name: LLCDRO(**{k: v for k, v in values.items() if "." not in k}).gmm_max_iter for name, values in found.items()}
    assert fitted == {"waterbirds": 10, "celeba": 10, "cifar10": 10, "animal10n": 10, "webvision50": default} and default == 100
    for recipe in LLCDRO.recipes:
        if recipe.when.get("dataset") in ("webvision50", "animal10n"):
            assert "scikit-learn" in recipe.source and "100" in recipe.source


@pytest.mark.parametrize(
    ("dataset", "rounds", "small"),
    [("waterbirds", 100, 19), ("cifar10", 500, 99), ("webvision50", 300, 99), ("animal10n", 500, 99)],
)
def test_the_rate_falls_for_the_last_rounds(dataset: str, rounds: int, small: int) -> None:
    """Of 100 rounds 0 to 80 have the whole rate and 81 to 99 a tenth of it, as the released code counts them."""
    found = settings("paper", dataset=dataset)
    plan = Training(**{name.removeprefix("training."): value for name, value in found.items() if name.startswith("training.")})
    rates = [plan.lr_at(epoch) / plan.lr for epoch in range(found["warmup"], plan.epochs)]
    assert rates == pytest.approx([1.0] * (rounds - small) + [0.1] * small)


def test_rows_of_the_tables_differ_from_the_paper_by_their_switches() -> None:
    rows = {
        "erm": {"confidence": "given", "dro": False}, "dividemix-improved": {"confidence": "loss", "dro": False},
        "dro-only": {"confidence": "loss"}, "llc-only": {"dro": False},
        "crop-flip": {"train_view": "weak"}, "cutout": {"train_view": "cutout"},
    }  # fmt: skip
    for cell in ({"dataset": "waterbirds", "rate": 0.25}, {"dataset": "waterbirds", "rate": 0.4}, {"dataset": "celeba"}):
        for name, switches in rows.items():
            assert settings(name, **cell) == {**settings("paper", **cell), **switches}


def test_the_trained_network_guesses_in_training_mode_and_its_peer_does_not() -> None:
    method = real(LLCDRO(), 16, 8, lr=1e-30)
    before = snapshot(method.a), snapshot(method.b)
    method.train(method.a, method.b, torch.ones(16))
    after = snapshot(method.a), snapshot(method.b)
    assert equal(after[1], before[1])  # the peer is only looked at
    assert not torch.equal(after[0]["body.1.running_mean"], before[0]["body.1.running_mean"])
    assert after[0]["body.1.num_batches_tracked"] == 4  # a guess and a training pass for each of two batches


def test_cost_of_a_round_of_llc_dro() -> None:
    """Per image and network: features, own guess and training pass, and a guess for the peer."""
    method = real(LLCDRO(warmup=1, k=5), 30, 8)
    method.epoch(1)
    for net in (method.a, method.b):
        assert net.forward_images == 4 * 30 and net.backward_images == 30


@pytest.mark.parametrize(("epoch", "passes", "cost"), [(0, 1, 6), (1, 1, 2 + 10), (1, 3, 2 + 30)])
def test_cost_as_declared(epoch: int, passes: int, cost: int) -> None:
    method = real(LLCDRO(warmup=1, k=5, passes=passes), 30, 8)
    method.epoch(epoch)
    assert sum(net.forward_images + 2 * net.backward_images for net in (method.a, method.b)) == cost * 30
    assert LLCDRO.cost == "6 FE while warming up, then 2 FE, and 10 more for each of the passes (2 networks)"


@pytest.mark.parametrize(
    ("ensemble", "first"),
    [("probabilities", (1 / (1 + math.e**-2) + 1 / (1 + math.e**5)) / 2), ("logits", 1 / (1 + math.e**3))],
)
def test_llc_dro_predicts_with_both_networks(ensemble: str, first: float) -> None:
    a, b = Table(torch.tensor([[2.0, 0.0]])), Table(torch.tensor([[0.0, 5.0]]))
    method = start(LLCDRO(ensemble=ensemble), table_task(ZERO, {"a": a, "b": b}, num_classes=2))
    assert method.predict(plain_images(method.task))[0].tolist() == pytest.approx([first, 1 - first])
