"""Checkpoints where the suite says: after chosen epochs, in a folder or on shared storage, picked up by another worker."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from small import MLP, make_cell

from bench.cell import cell_id
from bench.schedule import Job, run_job
from bench.trial import checkpoint
from bench.trial.runner import Options, checkpoint_path, checkpoint_storage, forget_checkpoint, run_cell
from bench.trial.storage import Folder, Remote, storage
from faults.commands import SLOW, until

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="forks")]


class Stop(BaseException):
    """Ends a run between two epochs, as a kill does."""


def stopped(cell: dict[str, Any], options: Options, epoch: int) -> None:
    def on_epoch(reached: int, values: Any) -> None:
        if reached == epoch:
            raise Stop

    with pytest.raises(Stop):
        run_cell(cell, options, on_epoch)


def epochs_of(cell: dict[str, Any], options: Options) -> tuple[dict[str, Any], list[int]]:
    epochs: list[int] = []
    return run_cell(cell, options, lambda epoch, values: epochs.append(epoch)), epochs


@pytest.fixture
def memory() -> Iterator[str]:
    """An address of fsspec's storage in memory, standing for a bucket."""
    system = fsspec.filesystem("memory")
    yield "memory://bucket/checkpoints"
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def places(tmp_path: Path, memory: str) -> list[str]:
    return [str(tmp_path / "folder"), f"file://{tmp_path}/shared", memory]


CELL = make_cell("co-teaching", model=MLP, training={"epochs": 6}, noise="symmetric@0.4")


def test_another_worker_goes_on_wherever_checkpoints_lie(tmp_path: Path, memory: str) -> None:
    straight = run_cell(CELL, Options("suite"))
    for place in places(tmp_path, memory):
        here = Options("suite", work_folder=str(tmp_path / "here"), checkpoint_dir=place, checkpoint_seconds=0.0)
        there = dataclasses.replace(here, work_folder=str(tmp_path / "there"))
        stopped(CELL, here, 4)
        record, epochs = epochs_of(CELL, there)
        assert epochs == [4, 5] and record["warnings"] == [], place  # epoch 3 was checkpointed
        assert (record["metrics"], record["curve"]) == (straight["metrics"], straight["curve"])
        assert record["cost"]["checkpoint_bytes"] > 10_000 and record["cost"]["checkpoint_seconds"] > 0
        where = storage(place)
        assert where.read(f"{record['id']}.ckpt") is not None
        forget_checkpoint(there, record["id"])
        forget_checkpoint(there, record["id"])
        assert where.read(f"{record['id']}.ckpt") is None
        assert not list(tmp_path.rglob("*.ckpt")) and not list(tmp_path.rglob("*.tmp"))
    assert straight["cost"]["checkpoint_bytes"] == 0


def test_after_chosen_epochs(tmp_path: Path) -> None:
    options = Options("suite", work_folder=str(tmp_path), checkpoint_seconds=float("inf"), checkpoint_epochs=(1, 3, 5))
    for stop, first in ((1, 0), (2, 2), (3, 2), (5, 4)):
        stopped(CELL, options, stop)
        assert epochs_of(CELL, dataclasses.replace(options, checkpoint_epochs=()))[1][0] == first
        forget_checkpoint(options, cell_id(CELL))
    run_cell(CELL, options)
    path = checkpoint_path(options, cell_id(CELL))
    assert path is not None and len(list(tmp_path.glob("*.ckpt"))) == 1, "a newer one replaces the older"
    state, _ = checkpoint.load(Folder(tmp_path), cell_id(CELL), made_of(path), torch.device("cpu"))
    assert state is not None and state["epoch"] == 3, "none after the last epoch, which a record follows"


def made_of(path: Path) -> dict[str, Any]:
    import io

    return torch.load(io.BytesIO(path.read_bytes()[32:]), weights_only=True)["made"]


