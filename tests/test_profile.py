"""`bench profile`: where the time goes is told by clocks that the tests hold, so nothing here depends on how fast it runs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from finished import finish
from small import make_cell, make_task

from bench import cli
from bench.engine import Engine
from bench.learner import Learner, Passes
from bench.method import method_class, method_from_file
from bench.plan import Overrides
from bench.profile import choose, cost, measure, meter, show
from bench.profile.clock import CATEGORIES, Clock
from bench.profile.figure import draw
from bench.profile.measure import overhead, profile_cell
from bench.profile.meter import Epoch, Meter
from bench.records import record_files
from bench.trial import runner
from bench.trial.evaluate import Evaluator
from bench.trial.images import Images
from bench.trial.runner import Options, run_cell
from bench.trial.task import Task

CPU = torch.device("cpu")

EVERYTHING = '''
import torch
from bench.method import EpochMethod
from bench.ops.losses import cross_entropy

class Everything(EpochMethod):
    """One of each kind of work per batch, and a full pass at the end."""
    slug = "everything"

    def setup(self, task):
        self.net = task.learner()

    def epoch(self, epoch):
        self.task.generator("own")
        for batch in self.task.batches(("weak", "strong")):
            with torch.no_grad():
                self.net(batch.images)
            self.net.infer(batch.images)
            self.net.step(cross_entropy(self.net(batch.images), batch.labels).mean())
        self.task.logits(self.net)

    def predict(self, images):
        return self.net.infer(images).softmax(dim=1)
'''
STOPS = EVERYTHING.replace('self.task.generator("own")', "raise {error}").replace("everything", "stops")


class Hands:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    def moved_by(self, seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, taking so long."""

        def slow(*arguments: Any, **named: Any) -> Any:
            self.time += seconds
            return function(*arguments, **named)

        return slow


