"""bench.ops.beta_mixture: card numbers, equality with a slow reference, recovery, degenerate inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.ops.beta_mixture import BetaMixture, _m_step, _uniform, beta_mixture, loss_range, noisy_posterior, scale_losses

PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=40)
SEEDS = st.integers(0, 2**31)


def two_betas(seed: int, sizes: tuple[int, int], first: tuple[float, float], second: tuple[float, float]) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.concatenate([rng.beta(*first, sizes[0]), rng.beta(*second, sizes[1])]))


def slow_reference(values: Tensor, n_iter: int) -> tuple[np.ndarray, np.ndarray]:
    """Parameters [3, 2] and posteriors [N, 2] from the formulas, with SciPy's densities and one value at a time."""
    from scipy.stats import beta as beta_distribution

    x = np.clip(values.double().numpy(), 1e-4, 1 - 1e-4)
    alpha, beta, weight = [1.0, 2.0], [2.0, 1.0], [0.5, 0.5]

    def posteriors() -> np.ndarray:
        found = np.empty((len(x), 2))
        for i, value in enumerate(x):
            joint = [max(1e-12, weight[c] * beta_distribution.pdf(value, alpha[c], beta[c])) for c in (0, 1)]
            found[i] = np.array(joint) / sum(joint)
        return found

    for _ in range(n_iter):
        share = posteriors()
        for c in (0, 1):
            mean = np.average(x, weights=share[:, c])
            variance = np.average((x - mean) ** 2, weights=share[:, c])
            alpha[c] = mean * (mean * (1 - mean) / variance - 1)
            beta[c] = alpha[c] * (1 - mean) / mean
            weight[c] = share[:, c].mean()
    return np.array([alpha, beta, weight]), posteriors()


def fitted(mixture: BetaMixture) -> np.ndarray:
    return torch.stack([mixture.alphas, mixture.betas, mixture.weights]).numpy()


# --- the fit


@pytest.mark.parametrize("n_iter", [1, 3, 10])
@pytest.mark.parametrize(("first", "second"), [((2, 8), (8, 2)), ((1, 20), (3, 3)), ((0.5, 5), (5, 0.5))])
def test_equals_the_slow_reference(first: tuple[float, float], second: tuple[float, float], n_iter: int) -> None:
    values = two_betas(0, (120, 80), first, second)
    mixture = beta_mixture(values, n_iter=n_iter)
    parameters, posteriors = slow_reference(values, n_iter)
    assert fitted(mixture) == pytest.approx(parameters, rel=1e-8)
    assert mixture.posteriors.numpy() == pytest.approx(posteriors, abs=1e-9)
    assert not mixture.degenerate


def test_weighted_moments_card_value() -> None:
    values = 0.3 + math.sqrt(0.02) * torch.tensor([1.0, -1.0], dtype=torch.float64)  # mean .3, variance .02
    parameters = _m_step(values, torch.ones(2, 2, dtype=torch.float64), _uniform(values))
    assert parameters[:, 0].tolist() == pytest.approx([2.85, 6.65, 0.5])


def test_ten_steps_and_convergence_card_values() -> None:
    values = two_betas(0, (5000, 5000), (2, 8), (8, 2))
    ten, hundred = beta_mixture(values), beta_mixture(values, n_iter=100)
    assert ten.means.tolist() == pytest.approx([0.290, 0.709], abs=0.006)
    assert 0.90 <= noisy_posterior(ten, torch.tensor([0.9])).item() <= 0.912
    assert hundred.means.tolist() == pytest.approx([0.2, 0.8], abs=0.005)
    assert noisy_posterior(hundred, torch.tensor([0.9])).item() > 0.999


