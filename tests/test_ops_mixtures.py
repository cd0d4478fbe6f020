"""bench.ops.mixtures: equality with scikit-learn from the same start, degenerate inputs, label-consistency splits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.ops.metrics import roc_auc
from bench.ops.mixtures import Mixture, _two_means, clean_posterior, gaussian_mixture_1d, min_max

PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=60)
SEEDS = st.integers(0, 2**31)


def two_gaussians(seed: int, size: int, share: float, gap: float, spread: float) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    upper = torch.rand(size, generator=g) < share
    return torch.randn(size, generator=g, dtype=torch.float64) * spread + torch.where(upper, gap, 0.0)


def sklearn_fit(values: Tensor, **settings_: float) -> tuple[Mixture, bool]:
    """scikit-learn's fit from our partition, its components ordered like ours, and whether it converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    x = values.double().numpy()
    reg_covar = settings_.get("reg_covar", 5e-4)
    parts = [x[(~_two_means(values.double())).numpy()], x[_two_means(values.double()).numpy()]]
    reference = GaussianMixture(
        2,
        max_iter=settings_.get("max_iter", 10),
        tol=settings_.get("tol", 1e-2),
        reg_covar=reg_covar,
        weights_init=[len(part) / len(x) for part in parts],
        means_init=[[part.mean()] for part in parts],
        precisions_init=[[[1 / (part.var() + reg_covar)]] for part in parts],
    )
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        reference.fit(x[:, None])
    order = reference.means_[:, 0].argsort()
    fields = (reference.means_[order, 0], reference.covariances_[order, 0, 0], reference.weights_[order])
    means, variances, weights = (torch.as_tensor(field) for field in fields)
    posteriors = torch.as_tensor(reference.predict_proba(x[:, None])[:, order])
    n_iter, converged = torch.tensor(reference.n_iter_), torch.tensor(reference.converged_)
    return Mixture(means, variances, weights, posteriors, n_iter, converged, torch.tensor(False)), reference.converged_


def assert_equal_mixtures(found: Mixture, expected: Mixture) -> None:
    for field in ("means", "variances", "weights", "posteriors"):
        assert torch.allclose(getattr(found, field), getattr(expected, field), rtol=0, atol=1e-6), field
    assert (int(found.n_iter), bool(found.converged)) == (int(expected.n_iter), bool(expected.converged))


# --- against scikit-learn


@PROPERTY
@given(SEEDS, st.integers(5, 400), st.floats(0.1, 0.9), st.floats(0.0, 3.0), st.floats(0.02, 0.5))
def test_equals_scikit_learn_from_the_same_partition(
    seed: int, size: int, share: float, gap: float, spread: float
) -> None:
    values = two_gaussians(seed, size, share, gap, spread)
    found = gaussian_mixture_1d(values)
    if not found.degenerate:
        assert_equal_mixtures(found, sklearn_fit(values)[0])


@pytest.mark.parametrize(
    "settings_",
    [{}, {"tol": 1e-3}, {"reg_covar": 1e-3}, {"max_iter": 1}, {"max_iter": 3, "tol": 0.0}, {"max_iter": 50}],
)
def test_equals_scikit_learn_under_other_settings(settings_: dict[str, float]) -> None:
    values = two_gaussians(1, 1000, 0.4, 1.0, 0.4)
    found = gaussian_mixture_1d(values, **settings_)  # type: ignore[arg-type]
    expected, converged = sklearn_fit(values, **settings_)
    assert_equal_mixtures(found, expected)
    assert converged == (settings_.get("max_iter", 10) not in (1, 3))


def test_equals_scikit_learn_with_its_own_start_when_clusters_are_separate() -> None:
    from sklearn.mixture import GaussianMixture

    values = two_gaussians(2, 2000, 0.3, 1.0, 0.05)
    reference = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0).fit(values.numpy()[:, None])
    posterior = reference.predict_proba(values.numpy()[:, None])[:, reference.means_[:, 0].argmin()]
    found, mixture = clean_posterior(values, smaller_is_clean=True)
    assert np.abs(posterior - found.numpy()).max() < 1e-6
    assert not mixture.degenerate and found.dtype == torch.float32


def test_equals_scikit_learn_on_label_consistency_with_few_levels() -> None:
    g = torch.Generator().manual_seed(0)
    values = torch.randint(1, 11, (240,), generator=g).double() / 10
    assert_equal_mixtures(gaussian_mixture_1d(values, tol=1e-3), sklearn_fit(values, tol=1e-3)[0])


