"""The task: all that a method can see.

A task hands over images, given labels, indices, learners, views, random streams, and what the method declared in `needs`.
True labels, test data and other methods' results are not reachable from it (law 3).
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from bench.cell import stream_seed
from bench.engine import Engine
from bench.learner import Average, Learner, Passes
from bench.models import build
from bench.ops.losses import cross_entropy
from bench.stages import StageInfo, StageStore
from bench.training import Training
from bench.trial.evaluate import MEASURED_METRICS, SELECT_BY
from bench.trial.images import VIEWS, Images

if TYPE_CHECKING:
    from bench.trial.stage import Stage
    from bench.trial.watch import Sightings

#: names in a curve that only the harness fills
MEASURED = tuple(dict.fromkeys(("epoch", "lr", "group_acc", *MEASURED_METRICS, *SELECT_BY.values())))


#: seed -> training samples int64 [n] of one epoch
Subset = Callable[[int], Tensor]


class NeedError(RuntimeError):
    """A method reached for information that it did not declare, or that no method may have."""


class TimeLimit(RuntimeError):
    """The cell ran longer than its suite allows."""


class FullPass(NamedTuple):
    """All training samples through one network in index order, evaluation mode, no augmentation, no gradient."""

    logits: Tensor  # float32 [N, K]
    features: Tensor  # float32 [N, D], pooled, penultimate
    losses: Tensor  # float32 [N], cross-entropy of the given labels
    probs: Tensor  # float32 [N, K]


class Batch:
    """Some training samples: `index` int64 [B], `labels` int64 [B] (given labels), `views`: images [B, C, H, W] each."""

    __slots__ = ("index", "labels", "views")

    def __init__(self, index: Tensor, labels: Tensor, views: tuple[Tensor, ...]) -> None:
        self.index, self.labels, self.views = index, labels, views

    @property
    def images(self) -> Tensor:
        """The first view."""
        return self.views[0]

    def __len__(self) -> int:
        return self.index.shape[0]


class Task:
    """See the module docstring. Methods use the public attributes and methods; the harness fills in the rest."""

    def __init__(
        self,
        *,
        images: Images,
        labels: Tensor,
        num_classes: int,
        training: Training,
        model: dict[str, Any],
        axes: dict[str, Any],
        method_name: str,
        needs: frozenset[str],
        granted: dict[str, Any],
        engine: Engine | None = None,
        weights: Path | None = None,
        time_limit: float | None = None,
        subset: Subset | None = None,
        samples: Mapping[str, Any] | None = None,
        store: StageStore | None = None,
    ) -> None:
        self.labels = labels
        self.num_classes = num_classes
        self.num_samples = len(labels)
        self.training = training
        self.epochs, self.batch_size = training.epochs, training.batch_size
        self.device = images.device
        self.current_epoch = -1
        self._images, self._model, self._axes = images, model, axes
        self._draw_subset = subset
        self._subset: Tensor | None = None
        self._method_name, self._needs, self._granted = method_name, needs, granted
        self._engine, self._weights = engine or Engine(), weights
        self.warnings: list[str] = []
        self.stages: list[StageInfo] = []
        self.stage_seconds = 0.0  # wall time in `stage`: building, waiting for another process, loading
        self._samples = dict(samples or {"axes": axes, "count": len(labels)})  # which images, whatever their labels
        self._store = store or StageStore(None)
        self._inside: str | None = None  # the stage that is being built
        self._deadline = time.monotonic() + time_limit if time_limit else None
        self._time_limit = time_limit
        self._learners: dict[str, Learner] = {}
        self._generators: dict[str, torch.Generator] = {}
        self._loops = 0
        self._log: dict[str, tuple[Tensor, int]] = {}
        self._averages: list[Average] = []
        self._sightings: Sightings | None = None
        self.watch_seconds = 0.0  # wall time of what is watched

    # -- privileged information ------------------------------------------------------------------------------------
    @property
    def noise_rate(self) -> float:
        """Measured share of wrong labels in the training set; needs `noise_rate`."""
        return self._grant("noise_rate")

    @property
    def transition_matrix(self) -> Tensor:
        """Measured transition matrix float [K, K], rows are true classes; needs `transition_matrix`."""
        return self._grant("transition_matrix")

    @property
    def groups(self) -> Tensor:
        """Group of each training sample int64 [N]; needs `groups`."""
        return self._grant("groups")

    @property
    def trusted(self) -> Tensor:
        """Training samples int64 [<= trusted_size], ascending, whose given labels are right, as many of each class; needs
        `trusted`. There are fewer than asked for where a class has fewer."""
        return self._grant("trusted")

    def _grant(self, need: str) -> Any:
        if self._inside is not None:
            raise NeedError(f"a stage is label-free: stage {self._inside!r} cannot use task.{need}")
        if need not in self._needs:
            raise NeedError(
                f"method {self._method_name!r} read task.{need} without declaring it; add `needs = frozenset({{{need!r}}})` "
                "to the class: its rows will be footnoted"
            )
        if need not in self._granted:
            raise NeedError(f"method {self._method_name!r} needs {need}, which this data set does not have")
        return self._granted[need]

    def __getattr__(self, name: str) -> NoReturn:
        if name == "labels":
            raise NeedError(f"a stage is label-free: stage {self.__dict__.get('_inside')!r} cannot use task.labels")
        if name in ("clean_labels", "true_labels", "clean", "test", "val", "validation_labels", "test_labels", "evaluator"):
            raise NeedError(
                f"method {self._method_name!r} reached for task.{name}: true labels and held-out data belong to the evaluator, "
                "no method may see them"
            )
        raise AttributeError(f"a task has no attribute {name!r}")

    # -- networks ---------------------------------------------------------------------------------------------------
    def learner(self, name: str = "a", extra: Callable[[int], Mapping[str, nn.Module]] | None = None) -> Learner:
        """A new network with its optimiser. Initial weights depend on data set, model, seed and `name`, not on the method.

        `extra` gets the number of features D and returns further modules by name (a projection head) that are trained,
        saved and averaged with the network: `learner.extra["projection"]`.
        """
        return self._learner(name, extra, self.training)

    def _learner(self, name: str, extra: Callable[[int], Mapping[str, nn.Module]] | None, training: Training) -> Learner:
        if name in self._learners:
            raise ValueError(f"learner {name!r} exists already; give each network its own name")
        network = self._network(name)
        modules = nn.ModuleDict()
        if extra is not None:
            width = network.head.in_features  # type: ignore[union-attr]
            with self._initial(name, "extra"):
                modules = nn.ModuleDict(extra(width)).to(self.device)  # type: ignore[arg-type]
        # By weak references: a cycle would keep images and networks on the device until Python's collector comes by.
        log, warn = weakref.WeakMethod(self.log), weakref.WeakMethod(self._warn)
        learner = Learner(
            network, training, engine=self._engine, extra=modules,
            log_loss=lambda loss: _call(log, "train_loss", loss), warn=lambda message: _call(warn, message),
        )  # fmt: skip
        self._learners[name] = learner
        return learner

    def average(self, learner: Learner, name: str | None = None) -> Average:
        """A network that follows `learner` by a moving average (`average.update(decay)`), starting as its copy, or with the
        initial weights of `name`."""
        average = Average(learner, None if name is None else self._network(name))
        self._averages.append(average)
        return average

    def _network(self, name: str) -> nn.Module:
        with self._initial(name):
            network = build(self._model, self._images.shape, self.num_classes, self._weights)
        return network.to(self.device)

    @contextlib.contextmanager
    def _initial(self, *name: str) -> Iterator[None]:
        """The stream of initial weights: initialisers of torch.nn know only the global generator."""
        seed = stream_seed("init", self._axes, self._model, *name)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield

    def _warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)

    # -- stages -----------------------------------------------------------------------------------------------------
    def stage(
        self,
        name: str,
        key: Mapping[str, Any],
        build: Callable[[Stage], dict[str, Tensor]],
        *,
        inputs: Mapping[str, dict[str, Tensor]] | None = None,
        per_seed: bool = False,
    ) -> dict[str, Tensor]:
        """The tensors that `build(stage)` returns: label-free work, done once for all cells that it is the same for.

        `build` is a plain function that takes everything from its `bench.trial.stage.Stage`: the values in `key` (JSON;
        `key["training"]` are fields of `Training`) and in `inputs` (what earlier stages returned, by names of your own).
        Where cells of different seeds see the same images they share a stage, unless `per_seed`. Raises `NeedError` where
        `build` reaches for labels.
        """
        from bench.trial.stage import run

        begin = time.perf_counter()
        try:
            return run(self, name, key, build, inputs or {}, per_seed)
        finally:
            self.stage_seconds += time.perf_counter() - begin

    @contextlib.contextmanager
    def _label_free(self, name: str) -> Iterator[None]:
        """While a stage is built, labels and privileged information are out of reach."""
        labels, self._inside = self.__dict__.pop("labels"), name
        try:
            yield
        finally:
            self.labels, self._inside = labels, None

    # -- randomness -------------------------------------------------------------------------------------------------
    def generator(self, name: str = "method") -> torch.Generator:
        """The method's own random stream of this epoch (CPU). Fresh every epoch, so resuming needs no saved state."""
        if name not in self._generators:
            self._generators[name] = self._stream("method", self._method_name, name)
        return self._generators[name]

    @contextlib.contextmanager
    def layer_randomness(self) -> Iterator[None]:
        """Layers such as dropout draw from the global generator: it is seeded for this epoch and put back afterwards."""
        seed = stream_seed("layers", self._axes, self.current_epoch)
        cuda = self.device.type == "cuda"
        with torch.random.fork_rng(devices=[self.device] if cuda else []):
            torch.default_generator.manual_seed(seed)
            if cuda:
                torch.cuda.manual_seed(seed)
            yield

    def _stream(self, *axes: Any) -> torch.Generator:
        generator = torch.Generator()
        generator.manual_seed(stream_seed(*axes, self._axes, self.current_epoch))
        return generator

    # -- data -------------------------------------------------------------------------------------------------------
    def batches(
        self,
        views: tuple[str, ...] = ("weak",),
        *,
        indices: Tensor | None = None,
        batch_size: int | None = None,
        shuffle: bool = True,
    ) -> Iterator[Batch]:
        """One pass over the training samples (or over `indices`, int64), the last partial batch included.

        Each loop of an epoch has its own order and augmentation streams, numbered by their place within the epoch: the
        first loop of two methods sees the same order and the same crops.
        """
        unknown = [view for view in views if view not in VIEWS]
        if unknown:
            raise ValueError(f"unknown view {unknown[0]!r}; valid: {', '.join(VIEWS)}")
        loop, self._loops = self._loops, self._loops + 1
        chosen = self.epoch_samples() if indices is None else indices
        if shuffle:
            order = torch.randperm(len(chosen), generator=self._stream("order", loop))
            chosen = chosen[order.to(self.device, non_blocking=True)]
        size = batch_size or self.batch_size
        blocks = chosen.split(size * max(1, self._images.block // size))
        if len(chosen) == 0:
            return
        for index, rendered in zip(
            blocks, self._images.blocks(blocks, views, lambda name: self._stream(name, loop)), strict=True
        ):
            self._check_deadline()
            images = [part.split(size) for part in rendered]
            for batch_index, batch_labels, *batch_views in zip(
                index.split(size), self.labels[index].split(size), *images, strict=True
            ):
                yield Batch(batch_index, batch_labels, tuple(batch_views))

    def epoch_samples(self) -> Tensor:
        """Index, int64 [M], of every training sample, or of this epoch's class-balanced subset where the data set draws one."""
        if self._draw_subset is None:
            return torch.arange(self.num_samples, device=self.device)
        if self._subset is None:
            chosen = self._draw_subset(stream_seed("subset", self._axes, self.current_epoch))
            self._subset = chosen.to(self.device)
        return self._subset

    def cycle(self, views: tuple[str, ...] = ("weak",), *, indices: Tensor, batch_size: int | None = None) -> Iterator[Batch]:
        """Passes over `indices` without end, each newly shuffled. Raises `ValueError` when there are none."""
        if len(indices) == 0:
            raise ValueError("cannot cycle over an empty set of samples; the method must handle this case")
        while True:
            yield from self.batches(views, indices=indices, batch_size=batch_size)

    def plain_images(self) -> Iterator[Tensor]:
        """All training images in index order, normalised, not augmented, in parts [n, C, H, W]."""
        return self._images.plain()

    def logits(self, net: Passes) -> Tensor:
        """Logits [N, K] of all training samples in index order, evaluation mode, no augmentation, no gradient."""
        return self._full_pass(net.infer)

    def losses(self, net: Passes) -> Tensor:
        """Cross-entropy [N] of the given labels, over all training samples as `logits`."""
        return cross_entropy(self.logits(net), self.labels)

    def predictions(self, net: Passes) -> Tensor:
        """Class probabilities [N, K], over all training samples as `logits`."""
        return self.logits(net).softmax(dim=1)

    def features(self, net: Passes) -> Tensor:
        """Pooled features [N, D] of all training samples in index order, evaluation mode, no augmentation, no gradient."""
        return self._full_pass(net.features)

    def full_pass(self, net: Passes) -> FullPass:
        """Logits, features, losses and probabilities of all training samples from one pass over the data."""
        logits, features = self._full_pass(net.full)
        return FullPass(logits, features, cross_entropy(logits, self.labels), logits.softmax(dim=1))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] to float32 with zero mean and unit deviation per channel of the training set."""
        return self._images.normalise(images)

    def _full_pass(self, function: Callable[[Tensor], Any]) -> Any:
        parts = []
        for images in self.plain_images():
            self._check_deadline()
            parts.append(function(images))
        if len(parts) == 1:
            return parts[0]
        return tuple(map(torch.cat, zip(*parts, strict=True))) if isinstance(parts[0], tuple) else torch.cat(parts)

    # -- log --------------------------------------------------------------------------------------------------------
    def log(self, name: str, value: Tensor | float) -> None:
        """Add a scalar to this epoch's mean of `name`; stays on the device, costs no synchronisation.

        Raises `ValueError` for a name under which the harness reports what it measured.
        """
        if name in MEASURED:
            raise ValueError(f"task.log cannot write {name!r}, which the harness measures; choose another name")
        value = torch.as_tensor(value).detach()
        total, count = self._log.get(name, (0.0, 0))
        self._log[name] = (total + value, count + 1)

    # -- watched quantities -----------------------------------------------------------------------------------------
    def observe(self, name: str, **kinds: Callable[[], Any]) -> None:
        """Offer a quantity that a suite can watch under `name` (its key `watch`); for figures, without any effect on results.

        Callables run at once, and only where `name` is watched, under no_grad; what they return is copied. One of

        - `members`: a set of samples, bool [N]; beside it `labels` (int64 [N], if the method has changed the given ones);
        - `values`: a number per sample, floating [N]; beside it `mixture` (one of `bench.ops`, or weights, means and variances,
          each [C]), `simulated` (floating [M], to compare with) and `threshold` (a number);
        - `points`: where samples lie, floating [N, D]; beside it `members` and `labels` (int64 [N], if not the given ones).

        Passes in evaluation mode, streams and logs in them leave no trace. Of several calls with one name in an epoch the first
        counts. Raises `ValueError` for other kinds and for other shapes, where anything is watched.
        """
        if self._sightings is not None:
            self._sightings.look(self, name, kinds)

    # -- used by the harness ----------------------------------------------------------------------------------------
    def watch_with(self, sightings: Sightings) -> None:
        self._sightings = sightings

    def start_epoch(self, epoch: int) -> None:
        self.current_epoch, self._loops, self._subset = epoch, 0, None
        self._generators.clear()
        self._log.clear()
        count = self.num_samples if self._draw_subset is None else len(self.epoch_samples())
        for learner in self._learners.values():
            learner.start_epoch(epoch, steps=-(-count // self.batch_size))

    def epoch_log(self) -> dict[str, float]:
        """Means of what was logged in this epoch: the one point where the device is waited for."""
        return {name: float(total) / count for name, (total, count) in self._log.items()}

    def _check_deadline(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise TimeLimit(f"exceeded the time limit of {self._time_limit:g} s per cell (resources.time_limit)")


def _call(method: weakref.WeakMethod[Callable[..., None]], *values: Any) -> None:
    """Call it if its object is still there."""
    bound = method()
    if bound is not None:
        bound(*values)
