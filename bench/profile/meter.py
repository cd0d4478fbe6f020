"""One run of a cell under observation. Everything is patched from outside, while it lasts: a normal run has no hooks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from bench.learner import Learner, Passes
from bench.method import Method, method_class
from bench.profile.clock import Clock, Now
from bench.trial import runner
from bench.trial.evaluate import Evaluator
from bench.trial.images import Images
from bench.trial.runner import Options
from bench.trial.task import Task

#: seconds between two samples of the process' memory
SAMPLE_SECONDS = 0.01

Counts = dict[Passes, tuple[int, int]]  # images forward and backward, by network
Around = Callable[[int], AbstractContextManager[Any]]


@dataclass
class Epoch:
    """One epoch: seconds by category, seconds of work in all, training samples, images through each network in training and
    in evaluation."""

    number: int
    seconds: dict[str, float]
    busy: float
    samples: int
    trained: Counts
    evaluated: Counts

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def training(self) -> float:
        """Seconds without evaluation."""
        return self.total - self.seconds["evaluation"]


class Meter:
    """Runs a cell and keeps its epochs, its record and its trial. `now` reads the time, `busy` the work done so far.

    `fine` False: only evaluation is told from training, which costs a few readings of the clock an epoch, and memory is not
    watched. `around(epoch)`: a context to run an epoch in.
    """

    def __init__(self, now: Now, busy: Now, *, fine: bool, around: Around | None = None) -> None:
        self.fine = fine
        self._busy = busy
        self.epochs: list[Epoch] = []
        self.record: dict[str, Any] = {}
        self.trial: Any = None
        self.peak_bytes = 0
        self._clock = Clock(now)
        self._around = around or (lambda epoch: nullcontext())
        self._trained: Counts = {}

    def run(self, cell: dict[str, Any], options: Options) -> Meter:
        with self.installed(method_class(options.method_path or cell["method"]["name"])):
            self.record = runner.run_cell(cell, options)
        return self

    @contextmanager
    def installed(self, cls: type[Method]) -> Iterator[None]:
        """The patches; they are undone at the end, whatever happens."""
        with ExitStack() as stack:
            for owner, name, replacement in self._patches(cls):
                stack.enter_context(patch.object(owner, name, replacement))
            yield

    def _patches(self, cls: type[Method]) -> Iterator[tuple[Any, str, Any]]:
        clock = self._clock
        yield runner._Trial, "_epoch", self._epoch(runner._Trial._epoch)
        yield Evaluator, "evaluate", self._evaluate(clock.timed("evaluation", Evaluator.evaluate))
        if not self.fine:
            return
        yield cls, "epoch", clock.timed("method", cls.epoch)
        yield Task, "batches", clock.timed_iterator("data", Task.batches)
        yield Task, "plain_images", clock.timed_iterator("data", Task.plain_images)
        yield Images, "_finish", clock.timed("augmentation", Images._finish)
        yield Passes, "_forward", self._forward(Passes._forward)
        yield Learner, "step", clock.timed("optimiser", Learner.step)
        yield torch.autograd, "backward", clock.timed("backward", torch.autograd.backward)
        yield torch.autograd, "grad", clock.timed("backward", torch.autograd.grad)

    def _epoch(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def epoch(trial: Any, method: Method, task: Task, evaluator: Evaluator, number: int) -> Any:
            if not self.epochs:
                self.trial = trial
                _forget_peak(trial.device)
            before = counts(method)
            with memory(trial.device) if self.fine else nullcontext([0]) as peak, self._around(number):
                self._clock.read()
                begin = self._busy()
                self._clock.enter("harness")
                try:
                    values = original(trial, method, task, evaluator, number)
                finally:
                    self._clock.leave()
                    seconds, busy = self._clock.read(), self._busy() - begin
            self.peak_bytes = max(self.peak_bytes, *peak)
            samples = task.num_samples if task._subset is None else len(task._subset)
            trained, evaluated = difference(self._trained, before), difference(counts(method), self._trained)
            self.epochs.append(Epoch(number, seconds, busy, samples, trained, evaluated))
            return values

        return epoch

    def _evaluate(self, timed: Callable[..., Any]) -> Callable[..., Any]:
        def evaluate(evaluator: Evaluator, method: Method) -> Any:
            self._trained = counts(method)
            return timed(evaluator, method)

        return evaluate

    def _forward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(net: Passes, what: str, images: Tensor) -> Any:
            kind = "forward" if torch.is_grad_enabled() else "guess" if net.network.training else "inference"
            self._clock.enter(kind)
            try:
                return original(net, what, images)
            finally:
                self._clock.leave()

        return forward


def counts(method: Method) -> Counts:
    """Images that went forward and backward so far, by network."""
    return {net: (net.forward_images, net.backward_images) for net in method.counted_networks()}


def difference(after: Counts, before: Counts) -> Counts:
    return {net: (f - before.get(net, (0, 0))[0], b - before.get(net, (0, 0))[1]) for net, (f, b) in after.items()}


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


@contextmanager
def memory(device: torch.device) -> Iterator[list[int]]:
    """Bytes in use while the context lasts: of the device on CUDA (its peak), else samples of the process' resident memory."""
    seen: list[int] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            seen.append(runner._peak_memory(device))

    thread = threading.Thread(target=sample, name="bench-profile-memory", daemon=True)
    if device.type != "cuda":
        seen.append(runner._peak_memory(device))
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        if thread.is_alive():
            thread.join()
        seen.append(runner._peak_memory(device))
