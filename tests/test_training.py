"""bench.training: schedules against hand-worked numbers, the papers' plans and torch's schedulers; per epoch and per step."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import MLP, make_cell, make_task
from torch import nn
from torch.optim import lr_scheduler

from bench.cell import cell_id
from bench.fields import FieldError
from bench.learner import Learner
from bench.training import Training
from bench.trial.runner import Options, run_cell

SCHEDULES = ["constant", "multistep", "cosine", "cosine-restarts", "linear"]


def plan(at: range | list[int], **training: Any) -> list[float]:
    return [Training(**training).lr_at(epoch) for epoch in at]


def learner(**training: Any) -> Learner:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Linear(2, 1)
    return Learner(network, Training(**training))


def used(net: Learner, epochs: int, steps: int, first: int = 0) -> list[float]:
    """The learning rate of every step, as the weights move: the gradient of the bias is 1."""
    rates = []
    for epoch in range(first, first + epochs):
        net.start_epoch(epoch, steps)
        for _ in range(steps):
            before = net.network.bias.detach().double().clone()
            announced = net.lr
            net.step(net(torch.ones(2, 2)).mean())
            rates.append(float(before - net.network.bias.detach().double()))
            assert rates[-1] == pytest.approx(announced, rel=1e-3), "lr is the rate of the step to come"
    return rates


def of_torch(make: Callable[[torch.optim.Optimizer], Any], count: int, lr: float = 0.4) -> list[float]:
    """The first `count` rates of one of torch's schedulers."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr)
    scheduler, rates = make(optimizer), []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


# --- by epoch


def test_constant() -> None:
    assert plan(range(5), epochs=5, lr=0.3) == [0.3] * 5


def test_multistep() -> None:
    rates = plan(range(6), epochs=6, lr=0.1, schedule="multistep", milestones=(2, 4), gamma=0.1)
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    elr = plan([39, 40, 79, 80], epochs=120, lr=0.02, schedule="multistep", milestones=(40, 80), gamma=0.01)
    assert elr == pytest.approx([0.02, 2e-4, 2e-4, 2e-6])


def test_cosine_reaches_min_lr_at_the_end() -> None:
    rates = plan(range(5), epochs=4, lr=1.0, min_lr=0.2, schedule="cosine")
    s = math.sqrt(0.5)
    assert rates == pytest.approx([1.0, 0.6 + 0.4 * s, 0.6, 0.6 - 0.4 * s, 0.2])


def test_cosine_restarts_of_the_elr_card() -> None:
    rates = plan(range(150), epochs=150, lr=0.02, min_lr=1e-3, schedule="cosine-restarts", restart_every=10)
    assert rates[0] == rates[10] == rates[140] == 0.02
    assert rates[5] == pytest.approx((0.02 + 1e-3) / 2)
    assert min(rates) == pytest.approx(1e-3 + 0.019 / 2 * (1 + math.cos(0.9 * math.pi)))


def test_linear_plan_of_the_co_teaching_card() -> None:
    training = Training(epochs=200, lr=1e-3, schedule="linear", decay_from=80, optimizer="adam", beta1_after_decay=0.1)
    assert [training.lr_at(e) for e in (0, 79, 80)] == [1e-3] * 3
    assert training.lr_at(140) == pytest.approx(5e-4) and training.lr_at(199) == pytest.approx(1e-3 / 120)
    assert [training.beta1_at(e) for e in (0, 79, 80, 199)] == [None, None, 0.1, 0.1]
    assert Training(schedule="linear", decay_from=3).beta1_at(5) is None
    assert Training(schedule="constant", beta1_after_decay=0.1).beta1_at(5) is None
    net = Learner(nn.Linear(2, 1), training)
    for epoch, beta1, rate in ((0, 0.9, 1e-3), (80, 0.1, 1e-3), (140, 0.1, 5e-4)):
        net.start_epoch(epoch)
        group = net.optimizer.param_groups[0]
        assert group["betas"] == (beta1, 0.999) and group["lr"] == pytest.approx(rate)


def test_plan_of_the_llc_dro_card() -> None:
    """100 rounds after 5 epochs of warm-up: full rate in rounds 0 to 80, a tenth in 81 to 99."""
    rates = plan(range(105), epochs=105, lr=5e-4, schedule="multistep", milestones=(86,))
    assert rates == pytest.approx([5e-4] * 86 + [5e-5] * 19)


def test_warm_up_multiplies_the_schedule() -> None:
    rates = plan(range(5), epochs=5, lr=0.4, lr_warmup_epochs=4, schedule="multistep", milestones=(3,))
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.04, 0.04])


def test_beta1_of_sgd_is_left_alone() -> None:
    net = learner(schedule="linear", beta1_after_decay=0.1)
    net.start_epoch(0)
    assert "betas" not in net.optimizer.param_groups[0]


