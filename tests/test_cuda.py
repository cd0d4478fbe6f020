"""Smoke suite on a GPU: every method, every engine setting, no hidden waiting, recovery from a full memory. `pytest -m cuda`.

No CI machine has a GPU, so each test takes a device: on the CPU a few methods go through the same lines, on CUDA all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from small import make_task, pixels
from syncs import CASES, run_watched, watched
from torch import Tensor

from bench.check.miniature import make_cell, registered
from bench.check.subject import difference
from bench.engine import Engine
from bench.method import LossMethod, StepMethod, methods
from bench.ops.losses import cross_entropy
from bench.ops.mixtures import gaussian_mixture_1d
from bench.ops.neighbours import knn
from bench.trial import runner
from bench.trial.images import ResidentImages, ViewSettings
from bench.trial.runner import Options, run_cell
from bench.trial.task import Task

ON_CUDA = (pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))
CUDA = pytest.param("cuda", marks=ON_CUDA)
DEVICES = ["cpu", CUDA]
#: one of each level: they show on the CPU that a test works
SHOWN = ("erm", "co-teaching", "dividemix")


def everywhere(names: Iterable[str], shown: Iterable[str] = SHOWN) -> list[Any]:
    """(device, name) for a few names on the CPU and for all on CUDA."""
    there = [pytest.param("cuda", name, marks=ON_CUDA, id=f"cuda-{name}") for name in names]
    return [*(pytest.param("cpu", name, id=f"cpu-{name}") for name in shown), *there]


ENGINES = {
    "float32": Engine(), "tf32": Engine(tf32=True), "bfloat16": Engine("bfloat16"), "float16": Engine("float16"),
    "channels-last": Engine(channels_last=True), "all": Engine("bfloat16", channels_last=True, tf32=True),
}  # fmt: skip
EXACT = Engine(deterministic=True)


def cell_of(slug: str, **training: Any) -> dict[str, Any]:
    """Two epochs on the miniature data, in which every stage begins; only inside `registered()`."""
    return make_cell(methods()[slug], methods()[slug].smoke, training={"epochs": 2, **training})


def run(cell: dict[str, Any], device: str, engine: Engine = EXACT, on_epoch: Any = None, **options: Any) -> dict[str, Any]:
    """The record of a finished run, with the method's final state under `state`."""
    kept: list[Any] = []

    class Kept(runner._Trial):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            kept.append(self)

    with patch.object(runner, "_Trial", Kept):
        record = run_cell(cell, Options("suite", device=device, engine=engine, **options), on_epoch)
    assert record["status"] == "done", record.get("traceback") or record["reason"]
    return {**record, "state": kept[0].method.state_dict()}


def same_results(a: dict[str, Any], b: dict[str, Any]) -> None:
    for key in ("metrics", "curve", "state"):
        assert difference(a[key], b[key], key) is None


# --- every method


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("device", "slug"), everywhere(methods()))
def test_every_method_runs_under_every_engine(device: str, slug: str, engine: str) -> None:
    with registered():
        record = run(cell_of(slug), device, ENGINES[engine])
    assert record["warnings"] == [] and record["provenance"]["engine"] == ENGINES[engine].describe()
    assert record["cost"]["device_memory"] == device and record["cost"]["peak_memory_bytes"] > 0
    assert all(math.isfinite(value) for value in record["metrics"].values() if isinstance(value, float))
    assert record["curve"]["epoch"] == [0, 1]
    assert device in {tensor.device.type for tensor in tensors(record["state"])}


def tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return [tensor for value in inner for tensor in tensors(value)]


@pytest.mark.parametrize(("device", "slug"), everywhere(methods()))
def test_the_first_epoch_is_nearly_the_cpus(device: str, slug: str) -> None:
    """Same labels, initial weights, order and crops; five steps of rounding errors apart."""
    with registered():
        cell = cell_of(slug, epochs=1)
        here, there = run(cell, "cpu"), run(cell, device)
    assert here["noise"]["sha256"] == there["noise"]["sha256"]
    for name in ("forward_images", "backward_images"):
        assert here["cost"][name] == there["cost"][name]
    for a, b in zip(tensors(here["state"]), tensors(there["state"]), strict=True):
        if a.is_floating_point() and a.ndim > 0:
            torch.testing.assert_close(b.cpu(), a, rtol=1e-2, atol=1e-3, equal_nan=True)
    if "train_loss" in here["curve"]:
        assert there["curve"]["train_loss"] == pytest.approx(here["curve"]["train_loss"], rel=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("device", "slug"), everywhere(methods()))
