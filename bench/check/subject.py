"""The method under test: its runs on the miniature data, and what is seen while they last."""

from __future__ import annotations

import copy
import functools
import math
import random
import re
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from bench.check.miniature import EPOCHS, make_cell, registered
from bench.method import Method, method_class, method_file
from bench.schedule.job import Job
from bench.schedule.limits import alarm
from bench.trial import runner
from bench.trial.runner import Options
from bench.trial.task import NeedError, Task

#: seconds that one run may take; sound ones take a fraction of one
TIME_LIMIT = 20.0
#: what global random generators start from: numbers that no method would seed them with
GLOBAL_SEED, OTHER_SEED = 715_827_883, 357_913_941


class Failure(Exception):
    """A check that a method does not pass; the message says what to do."""


class _Interrupt(BaseException):
    """Ends a run between two epochs, the way Ctrl-C does."""


@dataclass
class Outcome:
    """One run of the method. `state` is its state at the end of training, None where it cannot be saved."""

    record: dict[str, Any]
    trial: Any
    source: Path
    state: dict[str, Any] | None = None
    epochs: list[int] = field(default_factory=list)
    interrupted: bool = False
    #: (need, was it declared?) for each read; names of withheld attributes that were asked for
    reads: list[tuple[str, bool]] = field(default_factory=list)
    withheld: list[str] = field(default_factory=list)
    #: global random generators that are not as they were before the run
    touched: list[str] = field(default_factory=list)

    @property
    def method(self) -> Method:
        return self.trial.method

    def require_done(self, condition: str) -> Outcome:
        """Raise `Failure` unless the run was finished with finite metrics."""
        if self.record["status"] != "done":
            raise Failure(f"{condition}: {self.record['status']}: {self.record['reason']}{self._place()}")
        for name, value in self.record["metrics"].items():
            if isinstance(value, float) and not math.isfinite(value):
                raise Failure(f"{condition}: the metric {name} is {value}")
        return self

    def _place(self) -> str:
        lines = re.findall(rf'File "{re.escape(str(self.source))}", line (\d+)', self.record.get("traceback") or "")
        return f" ({self.source.name}:{lines[-1]})" if lines else ""

    def results(self) -> dict[str, Any]:
        """What must be the same, bit for bit, whenever the same cell is run."""
        cost = {name: self.record["cost"][name] for name in ("forward_images", "backward_images")}
        return {
            "metrics": self.record["metrics"],
            "curve": self.trial.curve.as_dict(),
            "cost": cost,
            "state": self.state,
        }