def test_recovers_known_parameters() -> None:
    values = two_betas(1, (30_000, 10_000), (2, 10), (8, 2))
    mixture = beta_mixture(values, n_iter=300)
    assert mixture.weights.tolist() == pytest.approx([0.75, 0.25], abs=0.01)
    assert mixture.alphas.tolist() == pytest.approx([2, 8], rel=0.08)
    assert mixture.betas.tolist() == pytest.approx([10, 2], rel=0.08)
    assert mixture.variances.tolist() == pytest.approx([20 / 144 / 13, 16 / 100 / 11], rel=0.08)
    high = torch.cat([torch.zeros(30_000), torch.ones(10_000)]).bool()
    assert ((mixture.posteriors[:, 1] > 0.5) == high).double().mean() > 0.98


def test_keep_leaves_values_out_of_the_fit_and_rates_them() -> None:
    values = two_betas(2, (300, 300), (2, 8), (8, 2))
    more = torch.cat([values, torch.tensor([0.0, 1.0, math.nan], dtype=torch.float64)])
    keep = torch.arange(603) < 600
    expected, mixture = beta_mixture(values), beta_mixture(more, keep=keep)
    assert fitted(mixture) == pytest.approx(fitted(expected), rel=1e-12)
    assert torch.allclose(mixture.posteriors[:600], expected.posteriors)
    assert mixture.posteriors[600, 0] > 0.99 and mixture.posteriors[601, 1] > 0.99
    assert mixture.posteriors.isfinite().all() and not mixture.degenerate


def test_narrow_components_and_a_value_that_belongs_to_neither() -> None:
    # Far from both, each weighted density is at its floor: the posterior is one half.
    values = torch.cat([two_betas(5, (60, 40), (2000, 8000), (8000, 2000)), torch.tensor([0.5], dtype=torch.float64)])
    mixture = beta_mixture(values, n_iter=30)
    parameters, posteriors = slow_reference(values, 30)
    assert fitted(mixture) == pytest.approx(parameters, rel=1e-6)
    assert mixture.posteriors.numpy() == pytest.approx(posteriors, abs=1e-8)
    clumps = beta_mixture(values[:100], keep=None, n_iter=30)
    assert clumps.variances.tolist() == pytest.approx([1.6e-5, 1.6e-5], rel=0.4)
    between = beta_mixture(values, keep=torch.arange(101) < 100, n_iter=30)
    assert between.posteriors[100].tolist() == [0.5, 0.5]


def test_components_are_ordered_even_when_their_means_cross() -> None:
    crossed = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        values = torch.from_numpy(np.r_[rng.beta(0.3, 0.3, 10), rng.normal(0.5, 0.01, 10)])
        mixture = beta_mixture(values, n_iter=200)
        assert mixture.means[0] <= mixture.means[1]
        if crossed < 1 and not mixture.degenerate:
            parameters, posteriors = slow_reference(values, 200)
            if parameters[0, 0] / parameters[:2, 0].sum() > parameters[0, 1] / parameters[:2, 1].sum() + 1e-3:
                crossed += 1
                assert fitted(mixture) == pytest.approx(parameters[:, ::-1], rel=1e-5)
                assert mixture.posteriors.numpy() == pytest.approx(posteriors[:, ::-1], abs=1e-6)
    assert crossed


@PROPERTY
@given(st.lists(st.floats(0, 1), max_size=40), st.sampled_from([1, 10, 60]))
def test_always_finite_ordered_and_normalised(values: list[float], n_iter: int) -> None:
    mixture = beta_mixture(torch.tensor(values, dtype=torch.float64), n_iter=n_iter)
    assert all(field.isfinite().all() for field in mixture)
    assert (mixture.alphas > 0).all() and (mixture.betas > 0).all() and mixture.means[0] <= mixture.means[1] + 1e-12
    assert mixture.posteriors.shape == (len(values), 2) and (mixture.posteriors >= 0).all()
    assert torch.allclose(mixture.posteriors.sum(1), torch.ones(len(values), dtype=torch.float64))
    assert mixture.weights.sum().item() == pytest.approx(1.0)
    if mixture.degenerate:
        assert (mixture.posteriors == 0.5).all() and (noisy_posterior(mixture, torch.rand(3)) == 0.5).all()


