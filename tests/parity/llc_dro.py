"""llc-dro against chenmc1996/LNL-IS @d95865a and Robust-LR @8e5ed31: python tests/parity/llc_dro.py --reference PATH

PATH is the checkout of LNL-IS; that of the first author's CIFAR code lies beside it as Robust-LR. The scripts' own loops over
epochs run here, warm-up and rounds, with their neighbours, mixtures, targets, losses, learning rates and tests.
scikit-learn's mixture starts where ours does.
"""

from __future__ import annotations

import ast
import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import common
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.mixture import GaussianMixture
from small import plain_images
from torch import Tensor, nn

import methods.llc_dro
from bench.ops.mixtures import _two_means
from methods.llc_dro import LLCDRO

SIZE, WIDTH, WARMUP, ROUNDS = 76, 8, 2, 4
SETTING = (
    f"two tiny-cnn, {SIZE} random 1x6x6 images in random crops and strong views, 4 classes, {WARMUP} epochs of warm-up and "
    f"{ROUNDS} rounds of SGD, momentum 0.9, weight decay 1e-3, batches of 16, neighbours 10 or 15, float32"
)


@dataclass
class Side:
    """What one side did: all its batches and divisions in their order."""

    losses: list[float] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    scores: list[Any] = field(default_factory=list)
    posteriors: list[Any] = field(default_factory=list)


@dataclass
class Script:
    """A released script, what it is called with, and the same settings of ours."""

    name: str
    file: str
    blob: str
    args: dict[str, Any]
    fields: dict[str, Any]
    training: dict[str, Any]
    lr: float = 0.1
    confidence: str = "eval_train_twostage"  # its function that gives confidences
    loss: str = "SoftCELoss_topk"


_DROP = {"schedule": "multistep", "milestones": (WARMUP + 2,)}  # a tenth from the third round on
_PRIOR = {"passes": 2, "prior_weight": 2.0, "ensemble": "logits", "gmm_tol": 1e-2, "gmm_reg_covar": 5e-4}
_WATERBIRDS, _ANIMAL, _ROLR = "train_waterbirds.py", "train_animal.py", "../Robust-LR/RoLR.py"
_COMMON = {"num_class": common.CLASSES, "warm_up": WARMUP, "T": 1, "lambda_l": 1, "gpuid": 0, "noise_mode": "sym"}
_GROUPS = {"save_name": "", "dataset": "", "r": 0.5, "add": 1, "unshifted_val": False, "subpopulation": 80}
SCRIPTS = (
    Script("Waterbirds, LLC, tau 0.7", _WATERBIRDS, "b831312d38",
           {**_GROUPS, "epochs": 21, "labelconf": "lv", "knn": 10, "top": 0.7}, {"k": 10, "tau": 0.7}, _DROP),
    Script("Waterbirds, loss, all samples", _WATERBIRDS, "b831312d38",
           {**_GROUPS, "epochs": 21, "labelconf": "ce", "knn": 10, "top": 1.0}, {"confidence": "loss", "dro": False}, _DROP,
           confidence="eval_train"),
    Script("CelebA, LLC, tau 0.8", "train_celebA.py", "be09f1bcd9",
           {**_GROUPS, "epochs": 21, "labelconf": "lv", "knn": 15, "top": 0.8},
           {"k": 15, "tau": 0.8, "gmm_reg_covar": 1e-3}, {}),
    Script("ANIMAL-10N, LLC, tau 0.9, penalty 2, two passes", _ANIMAL, "df76948c5d",
           {**_GROUPS, "epochs": 1000, "num_epochs": 1000, "knn": 10, "top": 0.9, "lambda_p": 2, "p_threshold": 0.5},
           {**_PRIOR, "k": 10, "tau": 0.9}, {"schedule": "multistep", "milestones": (WARMUP,), "gamma": 0.5}, lr=0.05),
    Script("CIFAR (Robust-LR), loss, all samples, penalty 2, two passes", _ROLR, "596dc6105c",
           {**_GROUPS, "num_epochs": 101, "lambda_p": 2}, {**_PRIOR, "confidence": "loss", "dro": False},
           {"lr": 0.02, **_DROP}, lr=0.02, confidence="eval_train", loss="SoftCELoss"),
    Script("CIFAR (Robust-LR) at 90 %, averaged losses, own rate of warm-up", _ROLR, "596dc6105c",
           {**_GROUPS, "num_epochs": 101, "lambda_p": 2, "r": 0.9},
           {**_PRIOR, "confidence": "loss", "dro": False, "history": 5, "warmup_lr": 0.02},
           {"lr": 0.05, **_DROP}, lr=0.05, confidence="eval_train", loss="SoftCELoss"),
)  # fmt: skip


