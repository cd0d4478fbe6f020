"""Label-free training: the parts by hand, and the stages by the checks of the cards of SimCLR, MoCo v2 and SCAN."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small import make_task, pixels
from torch import Tensor, nn

import bench.ops.pretraining as pretraining
from bench.ops.pretraining import (
    match_clusters,
    moco,
    neighbour_pairs,
    network_weights,
    projection,
    scan,
    scan_score,
    simclr,
    whole_batches,
)
from bench.trial.stage import Stage
from methods._pretext import MOCO, SIMCLR, Pretext

TRAINING: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 0.05}
SIMCLR_KEY = {"temperature": 0.1, "dimension": 4, "k": 3, "training": TRAINING}
MOCO_KEY = {**SIMCLR_KEY, "temperature": 0.2, "queue": 40, "momentum": 0.9, "groups": 4}
SCAN_KEY = {"entropy_weight": 5.0, "view": "scan", "k": 3, "training": TRAINING}


def stage(key: dict[str, Any], count: int = 40, labels: Tensor | None = None) -> Stage:
    labels = torch.arange(count) % 3 if labels is None else labels
    return Stage(make_task(labels, images=pixels(len(labels), size=8)), "some", key, "streams")


def begun_task(count: int, **settings: Any) -> Any:
    task = make_task(torch.arange(count) % 3, images=torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1), **settings)
    task.start_epoch(0)
    return task


def numbers(images: Tensor) -> list[int]:
    return ((images.flatten(1)[:, 0] * 0.25 + 0.5) * 255).round().long().tolist()


# -- parts


def test_a_last_partial_batch_is_left_out_unless_it_is_the_only_one() -> None:
    def sizes(*given: int) -> list[int]:
        return [len(part) for part in whole_batches([[0] * size for size in given], 16)]

    assert sizes(16, 16, 3) == [16, 16] and sizes(16, 16) == [16, 16] and sizes(5) == [5] and sizes() == []


def test_pairs_are_of_all_samples_and_their_neighbours() -> None:
    rows = torch.stack([torch.arange(40), (torch.arange(40) + 1) % 40, (torch.arange(40) + 2) % 40], dim=1)
    task = begun_task(40)
    pairs = [(numbers(a), numbers(b)) for a, b in neighbour_pairs(task, rows, view="plain", batch_size=16)]
    assert [len(a) for a, _ in pairs] == [16, 16]
    anchors, others = (sum(side, []) for side in zip(*pairs, strict=True))
    assert len(set(anchors)) == 32 and anchors != sorted(anchors)
    assert {(b - a) % 40 for a, b in zip(anchors, others, strict=True)} == {0, 1, 2}
    (small,) = neighbour_pairs(begun_task(7), rows[:7] % 7, view="plain", batch_size=16)
    assert len(small[0]) == 7


def test_only_neighbours_of_the_same_label_are_drawn() -> None:
    """All labels different from the anchor's: the anchor itself; all equal: uniform over the row (ScanMix, check 5)."""
    count = 2000
    rows = (torch.arange(count)[:, None] + torch.arange(5)) % count
    task = make_task(torch.zeros(count, dtype=torch.int64), images=pixels(count, size=1))
    task.start_epoch(0)
    seen: list[Tensor] = []
    batches = task.batches
    task.batches = lambda views, *, indices, **how: seen.append(indices) or batches(views, indices=indices, **how)

    def distances(labels: Tensor) -> Tensor:
        seen.clear()
        list(neighbour_pairs(task, rows, view="plain", batch_size=500, labels=labels))
        return (seen[1] - seen[0]) % count

    assert distances(torch.arange(count)).eq(0).all()
    found = distances(torch.zeros(count, dtype=torch.int64)).bincount(minlength=5)
    assert float(((found - 400) ** 2 / 400).sum()) < 18.5  # chi square, 4 degrees of freedom, 99.9 %
    found = distances(torch.arange(count) % 2).bincount(minlength=5)
    assert found[[1, 3]].tolist() == [0, 0] and min(found[[0, 2, 4]].tolist()) > 500


