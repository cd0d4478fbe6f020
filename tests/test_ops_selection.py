"""bench.ops.targets and selection: numbers of the method cards, limits, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from bench.ops import losses as L
from bench.ops.selection import keep_schedule, kept_count, small_loss, top_k_mean
from bench.ops.targets import ensemble_mean, one_hot, refurbish, sharpen

PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=40)
SEEDS = st.integers(0, 2**31)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def probabilities(seed: int, size: int, classes: int) -> Tensor:
    return (3 * torch.randn(size, classes, generator=generator(seed), dtype=torch.float64)).softmax(1)


# --- targets


def test_one_hot() -> None:
    rows = one_hot(torch.tensor([2, 0]), 3)
    assert rows.tolist() == [[0, 0, 1], [1, 0, 0]] and rows.dtype == torch.float32
    assert one_hot(torch.empty(0, dtype=torch.int64), 3).shape == (0, 3)


def test_refine_and_sharpen_card_values() -> None:
    assert sharpen(torch.tensor([[0.6, 0.4]]), 0.5)[0].tolist() == pytest.approx([0.692308, 0.307692], abs=1e-6)
    refined = refurbish(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.3, 0.7]]), torch.tensor([0.8]))
    assert refined[0].tolist() == pytest.approx([0.86, 0.14], abs=1e-6)
    assert sharpen(refined, 0.5)[0].tolist() == pytest.approx([0.974183, 0.025817], abs=1e-6)


def test_refurbished_label_card_value_carries_no_gradient() -> None:
    p_f = torch.tensor([[0.2, 0.8]], requires_grad=True)
    p_g = torch.tensor([[0.4, 0.6]], requires_grad=True)
    weight = torch.tensor([0.25], requires_grad=True)
    target = refurbish(one_hot(torch.tensor([0]), 2), ensemble_mean(p_f, p_g), weight)
    assert target[0].tolist() == pytest.approx([0.475, 0.525])
    assert not target.requires_grad
    assert not refurbish(p_f, p_g, 0.5).requires_grad
    assert not sharpen(p_f, 0.5).requires_grad
    assert not ensemble_mean(p_f).requires_grad


def test_refurbish_weighs_every_row_by_its_own_confidence() -> None:
    target = refurbish(torch.eye(2), torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([1.0, 0.0]))
    assert target.tolist() == [[1.0, 0.0], [0.5, 0.5]]


@PROPERTY
@given(SEEDS, st.integers(1, 6), st.integers(2, 8))
def test_refurbish_limits_are_exact(seed: int, size: int, classes: int) -> None:
    labels = torch.randint(classes, (size,), generator=generator(seed))
    given_labels, p = one_hot(labels, classes, dtype=torch.float64), probabilities(seed, size, classes)
    assert torch.equal(refurbish(given_labels, p, torch.ones(size)), given_labels)
    assert torch.equal(refurbish(given_labels, p, torch.zeros(size)), p)
    assert torch.equal(refurbish(given_labels, p, 1.0), given_labels)
    assert torch.equal(sharpen(refurbish(given_labels, p, 1.0), 1.0), given_labels)


@PROPERTY
@given(SEEDS, st.integers(1, 6), st.integers(2, 100), st.floats(0.01, 5.0))
def test_sharpen_keeps_probabilities_and_their_order(seed: int, size: int, classes: int, temperature: float) -> None:
    p = probabilities(seed, size, classes)
    sharp = sharpen(p.float(), temperature)
    assert torch.allclose(sharp.sum(1), torch.ones(size), atol=1e-5)
    assert torch.equal(sharp.argmax(1), p.float().argmax(1))
    if temperature >= 0.1:  # the plain formula underflows below
        powers = p ** (1 / temperature)
        assert torch.allclose(sharpen(p, temperature), powers / powers.sum(1, keepdim=True))


def test_sharpen_limits() -> None:
    p = probabilities(0, 5, 100).float()
    assert torch.allclose(sharpen(p, 1.0), p, atol=1e-7)
    assert torch.allclose(sharpen(p, 1e-3), one_hot(p.argmax(1), 100), atol=1e-3)
    for temperature in (0.0, -1.0):
        with pytest.raises(ValueError, match="temperature"):
            sharpen(p, temperature)


def test_ensemble_mean() -> None:
    a, b, c = (probabilities(seed, 3, 4) for seed in (1, 2, 3))
    assert torch.allclose(ensemble_mean(a, b, c), (a + b + c) / 3)
    assert torch.equal(ensemble_mean(a), a)
    with pytest.raises(ValueError, match="at least one"):
        ensemble_mean()


# --- selection


def test_keep_schedule_card_values() -> None:
    drop = [1 - keep_schedule(0.5, 10, 1, epoch) for epoch in (0, 1, 2, 3, 9, 10, 199)]
    assert drop == pytest.approx([0, 0.05556, 0.11111, 0.16667, 0.5, 0.5, 0.5], abs=1e-5)


@PROPERTY
@given(st.floats(0, 1), st.integers(0, 30), st.floats(0.25, 4), st.integers(0, 60))
def test_keep_schedule_is_numpy_linspace(rate: float, ramp: int, exponent: float, epoch: int) -> None:
    expected = np.linspace(0, rate**exponent, ramp)[epoch] if epoch < ramp else rate
    assert keep_schedule(rate, ramp, exponent, epoch) == 1 - expected


def test_keep_schedule_with_an_exponent_jumps_to_the_rate_after_the_ramp() -> None:
    assert keep_schedule(0.5, 5, 2, 4) == 0.75
    assert keep_schedule(0.5, 5, 2, 5) == 0.5
    assert [keep_schedule(0.5, 1, 1, epoch) for epoch in (0, 1)] == [1.0, 0.5]
    for bad in ((1.5, 5, 1, 0), (0.5, -1, 1, 0), (0.5, 5, 0, 0), (0.5, 5, 1, -1), (math.nan, 5, 1, 0)):
        with pytest.raises(ValueError, match="out of range"):
            keep_schedule(*bad)


@pytest.mark.parametrize(
    ("share", "size", "count"),
    [
        (1 - 0.2, 128, 102),
        (1 - 0.5, 128, 64),
        (1 - 0.45, 128, 70),
        (0.7, 128, 89),
        (0.7, 59, 41),
        (0.7, 5, 3),
        (0.7, 1, 1),
        (1 - 0.9, 10, 1),  # in floating point 0.99...98
        (0.29, 100, 29),  # 28.99...96
        (1 - 0.9, 100, 10),
        (0.0, 7, 1),
        (1.0, 7, 7),
    ],
)
def test_kept_count(share: float, size: int, count: int) -> None:
    assert kept_count(share, size) == count
    assert small_loss(torch.zeros(size), share).shape == (count,)


@PROPERTY
@given(st.integers(0, 100), st.integers(1, 2000))
def test_kept_count_is_the_floor_of_the_exact_percentage(percent: int, size: int) -> None:
    expected = max(1, percent * size // 100)
    assert kept_count(percent / 100, size) == expected
    assert kept_count(1 - (100 - percent) / 100, size) == expected


def test_selection_rejects_shares_out_of_range_and_empty_batches() -> None:
    for share, size in ((-0.1, 4), (1.1, 4), (math.nan, 4), (0.5, 0)):
        with pytest.raises(ValueError, match="share"):
            small_loss(torch.zeros(size), share)
    for tau, size in ((0.0, 4), (-1.0, 4), (1.1, 4), (0.5, 0)):
        with pytest.raises(ValueError, match=r"tau|share"):
            top_k_mean(torch.zeros(size), tau)


def test_small_loss_is_ascending_stable_and_puts_nan_last() -> None:
    losses = torch.tensor([0.5, 0.1, math.nan, 0.5, 0.3, 0.1], requires_grad=True)
    assert small_loss(losses, 1.0).tolist() == [1, 5, 4, 0, 3, 2]
    assert small_loss(losses, 0.7).tolist() == [1, 5, 4, 0]
    assert small_loss(torch.zeros(200), 0.5).tolist() == list(range(100))


@PROPERTY
@given(st.lists(st.floats(0, 100, width=32), min_size=1, max_size=40), st.floats(0, 1))
def test_small_and_large_selections_agree_with_sorting(values: list[float], share: float) -> None:
    losses = torch.tensor(values, dtype=torch.float64)
    count = kept_count(share, len(values))
    picked = small_loss(losses, share)
    assert losses[picked].tolist() == sorted(values)[:count]
    assert len(set(picked.tolist())) == count
    if share > 0:
        largest = sorted(values, reverse=True)[:count]
        assert top_k_mean(losses, share).item() == pytest.approx(sum(largest) / count)


def test_exchange_gives_gradient_only_to_the_choice_of_the_peer() -> None:
    logits_1 = torch.randn(6, 3, generator=generator(4), requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    losses_2 = torch.tensor([5.0, 0.0, 4.0, 1.0, 3.0, 2.0])
    chosen = small_loss(losses_2, 0.5)
    L.cross_entropy(logits_1, labels)[chosen].mean().backward()
    assert logits_1.grad is not None
    assert logits_1.grad.abs().sum(1).gt(0).tolist() == [False, True, False, True, False, True]


def test_top_k_mean_card_values() -> None:
    losses = torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert [top_k_mean(losses, tau).item() for tau in (0.5, 1.0, 0.25, 0.1)] == [3.5, 2.5, 4.0, 4.0]
    assert top_k_mean(torch.tensor([0.1, 0.9, 0.5, 0.3, 0.7]), 0.7).item() == pytest.approx(0.7)
    assert top_k_mean(torch.arange(128.0), 0.7).item() == sum(range(39, 128)) / 89
    assert top_k_mean(torch.arange(59.0), 0.7).item() == sum(range(18, 59)) / 41


def test_top_k_mean_gives_exactly_zero_gradient_elsewhere() -> None:
    losses = torch.tensor([0.1, 0.9, 0.5, 0.3, 0.7], requires_grad=True)
    top_k_mean(losses, 0.7).backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx([0.0, 1 / 3, 1 / 3, 0.0, 1 / 3])
    assert losses.grad[[0, 3]].tolist() == [0.0, 0.0]
    tied = torch.ones(50, requires_grad=True)
    top_k_mean(tied, 0.5).backward()
    assert tied.grad is not None and tied.grad.nonzero().flatten().tolist() == list(range(25))


def test_top_k_mean_shows_a_nan_and_passes_gradcheck() -> None:
    assert top_k_mean(torch.tensor([1.0, math.nan, 2.0]), 0.4).isnan()
    losses = torch.rand(9, generator=generator(1), dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda v: top_k_mean(v, 0.4), losses)
    assert gradcheck(lambda v: top_k_mean(v, 1.0), losses)


def test_top_k_mean_is_the_cvar_dual_when_the_count_is_whole() -> None:
    losses, tau = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64), 0.5
    eta = torch.linspace(0, 5, 501, dtype=torch.float64)
    dual = eta + (losses - eta[:, None]).clamp_min(0).mean(1) / tau
    best = eta[dual <= dual.min() + 1e-12]
    assert dual.min().item() == pytest.approx(top_k_mean(losses, tau).item())
    assert (best.min().item(), best.max().item()) == pytest.approx((2.0, 3.0))
