"""The contract of a method, at three levels, and how methods are found.

A method is one class with one slug in one file. Its hyper-parameters are typed class fields, the constructor only stores
them. Everything that it assigns to `self` from `setup` on is its state: learners, tensors, numbers, lists and dictionaries
of these are saved and restored by the harness; a name with a leading underscore is scratch and is not.

====================  ==========================================================================================
`LossMethod`          per-sample losses from logits; one network; the harness trains it
`StepMethod`          one step on one batch; any number of networks; one pass over the data per epoch
`EpochMethod`         a whole epoch: full passes, splits, several loaders
====================  ==========================================================================================
"""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from bench.fields import Configurable, FieldError, nearest
from bench.learner import Learner, Passes
from bench.needs import NEEDS as NEEDS
from bench.registry import classes_in, discover

if TYPE_CHECKING:
    from bench.trial.task import Batch, Task

#: source of the `fixed` recipes for the embedded data sets
TUNED = "tuned here: best of four variants on validation data, suites/tuning/tuning-{}.yaml"
#: data sets for which the settings tuned on digits stand: the digits, and what is made of them with as many images
DIGITS = ("digits", "tinted-digits", "web-digits")

_WHEN = ("dataset", "noise", "rate", "model")


@dataclass(frozen=True)
class Recipe:
    """Named hyper-parameters with a source. `set` holds fields of the method and `training.<field>` keys.

    `when` matches cell fields (`dataset`, `noise` kind, `rate`, `model`) against one value or a list of values. The kind is the
    one that the noise counts as: `dividemix-seed` as symmetric or asymmetric, `file` as what the suite says (`like`). Several
    recipes of one name may match a cell; later ones override earlier ones. A recipe named `fixed` is what a user who does
    not know the noise could do, so it may not match on `noise` or `rate`.
    """

    name: str
    source: str
    set: Mapping[str, Any]
    when: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in self.when:
            if key not in _WHEN:
                raise FieldError(f"recipe {self.name}.when", f"unknown key {key!r}", nearest(key, _WHEN))
        if self.name == "fixed" and {"noise", "rate"} & set(self.when):
            raise FieldError("recipe fixed.when", "a fixed recipe cannot depend on the noise, which a user does not know")

    def matches(self, facts: Mapping[str, Any]) -> bool:
        options = {key: value if isinstance(value, (list, tuple)) else (value,) for key, value in self.when.items()}
        return all(facts.get(key) in values for key, values in options.items())


