"""bench.stages, bench.trial.stage and `bench cache`: label-free work is built once, shared, and moves no bit of a result."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from filelock import FileLock
from small import MLP, make_cell, make_task
from torch import Tensor, nn
from torch.nn import functional

import bench.data
from bench import cli
from bench.api import load_records
from bench.data import dataset_class
from bench.engine import Engine
from bench.fields import FieldError
from bench.learner import Learner
from bench.method import EpochMethod, methods
from bench.noise import NoiseInput, NoisyLabels, Replaced
from bench.stages import Built, StageStore, address, cache_root, content_of, entries
from bench.trial import prepare, runner
from bench.trial.evaluate import Diverged
from bench.trial.runner import Options, checkpoint_path, run_cell
from bench.trial.stage import Stage
from bench.trial.task import NeedError, Task, TimeLimit

BENCH = Path(sys.executable).parent / "bench"
KEY = {"name": "toy", "lr": 0.1, "epochs": [1, 2]}


def toy_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "weight": torch.randn(4, 3, 2, 2, generator=generator).to(memory_format=torch.channels_last),
        "half": torch.randn(5, generator=generator).bfloat16(),
        "mask": torch.tensor([True, False]),
        "count": torch.tensor(7),
        "part": torch.arange(6)[1::2],
    }


def toy() -> Built:
    return Built(toy_tensors(), forward_images=12, backward_images=8)


def never() -> Built:
    raise AssertionError("built again")


def alike(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def files(folder: Path) -> list[Path]:
    """What is in a cache folder, locks apart."""
    return sorted(path for path in folder.iterdir() if path.suffix != ".lock")


# -- the store -----------------------------------------------------------------------------------------------------
def test_an_entry_is_built_once_and_loaded_with_the_same_bits(tmp_path: Path) -> None:
    built, first = StageStore(tmp_path).get(KEY, toy)
    loaded, second = StageStore(tmp_path).get(dict(reversed(KEY.items())), never)  # the order of a key means nothing
    assert alike(built, loaded) and alike(built, toy_tensors())
    assert first.built and not second.built and first.id == second.id == address(KEY)
    assert first.content == second.content == content_of(loaded)
    assert (second.forward_images, second.backward_images, second.bytes) == (12, 8, 48 * 4 + 5 * 2 + 2 + 8 + 3 * 8)
    assert second.seconds == first.seconds and second.created == first.created
    assert all(a.is_contiguous() and a.stride() == b.stride() for a, b in zip(built.values(), loaded.values(), strict=True))
    assert set(first.block()) == {"name", "id", "built", "seconds", "forward_images", "backward_images", "bytes"}


def test_the_address_and_the_file_are_what_the_module_says(tmp_path: Path) -> None:
    _, info = StageStore(tmp_path).get(KEY, toy)
    text = 'bench stage 1\n{"epochs":[1,2],"lr":0.1,"name":"toy"}'
    assert info.id == hashlib.sha256(text.encode()).hexdigest()[:16]
    (path,) = files(tmp_path)
    assert path.name == f"toy-{info.id}.pt"
    content = path.read_bytes()
    assert content[:32] == hashlib.sha256(content[32:]).digest()
    header = json.loads(content[40 : 40 + int.from_bytes(content[32:40], "big")])
    assert header["key"] == KEY and header["name"] == "toy" and header["seconds"] == info.seconds


@pytest.mark.parametrize("key", [{**KEY, "lr": 0.2}, {**KEY, "more": None}, {**KEY, "name": "other"}])
def test_another_key_is_another_entry(tmp_path: Path, key: dict[str, Any]) -> None:
    store = StageStore(tmp_path)
    store.get(KEY, toy)
    assert store.get(key, toy)[1].built and len(files(tmp_path)) == 2


@pytest.mark.parametrize("name", ["", "a/b", "../x", "A", "a b", ".x"])
def test_names_are_safe_in_file_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="a stage is named with"):
        StageStore(tmp_path).get({"name": name}, never)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("made", [None, {}, [torch.ones(1)], {"a": 1.0}, {1: torch.ones(1)}])
def test_a_builder_returns_tensors_by_name(tmp_path: Path, made: Any) -> None:
    with pytest.raises(TypeError, match="stage 'toy' must return tensors by name"):
        StageStore(tmp_path).get(KEY, lambda: Built(made))
    assert files(tmp_path) == []


def changed(position: float) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        at = int(position * (len(content) - 1))
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    return change


def sealed(body: bytes) -> bytes:
    return hashlib.sha256(body).digest() + body


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch evil",)


def with_code(content: bytes) -> bytes:
    """A valid checksum and header over a pickle that would run a command."""
    end = 40 + int.from_bytes(content[32:40], "big")
    return sealed(content[32:end] + pickle.dumps(Evil(), protocol=2))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"", "half": lambda content: content[: len(content) // 2], "no header": lambda content: content[:35],
    "last byte": lambda content: content[:-1], "longer": lambda content: content + b"x", "other file": lambda content: b"a" * 99,
    **{f"bit at {place}": changed(place) for place in (0.0, 0.01, 0.3, 0.6, 1.0)},
    "version": lambda content: sealed(content[32:].replace(b'"version": 1', b'"version": 2')),
    "header is a list": lambda content: sealed((2).to_bytes(8, "big") + b"[]" + content), "code": with_code,
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_entry_is_built_again(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, told = tmp_path / "cache", []
    StageStore(folder).get(KEY, toy)
    (path,) = files(folder)
    good = path.read_bytes()
    path.write_bytes(DAMAGE[what](good))
    tensors, info = StageStore(folder).get(KEY, toy, warn=told.append)
    assert info.built and alike(tensors, toy_tensors()) and not (tmp_path / "evil").exists()
    assert len(told) == 1 and path.name in told[0] and "built again" in told[0]
    assert StageStore(folder).get(KEY, never, warn=told.append)[1].id == info.id and len(told) == 1
    assert files(folder) == [path]


def test_an_entry_under_a_wrong_name_is_built_again(tmp_path: Path) -> None:
    told: list[str] = []
    StageStore(tmp_path).get(KEY, toy)
    (path,) = files(tmp_path)
    other = {**KEY, "lr": 0.2}
    path.rename(tmp_path / f"toy-{address(other)}.pt")
    assert StageStore(tmp_path).get(other, toy, warn=told.append)[1].built
    assert len(told) == 1 and "another key" in told[0]


@pytest.mark.parametrize("error", [ValueError, TimeLimit, KeyboardInterrupt, SystemExit])
def test_a_build_that_ends_early_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    def fails() -> Built:
        raise error("no")

    with pytest.raises(error):
        StageStore(tmp_path).get(KEY, fails)
    assert files(tmp_path) == []
    assert StageStore(tmp_path).get(KEY, toy)[1].built  # nor a lock that is held


def test_without_a_folder_an_entry_lives_as_long_as_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = StageStore(None)
    first, info = store.get(KEY, toy)
    for tensor in first.values():
        tensor.zero_()
    second, again = store.get(KEY, never)
    assert alike(second, toy_tensors()) and info.built and not again.built
    second["count"].zero_()
    assert alike(store.get(KEY, never)[0], toy_tensors()) and StageStore(None).get(KEY, toy)[1].built
    assert list(tmp_path.iterdir()) == []


def test_what_is_returned_shares_no_memory_with_what_was_built(tmp_path: Path) -> None:
    live = {"weight": nn.Parameter(torch.zeros(3))}
    tensors, _ = StageStore(tmp_path).get(KEY, lambda: Built(live))
    with torch.no_grad():
        live["weight"].add_(1)
    assert not tensors["weight"].requires_grad and tensors["weight"].sum() == 0 and type(tensors["weight"]) is Tensor


def test_a_folder_that_cannot_be_made_costs_the_cache_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told: list[str] = []
    store = StageStore(tmp_path / "file" / "cache")
    tensors, info = store.get(KEY, toy, warn=told.append)
    assert info.built and alike(tensors, toy_tensors())
    assert len(told) == 2 and "no lock" in told[0] and "could not be kept" in told[1]
    assert not store.get(KEY, never)[1].built  # a store that cannot write remembers


def test_a_full_disk_costs_the_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert alike(StageStore(tmp_path).get(KEY, toy, warn=told.append)[0], toy_tensors())
    assert told == [f"stage toy could not be kept in {tmp_path} (No space left on device)"] and files(tmp_path) == []


def test_reading_needs_no_lock(tmp_path: Path) -> None:
    """So an entry serves while another process holds the lock, and from a folder that may only be read."""
    StageStore(tmp_path).get(KEY, toy)
    (path,) = files(tmp_path)
    with FileLock(path.with_suffix(".lock")):
        assert not StageStore(tmp_path).get(KEY, never)[1].built


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_only_be_read(tmp_path: Path) -> None:
    StageStore(tmp_path).get(KEY, toy)
    tmp_path.chmod(0o555)
    try:
        told: list[str] = []
        assert not StageStore(tmp_path).get(KEY, never, warn=told.append)[1].built and told == []
        assert StageStore(tmp_path).get({"name": "new"}, toy, warn=told.append)[1].built and len(told) == 2
    finally:
        tmp_path.chmod(0o755)


def test_who_waits_keeps_an_eye_on_the_time(tmp_path: Path) -> None:
    def too_late() -> None:
        raise TimeLimit("late")

    with FileLock(tmp_path / f"toy-{address(KEY)}.lock"), pytest.raises(TimeLimit):
        StageStore(tmp_path).get(KEY, never, waiting=too_late)


RACER = """
import sys, time
from pathlib import Path
import torch
from bench.stages import Built, StageStore

