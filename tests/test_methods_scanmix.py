"""scan, scan+dividemix and scanmix against the checks of their cards."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small import equal, make_task, pixels, plain_images, snapshot, start
from torch import Tensor

import methods.dividemix
from bench.fields import FieldError
from bench.method import Method
from bench.ops.pretraining import network_weights
from bench.stages import StageStore
from methods.dividemix import DivideMix
from methods.scan import SCAN, confident_loss
from methods.scan_dividemix import ScanDivideMix
from methods.scanmix import ScanMix

SHORT: dict[str, Any] = {"pretext_epochs": 1, "pretext_batch_size": 32, "k": 4}
MIX: dict[str, Any] = {**SHORT, "scan_epochs": 1, "scan_batch_size": 32, "warmup": 1}
COUNT, BATCH = 48, 8
ROOT = Path(__file__).resolve().parent.parent


def begun(cls: type[Method], **fields: Any) -> Any:
    """The method on 48 random images of 3 classes in batches of 8, set up, in epoch 0."""
    training = {"epochs": 4, "batch_size": BATCH, "lr": 0.02, **fields.pop("training", {})}
    labels = fields.pop("labels", torch.randint(3, (COUNT,), generator=torch.Generator().manual_seed(2)))
    task = make_task(labels, images=pixels(len(labels)), training=training, store=fields.pop("store", None))
    base = SHORT if cls is SCAN else MIX if cls is ScanDivideMix else {**MIX, "cluster_batch_size": 16}
    return start(cls(**{**base, **fields}), task)


def train(method: Any, *epochs: int) -> None:
    for epoch in epochs:
        method.task.start_epoch(epoch)
        method.epoch(epoch)


def divided(method: Any, a: Tensor, b: Tensor) -> None:
    """Let the division after warm-up find these confidences, whatever the losses."""
    divide, confidences = method.divide, {id(method.a): a, id(method.b): b}
    method.divide = lambda net, history: (confidences[id(net)], divide(net, history)[1])


def share(clean: int) -> Tensor:
    """Confidences of which the first `clean` are certain."""
    return (torch.arange(COUNT) < clean).float()


def views_of(method: Any) -> list[tuple[str, ...]]:
    """What views the method asks for, loop by loop."""
    asked: list[tuple[str, ...]] = []
    batches = method.task.batches
    method.task.batches = lambda views=("weak",), **how: asked.append(views) or batches(views, **how)
    return asked


def passes(method: Any) -> tuple[int, int]:
    nets = method.learners()
    return sum(net.forward_images for net in nets), sum(net.backward_images for net in nets)


# -- where the networks begin


def test_both_networks_and_both_heads_begin_as_the_clustering_ended() -> None:
    method = begun(ScanMix)
    images = plain_images(method.task)
    a, b = method.a.infer(images), method.b.infer(images)
    assert torch.equal(a, b)
    torch.testing.assert_close(method.a.extra["clusters"](method.a.features(images)), a)
    plain = begun(ScanDivideMix)
    assert equal(snapshot(plain.a), snapshot(method.a)) and equal(snapshot(plain.b), snapshot(method.a))


def test_without_one_checkpoint_each_network_has_its_own_clustering() -> None:
    one, two = begun(ScanMix), begun(ScanMix, one_checkpoint=False)
    assert equal(snapshot(two.a), snapshot(one.a)) and not equal(snapshot(two.b), snapshot(one.b))
    assert [info.name for info in two.task.stages] == ["simclr", "scan", "scan"]
    assert [info.name for info in one.task.stages] == ["simclr", "scan"]


def test_the_rows_of_the_table_share_their_stages() -> None:
    store = StageStore(None)
    mix = begun(ScanMix, store=store)
    assert [info.built for info in mix.task.stages] == [True, True]
    assert [info.built for info in begun(ScanDivideMix, store=store).task.stages] == [False, False]
    assert [info.built for info in begun(SCAN, store=store).task.stages] == [False]
    other = begun(ScanMix, store=store, labels=torch.zeros(COUNT, dtype=torch.int64), training={"lr": 0.5})
    assert [info.built for info in other.task.stages] == [False, False]
    assert [info.built for info in begun(ScanMix, store=store, entropy_weight=2.0).task.stages] == [False, True]


# -- warm-up


@pytest.mark.parametrize("cls", [ScanDivideMix, ScanMix])
def test_warm_up_moves_the_head_and_batch_statistics_alone(cls: type[Method]) -> None:
    method = begun(cls, warmup=2)
    before, asked = snapshot(method.a), views_of(method)
    train(method, 0, 1)
    after = snapshot(method.a)
    for name, value in before.items():
        moves = name.startswith("head.") or "running" in name or "num_batches" in name
        assert torch.equal(value, after[name]) is not moves, name
    assert asked == [("scan",)] * 4 and method.noise is None and method.clean_scores() is None
    assert not equal(after, snapshot(method.b))  # other orders and views
    if cls is ScanMix:
        start = begun(cls).a.extra["clusters"].state_dict()
        assert equal(start, method.a.extra["clusters"].state_dict())


def test_warm_up_is_cross_entropy_on_features_that_stand_still() -> None:
    """One step by hand: the gradient of the mean cross-entropy, with the penalty on confidence or without."""
    for penalty in (False, True):
        method = begun(ScanDivideMix, confidence_penalty=penalty, training={"batch_size": COUNT // 2, "momentum": 0.0,
                                                                             "weight_decay": 0.0})  # fmt: skip
        twin = begun(ScanDivideMix, confidence_penalty=penalty, training={"batch_size": COUNT // 2})
        head = method.a.network.head
        before = head.weight.detach().clone()
        (batch,) = twin.task.batches(("scan",), batch_size=COUNT)
        with torch.no_grad():
            features = twin.a.with_features(batch.images)[1]
        weight = before.clone().requires_grad_()
        logits = F.linear(features, weight, head.bias.detach())
        loss = F.cross_entropy(logits, batch.labels)
        if penalty:
            probs = logits.softmax(dim=1)
            loss = loss + (probs * probs.log()).sum(dim=1).mean()
        (gradient,) = torch.autograd.grad(loss, weight)
        method.warm_up(method.a)
        torch.testing.assert_close(head.weight.detach(), before - 0.02 * gradient)


# -- the estimated noise and what it decides


@pytest.mark.parametrize(("clean", "view", "rate"), [(20, "weak", 1e-5), (19, "scan", 1e-3)])
def test_the_estimated_noise_decides_views_and_rate(clean: int, view: str, rate: float) -> None:
    """Switch at 7/12 = 28 of 48 noisy ones: up to it weak views and the small rate, above it strong ones and the large."""
    method = begun(ScanMix, switch_rate=28 / 48 + 1e-6)
    train(method, 0)
    divided(method, share(clean), share(clean))
    asked, rates = views_of(method), []
    step = method.a.step
    method.a.step = lambda loss: rates.append(method.a.lr) or step(loss)
    train(method, 1)
    assert method.noise == pytest.approx(1 - clean / COUNT)
    assert set(asked) == {(view, view), (view,)}
    labelled = math.ceil(clean / BATCH)
    assert rates == [0.02] * labelled + [rate] * (COUNT // 16) and method.a.lr == 0.02  # SSL, clustering, and back
    assert method.task.epoch_log()["estimated_noise"] == pytest.approx(method.noise)


def test_the_noise_is_estimated_once_from_both_networks() -> None:
    method = begun(ScanDivideMix)
    train(method, 0)
    divided(method, share(40), share(16))
    train(method, 1)
    assert method.noise == pytest.approx((8 + 32) / (2 * COUNT))
    divided(method, share(8), share(8))
    train(method, 2)
    assert method.noise == pytest.approx((8 + 32) / (2 * COUNT))
    torch.testing.assert_close(method.clean_scores(), share(8))


@pytest.mark.parametrize(
    ("fields", "ssl", "clusters"),
    [({"view": "weak"}, "weak", "weak"), ({"view": "scan"}, "scan", "scan"),
     ({"view": "weak", "cluster_view": "scan"}, "weak", "scan")],
)  # fmt: skip
def test_views_that_do_not_switch(fields: dict[str, Any], ssl: str, clusters: str) -> None:
    method = begun(ScanMix, **fields)
    asked = views_of(method)
    train(method, 0)
    assert set(asked) == {(ssl,)}
    asked.clear()
    divided(method, share(24), share(24))
    train(method, 1)
    assert set(asked) == {(ssl, ssl), (clusters,)}


# -- semi-supervised learning


def test_each_network_learns_from_its_peers_division() -> None:
    method = begun(ScanDivideMix)
    train(method, 0)
    divided(method, share(16), share(32))
    seen: dict[str, list[int]] = {"a": [], "b": []}
    for name in seen:
        net = getattr(method, name)
        net.step = lambda loss, net=net, step=net.step, name=name: seen[name].append(1) or step(loss)
    train(method, 1)
    assert (len(seen["a"]), len(seen["b"])) == (32 // BATCH, 16 // BATCH)


def test_the_weight_of_unlabelled_images_rises_from_the_end_of_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """lambda_u 25, warm-up 10: 0 in epoch 10, 6.25 in 14, 12.5 in 18, 25 from 26 on."""
    asked: list[tuple[float, float, float]] = []
    original = methods.dividemix.linear_rampup

    def observed(current: float, begin: float, length: float) -> float:
        asked.append((current, begin, original(current, begin, length)))
        return asked[-1][2]

    monkeypatch.setattr(methods.dividemix, "linear_rampup", observed)
    method = begun(ScanDivideMix, warmup=10)
    method.train(method.a, method.b, share(24), 10)
    batches = 24 // BATCH + 1
    assert [now for now, _, _ in asked] == pytest.approx([10 + number / batches for number in range(3)])
    assert {begin for _, begin, _ in asked} == {10}
    weights = []
    for epoch in (10, 14, 18, 26, 40):
        asked.clear()
        method.train(method.a, method.b, share(BATCH), epoch)
        weights.append(25 * asked[0][2])
    assert weights == [0, 6.25, 12.5, 25, 25]


def test_labelled_images_alone_are_learnt_where_unlabelled_ones_only_mix() -> None:
    for mixed, rows in ((True, 4 * 24), (False, 2 * 24)):
        method = begun(ScanDivideMix, mix_unlabelled=mixed)
        method.train(method.a, method.b, share(24), 1)
        assert method.a.backward_images == rows
        assert method.a.forward_images == 4 * 24 + rows and method.b.forward_images == 2 * 24


@pytest.mark.parametrize("clean", [0, COUNT])
def test_a_part_that_is_empty(clean: int) -> None:
    """No clean sample: a warm-up epoch instead. No noisy one: labelled images alone."""
    method = begun(ScanMix)
    train(method, 0)
    divided(method, share(clean), share(clean))
    head = snapshot(method.a)
    train(method, 1)
    assert not equal(head, snapshot(method.a))
    assert bool(method.predict(plain_images(method.task)).isfinite().all())


def test_losses_are_averaged_over_the_history() -> None:
    method = begun(ScanDivideMix, history=3)
    train(method, 0, 1, 2, 3)
    assert len(method.losses_a) == len(method.losses_b) == 3
    assert all(float(losses.min()) == 0 and float(losses.max()) == 1 for losses in method.losses_a)


# -- clustering


def test_clusters_agree_with_what_the_peer_predicted_before_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    method = begun(ScanMix)
    train(method, 0)
    predicted = {id(method.a): torch.arange(COUNT) % 3, id(method.b): torch.arange(COUNT) % 2}
    method.divide = lambda net, history: (share(24), predicted[id(net)])
    asked: list[tuple[Tensor, Tensor]] = []
    original = methods.scanmix.neighbour_pairs

    def observed(task: Any, rows: Tensor, *, labels: Tensor, **how: Any) -> Any:
        asked.append((rows, labels))
        return original(task, rows, labels=labels, **how)

    monkeypatch.setattr(methods.scanmix, "neighbour_pairs", observed)
    trained: list[str] = []
    for name in ("a", "b"):
        net = getattr(method, name)
        net.with_features = lambda images, net=net, name=name, f=net.with_features: trained.append(name) or f(images)
    train(method, 1)
    (rows, first), (_, second) = asked
    assert torch.equal(first, predicted[id(method.b)]) and torch.equal(second, predicted[id(method.a)])
    assert trained == ["a"] * 6 + ["b"] * 6  # anchors and neighbours of three batches
    assert rows.shape == (COUNT, 5) and rows[:, 0].tolist() == list(range(COUNT))


def test_what_is_predicted_comes_from_the_classification_head() -> None:
    method = begun(ScanMix)
    train(method, 0)
    confidence, predicted = method.divide(method.a, [])
    assert torch.equal(predicted, method.task.logits(method.a).argmax(dim=1))
    assert confidence.shape == (COUNT,) and bool(((confidence >= 0) & (confidence <= 1)).all())


def test_clustering_moves_the_whole_network_and_its_own_head() -> None:
    method = begun(ScanMix, idle_heads_coast=False)
    train(method, 0)
    before, clusters = snapshot(method.a), {k: v.clone() for k, v in method.a.extra["clusters"].state_dict().items()}
    method.cluster(method.a, torch.zeros(COUNT, dtype=torch.int64), 0.9)
    after = snapshot(method.a)
    assert all(torch.equal(before[name], after[name]) is name.startswith("head.") for name in before)
    assert not equal(clusters, method.a.extra["clusters"].state_dict())


def test_an_idle_head_coasts_as_in_pytorch_before_2() -> None:
    """v <- 0.9 v + 5e-4 w and w <- w - lr v at every step that gives the head no gradient, once it has had one."""
    images = torch.zeros(4, 1, 6, 6)
    for coasts in (True, False):
        method = begun(ScanMix, idle_heads_coast=coasts)
        net = method.a
        head = net.extra["clusters"].weight
        method.update(net, net(images).mean())  # never trained: left alone
        begin = head.detach().clone()
        assert torch.equal(begin, begun(ScanMix).a.extra["clusters"].weight.detach())
        net.step(net.extra["clusters"](net.with_features(images)[1]).mean())
        method.clustered = True
        weight, speed = head.detach().clone(), net.optimizer.state[head]["momentum_buffer"].clone()
        for _ in range(3):
            method.update(net, net(images).mean())
            speed = 0.9 * speed + 5e-4 * weight
            weight = weight - 0.02 * speed
        assert not torch.equal(begin, head.detach())
        if coasts:
            torch.testing.assert_close(head.detach(), weight)
        else:
            assert torch.equal(head.detach(), begin - 0.02 * net.optimizer.state[head]["momentum_buffer"])


def test_scanmix_without_clustering_is_scan_and_dividemix() -> None:
    """A clustering pass with a rate that moves nothing but batch statistics leaves the first epoch's SSL as it is."""
    a, b = begun(ScanMix, cluster_lr=1e-30, cluster_lr_noisy=1e-30), begun(ScanDivideMix)
    for method in (a, b):
        train(method, 0, 1)
    weights = [name for name, _ in a.a.network.named_parameters()]
    assert all(torch.equal(snapshot(a.a)[name], snapshot(b.a)[name]) for name in weights)
    assert torch.equal(a.confidence, b.confidence) and a.noise == b.noise