@PROPERTY
@given(SEEDS, st.integers(4, 60))
def test_reflection_swaps_the_components(seed: int, size: int) -> None:
    values = two_betas(seed, (size, size), (2, 6), (6, 3))
    here, there = beta_mixture(values), beta_mixture(1 - values)
    assert torch.allclose(here.posteriors, there.posteriors.flip(1), atol=1e-6)
    assert torch.allclose(here.alphas, there.betas.flip(0), rtol=1e-5)


def test_takes_no_gradient_and_any_real_type() -> None:
    values = two_betas(3, (50, 50), (2, 8), (8, 2))
    mixture = beta_mixture(values.float().requires_grad_())
    assert not mixture.alphas.requires_grad and mixture.posteriors.dtype == torch.float64
    assert torch.allclose(mixture.posteriors, beta_mixture(values).posteriors, atol=1e-4)


@pytest.mark.parametrize(
    "values",
    [
        [], [0.3], [0.3, 0.3], [1 / 3] * 7, [0.0] * 5, [1.0] * 5, [0.0, 5e-5] * 4, [0.2, math.nan, 0.9], [math.nan],
        [0.7276, 0.8075],
    ],
    ids=["none", "one", "two equal", "thirds", "zeros", "ones", "equal once clipped", "NaN", "one NaN", "less than half"],
)  # fmt: skip
def test_degenerate_inputs_say_nothing(values: list[float]) -> None:
    mixture = beta_mixture(torch.tensor(values))
    assert bool(mixture.degenerate) and mixture.posteriors.tolist() == [[0.5, 0.5]] * len(values)
    assert all(field.isfinite().all() for field in mixture)
    assert mixture.means[0] == mixture.means[1]


def test_keeping_nothing_or_one_is_degenerate() -> None:
    values = two_betas(2, (30, 30), (2, 8), (8, 2))
    for kept in (0, 1):
        assert beta_mixture(values, keep=torch.arange(60) < kept).degenerate
    assert not beta_mixture(values, keep=torch.arange(60) % 30 == 0).degenerate  # two values, apart


def test_an_outlier_alone_keeps_the_fit_finite() -> None:
    mixture = beta_mixture(torch.tensor([0.1] * 50 + [0.9]), n_iter=200)
    assert not mixture.degenerate and all(field.isfinite().all() for field in mixture)
    assert mixture.posteriors[50, 1] > 0.99 and (mixture.posteriors[:50, 0] > 0.99).all()


def test_rejects_bad_arguments() -> None:
    with pytest.raises(ValueError, match="shape"):
        beta_mixture(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="n_iter"):
        beta_mixture(torch.zeros(3), n_iter=0)
    with pytest.raises(ValueError, match="keep"):
        beta_mixture(torch.zeros(3), keep=torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="bins"):
        noisy_posterior(beta_mixture(torch.zeros(3)), torch.zeros(3), bins=1)


# --- losses to the unit interval, and the table


def test_loss_range_equals_numpy() -> None:
    losses = torch.rand(733, generator=torch.Generator().manual_seed(0))
    found = loss_range(losses)
    assert [float(v) for v in found] == pytest.approx(np.percentile(losses.double().numpy(), [5, 95]), rel=1e-12)
    assert [float(v) for v in loss_range(torch.tensor([3.0]))] == [3.0, 3.0]
    assert [float(v) for v in loss_range(torch.tensor([3.0, 1.0]), 0, 100)] == [1.0, 3.0]
    for bad in ((torch.zeros(0), 5, 95), (torch.zeros(2, 2), 5, 95), (losses, 95, 5), (losses, -1, 5), (losses, 5, 101)):
        with pytest.raises(ValueError, match="out of range"):
            loss_range(*bad)