def test_scores_of_clusterings() -> None:
    """With weight 1: even and certain -ln C, even and indifferent 0, one cluster for all 0; near disagreement costs 100."""
    rows = (torch.arange(12)[:, None] + 4 * torch.arange(3)) % 12  # neighbours have the same remainder by 4
    certain = 1000.0 * nn.functional.one_hot(torch.arange(12) % 4, 4)
    assert float(scan_score(certain, rows)) == pytest.approx(-math.log(4), abs=1e-5)
    assert float(scan_score(torch.zeros(12, 4), rows)) == pytest.approx(0, abs=1e-5)
    assert float(scan_score(1000.0 * nn.functional.one_hot(torch.zeros(12).long(), 4), rows)) == pytest.approx(0, abs=1e-5)
    apart = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12], dim=1)
    assert float(scan_score(certain, apart)) == pytest.approx(50 - math.log(4), abs=1e-4)
    assert float(scan_score(certain, torch.cat([rows, apart, apart, apart], dim=1))) == pytest.approx(
        100 / 6 - math.log(4), abs=1e-4
    )  # six columns count, and one of them is another cluster's


def test_scores_do_not_depend_on_the_names_of_clusters() -> None:
    logits = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    rows = torch.randint(30, (30, 4), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(scan_score(logits, rows), scan_score(logits[:, [3, 0, 4, 1, 2]], rows))


def test_clusters_are_matched_one_to_one() -> None:
    labels = torch.arange(30) % 5
    shuffled = torch.tensor([3, 0, 4, 1, 2])
    assert match_clusters(shuffled[labels], labels, 5).tolist() == shuffled.tolist()
    # cluster 0 holds most of classes 0 and 1: it goes where the other loses least, 6 + 1 against 5 + 3
    clusters = torch.tensor([0] * 6 + [1] * 3 + [0] * 5 + [1] * 1)
    given = torch.tensor([0] * 9 + [1] * 6)
    assert match_clusters(clusters, given, 2).tolist() == [1, 0]
    assert sorted(match_clusters(torch.zeros(4).long(), torch.zeros(4).long(), 3).tolist()) == [0, 1, 2]


def test_the_head_of_contrastive_learning() -> None:
    made = projection(6, 4)
    assert [tuple(p.shape) for p in made.parameters()] == [(6, 6), (6,), (4, 6), (4,)]
    assert made(torch.zeros(3, 6)).shape == (3, 4)


# -- SimCLR


def test_simclr_returns_a_network_and_neighbours() -> None:
    made = simclr(stage(SIMCLR_KEY))
    task = make_task(torch.arange(3), images=pixels(3, size=8))
    task.learner().network.load_state_dict(network_weights(made))
    rows = made["neighbours"]
    assert rows.shape == (40, 4) and rows[:, 0].tolist() == list(range(40))
    assert all(len(set(row)) == 4 for row in rows.tolist())


def test_simclr_trains_on_first_views_as_anchors_and_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, float]] = []
    original = pretraining.nt_xent

    def observed(first: Tensor, second: Tensor, temperature: float) -> Tensor:
        losses = original(first, second, temperature)
        asked.append((len(first), temperature))
        assert losses.shape == (2 * len(first),)
        return torch.cat([losses[: len(first)], torch.full((len(first),), float("nan"))])  # the others must not matter

    monkeypatch.setattr(pretraining, "nt_xent", observed)
    one = stage(SIMCLR_KEY)
    simclr(one)
    assert asked == [(16, 0.1)] * 4  # 40 images: two whole batches in each of two epochs
    (net,) = one._networks
    assert (net.forward_images, net.backward_images) == (4 * 32 + 40, 4 * 32)


def test_labels_do_not_move_what_is_learnt() -> None:
    a, b = simclr(stage(SIMCLR_KEY)), simclr(stage(SIMCLR_KEY, labels=torch.zeros(40, dtype=torch.int64)))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_papers_rate_falls_by_a_cosine_to_a_thousandth() -> None:
    """0.4 at first, 0.2002 after 250 of 500 epochs, 4e-4 at the end."""
    asked: dict[str, Any] = {}

    class Task:
        def stage(self, name: str, key: dict[str, Any], build: Any) -> dict[str, Any]:
            asked.update({"name": name, "build": build, **key})
            return {}

    class Holder(Pretext):
        pass

    Holder().pretrain(Task())
    plan = stage({"training": asked["training"]}).training
    assert [plan.lr_at(epoch) for epoch in (0, 250, 500)] == pytest.approx([0.4, 0.2002, 4e-4])
    assert (plan.epochs, plan.batch_size, plan.momentum, plan.weight_decay) == (500, 512, 0.9, 1e-4)
    assert (asked["name"], asked["build"]) == ("simclr", simclr)
    assert (asked["temperature"], asked["dimension"], asked["k"]) == (0.1, 128, 20)
    holder = Holder()
    vars(holder).update({name.removeprefix("training."): value for name, value in MOCO.items()})
    holder.pretrain(Task())
    plan = stage({"training": asked["training"]}).training
    assert [plan.lr_at(epoch) for epoch in (0, 250, 500)] == pytest.approx([0.015, 0.0075, 0.0])
    assert (asked["name"], asked["queue"], asked["momentum"], asked["temperature"]) == ("moco", 65536, 0.999, 0.2)
    assert set(SIMCLR) | set(MOCO) <= set(Pretext.__annotations__)