# -- cost and prediction


def test_passes_are_those_of_the_stated_cost() -> None:
    """Warm-up 2 FE; then 2, 36 per clean image and, with clustering, 12; a backward pass counts 2."""
    for cls, clustering in ((ScanDivideMix, 0), (ScanMix, 12)):
        method = begun(cls)
        train(method, 0)
        assert passes(method) == (2 * COUNT, 0)
        divided(method, share(24), share(24))
        train(method, 1)
        forward, backward = passes(method)
        assert forward - 2 * COUNT + 2 * backward == 2 * COUNT + 36 * 24 + clustering * COUNT


def test_predictions_are_of_both_networks_classification_heads() -> None:
    method = begun(ScanMix)
    train(method, 0, 1)
    images = plain_images(method.task)
    torch.testing.assert_close(method.predict(images), (method.a.infer(images) + method.b.infer(images)).softmax(dim=1))


@pytest.mark.parametrize(
    ("cls", "name", "weight"), [(ScanMix, "paper", 5.0), (ScanMix, "text", 2.0), (ScanDivideMix, "text", 2.0)]
)
def test_settings_of_webvision(cls: type[Method], name: str, weight: float) -> None:
    found: dict[str, Any] = {}
    for recipe in cls.recipes:
        if recipe.name == name and recipe.matches({"dataset": "webvision50", "noise": "none"}):
            found |= recipe.set
    assert (found["entropy_weight"], found["pretext"], found["training.epochs"], found["warmup"]) == (weight, "moco", 100, 1)
    assert found.get("cluster_batch_size") == (64 if cls is ScanMix else None)
    assert ("switch_rate" in found) is (name == "paper")  # the released rate of clustering never switches there
    cls(**{key: value for key, value in found.items() if "." not in key})


