"""bench.ops.neighbours and metrics: card numbers, equality with brute force and with scikit-learn."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.ops import neighbours
from bench.ops.metrics import accuracy, group_accuracy, roc_auc
from bench.ops.neighbours import (
    check_finite,
    knn,
    knn_similarities,
    local_label_consistency,
    top_columns,
)

PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=60)
SEEDS = st.integers(0, 2**31)
Backend = Literal["torch", "faiss"]
BACKENDS: list[Backend] = ["torch", "faiss"]


def directions(*degrees: float) -> Tensor:
    angle = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def random_features(seed: int, size: int, dim: int) -> Tensor:
    return torch.randn(size, dim, generator=torch.Generator().manual_seed(seed))


# --- neighbours


@pytest.mark.parametrize("backend", BACKENDS)
def test_label_consistency_card_values(backend: Backend) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    points = directions(0, 10, 25, 90) * torch.tensor([[1.0], [5.0], [0.2], [3.0]])  # lengths must not matter
    labels = torch.tensor([0, 0, 1, 1])
    two = knn(points, 2, backend=backend)
    assert two.dtype == torch.int64 and two.tolist() == [[0, 1], [1, 0], [2, 1], [3, 2]]
    assert local_label_consistency(two, labels).tolist() == [1, 1, 0.5, 1]
    three = local_label_consistency(knn(points, 3, backend=backend), labels)
    assert three.tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3, 2 / 3])
    without = knn(points, 2, include_self=False, backend=backend)
    assert without.tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
    assert local_label_consistency(without, labels)[2] == 0


@pytest.mark.parametrize(("k", "classes", "expected"), [(50, 2, 0.510), (1000, 10, 0.1009)])
def test_mean_consistency_of_random_features(k: int, classes: int, expected: float) -> None:
    size = 3000
    labels = torch.arange(size) % classes
    found = local_label_consistency(knn(random_features(1, size, 16), k), labels).mean().item()
    exact = (1 + (k - 1) * (size / classes - 1) / (size - 1)) / k  # the card's value for a finite set
    assert exact == pytest.approx(expected, abs=5e-4)
    assert found == pytest.approx(exact, abs=4e-3)  # .4997 and .0997 without the point itself


def test_one_flipped_label_in_pure_clusters() -> None:
    points = directions(*range(0, 6), *range(100, 106), *range(200, 206))
    labels = torch.arange(3).repeat_interleave(6)
    near = knn(points, 5, include_self=False)
    assert local_label_consistency(near, labels).tolist() == [1.0] * 18
    labels[2] = 1
    after = local_label_consistency(near, labels) * 5
    assert after[2] == 0
    assert after[[0, 1, 3, 4, 5]].tolist() == pytest.approx([4.0] * 5)
    assert after[6:].tolist() == [5.0] * 12


@PROPERTY
@given(SEEDS, st.integers(1, 60), st.integers(1, 8), st.integers(1, 70), st.integers(1, 70), st.booleans())
def test_equals_brute_force(seed: int, size: int, dim: int, k: int, chunk: int, include_self: bool) -> None:
    features = random_features(seed, size, dim)
    found = knn(features, k, include_self=include_self, chunk=chunk)
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    similarity = unit @ unit.T
    similarity.fill_diagonal_(2.0 if include_self else -2.0)
    width = min(k, size if include_self else size - 1)
    assert found.shape == (size, width)  # the clip is visible here
    best = similarity.sort(dim=1, descending=True).values[:, :width]
    assert torch.allclose(similarity.gather(1, found), best, atol=1e-6)
    assert all(len(set(row)) == width for row in found.tolist())
    own = torch.arange(size)
    if include_self:
        assert torch.equal(found[:, 0], own)
    else:
        assert not (found == own[:, None]).any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("include_self", [True, False])
def test_duplicates_never_push_out_the_point_itself(backend: Backend, include_self: bool) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    found = knn(torch.ones(50, 4), 3, include_self=include_self, backend=backend)
    own = torch.arange(50)
    assert ((found == own[:, None]).sum(1) == int(include_self)).all()
    assert all(len(set(row)) == 3 for row in found.tolist())
    if include_self:
        assert torch.equal(found[:, 0], own)


def test_backends_agree_and_repeat_their_bits() -> None:
    pytest.importorskip("faiss")
    features = random_features(3, 700, 32)
    results = {backend: knn(features, 20, backend=backend, chunk=256) for backend in BACKENDS}
    for backend, result in results.items():
        assert torch.equal(result, knn(features, 20, backend=backend, chunk=256))
    sets = [[set(row) for row in result.tolist()] for result in results.values()]
    overlap = sum(len(a & b) for a, b in zip(*sets, strict=True)) / (700 * 20)
    assert overlap > 0.999


def test_auto_takes_faiss_only_above_the_limit_and_where_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    faiss = pytest.importorskip("faiss")
    used: list[int] = []
    original = faiss.knn

    def spy(queries: np.ndarray, *args: object, **kwargs: object) -> object:
        used.append(queries.shape[1])
        return original(queries, *args, **kwargs)

    monkeypatch.setattr(faiss, "knn", spy)
    features = random_features(4, 30, 8)
    monkeypatch.setattr(neighbours, "FAISS_ABOVE", 30)
    knn(features, 3)
    assert used == []
    monkeypatch.setattr(neighbours, "FAISS_ABOVE", 29)
    knn(features, 3)
    assert used == [8]
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert torch.equal(knn(features, 3), knn(features, 3, backend="torch"))
    assert used == [8]
    with pytest.raises(ImportError):
        knn(features, 3, backend="faiss")


@PROPERTY
@given(SEEDS, st.integers(2, 40), st.integers(1, 10), st.integers(1, 5))
def test_label_consistency_is_a_share(seed: int, size: int, k: int, classes: int) -> None:
    labels = torch.randint(classes, (size,), generator=torch.Generator().manual_seed(seed))
    near = knn(random_features(seed, size, 3), k)
    share = local_label_consistency(near, labels)
    width = near.shape[1]
    expected = [sum(int(labels[j] == labels[i]) for j in row) / width for i, row in enumerate(near.tolist())]
    assert share.dtype == torch.float32 and share.tolist() == pytest.approx(expected)
    assert (share >= 1 / width - 1e-6).all() and (share <= 1).all()
    assert torch.equal(local_label_consistency(near, (labels + 1) % classes), share)  # names of classes do not matter


# --- similarities, other queries, votes


@PROPERTY
@given(SEEDS, st.integers(1, 50), st.integers(1, 60), st.booleans(), st.sampled_from(BACKENDS))
def test_similarities_are_cosines_of_the_neighbours(
    seed: int, size: int, k: int, include_self: bool, backend: Backend
) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    features = 5 * random_features(seed, size, 6)
    indices, similarities = knn_similarities(features, k, include_self=include_self, backend=backend)
    assert torch.equal(indices, knn(features, k, include_self=include_self, backend=backend))
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    assert similarities.dtype == torch.float32 and similarities.shape == indices.shape
    assert torch.allclose(similarities.double(), (unit @ unit.T).gather(1, indices), atol=1e-5)
    if include_self:
        assert torch.allclose(similarities[:, 0], torch.ones(size))


@PROPERTY
@given(SEEDS, st.integers(1, 4), st.integers(1, 9000), st.integers(1, 120), st.integers(1, 10**6))
def test_top_columns_equals_topk(seed: int, rows: int, width: int, k: int, levels: int) -> None:
    scores = torch.randint(levels, (rows, width), generator=torch.Generator().manual_seed(seed)).float()
    k = min(k, width)
    values, columns = top_columns(scores, k)
    assert torch.equal(values, scores.topk(k).values) and torch.equal(scores.gather(1, columns), values)
    assert all(len(set(row)) == k for row in columns.tolist())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wide_search_equals_brute_force(backend: Backend) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    features = random_features(5, 2500, 16)  # wide enough for the search by groups
    found = knn(features, 9, include_self=False, backend=backend)
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-2.0)
    assert torch.allclose(similarity.gather(1, found), similarity.topk(9).values, atol=1e-6)


def test_float16_and_float64_features_need_no_copy_by_the_caller() -> None:
    features = random_features(6, 40, 5).half()
    assert torch.equal(knn(features, 4), knn(features.double().requires_grad_(), 4))


def test_search_is_in_full_float32_whatever_the_trial_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    original = torch.mm

    def spy(*args: Tensor, **kwargs: Tensor) -> Tensor:
        seen.append(torch.backends.cuda.matmul.allow_tf32)
        return original(*args, **kwargs)

    monkeypatch.setattr(torch, "mm", spy)
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    try:
        for allowed in (True, False):
            matmul.allow_tf32 = allowed
            knn(random_features(0, 10, 3), 2)
            assert matmul.allow_tf32 is allowed
    finally:
        matmul.allow_tf32 = before
    assert seen == [False, False]


def test_default_blocks_fit_their_memory() -> None:
    for points, dim in ((100, 8), (50_000, 512), (1_000_000, 128)):
        base = torch.empty(1).expand(points, dim)
        block = 4 * points * neighbours._queries_that_fit(base)
        assert 4 * points <= block <= max(2**25, 4 * points * dim / 8)
    assert neighbours._queries_that_fit(torch.empty(100, 8)) == 1024


def test_check_finite() -> None:
    check_finite(torch.zeros(0, 3))
    check_finite(torch.full((2**14 + 1, 1), 1e38))
    for row in (0, 2**14):
        features = torch.zeros(2**14 + 1, 2)
        features[row, 1] = math.nan
        with pytest.raises(ValueError, match="not finite"):
            check_finite(features)


def test_importing_ops_loads_no_heavy_package() -> None:
    names = ("losses", "targets", "selection", "mixing", "mixtures", "neighbours", "metrics")
    names += ("beta_mixture", "outliers", "clustering", "contrast")
    code = f"""