# -- MoCo


def test_moco_keys_follow_the_queries_by_a_moving_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key encoder moves before it encodes, towards the weights before the step, and gets no gradient (checks 3 and 5)."""
    seen: list[dict[str, Any]] = []
    original = pretraining.info_nce

    def observed(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
        net, average = one._networks
        seen.append({
            "queries": [p.detach().clone() for p in net.network.parameters()],
            "keys": [p.clone() for p in average.network.parameters()], "size": len(negatives), "temperature": temperature,
            "needs": (queries.requires_grad, keys.requires_grad),
        })  # fmt: skip
        return original(queries, keys, negatives, temperature)

    monkeypatch.setattr(pretraining, "info_nce", observed)
    one = stage(MOCO_KEY)
    before = [p.detach().clone() for p in stage(MOCO_KEY).learner().network.parameters()]
    moco(one)
    expected = before
    for now in seen:
        expected = [0.9 * old + 0.1 * new for old, new in zip(expected, now["queries"], strict=True)]
        for mine, theirs in zip(now["keys"], expected, strict=True):
            torch.testing.assert_close(mine, theirs)
    assert [now["size"] for now in seen] == [40] * 4 and {now["temperature"] for now in seen} == {0.2}
    assert {now["needs"] for now in seen} == {(True, False)}
    assert all(p.grad is None for p in one._networks[1].network.parameters())


def test_moco_queues_keys_after_their_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[tuple[Tensor, Tensor]] = []
    original = pretraining.info_nce

    def observed(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
        pairs.append((keys.clone(), negatives.clone()))
        return original(queries, keys, negatives, temperature)

    monkeypatch.setattr(pretraining, "info_nce", observed)
    moco(stage(MOCO_KEY))
    (keys, start), (_, second), (_, third), _ = pairs
    assert torch.equal(second[:16], keys) and torch.equal(second[16:], start[16:])
    assert torch.equal(third[:16], keys) and not torch.equal(third[16:32], start[16:32])


def test_moco_normalises_each_group_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[str, list[int]] = {"queries": [], "keys": []}
    original = pretraining._projected

    def observed(net: Any, images: Tensor) -> Tensor:
        sizes["keys" if type(net).__name__ == "Average" else "queries"].append(len(images))
        return original(net, images)

    monkeypatch.setattr(pretraining, "_projected", observed)
    made = moco(stage(MOCO_KEY))
    assert sizes == {"queries": [4] * 16, "keys": [4] * 16}  # four groups in each of four batches
    assert made["neighbours"].shape == (40, 4)


# -- SCAN


def clustered(key: dict[str, Any] = SCAN_KEY) -> tuple[Stage, dict[str, Tensor], dict[str, Tensor]]:
    pretext, one = simclr(stage(SIMCLR_KEY)), stage(key)
    one.inputs = {"pretext": pretext}
    return one, pretext, scan(one)


def test_scan_begins_with_the_pretext_and_keeps_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, states = iter([2.0, -1.0, 0.5]), list[dict[str, Tensor]]()

    def scored(logits: Tensor, rows: Tensor) -> Tensor:
        states.append({name: value.clone() for name, value in one._networks[0].network.state_dict().items()})
        return torch.tensor(next(scores))

    monkeypatch.setattr(pretraining, "scan_score", scored)
    pretext = simclr(stage(SIMCLR_KEY))
    one = stage({**SCAN_KEY, "training": {**TRAINING, "epochs": 3}})
    one.inputs = {"pretext": pretext}
    made = network_weights(scan(one))
    assert all(torch.equal(made[name], states[1][name]) for name in made)
    assert not all(torch.equal(made[name], states[2][name]) for name in made)
    assert set(made) == set(network_weights(pretext))


def test_scan_without_a_rate_to_speak_of_returns_the_pretext() -> None:
    _, pretext, made = clustered({**SCAN_KEY, "training": {**TRAINING, "lr": 1e-30, "weight_decay": 0.0}})
    for name, value in network_weights(made).items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(value, network_weights(pretext)[name])


def test_scan_looks_at_pairs_of_whole_batches() -> None:
    one, _, made = clustered()
    (net,) = one._networks
    assert (net.forward_images, net.backward_images) == (2 * (2 * 32 + 40), 2 * 2 * 32)
    assert all(value.isfinite().all() for value in made.values())
    assert "network.head.weight" in made
