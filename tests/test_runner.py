"""bench.trial.runner and checkpoint: what a record says, what becomes of failures, and that resuming moves no bit."""

from __future__ import annotations

import gc
import io
import json
import math
import os
import random
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small import MLP, make_cell
from torch import Tensor

from bench.cell import cell_id
from bench.data import DataError
from bench.engine import Engine
from bench.method import EpochMethod, LossMethod, Method, methods
from bench.ops.losses import cross_entropy
from bench.records import load_record, write_record
from bench.trial import checkpoint, runner
from bench.trial import task as task_module
from bench.trial.runner import DeviceLost, Options, checkpoint_path, forget_checkpoint, run_cell
from bench.trial.storage import Folder

OPTIONS = Options("quickstart")


class Stop(BaseException):
    """Ends a run between two epochs, the way Ctrl-C does."""


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every trial that was run, the latest last."""
    made: list[Any] = []

    class Kept(runner._Trial):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(runner, "_Trial", Kept)
    return made


def with_method(monkeypatch: pytest.MonkeyPatch, cls: type[Method], **axes: Any) -> dict[str, Any]:
    """A cell of a method that only this test knows."""
    monkeypatch.setitem(methods(), cls.slug, cls)
    return make_cell(cls, **{"model": MLP, "noise": "none", **axes})


def same(a: Any, b: Any) -> bool:
    """Equal in every bit; NaN equals NaN."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


def results(record: dict[str, Any], trial: Any) -> dict[str, Any]:
    """What has to be the same bits whenever a cell is run."""
    return {
        "metrics": record["metrics"], "curve": trial.curve.as_dict(), "noise": record["noise"], "data": record["data"],
        "state": trial.method.state_dict(), "forward": record["cost"]["forward_images"],
        "backward": record["cost"]["backward_images"],
    }  # fmt: skip


# --- the record of a run


@pytest.fixture(scope="module")
def grouped() -> dict[str, Any]:
    cell = make_cell("llc-dro", {"warmup": 1, "k": 10}, dataset="spurious-digits", noise="uniform-flip@0.3", model=MLP)
    return run_cell(cell, OPTIONS)


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    return run_cell(make_cell("erm"), OPTIONS)


def test_a_record_is_complete(plain: dict[str, Any], tmp_path: Path) -> None:
    assert plain["status"] == "done" and plain["reason"] is None and plain["warnings"] == []
    assert (plain["schema"], plain["suite"], plain["cell"]) == (1, "quickstart", make_cell("erm"))
    assert plain["id"] == cell_id(plain["cell"]) and "traceback" not in plain
    assert load_record(write_record(tmp_path, plain)) == json.loads(json.dumps(plain)) | {
        "checksum": load_record(tmp_path / f"{plain['id']}.json")["checksum"]
    }


def test_metrics_and_curve_of_a_record(plain: dict[str, Any]) -> None:
    protocols = ("last", "last_k", "best_oracle", "selected")
    measured = {f"{metric}_{p}" for metric in ("test_acc", "val_acc", "noise_auc") for p in protocols}
    assert set(plain["metrics"]) == measured | {"epoch_best_oracle", "epoch_selected"}
    assert all(0 <= value <= 1 for value in plain["metrics"].values())
    curve = plain["curve"]
    assert set(curve) == {"epoch", "test_acc", "val_acc", "noise_auc", "train_loss", "lr"}
    assert curve["epoch"] == [0, 1] and all(len(series) == 2 for series in curve.values())
    assert plain["metrics"]["test_acc_last"] == pytest.approx(curve["test_acc"][-1], abs=5e-7)
    hits = plain["metrics"]["test_acc_last"] * 355  # of all test images, the last partial batch included
    assert hits == pytest.approx(round(hits))
    assert curve["lr"] == [0.05, 0.05] and curve["train_loss"][1] < curve["train_loss"][0]


