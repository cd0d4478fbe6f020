"""Exclusive times: a stack of clocks of which only the topmost runs."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch

#: category -> what it counts, in the order of tables and figures
CATEGORIES = {
    "data": "order, gathering, decoding: the harness' loops over the training images",
    "augmentation": "rendering of views, with their normalisation",
    "forward": "passes with gradient",
    "guess": "passes in training mode without gradient",
    "inference": "passes in evaluation mode without gradient, such as full passes over the training set",
    "backward": "gradients",
    "optimiser": "the rest of an update: clipping, weights, schedule, loss log",
    "method": "the rest of the method's epoch",
    "harness": "the rest of the epoch: random streams, log, curve",
    "evaluation": "held-out data after the epoch; everything in it counts here",
}

Now = Callable[[], float]
Function = Callable[..., Any]


class Clock:
    """Seconds per category. A section that opens within another one stops the outer one's clock.

    So the categories of an epoch sum to its length by construction: between two readings one category gets all the time.
    Sections within `evaluation` count as evaluation. One thread only.
    """

    def __init__(self, now: Now) -> None:
        self._now = now
        self._stack = ["outside"]
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._mark = now()

    def enter(self, category: str) -> None:
        self._turn()
        self._stack.append("evaluation" if self._stack[-1] == "evaluation" else category)

    def leave(self) -> None:
        self._turn()
        self._stack.pop()

    def read(self) -> dict[str, float]:
        """The seconds of all categories since the last call, apart from what lay outside of epochs."""
        self._turn()
        seconds = {category: self._seconds[category] for category in CATEGORIES}
        self._seconds.clear()
        return seconds

    def _turn(self) -> None:
        now = self._now()
        self._seconds[self._stack[-1]] += now - self._mark
        self._mark = now

    # -- what a patch puts in a function's place -----------------------------------------------------------------------
    def timed(self, category: str, function: Function) -> Function:
        """`function` as a section."""

        @functools.wraps(function)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            self.enter(category)
            try:
                return function(*arguments, **named)
            finally:
                self.leave()

        return wrapper

    def timed_iterator(self, category: str, function: Function) -> Function:
        """The iterator that `function` returns, each of its items as a section; what its user does between them is not."""

        @functools.wraps(function)
        def wrapper(*arguments: Any, **named: Any) -> Iterator[Any]:
            iterator = iter(function(*arguments, **named))
            while True:
                self.enter(category)
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                finally:
                    self.leave()
                yield item

        return wrapper


def busy_clock(device: torch.device) -> Now:
    """Seconds of work: of this process, whatever else the machine does meanwhile; on CUDA simply seconds."""
    return device_clock(device) if device.type == "cuda" else time.process_time


def device_clock(device: torch.device) -> Now:
    """Seconds; on CUDA a reading waits for the device, so that work is counted where it was asked for."""
    if device.type != "cuda":
        return time.perf_counter

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now