def settings_of(cls: type[Method], name: str, **facts: Any) -> dict[str, Any]:
    """The fields that the recipes of one name give a cell, with the defaults of the class for the rest."""
    found: dict[str, Any] = {}
    for recipe in cls.recipes:
        if recipe.name == name and recipe.matches(facts):
            found |= recipe.set
    return vars(cls(**{key: value for key, value in found.items() if "." not in key}))


TABLE_1 = {
    ("cifar10", "symmetric", 0.2): 0, ("cifar10", "symmetric", 0.5): 25, ("cifar10", "symmetric", 0.8): 25,
    ("cifar10", "symmetric", 0.9): 50, ("cifar10", "asymmetric", 0.4): 0, ("cifar10", "asymmetric", 0.49): 0,
    ("cifar100", "symmetric", 0.2): 25, ("cifar100", "symmetric", 0.5): 150, ("cifar100", "symmetric", 0.8): 150,
    ("cifar100", "symmetric", 0.9): 150,
}  # fmt: skip


@pytest.mark.parametrize(("cell", "lambda_u"), TABLE_1.items(), ids=str)
def test_dividemix_weighs_unlabelled_images_as_the_text_of_scanmix_says(cell: tuple[str, str, float], lambda_u: float) -> None:
    """In every cell of Table 1: the paper of ScanMix takes lambda_u from DivideMix."""
    facts = dict(zip(("dataset", "noise", "rate"), cell, strict=True))
    ours, theirs = settings_of(DivideMix, "paper", **facts), settings_of(ScanMix, "text", **facts)
    assert ours["lambda_u"] == theirs["lambda_u"] == lambda_u
    assert (ours["threshold"], ours["history"]) == (theirs["threshold"], theirs["history"])
    assert ours["confidence_penalty"] == theirs["confidence_penalty"] == (cell[1] == "asymmetric")