def test_deterministic_runs_repeat_their_bits(device: str, slug: str, precision: str) -> None:
    engine = Engine(precision, deterministic=True)
    with registered():
        same_results(run(cell_of(slug), device, engine), run(cell_of(slug), device, engine))


class Stop(BaseException):
    pass


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(("device", "slug"), everywhere(methods()))
def test_resumed_runs_end_in_the_same_bits(device: str, slug: str, optimizer: str, tmp_path: Any) -> None:
    def interrupt(epoch: int, values: Any) -> None:
        if epoch == 1:
            raise Stop

    with registered():
        cell = cell_of(slug, epochs=3, optimizer=optimizer, lr=0.01)
        straight = run(cell, device, Engine("float16", deterministic=True))
        where: dict[str, Any] = {"work_folder": str(tmp_path), "checkpoint_seconds": 0.0}
        with pytest.raises(Stop):
            run(cell, device, Engine("float16", deterministic=True), interrupt, **where)
        epochs: list[int] = []
        resumed = run(cell, device, Engine("float16", deterministic=True), lambda epoch, values: epochs.append(epoch), **where)
    assert epochs == [1, 2]
    same_results(straight, resumed)


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compile_", ["default", "cuda-graphs"])
@pytest.mark.parametrize("slug", SHOWN)
def test_compiled_networks_agree(slug: str, compile_: str) -> None:
    """Several passes before one backward, passes of other networks in between, a last partial batch."""
    with registered():
        cell = cell_of(slug, epochs=1)
        plain, compiled = run(cell, "cuda"), run(cell, "cuda", Engine(compile=compile_, deterministic=True))
    assert compiled["warnings"] == []
    assert compiled["curve"]["train_loss"] == pytest.approx(plain["curve"]["train_loss"], rel=1e-3)


# --- waiting


STEPS = [case for case, (slug, _) in CASES.items() if issubclass(methods()[slug], StepMethod)]


@pytest.mark.parametrize(("device", "case"), everywhere(STEPS, ["erm", "co-teaching"]))
def test_steps_never_wait(device: str, case: str) -> None:
    assert sorted(set(run_watched(case, device).steps)) == []


@pytest.mark.parametrize(("device", "case"), everywhere(CASES))
def test_waiting_does_not_grow_with_the_number_of_batches(device: str, case: str) -> None:
    few, many = run_watched(case, device, 16).epochs, run_watched(case, device, 8).epochs
    assert [len(found) for found in few] == [len(found) for found in many], (few, many)


@pytest.mark.parametrize("device", DEVICES)
def test_the_watch_sees_waiting(device: str) -> None:
    x = torch.arange(6.0).to(device)
    with watched(device) as found:
        x.sum().item()
        _ = x[x > 2]
    assert len(found) >= 2 and all("test_cuda.py" in place for place in found)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("device", DEVICES)
def test_learners_never_wait(device: str, precision: str, optimizer: str) -> None:
    """Joint and clipped steps, skipped ones (float16 waits for those), averages and full passes."""
    training = {"optimizer": optimizer, "clip_norm": 1.0, "batch_size": 8}
    task = on(device, make_task, training=training, engine=Engine(precision))
    a, b = task.learner("a"), task.learner("b")
    average = task.average(a)
    task.start_epoch(0)
    with watched(device) as found:
        for batch in task.batches(("weak", "strong")):
            loss = F.cross_entropy(a(batch.images), batch.labels) + F.cross_entropy(b(batch.views[1]), batch.labels)
            a.step(loss, b, skip=loss > 2 if precision == "float32" else None)
            average.update(0.9, buffers=True)
        task.full_pass(average)
    assert found == []


def on(device: str, make: Any, count: int = 40, **settings: Any) -> Task:
    """A task whose images and labels live on `device`."""
    labels = torch.arange(count) % 3
    task = make(labels.to(device), images=pixels(count, channels=3).to(device), flip=True, **settings)
    assert task.device.type == device
    return task


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_skipped_step_changes_no_bit(device: str, optimizer: str) -> None:
    one, two = (on(device, make_task, training={"optimizer": optimizer, "lr": 0.01}).learner() for _ in range(2))
    images, labels = torch.randn(8, 3, 6, 6, device=device), torch.arange(8, device=device) % 3
    before = [p.detach().clone() for p in one.network.parameters()]
    one.step(one(images).mean() * torch.nan, skip=torch.tensor(True, device=device))
    assert all(torch.equal(a, b) for a, b in zip(before, one.network.parameters(), strict=True))
    two(images)  # batch statistics
    with watched(device):
        for net in (one, two):
            for _ in range(3):
                net.step(F.cross_entropy(net(images), labels), skip=torch.tensor(False, device=device))
    for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