def test_scale_losses_by_hand() -> None:
    bounds = (torch.tensor(1.0, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64))
    scaled, inside = scale_losses(torch.tensor([0.5, 1.0, 2.0, 3.0, 9.0, math.nan]), bounds)
    middle = (2.0 - 1.00001) / (3.0 - 1.00001 + 1e-6)
    top = (3.0 - 1.00001) / (3.0 - 1.00001 + 1e-6)
    assert scaled.tolist() == pytest.approx([1e-3, 1e-3, middle, top, 0.999, 0.999], abs=1e-12)
    assert inside.tolist() == [False, True, True, True, False, False]


def test_scale_losses_without_a_range() -> None:
    bounds = loss_range(torch.full((9,), 2.0))
    scaled, inside = scale_losses(torch.tensor([1.0, 2.0, 2.5]), bounds)
    assert scaled.tolist() == pytest.approx([1e-3, 1e-3, 0.999]) and inside.tolist() == [False, True, False]


@PROPERTY
@given(st.lists(st.floats(0, 20, width=32), min_size=1, max_size=40))
def test_scale_losses_keeps_the_order_inside_the_unit_interval(losses: list[float]) -> None:
    values = torch.tensor(losses)
    scaled, inside = scale_losses(values, loss_range(values))
    assert ((scaled > 0) & (scaled < 1)).all()
    assert (inside == ((values >= loss_range(values)[0]) & (values <= loss_range(values)[1]))).all()
    order = values.argsort()
    assert (scaled[order].diff() >= -1e-3).all()  # losses just inside a bound lie beyond those set 1e-3 inside it


def test_table_is_constant_from_its_maximum_on() -> None:
    from scipy.stats import beta as beta_distribution

    # Near 1 the uniform component is the denser one: the posterior of the other, whose mean is larger, falls again.
    pairs = torch.tensor([[1.0, 8.0], [1.0, 3.0], [0.5, 0.5]], dtype=torch.float64)
    mixture = BetaMixture(*pairs, torch.empty(0, 2), torch.tensor(False))
    x = np.linspace(1e-12, 1 - 1e-12, 100)
    joint = np.array([0.5 * beta_distribution.pdf(x, 1, 1), 0.5 * beta_distribution.pdf(x, 8, 3)])
    exact = joint[1] / joint.sum(axis=0)
    top = exact.argmax()
    assert exact[-1] < exact[top] and 0 < top < 99
    table = noisy_posterior(mixture, torch.arange(100) / 100 + 0.005).numpy()
    assert table[: top + 1] == pytest.approx(exact[: top + 1], abs=1e-6) and (table[top:] == table[top]).all()


def test_table_entries() -> None:
    mixture = beta_mixture(two_betas(0, (500, 500), (2, 8), (8, 2)))
    entry = lambda v: noisy_posterior(mixture, torch.tensor([v])).item()  # noqa: E731
    assert entry(0.500) == entry(0.5099) != entry(0.5101)
    assert entry(-1.0) == entry(0.0) and entry(1.0) == entry(2.0) == entry(0.995) == entry(math.nan)
    assert noisy_posterior(mixture, torch.empty(0)).shape == (0,)
    assert noisy_posterior(mixture, torch.tensor([0.3])).dtype == torch.float32
    coarse = noisy_posterior(mixture, torch.linspace(0, 1, 50), bins=2)
    assert len(coarse.unique()) == 2


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_fit_on_a_gpu_is_that_on_the_cpu_and_never_waits() -> None:
    losses = -two_betas(6, (3000, 1000), (2, 9), (6, 4)).log()
    here, kept = scale_losses(losses, loss_range(losses))
    expected = beta_mixture(here, keep=kept)
    there = losses.cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        scaled, inside = scale_losses(there, loss_range(there))
        mixture = beta_mixture(scaled, keep=inside)
        posterior = noisy_posterior(mixture, scaled)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert fitted(BetaMixture(*(field.cpu() for field in mixture))) == pytest.approx(fitted(expected), rel=1e-9)
    assert posterior.cpu().isfinite().all()