def test_a_checkpoint_holds_all_that_decides_what_follows(tmp_path: Path) -> None:
    """Networks, optimisers, per-sample state and history; generators are seeded anew for each epoch and need no place."""
    options = Options("suite", work_folder=str(tmp_path), checkpoint_seconds=0.0)
    stopped(CELL, options, 3)
    path = checkpoint_path(options, cell_id(CELL))
    assert path is not None
    state, _ = checkpoint.load(Folder(tmp_path), cell_id(CELL), made_of(path), torch.device("cpu"))
    assert state is not None and state["epoch"] == 2 and state["curve"]["epoch"] == [0, 1, 2]
    nets = [value for value in state["method"].values() if isinstance(value, dict) and "optimizer" in value]
    assert len(nets) == 2 and all({"network", "optimizer", "scaler"} <= set(net) for net in nets)
    assert all(net["optimizer"]["state"] for net in nets), "momentum"


def test_shared_storage_that_fails_is_a_warning_without_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for uri in ("nosuch://user:hunter2@host/folder", "memory://key:hunter2@host/folder"):
        if uri.startswith("memory"):
            monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "_open", broken)
        options = Options("suite", checkpoint_dir=uri, checkpoint_seconds=0.0)
        record = run_cell(make_cell(model=MLP, training={"epochs": 3}), options)
        assert record["status"] == "done" and record["warnings"]
        text = json.dumps(record)
        assert "no checkpoint could be written" in text and "hunter2" not in text and "key:" not in text
        assert run_job(Job(make_cell(model=MLP), options, "a job", str(tmp_path)))["status"] == "done"


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("bucket key:hunter2 refused")


def test_an_upload_that_breaks_off_leaves_the_last_one(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where = Remote(memory)
    where.write("a", b"first")
    where.write("a", b"second")
    assert where.read("a") == b"second" and where.read("b") is None
    with monkeypatch.context() as patch:
        patch.setattr(fsspec.get_filesystem_class("memory"), "_open", broken)
        with pytest.raises(OSError, match="memory://bucket"):
            where.write("a", b"third")
    assert where.read("a") == b"second"
    where.remove("a")
    where.remove("a")
    assert where.read("a") is None


def test_damaged_on_shared_storage_starts_anew(memory: str) -> None:
    options = Options("suite", checkpoint_dir=memory, checkpoint_seconds=0.0)
    stopped(CELL, options, 3)
    where, name = Remote(memory), f"{cell_id(CELL)}.ckpt"
    content = where.read(name)
    assert content is not None
    where.write(name, content[: len(content) // 2])
    record, epochs = epochs_of(CELL, options)
    assert epochs[0] == 0 and "is damaged" in record["warnings"][0]


def test_where_nothing_is_kept() -> None:
    assert checkpoint_storage(Options("suite")) is None and checkpoint_path(Options("suite"), "0") is None
    assert checkpoint_path(Options("suite", checkpoint_dir="s3://bucket/folder"), "0") is None
    assert storage("/a/folder") == Folder(Path("/a/folder")) and storage("s3://a/b") == Remote("s3://a/b")


def test_killed_here_resumed_there(tmp_path: Path) -> None:
    """Two processes with nothing in common but the place of their checkpoints; the first is killed."""
    import multiprocessing

    method = tmp_path / "slow.py"
    method.write_text(SLOW)
    (tmp_path / "notes").mkdir()
    cell = make_cell(model=MLP, training={"epochs": 6})
    cell["method"] = {"name": "slow", "version": 1, "params": {"seconds": 0.2, "notes": str(tmp_path / "notes"), "tag": 0}}
    options = Options(
        "suite", method_path=str(method), work_folder=str(tmp_path / "a"), checkpoint_dir=f"file://{tmp_path}/shared",
        checkpoint_seconds=0.0,
    )  # fmt: skip
    first = multiprocessing.get_context("spawn").Process(target=run_cell, args=(cell, options))
    first.start()
    until(lambda: list((tmp_path / "notes").glob("2-*")), 120)
    first.kill()
    first.join()
    record, epochs = epochs_of(cell, dataclasses.replace(options, work_folder=str(tmp_path / "b")))
    assert record["status"] == "done" and epochs[0] in (2, 3) and epochs[-1] == 5
    assert not (tmp_path / "a" / f"{record['id']}.ckpt").exists()
