"""What the parity scripts share: running released code as it is, beside ours, and writing down how far they are apart.

A script is called with the path of a checkout of the released repository; nothing of that code is kept here. Files are
pinned by their git blob id (`git hash-object FILE`), so that a figure says exactly which code it was measured against.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from small import make_task, pixels, start  # noqa: E402

from bench.method import Method  # noqa: E402
from bench.trial.task import Batch, Task  # noqa: E402

CLASSES = 4
#: plain SGD on a network of some 300 weights, in batches of 16 and a last one of 12
TRAINING: dict[str, Any] = {
    "epochs": 3, "batch_size": 16, "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3, "augment": "none",
}  # fmt: skip
SETTING = "tiny-cnn, 76 random 1x6x6 images, 4 classes, 3 epochs of SGD 0.1, momentum 0.9, batches of 16, plain images, float32"


# -- released code ---------------------------------------------------------------------------------------------------------
def reference_path(description: str | None) -> Path:
    """The folder given as --reference."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--reference", type=Path, required=True, help="checkout of the released repository")
    return parser.parse_args().reference


def reference_file(folder: Path, name: str, blob: str) -> Path:
    """A file of the checkout. Exits unless it is the one with this git blob id."""
    path = folder / name
    content = path.read_bytes()
    found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if not found.startswith(blob):
        raise SystemExit(f"{path} is git blob {found[:12]}, this script compares with {blob}; check out the commit it names")
    return path


def module(path: Path, stubs: Mapping[str, Any] | None = None) -> types.ModuleType:
    """A released file, imported; `stubs` stand for modules that it imports and that are not needed."""
    made = types.ModuleType(path.stem)
    with patch.dict(sys.modules, dict(stubs or {})):
        exec(compile(path.read_text(), str(path), "exec"), made.__dict__)
    return made


def definitions(path: Path, *names: str, **known: Any) -> types.SimpleNamespace:
    """Some top-level functions and classes of a script that would do too much if it were imported. `known` are the
    names of modules and variables that they use."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in names]
    exec(compile(tree, str(path), "exec"), known)
    return types.SimpleNamespace(**{name: known[name] for name in names})


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """Released code that asks for CUDA gets the CPU."""
    same = lambda self, *_, **__: self  # noqa: E731
    with (
        patch.object(Tensor, "cuda", same), patch.object(nn.Module, "cuda", same),
        patch.object(torch.cuda, "FloatTensor", torch.FloatTensor), patch.object(torch.cuda, "LongTensor", torch.LongTensor),
    ):  # fmt: skip
        yield


class Instead:
    """A module whose named attributes are replaced, for the released code that it is given to."""

    def __init__(self, module: types.ModuleType, **replaced: Any) -> None:
        self.__dict__.update(replaced)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class OldIterator:
    """An iterator that has a method `next` as well, as those of old data loaders had."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)

    def __iter__(self) -> OldIterator:
        return self

    def __next__(self) -> Any:
        return next(self._items)

    next = __next__


@contextlib.contextmanager
def backward_losses() -> Iterator[list[float]]:
    """The losses that somebody takes the gradient of within the block, in their order."""
    taken: list[float] = []
    backward = Tensor.backward

    def observed(self: Tensor, *rest: Any, **options: Any) -> None:
        taken.append(float(self.detach()))
        backward(self, *rest, **options)

    with patch.object(Tensor, "backward", observed):
        yield taken


# -- both sides on the same data, initial weights and batches ---------------------------------------------------------------
def some_logits(scale: float = 2.0, count: int = 76) -> tuple[Tensor, Tensor]:
    """(logits [count, 4], labels [count]) to compare losses on."""
    generator = torch.Generator().manual_seed(7)
    return scale * torch.randn(count, CLASSES, generator=generator), torch.randint(CLASSES, (count,), generator=generator)


def tiny_task(count: int = 76, **settings: Any) -> Task:
    """The same images, noisy-looking labels, orders and initial weights for everyone who asks."""
    labels = torch.randint(CLASSES, (count,), generator=torch.Generator().manual_seed(5))
    training = {**TRAINING, **settings.pop("training", {})}
    return make_task(labels, images=pixels(count), num_classes=CLASSES, training=training, **settings)


def begun(method: Method, **settings: Any) -> Any:
    """The method on the tiny task, set up."""
    return start(method, tiny_task(**settings))


class Released:
    """The other side: the same network and batches, trained by torch alone with a loss of the released code."""

    def __init__(self, name: str = "a", **settings: Any) -> None:
        self.task = tiny_task(**settings)
        self.network = self.task.learner(name).network
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)

    def epoch(self, epoch: int, loss: Callable[[nn.Module, Batch], Tensor]) -> None:
        """One pass; `loss(network, batch)` is the scalar that the released code takes the gradient of."""
        self.task.start_epoch(epoch)
        self.network.train()
        for batch in self.task.batches():
            self.optimizer.zero_grad()
            loss(self.network, batch).backward()
            self.optimizer.step()


def train(method: Any, epoch: int) -> None:
    """One epoch of ours."""
    method.task.start_epoch(epoch)
    method.epoch(epoch)


# -- figures -------------------------------------------------------------------------------------------------------------------
def difference(ours: Any, theirs: Any) -> float:
    """The largest absolute difference of two tensors, numbers, or networks with all their buffers."""
    if isinstance(ours, nn.Module):
        theirs = theirs.state_dict()
        return max(difference(value, theirs[name]) for name, value in ours.state_dict().items())
    a, b = torch.as_tensor(ours).detach().double(), torch.as_tensor(theirs).detach().double()
    if a.shape != b.shape:
        raise ValueError(f"shapes {tuple(a.shape)} and {tuple(b.shape)}")
    return float((a - b).abs().max())


def per_sample(loss: Callable[..., Tensor], *batch: Tensor) -> Tensor:
    """What a loss that averages over its batch gives for each sample alone; [B]."""
    return torch.stack([loss(*(part[i : i + 1] for part in batch)).reshape(()) for i in range(len(batch[0]))])


def write_result(
    slug: str, reference: str, compared: Mapping[str, float], setting: str = SETTING, *, notes: str = ""
) -> None:
    """Print the table and write tests/parity/<slug>.json. `reference`: "owner/name @commit"; `notes`: what was patched."""
    for what, value in compared.items():
        print(f"{value:9.1e}  {what}")
    result = {
        "slug": slug, "reference": reference, "setting": setting, "notes": notes, "torch": torch.__version__,
        "compared": [{"what": what, "max_abs_difference": float(f"{value:.2e}")} for what, value in compared.items()],
    }  # fmt: skip
    (HERE / f"{slug}.json").write_text(json.dumps(result, indent=1) + "\n")
