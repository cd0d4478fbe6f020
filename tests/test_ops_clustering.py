"""bench.ops.clustering: card numbers, equality with scikit-learn, dense solves and SciPy, degenerate inputs."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from bench.ops import clustering
from bench.ops.clustering import (
    draw_neighbours,
    k_means,
    k_means_plus_plus,
    neighbour_graph,
    propagate_labels,
    scan_loss,
)
from bench.ops.neighbours import knn, knn_similarities

PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=40)
SEEDS = st.integers(0, 2**31)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(seed: int, size: int, dim: int) -> Tensor:
    return torch.randn(size, dim, generator=generator(seed), dtype=torch.float64)


def blobs(seed: int, classes: int, each: int, dim: int = 5) -> tuple[Tensor, Tensor]:
    centres = 10 * torch.eye(classes, dim, dtype=torch.float64)
    truth = torch.arange(classes).repeat_interleave(each)
    return centres[truth] + 0.3 * points(seed, classes * each, dim), truth


# --- k-means


@PROPERTY
@given(SEEDS, st.integers(2, 80), st.integers(1, 6), st.integers(1, 8), st.sampled_from([0.0, 1e4]))
def test_equals_scikit_learn_from_the_same_start(seed: int, size: int, dim: int, clusters: int, offset: float) -> None:
    from sklearn.cluster import KMeans

    features, clusters = points(seed, size, dim) + offset, min(clusters, size)
    start = features[torch.randperm(size, generator=generator(seed))[:clusters]]
    found = k_means(features, clusters, start=start)
    reference = KMeans(clusters, init=start.numpy(), n_init=1, max_iter=300, tol=0.0, algorithm="lloyd").fit(features.numpy())
    assert found.converged and found.labels.tolist() == reference.labels_.tolist()
    assert found.inertia.item() == pytest.approx(reference.inertia_, rel=1e-9, abs=1e-9)
    assert found.centres.numpy() == pytest.approx(reference.cluster_centers_, abs=1e-7)


def test_k_means_by_hand() -> None:
    values = torch.tensor([[0.0], [1.0], [9.0], [10.0], [11.0]])
    found = k_means(values, 2, start=torch.tensor([[0.0], [1.0]]))
    assert found.labels.tolist() == [0, 0, 1, 1, 1] and found.centres.flatten().tolist() == [0.5, 10.0]
    assert found.inertia.item() == pytest.approx(2.5) and found.inertia.dtype == torch.float64
    assert (found.n_iter, found.converged) == (2, True)  # means 0 and 7.75, then 0.5 and 10: no label changes
    assert not k_means(values, 2, start=torch.tensor([[0.0], [1.0]]), max_iter=1).converged


def test_result_is_a_fixed_point_whatever_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    features = points(0, 500, 4)
    found = k_means(features, 7, generator=generator())
    for c in range(7):
        assert torch.allclose(found.centres[c], features[found.labels == c].mean(0))
    distance = torch.cdist(features, found.centres)
    assert torch.equal(distance.argmin(1), found.labels)
    monkeypatch.setattr(clustering, "BLOCK", 100)
    again = k_means(features, 7, generator=generator())
    assert torch.equal(again.labels, found.labels) and torch.allclose(again.centres, found.centres)


def test_a_start_without_points_moves_to_far_points() -> None:
    features, truth = blobs(0, 4, 20)
    start = torch.cat([features.mean(0, keepdim=True), torch.full((3, 5), 1e3, dtype=torch.float64)])
    found = k_means(features, 4, start=start)
    assert found.labels.bincount(minlength=4).tolist() and (found.labels.bincount(minlength=4) > 0).all()
    two = k_means(torch.tensor([[0.0], [0.1], [8.0]]), 2, start=torch.tensor([[0.0], [99.0]]))
    assert two.labels.tolist() == [0, 0, 1]


def test_k_means_finds_separate_blobs_from_plus_plus() -> None:
    features, truth = blobs(1, 5, 40)
    best = min((k_means(features, 5, generator=generator(seed)) for seed in range(5)), key=lambda found: float(found.inertia))
    table = torch.zeros(5, 5).index_put_((truth, best.labels), torch.tensor(1.0), accumulate=True)
    assert (table.max(1).values == 40).all()


def test_plus_plus_draws_by_squared_distance() -> None:
    # From 0, the others lie 1 and 3 away: weights 1 and 9. Given a first draw of 0, 3 follows nine times in ten.
    values = torch.tensor([[0.0], [1.0], [-3.0]])
    pairs = [k_means_plus_plus(values, 2, generator=generator(seed)).flatten().tolist() for seed in range(3000)]
    assert np.mean([pair[0] == 0 for pair in pairs]) == pytest.approx(1 / 3, abs=0.03)
    assert np.mean([pair[1] == -3 for pair in pairs if pair[0] == 0]) == pytest.approx(0.9, abs=0.03)
    assert all(len(set(pair)) == 2 for pair in pairs)


def test_plus_plus_takes_one_point_of_each_far_blob() -> None:
    features, truth = blobs(2, 5, 10)
    numbers = torch.arange(50.0)
    for seed in range(50):
        chosen = k_means_plus_plus(torch.cat([100 * features, numbers[:, None]], 1), 5, generator=generator(seed))[:, -1]
        assert sorted(truth[chosen.long()].tolist()) == [0, 1, 2, 3, 4]


def test_far_from_the_origin_float32_still_finds_the_nearest_centre() -> None:
    features = (points(5, 300, 3) + 3000).float()
    found = k_means(features, 6, start=features[:6])
    assert torch.equal(torch.cdist(features.double(), found.centres.double()).argmin(1), found.labels)


def test_plus_plus_takes_no_global_random_state() -> None:
    features = points(0, 50, 3)
    torch.manual_seed(1)
    first = k_means_plus_plus(features, 5, generator=generator(7))
    torch.manual_seed(2)
    assert torch.equal(first, k_means_plus_plus(features, 5, generator=generator(7)))


def test_k_means_degenerate_inputs() -> None:
    equal = k_means(torch.ones(6, 2), 3, generator=generator())
    assert equal.labels.tolist() == [0] * 6 and equal.inertia == 0 and (equal.centres == 1).all() and equal.converged
    one = k_means(torch.tensor([[3.0, 4.0]]), 1, generator=generator())
    assert one.labels.tolist() == [0] and one.centres.tolist() == [[3, 4]]
    every = k_means(points(0, 6, 2), 6, generator=generator())
    assert sorted(every.labels.tolist()) == list(range(6)) and every.inertia == 0
    half = k_means(torch.tensor([[0.0], [1.0], [9.0]]).half(), 2, generator=generator())
    assert half.centres.dtype == torch.float32 and len(half.labels.unique()) == 2


def test_k_means_errors() -> None:
    features = torch.zeros(4, 2)
    for bad in ((torch.zeros(4), 1), (features, 0), (features, 5), (torch.zeros(0, 2), 1)):
        with pytest.raises(ValueError, match="out of range"):
            k_means(*bad, generator=generator())
    with pytest.raises(ValueError, match="either"):
        k_means(features, 2)
    with pytest.raises(ValueError, match="either"):
        k_means(features, 2, generator=generator(), start=features[:2])
    with pytest.raises(ValueError, match="start of shape"):
        k_means(features, 2, start=features[:3])
    with pytest.raises(ValueError, match="finite"):
        k_means(torch.tensor([[math.nan], [0.0]]), 1, generator=generator())
    with pytest.raises(ValueError, match="at least one"):
        k_means_plus_plus(features[:0], 1, generator=generator())


# --- SCAN


def certain(clusters: Tensor, classes: int) -> Tensor:
    return 1000.0 * torch.nn.functional.one_hot(clusters, classes).float()


def test_scan_loss_card_values() -> None:
    uniform = torch.zeros(4, 10)
    total, consistency, entropy = scan_loss(uniform, uniform)
    assert consistency.item() == pytest.approx(math.log(10)) and entropy.item() == pytest.approx(math.log(10))
    assert total.item() == pytest.approx(-9.2103, abs=1e-4)
    for classes, expected in ((10, -11.5129), (100, -23.0259)):
        balanced = certain(torch.arange(classes), classes)
        assert scan_loss(balanced, balanced)[0].item() == pytest.approx(expected, abs=1e-4)
    collapsed = certain(torch.zeros(8, dtype=torch.int64), 10)
    assert scan_loss(collapsed, collapsed)[0].item() == pytest.approx(0.0, abs=1e-5)
    assert scan_loss(uniform, uniform, entropy_weight=2.0)[0].item() == pytest.approx(-math.log(10), abs=1e-4)


def test_scan_loss_bounds_a_pair_without_agreement() -> None:
    first, second = certain(torch.tensor([0, 0]), 3), certain(torch.tensor([1, 0]), 3)
    assert scan_loss(first, second)[1].item() == 50.0  # 100 and 0


@PROPERTY
@given(SEEDS, st.integers(1, 8), st.integers(2, 6), st.floats(0, 6))
def test_scan_loss_equals_the_definition(seed: int, size: int, classes: int, weight: float) -> None:
    anchor, neighbour = 2 * points(seed, size, classes), 2 * points(seed + 1, size, classes)
    total, consistency, entropy = scan_loss(anchor, neighbour, entropy_weight=weight)
    p, q = anchor.softmax(1).tolist(), neighbour.softmax(1).tolist()
    expected = -sum(math.log(sum(a * b for a, b in zip(*pair, strict=True))) for pair in zip(p, q, strict=True)) / size
    mean = [sum(row[c] for row in p) / size for c in range(classes)]
    spread = -sum(m * math.log(m) for m in mean)
    assert consistency.item() == pytest.approx(expected) and entropy.item() == pytest.approx(spread)
    assert total.item() == pytest.approx(expected - weight * spread)
    order = torch.randperm(classes, generator=generator(seed))
    assert torch.allclose(scan_loss(anchor[:, order], neighbour[:, order], entropy_weight=weight)[0], total)


def test_scan_loss_gradients_reach_both_views() -> None:
    anchor, neighbour = points(0, 3, 4).requires_grad_(), points(1, 3, 4).requires_grad_()
    assert gradcheck(lambda a, b: scan_loss(a, b)[0], (anchor, neighbour))
    extreme = certain(torch.tensor([0, 0]), 3).requires_grad_()
    scan_loss(extreme, certain(torch.tensor([1, 0]), 3))[0].backward()
    assert extreme.grad is not None and extreme.grad.isfinite().all()
    empty = torch.zeros(0, 3, requires_grad=True)
    total = scan_loss(empty, empty)[0]
    total.backward()
    assert total.item() == 0.0
    assert scan_loss(torch.zeros(2, 3).bfloat16(), torch.zeros(2, 3).bfloat16())[0].dtype == torch.float32


def test_mined_rows_by_the_card() -> None:
    rows = knn(points(0, 60, 8), 21)
    assert rows[:, 0].tolist() == list(range(60)) and all(len(set(row)) == 21 for row in rows.tolist())


def test_draw_neighbours_is_uniform_over_the_allowed() -> None:
    rows = torch.tensor([[0, 5, 7, 9], [1, 6, 8, 3], [2, 4, 4, 4]])
    allowed = torch.tensor([[True, True, False, True], [False, False, True, False], [False] * 4])
    g = generator()
    drawn = torch.stack([draw_neighbours(rows, generator=g, allowed=allowed) for _ in range(3000)])
    counts = drawn[:, 0].bincount(minlength=10) / 3000
    assert counts[[0, 5, 9]].tolist() == pytest.approx([1 / 3] * 3, abs=0.03) and counts[7] == 0
    assert (drawn[:, 1] == 8).all() and (drawn[:, 2] == 2).all()
    free = torch.stack([draw_neighbours(rows, generator=g) for _ in range(3000)])
    assert (free[:, 1].bincount(minlength=9)[[1, 6, 8, 3]] / 3000).tolist() == pytest.approx([0.25] * 4, abs=0.03)
    assert draw_neighbours(rows[:0], generator=g).shape == (0,)
    for bad in (rows[:, :0], rows[0]):
        with pytest.raises(ValueError, match="rows"):
            draw_neighbours(bad, generator=g)
    with pytest.raises(ValueError, match="allowed"):
        draw_neighbours(rows, generator=g, allowed=allowed[:2])


# --- label propagation


def dense_graph(indices: Tensor, similarities: Tensor, power: float) -> Tensor:
    n = len(indices)
    affinity = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j, s in zip(indices[i].tolist(), similarities[i].tolist(), strict=True):
            if i != j:
                affinity[i, j] = max(s, 0.0) ** power
    weights = affinity + affinity.T
    degree = weights.sum(1)
    scale = torch.where(degree > 0, degree, 1.0).rsqrt()
    return scale[:, None] * weights * scale


@PROPERTY
@given(SEEDS, st.integers(2, 50), st.integers(1, 8), st.sampled_from([1.0, 3.0]))
def test_graph_equals_the_dense_one(seed: int, size: int, k: int, power: float) -> None:
    near = knn_similarities(points(seed, size, 4), k)
    graph = neighbour_graph(*near, power=power)
    assert graph.layout == torch.sparse_csr and graph.dtype == torch.float32
    assert torch.allclose(graph.to_dense().double(), dense_graph(*near, power), atol=1e-6)


def test_graph_ignores_the_point_itself_and_negative_similarities() -> None:
    indices = torch.tensor([[0, 1], [0, 2], [2, 0]])
    similarities = torch.tensor([[1.0, 0.5], [0.5, -0.9], [1.0, -0.2]])
    found = neighbour_graph(indices, similarities).to_dense()
    assert found.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]  # 0 and 1 have one edge each, 2 has none


@pytest.mark.parametrize(("alpha", "max_iter"), [(0.5, 20), (0.9, 60), (0.99, 200)])
def test_propagation_equals_a_dense_solve(alpha: float, max_iter: int) -> None:
    features, truth = blobs(2, 3, 17)
    near = knn_similarities(features + 3, 6)
    seeds = torch.zeros(51, 4, dtype=torch.float64)  # the last class has none
    seeds[::5] = torch.nn.functional.one_hot(truth[::5], 4).double()
    expected = torch.linalg.solve(torch.eye(51, dtype=torch.float64) - alpha * dense_graph(*near, 3.0), seeds)
    found = propagate_labels(neighbour_graph(*near), seeds, alpha=alpha, max_iter=max_iter)
    assert found.dtype == torch.float32 and (found >= 0).all()
    assert torch.allclose(found.double(), expected, atol=1e-4, rtol=1e-3)
    assert (found[:, 3] == 0).all()
    assert torch.equal(found.argmax(1), truth)


def test_propagation_equals_scipys_conjugate_gradients_step_by_step() -> None:
    from scipy.sparse import identity
    from scipy.sparse.linalg import cg

    near = knn_similarities(points(3, 80, 5), 7)
    graph = neighbour_graph(*near)
    seeds = torch.randn(80, 3, generator=generator())
    matrix = identity(80) - 0.99 * graph.to_dense().double().numpy()
    for steps in (1, 2, 5, 8):
        found = propagate_labels(graph, seeds, max_iter=steps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            columns = [cg(matrix, seeds[:, c].double().numpy(), rtol=1e-6, maxiter=steps)[0] for c in range(3)]
        exact = np.stack(columns, 1)
        assert found.numpy() == pytest.approx(exact.clip(0), rel=1e-3, abs=1e-4) and (exact < -0.1).any()


def test_two_cliques_with_a_wrong_label_each() -> None:
    features = torch.tensor([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 6) + 0.01 * points(4, 12, 2).float()
    truth = torch.tensor([0] * 6 + [1] * 6)
    labels = truth.clone()
    labels[0], labels[6] = 1, 0
    scores = propagate_labels(neighbour_graph(*knn_similarities(features, 5)), torch.eye(2)[labels], alpha=0.9)
    assert torch.equal(scores.argmax(1), truth)


def test_propagation_degenerate_inputs() -> None:
    alone = neighbour_graph(torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0))
    assert propagate_labels(alone, torch.tensor([[0.0, 2.0]])).tolist() == [[0, 2]]
    nobody = neighbour_graph(torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 3))
    assert propagate_labels(nobody, torch.zeros(0, 2)).shape == (0, 2)
    equal = neighbour_graph(*knn_similarities(torch.ones(8, 2), 3))
    assert (propagate_labels(equal, torch.zeros(8, 2)) == 0).all()
    assert propagate_labels(equal, torch.eye(8)[:, :3]).isfinite().all()
    assert not propagate_labels(equal, torch.ones(8, 1, requires_grad=True)).requires_grad


def test_propagation_errors() -> None:
    graph = neighbour_graph(*knn_similarities(points(0, 5, 2), 2))
    with pytest.raises(ValueError, match="seeds"):
        propagate_labels(graph, torch.zeros(4, 2))
    for bad in ({"alpha": 1.0}, {"alpha": -0.1}, {"max_iter": 0}, {"tolerance": -1.0}):
        with pytest.raises(ValueError, match="out of range"):
            propagate_labels(graph, torch.zeros(5, 2), **bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two arrays"):
        neighbour_graph(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="power"):
        neighbour_graph(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 2), power=0.0)


# --- connected components


def slow_components(neighbours: Tensor, labels: Tensor, classes: int, mutual: bool) -> list[bool]:
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(labels)
    reach = np.zeros((n, n), dtype=bool)
    for i, row in enumerate(neighbours.tolist()):
        reach[i, row] = True
    joined = (reach & reach.T if mutual else reach | reach.T) & (labels[:, None] == labels).numpy()
    component = connected_components(csr_matrix(joined), directed=False)[1]
    chosen = [False] * n
    for c in range(classes):
        members = [i for i in range(n) if labels[i] == c]
        parts = [[i for i in members if component[i] == component[first]] for first in members]
        for i in max(parts, key=len, default=[]):  # the first of the largest: it has the smallest index
            chosen[i] = True
    return chosen


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_clustering_on_a_gpu_is_that_on_the_cpu() -> None:
    features, truth = blobs(3, 4, 25)
    here, there = (k_means(f, 4, generator=generator(1)) for f in (features, features.cuda()))
    assert torch.equal(here.labels, there.labels.cpu()) and torch.allclose(here.centres, there.centres.cpu())
    near = knn_similarities(features, 5)
    graph, seeds = neighbour_graph(*near), torch.eye(4)[truth]
    scores = propagate_labels(neighbour_graph(*(part.cuda() for part in near)), seeds.cuda())
    assert torch.allclose(scores.cpu(), propagate_labels(graph, seeds), rtol=1e-3, atol=1e-4)
    logits, rows = torch.randn(8, 4, device="cuda", requires_grad=True), near.indices.cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        scan_loss(logits, logits)[0].backward()
        drawn = draw_neighbours(rows, generator=generator(2), allowed=rows > 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(drawn.cpu(), draw_neighbours(near.indices, generator=generator(2), allowed=near.indices > 3))