import sys, importlib
import torch
before = set(sys.modules)
for name in {names}:
    importlib.import_module("bench.ops." + name)
heavy = {{"faiss", "sklearn", "scipy", "pandas", "ray", "mlflow", "torchvision"}}
print(sorted(heavy & (set(sys.modules) - before)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# --- metrics


@PROPERTY
@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=1, max_size=80), st.integers(0, 2))
def test_auc_equals_scikit_learn(pairs: list[tuple[float, bool]], digits: int) -> None:
    from sklearn.metrics import roc_auc_score

    scores = np.array([round(score, digits) for score, _ in pairs])
    positive = np.array([p for _, p in pairs])
    found = roc_auc(scores, positive)
    if positive.all() or not positive.any():
        assert found is None
        return
    assert found is not None and abs(found - roc_auc_score(positive, scores)) < 1e-12
    flipped = roc_auc(-torch.as_tensor(scores), torch.as_tensor(positive))
    assert flipped == pytest.approx(1 - found, abs=1e-12)


def test_auc_by_hand_and_on_many_ties() -> None:
    from sklearn.metrics import roc_auc_score

    assert roc_auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == 0.75  # type: ignore[arg-type]
    assert roc_auc(torch.zeros(6), torch.tensor([1, 0, 1, 0, 0, 1])) == 0.5
    assert roc_auc(torch.empty(0), torch.empty(0)) is None
    g = torch.Generator().manual_seed(0)
    scores, positive = torch.randint(50, (20000,), generator=g), torch.rand(20000, generator=g) < 0.3
    found = roc_auc(scores, positive)
    assert found is not None and abs(found - roc_auc_score(positive.numpy(), scores.numpy())) < 1e-12
    close = 1 + 1e-12 * torch.rand(2000, generator=g, dtype=torch.float64)
    found = roc_auc(close, positive[:2000])
    assert found is not None and abs(found - roc_auc_score(positive[:2000].numpy(), close.numpy())) < 1e-12
    half = torch.rand(2000, generator=g).half()
    found = roc_auc(half, positive[:2000])
    assert found is not None and abs(found - roc_auc_score(positive[:2000].numpy(), half.double().numpy())) < 1e-12