def build():
    with open("marks", "a") as file:
        file.write("built\\n")
    time.sleep(0.4)
    return Built({"bits": torch.arange(5)})

print("ready", flush=True)
sys.stdin.readline()
tensors, info = StageStore(Path("cache")).get({"name": "race"}, build)
print(info.built, info.content, tensors["bits"].tolist(), flush=True)
"""


def started(code: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A Python process in `folder` that has printed its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent.parent}"},
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() in ("ready\n", "building\n")
    return process


def test_of_several_processes_one_builds(tmp_path: Path) -> None:
    racers = [started(RACER, tmp_path) for _ in range(3)]
    try:
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        said = sorted(racer.communicate(timeout=60)[0].split(" ", 1) for racer in racers)
    finally:
        for racer in racers:
            racer.kill()
    assert [built for built, _ in said] == ["False", "False", "True"]
    assert {rest for _, rest in said} == {f"{content_of({'bits': torch.arange(5)})} [0, 1, 2, 3, 4]\n"}
    assert (tmp_path / "marks").read_text() == "built\n" and len(files(tmp_path / "cache")) == 1


KILLED = """
import sys, time
from pathlib import Path
import test_stages
from bench.stages import StageStore

def hangs():
    folder = Path(sys.argv[1])
    (folder / f".toy-{test_stages.address(test_stages.KEY)}.pt.abc.tmp").write_bytes(b"half")
    print("building", flush=True)
    time.sleep(600)

