"""`run_cell`: from a cell to its record. Runs the same inline, in a Ray worker, in a notebook."""

from __future__ import annotations

import contextlib
import datetime
import gc
import math
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench import provenance
from bench.cell import cell_id
from bench.data import DataError
from bench.engine import Engine
from bench.interrupts import interrupted
from bench.method import Method, method_class, method_file
from bench.records import SCHEMA
from bench.trial import checkpoint
from bench.trial.evaluate import Curve, Diverged, Evaluator, Protocol, metrics
from bench.trial.prepare import prepare
from bench.trial.storage import Folder, Storage, storage
from bench.trial.task import Task, TimeLimit
from bench.trial.watch import Watcher
from bench.watch import Watch


@dataclass(frozen=True)
class Options:
    """How and where a cell runs: nothing here may change its result."""

    suite: str
    method_path: str | None = None  # a method outside the package
    data_root: str | None = None
    work_folder: str | None = None  # checkpoints and noise artefacts; None keeps nothing
    executor: str = "inline"
    device: str = "cpu"
    engine: Engine = Engine()
    time_limit: float | None = None  # seconds
    checkpoint_seconds: float = 30.0
    checkpoint_epochs: tuple[int, ...] = ()  # 0-based; a checkpoint follows each of these as well
    checkpoint_dir: str | None = None  # a folder, or an address such as s3://bucket/folder; None: the work folder
    threads: int = 1
    noise_files: tuple[tuple[str, str], ...] = ()  # sha256 of a label vector, and the file that holds it
    cache: str | None = None  # folder of stages shared between cells; None: `cache` in the work folder
    watch: Watch = ()  # quantities that the record is to show, see `bench.watch`


Progress = Callable[[int, dict[str, float | None]], None]


class DeviceLost(dict[str, Any]):
    """The record of a cell after which this process cannot use its GPU any more: every further cell in it would fail."""


def run_cell(cell: dict[str, Any], options: Options, on_epoch: Progress | None = None) -> dict[str, Any]:
    """Run one cell to its end and return its record; failures and divergence are records too, see also `DeviceLost`.

    `on_epoch(epoch, values)` is called after each evaluation. Interrupts pass through, and so does `DataError`: missing data are
    no fault of the cell. The checkpoint of the cell, if any, is removed by the caller once the record is safely written
    (`forget_checkpoint`).
    """
    torch.set_num_threads(options.threads)
    try:
        return _record(cell, options, on_epoch)
    finally:
        _release(options)


def _record(cell: dict[str, Any], options: Options, on_epoch: Progress | None) -> dict[str, Any]:
    started = time.perf_counter()
    record: dict[str, Any] = {
        "schema": SCHEMA, "id": cell_id(cell), "suite": options.suite, "cell": cell, "status": "failed", "reason": None,
        "metrics": {}, "detail": {}, "curve": {}, "noise": None, "data": None, "cost": None, "provenance": {}, "warnings": [],
    }  # fmt: skip
    trial, lost = _Trial(cell, options, record), False
    begin = datetime.datetime.now(datetime.UTC)
    try:
        with options.engine.applied(trial.device):
            trial.run(on_epoch, started)
        record["status"] = "done"
    except Diverged as error:
        record["status"], record["reason"] = "diverged", str(error)
    except TimeLimit as error:
        record["reason"] = str(error)
    except Exception as error:
        if interrupted(error):
            raise KeyboardInterrupt from error
        if isinstance(error, DataError):
            raise
        if _out_of_memory(error):
            record["reason"] = f"out of memory: {error}"
        else:
            record["reason"] = f"{type(error).__name__}: {error}"
            record["traceback"] = traceback.format_exc(limit=-8)
            lost = _lost_device(error)
    trial.finish(begin)
    return DeviceLost(record) if lost else record


def _release(options: Options) -> None:
    """A reused worker must not keep the memory of its last trial, whose parts nothing refers to by now."""
    if torch.device(options.device).type == "cuda" and torch.cuda.is_available():
        if options.engine.compile != "off":  # compiled passes refer to themselves; a collection takes some 0.2 s
            gc.collect()
        with contextlib.suppress(RuntimeError):  # of a device that is lost
            torch.cuda.empty_cache()


