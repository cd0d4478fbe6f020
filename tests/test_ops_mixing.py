"""bench.ops.mixing: card numbers, distribution, gradients; and no host synchronisation in any operation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from bench.ops import losses as L
from bench.ops.mixing import beta_mix_coefficient, linear_rampup, mix, mixmatch_batch, semi_loss
from bench.ops.mixtures import clean_posterior, min_max
from bench.ops.selection import small_loss, top_k_mean
from bench.ops.targets import ensemble_mean, one_hot, refurbish, sharpen

PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=40)
SEEDS = st.integers(0, 2**31)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def probabilities(seed: int, size: int, classes: int) -> Tensor:
    return (3 * torch.randn(size, classes, generator=generator(seed), dtype=torch.float64)).softmax(1)


# --- mixing


@pytest.mark.parametrize("alpha", [0.002, 0.5, 1.0, 4.0])
def test_mix_coefficient_is_a_folded_beta(alpha: float) -> None:
    from scipy.stats import beta, kstest

    g = generator(11)
    draws = np.array([beta_mix_coefficient(alpha, generator=g).item() for _ in range(3000)])
    assert draws.min() >= 0.5 and draws.max() <= 1.0
    # The folded variable has distribution function 2 F(x) - 1 on [1/2, 1]. Rounding to float32 makes atoms at 1.
    inside = np.sort(draws[draws < 0.999999])
    assert len(inside) / len(draws) == pytest.approx(2 * beta.cdf(0.999999, alpha, alpha) - 1, abs=0.02)
    if len(inside) > 1000:
        top = 2 * beta.cdf(0.999999, alpha, alpha) - 1
        assert kstest(inside, lambda x: (2 * beta.cdf(x, alpha, alpha) - 1) / top).pvalue > 0.001


def test_random_numbers_come_from_the_generator_alone() -> None:
    torch.manual_seed(0)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr,index]
    x, t = torch.rand(8, 2, generator=generator(1)), torch.rand(8, 3, generator=generator(2))
    first = mixmatch_batch(x, t, 4.0, generator(5))
    torch.manual_seed(99)
    again = mixmatch_batch(x, t, 4.0, generator(5))
    other = mixmatch_batch(x, t, 4.0, generator(6))
    torch.set_rng_state(before)
    beta_mix_coefficient(0.5, generator=generator(5))
    mixmatch_batch(x, t, 4.0, generator(7))
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()  # type: ignore[index]
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_mix_coefficient_shape_type_and_errors() -> None:
    lam = beta_mix_coefficient(4.0, generator=generator(), device="cpu")
    assert lam.shape == () and lam.dtype == torch.float32
    with pytest.raises(ValueError, match="alpha"):
        beta_mix_coefficient(0.0, generator=generator())


def test_mix_of_two_rows() -> None:
    x, t = torch.tensor([[10.0], [20.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    mixed, targets = mix(x, t, 0.75, torch.tensor([1, 0]))
    assert mixed.tolist() == [[12.5], [17.5]]
    assert targets.tolist() == [[0.75, 0.25], [0.25, 0.75]]
    same = mix(x, t, torch.tensor(1.0), torch.tensor([1, 0]))
    assert torch.equal(same[0], x) and torch.equal(same[1], t)


@PROPERTY
@given(SEEDS, st.integers(2, 12))
def test_mixmatch_mixes_inputs_and_targets_alike(seed: int, size: int) -> None:
    # With the identity as inputs and as targets a mixed row shows its own coefficient and that of its partner.
    eye = torch.eye(size)
    inputs, targets = mixmatch_batch(eye.reshape(size, 1, size, 1), eye, 4.0, generator(seed))
    assert torch.equal(inputs.reshape(size, size), targets)
    assert torch.allclose(targets.sum(1), torch.ones(size)) and torch.allclose(targets.sum(0), torch.ones(size))
    own = targets.diagonal()
    assert (own >= 0.5).all()
    moved = own < 1
    assert own[moved].unique().numel() <= 1  # one coefficient for the whole batch


def test_mixed_precision_inputs_keep_their_type() -> None:
    x = torch.ones(4, 2, dtype=torch.bfloat16)
    mixed, targets = mixmatch_batch(x, torch.ones(4, 3), 4.0, generator())
    assert mixed.dtype == torch.bfloat16 and targets.dtype == torch.float32


def test_unlabelled_loss_is_the_mean_over_entries() -> None:
    none = torch.empty(0, 2)
    loss_x, loss_u = semi_loss(none, none, torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    assert loss_u.item() == 0.25 and loss_x.item() == 0.0
    loss_x, loss_u = semi_loss(torch.zeros(3, 2), torch.tensor([[1.0, 0.0]] * 3), none, none)
    assert loss_x.item() == pytest.approx(math.log(2)) and loss_u.item() == 0.0


def test_semi_loss_gradients() -> None:
    logits_x, logits_u = probabilities(1, 3, 4).log().requires_grad_(), probabilities(2, 5, 4).log().requires_grad_()
    targets_x, targets_u = probabilities(3, 3, 4).requires_grad_(), probabilities(4, 5, 4).requires_grad_()
    assert gradcheck(lambda a, b: semi_loss(a, targets_x.detach(), b, targets_u.detach()), (logits_x, logits_u))
    sum(semi_loss(logits_x, targets_x, logits_u, targets_u)).backward()  # type: ignore[union-attr]
    assert targets_x.grad is None and targets_u.grad is None
    assert logits_x.grad is not None and logits_u.grad is not None


def test_rampup_card_values() -> None:
    assert [25 * linear_rampup(e, 10) for e in (0, 10, 18, 26, 100)] == [0, 0, 12.5, 25, 25]
    assert linear_rampup(10.5, 10, length=2) == 0.25
    with pytest.raises(ValueError, match="length"):
        linear_rampup(1, 0, length=0)


# --- nothing in the step loop waits for the device


class NoHostSync(TorchDispatchMode):
    """Fails on the operators through which a tensor's values, or a size that depends on them, reach the host."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "bincount")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        if masks or name in self.FORBIDDEN:
            raise AssertionError(f"host synchronisation through {name}")
        return func(*args, **(kwargs or {}))


