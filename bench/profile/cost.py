"""What the work is worth: floating-point operations of a network, and how many the device can do in a second."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from bench.engine import Engine
from bench.learner import Passes
from bench.profile.clock import Now, device_clock
from bench.profile.meter import Counts

#: rows of the square matrices whose product is the measure, and how often it is taken
CPU_SIZE, CUDA_SIZE, REPEATS = 1024, 8192, 7


def flops_per_image(net: Passes, shape: tuple[int, int, int]) -> int:
    """Operations of one forward pass of one image (C, H, W), counted by torch: products and additions of convolutions,
    matrix products and attention, each multiply-add as two; normalisation, activations and pooling are not counted."""
    from torch.utils.flop_counter import FlopCounterMode

    network, training = net.network, net.network.training
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, *shape, device=net.device))
    finally:
        network.train(training)
    return int(counter.get_total_flops())


def flops(counts: Counts, per_image: Callable[[Passes], int]) -> int:
    """Operations of these images through these networks; going backward is worth two passes forward."""
    return sum(per_image(net) * (forward + 2 * backward) for net, (forward, backward) in counts.items())


def device_peak(device: torch.device, engine: Engine, threads: int, now: Now | None = None) -> dict[str, Any]:
    """Operations per second of the best of some products of two square matrices in the engine's precision."""
    now = now or device_clock(device)
    size = CUDA_SIZE if device.type == "cuda" else CPU_SIZE
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad(), engine.applied(device):
            a = torch.full((size, size), 0.5, device=device, dtype=engine.dtype)
            a @ a  # the first one loads the library
            best = math.inf
            for _ in range(REPEATS):
                begin = now()
                a @ a
                best = min(best, now() - begin)
    finally:
        torch.set_num_threads(before)
    precision = "tf32" if engine.tf32 and engine.precision == "float32" and device.type == "cuda" else engine.precision
    return {"flops_per_second": 2 * size**3 / best, "matrix_size": size, "precision": precision}