class Ticks:
    """A clock that moves by one with each reading."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        self.time += 1
        return self.time


def saved(folder: Path, source: str, name: str = "mine.py") -> Path:
    (folder / name).write_text(source)
    return folder / name


def here(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(cli.main, ["profile", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# -- the clock -----------------------------------------------------------------------------------------------------
def test_an_inner_section_stops_the_outer_one() -> None:
    hands = Hands()
    clock = Clock(hands)
    clock.enter("harness")
    hands.time = 1
    clock.enter("method")
    hands.time = 3
    clock.enter("forward")
    hands.time = 7
    clock.leave()
    hands.time = 15
    clock.leave()
    hands.time = 31
    clock.leave()
    hands.time = 63  # outside
    seconds = clock.read()
    assert (seconds["harness"], seconds["method"], seconds["forward"]) == (1 + 16, 2 + 8, 4)
    assert sum(seconds.values()) == 31 and list(seconds) == list(CATEGORIES)
    assert sum(clock.read().values()) == 0, "a reading begins anew"


def test_all_of_an_evaluation_is_evaluation() -> None:
    hands = Hands()
    clock = Clock(hands)

    @lambda function: clock.timed("evaluation", function)
    def evaluate() -> int:
        hands.time += 1
        clock.timed("forward", hands.moved_by(2, int))()
        hands.time += 4
        return 5

    assert evaluate() == 5
    clock.timed("forward", hands.moved_by(8, int))()
    seconds = clock.read()
    assert (seconds["evaluation"], seconds["forward"]) == (7, 8)


def test_a_section_ends_with_an_exception() -> None:
    hands = Hands()
    clock = Clock(hands)

    def fails() -> None:
        hands.time += 3
        raise KeyError

    with pytest.raises(KeyError):
        clock.timed("forward", fails)()
    hands.time += 5
    assert clock.read()["forward"] == 3


def test_what_is_done_with_an_item_is_not_the_iterators_time() -> None:
    hands, ended = Hands(), []
    clock = Clock(hands)

    def items(count: int) -> Iterator[int]:
        try:
            for number in range(count):
                hands.time += 2
                yield number
        finally:
            ended.append(count)

    found = []
    for item in clock.timed_iterator("data", items)(3):
        hands.time += 10
        found.append(item)
    assert found == [0, 1, 2] and clock.read()["data"] == 6
    loop = clock.timed_iterator("data", items)(4)
    next(loop)
    loop.close()
    assert ended == [3, 4], "leaving the loop ends the original"
    hands.time += 100
    assert clock.read()["data"] == 2


# -- a run under observation ---------------------------------------------------------------------------------------
def test_each_part_of_an_epoch_has_its_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, EVERYTHING)
    cell = make_cell(method_from_file(path), training={"batch_size": 256})
    hands = Hands()
    for seconds, owner, name in (
        (5, Task, "_check_deadline"),  # once per block of a loop, and per part of a full pass
        (1, Images, "_finish"),
        (10, Passes, "_forward"),
        (100, torch.autograd, "backward"),
        (1000, Learner, "_update"),
        (7, Task, "generator"),
        (3, Task, "epoch_log"),
        (20000, Evaluator, "_noise_auc"),
    ):
        monkeypatch.setattr(owner, name, hands.moved_by(seconds, getattr(owner, name)))
    found = Meter(hands, hands, fine=True).run(cell, Options("x", method_path=str(path)))
    assert found.record["status"] == "done", found.record["reason"]
    images = found.record["data"]["n_train"]
    assert 1024 < images <= 2048, "one block of rendering, and a full pass in two chunks"
    batches = -(-images // 256)
    for epoch in found.epochs:
        assert epoch.seconds == {
            "data": 5, "augmentation": 2, "forward": 10 * batches, "guess": 10 * batches, "inference": 10 * (batches + 2),
            "backward": 100 * batches, "optimiser": 1000 * batches, "method": 7 + 5, "harness": 3,
            "evaluation": 20000 + 2 * 10,
        }  # fmt: skip
        assert epoch.total == epoch.busy, "the parts are the epoch"
        assert epoch.training == epoch.total - 20020
        (net,) = epoch.trained
        assert epoch.trained[net] == (4 * images, images)
        held_out = found.record["data"]["n_test"] + found.record["data"]["n_val"]
        assert epoch.evaluated[net] == (held_out, 0)


def test_a_coarse_run_tells_training_from_evaluation_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    hands = Hands()
    monkeypatch.setattr(Evaluator, "_noise_auc", hands.moved_by(8, Evaluator._noise_auc))
    monkeypatch.setattr(Learner, "_update", hands.moved_by(1, Learner._update))
    found = Meter(hands, hands, fine=False).run(make_cell(), Options("x"))
    steps = -(-found.record["data"]["n_train"] // 128)
    for epoch in found.epochs:
        assert {name: value for name, value in epoch.seconds.items() if value} == {"harness": steps, "evaluation": 8}
    assert found.peak_bytes == 0


@pytest.mark.parametrize(("method", "params"), [("erm", {}), ("dividemix", {"warmup": 1}), ("llc-dro", {"warmup": 1})])
def test_a_profiled_run_ends_as_any_other(method: str, params: dict[str, Any]) -> None:
    cell = make_cell(method, params)
    plain = run_cell(cell, Options("x"))
    found = Meter(Ticks(), Ticks(), fine=True).run(cell, Options("x"))
    assert plain["status"] == "done" and plain["metrics"] == found.record["metrics"]
    assert plain["curve"] == found.record["curve"] and plain["detail"] == found.record["detail"]
    assert plain["warnings"] == found.record["warnings"]
    for name in ("forward_images", "backward_images"):
        assert plain["cost"][name] == found.record["cost"][name]
    forward = sum(measure.total(part, 0) for epoch in found.epochs for part in (epoch.trained, epoch.evaluated))
    backward = sum(measure.total(part, 1) for epoch in found.epochs for part in (epoch.trained, epoch.evaluated))
    assert (forward, backward) == (plain["cost"]["forward_images"], plain["cost"]["backward_images"])
    assert all(epoch.seconds["backward"] > 0 for epoch in found.epochs)


PATCHED = [
    (runner._Trial, "_epoch"), (Evaluator, "evaluate"), (Task, "batches"), (Task, "plain_images"), (Images, "_finish"),
    (Passes, "_forward"), (Learner, "step"), (torch.autograd, "backward"), (torch.autograd, "grad"),
]  # fmt: skip


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "RuntimeError('no')"])
def test_patches_are_undone_whatever_happens(tmp_path: Path, error: str) -> None:
    path = saved(tmp_path, STOPS.format(error=error))
    cls = method_from_file(path)
    before = [vars(owner)[name] for owner, name in [*PATCHED, (cls, "epoch")]]
    found = Meter(Ticks(), Ticks(), fine=True)
    with found.installed(cls):
        during = [vars(owner)[name] for owner, name in [*PATCHED, (cls, "epoch")]]
        assert all(a is not b for a, b in zip(before, during, strict=True)), "the list above is what is patched"
    options = Options("x", method_path=str(path))
    if error == "KeyboardInterrupt":
        with pytest.raises(KeyboardInterrupt):
            found.run(make_cell(cls), options)
    else:
        assert found.run(make_cell(cls), options).record["status"] == "failed"
    after = [vars(owner)[name] for owner, name in [*PATCHED, (cls, "epoch")]]
    assert all(a is b for a, b in zip(before, after, strict=True))


def test_an_inherited_epoch_is_put_back_as_inherited() -> None:
    cls = method_class("erm")
    assert "epoch" not in vars(cls)
    with Meter(Ticks(), Ticks(), fine=True).installed(cls):
        assert "epoch" in vars(cls)
    assert "epoch" not in vars(cls)


def test_memory_is_sampled_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter(range(1, 10**9))

    def slow(device: torch.device) -> int:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.02)
        return next(values)

    monkeypatch.setattr(runner, "_peak_memory", slow)
    monkeypatch.setattr(meter, "SAMPLE_SECONDS", 0.0)
    with meter.memory(CPU) as seen:
        while len(seen) < 5:  # the thread's doing
            pass
    assert not [thread for thread in threading.enumerate() if thread.name == "bench-profile-memory"]
    count = len(seen)
    assert seen == list(range(1, count + 1))
    assert next(values) == count + 1, "no sample after the end"


# -- operations ----------------------------------------------------------------------------------------------------
def test_operations_of_the_tiny_cnn_by_hand() -> None:
    task = make_task(torch.arange(6) % 3, num_classes=10, model={"name": "tiny-cnn", "widths": [8, 16, 32]})
    net = task.learner()
    net.network.train()
    # strided 3x3 convolutions 8x8 -> 4x4 -> 2x2 -> 1x1, then 32 x 10; a multiply-add is two operations
    by_hand = 2 * (16 * 8 * 9 + 4 * 16 * 8 * 9 + 1 * 32 * 16 * 9 + 32 * 10)
    assert cost.flops_per_image(net, (1, 8, 8)) == by_hand == 21376
    assert net.network.training and net.forward_images == 0, "nothing of the network has moved"
    assert cost.flops({net: (10, 3)}, lambda net: 7) == 7 * (10 + 2 * 3)


def test_the_peak_is_that_of_the_best_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "CPU_SIZE", 8)
    times = iter([0, 9, 10, 13, 20, 22, *range(30, 200, 5)])
    before = torch.get_num_threads()
    found = cost.device_peak(CPU, Engine("bfloat16", tf32=True), 1, lambda: next(times))
    assert found == {"flops_per_second": 2 * 8**3 / 2, "matrix_size": 8, "precision": "bfloat16"}
    assert torch.get_num_threads() == before


# -- facts ---------------------------------------------------------------------------------------------------------
def epoch(number: int, busy: float = 1.0, **seconds: float) -> Epoch:
    return Epoch(number, dict.fromkeys(CATEGORIES, 0.0) | seconds, busy, 10, {}, {})


def test_times_leave_out_the_first_epoch() -> None:
    plain = [epoch(0, harness=90.0), epoch(1, harness=8.0, evaluation=1.0), epoch(2, harness=10.0, evaluation=3.0)]
    fine = [epoch(0, forward=99.0), epoch(1, forward=6.0, backward=5.0), epoch(2, forward=2.0, backward=7.0)]
    found = measure._times(plain, fine)
    assert found["first_epoch_seconds"] == 90 and found["epoch_seconds"] == 11 and found["train_seconds"] == 9
    assert found["eval_seconds"] == 2 and found["clocked_epoch_seconds"] == 10
    assert found["seconds"]["forward"] == 4 and found["shares"]["backward"] == 0.6
    assert sum(found["shares"].values()) == 1


def test_overhead_compares_the_shortest_epochs() -> None:
    plain, fine = [epoch(0, 1.0), epoch(1, 8.0), epoch(2, 4.0)], [epoch(0, 1.0), epoch(1, 5.0), epoch(2, 9.0)]
    assert overhead(plain, fine) == 0.25


def test_the_work_of_a_cell() -> None:
    cell = make_cell("co-teaching", training={"epochs": 3})
    found = profile_cell(cell, Options("x"), peak=1000.0, now=Ticks())
    record = run_cell(cell, Options("x"))
    images, seconds = record["data"]["n_train"], found["train_seconds"]
    assert found["status"] == "done" and found["same_results"] is True and found["samples"] == images
    assert len(found["epochs"]) == 3 and found["cost"]["forward_images"] == record["cost"]["forward_images"]
    # two networks, each once forward and backward per image
    assert (found["forward_images"], found["backward_images"]) == (2 * images, 2 * images)
    assert found["forward_equivalents_per_image"] == 6 and found["forward_equivalents"] == 6 * images
    assert found["evaluation_images"] == 2 * (record["data"]["n_test"] + record["data"]["n_val"])
    one, two = found["flops_per_image"]
    assert one == two == 2 * (16 * 4 * 9 + 4 * 8 * 4 * 9 + 8 * 10) and found["flops"] == 6 * images * one
    assert found["flops_per_second"] == found["flops"] / seconds
    assert found["share_of_peak"] == found["flops_per_second"] / 1000
    assert found["images_per_second"] == 2 * images / seconds and found["samples_per_second"] == images / seconds
    assert found["memory"]["of"] == "process, resident" and found["memory"]["peak_bytes"] > 2**20
    assert sum(found["shares"].values()) == pytest.approx(1, abs=1e-12)


def test_operators_and_a_trace_of_the_last_epoch(tmp_path: Path) -> None:
    found = profile_cell(make_cell(), Options("x"), peak=1.0, ops=True, trace=tmp_path / "trace.json", now=Ticks())
    operators = found["operators"]
    assert 0 < len(operators) <= measure.TOP
    times = [op["self_seconds"] for op in operators]
    assert times == sorted(times, reverse=True) and sum(op["share"] for op in operators) <= 1
    steps = -(-found["samples"] // 128)
    (backward,) = (op for op in operators if op["name"] == "aten::convolution_backward")
    assert backward["calls"] == 2 * steps, "two convolutions, one epoch"
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_a_cell_that_fails_has_its_reason(tmp_path: Path) -> None:
    path = saved(tmp_path, STOPS.format(error="RuntimeError('no')"))
    found = profile_cell(make_cell(method_from_file(path)), Options("x", method_path=str(path)), peak=1.0, now=Ticks())
    assert found == {"status": "failed", "reason": "RuntimeError: no", "id": found["id"]}


# -- which cells ---------------------------------------------------------------------------------------------------
SUITE = """\
datasets: digits
noises: [none, symmetric@0.5]
methods: [erm, dividemix, {method: gce, label: mine}]
seeds: [3, 4]
model: {name: tiny-cnn, widths: [4, 8]}
training: {epochs: 9, batch_size: 128}
exclude:
  - {match: {method: erm, noise: none}, reason: not wanted}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return saved(tmp_path, SUITE, "small.yaml")