StageStore(Path(sys.argv[1])).get(test_stages.KEY, hangs)
"""


def test_a_killed_builder_holds_nobody_up(tmp_path: Path) -> None:
    process = started(KILLED, tmp_path, str(tmp_path))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(files(tmp_path)) == 1  # what it was writing
    assert StageStore(tmp_path).get(KEY, toy, warn=pytest.fail)[1].built
    assert [path.suffix for path in files(tmp_path)] == [".pt"]


# -- a method with a stage -----------------------------------------------------------------------------------------
def projection(width: int) -> dict[str, nn.Module]:
    return {"projection": nn.Linear(width, 6)}


def pretrain(stage: Stage) -> dict[str, Tensor]:
    """Instance discrimination between two views of a batch."""
    net = stage.learner("encoder", extra=projection)
    for _ in stage.epochs():
        for batch in stage.batches(("weak", "strong")):
            one, two = (
                functional.normalize(net.extra["projection"](net.with_features(view)[1]), dim=1) for view in batch.views
            )
            own = torch.arange(len(batch), device=stage.device)
            net.step(functional.cross_entropy(one @ two.T / stage.key["temperature"], own))
    return net.network.state_dict()


class Pretrained(EpochMethod):
    slug = "pretrained"
    title = "Pretrained"
    paper = "none"

    temperature: float = 0.5
    stage_epochs: int = 1

    def setup(self, task: Task) -> None:
        key = {"temperature": self.temperature, "training": {"epochs": self.stage_epochs, "batch_size": 256, "lr": 0.1}}
        self.net = task.learner()
        self.net.network.load_state_dict(task.stage("pretrain", key, pretrain))

    def epoch(self, epoch: int) -> None:
        for batch in self.task.batches():
            self.net.step(functional.cross_entropy(self.net(batch.images), batch.labels))

    def predict(self, images: Tensor) -> Tensor:
        return self.net.infer(images).softmax(dim=1)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every trial that was run, the latest last."""
    made: list[Any] = []

    class Kept(runner._Trial):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(runner, "_Trial", Kept)
    monkeypatch.setitem(methods(), Pretrained.slug, Pretrained)
    return made


def outcome(record: dict[str, Any], trial: Any) -> tuple[Any, ...]:
    """What has to be the same bits however the stage was come by."""
    assert record["status"] == "done", record["reason"]
    state = content_of(trial.method.state_dict()["net"]["network"])
    cost = {name: record["cost"][name] for name in ("forward_images", "backward_images", "networks")}
    stage = [{k: v for k, v in block.items() if k not in ("built", "seconds")} for block in record["cost"]["stages"]]
    return record["metrics"], trial.curve.as_dict(), state, cost, stage


def options(cache: Path | None = None, **more: Any) -> Options:
    return Options("s", cache=str(cache) if cache else None, **more)


def test_built_loaded_or_without_a_cache_the_result_is_the_same(trials: list[Any], tmp_path: Path) -> None:
    cell = make_cell(Pretrained, model=MLP)
    records = [run_cell(cell, options(folder)) for folder in (tmp_path / "a", tmp_path / "a", None, tmp_path / "b")]
    outcomes = [outcome(record, trial) for record, trial in zip(records, trials, strict=True)]
    assert all(other == outcomes[0] for other in outcomes[1:])
    costs = [record["cost"] for record in records]
    assert [cost["stages"][0]["built"] for cost in costs] == [True, False, True, True]
    # 1299 images in two views, one epoch; what the cell itself trains is counted apart
    (block,) = costs[1]["stages"]
    assert (block["name"], block["forward_images"], block["backward_images"]) == ("pretrain", 2598, 2598)
    assert block["seconds"] == costs[0]["stages"][0]["seconds"] == costs[1]["stage_seconds"] > 0
    assert costs[1]["backward_images"] == 2 * 1299 and all(record["warnings"] == [] for record in records)


