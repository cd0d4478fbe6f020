"""Counting where the host waits for the device: with CUDA's own warnings, or, without a GPU, from the operations that are run.

On a CPU all tensors are "host" tensors, so it takes book-keeping. What CPU generators yield, what is made without naming a
device, and whatever is computed from that alone may be read by the host: a method that draws a coin does not wait for a GPU.
All other tensors stand for tensors on the device: images, labels, weights, what is made on or moved to a device that is named,
and what is computed from any of these.
"""

from __future__ import annotations

import contextlib
import functools
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.check.miniature import make_cell, registered
from bench.check.subject import Subject
from bench.method import Method, StepMethod, methods
from bench.trial.runner import Options, run_cell

ROOT = Path(__file__).resolve().parent.parent

aten = torch.ops.aten
#: operations whose result or whose shape the host has to read: `.item()`, `if tensor:`, boolean masks, checks of factorisations
WAITS = {
    aten._local_scalar_dense, aten.allclose, aten.equal, aten.nonzero, aten.masked_select, aten._unique, aten._unique2,
    aten.unique_dim, aten.unique_consecutive, aten.bincount, aten.multinomial, aten._linalg_check_errors,
}  # fmt: skip
#: ways to the host that run no operation when the tensor is there already
READS = {Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__}
_NEW = {aten.lift_fresh, aten.lift_fresh_copy, aten.lift}  # torch.tensor(...): their input was made of Python numbers


class HostTensors:
    """Storages that hold nothing of the device."""

    def __init__(self) -> None:
        self._known: dict[int, StorageWeakRef] = {}
        self.checked = False  # within an operation that looks at values on a CPU, but not on a GPU

    def __contains__(self, tensor: Tensor) -> bool:
        found = self._known.get(tensor.untyped_storage()._cdata)
        return found is not None and not found.expired()

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self._known[storage._cdata] = StorageWeakRef(storage)

    def discard(self, tensor: Tensor) -> None:
        self._known.pop(tensor.untyped_storage()._cdata, None)


class _Operations(TorchDispatchMode):
    def __init__(self, host: HostTensors, found: list[str]) -> None:
        super().__init__()
        self.host, self.found = host, found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        drawn = any(isinstance(leaf, torch.Generator) for leaf in leaves)
        inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        on_host = drawn or func.overloadpacket in _NEW or all(tensor in self.host for tensor in inputs)
        if not on_host and not self.host.checked and _waits(func, args, kwargs):
            self.found.append(f"{func} at {_place()}")
        result = func(*args, **kwargs)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                (self.host.add if on_host else self.host.discard)(tensor)
        return result


class _Reads(TorchFunctionMode):
    def __init__(self, host: HostTensors, found: list[str]) -> None:
        super().__init__()
        self.host, self.found = host, found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (func in READS or (func is Tensor.to and "cpu" in args[1:])) and args[0] not in self.host:
            self.found.append(f"Tensor.{func.__name__} at {_place()}")
        self.host.checked = func is F.one_hot and max([*args[1:], kwargs.get("num_classes", -1)]) > 0
        result = func(*args, **kwargs)
        self.host.checked = False
        if func is Tensor.to and any(isinstance(value, torch.device) for value in (*args[1:], *kwargs.values())):
            if args[0] in self.host:
                result = result.clone()  # a move to a real device leaves the host's tensor behind
            self.host.discard(result)
        elif kwargs.get("device") is not None and isinstance(result, Tensor) and "generator" not in kwargs:
            self.host.discard(result)
        return result


def _waits(func: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    packet = func.overloadpacket
    if packet in (aten.index, aten.index_put, aten.index_put_, aten._unsafe_index):  # a mask has to be counted...
        masked = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        return masked and not (len(args) > 2 and args[2].numel() == 1)  # ...but not to fill it with one number
    if packet is aten.repeat_interleave:
        return func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None
    return packet in WAITS


def _place() -> str:
    """The innermost line of ours that led here."""
    ours = [f for f in traceback.extract_stack() if f.filename.startswith(str(ROOT)) and f.filename != __file__]
    frames = [f for f in ours if "site-packages" not in f.filename]  # an environment may lie in the checkout
    return f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else "?"


@contextlib.contextmanager
def watched(device: str) -> Iterator[list[str]]:
    """Lists the places where the host waits for `device` within the block, as they come."""
    found: list[str] = []
    if device == "cpu":
        host = HostTensors()
        with _Operations(host, found), _Reads(host, found):
            yield found
        return

    def show(message: Any, category: Any, filename: str, lineno: int, *rest: Any) -> None:
        if "synchroniz" in str(message):
            found.append(f"{_place()} ({filename}:{lineno})")

    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show
            yield found
    finally:
        torch.cuda.set_sync_debug_mode(before)


# -- methods -----------------------------------------------------------------------------------------------------------
#: epochs of a watched run: warm-up, and one in which every stage has begun
EPOCHS = 2


def cases() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every method with its smoke settings, alone and with each other value of its yes/no and multiple-choice fields."""
    found = {}
    for slug in methods():
        subject = Subject(slug)
        for changed in ({}, *subject.variants):
            name = "-".join([slug, *(f"{key}={value}" for key, value in changed.items())])
            found[name] = (slug, {**subject.smoke, **changed})
    return found


CASES = cases()


@dataclass
class Watched:
    """Where a run waited for the device: in each epoch, and there within the steps of a step method."""

    epochs: list[list[str]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    batches: int = 0


@functools.cache
def run_watched(case: str, device: str, batch_size: int = 16) -> Watched:
    """Run a method on the miniature data: 76 training images, two epochs."""
    slug, params = CASES[case]
    cls, seen, now = methods()[slug], Watched(), list[list[str]]()
    epoch: Callable[..., None] = cls.epoch
    step: Callable[..., None] = getattr(cls, "step", cls.epoch)

    def watched_epoch(self: Method, number: int) -> None:
        with watched(device) as found:
            now.append(found)
            epoch(self, number)
        seen.epochs.append(found)

    def watched_step(self: Method, *arguments: Any) -> None:
        before = len(now[-1])
        step(self, *arguments)
        seen.steps += now[-1][before:]
        seen.batches += 1

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(cls, "epoch", watched_epoch))
        if issubclass(cls, StepMethod):
            stack.enter_context(patch.object(cls, "step", watched_step))
        stack.enter_context(registered())
        cell = make_cell(cls, params, training={"epochs": EPOCHS, "batch_size": batch_size})
        record = run_cell(cell, Options("suite", device=device))
    assert record["status"] == "done", record["reason"]
    assert len(seen.epochs) == EPOCHS
    return seen