def test_auc_errors() -> None:
    with pytest.raises(ValueError, match="NaN"):
        roc_auc(torch.tensor([0.0, math.nan]), torch.tensor([True, False]))
    with pytest.raises(ValueError, match="two arrays"):
        roc_auc(torch.zeros(3), torch.tensor([True, False]))


def test_accuracy() -> None:
    assert accuracy(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2])) == 0.75
    assert accuracy(np.array([1]), np.array([0])) == 0.0
    assert math.isnan(accuracy(torch.empty(0), torch.empty(0)))
    with pytest.raises(ValueError, match="two arrays"):
        accuracy(torch.zeros(3), torch.zeros(4))


def test_group_accuracy() -> None:
    correct = torch.tensor([True, False, True, True, False])
    found = group_accuracy(correct, torch.tensor([0, 0, 3, 3, 1]), 5)
    assert found.dtype == torch.float64
    assert found.nan_to_num(-1.0).tolist() == [0.5, 0.0, -1.0, 1.0, -1.0]
    assert group_accuracy(np.array([], dtype=bool), np.array([], dtype=np.int64), 2).isnan().all()
    for groups in ([0, 0, 3, 3, 5], [0, 0, -1, 3, 1]):
        with pytest.raises(ValueError, match="group ids"):
            group_accuracy(correct, torch.tensor(groups), 5)
    with pytest.raises(ValueError, match="two arrays"):
        group_accuracy(correct, torch.tensor([0]), 5)