class Pinned(GaussianMixture):
    """scikit-learn's mixture from the partition that ours starts from."""

    def fit(self, X: Any, y: Any = None) -> Pinned:
        x = np.asarray(X, dtype=np.float64)[:, 0]
        sign = -1 if x.min() < 0 else 1  # consistencies come with a minus
        upper = _two_means(torch.as_tensor(sign * x)).numpy()
        parts = [x[~upper], x[upper]]
        self.weights_init = [len(part) / len(x) for part in parts]
        self.means_init = [[part.mean()] for part in parts]
        self.precisions_init = [[[1 / (part.var() + self.reg_covar)]] for part in parts]
        return super().fit(x[:, None])

    def predict_proba(self, X: Any) -> np.ndarray:
        return super().predict_proba(np.asarray(X, dtype=np.float64))


class WithFeatures(nn.Module):
    """Our network in the form that the scripts call."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, feat: bool = False) -> Any:
        features = self.network.features(images)
        return (features, self.network.head(features)) if feat else self.network.head(features)


class Scaler:
    """Stands for the scaler of half-precision gradients."""

    def scale(self, loss: Tensor) -> Tensor:
        return loss

    def step(self, optimizer: Any) -> None:
        optimizer.step()

    def update(self) -> None:
        pass


class Loader:
    """Batches in new orders at every pass, in the form that a script unpacks."""

    dataset, batch_size = range(SIZE), 16

    def __init__(self, batches: Callable[[], Iterable[Any]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return common.OldIterator(self.batches())


class Released:
    """Two plain networks in the hands of a script's own loops."""

    def __init__(self, folder: Path, script: Script) -> None:
        self.script, self.side = script, Side()
        self.task = common.tiny_task(**task_settings(script))
        self.nets = [WithFeatures(self.task.learner(name).network) for name in ("a", "b")]
        self.conf: np.ndarray | None = None
        self.first = 0
        path = common.reference_file(folder, script.file, script.blob)
        args = SimpleNamespace(**{**_COMMON, **script.args, "lr": script.lr})
        known: dict[str, Any] = {
            "args": args, "torch": common.Instead(torch, zeros=self.zeros, max=self.max), "F": F, "np": np, "N": SIZE,
            "GaussianMixture": Pinned, "Knn_sim": self.knn_sim(folder), "autocast": contextlib.nullcontext,
            "GradScaler": Scaler, "stats_log": io.StringIO(), "print": lambda *_, **__: None, "range": self.range,
            "ceil": lambda x: int(np.ceil(x)), "save_model": lambda *_: None, "p_epoch": 0, "best_acc": 0,
            "parameters": {"lr": script.lr, "GMMtol": 1e-3, "GMMreg_covar": script.fields.get("gmm_reg_covar", 5e-4)},
            "CE": nn.CrossEntropyLoss(reduction="none"), "CEloss": nn.CrossEntropyLoss(),
            "gmm4loss": Pinned(n_components=2, max_iter=10, tol=1e-2, reg_covar=5e-4),
            "ema_model1": None, "ema_model2": None, "all_loss_1": [], "all_loss_2": [],
        }  # fmt: skip
        code = common.definitions(path, "train", "warmup", "test", script.confidence, script.loss, **known)
        self.known = code.train.__globals__
        for which, net in enumerate(self.nets):
            optimizer = torch.optim.SGD(net.parameters(), lr=script.lr, momentum=0.9, weight_decay=1e-3)
            self.known.update({f"net{which + 1}": net, f"optimizer{which + 1}": optimizer})
        images, labels = plain_images(self.task), self.task.labels
        once = [(images, labels, torch.arange(SIZE) % 4)]
        test = [(images, labels)] if script.file == _ROLR else once
        self.known.update(
            train_loader=Loader(self.batches), train_loader_woshuffle=once, val_loader=once, test_loader=test, all_data=self,
            eval_loader=[(images, labels, torch.arange(SIZE))], loader=SimpleNamespace(run=self.run),
        )  # fmt: skip
        criterion = self.known[script.loss]()
        self.known.update(softCELoss_topk=self.recorded(criterion), softCE=self.recorded(criterion))
        self.known[script.confidence] = self.confidences(self.known[script.confidence])
        tree = ast.parse(path.read_text())
        tree.body = [node for node in tree.body if isinstance(node, ast.For) and ast.unparse(node.target) == "epoch"]
        assert len(tree.body) == 2
        self.loops = compile(tree, str(path), "exec")

    def train(self) -> Side:
        with common.backward_losses() as self.side.losses:
            exec(self.loops, self.known)
        return self.side

    # -- what the scripts find ------------------------------------------------------------------------------------------
    def range(self, *limits: int) -> Iterator[int]:
        """Warm-up and then the first rounds; each begins an epoch of the task."""
        if len(limits) == 1:
            yield from range(*limits)
            return
        first, self.first = self.first, WARMUP
        for epoch in range(min(limits[1], ROUNDS if first else WARMUP)):
            self.task.start_epoch(first + epoch)
            yield epoch

    def knn_sim(self, folder: Path) -> Callable[..., Any]:
        """Its class, also by the argument name that one script gets wrong."""
        made = common.module(common.reference_file(folder, "Knn_sim.py", "ea3d0557b3")).Knn_sim
        return lambda *data, graph, mode="knn", contrast_mode=None: made(*data, graph=graph, mode=contrast_mode or mode)

    def set_conf(self, conf: np.ndarray | None) -> None:
        self.conf = conf

    def batches(self) -> Iterator[Any]:
        """Of the data sets with groups: plain training batches, or two views with confidences once they are set."""
        conf = self.conf
        if conf is None:
            for batch in self.task.batches():
                yield batch.images, batch.labels, batch.index
        else:
            for batch in self.task.batches(("weak", "strong")):
                yield batch.views, batch.labels, batch.index, torch.as_tensor(conf)[batch.index]

    def run(self, mode: str, *chosen: np.ndarray) -> Any:
        """Of the others: a loader for each purpose."""
        if mode in ("test", "eval_train"):
            return self.known[{"test": "test_loader", "eval_train": "eval_loader"}[mode]]
        if mode == "warmup":
            return Loader(self.batches)
        weights = torch.as_tensor(chosen[-1])
        rest = (None,) if self.script.file == _ANIMAL else ()
        pairs = ("weak", "strong")
        return Loader(lambda: ((b.views, b.labels, weights[b.index], *rest) for b in self.task.batches(pairs)))

    @staticmethod
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(*{(50_000,): (SIZE,), (50_000, 4096): (SIZE, WIDTH)}.get(shape, shape))

    # -- what is kept ----------------------------------------------------------------------------------------------------
    def max(self, outputs: Tensor, dim: int) -> Any:
        self.tested = outputs.detach()
        return torch.max(outputs, dim)

    def recorded(self, criterion: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            self.side.outputs.append(outputs.detach())
            self.side.targets.append(targets.detach())
            return criterion(outputs, targets)

        return loss

    def confidences(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def observed(*given: Any) -> Any:
            fit = Pinned.fit

            def values(mixture: Pinned, X: Any, y: Any = None) -> Pinned:
                self.side.scores.append(np.abs(np.asarray(X, dtype=np.float64)[:, 0]))
                return fit(mixture, X)

            with patch.object(Pinned, "fit", values):
                found = function(*given)
            self.side.posteriors.append(found[0] if isinstance(found, tuple) else found)
            return found

        return observed


def task_settings(script: Script) -> dict[str, Any]:
    return {"training": {"epochs": WARMUP + ROUNDS, "augment": "crop-flip", **script.training}}


def ours_trained(script: Script) -> tuple[Any, Side]:
    ours, side = common.begun(LLCDRO(warmup=WARMUP, **script.fields), **task_settings(script)), Side()
    mixture, soft = methods.llc_dro.clean_posterior, methods.llc_dro.soft_cross_entropy

    def posterior(values: Tensor, **settings: Any) -> Any:
        found = mixture(values, **settings)
        side.scores.append(values)
        side.posteriors.append(found[0])
        return found

    def losses(logits: Tensor, targets: Tensor) -> Tensor:
        side.outputs.append(logits.detach())
        side.targets.append(targets)
        return soft(logits, targets)

    module = methods.llc_dro
    with patch.multiple(module, clean_posterior=posterior, soft_cross_entropy=losses), common.backward_losses() as side.losses:
        for epoch in range(WARMUP + ROUNDS):
            common.train(ours, epoch)
    return ours, side


def main() -> None:
    folder = common.reference_path(__doc__)
    compared: dict[str, float] = {}
    for script in SCRIPTS:
        ours, mine = ours_trained(script)
        theirs = Released(folder, script)
        other = theirs.train()
        warm = 2 * WARMUP * 5  # two networks, five batches
        name, count = script.name, len(mine.losses)
        assert count == len(other.losses) == warm + len(mine.targets) == warm + 2 * 5 * ROUNDS * ours.passes
        assert len(other.scores) == len(mine.scores) == 2 * ROUNDS
        found, expected = np.stack(mine.posteriors), np.stack(other.posteriors)
        assert (found.std(axis=1) > 0.05).all(), "a mixture that says nothing"
        what = "scores before the mixture" if script.fields.get("confidence") == "loss" else "LLC scores"
        compared[f"{name}: losses of {warm} batches of warm-up"] = common.difference(mine.losses[:warm], other.losses[:warm])
        compared[f"{name}: {what} of {len(mine.scores)} divisions"] = common.difference(
            np.stack(mine.scores), np.stack(other.scores)
        )
        compared[f"{name}: posteriors of {len(found)} divisions"] = common.difference(found, expected)
        for part in ("outputs", "targets"):
            compared[f"{name}: {part} of {len(mine.targets)} batches"] = common.difference(
                torch.cat(getattr(mine, part)), torch.cat(getattr(other, part))
            )
        compared[f"{name}: losses of {count - warm} batches"] = common.difference(mine.losses[warm:], other.losses[warm:])
        for which, net in enumerate((ours.a, ours.b)):
            compared[f"{name}: weights and buffers of network {which + 1}"] = common.difference(
                net.network, theirs.nets[which].network
            )
        added = theirs.tested.softmax(dim=1) if ours.ensemble == "logits" else theirs.tested / 2
        compared[f"{name}: predictions"] = common.difference(ours.predict(plain_images(ours.task)), added)
    notes = (
        "same orders, crops and strong views on both sides; scikit-learn's mixture in float64 from our 2-means partition "
        "instead of an unseeded k-means; no autocast; features from plain images; 50 000 x 4096 features made 76 x 8; the "
        "ANIMAL script told the argument name of Knn_sim, and to warm up with batches of 16; Robust-LR @8e5ed31 (no LLC "
        "there) for the CIFAR setting"
    )
    common.write_result(LLCDRO.slug, LLCDRO.code, compared, setting=SETTING, notes=notes)


if __name__ == "__main__":
    with common.on_cpu():
        main()