def test_components_are_ordered_even_when_their_means_cross() -> None:
    # A narrow peak inside a wide body: EM turns the lower cluster into the body, whose mean ends above the peak's.
    g = torch.Generator().manual_seed(136)
    size = int(torch.randint(4, 30, (1,), generator=g))
    body = torch.randn(size, generator=g, dtype=torch.float64)
    values = torch.cat([body, 0.1 * torch.randn(size, generator=g, dtype=torch.float64)])
    mixture = gaussian_mixture_1d(values, max_iter=100, tol=0.0)
    assert mixture.variances[0] < 0.1 * mixture.variances[1]
    lower_cluster_variance = values[~_two_means(values)].var()
    assert lower_cluster_variance > 0.1 * mixture.variances[1]
    assert_equal_mixtures(mixture, sklearn_fit(values, max_iter=100, tol=0.0)[0])


# --- start


@PROPERTY
@given(st.lists(st.integers(0, 12), min_size=2, max_size=14))
def test_start_is_the_best_of_all_splits(numbers: list[int]) -> None:
    def within(parts: list[list[int]]) -> float:
        return sum(sum((v - sum(part) / len(part)) ** 2 for v in part) for part in parts)

    values = torch.tensor(numbers, dtype=torch.float64)
    upper = _two_means(values)
    if values.min() == values.max():
        assert upper.all()
        return
    ordered = sorted(numbers)
    best = min(within([ordered[:cut], ordered[cut:]]) for cut in range(1, len(numbers)))
    found = [[v for v, up in zip(numbers, upper.tolist(), strict=True) if up == side] for side in (False, True)]
    assert within(found) == pytest.approx(best, abs=1e-9)
    means = torch.tensor([sum(part) / len(part) for part in found], dtype=torch.float64)
    distance = (values[:, None] - means).abs()  # a fixed point of Lloyd's iteration
    assert (distance.gather(1, upper.long()[:, None]) <= distance.gather(1, (~upper).long()[:, None]) + 1e-9).all()


def test_start_is_no_worse_than_scikit_learns() -> None:
    from sklearn.cluster import KMeans

    values = two_gaussians(3, 3000, 0.5, 0.8, 0.5)
    upper = _two_means(values)
    inertia = sum(float(((values[side] - values[side].mean()) ** 2).sum()) for side in (upper, ~upper))
    assert inertia <= KMeans(2, n_init=10, random_state=0).fit(values.numpy()[:, None]).inertia_ * (1 + 1e-12)


# --- result


def test_result_by_hand() -> None:
    # Clusters {0, 0.02} and {0.98, 1}: so far apart that the responsibilities are the partition.
    mixture = gaussian_mixture_1d(torch.tensor([0.98, 0.0, 1.0, 0.02]))
    assert mixture.means.tolist() == pytest.approx([0.01, 0.99], abs=1e-7)
    assert mixture.variances.tolist() == pytest.approx([1e-4 + 5e-4] * 2, abs=1e-7)
    assert mixture.weights.tolist() == pytest.approx([0.5, 0.5])
    assert mixture.posteriors.argmax(1).tolist() == [1, 0, 1, 0]
    assert (int(mixture.n_iter), bool(mixture.converged), bool(mixture.degenerate)) == (2, True, False)


@PROPERTY
@given(st.lists(st.floats(-1e6, 1e6), max_size=60), st.booleans())
def test_always_finite_ordered_and_normalised(values: list[float], smaller_is_clean: bool) -> None:
    posterior, mixture = clean_posterior(torch.tensor(values), smaller_is_clean=smaller_is_clean)
    assert posterior.shape == (len(values),) and ((posterior >= 0) & (posterior <= 1)).all()
    assert all(field.isfinite().all() for field in mixture)
    assert mixture.means[0] <= mixture.means[1] and (mixture.variances > 0).all()
    assert torch.allclose(mixture.posteriors.sum(1), torch.ones(len(values), dtype=torch.float64))
    assert mixture.weights.sum().item() == pytest.approx(1.0)
    if mixture.degenerate:
        assert (posterior == 1).all()


@PROPERTY
@given(SEEDS, st.integers(4, 60), st.floats(-50, 50))
def test_shift_permutation_and_reflection(seed: int, size: int, shift: float) -> None:
    values = two_gaussians(seed, size, 0.5, 1.0, 0.2)
    posterior, mixture = clean_posterior(values, smaller_is_clean=True)
    moved = clean_posterior(values + shift, smaller_is_clean=True)[0]
    mirrored = clean_posterior(-values, smaller_is_clean=False)[0]
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    shuffled = clean_posterior(values[order], smaller_is_clean=True)[0]
    for other in (moved, mirrored):
        assert torch.allclose(other, posterior, atol=1e-5)
    assert torch.allclose(shuffled, posterior[order], atol=1e-5)
    assert mixture.posteriors.dtype == torch.float64