@PROPERTY
@given(SEEDS, st.integers(1, 60), st.integers(1, 5))
def test_group_accuracies_average_to_the_accuracy(seed: int, size: int, n_groups: int) -> None:
    g = torch.Generator().manual_seed(seed)
    predictions, labels = torch.randint(3, (size,), generator=g), torch.randint(3, (size,), generator=g)
    groups = torch.randint(n_groups, (size,), generator=g)
    per_group = group_accuracy(predictions == labels, groups, n_groups)
    share = torch.bincount(groups, minlength=n_groups) / size
    assert (per_group.nan_to_num(0.0) * share).sum().item() == pytest.approx(accuracy(predictions, labels), abs=1e-6)


def test_neighbours_errors() -> None:
    features = random_features(0, 5, 2)
    with pytest.raises(ValueError, match="shape"):
        knn(torch.zeros(5), 2)
    with pytest.raises(ValueError, match="shape"):
        knn(torch.zeros(0, 3), 2)
    with pytest.raises(ValueError, match="at least 1"):
        knn(features, 0)
    with pytest.raises(ValueError, match="backend"):
        knn(features, 2, backend="annoy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        knn(features, 2, chunk=0)
    for bad in (math.nan, math.inf, 1e30):  # the length of the last is infinite in float32
        with pytest.raises(ValueError, match="not finite"):
            knn(torch.tensor([[1.0, bad], [0.0, 1.0]]), 1)
    assert knn(features[:1], 4).tolist() == [[0]]
    alone = knn(features[:1], 4, include_self=False)
    assert alone.shape == (1, 0)
    with pytest.raises(ValueError, match="at least one neighbour"):
        local_label_consistency(alone, torch.tensor([0]))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_neighbours_on_a_gpu_are_those_on_the_cpu() -> None:
    features = random_features(7, 3000, 24)
    here, there = (knn_similarities(f, 20, backend="torch") for f in (features, features.cuda()))
    assert torch.allclose(here.similarities, there.similarities.cpu(), atol=1e-6)
    assert (here.indices == there.indices.cpu()).double().mean() > 0.999