def test_the_cells_of_table_1_are_those_of_its_suite() -> None:
    from bench import api

    plan = api.read_plan(ROOT / "suites" / "scanmix-table1.yaml", results=ROOT / "results")
    found = {(e.cell["dataset"]["name"], e.cell["noise"]["kind"], e.cell["noise"]["rate"]): e for e in plan.entries}
    assert set(found) == set(TABLE_1)
    mine = [e.cell["method"]["params"]["lambda_u"] for e in plan.entries if e.method == "dividemix" and "0.49" in e.noise]
    assert set(mine) == {0.0}


# -- scan


def test_scan_names_clusters_by_most_of_the_given_labels() -> None:
    """A shuffled perfect clustering, 30 % wrong labels: every class finds its cluster, and accuracy is 100 %."""
    method = begun(SCAN)
    truth = torch.arange(COUNT) % 3
    method.task.labels = torch.where(torch.arange(COUNT) % 10 < 3, (truth + 1) % 3, truth)
    shuffled = torch.tensor([2, 0, 1])
    logits = 9.0 * F.one_hot(shuffled[truth], 3).float()
    method.cluster = lambda: None
    method.task.logits = lambda net: logits
    train(method, 0)
    assert method.cluster_of.tolist() == shuffled.tolist()
    assert torch.equal(method.probs.argmax(dim=1), truth)
    scores = method.clean_scores()
    assert torch.equal(scores > 0.5, method.task.labels == truth)
    images = plain_images(method.task)
    torch.testing.assert_close(method.predict(images), method.net.infer(images).softmax(dim=1)[:, shuffled])