def test_one_cell_of_each_method(suite: Path) -> None:
    plan = choose.plan_of(str(suite), {}, Overrides(), None)
    labels = [entry.label() for entry in choose.chosen(plan, None)]
    assert labels == ["digits none dividemix seed 3", "digits none mine seed 3", "digits symmetric@0.5 erm seed 3"]
    last = plan.entries[-1]
    assert choose.chosen(plan, last.id[:10].upper()) == [last]


def test_stages_begin_in_the_second_epoch(suite: Path) -> None:
    plan = choose.plan_of(str(suite), {}, Overrides(), None)
    (entry,) = (entry for entry in choose.chosen(plan, None) if entry.method == "dividemix")
    cell, changed = choose.shortened(entry, 2, as_planned=False)
    assert changed == {"warmup": 1} and cell["method"]["params"] == entry.cell["method"]["params"] | {"warmup": 1}
    assert cell["training"] == entry.cell["training"] | {"epochs": 2}
    assert entry.cell["training"]["epochs"] == 9, "the plan's cell is as it was"
    cell, changed = choose.shortened(entry, 4, as_planned=True)
    assert changed == {} and cell["method"] == entry.cell["method"]


def test_only_what_puts_a_stage_off_is_changed() -> None:
    plan = choose.plan_of("llc-dro", {"dataset": "digits", "noise": "none", "model": "tiny-cnn"}, Overrides(), None)
    (entry,) = plan.entries
    assert set(choose.shortened(entry, 2, as_planned=False)[1]) == {"warmup"}, "not the number of neighbours"
    assert not choose._puts_off("warmup", None, 1) and not choose._puts_off("warmup", True, 0)
    assert not choose._puts_off("warmup", 1, 1) and choose._puts_off("warmup", 2, 1)