class Method(Configurable):
    """What all methods share. Subclass one of the three levels below, not this class."""

    slug: ClassVar[str] = ""
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    version: ClassVar[int] = 1  # bump when a change of the code can move results
    level: ClassVar[str] = ""
    #: forward-equivalents (FE) per training image and epoch that the algorithm needs: a forward pass is 1, with backward 3
    cost: ClassVar[str] = ""
    #: released code that it was compared with: "owner/name @commit"; empty where there is none
    code: ClassVar[str] = ""
    networks: ClassVar[int] = 1
    recipes: ClassVar[tuple[Recipe, ...]] = ()
    #: names from NEEDS; a class attribute, or a property where it depends on fields
    needs: ClassVar[Any] = frozenset()
    #: how many samples the need `trusted` asks for; most methods that have it make this a field
    trusted_size = 0
    #: fields, for `bench check` alone, with which every stage has begun in the second epoch on some eighty images
    smoke: ClassVar[Mapping[str, Any]] = {}

    task: Any  # a bench.trial.task.Task, set by the harness before `setup`

    def _lacks(self, hook: str) -> str:
        return f"{self.slug} does not define {hook}, which a method of the {self.level} level must"

    def setup(self, task: Task) -> None:
        """Create learners and per-sample state. Called once, before the first epoch and before a resume."""
        raise NotImplementedError(self._lacks("setup(task)"))

    def epoch(self, epoch: int) -> None:
        """Train for one epoch (0-based)."""
        raise NotImplementedError(self._lacks("epoch(epoch)"))

    def predict(self, images: Tensor) -> Tensor:
        """Class probabilities [N, K] of normalised images [N, C, H, W]; an ensemble says so in its docstring."""
        raise NotImplementedError(self._lacks("predict(images)"))

    def clean_scores(self) -> Tensor | None:
        """Score per training sample [N], higher means 'more likely labelled correctly'; None when it has none yet."""
        return None

    def validated(self, epoch: int, accuracy: float) -> None:
        """Called after each epoch with the validation accuracy, for methods that declare the need `validation`."""

    # -- state ---------------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """All state by attribute name. Raises `TypeError` naming an attribute that cannot be saved."""
        return {name: _pack(f"{self.slug}.{name}", value) for name, value in self._state_items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; the method has been set up as for a fresh run."""
        current = dict(self._state_items())
        for name, value in state.items():
            setattr(self, name, _unpack(current.get(name), value))

    def learners(self) -> list[Learner]:
        """The networks that are trained."""
        return [net for net in self.counted_networks() if isinstance(net, Learner)]

    def counted_networks(self) -> list[Passes]:
        """All networks, averages included: what counts forward passes."""
        return list(_passes(value for _, value in self._state_items()))

    def _state_items(self) -> list[tuple[str, Any]]:
        fields = type(self).fields()
        return [(n, v) for n, v in vars(self).items() if n not in fields and n != "task" and not n.startswith("_")]


def _pack(name: str, value: Any) -> Any:
    if hasattr(value, "state_dict"):
        return value.state_dict()
    if isinstance(value, Tensor):
        return value.detach().clone()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if type(value) in (list, tuple):
        return type(value)(_pack(f"{name}[{i}]", item) for i, item in enumerate(value))
    if isinstance(value, dict):
        return {key: _pack(f"{name}[{key!r}]", item) for key, item in value.items()}
    raise TypeError(
        f"{name} is a {type(value).__name__}, which cannot be checkpointed; keep tensors, numbers, lists, tuples and "
        "dictionaries in attributes, or start the name with an underscore if it can be rebuilt"
    )


def _unpack(current: Any, saved: Any) -> Any:
    """The inverse of `_pack`: what has a state of its own (a learner) is restored in place, wherever it stands."""
    if hasattr(current, "load_state_dict"):
        current.load_state_dict(saved)
        return current
    if isinstance(saved, (list, tuple)) and isinstance(current, (list, tuple)):
        padded = [*current, *[None] * (len(saved) - len(current))]
        return type(saved)(_unpack(old, new) for old, new in zip(padded, saved, strict=False))
    if isinstance(saved, dict) and isinstance(current, dict):
        return {key: _unpack(current.get(key), value) for key, value in saved.items()}
    return saved


def _passes(values: Iterable[Any]) -> Iterator[Passes]:
    for value in values:
        if isinstance(value, Passes):
            yield value
        elif isinstance(value, (list, tuple, dict)):
            yield from _passes(value.values() if isinstance(value, dict) else value)


class StepMethod(Method):
    """One step per batch: define `setup`, `step(batch, epoch)` and `predict`."""

    level = "step"
    #: the views of each image that a batch carries, of `bench.trial.images.VIEWS`: "weak", "strong", "plain", "simclr", ...
    views: ClassVar[tuple[str, ...]] = ("weak",)

    def start_epoch(self, epoch: int) -> None:
        """Hook before the pass over the data."""

    def samples(self, epoch: int) -> Tensor | None:
        """Hook: the samples of this epoch, int64, repeats allowed; None for all."""
        return None

    def step(self, batch: Batch, epoch: int) -> None:
        raise NotImplementedError(self._lacks("step(batch, epoch)"))

    def epoch(self, epoch: int) -> None:
        self.start_epoch(epoch)
        for batch in self.task.batches(views=self.views, indices=self.samples(epoch)):
            self.step(batch, epoch)


class LossMethod(StepMethod):
    """One network and a loss: define `loss(logits, batch) -> [B]`; optionally `prepare(task)` for per-sample state.

    Samples are scored for cleanness by their last training loss (smaller is cleaner), unless overridden.
    """

    level = "loss"

    def setup(self, task: Task) -> None:
        self.net = task.learner()
        self.last_losses = torch.full((task.num_samples,), float("nan"), device=task.device)
        self.prepare(task)

    def prepare(self, task: Task) -> None:
        """Hook for per-sample state."""

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Per-sample losses [B] of logits [B, K]."""
        raise NotImplementedError(self._lacks("loss(logits, batch)"))

    def reduce(self, losses: Tensor) -> Tensor:
        """Hook: the batch's losses [B] as one number; their mean."""
        return losses.mean()

    def step(self, batch: Batch, epoch: int) -> None:
        losses = self.loss(self.net(batch.images), batch)
        if losses.shape != batch.labels.shape:
            raise ValueError(
                f"{self.slug}.loss must return one loss per sample, shape {tuple(batch.labels.shape)}; "
                f"it returned {tuple(losses.shape)}"
            )
        self.last_losses[batch.index] = losses.detach().float()
        self.net.step(self.reduce(losses))

    def predict(self, images: Tensor) -> Tensor:
        return self.net.infer(images).softmax(dim=1)

    def clean_scores(self) -> Tensor | None:
        return -self.last_losses


class EpochMethod(Method):
    """A whole epoch is the method's: define `setup`, `epoch(epoch)`, `predict`, and `clean_scores` where it has them."""

    level = "epoch"


# -- discovery -----------------------------------------------------------------------------------------------------------
@functools.cache
def methods() -> dict[str, type[Method]]:
    """All methods by slug: the files of `methods/`, and the entry points `bench.methods` of installed packages."""
    from importlib.metadata import entry_points

    found = discover("methods", Method)
    for entry in entry_points(group="bench.methods"):
        cls = entry.load()
        if cls.slug in found and found[cls.slug] is not cls:
            raise RuntimeError(f"entry point {entry.value} claims the slug {cls.slug!r}, which {found[cls.slug]} has")
        found[cls.slug] = cls
    return {slug: _without_constructor(cls) for slug, cls in sorted(found.items())}


def _without_constructor(cls: type[Method]) -> type[Method]:
    """The class, or a `FieldError`: a constructor of its own would not get the fields, or not store them."""
    if cls.__init__ is not Configurable.__init__:
        raise FieldError("method", f"{cls.__name__} defines __init__; a method has none, put it into setup(task)")
    return cls


def method_class(reference: str, base: Path | None = None) -> type[Method]:
    """The class of a slug, or of a path to a Python file (relative to `base`). Raises `FieldError`."""
    if reference.endswith(".py") or "/" in reference:
        return method_from_file((base or Path.cwd()) / reference)
    found = methods()
    if reference not in found:
        hint = nearest(reference, found) + " `bench ls methods` lists all; a file of your own is given by path, ./x.py"
        raise FieldError("method", f"unknown method {reference!r}", hint)
    return found[reference]


def method_from_file(path: Path) -> type[Method]:
    """The one method class that a user's file defines. Raises `FieldError` when there is none, or several, or it fails."""
    path = Path(path).resolve()
    if not path.is_file():
        raise FieldError("method", f"no file {path}", "give the path of a Python file that defines one method class")
    source = path.read_bytes()
    name = f"bench_user_method_{path.stem}_{hashlib.sha256(source).hexdigest()[:12]}"
    module = sys.modules.get(name)
    if module is None:
        # Compiled here and not by the import system, which would take stale bytecode for a file that was edited within a
        # second, and leave a cache folder beside it.
        module = types.ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module
        try:
            exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise FieldError("method", f"{path} does not import: {type(error).__name__}: {error}") from error
    found = [cls for slug, cls in classes_in(module, Method).items()]
    if len(found) != 1:
        names = ", ".join(cls.__name__ for cls in found) or "none"
        raise FieldError("method", f"{path} must define exactly one method class with a slug, found {names}")
    builtin = methods().get(found[0].slug)
    if builtin is not None and Path(sys.modules[builtin.__module__].__file__ or "").resolve() != path:
        raise FieldError("method", f"{path} uses the slug {found[0].slug!r} of a built-in method", "choose another slug")
    return _without_constructor(found[0])


def method_file(cls: type[Method]) -> Path:
    """The source file of a method class."""
    return Path(sys.modules[cls.__module__].__file__ or "").resolve()