@settings(deadline=None, database=None, derandomize=True, max_examples=60)
@given(st.sampled_from(SCHEDULES), st.integers(1, 50), st.integers(0, 60), st.integers(0, 8), st.integers(1, 30), st.data())
def test_rates_are_positive_and_never_above_lr(schedule: str, epochs: int, decay: int, warm: int, steps: int, data: Any) -> None:
    training = Training(
        epochs=epochs, lr=0.5, schedule=schedule, decay_from=decay, lr_warmup_epochs=warm, min_lr=0.01,
        milestones=tuple(sorted(data.draw(st.sets(st.integers(0, 50), max_size=3)))),
    )  # fmt: skip
    assert all(0 < training.lr_at(epoch) <= 0.5 for epoch in range(epochs))
    by_step = [training.lr_at(epoch + step / steps, 1 / steps) for epoch in range(epochs) for step in range(steps)]
    assert all(0 < rate <= 0.5 for rate in by_step)
    if not warm:  # the first step of an epoch has the epoch's rate
        assert by_step[::steps] == [training.lr_at(epoch) for epoch in range(epochs)]


# --- against torch, by epoch (one step each) and by step

REFERENCES: list[tuple[str, dict[str, Any], Callable[[int], Callable[[torch.optim.Optimizer], Any]]]] = [
    ("cosine", {"schedule": "cosine", "min_lr": 0.01},
     lambda n: lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=6 * n, eta_min=0.01)),
    ("restarts", {"schedule": "cosine-restarts", "min_lr": 0.01, "restart_every": 2},
     lambda n: lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=2 * n, eta_min=0.01)),
    ("multistep", {"schedule": "multistep", "milestones": (2, 5), "gamma": 0.3},
     lambda n: lambda o: lr_scheduler.MultiStepLR(o, [2 * n, 5 * n], gamma=0.3)),
    ("linear", {"schedule": "linear"},
     lambda n: lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=6 * n)),
    ("warm-up", {"lr_warmup_epochs": 4},
     lambda n: lambda o: lr_scheduler.LinearLR(o, start_factor=1 / (4 * n), end_factor=1.0, total_iters=4 * n - 1)),
    ("warm-up and multistep", {"lr_warmup_epochs": 3, "schedule": "multistep", "milestones": (2,)},
     lambda n: lambda o: lr_scheduler.ChainedScheduler([
         lr_scheduler.LinearLR(o, start_factor=1 / (3 * n), end_factor=1.0, total_iters=3 * n - 1),
         lr_scheduler.MultiStepLR(o, [2 * n], gamma=0.1)])),
]  # fmt: skip


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize(("training", "make"), [case[1:] for case in REFERENCES], ids=[case[0] for case in REFERENCES])
def test_rates_are_those_of_torch(training: dict[str, Any], make: Any, steps: int) -> None:
    settings: dict[str, Any] = {"epochs": 6, "lr": 0.4, "momentum": 0.0, "weight_decay": 0.0, **training}
    by_step = used(learner(**settings, schedule_by="step"), epochs=6, steps=steps)
    assert by_step == pytest.approx(of_torch(make(steps), 6 * steps), rel=1e-4, abs=1e-7)
    by_epoch = used(learner(**settings), epochs=6, steps=steps)
    expected = [rate for rate in of_torch(make(1), 6) for _ in range(steps)]
    assert by_epoch == pytest.approx(expected, rel=1e-4, abs=1e-7)


# --- by step


def test_by_step_worked_by_hand() -> None:
    """Two epochs of two steps; cosine from 1 to 0 at 0, 1/4, 1/2, 3/4 of the way; warm-up 1/2, 1 in the first epoch."""
    net = learner(epochs=2, lr=1.0, momentum=0.0, weight_decay=0.0, schedule="cosine", lr_warmup_epochs=1, schedule_by="step")
    s = math.sqrt(0.5)
    assert used(net, epochs=2, steps=2) == pytest.approx([0.5, (1 + s) / 2, 0.5, (1 - s) / 2], rel=1e-5)


def test_a_milestone_and_a_restart_come_at_the_start_of_their_epoch() -> None:
    fixed = {"epochs": 4, "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "schedule_by": "step"}
    steps = used(learner(**fixed, schedule="multistep", milestones=(1,)), epochs=2, steps=3)
    assert steps == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1])
    restarts = used(learner(**fixed, schedule="cosine-restarts", restart_every=1), epochs=2, steps=2)
    assert restarts == pytest.approx([1, 0.5, 1, 0.5])