def test_same_input_same_bits_and_no_random_state() -> None:
    values = two_gaussians(4, 500, 0.5, 0.5, 0.4)
    torch.manual_seed(1)
    first = gaussian_mixture_1d(values)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = gaussian_mixture_1d(values)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_posterior_takes_no_gradient_and_follows_the_clean_side() -> None:
    values = torch.tensor([0.0, 0.1, 0.9, 1.0], requires_grad=True)
    low, mixture = clean_posterior(values, smaller_is_clean=True)
    high, _ = clean_posterior(values, smaller_is_clean=False)
    assert not low.requires_grad and not mixture.means.requires_grad
    assert (low > 0.5).tolist() == [True, True, False, False]
    assert torch.allclose(low + high, torch.ones(4))


# --- degenerate inputs


@pytest.mark.parametrize("smaller_is_clean", [True, False])
@pytest.mark.parametrize(
    "values",
    [
        [],
        [0.3],
        [math.nan],
        [0.3, 0.3],
        [1 / 3] * 7,
        [1e30] * 5,
        [0.0, 1e-9] * 10,
        [0.1, math.nan, 0.9],
        [0.1, math.inf],
    ],
    ids=["none", "one", "one NaN", "two equal", "thirds", "huge", "means run together", "NaN", "infinite"],
)
def test_degenerate_inputs_make_every_sample_clean(values: list[float], smaller_is_clean: bool) -> None:
    posterior, mixture = clean_posterior(torch.tensor(values), smaller_is_clean=smaller_is_clean)
    assert posterior.tolist() == [1.0] * len(values)
    assert bool(mixture.degenerate)
    assert all(field.isfinite().all() for field in mixture)


def test_an_empty_component_is_degenerate() -> None:
    # A wide floor lets the body explain the stray value: its component is left with a third of a sample.
    values = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.03, 0.09, 0.48])
    wide = {"reg_covar": 0.025, "tol": 0.0, "max_iter": 10}
    fitted, _ = sklearn_fit(values, **wide)
    assert 0.0 < fitted.weights.min() * len(values) < 0.5 and fitted.means[1] - fitted.means[0] > 0.1
    posterior, mixture = clean_posterior(values, smaller_is_clean=True, reg_covar=0.025, tol=0.0)
    assert bool(mixture.degenerate) and (posterior == 1).all()
    assert not gaussian_mixture_1d(values).degenerate


def test_one_outlier_is_a_component_of_its_own() -> None:
    values = torch.cat([torch.linspace(0, 0.1, 100), torch.tensor([5.0])])
    posterior, mixture = clean_posterior(values, smaller_is_clean=True)
    assert not mixture.degenerate and posterior[-1] < 1e-6 and (posterior[:-1] > 0.99).all()


def test_rejects_bad_arguments() -> None:
    with pytest.raises(ValueError, match="shape"):
        gaussian_mixture_1d(torch.zeros(3, 1))
    for bad in ({"max_iter": 0}, {"tol": -1.0}, {"reg_covar": -1.0}):
        with pytest.raises(ValueError, match="out of range"):
            gaussian_mixture_1d(torch.zeros(3), **bad)  # type: ignore[arg-type]


# --- min-max and the score that it is for


def test_min_max() -> None:
    assert min_max(torch.tensor([3.0, 1.0, 2.0])).tolist() == [1.0, 0.0, 0.5]
    assert min_max(torch.tensor([7, 5])).tolist() == [1.0, 0.0]
    assert min_max(torch.full((4,), 0.1)).tolist() == [0.0] * 4
    assert min_max(torch.empty(0)).shape == (0,)


@PROPERTY
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=30))
def test_min_max_fills_the_unit_interval(values: list[float]) -> None:
    scaled = min_max(torch.tensor(values))
    assert ((scaled >= 0) & (scaled <= 1)).all() and scaled.min() == 0
    assert scaled.max() == (1 if len(set(values)) > 1 else 0)


def test_label_consistency_of_perfect_clusters_separates_the_labels() -> None:
    # Ten pure clusters, 80 % inclusive noise: neighbours agree with clean labels on .28, with noisy ones on .08.
    g = torch.Generator().manual_seed(0)
    truth = torch.arange(10).repeat_interleave(200)
    drawn = torch.randint(10, (2000,), generator=g)
    labels = torch.where(torch.rand(2000, generator=g) < 0.8, drawn, truth)
    consistency = (
        (labels.reshape(10, 200)[:, :, None] == labels.reshape(10, 200)[:, None, :]).double().mean(2).flatten()
    )
    clean = labels == truth
    assert consistency[clean].mean().item() == pytest.approx(0.28, abs=0.03)
    assert consistency[~clean].mean().item() == pytest.approx(0.08, abs=0.03)
    posterior, mixture = clean_posterior(consistency, smaller_is_clean=False)
    assert not mixture.degenerate and roc_auc(posterior, clean) == 1.0
