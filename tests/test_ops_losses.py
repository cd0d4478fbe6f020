"""bench.ops.losses, transitions and ldr: numbers of the method cards, limits, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from bench.ops.ldr import adapted_lambda, aldr_kl, ldr_kl, normalised_scores
from bench.ops.losses import (
    bootstrap_hard,
    bootstrap_soft,
    cross_entropy,
    elr_regulariser,
    gce,
    gce_truncated,
    negative_entropy,
    soft_cross_entropy,
    truncated_gce_weights,
    uniform_prior_kl,
)
from bench.ops.targets import one_hot
from bench.ops.transitions import anchor_transition, backward_correction, forward_correction, inverse_transition

PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=40)
SEEDS = st.integers(0, 2**31)
SIZES = st.tuples(st.integers(1, 9), st.integers(2, 12))


def logits_of(*label_probs: float) -> Tensor:
    """Two-class logits whose softmax gives class 0 exactly these probabilities."""
    p = torch.tensor(label_probs, dtype=torch.float64)
    return torch.stack([p, 1 - p], dim=1).log()


def batch(seed: int, size: int, classes: int, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(size, classes, generator=g, dtype=torch.float64)
    return logits, torch.randint(classes, (size,), generator=g)


def simplex(seed: int, size: int, classes: int) -> Tensor:
    return batch(seed + 1, size, classes)[0].softmax(1)


# --- cross-entropy


def test_cross_entropy_of_equal_logits_is_log_c() -> None:
    assert cross_entropy(torch.zeros(3, 10), torch.tensor([0, 4, 9])).tolist() == pytest.approx(
        [2.302585] * 3, abs=1e-6
    )


def test_cross_entropy_is_per_sample() -> None:
    losses = cross_entropy(logits_of(0.5, 0.25), torch.tensor([0, 1]))
    assert losses.tolist() == pytest.approx([math.log(2), -math.log(0.75)])


def test_half_precision_logits_are_raised_to_float32() -> None:
    logits, labels = (
        torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).bfloat16(),
        torch.tensor([0, 1, 2, 0]),
    )
    onehot = one_hot(labels, 3)
    for value in (
        cross_entropy(logits, labels),
        soft_cross_entropy(logits, onehot),
        gce(logits, labels, 0.7),
        bootstrap_soft(logits, labels, 0.9),
        bootstrap_hard(logits, labels, 0.9),
        forward_correction(logits, labels, torch.eye(3)),
        backward_correction(logits, labels, torch.eye(3)),
        normalised_scores(logits, "none"),
        negative_entropy(logits),
        uniform_prior_kl(logits.softmax(1).mean(0)),
    ):
        assert value.dtype == torch.float32
    assert torch.equal(cross_entropy(logits, labels), cross_entropy(logits.float(), labels))


@PROPERTY
@given(SEEDS, SIZES)
def test_soft_cross_entropy_of_one_hot_is_cross_entropy(seed: int, size: tuple[int, int]) -> None:
    logits, labels = batch(seed, *size)
    soft = soft_cross_entropy(logits, one_hot(labels, size[1], dtype=torch.float64))
    assert torch.allclose(soft, cross_entropy(logits, labels), atol=1e-12)


@PROPERTY
@given(SEEDS, SIZES)
def test_soft_cross_entropy_is_at_least_the_entropy_of_the_target(seed: int, size: tuple[int, int]) -> None:
    targets = simplex(seed, *size)
    entropy = -(targets * targets.log()).sum(1)
    assert (soft_cross_entropy(batch(seed, *size)[0], targets) >= entropy - 1e-12).all()
    assert torch.allclose(soft_cross_entropy(targets.log(), targets), entropy)


# --- generalised cross-entropy


def test_gce_card_values() -> None:
    losses = gce(logits_of(0.5, 0.1, 0.9, 1e-30), torch.zeros(4, dtype=torch.int64), 0.7)
    assert losses.tolist() == pytest.approx([0.549183, 1.143534, 0.101569, 1.428571], abs=5e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gce_limits_are_cross_entropy_and_one_minus_p(dtype: torch.dtype) -> None:
    p = torch.linspace(0.05, 0.999, 40, dtype=torch.float64)
    logits, labels = logits_of(*p.tolist()).to(dtype), torch.zeros(40, dtype=torch.int64)
    # The quadratic term of the expansion, q (ln p)^2 / 2, is below 4.5e-4 here: rounding must add next to nothing.
    assert (gce(logits, labels, 1e-4) - cross_entropy(logits, labels)).abs().max() < 5e-4
    assert torch.allclose(gce(logits, labels, 1.0), (1 - p).to(dtype), atol=1e-6)


def test_gce_gradient_is_p_to_the_q_times_the_cross_entropy_gradient() -> None:
    logits, labels = batch(3, 6, 5)
    logits.requires_grad_()
    (of_gce,) = torch.autograd.grad(gce(logits, labels, 0.7, eps=1e-15).sum(), logits)
    (of_ce,) = torch.autograd.grad(cross_entropy(logits, labels).sum(), logits)
    p = logits.detach().softmax(1).gather(1, labels[:, None])
    assert torch.allclose(of_gce, p**0.7 * of_ce, atol=1e-10)


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
def test_gce_stays_finite_where_the_label_is_impossible(q: float) -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    losses = gce(logits, torch.tensor([1, 1]), q)
    losses.sum().backward()
    assert losses[0].item() == pytest.approx(1 / q, rel=5e-3)
    assert losses[1].item() == pytest.approx(0.0, abs=1e-6)
    assert logits.grad is not None and logits.grad.isfinite().all()


@PROPERTY
@given(SEEDS, SIZES, st.floats(0.01, 1.0))
def test_gce_lies_between_zero_and_its_bounds(seed: int, size: tuple[int, int], q: float) -> None:
    logits, labels = batch(seed, *size, scale=10.0)
    losses = gce(logits, labels, q)
    assert (losses >= -1e-8).all() and (losses <= 1 / q).all()
    assert (losses <= cross_entropy(logits, labels) + 1e-8).all()


@pytest.mark.parametrize("q", [0.0, -0.5, 1.5, math.nan])
def test_gce_rejects_q_out_of_range(q: float) -> None:
    with pytest.raises(ValueError, match="q must lie"):
        gce(torch.zeros(1, 2), torch.tensor([0]), q)


# --- truncated


def test_truncated_gce_card_value() -> None:
    logits, labels = logits_of(0.6, 0.4), torch.tensor([0, 0])
    keep = truncated_gce_weights(logits, labels, 0.5)
    assert keep.tolist() == [True, False]
    losses = gce_truncated(logits, labels, 0.7, 0.5, keep)
    assert losses.mean().item() == pytest.approx(-0.059854, abs=1e-6)
    assert losses[1] == 0.0


def test_truncated_weights_keep_strictly_above_k_and_carry_no_gradient() -> None:
    logits = torch.log(torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]])).requires_grad_()
    keep = truncated_gce_weights(logits, torch.zeros(3, dtype=torch.int64), 0.5)
    assert keep.tolist() == [True, False, False] and not keep.requires_grad


def test_dropping_samples_leaves_the_gradient_of_the_kept_unchanged() -> None:
    logits, labels = batch(5, 6, 4)
    logits.requires_grad_()
    keep = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    (every,) = torch.autograd.grad(gce_truncated(logits, labels, 0.7, 0.5, torch.ones(6)).mean(), logits)
    (some,) = torch.autograd.grad(gce_truncated(logits, labels, 0.7, 0.5, keep).mean(), logits)
    (plain,) = torch.autograd.grad(gce(logits, labels, 0.7).mean(), logits)
    assert torch.equal(some, every * keep[:, None])
    assert torch.equal(every, plain)  # the constant L_q(k) has no gradient


@PROPERTY
@given(SEEDS, SIZES, st.floats(0.05, 1.0), st.floats(0.05, 0.95))
def test_one_search_step_gives_the_truncated_loss(seed: int, size: tuple[int, int], q: float, k: float) -> None:
    logits, labels = batch(seed, *size)
    keep = truncated_gce_weights(logits, labels, k)
    bound = (1 - k**q) / q
    found = gce_truncated(logits, labels, q, k, keep) + bound
    assert torch.allclose(found, gce(logits, labels, q).clamp(max=bound), atol=1e-7)


@pytest.mark.parametrize("k", [0.0, 1.0, -1.0])
def test_truncation_rejects_k_out_of_range(k: float) -> None:
    with pytest.raises(ValueError, match="k is a probability"):
        truncated_gce_weights(torch.zeros(1, 2), torch.tensor([0]), k)
    with pytest.raises(ValueError, match="k is a probability"):
        gce_truncated(torch.zeros(1, 2), torch.tensor([0]), 0.7, k, torch.ones(1))


# --- early-learning regularisation


def test_elr_card_value() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
    penalty = elr_regulariser(p, 0.3 * p)
    assert penalty.item() == pytest.approx(-0.176737, abs=1e-6)
    total = cross_entropy(p.log(), torch.tensor([1])) + 3 * penalty
    assert total.item() == pytest.approx(1.079226, abs=1e-6)


def test_elr_logit_gradient_in_closed_form() -> None:
    logits, _ = batch(7, 5, 4, scale=1.0)
    logits.requires_grad_()
    targets = 0.6 * simplex(7, 5, 4)
    (gradient,) = torch.autograd.grad(elr_regulariser(logits.softmax(1), targets).sum(), logits)
    p = logits.detach().softmax(1)
    inner = (p * targets).sum(1, keepdim=True)
    assert torch.allclose(gradient, -p * (targets - inner) / (1 - inner), atol=1e-12)


def test_elr_lower_bound_is_finite_for_one_hot_outputs() -> None:
    p = torch.tensor([[1.0, 0.0]]).clamp(1e-4, 1 - 1e-4)
    assert elr_regulariser(p, p).item() == pytest.approx(-8.517, abs=1e-2)
    assert elr_regulariser(p.double(), p.double()).item() == pytest.approx(math.log(2e-4 - 2e-8), abs=1e-3)


def test_elr_targets_are_constants() -> None:
    p, targets = simplex(1, 3, 4).requires_grad_(), simplex(2, 3, 4).requires_grad_()
    elr_regulariser(p, targets).sum().backward()
    assert targets.grad is None and p.grad is not None


@PROPERTY
@given(SEEDS, SIZES)
def test_elr_is_never_positive(seed: int, size: tuple[int, int]) -> None:
    p = batch(seed, *size, scale=20.0)[0].softmax(1).clamp(1e-4, 1 - 1e-4)
    penalty = elr_regulariser(p, p / p.sum(1, keepdim=True))
    assert (penalty <= 0).all() and penalty.isfinite().all()


# --- bootstrapping

P3 = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)


def test_bootstrap_card_values() -> None:
    logits, labels = P3.log(), torch.tensor([1])
    assert bootstrap_soft(logits, labels, 0.95).item() == pytest.approx(1.569057, abs=1e-6)
    assert bootstrap_hard(logits, labels, 0.8).item() == pytest.approx(1.358885, abs=1e-6)
    assert bootstrap_soft(logits, labels, 0.0).item() == pytest.approx(-float((P3 * P3.log()).sum()))
    assert bootstrap_soft(torch.tensor([[800.0, 0.0, 0.0]]), labels, 0.0).item() == 0  # the entropy of a certain prediction


@PROPERTY
@given(SEEDS, SIZES, st.floats(0, 1))
def test_bootstrap_limits_are_cross_entropy(seed: int, size: tuple[int, int], beta: float) -> None:
    logits, labels = batch(seed, *size)
    plain = cross_entropy(logits, labels)
    assert torch.allclose(bootstrap_soft(logits, labels, 1.0), plain, atol=1e-12)
    assert torch.allclose(bootstrap_hard(logits, labels, 1.0), plain, atol=1e-12)
    own = logits.argmax(1)
    assert torch.allclose(bootstrap_hard(logits, own, beta), cross_entropy(logits, own), atol=1e-12)
    for form in (bootstrap_soft, bootstrap_hard):
        assert torch.allclose(form(0 * logits, labels, beta), torch.full_like(plain, math.log(size[1])), atol=1e-12)


def test_soft_bootstrap_gradient_of_the_card() -> None:
    """(p - y) - (1 - beta) [(p - y) + p (log p + H(p))]; with p as a constant target it is beta (p - y)."""
    logits, labels = batch(4, 6, 5)
    logits.requires_grad_()
    p, y = logits.detach().softmax(1), one_hot(labels, 5, dtype=torch.float64)
    entropy = -(p * p.log()).sum(1, keepdim=True)
    (ours,) = torch.autograd.grad(bootstrap_soft(logits, labels, 0.9).sum(), logits)
    assert torch.allclose(ours, (p - y) - 0.1 * ((p - y) + p * (p.log() + entropy)), atol=1e-12)
    (constant,) = torch.autograd.grad(bootstrap_soft(logits, labels, 0.9, detach=True).sum(), logits)
    assert torch.allclose(constant, 0.9 * (p - y), atol=1e-12)


# --- correction by a transition matrix

T3 = torch.full((3, 3), 0.15, dtype=torch.float64) + 0.55 * torch.eye(3, dtype=torch.float64)
#: class 1 is given label 0 in 40 % of cases
T2 = torch.tensor([[1.0, 0.0], [0.4, 0.6]], dtype=torch.float64)


def test_forward_and_backward_card_values() -> None:
    labels = torch.tensor([0, 1, 2])
    logits = P3.log().expand(3, 3)
    assert forward_correction(logits, labels, T3).tolist() == pytest.approx([-math.log(x) for x in (0.535, 0.260, 0.205)])
    assert forward_correction(logits, labels, T3)[1].item() == pytest.approx(1.347074, abs=1e-6)
    inverse = inverse_transition(T3)
    assert inverse[0].tolist() == pytest.approx([1.545455, -0.272727, -0.272727], abs=1e-6)
    backward = backward_correction(logits, labels, inverse)
    assert backward.tolist() == pytest.approx([-0.515690, 1.762060, 3.022328], abs=1e-6)
    assert (T3 @ backward).tolist() == pytest.approx([0.356675, 1.609438, 2.302585], abs=1e-6)


def test_rows_of_a_transition_matrix_are_true_classes() -> None:
    """p = (0, 1) is seen as label 0 in 40 % of cases; a transposed matrix would say never."""
    logits = torch.tensor([[-30.0, 30.0]] * 2, dtype=torch.float64)
    losses = forward_correction(logits, torch.tensor([0, 1]), T2)
    assert losses.tolist() == pytest.approx([-math.log(0.4), -math.log(0.6)], abs=1e-5)
    p = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    backward = backward_correction(p.log().expand(2, 2), torch.tensor([0, 1]), inverse_transition(T2))
    ell = [-math.log(0.3), -math.log(0.7)]  # T^-1 = ((1, 0), (-2/3, 5/3))
    assert backward.tolist() == pytest.approx([ell[0], -2 / 3 * ell[0] + 5 / 3 * ell[1]])


def some_transition(seed: int, classes: int) -> Tensor:
    return 0.5 * torch.eye(classes, dtype=torch.float64) + 0.5 * simplex(seed, classes, classes)


@PROPERTY
@given(SEEDS, SIZES)
def test_the_identity_corrects_nothing_and_backward_is_unbiased(seed: int, size: tuple[int, int]) -> None:
    logits, labels = batch(seed, *size)
    plain, eye = cross_entropy(logits, labels), torch.eye(size[1], dtype=torch.float64)
    assert torch.allclose(forward_correction(logits, labels, eye), plain, atol=1e-6)
    assert torch.allclose(backward_correction(logits, labels, inverse_transition(eye)), plain, atol=1e-6)
    transition = some_transition(seed, size[1])
    assert torch.allclose(inverse_transition(transition) @ transition, eye, atol=1e-9)
    every = torch.arange(size[1])
    losses = backward_correction(logits[:1].expand(size[1], -1), every, inverse_transition(transition))
    assert torch.allclose(transition @ losses, -logits[0].log_softmax(0), atol=1e-6)


def test_corrections_stay_finite_at_the_edges() -> None:
    logits = torch.tensor([[500.0, -500.0], [-500.0, 500.0]], requires_grad=True)
    labels = torch.tensor([1, 1])
    empty = torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # no class can be given label 1, and T has no inverse
    inverse = inverse_transition(empty)
    for losses in (
        forward_correction(logits, labels, empty),
        forward_correction(logits, labels, torch.eye(2)),
        backward_correction(logits, labels, inverse),
        backward_correction(logits, torch.tensor([0, 1]), inverse_transition(T2.float())),
    ):
        assert losses.isfinite().all()
        assert torch.autograd.grad(losses.sum(), logits, retain_graph=True)[0].isfinite().all()
    # what the clip bounds: -log 1e-7, times the most negative entry
    assert backward_correction(logits, labels, torch.tensor([[1.0, 0.0], [-1.0, 2.0]])).min().item() == pytest.approx(
        math.log(1e-7), abs=1e-4
    )


def test_exact_anchors_recover_the_matrix() -> None:
    true = torch.arange(12) % 3
    noisy = one_hot(true, 3, dtype=torch.float64) @ T3
    assert torch.allclose(anchor_transition(noisy, None), T3, atol=1e-9)
    assert torch.allclose(anchor_transition(2 * noisy, None), T3, atol=1e-9)  # rows are normalised


def test_the_surest_samples_are_no_anchors() -> None:
    probs = torch.rand(101, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order = probs[:, 0].argsort(descending=True)
    expected = probs[order[4]] / probs[order[4]].sum()  # 97 % of 100 steps: three lie above the bound, one on it
    assert torch.allclose(anchor_transition(probs)[0], expected)
    assert anchor_transition(torch.full((5, 2), 0.5)).tolist() == [[0.5, 0.5]] * 2
    with pytest.raises(ValueError, match="percentile"):
        anchor_transition(probs, 0.0)


@PROPERTY
@given(SEEDS, st.integers(2, 90), st.integers(2, 6), st.sampled_from([50.0, 90.0, 97.0, 99.9]))
def test_anchors_as_numpy_finds_them(seed: int, size: int, classes: int, percentile: float) -> None:
    probs = simplex(seed, size, classes)
    found = anchor_transition(probs, percentile)
    for c in range(classes):
        column = probs[:, c].numpy()
        below = column < np.percentile(column, percentile, method="higher")
        anchor = int(np.where(below, column, -1).argmax())
        assert torch.allclose(found[c], probs[anchor] / probs[anchor].sum())
    assert torch.allclose(found.sum(1), torch.ones(classes, dtype=torch.float64))


# --- label-distributionally robust losses


def test_ldr_card_values() -> None:
    scores, labels = torch.zeros(1, 10, dtype=torch.float64), torch.tensor([3])
    assert ldr_kl(scores, labels, 1.0, 0.1).item() == pytest.approx(0.09044, abs=1e-5)
    assert ldr_kl(scores, labels, 1.0, 0.0).item() == pytest.approx(0, abs=1e-12)


@PROPERTY
@given(SEEDS, SIZES)
def test_ldr_limits(seed: int, size: tuple[int, int]) -> None:
    """lambda 1 without margin: cross-entropy - ln C; lambda -> 0: the largest violation; lambda -> infinity: their mean."""
    scores, labels = batch(seed, *size)
    assert torch.allclose(ldr_kl(scores, labels, 1.0, 0.0), cross_entropy(scores, labels) - math.log(size[1]), atol=1e-6)
    violation = scores - scores.gather(1, labels[:, None]) + 0.3 * (1 - one_hot(labels, size[1], dtype=torch.float64))
    assert torch.allclose(ldr_kl(scores, labels, 1e-3, 0.3), violation.amax(1), atol=1e-3 * math.log(size[1]) + 1e-9)
    assert torch.allclose(ldr_kl(scores, labels, 1e6, 0.3), violation.mean(1), atol=1e-4)
    own = torch.rand(size[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5
    each = torch.cat([ldr_kl(scores[i : i + 1], labels[i : i + 1], float(own[i]), 0.3) for i in range(size[0])])
    assert torch.allclose(ldr_kl(scores, labels, own, 0.3), each)


def test_lambda_follows_certainty() -> None:
    lam = torch.full((2,), 2.0, dtype=torch.float64)
    scores = torch.zeros(2, 6, dtype=torch.float64)
    scores[1, 4] = 500
    adapted = adapted_lambda(scores.requires_grad_(), lam, 2.0, 2.0)
    assert adapted[0].item() == pytest.approx(2.0) and not adapted.requires_grad
    spread = 5e-5 * (1 - math.log(1e-5))  # what mixing with 1e-5 takes from ln 6, to first order
    assert adapted[1].item() == pytest.approx(2 * (0.5 + spread / math.log(6) / 2), abs=1e-6)
    # it is the temperature of the last visit that the prediction is read at
    warm = adapted_lambda(torch.tensor([[1.0, 0.0]]), torch.tensor([5.0]), 2.0, 2.0)
    cold = adapted_lambda(torch.tensor([[1.0, 0.0]]), torch.tensor([0.5]), 2.0, 2.0)
    p = math.exp(2) / (1 + math.exp(2))
    divergence = p * math.log(2 * p) + (1 - p) * math.log(2 - 2 * p)
    assert cold.item() == pytest.approx(2 - divergence / math.log(2), abs=1e-4) and cold < warm < 2


def test_aldr_subtracts_the_price_of_lambda() -> None:
    scores, labels = batch(2, 4, 5)
    lam = torch.tensor([0.6, 0.8, 1.0, 0.5], dtype=torch.float64)
    price = 2 * math.log(5) / 2 * (lam - 1) ** 2
    assert torch.allclose(aldr_kl(scores, labels, lam, 1.0, 0.1, 2.0), ldr_kl(scores, labels, lam, 0.1) - price)
    assert torch.allclose(aldr_kl(scores, labels, torch.ones(4), 1.0, 0.1, 2.0), ldr_kl(scores, labels, 1.0, 0.1))


def test_normalised_scores_have_no_scale() -> None:
    scores, _ = batch(3, 5, 4)
    assert torch.allclose(normalised_scores(scores, "l1"), normalised_scores(7 * scores, "l1"))
    assert torch.allclose(normalised_scores(scores, "l1").abs().mean(1), torch.ones(5, dtype=torch.float64))
    positive = normalised_scores(scores, "softplus")
    assert torch.allclose(positive.mean(1), torch.ones(5, dtype=torch.float64)) and (positive > 0).all()
    assert positive[0, 0].item() / positive[0, 1].item() == pytest.approx(
        math.log1p(math.exp(scores[0, 0])) / math.log1p(math.exp(scores[0, 1]))
    )
    assert normalised_scores(scores, "none") is scores
    zero = torch.zeros(2, 3, requires_grad=True)
    loss = ldr_kl(normalised_scores(zero, "l1"), torch.tensor([0, 1]), 1.0, 0.1).sum()
    assert torch.autograd.grad(loss, zero)[0].abs().max() < 1e4  # a head that begins with zeros


# --- penalties


def test_negative_entropy_of_uniform_and_certain_predictions() -> None:
    values = negative_entropy(torch.tensor([[0.0, 0.0, 0.0, 0.0], [500.0, 0.0, 0.0, 0.0]]))
    assert values.tolist() == pytest.approx([-math.log(4), 0.0], abs=1e-6)


@PROPERTY
@given(SEEDS, SIZES)
def test_negative_entropy_range(seed: int, size: tuple[int, int]) -> None:
    values = negative_entropy(batch(seed, *size, scale=30.0)[0])
    assert (values <= 1e-12).all() and (values >= -math.log(size[1]) - 1e-12).all()


def test_uniform_prior_card_values() -> None:
    assert uniform_prior_kl(torch.full((5,), 0.2)).item() == pytest.approx(0.0, abs=1e-6)
    assert uniform_prior_kl(torch.tensor([0.7, 0.2, 0.1])).item() == pytest.approx(0.324287, abs=1e-6)


def test_uniform_prior_survives_an_underflowed_class() -> None:
    logits = torch.tensor([[300.0, 0.0], [280.0, 0.0]], requires_grad=True)
    value = uniform_prior_kl(logits.softmax(1).mean(0))
    value.backward()
    assert value.isfinite() and value > 10
    assert logits.grad is not None and logits.grad.isfinite().all()


@PROPERTY
@given(SEEDS, st.integers(2, 30))
def test_uniform_prior_is_a_divergence(seed: int, classes: int) -> None:
    p = simplex(seed, 1, classes)[0]
    expected = sum(math.log(1 / classes / v) / classes for v in p.tolist())
    assert uniform_prior_kl(p).item() == pytest.approx(expected, abs=1e-10)
    assert uniform_prior_kl(p) >= 0


# --- gradients against finite differences


@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_match_finite_differences(seed: int) -> None:
    logits, labels = batch(seed, 4, 3)
    logits.requires_grad_()
    targets = simplex(seed + 2, 4, 3)
    keep = torch.tensor([True, False, True, True])
    assert gradcheck(lambda z: cross_entropy(z, labels), logits)
    assert gradcheck(soft_cross_entropy, (logits, targets.clone().requires_grad_()))
    for q in (0.05, 0.7, 1.0):
        assert gradcheck(lambda z, q=q: gce(z, labels, q), logits)
    assert gradcheck(lambda z: gce_truncated(z, labels, 0.7, 0.5, keep), logits)
    assert gradcheck(lambda z: elr_regulariser(z.softmax(1), 0.8 * targets), logits)
    assert gradcheck(negative_entropy, logits)
    assert gradcheck(lambda z: uniform_prior_kl(z.softmax(1).mean(0)), logits)


@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_of_corrected_losses_match_finite_differences(seed: int) -> None:
    logits, labels = batch(seed, 4, 3)
    logits.requires_grad_()
    transition = some_transition(seed, 3)
    inverse, lam = inverse_transition(transition), 0.5 + simplex(seed, 4, 2)[:, 0]
    for beta in (0.0, 0.6, 1.0):
        assert gradcheck(lambda z, beta=beta: bootstrap_soft(z, labels, beta), logits)
        assert gradcheck(lambda z, beta=beta: bootstrap_hard(z, labels, beta), logits)
    assert gradcheck(lambda z: forward_correction(z, labels, transition), logits)
    assert gradcheck(lambda z: backward_correction(z, labels, inverse), logits)
    for how in ("softplus", "l1", "none"):
        assert gradcheck(lambda z, how=how: ldr_kl(normalised_scores(z, how), labels, 0.7, 0.1), logits)
        assert gradcheck(lambda z, how=how: aldr_kl(normalised_scores(z, how), labels, lam, 0.7, 0.1, 2.0), logits)