def test_noise_and_data_of_a_record(plain: dict[str, Any]) -> None:
    noise, data = plain["noise"], plain["data"]
    assert noise["nominal"] == 0.5 and noise["rate"] == pytest.approx(0.45, abs=0.03)
    assert noise["train_rate"] == pytest.approx(noise["rate"], abs=0.02) and len(noise["sha256"]) == 64
    assert np.array(noise["matrix"]).sum(axis=1) == pytest.approx(np.ones(10), abs=1e-5)
    assert noise["classes"] == [str(digit) for digit in range(10)] and "exactly int(0.5 N)" in noise["definition"]
    assert (data["n_train"], data["n_val"], data["n_test"], data["groups"]) == (1299, 143, 355, None)
    assert data["canonical"] is True and len(data["fingerprint"]) == 64


def test_cost_and_provenance_of_a_record(plain: dict[str, Any]) -> None:
    cost, provenance = plain["cost"], plain["provenance"]
    # two epochs: every training image forward and backward once, validation and test images forward once
    assert cost["forward_images"] == 2 * (1299 + 143 + 355) and cost["backward_images"] == 2 * 1299
    assert cost["networks"] == 1 and cost["images_per_second"] > 0 and cost["peak_memory_bytes"] > 1e6
    assert all(cost[f"{clock}_seconds"] > 0 for clock in ("setup", "train", "eval"))
    assert set(provenance) >= {
        "bench", "git_commit", "git_dirty", "code", "python", "torch", "device", "host",
        "executor", "started", "finished",
    }  # fmt: skip
    assert provenance["executor"] == "inline" and provenance["device"].startswith("cpu")
    assert provenance["torch"] == torch.__version__ and provenance["started"] <= provenance["finished"]
    assert os.uname().nodename not in json.dumps(plain)


def test_a_grouped_record(grouped: dict[str, Any], tmp_path: Path) -> None:
    write_record(tmp_path, grouped)
    names = ["no loop/rows", "no loop/columns", "loop/rows", "loop/columns"]
    assert grouped["data"]["groups"] == names and grouped["data"]["validation"] == "official, true labels"
    curve, values = grouped["curve"], grouped["metrics"]
    assert set(curve["group_acc"]) == set(names)
    for epoch in (0, 1):
        worst = min(series[epoch] for series in curve["group_acc"].values())
        assert curve["worst_group_acc"][epoch] == worst
        # within each class the two groups are equally large: the average follows from the groups
        of_group = [curve["group_acc"][name][epoch] for name in names]
        sizes = np.array([214, 214, 141, 141])
        assert curve["test_acc"][epoch] == pytest.approx(float((sizes * of_group).sum() / 710), abs=1e-5)
    for protocol in ("last", "best_oracle", "selected"):
        assert min(values[f"group_acc_{protocol}"].values()) == values[f"worst_group_acc_{protocol}"]
    assert curve["noise_auc"][0] is None and 0 <= curve["noise_auc"][1] <= 1  # no score in warm-up
    assert "noise_auc_last_k" not in values and grouped["cost"]["networks"] == 2
    assert curve["degenerate_gmm"][0] is None and curve["degenerate_gmm"][1] is not None


def test_the_caller_hears_of_every_epoch(trials: list[Any]) -> None:
    heard = []
    record = run_cell(make_cell("erm", model=MLP), OPTIONS, lambda epoch, values: heard.append((epoch, values)))
    assert [epoch for epoch, _ in heard] == [0, 1]
    assert [values["test_acc"] for _, values in heard] == trials[-1].curve.values["test_acc"]
    assert heard[1][1]["test_acc"] == record["metrics"]["test_acc_last"]


def test_how_and_where_it_runs_moves_no_bit(trials: list[Any], tmp_path: Path) -> None:
    """Global random state, executor, suite, work folder, checkpoints: none of them enters the result (laws 1, 5)."""
    cell = make_cell("dividemix", {"warmup": 1}, training={"epochs": 3})
    found = []
    for seed, options in enumerate([OPTIONS, Options("other", executor="ray", work_folder=str(tmp_path),
                                                     checkpoint_seconds=0.0, time_limit=600.0)]):  # fmt: skip
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        found.append(results(run_cell(cell, options), trials[-1]))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.random.get_state()[1].tolist() == before[1] and random.getstate() == before[2]
    assert same(*found)
    other = run_cell(make_cell("dividemix", {"warmup": 1}, training={"epochs": 3}, seed=1), OPTIONS)
    assert not same(results(other, trials[-1]), found[0])