def test_steps_beyond_those_announced_keep_the_last_rate() -> None:
    net = learner(epochs=2, lr=1.0, schedule="cosine", schedule_by="step")
    net.start_epoch(1, steps=2)
    rates = [net.lr]
    for _ in range(4):
        net.step(net(torch.ones(2, 2)).mean())
        rates.append(net.lr)
    quarter = (1 - math.sqrt(0.5)) / 2
    assert rates == pytest.approx([0.5] + [quarter] * 4)


def test_a_rate_of_the_methods_own_holds_until_the_end_of_the_epoch() -> None:
    for by in ("epoch", "step"):
        net = learner(epochs=4, lr=1.0, schedule="linear", schedule_by=by)
        net.start_epoch(0, steps=2)
        net.set_lr(0.3)
        for _ in range(3):
            assert net.lr == 0.3
            net.step(net(torch.ones(2, 2)).mean())
        net.start_epoch(1, steps=2)
        assert net.lr == 0.75


def test_a_resumed_learner_has_the_same_rates() -> None:
    settings: dict[str, Any] = {"epochs": 4, "lr": 0.4, "schedule": "cosine", "lr_warmup_epochs": 3, "schedule_by": "step"}
    straight, first, second = learner(**settings), learner(**settings), learner(**settings)
    whole = used_rates(straight, range(4))
    before = used_rates(first, range(2))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert before + used_rates(second, range(2, 4)) == whole
    assert torch.equal(second.network.weight, straight.network.weight)


def used_rates(net: Learner, epochs: range, steps: int = 3) -> list[float]:
    rates = []
    for epoch in epochs:
        net.start_epoch(epoch, steps)
        for _ in range(steps):
            rates.append(net.lr)
            net.step(net(torch.ones(2, 2)).square().mean())
    return rates


def test_a_task_announces_the_steps_of_its_epoch() -> None:
    """8 samples in batches of 3 are three steps: 2/3 of the way at the last."""
    training = {"batch_size": 3, "epochs": 1, "lr": 0.9, "schedule": "linear", "schedule_by": "step"}
    task = make_task(torch.arange(8) % 3, training=training, model=MLP)
    net = task.learner()
    task.start_epoch(0)
    rates = []
    for batch in task.batches():
        rates.append(net.lr)
        net.step(net(batch.images).square().mean())
    assert rates == pytest.approx([0.9, 0.6, 0.3])


def test_the_steps_of_an_epoch_of_a_subset_are_those_of_the_subset() -> None:
    training = {"batch_size": 2, "epochs": 1, "lr": 0.9, "schedule": "linear", "schedule_by": "step"}
    task = make_task(torch.zeros(40, dtype=torch.int64), training=training, model=MLP, subset=lambda seed: torch.arange(6))
    net = task.learner()
    task.start_epoch(0)
    rates = []
    for batch in task.batches():
        rates.append(net.lr)
        net.step(net(batch.images).square().mean())
    assert rates == pytest.approx([0.9, 0.6, 0.3])


def test_the_curve_shows_the_rate_of_the_last_step_of_each_epoch() -> None:
    """1299 images in batches of 433: three steps per epoch; cosine over two epochs, then 2/6 and 5/6 of the way."""
    training = {"schedule": "cosine", "schedule_by": "step", "lr": 0.1, "batch_size": 433}
    record = run_cell(make_cell("erm", model=MLP, training=training), Options("suite"))
    expected = [0.05 * (1 + math.cos(math.pi * share)) for share in (2 / 6, 5 / 6)]
    assert record["curve"]["lr"] == pytest.approx(expected, abs=1e-6)


def test_by_epoch_is_neutral_and_by_step_is_another_cell() -> None:
    """`schedule_by` joined later: cells from before keep their ids."""
    plain = make_cell("erm")
    assert "schedule_by" not in plain["training"]
    assert cell_id(make_cell("erm", training={"schedule_by": "epoch"})) == cell_id(plain)
    assert cell_id(make_cell("erm", training={"schedule_by": "step"})) != cell_id(plain)
    assert Training(**plain["training"]).schedule_by == "epoch"


# --- values


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"lr": 0}, "lr: 0 is out of range"), ({"momentum": 1.0}, "momentum"), ({"epochs": 0}, "epochs"),
        ({"batch_size": 2.5}, "a whole number"), ({"schedule": "step"}, "one of constant, multistep"),
        ({"learning_rate": 0.1}, "no field"), ({"milestones": "10"}, "a list of a whole number"),
        ({"clip_norm": 0}, "clip_norm"), ({"augment": True}, "crop-flip, none"), ({"schedule_by": "batch"}, "one of epoch, step"),
    ],
)  # fmt: skip
def test_settings_are_checked(params: dict[str, Any], words: str) -> None:
    with pytest.raises(FieldError, match=words):
        Training(**params)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(FieldError, match="training.nesterov"):
        learner(nesterov=True, momentum=0)
