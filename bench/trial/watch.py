"""Watching a trial: what a method shows by `task.observe`, and what the harness makes of it.

Two halves that know nothing of each other's secrets: `Sightings` is the task's and holds copies of what the method itself
has; the `Watcher` is the runner's, knows the truth, and fetches them after each epoch. No reference leads from the first
to the second.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.trial.evaluate import Truth
from bench.trial.watched import SERIES, Facts, Parts, Series
from bench.watch import GENERIC, Watch, epochs_of, kind_of

if TYPE_CHECKING:
    from bench.method import Method
    from bench.trial.task import Task


@contextlib.contextmanager
def unnoticed(task: Task) -> Iterator[None]:
    """What is done in here without gradient is as if it had not been: counted passes, modes, streams, loops and logs are put
    back, and its time is in `task.watch_seconds` alone. Batch statistics are not: passes must be in evaluation mode."""
    counts = [(net, net.forward_images) for net in (*task._learners.values(), *task._averages)]
    modes = [(module, module.training) for net, _ in counts for part in (net.network, net.extra) for module in part.modules()]
    states = {name: generator.get_state() for name, generator in task._generators.items()}
    loops, log = task._loops, dict(task._log)
    cuda = task.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(task.device)  # what was asked for before is not what is timed here
    begin = time.perf_counter()
    with torch.random.fork_rng(devices=[task.device] if cuda else []), torch.no_grad():
        yield
    for net, count in counts:
        net.forward_images = count
    for module, training in modes:
        module.training = training
    task._generators = {name: task._generators[name] for name in states}
    for name, state in states.items():
        task._generators[name].set_state(state)
    task._loops, task._log = loops, log
    task.watch_seconds += time.perf_counter() - begin


class Sightings:
    """What a method shows in one epoch, for the names that are watched. Of several calls with one name the first counts."""

    def __init__(self, watch: Watch) -> None:
        self.watch = dict(watch)
        self.known: dict[str, str] = {}  # every name that the method offers, and its kind
        self._seen: dict[str, Parts] = {}

    def look(self, task: Task, name: str, given: Mapping[str, Any]) -> None:
        """See `Task.observe`."""
        kind = kind_of(given)
        if name in GENERIC:
            raise ValueError(f"task.observe cannot show {name!r}, which the harness shows of every method; choose another name")
        if self.known.setdefault(name, kind) != kind:
            raise ValueError(f"task.observe: {name!r} was shown as {self.known[name]}, and now as {kind}; use two names")
        if name not in self.watch or name in self._seen or not self._wanted(name, kind, task.current_epoch):
            return
        with unnoticed(task):
            parts = {what: call() for what, call in given.items()}
            self._seen[name] = {what: _part(task, name, what, value) for what, value in parts.items()}

    def _wanted(self, name: str, kind: str, epoch: int) -> bool:
        """Sets are followed through all epochs, for they are counted; the last sighting is known only afterwards."""
        epochs = epochs_of(self.watch[name], kind)
        return isinstance(epochs, str) or kind != "values" or epoch + 1 in epochs

    def take(self) -> dict[str, Parts]:
        """What was seen since the last time, by name."""
        seen, self._seen = self._seen, {}
        return seen


class Watcher:
    """What is watched of one trial, from its epochs to the record's block `watched`."""

    def __init__(self, watch: Watch, task: Task, truth: Truth, classes: tuple[str, ...] | None = None) -> None:
        self.watch = dict(watch)
        self.facts = Facts(truth, task.labels.cpu().clone(), task.num_classes, task.epochs, classes)
        self.sightings = Sightings(watch)
        self.series: dict[str, Series] = {}

    def after_epoch(self, method: Method, epoch: int) -> None:
        """Take in what the method showed in this epoch, and what the harness shows of every method."""
        task = method.task
        for name, parts in self.sightings.take().items():
            self._see(name, self.sightings.known[name], epoch, parts)
        for name, kind in GENERIC.items():
            epochs = epochs_of(self.watch[name], kind) if name in self.watch else ()
            if epochs == "all" or (epoch + 1 == task.epochs if epochs == "last" else epoch + 1 in epochs):
                with unnoticed(task):
                    shown = _losses(method) if name == "losses" else _gallery(method)
                    if shown is not None:
                        self._see(name, kind, epoch, shown)

    def _see(self, name: str, kind: str, epoch: int, parts: Parts) -> None:
        if name not in self.series:
            self.series[name] = SERIES[kind](self.facts, epochs_of(self.watch[name], kind))
        self.series[name].see(epoch, parts)

    def result(self) -> dict[str, Any]:
        """The record's block, names in the suite's order."""
        blocks = {name: self.series[name].result() for name in self.watch if name in self.series}
        return {name: block for name, block in blocks.items() if block.get("at") or block.get("epoch") or block.get("distance")}

    def complaints(self, method: Method, shown: Collection[str]) -> list[str]:
        """Warnings about names that are not among `shown` although the trial came to its end."""
        scored = method.clean_scores() is not None
        known = sorted({*self.sightings.known, "losses", *(["gallery"] if scored else [])})
        found = []
        for name in self.watch:
            if name in shown:
                continue
            if name in known:
                found.append(f"watch: {name!r} was not observed in the epochs that were asked for")
            elif name == "gallery":
                found.append(f"watch: 'gallery' was never observed; {method.slug} has no clean_scores")
            else:
                found.append(f"watch: {name!r} was never observed; {method.slug} observes: {', '.join(known)}")
        return found

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: numbers, text, lists, dictionaries and tensors."""
        series = {name: {"kind": one.kind, "state": one.state_dict()} for name, one in self.series.items()}
        return {"watch": list(self.watch), "known": dict(self.sightings.known), "series": series}

    def load_state_dict(self, state: Mapping[str, Any] | None, epoch: int) -> list[str]:
        """Go on where a checkpoint ended, before `epoch`; warnings about names that it was written without."""
        state = state or {"watch": [], "known": {}, "series": {}}
        self.sightings.known.update(state["known"])
        for name, saved in state["series"].items():
            if name in self.watch:
                self.series[name] = SERIES[saved["kind"]](self.facts, epochs_of(self.watch[name], saved["kind"]))
                self.series[name].load_state_dict(saved["state"])
        late = [name for name in self.watch if name not in state["watch"]]
        return [f"watch: {name!r} is watched from epoch {epoch + 1} on; the checkpoint was made without it" for name in late]


# -- what every method shows -------------------------------------------------------------------------------------------
def _losses(method: Method) -> Parts:
    """Cross-entropy [N] of the given labels under the predictions for plain training images."""
    task, losses, begin = method.task, [], 0
    for images in task.plain_images():
        labels = task.labels[begin : begin + len(images)]
        begin += len(images)
        losses.append(-method.predict(images).gather(1, labels[:, None])[:, 0].clamp_min(1e-12).log())
    return {"values": torch.cat(losses).float().cpu()}


def _gallery(method: Method) -> Parts | None:
    scores, images = method.clean_scores(), method.task._images
    if scores is None:
        return None

    def pixels(index: Tensor) -> Tensor:
        """uint8 [n, C, H, W] of training samples, as they were before normalisation."""
        wanted = [index.to(images.device)]
        view = next(iter(images.blocks(wanted, ("plain",), lambda name: torch.Generator())))[0]
        return ((view * images._std + images._mean) * 255).round().clamp(0, 255).to(torch.uint8).cpu()

    return {"scores": scores.detach().float().cpu(), "pixels": pixels}


# -- checking what a method shows --------------------------------------------------------------------------------------
def _part(task: Task, name: str, what: str, value: Any) -> Any:
    """A copy on the CPU of what a callable returned. Raises `ValueError` where it has another shape or type."""
    if what == "mixture":
        return _mixture(name, value)
    if what == "threshold":
        value = torch.as_tensor(value)
    if not isinstance(value, Tensor):
        raise ValueError(f"task.observe({name!r}): {what} must return a tensor, not a {type(value).__name__}")
    count = task.num_samples
    shapes = {"members": (count,), "labels": (count,), "values": (count,), "threshold": ()}
    good = {
        "points": value.ndim == 2 and len(value) == count, "simulated": value.ndim == 1 and len(value) > 0,
        **{key: value.shape == shape for key, shape in shapes.items()},
    }[what]  # fmt: skip
    if not good:
        wanted = {"points": f"({count}, D)", "simulated": "(M,)"}.get(what) or str(shapes[what])
        raise ValueError(f"task.observe({name!r}): {what} must have shape {wanted}, got {tuple(value.shape)}")
    if what == "members" and value.dtype != torch.bool:
        raise ValueError(f"task.observe({name!r}): members must be bool, got {value.dtype}")
    if what in ("values", "points", "simulated") and not value.is_floating_point():
        raise ValueError(f"task.observe({name!r}): {what} must be floating, got {value.dtype}")
    return float(value) if what == "threshold" else value.detach().to("cpu", copy=True)


def _mixture(name: str, value: Any) -> dict[str, Any] | None:
    """Weights, means and variances of a mixture from `bench.ops`, or of a tuple; None for a degenerate one."""
    family = "beta" if hasattr(value, "alphas") else "gaussian"
    if hasattr(value, "degenerate"):
        if bool(value.degenerate):
            return None
        value = (value.weights, value.means, value.variances)
    parts = [torch.as_tensor(part, dtype=torch.float64).cpu() for part in value]
    if len(parts) != 3 or any(part.ndim != 1 or part.shape != parts[0].shape for part in parts):
        got = ", ".join(str(tuple(part.shape)) for part in parts)
        raise ValueError(f"task.observe({name!r}): a mixture is (weights, means, variances), each of shape (C,), got {got}")
    weights, means, variances = (part.tolist() for part in parts)
    return {"family": family, "weights": weights, "means": means, "variances": variances}
