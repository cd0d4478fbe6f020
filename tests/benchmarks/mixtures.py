"""One-dimensional mixtures on 50 000 values against scikit-learn, and class-wise LOF, one thread, medians.

    python tests/benchmarks/mixtures.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from bench.ops.beta_mixture import beta_mixture, loss_range, scale_losses
from bench.ops.mixtures import gaussian_mixture_1d
from bench.ops.outliers import class_lof


def milliseconds(action: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times[1:])


def main() -> None:
    from sklearn.mixture import GaussianMixture

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    noisy = torch.rand(50_000, generator=generator) < 0.4
    losses = torch.rand(50_000, generator=generator) ** 3 + 2.5 * noisy * torch.rand(50_000, generator=generator)
    scaled, _ = scale_losses(losses, loss_range(losses))
    column = losses.numpy()[:, None]
    theirs = milliseconds(
        lambda: GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0).fit(column).predict_proba(column), 9
    )
    rows = {
        "Gaussian mixture": milliseconds(lambda: gaussian_mixture_1d(losses), 9),
        "Beta mixture, 10 steps": milliseconds(lambda: beta_mixture(scaled), 9),
        "range and scaling for it": milliseconds(lambda: scale_losses(losses, loss_range(losses)), 9),
    }
    for name, value in rows.items():
        print(f"{name:<28} {value:6.1f} ms   (target <= 20)")
    print(f"{'scikit-learn, Gaussian':<28} {theirs:6.1f} ms   ratio {theirs / rows['Gaussian mixture']:.1f}")
    features = torch.randn(50_000, 128, generator=generator)
    labels = torch.arange(50_000) % 10
    seconds = milliseconds(lambda: class_lof(features, labels, 10, 10), 1) / 1000
    print(f"{'class-wise LOF, 10 x 5 000':<28} {seconds:6.1f} s    (target <= 10)")


if __name__ == "__main__":
    main()