def test_layers_that_draw_random_numbers_are_reproducible(
    monkeypatch: pytest.MonkeyPatch, trials: list[Any], tmp_path: Path
) -> None:
    class Dropping(LossMethod):
        slug = "dropping"

        def loss(self, logits: Tensor, batch: Any) -> Tensor:
            return cross_entropy(torch.nn.functional.dropout(logits, 0.5), batch.labels)

    cell = with_method(monkeypatch, Dropping, training={"epochs": 3})
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(results(run_cell(cell, OPTIONS), trials[-1]))
    interrupted(cell, tmp_path, 2)
    record, _ = finished(cell, tmp_path)
    assert same(found[0], found[1]) and same(results(record, trials[-1]), found[0])
    losses = found[0]["curve"]["train_loss"]
    assert len(set(losses)) == 3


def test_the_noise_artefact_is_kept_in_the_work_folder(tmp_path: Path) -> None:
    record = run_cell(make_cell("erm", model=MLP), Options("suite", work_folder=str(tmp_path)))
    (path,) = (tmp_path / "noise").iterdir()
    with np.load(path) as stored:
        assert str(stored["sha256"]) == record["noise"]["sha256"]


# --- what goes wrong becomes a record


class Faulty(LossMethod):
    """Cross-entropy that goes wrong in its second epoch."""

    slug = "faulty"
    fault: str = ""

    def loss(self, logits: Tensor, batch: Any) -> Tensor:
        losses = cross_entropy(logits, batch.labels)
        if self.task.current_epoch == 1:
            if self.fault == "error":
                raise KeyError("no such thing")
            if self.fault == "memory":
                raise MemoryError("cannot allocate 1 TiB")
            if self.fault == "nan":
                return losses * math.nan
            if self.fault == "shape":
                return losses.mean()
        return losses

    def predict(self, images: Tensor) -> Tensor:
        if self.fault == "predictions" and self.task.current_epoch == 1:
            return super().predict(images) * math.inf
        return super().predict(images)


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("error", "failed", "KeyError: 'no such thing'"),
        ("memory", "failed", "out of memory: cannot allocate 1 TiB"),
        ("nan", "diverged", "the training loss is not finite in epoch 1"),
        ("predictions", "diverged", "predictions are not finite"),
        ("shape", "failed", "ValueError: faulty.loss must return one loss per sample, shape (128,); it returned ()"),
    ],
)
def test_faults_are_records(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str, status: str, reason: str
) -> None:
    cell = with_method(monkeypatch, Faulty, params={"fault": fault}, training={"epochs": 3})
    record = run_cell(cell, OPTIONS)
    assert (record["status"], record["reason"], record["metrics"]) == (status, reason, {})
    assert record["curve"]["epoch"] == [0] and record["cost"]["backward_images"] > 0  # what was reached is kept
    assert ("traceback" in record) == (reason.split(":")[0] in ("KeyError", "ValueError"))
    if "traceback" in record:
        assert "test_runner.py" in record["traceback"] or "method.py" in record["traceback"]
    load_record(write_record(tmp_path, record))
    fine = run_cell(with_method(monkeypatch, Faulty, training={"epochs": 3}), OPTIONS)
    assert fine["status"] == "done"  # without the fault it is


def test_real_divergence_is_a_record() -> None:
    record = run_cell(make_cell("erm", model=MLP, training={"lr": 1e12, "epochs": 4}), OPTIONS)
    assert record["status"] == "diverged" and "not finite" in record["reason"]


