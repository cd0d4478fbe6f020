"""bench.ops.outliers: equality with scikit-learn, the definition by hand, classes, degenerate inputs."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.ops import outliers
from bench.ops.outliers import class_lof, lof

PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=40)
SEEDS = st.integers(0, 2**31)


def points(seed: int, size: int, dim: int) -> Tensor:
    return torch.randn(size, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scikit_learn(features: Tensor, k: int, algorithm: str = "kd_tree") -> Tensor:
    from sklearn.neighbors import LocalOutlierFactor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # duplicates, and fewer points than neighbours
        fit = LocalOutlierFactor(n_neighbors=k, algorithm=algorithm).fit(features.double().numpy())
    return torch.from_numpy(-fit.negative_outlier_factor_)


def by_definition(features: Tensor, k: int) -> list[float]:
    """Breunig's formulas with exactly k neighbours, one point at a time."""
    x = features.double().tolist()
    near = [sorted((math.dist(p, o), j) for j, o in enumerate(x) if j != i)[:k] for i, p in enumerate(x)]
    density = [1 / (sum(max(near[j][-1][0], d) for d, j in row) / k + 1e-10) for row in near]
    return [sum(density[j] for _, j in row) / k / density[i] for i, row in enumerate(near)]


@pytest.mark.parametrize(("size", "dim", "k"), [(300, 2, 10), (200, 128, 20), (2500, 8, 10), (2500, 3, 100), (40, 5, 39)])
@pytest.mark.parametrize("algorithm", ["kd_tree", "brute"])
def test_equals_scikit_learn(size: int, dim: int, k: int, algorithm: str) -> None:
    features = points(size, size, dim)
    found = lof(features, k)
    assert found.dtype == torch.float64 and torch.allclose(found, scikit_learn(features, k, algorithm), rtol=1e-6)
    single = features.float()
    assert torch.allclose(lof(single, k), scikit_learn(single, k, algorithm), rtol=1e-5)


@PROPERTY
@given(SEEDS, st.integers(2, 40), st.integers(1, 5), st.integers(1, 45), st.sampled_from([0.0, 1e7]))
def test_equals_the_definition(seed: int, size: int, dim: int, k: int, offset: float) -> None:
    features = points(seed, size, dim) + offset
    found = lof(features, k)
    assert found.tolist() == pytest.approx(by_definition(features, min(k, size - 1)), rel=1e-6)


def test_by_hand_on_a_line() -> None:
    # 0, 1, 2, 10 with k = 2. k-distances 2, 1, 2, 9; mean reach 1.5, 2, 1.5, 8.5.
    found = lof(torch.tensor([[0.0], [1.0], [2.0], [10.0]]), 2)
    expected = [(1 / 2 + 1 / 1.5) / 2 * 1.5, 1 / 1.5 * 2, (1 / 2 + 1 / 1.5) / 2 * 1.5, (1 / 1.5 + 1 / 2) / 2 * 8.5]
    assert found.tolist() == pytest.approx(expected)


def test_duplicates_are_treated_as_in_scikit_learn() -> None:
    features = points(0, 120, 100).float()
    features[:40] = features[0]  # more copies than neighbours
    features[50:53] = features[50]
    features[60] = features[0] + 1e-3  # its neighbours are all copies
    for k in (2, 5, 20):
        found = lof(features, k)
        assert torch.allclose(found, scikit_learn(features, k), rtol=1e-5)
        assert found[:40].tolist() == pytest.approx([1.0] * 40)
        assert found[60] > 1e6


def test_one_far_point_card_values() -> None:
    factors = []
    for seed in range(20):
        cloud = torch.cat([points(seed, 100, 2), torch.tensor([[10.0, 10.0]])])
        factors.append(lof(cloud, 10))
    far = torch.stack(factors)[:, -1]
    near = torch.stack(factors)[:, :-1]
    assert far.min() > 9.4 and far.max() < 20.3
    assert near.median(dim=1).values.min() > 1.0 and near.median(dim=1).values.max() < 1.12
    assert 0.03 < (near > 1.5).double().mean() < 0.1


