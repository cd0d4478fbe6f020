"""A two-component Beta mixture that splits losses, scaled to [0, 1], into a clean and a noisy part.

Everything stays on the device of the values: no random start, no copy to the host, no wait for the device.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

EDGE = 1e-4  # values are moved this far inside (0, 1), where Beta densities may be infinite
DENSITY_FLOOR = 1e-12  # smallest weighted density of a component
VARIANCE_FLOOR = 1e-8  # a component on a single value would have none
INSIDE = 1e-3  # how far inside (0, 1) losses beyond its ends are put


class BetaMixture(NamedTuple):
    """A fitted two-component Beta mixture, components in ascending order of their means; all on one device.

    A degenerate fit has equal components and posteriors of one half: it says nothing about any sample.
    """

    alphas: Tensor  # float64 [2], > 0
    betas: Tensor  # float64 [2], > 0
    weights: Tensor  # float64 [2], summing to 1
    posteriors: Tensor  # float64 [N, 2], rows summing to 1; column 1 is the component of the larger mean
    degenerate: Tensor  # bool 0-d

    @property
    def means(self) -> Tensor:
        """alpha / (alpha + beta); float64 [2]."""
        return self.alphas / (self.alphas + self.betas)

    @property
    def variances(self) -> Tensor:
        """mean (1 - mean) / (alpha + beta + 1); float64 [2]."""
        return self.means * (1.0 - self.means) / (self.alphas + self.betas + 1.0)


def loss_range(losses: Tensor, low: float = 5.0, high: float = 95.0) -> tuple[Tensor, Tensor]:
    """The `low`-th and `high`-th percentile of losses [N >= 1] (linear between values); two 0-d tensors.

    O(N log N). ValueError: losses not 1-D or empty, or not 0 <= low <= high <= 100.
    Source: Arazo et al., ICML 2019 (released code): losses beyond them are outliers, left out of the fit.
    """
    if losses.dim() != 1 or losses.shape[0] == 0 or not 0.0 <= low <= high <= 100.0:
        raise ValueError(f"out of range: losses of shape {tuple(losses.shape)}, percentiles {low} and {high}")
    ordered = losses.detach().double().sort().values  # torch.quantile stops at 16 million values

    def percentile(share: float) -> Tensor:
        place = share / 100.0 * (losses.shape[0] - 1)
        below, above = math.floor(place), math.ceil(place)
        return ordered[below] + (ordered[above] - ordered[below]) * (place - below)

    return percentile(low), percentile(high)


def scale_losses(losses: Tensor, bounds: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(losses [N] scaled into (0, 1), whether they lie within the bounds): float64 [N] and bool [N].

    What would come to lie at 0 or 1 or beyond is set to 1e-3 and 1 - 1e-3, although a loss just inside may lie nearer.

    bounds: from loss_range, of these losses or of an earlier epoch's. Where they are equal (within 1e-5), losses above them
    get the largest value and all others the smallest. NaN counts as the largest loss, and as outside.
    Source: Arazo et al., ICML 2019 (released code, whose offsets of 1e-5 and 1e-6 are kept).
    """
    low, high = bounds
    losses = losses.detach().double()
    low_end = low + 1e-5
    scaled = (losses - low_end) / (high - low_end + 1e-6)
    scaled = torch.where(high > low_end, scaled, (losses > high).double())  # else the order could be turned round
    scaled = torch.where((scaled >= 1.0) | losses.isnan(), 1.0 - INSIDE, scaled)
    scaled = torch.where(scaled <= 0.0, INSIDE, scaled)
    return scaled, (losses >= low) & (losses <= high)


def beta_mixture(values: Tensor, *, n_iter: int = 10, keep: Tensor | None = None) -> BetaMixture:
    """Two Beta distributions fitted by EM to values [N] in [0, 1] (any real dtype; computed in float64, no gradient).

    The start is Beta(1, 2) and Beta(2, 1), half each; values are moved into [1e-4, 1 - 1e-4], wherever they lie. E-step:
    weighted densities, none below 1e-12, over their sum. M-step: with a component's weighted mean m and variance s^2 (none
    below 1e-8), alpha = m (m (1 - m) / s^2 - 1) and beta = alpha (1 - m) / m; weights are the mean responsibilities. A
    component whose moments fit no Beta distribution keeps its parameters. Ten steps from this start are not convergence,
    and published results depend on that.

    keep: bool [N], the values that the fit may use (None: all); posteriors are given for every value.
    degenerate: both means equal (within a millionth), as for no value, one or equal ones; a component that holds less
    than half a sample; a kept value that is not a number. O(N) a step, some 200 N bytes.
    ValueError: values not 1-D, n_iter < 1, keep of another shape. Source: Arazo et al., ICML 2019 (section 3.1, and the
    constants of the released code).
    """
    if values.dim() != 1:
        raise ValueError(f"expected values of shape [N], got {tuple(values.shape)}")
    if n_iter < 1:
        raise ValueError(f"n_iter must be at least 1, got {n_iter}")
    if keep is not None and keep.shape != values.shape:
        raise ValueError(f"expected keep of shape {tuple(values.shape)}, got {tuple(keep.shape)}")
    x = values.detach().double()
    use = torch.ones_like(x) if keep is None else keep.double()
    usable = (~x.isnan() | (use == 0)).all()
    x = x.nan_to_num(0.5).clamp(EDGE, 1.0 - EDGE)
    basis = _basis(x)
    parameters = _uniform(x)
    parameters[0, 1] = parameters[1, 0] = 2.0
    for _ in range(n_iter):
        parameters = _m_step(x, _posterior(basis, parameters).mul_(use), parameters)
    order = (parameters[0] / (parameters[0] + parameters[1])).argsort()
    parameters = parameters.index_select(1, order)
    alphas, betas, weights = parameters
    fitted = BetaMixture(alphas, betas, weights, _posterior(basis, parameters).T, torch.zeros_like(usable))

    apart = fitted.means[1] - fitted.means[0] > 1e-6  # false for equal values, one or none
    inhabited = (fitted.weights * use.sum() >= 0.5).all()
    sound = usable & apart & inhabited
    fallback = _no_mixture(x, use)
    return BetaMixture(*(torch.where(sound, a, b) for a, b in zip(fitted, fallback, strict=True)))