# --- operations


@pytest.mark.parametrize("device", DEVICES)
def test_batches_are_those_of_the_cpu(device: str) -> None:
    """Order and weak views bit for bit; strong ones but for single grey levels of single pixels (`test_augment.py`)."""
    here, there = (on(where, make_task, training={"batch_size": 16}) for where in ("cpu", device))
    for task in (here, there):
        task.start_epoch(3)
    for a, b in zip(here.batches(("weak", "strong", "plain")), there.batches(("weak", "strong", "plain")), strict=True):
        assert torch.equal(a.index, b.index.cpu()) and torch.equal(a.labels, b.labels.cpu())
        for view in (0, 2):
            torch.testing.assert_close(b.views[view].cpu(), a.views[view], rtol=1e-6, atol=1e-6)
        apart = (b.views[1].cpu() - a.views[1]).abs()
        assert (apart > 1e-5).float().mean() < 1e-2 and apart.max() < 2 / 255 / 0.25


@pytest.mark.parametrize("device", DEVICES)
def test_initial_weights_are_those_of_the_cpu(device: str) -> None:
    def head(width: int) -> dict[str, torch.nn.Module]:
        return {"head": torch.nn.Linear(width, 4)}

    here, there = (on(where, make_task).learner(extra=head) for where in ("cpu", device))
    for a, b in zip(tensors(here.state_dict()), tensors(there.state_dict()), strict=True):
        assert torch.equal(a, b.cpu())


@pytest.mark.parametrize("device", DEVICES)
def test_neighbours_and_mixtures_are_those_of_the_cpu(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(500, 16, generator=generator)
    near = knn(features.to(device), 10).cpu()
    wanted = knn(features, 10)
    assert (near.sort(dim=1).values == wanted.sort(dim=1).values).float().mean() > 0.999  # but for near-ties
    losses = torch.cat([torch.rand(300, generator=generator) * 0.3, 0.6 + torch.rand(200, generator=generator) * 0.4])
    there, here = gaussian_mixture_1d(losses.to(device)), gaussian_mixture_1d(losses)
    assert there.posteriors.device.type == device
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("device", DEVICES)
def test_images_stay_on_the_device(device: str) -> None:
    images = ResidentImages(pixels(8).to(device), ViewSettings(1, True, (0.5,), (0.25,)))
    assert next(images.plain()).device.type == device
    (views,) = images.blocks([torch.arange(8).to(device)], ("weak", "strong"), lambda name: torch.Generator().manual_seed(0))
    assert {view.device.type for view in views} == {device}


# --- memory


class Greedy(LossMethod):
    """Asks for a petabyte in its second epoch."""

    slug = "greedy-of-this-test"

    fault: bool = True

    def loss(self, logits: Tensor, batch: Any) -> Tensor:
        if self.fault and self.task.current_epoch == 1:
            if self.task.device.type == "cpu":
                raise torch.OutOfMemoryError("stands for: CUDA out of memory")
            torch.empty(2**50, dtype=torch.uint8, device=self.task.device)
        return cross_entropy(logits, batch.labels)


@pytest.mark.parametrize("device", DEVICES)
def test_a_full_memory_is_a_failed_record_and_the_next_cell_runs(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(methods(), Greedy.slug, Greedy)
    with registered():
        record = run_cell(make_cell(Greedy, {}), Options("suite", device=device))
        assert record["status"] == "failed" and record["reason"].startswith("out of memory: ")
        assert record["curve"]["epoch"] == [0]
        following, alone = (run(make_cell(Greedy, {"fault": False}), device) for _ in range(2))
    same_results(following, alone)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_peak_of_memory_is_the_cells_own() -> None:
    """A worker is reused: a large cell before must not show in the record of a small one."""
    with registered():
        small = run(cell_of("erm"), "cuda")["cost"]["peak_memory_bytes"]
        torch.empty(2**30, dtype=torch.uint8, device="cuda")
        again = run(cell_of("erm"), "cuda")["cost"]["peak_memory_bytes"]
    assert again == pytest.approx(small, rel=0.5) and again < 2**30


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_finished_cell_leaves_no_memory_behind() -> None:
    with registered():
        run_cell(cell_of("dividemix"), Options("suite", device="cuda"))
        held = torch.cuda.memory_allocated()
        for _ in range(3):
            run_cell(cell_of("dividemix"), Options("suite", device="cuda"))
    assert torch.cuda.memory_allocated() <= held + 2**20