def test_scale_shift_and_order_do_not_matter() -> None:
    features = points(1, 200, 4)
    found = lof(features, 10)
    for scale in (1e-3, 50.0):
        assert torch.allclose(lof(scale * features - 7, 10), found, rtol=1e-5)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(lof(features[order], 10), found[order])


def test_block_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    features = points(2, 130, 6)
    expected = lof(features, 7)
    for block in (1, 1000, 130 * 50):
        monkeypatch.setattr(outliers, "BLOCK", block)
        assert torch.allclose(lof(features, 7), expected, rtol=1e-12)


# --- within classes


@PROPERTY
@given(SEEDS, st.integers(0, 80), st.integers(1, 6), st.integers(1, 12), st.booleans())
def test_class_lof_is_lof_of_each_class(seed: int, size: int, classes: int, k: int, some: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    features = points(seed, size, 3)
    labels = torch.randint(classes, (size,), generator=g)
    members = torch.rand(size, generator=g) < 0.7 if some else None
    found = class_lof(features, labels, k, classes, members)
    rated = torch.zeros(size, dtype=torch.bool)
    for c in range(classes):
        rows = ((labels == c) & (torch.ones(size) > 0 if members is None else members)).nonzero().squeeze(1)
        rated[rows] = True
        assert torch.allclose(found[rows], lof(features[rows], k))
    assert torch.equal(found.isnan(), ~rated) and found.dtype == torch.float64


def test_small_classes_and_what_is_never_admitted() -> None:
    features = torch.tensor([[0.0], [1.0], [3.0], [0.0], [5.0], [2.0], [9.0]])
    labels = torch.tensor([0, 0, 0, 1, 2, 2, -1])
    members = torch.tensor([True, True, True, True, True, True, False])
    found = class_lof(features, labels, 10, 4, members)  # three, one and two members, then none
    assert found[:3].tolist() == pytest.approx(by_definition(features[:3], 2))
    assert found[3] == math.inf and found[4:6].tolist() == pytest.approx([1.0, 1.0]) and found[6].isnan()
    assert (found <= 1.5).tolist() == [True, True, True, False, True, True, False]


def test_degenerate_inputs() -> None:
    assert lof(torch.zeros(0, 3), 5).shape == (0,)
    assert lof(torch.zeros(1, 3), 5).tolist() == [math.inf]
    assert lof(torch.ones(7, 3), 5).tolist() == pytest.approx([1.0] * 7)
    assert lof(torch.tensor([[1e6, 1.0]]).repeat(9, 1), 2).tolist() == pytest.approx([1.0] * 9)
    assert class_lof(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 5, 3).shape == (0,)
    nobody = class_lof(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), 5, 3, torch.zeros(4, dtype=torch.bool))
    assert nobody.isnan().all()
    assert not lof(points(0, 9, 2).requires_grad_(), 3).requires_grad


def test_errors() -> None:
    features, labels = torch.zeros(4, 2), torch.tensor([0, 1, 2, 0])
    with pytest.raises(ValueError, match="shape"):
        lof(torch.zeros(4), 2)
    with pytest.raises(ValueError, match="at least 1"):
        lof(features, 0)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            lof(torch.tensor([[0.0, bad], [1.0, 2.0]]), 1)
    with pytest.raises(ValueError, match="shape"):
        class_lof(features, labels[:3], 2, 3)
    with pytest.raises(ValueError, match="shape"):
        class_lof(features, labels, 2, 3, torch.ones(3, dtype=torch.bool))
    for wrong in (labels - 1, labels + 1):
        for members in (None, torch.ones(4, dtype=torch.bool)):
            with pytest.raises(ValueError, match=r"0\.\.2"):
                class_lof(features, wrong, 2, 3, members)
    assert np.isfinite(class_lof(features, labels, 2, 3)[0].item())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_factors_on_a_gpu_are_those_on_the_cpu() -> None:
    features, labels = points(0, 400, 8), torch.arange(400) % 3
    found = class_lof(features.cuda(), labels.cuda(), 10, 3)
    assert torch.allclose(found.cpu(), class_lof(features, labels, 10, 3), rtol=1e-9)
