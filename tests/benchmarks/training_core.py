"""What a `dividemix` epoch costs against its inherent passes and against the released code; full passes; two trials at once.

Everything is measured side by side in one run on random 3x32x32 pictures whose losses split into halves, so that every epoch
has as many labelled as unlabelled images. One thread unless `--threads` says otherwise.

    python tests/benchmarks/training_core.py [--model resnet8] [--images 1024] [--device cpu] [--precision float32]
    python tests/benchmarks/training_core.py --reference DIR     # a checkout of the released code, commit d9d3058

- inherent passes: each kind of pass of a step (four no-grad passes in training mode, one of the peer over two views, one
  with gradient over the mixed batch and the update) and the full pass timed alone at its batch, times how often it occurs.
- released code: its own `train`, `eval_train` and data set class, its transforms and loader, our network and optimiser;
  what needs CUDA, old torch or 50 000 images is patched while it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.engine import Engine
from bench.learner import Learner
from bench.method import method_class
from bench.models import build
from bench.training import Training
from bench.trial.images import ViewSettings, make_images
from bench.trial.task import Task

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--two-trials", action="store_true", help="only this part, in processes of its own")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.two_trials:
        return two_trials()
    setting = Setting(args)
    where = f"{args.device}, {args.precision}, threads: {args.threads}"
    print(f"{args.model}, {args.images} images of 3x32x32, batch {BATCH}, {where}")
    if args.reference:
        return against_released(setting, args.reference, args.rounds)
    against_passes(setting, args.rounds)
    full_passes(setting, args.rounds)


class Setting:
    """The data, a task over them, and how networks are made."""

    def __init__(self, args: argparse.Namespace) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (args.images, 3, 32, 32), generator=generator, dtype=torch.uint8)
        self.labels = torch.randint(0, 10, (args.images,), generator=generator)
        self.device = torch.device(args.device)
        self.model = {"name": args.model}
        self.engine = Engine(args.precision, channels_last=args.channels_last)
        self.training = Training(lr=0.02, batch_size=BATCH, epochs=300)

    def task(self) -> Task:
        return Task(
            images=make_images(self.images.numpy(), ViewSettings(4, True, MEAN, STD), self.device),
            labels=self.labels.to(self.device), num_classes=10, training=self.training, model=self.model,
            axes={"dataset": "random", "seed": 0}, method_name="dividemix", needs=frozenset(), granted={}, engine=self.engine,
        )  # fmt: skip

    def method(self) -> Any:
        """DivideMix after its warm-up; the division is pinned to halves, the mixture is fitted all the same."""
        method: Any = method_class("dividemix")(warmup=1)
        method.task = self.task()
        method.setup(method.task)
        fitted, half = method.co_divide, halves(len(self.labels)).to(self.device)

        def co_divide(*arguments: Any) -> Tensor:
            fitted(*arguments)
            return half

        method.co_divide = co_divide
        return method

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def halves(count: int) -> Tensor:
    """A confidence float64 [N]: 0.9 for the first half, 0.1 for the others."""
    return torch.where(torch.arange(count) < count // 2, 0.9, 0.1).double()


def medians(setting: Setting, actions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of each action, median of interleaved rounds after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        for name, action in actions.items():
            setting.wait()
            begin = time.perf_counter()
            action()
            setting.wait()
            if number:
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


# -- inherent passes ---------------------------------------------------------------------------------------------------
def against_passes(setting: Setting, rounds: int) -> None:
    method, number = setting.method(), iter(range(2, 10**9))

    def epoch() -> None:
        current = next(number)
        method.task.start_epoch(current)
        method.epoch(current)
        method.task.epoch_log()

    net: Learner = setting.task().learner("alone")
    shape = (3, 32, 32)
    small, double, mixed = (torch.randn(n, *shape, device=setting.device) for n in (BATCH, 2 * BATCH, 4 * BATCH))
    everything = torch.randn(len(setting.images), *shape, device=setting.device)
    targets = torch.full((4 * BATCH, 10), 0.1, device=setting.device)

    def repeat(count: int, action: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(count):
                action()

        return run

    def guess() -> None:
        with torch.no_grad():
            net(small)

    def update() -> None:
        net.step(F.cross_entropy(net(mixed), targets))

    steps = -(-(len(setting.images) // 2) // BATCH)
    actions = {
        "epoch": epoch,
        "guesses": repeat(2 * steps * 4, guess),
        "peer": repeat(2 * steps, lambda: net.infer(double)),
        "updates": repeat(2 * steps, update),
        "full passes": repeat(2, lambda: net.infer(everything)),
    }
    found = medians(setting, actions, rounds)
    inherent = sum(value for name, value in found.items() if name != "epoch")
    print("  " + ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in found.items()))
    target = 1.05 if setting.device.type == "cpu" else 1.3
    print(f"dividemix epoch / inherent passes          {found['epoch'] / inherent:.3f}   (target <= {target})")


def full_passes(setting: Setting, rounds: int) -> None:
    """`task.logits` against the bare network over prepared batches of the same size."""
    task = setting.task()
    net = task.learner("a")
    ready = list(torch.cat(list(task.plain_images())).split(net.chunk))

    @torch.no_grad()
    def bare() -> None:
        net.network.eval()
        for part in ready:
            net._forward("logits", part)

    found = medians(setting, {"task": lambda: task.logits(net), "bare": bare}, 2 * rounds)
    print(f"full pass / network at inference           {found['task'] / found['bare']:.3f}   (target <= 1.05)")


# -- the released code ---------------------------------------------------------------------------------------------------
def against_released(setting: Setting, reference: Path, rounds: int) -> None:
    method, number = setting.method(), iter(range(2, 10**9))

    def ours() -> None:
        current = next(number)
        method.task.start_epoch(current)
        method.epoch(current)
        method.task.epoch_log()

    released = released_epoch(setting, reference)
    with on_the_cpu() if setting.device.type == "cpu" else contextlib.nullcontext():
        found = medians(setting, {"ours": ours, "released": released}, rounds)
    print(f"  ours {found['ours']:.2f} s, released {found['released']:.2f} s")
    ratio = found["released"] / found["ours"]
    print(f"released dividemix epoch / ours            {ratio:.2f}   (target >= 1 with PreAct-ResNet-18, 2 small)")


@contextlib.contextmanager
def on_the_cpu():
    """`.cuda()` does nothing, and iterators have the method `next` that the released code calls."""
    from torch.utils.data import dataloader

    before = Tensor.cuda, dataloader._BaseDataLoaderIter.next if hasattr(dataloader._BaseDataLoaderIter, "next") else None
    Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign,assignment]
    dataloader._BaseDataLoaderIter.next = dataloader._BaseDataLoaderIter.__next__
    try:
        yield
    finally:
        Tensor.cuda = before[0]  # type: ignore[method-assign]
        del dataloader._BaseDataLoaderIter.next


def released_epoch(setting: Setting, reference: Path) -> Callable[[], None]:
    """One epoch after warm-up as the released script runs it: two evaluations, two trainings."""
    sys.modules.setdefault("torchnet", types.ModuleType("torchnet"))
    meter = types.ModuleType("torchnet.meter")
    meter.AUCMeter = object  # type: ignore[attr-defined]
    sys.modules.setdefault("torchnet.meter", meter)
    sys.path.insert(0, str(reference))
    source = (reference / "Train_cifar.py").read_text()
    definitions = source[: source.index("stats_log=open")].replace("torch.zeros(50000)", f"torch.zeros({len(setting.images)})")
    names: dict[str, Any] = {"__name__": "released"}
    sys.argv = ["Train_cifar.py"]
    if setting.device.type == "cpu":
        torch.cuda.set_device = lambda *_: None  # type: ignore[assignment]
    exec(compile(definitions, "Train_cifar.py", "exec"), names)
    released_data: Any = sys.modules["dataloader_cifar"]
    names.update(criterion=names["SemiLoss"](), CE=torch.nn.CrossEntropyLoss(reduction="none"), warm_up=1)
    loader = released_data.cifar_dataloader("cifar10", 0.5, "sym", BATCH, 0, "", None)
    recipe = loader.transform_train, loader.transform_test
    pictures, labels = setting.images.permute(0, 2, 3, 1).numpy(), setting.labels.tolist()

    def view(mode: str, index: np.ndarray, transform: Any, probability: Any = None) -> Any:
        data = released_data.cifar_dataset.__new__(released_data.cifar_dataset)
        data.mode, data.transform = mode, transform
        data.train_data, data.noise_label = pictures[index], [labels[i] for i in index]
        data.probability = probability
        return data

    everything = np.arange(len(pictures))
    confidence = halves(len(pictures)).numpy()
    chosen, rest = everything[confidence > 0.5], everything[confidence <= 0.5]
    load = torch.utils.data.DataLoader
    names["eval_loader"] = load(view("all", everything, recipe[1]), batch_size=BATCH)
    nets = [build(setting.model, (3, 32, 32), 10).to(setting.device) for _ in range(2)]
    optimisers = [torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4) for net in nets]

    def epoch() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            for net in nets:
                names["eval_train"](net, [])
            for net, peer, optimiser in ((*nets, optimisers[0]), (*nets[::-1], optimisers[1])):
                labelled = load(view("labeled", chosen, recipe[0], confidence[chosen].tolist()), BATCH, shuffle=True)
                unlabelled = load(view("unlabeled", rest, recipe[0]), BATCH, shuffle=True)
                names["train"](5, net, peer, optimiser, labelled, unlabelled)

    return epoch


# -- two trials ------------------------------------------------------------------------------------------------------------
_TRIAL = """
import sys, time, torch
sys.path[:0] = {path!r}
import training_core as core
torch.set_num_threads(1)
arguments = dict(images=1024, device="cpu", model="resnet8", precision="float32", channels_last=False)
setting = core.Setting(core.argparse.Namespace(**arguments))
method = setting.method()
def epoch(n):
    method.task.start_epoch(n); method.epoch(n); method.task.epoch_log()
epoch(2)
print("ready", flush=True)
sys.stdin.readline()
for n in range(3, 6): epoch(n)
print("done", flush=True)
sys.stdin.readline()
"""


def two_trials() -> None:
    """Wall time of two trials one after the other against both at once, each a process with one thread."""
    here = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

    def start() -> subprocess.Popen:
        trial = subprocess.Popen(
            [sys.executable, "-c", _TRIAL.format(path=here)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert trial.stdout and trial.stdout.readline() == "ready\n"
        return trial

    def go(*trials: subprocess.Popen) -> float:
        begin = time.perf_counter()
        for trial in trials:
            print(file=trial.stdin, flush=True)
        for trial in trials:
            assert trial.stdout and trial.stdout.readline() == "done\n"
        return time.perf_counter() - begin

    trials = [start() for _ in range(4)]
    one_by_one = go(trials[0]) + go(trials[1])
    together = go(trials[2], trials[3])
    for trial in trials:
        print(file=trial.stdin, flush=True)
        trial.wait()
    print(f"two trials one after the other / at once   {one_by_one / together:.2f}   (target >= 1.7)")


if __name__ == "__main__":
    main()