def test_pretraining_matters_here(trials: list[Any]) -> None:
    """Else the comparison above could not fail."""
    outcomes = [
        outcome(run_cell(make_cell(Pretrained, {"temperature": t}, model=MLP), options()), trials[-1]) for t in (0.5, 0.2)
    ]
    assert outcomes[0][2] != outcomes[1][2]


def test_cells_share_a_stage_wherever_they_see_the_same_images(trials: list[Any], tmp_path: Path) -> None:
    def stage_of(**axes: Any) -> dict[str, Any]:
        record = run_cell(make_cell(Pretrained, **{"model": MLP, **axes}), options(tmp_path))
        assert record["status"] == "done", record["reason"]
        return record["cost"]["stages"][0]

    first = stage_of()
    assert first["built"]
    for shared in (  # other noise, other training of the cell, other measurement
        {"noise": "none"}, {"noise": "asymmetric@0.4"}, {"protocol": {"last_k": 1}},
        {"training": {"epochs": 1, "lr": 0.01, "batch_size": 50, "augment": "none"}},
    ):  # fmt: skip
        assert {**stage_of(**shared), "built": True} == first
    for apart in (
        {"seed": 1}, {"params": {"temperature": 0.4}}, {"params": {"stage_epochs": 2}}, {"model": {"name": "mlp", "widths": [8]}},
        {"dataset": "spurious-digits"}, {"noise": "longtail@0.5 + symmetric@0.2"},
    ):  # fmt: skip
        other = stage_of(**apart)
        assert other["built"] and other["id"] != first["id"]
    without_split = [stage_of(protocol={"val_fraction": 0.0}, seed=seed) for seed in (0, 1, 2)]
    assert [block["built"] for block in without_split] == [True, False, False]
    assert len({block["id"] for block in without_split} | {first["id"]}) == 2


def test_pictures_that_noise_replaces_count_and_labels_do_not() -> None:
    import numpy as np

    cell = make_cell()
    data = bench.data.load(cell["dataset"], None)
    count = len(data.train)

    def samples(labels: int = 0, position: int = 3, index: int = 4, source: str = "digits", kept: Any = None) -> str:
        other = {"name": source, "revision": dataset_class(source).revision}
        replaced = Replaced(np.array([position]), np.array([index]), other)
        given = np.full(count, labels)
        noisy = NoisyLabels(given, 0.5, np.eye(10), None, "", given, kept, replaced)
        return address({"name": "x", **prepare._samples(cell, data, noisy, np.arange(100), None)})

    assert samples() == samples(labels=5)
    keys = [samples(), samples(position=5), samples(index=5), samples(source="spurious-digits"), samples(kept=np.arange(1, 200))]
    assert len(set(keys)) == 5


class Stop(BaseException):
    """Ends a run between two epochs, the way Ctrl-C does."""


def test_a_resumed_cell_loads_its_stage(trials: list[Any], tmp_path: Path) -> None:
    def stop(epoch: int, values: Any) -> None:
        if epoch == 2:
            raise Stop

    cell = make_cell(Pretrained, model=MLP, training={"epochs": 4})
    whole = outcome(run_cell(cell, options()), trials[-1])
    kept = options(work_folder=str(tmp_path), checkpoint_seconds=0.0)
    with pytest.raises(Stop):
        run_cell(cell, kept, stop)
    path = checkpoint_path(kept, trials[-1].record["id"])
    assert path is not None and path.exists() and len(list((tmp_path / "cache").glob("pretrain-*.pt"))) == 1
    resumed = run_cell(cell, kept)
    assert outcome(resumed, trials[-1]) == whole and not resumed["cost"]["stages"][0]["built"]


