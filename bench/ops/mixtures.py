"""One-dimensional mixtures that split per-sample scores into a clean and a noisy part.

Everything stays on the device of the values: no random start, no copy to the host, no wait for the device.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Per component: mean, variance, weight; each float64 [2].
_Parameters = tuple[Tensor, Tensor, Tensor]


class Mixture(NamedTuple):
    """A fitted two-component Gaussian mixture, components in ascending order of their means; all on one device.

    A degenerate fit has equal components and posteriors of one half: it says nothing about any sample.
    """

    means: Tensor  # float64 [2]
    variances: Tensor  # float64 [2], > 0, variance floor included
    weights: Tensor  # float64 [2], summing to 1
    posteriors: Tensor  # float64 [N, 2], rows summing to 1
    n_iter: Tensor  # int64 0-d, EM iterations that changed the parameters
    converged: Tensor  # bool 0-d, stopped by `tol` rather than by `max_iter`
    degenerate: Tensor  # bool 0-d


def min_max(values: Tensor) -> Tensor:
    """(v - min) / (max - min) for values [N]; in [0, 1], zeros when all are equal. Integers become float32.

    Source: Li et al., DivideMix, ICLR 2020 (losses before the mixture is fitted).
    """
    values = values if values.is_floating_point() else values.float()
    if values.numel() == 0:
        return values
    low = values.min()
    span = values.max() - low
    return (values - low) / torch.where(span > 0, span, 1.0)


def gaussian_mixture_1d(values: Tensor, *, max_iter: int = 10, tol: float = 1e-2, reg_covar: float = 5e-4) -> Mixture:
    """Two Gaussians fitted by EM to values [N] (any real dtype; computed in float64, no gradient).

    The start is the best split into two clusters (the optimum of 2-means). Updates, the stop on a change of the mean
    log-likelihood below `tol`, and `reg_covar` added to both variances are those of scikit-learn's GaussianMixture:
    the same partition gives the same numbers. The defaults stop EM early on purpose: published results depend on it.

    degenerate: fewer than two values, all values equal, both means equal (within a millionth of the range), a component
    that holds less than half a sample, or a value that is not finite. ValueError: values not 1-D, max_iter < 1,
    negative tol or reg_covar. Source: Li et al., DivideMix, ICLR 2020; Chen et al., arXiv 2211.08722.
    """
    if values.dim() != 1:
        raise ValueError(f"expected values of shape [N], got {tuple(values.shape)}")
    if max_iter < 1 or tol < 0 or reg_covar < 0:
        raise ValueError(f"out of range: max_iter={max_iter}, tol={tol}, reg_covar={reg_covar}")
    x = values.detach().double()
    usable = (x.abs() < 1e100).all()  # squares must stay finite; false for NaN as well
    x = torch.where(usable, x, 0.0)  # then all are equal, hence degenerate
    if x.shape[0] < 2:
        return _no_mixture(x, reg_covar)
    low = x.min()
    x = x - low  # equal values become exact zeros, whatever their size

    parameters, n_iter, converged = _expectation_maximisation(x, max_iter, tol, reg_covar)
    _, posteriors = _e_step(x, *parameters)
    order = parameters[0].argsort()
    means, variances, weights = (p.index_select(0, order) for p in parameters)
    fitted = Mixture(
        means + low,
        variances,
        weights,
        posteriors.index_select(0, order).T.contiguous(),
        n_iter,
        converged,
        degenerate=torch.zeros_like(usable),
    )
    apart = means[1] - means[0] > 1e-6 * x.max()
    inhabited = (weights * x.shape[0] >= 0.5).all()
    sound = apart & inhabited & (variances > 0).all()  # comparisons are false for NaN
    fallback = _no_mixture(x + low, reg_covar)
    return Mixture(*(torch.where(sound, a, b) for a, b in zip(fitted, fallback, strict=True)))


def clean_posterior(
    values: Tensor, *, smaller_is_clean: bool, max_iter: int = 10, tol: float = 1e-2, reg_covar: float = 5e-4
) -> tuple[Tensor, Mixture]:
    """Posterior of the clean component for values [N]: (float32 [N] in [0, 1], the mixture behind it).

    smaller_is_clean: True for losses (the component with the smaller mean), False for label consistency. When the
    mixture is degenerate, every sample counts as clean (all ones): check `degenerate` and log it. Errors and settings
    as for gaussian_mixture_1d. Source: as gaussian_mixture_1d; the fallback is ours.
    """
    mixture = gaussian_mixture_1d(values, max_iter=max_iter, tol=tol, reg_covar=reg_covar)
    posterior = mixture.posteriors[:, 0 if smaller_is_clean else 1]
    return torch.where(mixture.degenerate, 1.0, posterior).float(), mixture


def _two_means(x: Tensor) -> Tensor:
    """Members of the upper cluster of the optimal 2-means split of x [N >= 2]; bool [N], all true if all are equal.

    In one dimension clusters are intervals, so it is enough to try every cut of the sorted values. Among equally good
    cuts the lowest counts; a cut inside a run of equal values is never the best. The optimum is also a fixed point of
    Lloyd's iteration, which needs a start and may miss it.
    """
    n = x.shape[0]
    ordered = x.sort().values
    size = torch.arange(1, n, dtype=x.dtype, device=x.device)
    cumulative = ordered.cumsum(0)
    lower_sum, mean = cumulative[:-1], cumulative[-1] / n
    between = (lower_sum - size * mean) ** 2 / (size * (n - size))  # between-cluster sum of squares over n
    return x >= ordered[1:].take(between.argmax())


def _expectation_maximisation(
    x: Tensor, max_iter: int, tol: float, reg_covar: float
) -> tuple[_Parameters, Tensor, Tensor]:
    """Parameters after EM from the 2-means start, the iterations used, and whether `tol` stopped it.

    Always runs max_iter rounds; once stopped, the parameters are frozen instead of leaving the loop, because the host
    would have to wait for the device to know.
    """
    upper = _two_means(x)
    parameters = _m_step(x, torch.stack([~upper, upper]).to(x.dtype), reg_covar)
    active = torch.ones((), dtype=torch.bool, device=x.device)
    n_iter = torch.zeros((), dtype=torch.int64, device=x.device)
    previous = torch.full((), -math.inf, dtype=x.dtype, device=x.device)
    for _ in range(max_iter):
        log_likelihood, responsibilities = _e_step(x, *parameters)
        means, variances, weights = _m_step(x, responsibilities, reg_covar)
        parameters = (
            torch.where(active, means, parameters[0]),
            torch.where(active, variances, parameters[1]),
            torch.where(active, weights, parameters[2]),
        )
        n_iter = n_iter + active
        active = active & ~((log_likelihood - previous).abs() < tol)
        previous = log_likelihood
    return parameters, n_iter, ~active


def _e_step(x: Tensor, means: Tensor, variances: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean log-likelihood (0-d) and responsibilities [2, N] of x [N]."""
    offset = weights.log() - 0.5 * (2.0 * math.pi * variances).log()
    log_joint = offset[:, None] - 0.5 * (x - means[:, None]) ** 2 / variances[:, None]
    log_total = torch.logaddexp(log_joint[0], log_joint[1])
    return log_total.mean(), (log_joint - log_total).exp()


def _m_step(x: Tensor, responsibilities: Tensor, reg_covar: float) -> _Parameters:
    """Weighted means, variances (plus the floor) and weights for responsibilities [2, N]."""
    mass = responsibilities.sum(dim=1) + 10 * torch.finfo(x.dtype).eps  # as scikit-learn: no division by zero
    means = responsibilities @ x / mass
    variances = (responsibilities * (x - means[:, None]) ** 2).sum(dim=1) / mass + reg_covar
    return means, variances, mass / mass.sum()


def _no_mixture(x: Tensor, reg_covar: float) -> Mixture:
    """The degenerate result for float64 x [N]: one Gaussian, twice."""
    mean = x.sum() / max(1, x.shape[0])
    variance = ((x - mean) ** 2).sum() / max(1, x.shape[0]) + reg_covar
    return Mixture(
        means=mean.repeat(2),
        variances=variance.repeat(2),
        weights=x.new_full((2,), 0.5),
        posteriors=x.new_full((x.shape[0], 2), 0.5),
        n_iter=torch.zeros((), dtype=torch.int64, device=x.device),
        converged=torch.zeros((), dtype=torch.bool, device=x.device),
        degenerate=torch.ones((), dtype=torch.bool, device=x.device),
    )