LOGITS = torch.randn(8, 3, generator=generator(1))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
PROBS = LOGITS.softmax(1)
VALUES = torch.rand(8, generator=generator(2))

STEP_FUNCTIONS: dict[str, Callable[[], object]] = {
    "cross_entropy": lambda: L.cross_entropy(LOGITS, LABELS),
    "soft_cross_entropy": lambda: L.soft_cross_entropy(LOGITS, PROBS),
    "gce": lambda: L.gce(LOGITS, LABELS, 0.7),
    "gce_truncated": lambda: L.gce_truncated(LOGITS, LABELS, 0.7, 0.5, VALUES > 0.5),
    "truncated_gce_weights": lambda: L.truncated_gce_weights(LOGITS, LABELS, 0.5),
    "elr_regulariser": lambda: L.elr_regulariser(PROBS, PROBS),
    "negative_entropy": lambda: L.negative_entropy(LOGITS),
    "uniform_prior_kl": lambda: L.uniform_prior_kl(PROBS.mean(0)),
    "one_hot": lambda: one_hot(LABELS, 3),
    "refurbish": lambda: refurbish(PROBS, PROBS, VALUES),
    "sharpen": lambda: sharpen(PROBS, 0.5),
    "ensemble_mean": lambda: ensemble_mean(PROBS, PROBS),
    "small_loss": lambda: small_loss(VALUES, 0.5),
    "top_k_mean": lambda: top_k_mean(VALUES, 0.5),
    "mixmatch_batch": lambda: mixmatch_batch(LOGITS, PROBS, 4.0, generator(3)),
    "semi_loss": lambda: semi_loss(LOGITS, PROBS, LOGITS, PROBS),
    "clean_posterior": lambda: clean_posterior(VALUES, smaller_is_clean=True),
    "clean_posterior (degenerate)": lambda: clean_posterior(torch.ones(5), smaller_is_clean=True),
    "min_max": lambda: min_max(VALUES),
}


@pytest.mark.parametrize("name", STEP_FUNCTIONS)
def test_no_host_synchronisation(name: str) -> None:
    with NoHostSync():
        STEP_FUNCTIONS[name]()


@pytest.mark.parametrize(
    "waiting", [lambda: VALUES[0].item(), lambda: VALUES[VALUES > 0.5], lambda: bool(VALUES[0] > 0)]
)
def test_the_synchronisation_check_sees_synchronisation(waiting: Callable[[], object]) -> None:
    with pytest.raises(AssertionError, match="host synchronisation"), NoHostSync():
        waiting()