def test_scan_never_trains_on_labels() -> None:
    a, b = begun(SCAN), begun(SCAN, labels=torch.zeros(COUNT, dtype=torch.int64))
    for method in (a, b):
        train(method, 0, 1)
    assert equal(snapshot(a.net), snapshot(b.net))


def test_scan_ends_its_clustering_with_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([3.0, -1.0, 2.0, 1.0])
    monkeypatch.setattr(methods.scan, "scan_score", lambda logits, rows: torch.tensor(next(scores)))
    method, states = begun(SCAN), []
    for epoch in range(4):
        train(method, epoch)
        states.append(snapshot(method.net))
    assert equal(states[3], states[1]) and not equal(states[2], states[1])
    assert method.best_score == -1.0
    torch.testing.assert_close(method.probs, method.task.predictions(method.net)[:, method.cluster_of])


def test_scan_costs_seven_passes_and_five_while_labelling_itself() -> None:
    method = begun(SCAN, self_label_epochs=1, self_label_batch_size=16, self_label_threshold=0.0)
    train(method, 0)
    assert passes(method) == (3 * COUNT, 2 * COUNT)
    begin = passes(method)
    train(method, 3)
    forward, backward = passes(method)
    assert (forward - begin[0], backward - begin[1]) == (3 * COUNT, COUNT)