def checkpoint_storage(options: Options) -> Storage | None:
    """Where checkpoints lie; None where nothing is kept."""
    place = options.checkpoint_dir or options.work_folder
    return storage(place) if place else None


def checkpoint_path(options: Options, identity: str) -> Path | None:
    """The checkpoint's file where it lies in a folder."""
    where = checkpoint_storage(options)
    return where.path / checkpoint.name_of(identity) if isinstance(where, Folder) else None


def forget_checkpoint(options: Options, identity: str) -> None:
    """Remove the checkpoint of a cell, if there is one. Raises `OSError`."""
    where = checkpoint_storage(options)
    if where is not None:
        where.remove(checkpoint.name_of(identity))


class _Trial:
    """The parts of one run, and what of it enters the record."""

    def __init__(self, cell: dict[str, Any], options: Options, record: dict[str, Any]) -> None:
        self.cell, self.options, self.record = cell, options, record
        self.device = torch.device(options.device)
        self.curve = Curve()
        self.clocks = {"setup_seconds": 0.0, "train_seconds": 0.0, "eval_seconds": 0.0, "checkpoint_seconds": 0.0}
        self.storage = checkpoint_storage(options)
        self.checkpoint_bytes = 0
        self.peak = 0
        self.method: Method | None = None
        self.task: Task | None = None
        self.watcher: Watcher | None = None

    def run(self, on_epoch: Progress | None, started: float) -> None:
        cell, options = self.cell, self.options
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        cls = method_class(options.method_path or cell["method"]["name"])
        path = method_file(cls)
        self.record["provenance"] = provenance.describe(self.device, options.executor, path)
        self.record["provenance"]["engine"] = options.engine.describe()
        made = {"code": self.record["provenance"]["code"], "torch": str(torch.__version__), "device": self.device.type}
        made |= options.engine.describe()
        protocol = Protocol(**cell["protocol"])
        method = cls(**cell["method"]["params"])
        task, evaluator = prepare(cell, options, method, protocol, self.record)
        method.task = self.task = task
        if options.watch:
            self.watcher = Watcher(options.watch, task, evaluator.truth, self.record["noise"]["classes"])
            task.watch_with(self.watcher.sightings)
        method.setup(task)
        self.method = method
        first = self._resume(method, made)
        self.clocks["setup_seconds"] += time.perf_counter() - started - task.stage_seconds
        saved = time.monotonic()
        for epoch in range(first, task.epochs):
            values = self._epoch(method, task, evaluator, epoch)
            if self.watcher is not None:
                self.watcher.after_epoch(method, epoch)
            if "validation" in method.needs and values.get("val_acc") is not None:
                method.validated(epoch, float(values["val_acc"] or 0.0))
            if on_epoch is not None:
                on_epoch(epoch, values)
            due = time.monotonic() - saved >= options.checkpoint_seconds or epoch in options.checkpoint_epochs
            if due and epoch + 1 < task.epochs:
                self._checkpoint(method, made, epoch)
                saved = time.monotonic()
        self.record["metrics"] = metrics(self.curve, protocol.last_k, protocol.select_by)
        self.record["detail"] = evaluator.detail(method)

    def _checkpoint(self, method: Method, made: dict[str, Any], epoch: int) -> None:
        """A checkpoint is an economy: where it cannot be written the cell goes on, and its record says so."""
        if self.storage is None:
            return
        begin = time.perf_counter()
        try:
            watched = self.watcher.state_dict() if self.watcher else None
            size = checkpoint.save(self.storage, self.record["id"], made, epoch, method, self.curve, self.clocks, watched)
            self.checkpoint_bytes = max(self.checkpoint_bytes, size)
        except OSError as error:
            warning = f"no checkpoint could be written ({error.strerror or error}): an interrupted run starts this cell anew"
            if warning not in self.record["warnings"]:
                self.record["warnings"].append(warning)
        self.clocks["checkpoint_seconds"] += time.perf_counter() - begin

    def finish(self, begin: datetime.datetime) -> None:
        record = self.record
        record["curve"] = _rounded(self.curve.as_dict()) if self.curve.epoch else {}
        end = datetime.datetime.now(datetime.UTC)
        record["provenance"] |= {"started": begin.isoformat(timespec="seconds"), "finished": end.isoformat(timespec="seconds")}
        passes = self.method.counted_networks() if self.method else []
        if self.watcher is not None:
            self._finish_watching(self.watcher)
        if self.task is not None:
            record["warnings"] += [w for w in self.task.warnings if w not in record["warnings"]]
        stages = [info.block() for info in self.task.stages] if self.task else []
        forward = sum(net.forward_images for net in passes)
        backward = sum(net.backward_images for net in passes)
        seconds = self.clocks["train_seconds"]
        record["cost"] = {
            **{name: round(value, 4) for name, value in self.clocks.items()},
            "images_per_second": round(backward / seconds, 1) if seconds > 0 else None,
            "peak_memory_bytes": self.peak,
            "checkpoint_bytes": self.checkpoint_bytes,  # of the largest; 0 where none was written
            "networks": len(self.method.learners()) if self.method else 0,
            "forward_images": forward,
            "backward_images": backward,
            "device_memory": self.device.type,
            "stage_seconds": round(sum(stage["seconds"] for stage in stages), 4),
            "stages": stages,
        }

    def _finish_watching(self, watcher: Watcher) -> None:
        """What was watched enters the record; whatever becomes of it, the result stands."""
        record = self.record
        try:
            watched = watcher.result()
            if watched:
                record["watched"] = watched
            if record["status"] == "done" and self.method is not None:
                record["warnings"] += watcher.complaints(self.method, watched)
        except Exception as error:
            record["warnings"].append(f"watch: nothing is shown ({type(error).__name__}: {error})")

    def _resume(self, method: Method, made: dict[str, Any]) -> int:
        """Continue after the last checkpointed epoch, where there is one; returns the first epoch to run."""
        if self.storage is None:
            return 0
        state, why = checkpoint.load(self.storage, self.record["id"], made, self.device)
        if state is None:
            if why:
                self.record["warnings"].append(why)
            return 0
        method.load_state_dict(state["method"])
        self.curve = Curve.from_dict(state["curve"])
        self.clocks.update(state["clocks"])
        first = int(state["epoch"]) + 1
        if self.watcher is not None:
            self.record["warnings"] += self.watcher.load_state_dict(state.get("watched"), first)
        return first

    def _epoch(self, method: Method, task: Task, evaluator: Evaluator, epoch: int) -> dict[str, float | None]:
        begin, elsewhere = time.perf_counter(), task.stage_seconds + task.watch_seconds
        task.start_epoch(epoch)
        with task.layer_randomness():
            method.epoch(epoch)
        learning_rate = next((net.lr for net in method.learners()), None)
        log = task.epoch_log()
        middle = time.perf_counter()
        self.clocks["train_seconds"] += middle - begin - (task.stage_seconds + task.watch_seconds - elsewhere)
        loss = log.get("train_loss")
        if loss is not None and not math.isfinite(loss):
            raise Diverged(f"the training loss is not finite in epoch {epoch}")
        values, groups = evaluator.evaluate(method)
        self.clocks["eval_seconds"] += time.perf_counter() - middle
        self.peak = max(self.peak, _peak_memory(self.device))
        extra = {name: value if math.isfinite(value) else None for name, value in log.items()}
        self.curve.append(epoch, {**values, **extra, "lr": learning_rate}, groups)
        return values


def _out_of_memory(error: Exception) -> bool:
    """Of the host or the device; torch raises a plain `RuntimeError` where the host refuses it memory."""
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def _lost_device(error: Exception) -> bool:
    """Whether CUDA will answer every later call of this process with an error, as it does after all but a lack of memory."""
    accelerator: Any = getattr(torch, "AcceleratorError", ())  # since torch 2.8
    of_cuda = isinstance(error, accelerator) or (isinstance(error, RuntimeError) and "CUDA error" in str(error))
    return of_cuda and not _out_of_memory(error)


def _peak_memory(device: torch.device) -> int:
    """Bytes: the device's peak on CUDA, else what the process holds now (its all-time peak would include other trials)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _rounded(curve: dict[str, Any]) -> dict[str, Any]:
    """Six decimals are enough to draw a curve; the metrics of the record are exact."""

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 6)
        if isinstance(value, list):
            return [short(item) for item in value]
        return {k: short(v) for k, v in value.items()} if isinstance(value, dict) else value

    return short(curve)
