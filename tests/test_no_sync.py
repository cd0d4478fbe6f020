"""No hidden waiting: the step loop of every method never makes the host wait for the device (law 7; design, data and compute).

A CPU stands for the device here, see `syncs.py`; `test_cuda.py` asks CUDA itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import make_task
from syncs import CASES, run_watched, watched

from bench.method import StepMethod, methods


@pytest.mark.parametrize("case", [case for case, (slug, _) in CASES.items() if issubclass(methods()[slug], StepMethod)])
def test_steps_never_wait(case: str) -> None:
    run = run_watched(case, "cpu")
    assert sorted(set(run.steps)) == [] and run.batches > 0


@pytest.mark.parametrize("case", CASES)
def test_waiting_does_not_grow_with_the_number_of_batches(case: str) -> None:
    """Once per epoch a method may wait, for a mixture or a split of the samples; with 5 batches as often as with 10."""
    few, many = run_watched(case, "cpu", 16).epochs, run_watched(case, "cpu", 8).epochs
    assert [len(found) for found in few] == [len(found) for found in many], (few, many)


# -- the harness's own part of the loop


@pytest.mark.parametrize("views", [("weak",), ("weak", "strong"), ("plain", "strong", "strong")], ids="-".join)
@pytest.mark.parametrize("flip", [False, True])
def test_batches_and_views_never_wait(views: tuple[str, ...], flip: bool) -> None:
    task = make_task(torch.arange(40) % 3, training={"batch_size": 8}, flip=flip)
    task.start_epoch(0)
    chosen = torch.arange(30)
    with watched("cpu") as found:
        for _ in task.batches(views):
            pass
        for _ in task.batches(views, indices=chosen, shuffle=False):
            pass
    assert found == []


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("by", ["epoch", "step"])
def test_a_learner_and_its_average_never_wait(optimizer: str, by: str) -> None:
    """Joint, clipped and skipped steps, the log, averages and full passes."""
    training = {"optimizer": optimizer, "clip_norm": 1.0, "schedule_by": by, "batch_size": 8}
    task = make_task(torch.arange(16) % 3, training=training)
    a, b = task.learner("a"), task.learner("b")
    average = task.average(a)
    task.start_epoch(0)
    with watched("cpu") as found:
        for batch in task.batches():
            loss = F.cross_entropy(a(batch.images), batch.labels) + F.cross_entropy(b(batch.images), batch.labels)
            a.step(loss, b, skip=loss > 2)
            average.update(0.9, buffers=True)
            average(batch.images)
        task.full_pass(average)
    assert found == []


# -- the watch itself


def numbers() -> torch.Tensor:
    return torch.arange(6.0)


READERS: dict[str, Any] = {
    "item": lambda x: x.sum().item(), "float": lambda x: float(x[0]), "int": lambda x: int(x[0]),
    "if": lambda x: bool(x.sum() > 0), "any": lambda x: any(x.isnan()), "range": lambda x: list(range(x.long()[1])),
    "nonzero": lambda x: torch.nonzero(x), "where": lambda x: torch.where(x > 1), "mask": lambda x: x[x > 1],
    "masked write": lambda x: x.clone().index_put_((x > 1,), x[2:]), "masked_select": lambda x: x.masked_select(x > 1),
    "unique": lambda x: x.unique(), "bincount": lambda x: x.long().bincount(), "draw": lambda x: x.multinomial(2),
    "repeat": lambda x: x.repeat_interleave(x.long()), "solve": lambda x: torch.linalg.inv(torch.eye(6) + x),
    "equal": lambda x: torch.equal(x, x), "allclose": lambda x: torch.allclose(x, x), "tolist": lambda x: x.tolist(),
    "one_hot": lambda x: F.one_hot(x.long()), "numpy": lambda x: x.detach().numpy(), "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"), "asarray": lambda x: np.asarray(x),
}  # fmt: skip


@pytest.mark.parametrize("reader", list(READERS))
def test_each_way_of_waiting_is_seen(reader: str) -> None:
    x = numbers()
    with watched("cpu") as found:
        READERS[reader](x)
    assert found and all("test_no_sync.py:" in place for place in found), found


def test_waiting_is_seen_in_what_is_computed_and_after_host_tensors_took_it_up() -> None:
    x, generator = numbers(), torch.Generator().manual_seed(0)
    with watched("cpu") as found:
        drawn = torch.rand(6, generator=generator)
        assert drawn.max().item() < 1 and drawn.tolist() and found == []
        view = drawn[:2]
        drawn.add_(x)
        view.sum().item()
    assert len(found) == 1


def test_what_is_made_on_or_moved_to_a_device_is_on_it() -> None:
    device, generator = torch.device("cpu"), torch.Generator().manual_seed(0)
    with watched("cpu") as found:
        torch.arange(6, device=device).tolist()
        drawn = torch.rand(6, generator=generator, device=generator.device)
        moved = drawn.to(device, non_blocking=False)
        drawn.tolist(), drawn.sum().item()
        assert len(found) == 1
        moved.sum().item()
    assert len(found) == 2


def test_what_the_host_made_and_what_stays_on_the_device_is_let_pass() -> None:
    x, generator = numbers(), torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(6, 6)
    with watched("cpu") as found:
        order = torch.randperm(6, generator=generator)
        coin = torch.rand((), generator=generator).item()
        if torch.tensor(1.0) > 0 and order.tolist() and coin < 2:
            y = x[order]
        y[y > 1] = 0.0
        F.cross_entropy(layer(y[None]), torch.tensor([1])).backward()
        x.masked_fill(x > 1, 0.0).topk(2), torch.where(x > 1, x, y), x.gather(0, order), y.sort()
        F.one_hot(x.long(), 6), F.one_hot(x.long(), num_classes=6)
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
    assert found == []