class Reach:
    """Which lines of a file were run; a debugger or a coverage tool that is at work has precedence."""

    def __init__(self, file: str) -> None:
        self.file, self.lines, self.measured = file, set[int](), True

    @contextmanager
    def watching(self) -> Iterator[None]:
        if sys.gettrace() is not None:
            self.measured = False
            yield
            return
        sys.settrace(self._called)
        try:
            yield
        finally:
            sys.settrace(None)

    def _called(self, frame: Any, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename == self.file else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        self.lines.add(frame.f_lineno)
        return self._line


class Subject:
    """A method by slug or file, with its runs. Raises `FieldError` when there is no such method or `smoke` is wrong."""

    def __init__(self, reference: str) -> None:
        self.cls = method_class(reference)
        self.source = method_file(self.cls)
        self.path = str(self.source) if reference.endswith(".py") or "/" in reference else None
        self.smoke = dict(self.cls.smoke)
        self.cls.resolve(self.smoke)
        functions = (value for value in vars(self.cls).values() if hasattr(value, "__code__"))
        self.reach = Reach(next((f.__code__.co_filename for f in functions), str(self.source)))

    def run(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        epochs: int = EPOCHS,
        training: Mapping[str, Any] | None = None,
        work: str | None = None,
        stop: int | None = None,
        global_seed: int = GLOBAL_SEED,
        **axes: Any,
    ) -> Outcome:
        """Run a cell through `run_cell` as any executor would. `stop` interrupts it once that epoch was trained.

        `work` keeps a checkpoint of every epoch there. `global_seed` is what the global random generators start from.
        """
        training = {**(training or {}), "epochs": epochs}
        with registered():
            cell = make_cell(self.cls, {**self.smoke, **(params or {})}, training=training, **axes)
            outcome = Outcome({}, None, self.source)
            job = self.job(cell, work)
            with _observed(outcome), _global_generators(outcome, global_seed), self.reach.watching(), _bounded(job):
                self._execute(outcome, job, stop)
        return outcome

    def job(self, cell: dict[str, Any], work: str | None = None) -> Job:
        options = Options("check", self.path, work_folder=work, time_limit=TIME_LIMIT, checkpoint_seconds=0.0)
        return Job(cell, options, self.cls.slug, folder="unused")

    def _execute(self, outcome: Outcome, job: Job, stop: int | None) -> None:
        def on_epoch(epoch: int, values: Mapping[str, Any]) -> None:
            outcome.epochs.append(epoch)
            if epoch == stop:
                raise _Interrupt

        try:
            outcome.record = runner.run_cell(job.cell, job.options, on_epoch)
        except _Interrupt:
            outcome.interrupted = True
            outcome.record = outcome.trial.record
        except SystemExit as error:
            outcome.record = outcome.trial.record
            outcome.record["reason"] = f"the method ended the process: SystemExit({error.code})"
        if outcome.record["status"] == "done":
            try:
                outcome.state = copy.deepcopy(outcome.method.state_dict())
            except TypeError:
                outcome.state = None  # the check `checkpoint` says why

    @functools.cached_property
    def base(self) -> Outcome:
        """The run that most checks look at. Raises `Failure` when it is not done."""
        return self._base.require_done("a plain run")

    @functools.cached_property
    def _base(self) -> Outcome:
        return self.run()

    @functools.cached_property
    def variants(self) -> list[dict[str, Any]]:
        """Each other value of each field that is true or false, or one of a few words; one field at a time."""
        found = []
        for item in self.cls.fields().values():
            current = self.smoke.get(item.name, item.default)
            found += [{item.name: choice} for choice in _choices(item.type) if choice != current]
        return found

    @functools.cached_property
    def variant_runs(self) -> list[tuple[dict[str, Any], Outcome]]:
        return [(params, self.run(params=params, epochs=EPOCHS - 1)) for params in self.variants]


def _choices(wanted: Any) -> tuple[Any, ...]:
    """All values of a type that has but a few; of one that allows null besides, null."""
    if wanted is bool:
        return (True, False)
    if get_origin(wanted) is Literal:
        return get_args(wanted)
    if get_origin(wanted) in (types.UnionType, Union):
        return tuple(choice for option in get_args(wanted) for choice in _choices(option))
    return (None,) if wanted is type(None) else ()


def call(subject: Subject, what: str, function: Callable[[], Any]) -> Any:
    """Call a hook of the method directly; whatever it raises is the method's failure, not the battery's."""
    try:
        return function()
    except Exception as error:
        frames = []
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == subject.reach.file:
                frames.append(trace.tb_lineno)
            trace = trace.tb_next
        place = f" ({subject.source.name}:{frames[-1]})" if frames else ""
        raise Failure(f"{what} raises {type(error).__name__}: {error}{place}") from error


def difference(a: Any, b: Any, path: str = "result") -> str | None:
    """The first place where two results differ in a bit, or None. NaN equals NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        a, b = a.cpu().numpy(), b.cpu().numpy()
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    elif isinstance(a, Mapping) and isinstance(b, Mapping):
        if set(a) != set(b):
            return f"{path} (keys {', '.join(map(str, set(a) ^ set(b)))})"
        return next((found for key in a if (found := difference(a[key], b[key], f"{path}.{key}"))), None)
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return f"{path} (lengths {len(a)} and {len(b)})"
        pairs = enumerate(zip(a, b, strict=True))
        return next((found for i, (x, y) in pairs if (found := difference(x, y, f"{path}[{i}]"))), None)
    elif isinstance(a, float) and isinstance(b, float):
        same = a.hex() == b.hex()
    else:
        same = type(a) is type(b) and a == b
    return None if same else path


@contextmanager
def _bounded(job: Job) -> Iterator[None]:
    """End a run that does not return; a timer that was running, such as a test's own limit, is put back afterwards."""
    begin, (remaining, interval) = time.monotonic(), signal.getitimer(signal.ITIMER_REAL)
    try:
        with alarm(job):
            yield
    finally:
        if remaining:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, remaining - (time.monotonic() - begin)), interval)


@contextmanager
def _observed(outcome: Outcome) -> Iterator[None]:
    """Keep the trial, and note what the method reads of the privileged and asks for of the withheld."""

    class Kept(runner._Trial):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            outcome.trial = self

    grant, withhold = Task._grant, Task.__getattr__

    def noted_grant(task: Task, need: str) -> Any:
        outcome.reads.append((need, need in task._needs))
        return grant(task, need)

    def noted_withholding(task: Task, name: str) -> Any:
        try:
            return withhold(task, name)
        except NeedError:
            outcome.withheld.append(name)
            raise

    with (
        patch.object(runner, "_Trial", Kept),
        patch.object(Task, "_grant", noted_grant),
        patch.object(Task, "__getattr__", noted_withholding),
    ):
        yield


@contextmanager
def _global_generators(outcome: Outcome, seed: int) -> Iterator[None]:
    """Set the global generators to `seed`, note which have moved at the end, and put them back as they were."""
    ours = _generator_states()
    torch.random.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    before = _generator_states()
    try:
        yield
    finally:
        after = _generator_states()
        outcome.touched = [name for name in before if difference(before[name], after[name], name)]
        torch.set_rng_state(ours["torch"])
        np.random.set_state(ours["numpy.random"])
        random.setstate(ours["random"])


def _generator_states() -> dict[str, Any]:
    return {"torch": torch.get_rng_state(), "numpy.random": np.random.get_state(), "random": random.getstate()}