def test_setup_seconds_do_not_hold_the_stage(trials: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Setup, training, evaluation and stages add up to the same whoever built; here the clock of the stage is known."""
    original = Task.stage

    def slow(self: Task, *arguments: Any) -> dict[str, Tensor]:
        made = original(self, *arguments)
        self.stage_seconds += 1000
        return made

    monkeypatch.setattr(Task, "stage", slow)
    record = run_cell(make_cell(Pretrained, model=MLP), options(tmp_path))
    assert record["cost"]["setup_seconds"] < 0 < record["cost"]["train_seconds"]


# -- what a stage sees ---------------------------------------------------------------------------------------------
def small(**settings: Any) -> Task:
    return make_task(torch.arange(20) % 3, training={"batch_size": 8}, **settings)


HANDED: list[Task] = []  # a stage is handed no task; a method that smuggles one in finds it locked


def steal(stage: Stage) -> dict[str, Tensor]:
    (task,) = HANDED
    stolen = {
        "labels": lambda: task.labels, "noise_rate": lambda: task.noise_rate, "groups": lambda: task.groups,
        "matrix": lambda: task.transition_matrix, "trusted": lambda: task.trusted,
        "batches": lambda: next(task.batches()), "losses": lambda: task.losses(net),
        "full pass": lambda: task.full_pass(net), "of the stage": lambda: stage.labels, "its rate": lambda: stage.noise_rate,
        "its losses": lambda: stage.losses, "of a batch": lambda: next(iter(stage.batches())).labels,
    }  # fmt: skip
    net = stage.learner()
    for what, reach in stolen.items():
        try:
            reach()
        except NeedError as error:
            assert "label-free" in str(error)
        else:
            raise AssertionError(f"{what} could be reached")
    return {"done": torch.tensor(len(stolen))}


def test_a_stage_has_no_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    granted = {"noise_rate": 0.5, "groups": torch.zeros(20), "transition_matrix": torch.eye(3), "trusted": torch.arange(2)}
    task = small(needs=frozenset(granted), granted=granted)
    monkeypatch.setattr(sys.modules[__name__], "HANDED", [task])
    assert task.stage("steal", {}, steal)["done"] == 12
    assert task.labels.tolist() == [i % 3 for i in range(20)] and task.noise_rate == 0.5 and len(next(task.batches()).labels) == 8


def break_off(stage: Stage) -> dict[str, Tensor]:
    raise KeyError("broken")


def test_labels_are_back_after_a_stage_that_failed() -> None:
    task = small(needs=frozenset({"noise_rate"}), granted={"noise_rate": 0.5})
    with pytest.raises(KeyError):
        task.stage("broken", {}, break_off)
    assert len(task.labels) == 20 and task.noise_rate == 0.5 and task.stages == []
    assert task.stage("nothing", {}, nothing)["done"] == 1


def test_an_unknown_attribute_of_a_stage_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        small().stage("x", {}, colour)


def colour(stage: Stage) -> dict[str, Tensor]:
    return stage.colour


def nothing(stage: Stage) -> dict[str, Tensor]:
    return {"done": torch.tensor(1)}


def with_default(stage: Stage, labels: Any = 3) -> dict[str, Tensor]:
    return nothing(stage)


def hidden_inputs() -> dict[str, Any]:
    captured = torch.arange(3)

    def closure(stage: Stage) -> dict[str, Tensor]:
        return {"done": captured}

    class Holder:
        def build(self, stage: Stage) -> dict[str, Tensor]:
            return nothing(stage)

        __call__ = build

    return {
        "closure": closure, "bound method": Holder().build, "default": with_default, "partial": functools.partial(nothing),
        "object": Holder(),
    }  # fmt: skip


@pytest.mark.parametrize("what", hidden_inputs())
def test_a_builder_takes_nothing_that_its_key_does_not_show(what: str) -> None:
    with pytest.raises(TypeError, match="plain function"):
        small().stage("x", {}, hidden_inputs()[what])


def seen(stage: Stage) -> dict[str, Tensor]:
    """Everything random that a stage has."""
    stage.start_epoch(3)
    net = stage.learner("n", training={"lr": 0.5})
    (one,) = [batch for batch in stage.batches(("weak",), batch_size=20)]
    return {
        "order": one.index, "views": one.images, "weights": net.network.head.weight,  # type: ignore[union-attr]
        "drawn": torch.rand(4, generator=stage.generator("g")), "layers": torch.rand(4), "lr": torch.tensor(net.lr),
        "types": torch.tensor([type(stage.key["a"]) is list, stage.key["a"] == [1, 2]]), "logits": stage.logits(net),
        "features": stage.features(net), "plain": torch.cat(list(stage.plain_images())),
    }  # fmt: skip


SEEN = {"a": (1, 2), "training": {"batch_size": 5}}


def test_streams_come_from_the_key_and_leave_global_generators_alone() -> None:
    images = {"samples": {"images": "these"}}
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = small(**images).stage("seen", SEEN, seen)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    for same in ({"seed": 5}, {"method": "another"}, {"needs": frozenset({"groups"})}):
        assert alike(small(**images, **same).stage("seen", SEEN, seen), first), same
    others = [
        small(**images).stage("other", SEEN, seen),
        small(**images).stage("seen", {**SEEN, "b": 1}, seen),
        small(samples={"images": "those"}).stage("seen", SEEN, seen),
        small(**images).stage("seen", SEEN, seen, per_seed=True),
        small(**images, seed=5).stage("seen", SEEN, seen, per_seed=True),
    ]
    for other in others:
        for name in ("order", "views", "weights", "drawn", "layers"):
            assert not torch.equal(other[name], first[name]), name
    assert not torch.equal(others[3]["drawn"], others[4]["drawn"])
    assert first["order"].sort().values.tolist() == list(range(20)) and first["types"].all() and first["lr"] == 0.5
    assert first["logits"].shape == (20, 3) and first["features"].shape[0] == 20
    assert torch.equal(first["plain"], torch.cat(list(small().plain_images())))


def weak_and_plain(stage: Stage) -> dict[str, Tensor]:
    (batch,) = stage.batches(("weak", "plain"), batch_size=20)
    return {"same": torch.tensor(torch.equal(*batch.views)), "lr": torch.tensor(stage.training.lr)}


@pytest.mark.parametrize("cells", ["none", "crop-flip"])
@pytest.mark.parametrize("own", ["none", "crop-flip"])
def test_views_follow_the_stages_training_not_the_cells(own: str, cells: str) -> None:
    task = make_task(torch.zeros(20, dtype=torch.int64), training={"augment": cells, "lr": 0.7})
    made = task.stage("views", {"training": {"augment": own}}, weak_and_plain)
    assert bool(made["same"]) == (own == "none") and made["lr"] == pytest.approx(0.05)
    (batch,) = task.batches(("weak", "plain"), batch_size=20)
    assert torch.equal(*batch.views) == (cells == "none")


def test_a_stages_training_is_checked() -> None:
    with pytest.raises(FieldError, match="no field 'epoch'"):
        small().stage("x", {"training": {"epoch": 3}}, nothing)


def counted(stage: Stage) -> dict[str, Tensor]:
    net = stage.learner("a")
    slow = stage.average(net)
    rates = []
    for _ in stage.epochs():
        for batch in stage.batches():
            slow(batch.images)
            net.step(net(batch.images).square().mean())
            slow.update(0.9)
        rates.append(net.lr)
    return {"rates": torch.tensor(rates)}


def test_cost_is_that_of_all_networks_of_the_stage_and_no_other() -> None:
    task = small()
    own = task.learner()
    training = {"epochs": 2, "lr": 0.1, "schedule": "multistep", "milestones": [1], "batch_size": 7}
    assert task.stage("counted", {"training": training}, counted)["rates"].tolist() == pytest.approx([0.1, 0.01])
    (info,) = task.stages
    assert (info.forward_images, info.backward_images) == (2 * 2 * 20, 2 * 20)
    assert own.forward_images == 0 and list(task._learners) == ["a"] and task.stage_seconds >= info.seconds


def test_a_stage_leaves_the_streams_of_the_task_where_they_were() -> None:
    def order(task: Task) -> list[int]:
        task.start_epoch(0)
        next(task.batches())
        drawn = torch.rand(1, generator=task.generator())
        if task is tasks[1]:
            task.stage("counted", {}, counted)
        return [*next(task.batches()).index.tolist(), float(drawn), *torch.rand(2, generator=task.generator()).tolist()]

    tasks = small(), small()
    assert order(tasks[0]) == order(tasks[1])


def infinite(stage: Stage) -> dict[str, Tensor]:
    return {"fine": torch.ones(2), "weight": torch.tensor([1.0, float("nan")])}


def test_a_stage_that_diverges_is_not_kept(tmp_path: Path) -> None:
    task = small(store=StageStore(tmp_path))
    with pytest.raises(Diverged, match="stage 'wild': weight is not finite"):
        task.stage("wild", {}, infinite)
    assert files(tmp_path) == []


def first_of(stage: Stage) -> dict[str, Tensor]:
    return {"value": torch.tensor([float(stage.key["start"])])}


def second_of(stage: Stage) -> dict[str, Tensor]:
    stage.key["scratch"] = 1
    return {"value": stage.inputs["first"]["value"].add_(1)}


def test_a_stage_uses_what_earlier_ones_returned(tmp_path: Path) -> None:
    task = small(store=StageStore(tmp_path))
    made = [task.stage("first", {"start": start}, first_of) for start in (1, 2, 1)]
    results = [task.stage("second", {}, second_of, inputs={"first": one})["value"].item() for one in made]
    assert results == [2.0, 3.0, 2.0] and [info.built for info in task.stages] == [True, True, False, True, True, False]
    assert made[0]["value"] == 1  # a stage works on copies, else building would not be the same as loading
    with pytest.raises(NeedError, match="'first' is not what an earlier stage returned"):
        task.stage("second", {}, second_of, inputs={"first": {"value": task.labels}})
    made[0]["value"].add_(1)
    with pytest.raises(NeedError):
        task.stage("second", {}, second_of, inputs={"first": {"value": made[0]["value"] + 5}})


@pytest.mark.parametrize("key", [{"x": torch.ones(1)}, {"x": float("nan")}, {"x": Path("a")}])
def test_a_key_is_json(key: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        small().stage("x", key, nothing)


def test_code_library_engine_and_machine_enter_the_key_where_they_decide_bits(tmp_path: Path) -> None:
    task = small(store=StageStore(tmp_path))
    task.stage("x", {}, nothing)
    (entry,) = entries(tmp_path)
    assert entry.header is not None
    bits = entry.header["key"]["bits"]
    assert bits["torch"] == torch.__version__ and bits["engine"]["precision"] == "float32" and len(bits["code"]) == 3
    assert bits["device"]["name"].startswith("cpu: ") and bits["device"]["threads"] == torch.get_num_threads()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_loaded_stage_has_the_bits_of_a_built_one(trials: list[Any], tmp_path: Path) -> None:
    cell = make_cell(Pretrained, model=MLP)
    engine = Engine(deterministic=True)
    outcomes = []
    for folder in (tmp_path, tmp_path, None):
        record = run_cell(cell, options(folder, device="cuda", engine=engine))
        outcomes.append(outcome(record, trials[-1]))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    (entry,) = entries(tmp_path)
    assert entry.header is not None and entry.header["key"]["bits"]["device"]["name"].startswith("cuda: ")


def test_damage_shows_in_the_record(trials: list[Any], tmp_path: Path) -> None:
    cell = make_cell(Pretrained, model=MLP)
    first = outcome(run_cell(cell, options(tmp_path)), trials[-1])
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    record = run_cell(cell, options(tmp_path))
    assert outcome(record, trials[-1]) == first and record["cost"]["stages"][0]["built"]
    assert len(record["warnings"]) == 1 and path.name in record["warnings"][0]


def test_the_time_limit_of_a_cell_holds_in_its_stage(trials: list[Any], tmp_path: Path) -> None:
    cell = make_cell(Pretrained, {"stage_epochs": 100_000}, model=MLP)
    record = run_cell(cell, options(tmp_path, time_limit=1.0))
    assert record["status"] == "failed" and "time limit of 1 s" in record["reason"]
    assert files(tmp_path) == [] and record["cost"]["stages"] == []


def test_a_learner_of_the_task_is_trained_as_the_cell_says() -> None:
    task = small()
    task.stage("counted", {"training": {"epochs": 1}}, counted)
    assert isinstance(task.learner(), Learner) and task.learner("b").training is task.training


# -- where the cache is --------------------------------------------------------------------------------------------
def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_CACHE", raising=False)
    assert cache_root("results") == Path("results/.work/cache")
    monkeypatch.setenv("BENCH_CACHE", "/shared")
    assert cache_root("results") == Path("/shared") and cache_root("results", "mine") == Path("mine")


SUITE = "datasets: digits\nnoises: [none, symmetric@0.5]\nmethods: [./pre.py]\nmodel: mlp\ntraining: {epochs: 1}\n"
METHOD = '''
import torch
from torch.nn import functional
from bench.method import LossMethod


def pretrain(stage):
    net = stage.learner()
    for epoch in stage.epochs():
        for batch in stage.batches():
            net.step(net(batch.images).var(dim=0).mean())
    return net.network.state_dict()


class Pre(LossMethod):
    slug = "pre"
    title = "Pre"
    paper = "none"

    def prepare(self, task):
        self.net.network.load_state_dict(task.stage("simclr", {"training": {"epochs": 1}}, pretrain))

    def loss(self, logits, batch):
        return functional.cross_entropy(logits, batch.labels, reduction="none")
'''


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name != "BENCH_CACHE"}
    return subprocess.run(
        [BENCH, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**plain, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", **environment},
    )  # fmt: skip


def here(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("BENCH_CACHE", raising=False)
    result = CliRunner().invoke(cli.main, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the command has run a suite whose two cells share a stage."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "small.yaml").write_text(SUITE)
    (folder / "pre.py").write_text(METHOD)
    done = command(folder, "run", "small.yaml", "--executor", "inline", "--tracking", "none")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_a_suite_shares_its_stages_in_the_results_folder(ran: Path) -> None:
    records = load_records(ran / "results")
    assert sorted(record["cost"]["stages"][0]["built"] for record in records.values()) == [False, True]
    (entry,) = entries(ran / "results" / ".work" / "cache")
    assert entry.name == "simclr" and entry.dataset == "digits"


def test_cache_ls_and_clean_through_the_installed_command(ran: Path) -> None:
    listed = command(ran, "cache", "ls")
    assert listed.returncode == 0 and listed.stderr == ""
    header, row, total = listed.stdout.splitlines()
    (entry,) = entries(ran / "results" / ".work" / "cache")
    assert header.split()[0] == "stage" and row.split()[:2] == ["simclr", "digits"] and row.endswith(entry.id)
    assert total.startswith("1 stages, ") and total.endswith("in results/.work/cache")
    assert command(ran, "cache", "ls", "--json", BENCH_CACHE=str(ran / "none")).stdout == json.dumps(
        {"folder": str(ran / "none"), "entries": []}
    ) + "\n"  # fmt: skip
    dry = command(ran, "cache", "clean")
    assert dry.returncode == 0 and f"would remove {entry.path.name}" in dry.stdout and "add --yes" in dry.stdout
    assert entry.path.exists()


def test_cache_is_named_with_an_option_or_the_environment(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("run", "small.yaml", "--executor", "inline", "--tracking", "none", "--force", "--only", "noise=none")
    assert here(ran, monkeypatch, *arguments, "--cache", "elsewhere").exit_code == 0
    assert [entry.name for entry in entries(ran / "elsewhere")] == ["simclr"]
    found = json.loads(here(ran, monkeypatch, "cache", "ls", "--cache", "elsewhere", "--json").output)
    (row,) = found["entries"]
    assert row["dataset"] == "digits" and row["bytes"] == entries(ran / "elsewhere")[0].size and not row["damaged"]


def filled(folder: Path) -> list[Path]:
    """Two stages `a`, one of them unused for ten days, a `b`, and a damaged file."""
    for key in ({"name": "a"}, {"name": "a", "x": 1}, {"name": "b"}):
        StageStore(folder).get(key, toy)
    old = folder / f"a-{address({'name': 'a', 'x': 1})}.pt"
    os.utime(old, (time.time() - 10 * 86400,) * 2)
    (folder / f"a-{'0' * 16}.pt").write_bytes(b"nonsense")
    (folder / "notes.txt").write_text("not ours")
    return [old, folder / f"b-{address({'name': 'b'})}.pt"]


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (("--older-than", "9"), "old"), (("--stage", "b"), "b"), (("--stage", "b", "--older-than", "9"), ""),
        (("--older-than", "11"), ""), ((), "all"), (("--stage", "a", "--stage", "b"), "all"),
    ],
)  # fmt: skip
def test_clean_removes_what_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, gone: str) -> None:
    old, b = filled(tmp_path)
    everything = {entry.path for entry in entries(tmp_path)}
    expected = {"old": {old}, "b": {b}, "": set(), "all": everything}[gone]
    asked = ("cache", "clean", "--cache", str(tmp_path), *arguments)
    dry = json.loads(here(tmp_path, monkeypatch, *asked, "--json").output)
    assert {Path(row["file"]) for row in dry["chosen"]} == expected and dry["removed"] == []
    assert {entry.path for entry in entries(tmp_path)} == everything
    done = here(tmp_path, monkeypatch, *asked, "--yes")
    assert done.exit_code == 0 and done.output.count("removed ") == len(expected)
    assert {entry.path for entry in entries(tmp_path)} == everything - expected
    assert (tmp_path / "notes.txt").exists() and not any(path.with_suffix(".lock").exists() for path in expected)


def test_using_an_entry_makes_it_young(tmp_path: Path) -> None:
    old, _ = filled(tmp_path)
    StageStore(tmp_path).get({"name": "a", "x": 1}, never)
    assert time.time() - old.stat().st_mtime < 86400


def test_clean_keeps_what_is_being_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    StageStore(tmp_path).get(KEY, toy)
    (path,) = files(tmp_path)
    with FileLock(path.with_suffix(".lock")):
        result = here(tmp_path, monkeypatch, "cache", "clean", "--cache", str(tmp_path), "--yes")
    assert result.exit_code == 0 and f"kept {path.name}: it is being built" in result.output and path.exists()


def test_damaged_entries_are_listed_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    output = here(tmp_path, monkeypatch, "cache", "ls", "--cache", str(tmp_path)).output
    (line,) = [line for line in output.splitlines() if "0" * 16 in line]
    assert line.split()[4] == "damaged" and output.count(" damaged ") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("clean", "--stage", "simcrl"), 2, "no stage 'simcrl' is cached (did you mean simclr?)"),
        (("clean", "--older-than", "-1"), 2, "-1"), (("clean", "--older-than", "soon"), 2, "soon"),
        (("clear",), 2, "No such command 'clear'"), (("ls", "extra"), 2, "extra"),
        (("ls", "--cache", "pre.py"), 3, "cannot read"),
    ],
)  # fmt: skip
def test_errors_of_the_cache_commands(ran: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, code: int, says: str) -> None:
    result = here(ran, monkeypatch, "cache", *arguments)
    assert result.exit_code == code and says in result.output


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (("ls",), ("clean", "--yes")):
        result = here(tmp_path, monkeypatch, "cache", *arguments)
        assert result.exit_code == 0 and "0 stages, 0 B in results/.work/cache (there is no such folder)" in result.output
    assert list(tmp_path.iterdir()) == []


def test_networks_that_make_labels_are_cached_in_the_same_form(tmp_path: Path) -> None:
    import numpy as np

    from bench.noise._teacher import cached

    pixels = np.zeros((4, 1, 2, 2), dtype=np.uint8)
    data = NoiseInput(np.arange(4) % 2, 2, {}, ("a", "b"), dataset="toy", pixels=pixels.__getitem__, cache=tmp_path)
    for _ in range(2):
        found = cached(data, {"what": "softmax"}, lambda: np.eye(3, dtype=np.float32)[:2].T)
        assert found.dtype == np.float32 and found.tolist() == [[1, 0], [0, 1], [0, 0]]
    (entry,) = entries(tmp_path)
    assert entry.name == "noise-softmax" and entry.dataset == "toy"