def test_a_passed_time_limit_is_a_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = [0.0]
    monkeypatch.setattr(task_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def later(epoch: int, values: Any) -> None:
        now[0] += 40.0

    options = Options("suite", time_limit=60.0)
    record = run_cell(make_cell("erm", model=MLP, training={"epochs": 5}), options, later)
    assert record["status"] == "failed" and record["reason"].startswith("exceeded the time limit of 60 s")
    assert record["curve"]["epoch"] == [0, 1] and record["metrics"] == {} and "traceback" not in record
    load_record(write_record(tmp_path, record))


@pytest.mark.parametrize(
    ("axis", "value", "reason"),
    [
        ("method", {"name": "emr", "version": 1, "params": {}}, "FieldError: method: unknown method 'emr'"),
        ("method", {"name": "erm", "version": 1, "params": {"q": 1}}, "FieldError: q: erm has no field 'q'"),
        ("dataset", {"name": "digit"}, "FieldError: dataset: unknown dataset 'digit'"),
        ("model", {"name": "huge"}, "FieldError: model: unknown model 'huge'"),
        ("noise", {"kind": "uniform-flip", "version": 1}, "FieldError: noise: uniform-flip needs two classes"),
        ("training", {"lr": -1}, "FieldError: lr: -1 is out of range"),
    ],
)
def test_cells_that_cannot_be_run_are_records(axis: str, value: Any, reason: str, tmp_path: Path) -> None:
    record = run_cell({**make_cell("erm"), axis: value}, OPTIONS)
    assert record["status"] == "failed" and record["reason"].startswith(reason)
    assert record["curve"] == {} and record["cost"]["networks"] == 0
    load_record(write_record(tmp_path, record))


def test_missing_data_is_no_record(tmp_path: Path) -> None:
    cell = {**make_cell("erm", noise="none"), "dataset": {"name": "cifar10", "revision": "1"}}
    with pytest.raises(DataError, match="CIFAR-10 is missing"):
        run_cell(cell, Options("suite", data_root=str(tmp_path)))


def test_an_interrupt_that_another_error_hides_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zip file that Ctrl-C leaves half written raises a ValueError when it is closed: no fault of the cell."""

    class Writing(LossMethod):
        slug = "writing"

        def loss(self, logits: Tensor, batch: Any) -> Tensor:
            try:
                raise KeyboardInterrupt
            finally:
                raise ValueError("cannot close the ZIP file")

    with pytest.raises(KeyboardInterrupt):
        run_cell(with_method(monkeypatch, Writing), OPTIONS)


ASSERT = "CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA`"


@pytest.mark.parametrize(
    ("text", "lost"), [(ASSERT, True), ("CUDA error: out of memory", False), ("CUDA out of memory.", False), ("other", False)]
)
@pytest.mark.parametrize("error", [RuntimeError, getattr(torch, "AcceleratorError", RuntimeError)])
def test_an_error_after_which_no_cell_can_run_in_the_process_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[RuntimeError], text: str, lost: bool
) -> None:
    class Asserting(LossMethod):
        slug = "asserting"

        def loss(self, logits: Tensor, batch: Any) -> Tensor:
            if self.task.current_epoch == 1:
                raise error(text)
            return cross_entropy(logits, batch.labels)

    record = run_cell(with_method(monkeypatch, Asserting), OPTIONS)
    assert isinstance(record, DeviceLost) == (lost or (text == "other" and error is not RuntimeError))
    assert record["status"] == "failed" and text in record["reason"]
    assert record["curve"]["epoch"] == [0] and record["cost"]["backward_images"] > 0
    load_record(write_record(tmp_path, record))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("method", ["erm", "elr-plus", "dividemix"])
def test_nothing_of_a_cell_outlives_it(monkeypatch: pytest.MonkeyPatch, method: str, fails: bool) -> None:
    """Whoever waits for Python's collector has two cells in the memory of the device; learners and averages among the parts."""
    parts: list[Any] = []

    class Noted(runner._Trial):
        def finish(self, begin: Any) -> None:
            assert self.task is not None
            held = [self, self.task, self.task._images, *self.task._learners.values(), *self.task._averages]
            parts.extend(weakref.ref(part) for part in held)
            super().finish(begin)

    monkeypatch.setattr(runner, "_Trial", Noted)
    if fails:
        monkeypatch.setattr(runner, "metrics", lambda *_: 1 / 0)
    gc.collect()
    gc.disable()
    try:
        record = run_cell(make_cell(method, methods()[method].smoke, model=MLP), OPTIONS)
        assert record["status"] == ("failed" if fails else "done") and len(parts) >= 4
        assert [type(part()).__name__ for part in parts if part() is not None] == []
    finally:
        gc.enable()


def test_interrupts_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(EpochMethod):
        slug = "interrupted"

        def setup(self, task: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cell(with_method(monkeypatch, Interrupted), OPTIONS)


def test_a_method_cannot_overwrite_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Boaster(LossMethod):
        slug = "boaster"

        def loss(self, logits: Tensor, batch: Any) -> Tensor:
            self.task.log("test_acc", 1.0)
            return cross_entropy(logits, batch.labels)

    record = run_cell(with_method(monkeypatch, Boaster), OPTIONS)
    assert record["status"] == "failed" and "task.log cannot write 'test_acc'" in record["reason"]


def test_what_a_method_logs_is_in_the_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    class Talkative(LossMethod):
        slug = "talkative"

        def loss(self, logits: Tensor, batch: Any) -> Tensor:
            epoch = self.task.current_epoch
            if epoch != 1:
                self.task.log("mood", epoch if epoch < 3 else math.inf)
            return cross_entropy(logits, batch.labels)

    record = run_cell(with_method(monkeypatch, Talkative, training={"epochs": 4}), OPTIONS)
    assert record["curve"]["mood"] == [0.0, None, 2.0, None]


def test_validation_is_told_to_those_who_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    class Listening(LossMethod):
        slug = "listening"
        needs = frozenset({"validation"})

        def loss(self, logits: Tensor, batch: Any) -> Tensor:
            return cross_entropy(logits, batch.labels)

        def validated(self, epoch: int, accuracy: float) -> None:
            told.append(accuracy)

    record = run_cell(with_method(monkeypatch, Listening), OPTIONS)
    assert told == pytest.approx(record["curve"]["val_acc"], abs=1e-6)
    Listening.needs = frozenset()
    run_cell(with_method(monkeypatch, Listening), OPTIONS)
    assert len(told) == 2


# --- checkpoints


def interrupted(cell: dict[str, Any], folder: Path, stop: int) -> None:
    """Run until epoch `stop` was trained; the checkpoint is that of the epoch before."""

    def on_epoch(epoch: int, values: Any) -> None:
        if epoch == stop:
            raise Stop

    with pytest.raises(Stop):
        run_cell(cell, Options("suite", work_folder=str(folder), checkpoint_seconds=0.0), on_epoch)


def finished(cell: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[int]]:
    epochs: list[int] = []
    options = Options("suite", work_folder=str(folder), checkpoint_seconds=0.0)
    record = run_cell(cell, options, lambda epoch, values: epochs.append(epoch))
    assert record["status"] == "done", record["reason"]
    return record, epochs


RESUMED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("erm", {}, {"optimizer": "adam", "schedule": "linear", "beta1_after_decay": 0.1, "decay_from": 2, "lr": 0.01}),
    ("gce", {}, {}),
    ("gce", {"truncated": True, "prune_from": 2, "prune_every": 2, "k": 0.2}, {}),
    ("elr", {}, {"schedule": "cosine-restarts", "restart_every": 2}),
    ("co-teaching", {"ramp_epochs": 3}, {}),
    ("dividemix", {"warmup": 2, "history": 2, "ramp_epochs": 2}, {"schedule": "multistep", "milestones": [3]}),
    ("llc-dro", {"warmup": 2, "k": 10}, {"clip_norm": 1.0}),
    ("llc-dro", {"warmup": 2, "confidence": "loss", "passes": 2, "prior_weight": 1.0, "ensemble": "logits"}, {}),
]


@pytest.mark.parametrize(("method", "params", "training"), RESUMED)
def test_resumed_runs_are_the_same_bits(
    trials: list[Any], tmp_path: Path, method: str, params: dict[str, Any], training: dict[str, Any]
) -> None:
    cell = make_cell(method, params, training={**training, "epochs": 5}, noise="symmetric@0.4")
    straight = results(run_cell(cell, OPTIONS), trials[-1])
    for stop in (1, 3, 4):  # in warm-up, and twice in the second stage
        interrupted(cell, tmp_path, stop)
    record, epochs = finished(cell, tmp_path)
    assert epochs == [4] and record["warnings"] == []
    assert same(results(record, trials[-1]), straight)


def stored(path: Path) -> dict[str, Any]:
    return torch.load(io.BytesIO(path.read_bytes()[32:]), weights_only=True)


def test_clocks_of_resumed_runs_add_up(trials: list[Any], tmp_path: Path) -> None:
    cell = make_cell("erm", model=MLP, training={"epochs": 3})
    interrupted(cell, tmp_path, 2)
    (path,) = tmp_path.glob("*.ckpt")
    before = stored(path)["clocks"]
    record, _ = finished(cell, tmp_path)
    for clock in ("setup_seconds", "train_seconds", "eval_seconds"):
        assert trials[-1].clocks[clock] > before[clock] > 0
    assert record["cost"]["backward_images"] == 3 * 1299


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """A cell that was interrupted, and its checkpoint."""
    cell = make_cell("erm", model=MLP, training={"epochs": 3})
    interrupted(cell, tmp_path, 2)
    (path,) = tmp_path.glob("*.ckpt")
    yield cell, path


def test_a_checkpoint_stays_until_it_is_forgotten(stopped: tuple[dict, Path], tmp_path: Path) -> None:
    cell, path = stopped
    options = Options("suite", work_folder=str(tmp_path))
    assert checkpoint_path(options, cell_id(cell)) == path
    finished(cell, tmp_path)
    assert path.exists()  # until the record is safely written
    forget_checkpoint(options, cell_id(cell))
    forget_checkpoint(options, cell_id(cell))
    assert not path.exists()
    assert checkpoint_path(OPTIONS, cell_id(cell)) is None
    forget_checkpoint(OPTIONS, cell_id(cell))


def test_no_checkpoint_before_it_is_due_or_after_the_last_epoch(tmp_path: Path) -> None:
    cell = make_cell("erm", model=MLP)
    run_cell(cell, Options("suite", work_folder=str(tmp_path)))
    single = make_cell("erm", model=MLP, training={"epochs": 1})
    run_cell(single, Options("suite", work_folder=str(tmp_path), checkpoint_seconds=0.0))
    assert list(tmp_path.glob("*.ckpt")) == []


@pytest.mark.parametrize("damage", ["empty", "cut", "tail", "flipped", "text", "folder"])
def test_a_damaged_checkpoint_is_a_warning_and_a_fresh_start(
    trials: list[Any], stopped: tuple[dict, Path], tmp_path: Path, damage: str
) -> None:
    cell, path = stopped
    good = path.read_bytes()
    middle = bytearray(good)
    middle[len(good) // 2] ^= 0x10
    contents = {"empty": b"", "cut": good[:-100], "tail": good + b"x", "flipped": bytes(middle), "text": b"{}"}
    content = contents.get(damage)
    path.unlink()
    if content is None:
        path.mkdir()
        options = Options("suite", work_folder=str(tmp_path))  # it cannot be replaced either
        record = run_cell(cell, options)
    else:
        path.write_bytes(content)
        record, epochs = finished(cell, tmp_path)
        assert epochs == [0, 1, 2]
    assert record["status"] == "done"
    (warning,) = record["warnings"]
    assert path.name in warning and "starting from the first epoch" in warning
    again = results(record, trials[-1])
    assert same(again, results(run_cell(cell, OPTIONS), trials[-1]))


def test_no_flipped_bit_of_a_checkpoint_is_accepted(stopped: tuple[dict, Path]) -> None:
    cell, path = stopped
    good = path.read_bytes()
    made = stored(path)["made"]
    where = Folder(path.parent)
    state, why = checkpoint.load(where, cell_id(cell), made, torch.device("cpu"))
    assert state is not None and why is None
    for position in range(0, len(good), 97):
        flipped = bytearray(good)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        state, why = checkpoint.load(where, cell_id(cell), made, torch.device("cpu"))
        assert state is None and "damaged" in why


def test_checkpoints_of_other_code_cells_and_versions_are_ignored(
    stopped: tuple[dict, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, path = stopped
    other = make_cell("erm", model=MLP, training={"epochs": 3}, seed=1)
    options = Options("suite", work_folder=str(tmp_path))
    path.rename(checkpoint_path(options, cell_id(other)))
    record, epochs = finished(other, tmp_path)
    assert epochs == [0, 1, 2] and "belongs to another cell or version" in record["warnings"][0]

    interrupted(cell, tmp_path, 2)
    monkeypatch.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
    record, epochs = finished(cell, tmp_path)
    assert epochs == [0, 1, 2] and "belongs to another cell or version" in record["warnings"][0]

    describe = runner.provenance.describe
    forget_checkpoint(options, cell_id(cell))
    interrupted(cell, tmp_path, 2)
    monkeypatch.setattr(runner.provenance, "describe", lambda *a: {**describe(*a), "code": "0123456789abcdef"})
    record, epochs = finished(cell, tmp_path)
    assert epochs == [0, 1, 2] and "was made by other code" in record["warnings"][0]


def test_a_checkpoint_of_another_engine_is_not_resumed(trials: list[Any], tmp_path: Path) -> None:
    """The record says of all epochs how they were computed."""
    cell = make_cell("erm", training={"epochs": 4})
    straight = results(run_cell(cell, OPTIONS), trials[-1])
    options = Options("suite", work_folder=str(tmp_path), checkpoint_seconds=0.0, engine=Engine("bfloat16"))

    def stop(epoch: int, values: Any) -> None:
        if epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        run_cell(cell, options, stop)
    record, epochs = finished(cell, tmp_path)
    (warning,) = record["warnings"]
    assert epochs == [0, 1, 2, 3] and "was made with precision bfloat16 (now float32), starting from the first" in warning
    assert same(results(record, trials[-1]), straight) and record["provenance"]["engine"]["precision"] == "float32"


@pytest.mark.parametrize(("key", "value"), [("torch", "2.0.0"), ("device", "cuda")])
def test_a_checkpoint_of_another_torch_or_kind_of_device_is_not_resumed(stopped: tuple[dict, Path], key: str, value: str) -> None:
    cell, path = stopped
    made = stored(path)["made"]
    assert set(made) == {"code", "torch", "device", *Engine().describe()}
    state, why = checkpoint.load(Folder(path.parent), cell_id(cell), {**made, key: value}, torch.device("cpu"))
    assert state is None and why is not None and f"was made with {key} {made[key]} (now {value})" in why


def test_what_a_method_keeps_on_the_host_stays_there(stopped: tuple[dict, Path]) -> None:
    """The meta device stands for a GPU."""
    cell, path = stopped
    gpu = torch.device("meta")
    state, _ = checkpoint.load(Folder(path.parent), cell_id(cell), stored(path)["made"], gpu)
    assert state is not None and state["method"]["last_losses"].device.type == "cpu"
    place, storage = checkpoint.placed(gpu), torch.zeros(3).untyped_storage()
    assert place(storage, "cpu").device.type == "cpu" and place(storage, "cuda:3").device.type == "meta"


def test_state_that_cannot_be_saved_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Hoarder(LossMethod):
        slug = "hoarder"

        def prepare(self, task: Any) -> None:
            self.things = {"best": [object()]}

        def loss(self, logits: Tensor, batch: Any) -> Tensor:
            return cross_entropy(logits, batch.labels)

    cell = with_method(monkeypatch, Hoarder)
    record = run_cell(cell, Options("suite", work_folder=str(tmp_path), checkpoint_seconds=0.0))
    assert record["status"] == "failed" and "hoarder.things['best'][0] is a object" in record["reason"]


@pytest.mark.faults
def test_a_checkpoint_that_cannot_be_written_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.trial.checkpoint.save", full)
    record = run_cell(make_cell(training={"epochs": 3}), Options("suite", work_folder=str(tmp_path), checkpoint_seconds=0))
    assert record["status"] == "done" and len(record["warnings"]) == 1
    assert "No space left on device" in record["warnings"][0]