def test_self_labelling_begins_with_a_new_optimiser_and_needs_confidence() -> None:
    method = begun(SCAN, self_label_epochs=2, self_label_threshold=1.0)
    train(method, 0, 1)
    assert any("momentum_buffer" in state for state in method.net.optimizer.state.values())
    before = {name: p.detach().clone() for name, p in method.net.network.named_parameters()}
    train(method, 2)
    assert all(torch.equal(before[name], p.detach()) for name, p in method.net.network.named_parameters())
    method.self_label_threshold = 0.0
    train(method, 3)
    assert not all(torch.equal(before[name], p.detach()) for name, p in method.net.network.named_parameters())


@pytest.mark.parametrize(("size", "clustered", "labelled"), [(20, 40, 48), (16, 48, 48)])
def test_clustering_takes_whole_batches_and_self_labelling_all(size: int, clustered: int, labelled: int) -> None:
    """Of 48 images 40 are in two whole batches of 20, and the last 8 are labelled all the same; 16 divides 48."""
    fields = {"self_label_epochs": 1, "self_label_batch_size": size, "self_label_threshold": 0.0}
    method = begun(SCAN, training={"batch_size": size}, **fields)
    train(method, 0)
    assert method.net.backward_images == 2 * clustered  # an image and its neighbour
    before = method.net.backward_images
    train(method, 3)
    assert method.net.backward_images - before == labelled


def test_self_labelling_leaves_an_epoch_to_clustering() -> None:
    with pytest.raises(FieldError, match="self_label_epochs"):
        begun(SCAN, self_label_epochs=4)


def test_a_sample_counts_where_it_is_certain() -> None:
    """(.995, .005) and (.5, .5) with threshold .99: the loss is that of the first sample alone; at .995 none counts."""
    plain = torch.tensor([[0.995, 0.005], [0.5, 0.5]]).log()
    strong = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    loss, none = confident_loss(plain, strong, 0.99)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-1))) and not bool(none)
    loss, none = confident_loss(plain, strong, 0.9951)
    assert float(loss) == 0 and bool(none)


def test_classes_weigh_inversely_to_their_share() -> None:
    """Three certain samples of class 0 and one of class 1: weights 4/3 and 4, as a weighted mean."""
    plain = 20 * torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1], [0.02, 0]])  # the last one is not certain
    strong = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    each = F.cross_entropy(strong[:4], torch.tensor([0, 0, 0, 1]), reduction="none")
    expected = (4 / 3 * each[:3].sum() + 4 * each[3]) / (3 * 4 / 3 + 4)
    torch.testing.assert_close(confident_loss(plain, strong, 0.99)[0], expected)


def test_gradients_of_the_self_labelling_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    plain = 3 * torch.randn(6, 3, generator=generator, dtype=torch.float64)
    strong = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda logits: confident_loss(plain, logits, 0.7)[0], (strong,))
    plain.requires_grad_()
    loss = confident_loss(plain, strong, 0.7)[0]
    assert torch.autograd.grad(loss, plain, allow_unused=True)[0] is None


def test_scan_begins_with_the_features_of_the_pretext() -> None:
    store = StageStore(None)
    method = begun(SCAN, store=store)
    weights = network_weights(method.pretrain(method.task))
    assert equal(snapshot(method.net), weights)