# -- the command ---------------------------------------------------------------------------------------------------
KEYS = {
    "method", "title", "dataset", "noise", "seed", "suite_cell", "changed", "status", "reason", "id", "samples", "same_results",
    "epochs", "first_epoch_seconds", "epoch_seconds", "train_seconds", "eval_seconds", "clocked_epoch_seconds", "overhead",
    "seconds", "shares", "forward_images", "backward_images", "evaluation_images", "forward_equivalents",
    "forward_equivalents_per_image", "images_per_second", "samples_per_second", "flops_per_image", "flops", "flops_per_second",
    "share_of_peak", "memory", "cost",
}  # fmt: skip


def test_a_suite_as_json_beside_its_records(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = suite.parent
    finish(suite, folder / "results")
    before = {path.name: path.read_bytes() for path in (folder / "results" / "small").iterdir()}
    done = here(folder, monkeypatch, "small.yaml", "--only", "method=erm,mine", "--only", "noise=symmetric@0.5", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert set(report) == {"schema", "suite", "epochs", "device", "threads", "engine", "peak", "methods", "notes", "files"}
    assert [facts["method"] for facts in report["methods"]] == ["erm", "mine"]
    for facts in report["methods"]:
        assert set(facts) == KEYS and set(facts["seconds"]) == set(CATEGORIES)
        assert len(facts["epochs"]) == report["epochs"] == 2
        assert set(facts["epochs"][0]) == {"epoch", "seconds", "forward_images", "backward_images", "evaluation_images"}
    assert "[2/2] digits symmetric@0.5 mine seed 3" in done.stderr
    after = {path.name: path.read_bytes() for path in (folder / "results" / "small").iterdir()}
    assert set(after) - set(before) == {"profile.png", "profile.svg", "profile.pdf"}
    assert {name: after[name] for name in before} == before and len(record_files(folder / "results" / "small")) == 12


def test_a_method_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--model", "mlp", "--noise", "none", "--batch-size", "256", "--epochs", "3", "--engine", "compile=off")
    done = here(tmp_path, monkeypatch, "dividemix", *arguments, "--out", "figures")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("profile-dividemix: 3 epochs on cpu, 1 thread, float32; measured peak ")
    assert "cells: digits none seed 0;" in done.stdout
    assert "dividemix: profiled with warmup=1, so that all its stages have begun" in done.stdout
    assert done.stdout.rstrip().endswith("wrote figures/profile.pdf")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["figures", "profile.pdf", "profile.png", "profile.svg"]


def test_a_file_of_ones_own_and_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, EVERYTHING)
    done = here(tmp_path, monkeypatch, "./mine.py", "--no-figure", "--json", "--batch-size", "512")
    assert done.exit_code == 0, done.output
    (facts,) = json.loads(done.stdout)["methods"]
    assert facts["method"] == "everything" and facts["forward_equivalents_per_image"] == 4 + 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.py"]


def test_a_method_that_fails_is_named_and_ends_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, STOPS.format(error="RuntimeError('no')"))
    done = here(tmp_path, monkeypatch, "./mine.py", "--out", "figures")
    assert done.exit_code == 1 and "failed: stops: RuntimeError: no" in done.stdout
    assert not list((tmp_path / "figures").iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["erx"], 2, "did you mean erm or elr?"),
        (["smal.yaml"], 2, "did you mean small.yaml?"),
        (["small"], 2, "the suite of that name is suites/small.yaml"),
        (["./absent.py"], 2, "no file"),
        (["erm", "--dataset", "digis"], 2, "did you mean digits"),
        (["erm", "--model", "tiny-cn"], 2, "did you mean tiny-cnn"),
        (["erm", "--noise", "symetric@0.5"], 2, "did you mean symmetric"),
        (["small.yaml", "--only", "method=erx"], 2, "did you mean erm"),
        (["small.yaml", "--cell", "xyz"], 2, "the id of no cell of small begins with 'xyz'"),
        (["small.yaml", "--cell", ""], 2, "the id of no cell of small begins with ''"),
        (["small.yaml", "--dataset", "digits"], 2, "--dataset is for a METHOD"),
        (["small.yaml", "--trace", "t.json"], 2, "a trace is of one method, and these are 3"),
        (["erm", "--engine", "precison=float32"], 2, "did you mean precision?"),
        (["erm", "--engine", "precision=int8"], 2, "precision must be one of"),
        (["erm", "--engine", "tf32=3"], 2, "tf32 is true or false, not 3"),
        (["erm", "--epochs", "1"], 2, "--epochs"),
        (["erm", "--out", "small.yaml/figures"], 3, "cannot write to the folder"),
        (["erm", "--no-figure", "--trace", "small.yaml/t.json"], 3, "cannot write to the folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_faults_are_told_before_anything_runs(
    suite: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    (suite.parent / "suites").mkdir()
    (suite.parent / "suites" / "small.yaml").write_text(SUITE)
    monkeypatch.setattr(runner, "run_cell", lambda *_: pytest.fail("it ran"))
    done = here(suite.parent, monkeypatch, *arguments)
    assert done.exit_code == code and message in done.output, done.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_device_is_the_environments_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = here(tmp_path, monkeypatch, "erm", "--device", "cuda", "--no-figure")
    assert done.exit_code == 3 and "torch sees no GPU here" in done.output


# -- what is shown -------------------------------------------------------------------------------------------------
def a_report(**changes: Any) -> dict[str, Any]:
    shares = dict.fromkeys(CATEGORIES, 0.0) | {"data": 0.02, "forward": 0.3, "backward": 0.5, "evaluation": 0.18}
    facts = {
        "method": "erm", "dataset": "digits", "noise": "none", "seed": 0, "status": "done", "reason": None, "changed": {},
        "same_results": True, "shares": shares, "epoch_seconds": 0.5, "first_epoch_seconds": 1.25, "overhead": 0.034,
        "images_per_second": 12345.6, "forward_equivalents_per_image": 3.0, "flops": 83.3e6, "share_of_peak": 0.0098,
        "memory": {"peak_bytes": 3 * 2**20, "of": "process, resident"},
    }  # fmt: skip
    slow = {**facts, "method": "a$b", "epoch_seconds": 2.0, "changed": {"warmup": 1}, "same_results": False}
    failed = {"method": "bad", "status": "failed", "reason": "RuntimeError: no"}
    return {
        "suite": "small", "epochs": 2, "device": "cpu", "threads": 2, "engine": Engine().describe(), "notes": [], "files": [],
        "peak": {"flops_per_second": 2e11, "matrix_size": 1024, "precision": "float32"}, "methods": [facts, slow, failed],
        **changes,
    }  # fmt: skip


def test_the_text_says_what_the_report_holds(capsys: pytest.CaptureFixture[str]) -> None:
    text = show.text(a_report())
    lines = [" ".join(line.split()) for line in text.splitlines()]
    first = "small: 2 epochs on cpu, 2 threads, float32; measured peak 200 GFLOP/s (1024x1024 matrix product, float32)"
    assert text.startswith(first)
    assert "method data forward backward test" in lines, "parts that no method has are left out"
    assert "erm 2.0 30.0 50.0 18.0" in lines
    assert "erm 500.0 ms 1.25 s +3 % 12,346 3.00 83.3 M 0.98 % 3 MiB" in lines
    assert "failed: bad: RuntimeError: no" in text and "a$b: profiled with warmup=1" in text
    assert "a$b: the runs with and without clocks ended differently" in text
    show.print_rich(a_report())
    shown = capsys.readouterr().out
    for word in ("50.0", "12,346", "0.98 %", "a$b", "failed: bad"):
        assert word in shown


def test_numbers_are_short() -> None:
    assert [show._si(value) for value in (1.0, 1500.0, 2.5e9, 3e15)] == ["1 ", "1.5 k", "2.5 G", "3 P"]
    assert (show.seconds(0.0123), show.seconds(12.345)) == ("12.3 ms", "12.35 s")
    assert (show._percent(None), show._percent(0.256), show._percent(-0.05, "+")) == ("-", "25.6 %", "-5 %")


def test_the_figure_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    first, second = (draw(a_report(), tmp_path / name) for name in ("a", "b"))
    assert [path.suffix for path in first] == [".png", ".svg", ".pdf"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes() and one.stat().st_size > 2000
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert b"dc:date" not in first[1].read_bytes() and b"CreationDate" not in first[2].read_bytes()
    other = draw(a_report(epochs=3), tmp_path / "c")
    assert other[0].read_bytes() != first[0].read_bytes()


def test_bars_are_as_long_as_the_epochs_and_their_parts() -> None:
    from bench.profile.figure import profile_figure

    times, shares = profile_figure(a_report()).axes
    bars = [(patch.get_y() + patch.get_height() / 2, patch.get_x(), patch.get_width()) for patch in times.patches]
    assert sorted(bars) == [
        (0, 0, pytest.approx(0.01)), (0, pytest.approx(0.01), pytest.approx(0.15)), (0, pytest.approx(0.16), pytest.approx(0.25)),
        (0, pytest.approx(0.41), pytest.approx(0.09)),
        (1, 0, pytest.approx(0.04)), (1, pytest.approx(0.04), pytest.approx(0.6)), (1, pytest.approx(0.64), pytest.approx(1.0)),
        (1, pytest.approx(1.64), pytest.approx(0.36)),
    ]  # fmt: skip
    assert [text.get_text() for text in times.texts] == ["500.0 ms", "2.00 s"]
    assert sorted(text.get_text() for text in shares.texts) == ["18", "18", "30", "30", "50", "50"], "2 % is too narrow"
    with pytest.raises(ValueError, match="no method"):
        profile_figure(a_report(methods=[{"status": "failed"}]))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(tmp_path: Path) -> None:
    cell = make_cell("dividemix", {"warmup": 1})
    found = profile_cell(cell, Options("x", device="cuda"), peak=1.0, ops=True)
    assert found["status"] == "done" and found["memory"]["of"] == "device, allocated"
    assert found["memory"]["peak_bytes"] > 0 and found["operators"]
    assert found["seconds"]["backward"] > 0 and found["seconds"]["guess"] > 0