def noisy_posterior(mixture: BetaMixture, values: Tensor, *, bins: int = 100) -> Tensor:
    """Posterior of the component of the larger mean for values [M] in [0, 1], read from a table; float32 [M] in [0, 1].

    The table has `bins` entries on an even grid from 0 to 1; entry floor(bins * v) is taken, the last one from 1 on and
    for NaN, the first below 0. From its maximum on the table is constant: the posterior of a Beta mixture may fall again
    near 1. A degenerate mixture gives one half. ValueError: bins < 2. O(bins + M).
    Source: Arazo et al., ICML 2019 (released code).
    """
    if bins < 2:
        raise ValueError(f"bins must be at least 2, got {bins}")
    grid = torch.linspace(DENSITY_FLOOR, 1.0 - DENSITY_FLOOR, bins, dtype=torch.float64, device=mixture.alphas.device)
    parameters = torch.stack([mixture.alphas, mixture.betas, mixture.weights])
    density = _log_weighted_density(_basis(grid), parameters).exp()
    table = density[1] / (density.sum(dim=0) + DENSITY_FLOOR)
    top = table.argmax()
    table = torch.where(torch.arange(bins, device=table.device) >= top, table.take(top), table)
    table = torch.where(mixture.degenerate, 0.5, table)
    entry = (values.detach().double().nan_to_num(1.0).clamp(0.0, 1.0) * bins).long().clamp_max(bins - 1)
    return table[entry].float()


def _uniform(like: Tensor) -> Tensor:
    """Parameters [3, 2] of twice Beta(1, 1), filled on the device: a copy from the host would wait."""
    parameters = like.new_ones(3, 2)
    parameters[2] = 0.5
    return parameters


def _basis(x: Tensor) -> Tensor:
    """log x, log(1 - x) and 1: what the logarithm of a weighted Beta density is linear in; float64 [3, N]."""
    return torch.stack([x.log(), torch.log1p(-x), torch.ones_like(x)])


def _log_weighted_density(basis: Tensor, parameters: Tensor) -> Tensor:
    """log(weight * Beta density) of every component; float64 [2, N]. parameters: rows alpha, beta, weight; [3, 2]."""
    alpha, beta, weight = parameters
    log_norm = torch.lgamma(alpha + beta) - torch.lgamma(alpha) - torch.lgamma(beta) + weight.log()
    return torch.stack([alpha - 1.0, beta - 1.0, log_norm], dim=1) @ basis


def _posterior(basis: Tensor, parameters: Tensor) -> Tensor:
    """Share of each component in the density, floored as in the E-step; float64 [2, N], columns summing to 1."""
    log_density = _log_weighted_density(basis, parameters).clamp_min_(math.log(DENSITY_FLOOR))
    apart = log_density[1] - log_density[0]
    return torch.stack([-apart, apart]).sigmoid_()


def _m_step(x: Tensor, responsibilities: Tensor, before: Tensor) -> Tensor:
    """Parameters [3, 2] by weighted moments for responsibilities [2, N]; `before` where the moments fit no Beta."""
    mass = responsibilities.sum(dim=1)
    mean = responsibilities @ x / mass
    variance = ((responsibilities @ x.square()) / mass - mean.square()).clamp_min(VARIANCE_FLOOR)
    alpha = mean * (mean * (1.0 - mean) / variance - 1.0)
    fitted = torch.stack([alpha, alpha * (1.0 - mean) / mean, mass / mass.sum()])
    fits = (fitted[:2] > 0).all(dim=0) & fitted.isfinite().all(dim=0)
    fitted[:2] = torch.where(fits, fitted[:2], before[:2])
    fitted[2] = torch.where(fitted[2].isfinite(), fitted[2], before[2])
    return fitted


def _no_mixture(x: Tensor, use: Tensor) -> BetaMixture:
    """The degenerate result for float64 x [N]: one Beta distribution, twice."""
    uniform = _uniform(x)
    alphas, betas, _ = _m_step(x, use.expand(2, -1), uniform)
    return BetaMixture(
        alphas, betas, uniform[2], x.new_full((x.shape[0], 2), 0.5), torch.ones((), dtype=torch.bool, device=x.device)
    )
