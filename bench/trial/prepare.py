"""Before the first epoch: data, noise and split become a task for the method and an evaluator that knows the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

import bench.data
from bench import noise
from bench.cell import stream_seed
from bench.data import Loaded, Split
from bench.fields import FieldError
from bench.method import Method
from bench.noise import NoisyLabels
from bench.stages import StageStore
from bench.training import Training
from bench.trial.evaluate import Evaluator, HeldOut, Protocol, Truth
from bench.trial.images import ViewSettings, make_images
from bench.trial.task import NeedError, Subset, Task

if TYPE_CHECKING:
    from bench.trial.runner import Options

Index = NDArray[np.int64]


def prepare(
    cell: dict[str, Any], options: Options, method: Method, protocol: Protocol, record: dict[str, Any]
) -> tuple[Task, Evaluator]:
    """The task and the evaluator of a cell; writes the blocks `noise` and `data` of the record.

    Raises `bench.data.DataError`, `FieldError` where noise and data do not fit, `NeedError` for a need that cannot be met.
    """
    device = torch.device(options.device)
    root = Path(options.data_root) if options.data_root else None
    data = bench.data.load(cell["dataset"], root)
    noisy = _noise(cell, options, data, root, record.setdefault("warnings", []).append)
    images, groups = _pool(data, noisy, root)
    train, held_out = split(noisy.true, cell, data, protocol)
    as_delivered = noisy.labels[train] == noisy.true[train]
    correct, true = (as_delivered, noisy.true[train]) if data.true_labels_known else (None, None)
    official = data.val is not None and protocol.validation == "auto"
    validation = "official, true labels" if official else "hold-out, noisy labels" if len(held_out) else None
    if protocol.select_by != "accuracy":
        if validation is None or (data.val.groups if official and data.val else groups) is None:
            why = f"{cell['dataset']['name']} has no validation data with groups to select by"
            raise FieldError("protocol.select_by", why, "select_by: accuracy")
        validation += f", {protocol.select_by} accuracy"
    record["noise"] = _noise_block(noisy, data, correct)
    record["data"] = {
        "fingerprint": data.fingerprint, "canonical": data.canonical, "notes": list(data.notes), "n_train": len(train),
        "n_val": len(data.val) if official and data.val else len(held_out), "n_test": len(data.test),
        "n_test2": len(data.test2) if data.test2 else None, "test2": data.test2_name,
        "groups": list(data.group_names) if data.group_names else None,
        "validation": validation,
    }  # fmt: skip
    training = Training(**cell["training"])
    mean, std = data.channel_statistics
    settings = ViewSettings(data.pad, data.flip, mean, std, crops=training.augment == "crop-flip")
    train_groups = groups[train] if groups is not None else None
    trusted = None
    verified = correct if data.trusted is None else as_delivered & _among(data.trusted, noisy, train)
    if "trusted" in method.needs and verified is not None:
        trusted = _trusted(method.trusted_size, noisy.labels[train], verified, cell, data.num_classes)
        record["data"]["trusted"] = len(trusted)
    task = Task(
        images=make_images(images[train], settings, device),
        labels=torch.as_tensor(noisy.labels[train]).to(device),
        num_classes=data.num_classes,
        training=training,
        model=cell["model"],
        axes={"dataset": cell["dataset"], "seed": cell["seed"]},
        method_name=cell["method"]["name"],
        needs=frozenset(method.needs),
        granted=_granted(method.needs, noisy, train, correct, train_groups, trusted, data.num_classes, device),
        engine=options.engine,
        weights=bench.data.data_root(root),
        time_limit=options.time_limit,
        subset=_epoch_subset(noisy.labels[train], data) if data.epoch_size else None,
        samples=_samples(cell, data, noisy, train, root),
        store=StageStore(_cache(options)),
    )

    def held(images: Any, labels: Index, groups: Index | None) -> HeldOut:
        return HeldOut(make_images(images, settings, device), labels, groups)

    def held_split(part: Split) -> HeldOut:
        return held(part.images, part.labels, part.groups)

    val = None
    if official and data.val is not None:
        val = held_split(data.val)
    elif len(held_out):
        val = held(images[held_out], noisy.labels[held_out], groups[held_out] if groups is not None else None)
    if val is None and "validation" in method.needs:
        raise NeedError(f"method {method.slug!r} needs validation, but protocol.val_fraction is 0")
    evaluator = Evaluator(
        val, held_split(data.test), Truth(correct, train_groups, true), data.group_names or (),
        test2=held_split(data.test2) if data.test2 else None,
        top_k=min(max(data.top_k), data.num_classes), num_classes=data.num_classes,
    )  # fmt: skip
    return task, evaluator


def split(true: Index, cell: dict[str, Any], data: Loaded, protocol: Protocol) -> tuple[Index, Index]:
    """(training, held-out) samples: stratified by true class, the same for every method and label noise of a seed."""
    train, held_out = np.arange(len(true)), np.arange(0)
    if not (data.val is not None and protocol.validation == "auto") and protocol.val_fraction > 0:
        held_out = _draw(train, true, protocol.val_fraction, stream_seed("split", cell["dataset"], cell["seed"]))
        train = np.setdiff1d(train, held_out)
    if protocol.train_fraction < 1:
        train = _draw(train, true, protocol.train_fraction, stream_seed("train-fraction", cell["dataset"], cell["seed"]))
    return train, held_out


def _draw(samples: Index, true: Index, share: float, seed: int) -> Index:
    """That share of the samples of each true class, ascending; -1 is the class of pictures that show none of the classes."""
    rng = np.random.Generator(np.random.PCG64(seed))
    classes = [samples[true[samples] == c] for c in range(-1, int(true.max()) + 1)]
    return np.sort(np.concatenate([rng.permutation(members)[: round(share * len(members))] for members in classes]))


def _cache(options: Options) -> Path | None:
    """The folder of what is shared between cells, None where nothing is kept."""
    if options.cache is not None:
        return Path(options.cache)
    return Path(options.work_folder) / "cache" if options.work_folder else None


def _samples(cell: dict[str, Any], data: Loaded, noisy: NoisyLabels, train: Index, root: Path | None) -> dict[str, Any]:
    """Which images a method trains on, in which order, whatever their labels: part of the key of its stages."""
    index = train if noisy.keep is None else noisy.keep[train]
    found = {"dataset": cell["dataset"], "fingerprint": data.fingerprint, "index": noise.sha256_of(index), "count": len(train)}
    if noisy.replaced is not None:
        other = noisy.replaced
        source = {**other.source, "fingerprint": bench.data.load(other.source, root).fingerprint}
        found["replaced"] = {"source": source, "index": noise.sha256_of(other.position, other.index)}
    return found


def _noise(
    cell: dict[str, Any], options: Options, data: Loaded, root: Path | None, warn: Callable[[str], None]
) -> NoisyLabels:  # fmt: skip
    work = Path(options.work_folder) if options.work_folder else None
    given = noise.NoiseInput.of(
        data, cell["dataset"]["name"], root=root, files=dict(options.noise_files), device=options.device,
        cache=_cache(options),
    )  # fmt: skip
    return noise.artefact(cell["noise"], given, cell["dataset"], cell["seed"], work / "noise" if work else None, warn)


def _pool(data: Loaded, noisy: NoisyLabels, root: Path | None) -> tuple[Any, Index | None]:
    """Training images and groups after noise has removed samples or replaced pictures."""
    images, groups = data.train.images, data.train.groups
    if noisy.keep is not None:
        images = images[noisy.keep]
        groups = groups[noisy.keep] if groups is not None else None
    if noisy.replaced is not None:
        source = bench.data.load(noisy.replaced.source, root).train.images
        name = noisy.replaced.source["name"]
        if not isinstance(images, np.ndarray) or not isinstance(source, np.ndarray):
            message = "open-set noise replaces pictures in memory, and these are files"
            raise FieldError("noise", message, "use a data set such as cifar10")
        if images.shape[1:] != source.shape[1:]:
            message = f"pictures of {name} are {source.shape[1:]}, not {images.shape[1:]}"
            raise FieldError("noise", message, "choose another source")
        images = images.copy() if noisy.keep is None else images
        images[noisy.replaced.position] = source[noisy.replaced.index]
    return images, groups


def _noise_block(noisy: NoisyLabels, data: Loaded, correct: NDArray[np.bool_] | None) -> dict[str, Any]:
    known = correct is not None
    small = data.num_classes <= 100
    return {
        "rate": noisy.rate if known else None,
        "train_rate": float(1 - correct.mean()) if correct is not None else None,
        "nominal": noisy.nominal,
        "expected": noisy.expected,
        "sha256": noisy.sha256,
        "definition": noisy.definition,
        "matrix": np.round(noisy.matrix, 6).tolist() if known and small else None,
        "classes": list(data.class_names) if small else None,
    }


def _epoch_subset(labels: Index, data: Loaded) -> Subset:
    """Class-balanced by given label, newly drawn for each epoch (Clothing1M)."""
    from bench.data.clothing1m import epoch_subset

    def drawn(seed: int) -> torch.Tensor:
        rng = np.random.Generator(np.random.PCG64(seed))
        return torch.as_tensor(epoch_subset(labels, data.epoch_size, data.num_classes, rng))

    return drawn


def _among(trusted: Index, noisy: NoisyLabels, train: Index) -> NDArray[np.bool_]:
    """Which training samples the data set names as verified by hand."""
    index = train if noisy.keep is None else noisy.keep[train]
    return np.isin(index, trusted)


def _trusted(size: int, labels: Index, correct: NDArray[np.bool_], cell: dict[str, Any], classes: int) -> Index:
    """Positions of `size` samples whose given labels are right, as many of each class, all of a class that has too few.

    The same for every method of a seed; a smaller set is part of a larger one.
    """
    rng = np.random.Generator(np.random.PCG64(stream_seed("trusted", cell["dataset"], cell["seed"])))
    order = rng.permutation(len(labels))
    order = order[correct[order]]
    shares = [size // classes + (c < size % classes) for c in range(classes)]
    return np.sort(np.concatenate([order[labels[order] == c][:share] for c, share in enumerate(shares)]))


def _granted(
    needs: Any, noisy: NoisyLabels, train: Index, correct: NDArray[np.bool_] | None, groups: Index | None,
    trusted: Index | None, classes: int, device: torch.device,
) -> dict[str, Any]:  # fmt: skip
    """Only what the method declared; what nobody knows is left out, so that asking for it is an error."""
    known: dict[str, Any] = {}
    if correct is not None:
        known["noise_rate"] = float(1 - correct.mean())
        shown = train[noisy.true[train] >= 0]  # pictures of none of the classes have no row
        matrix = noise.transition_matrix(noisy.true[shown], noisy.labels[shown], classes)
        known["transition_matrix"] = torch.as_tensor(matrix, dtype=torch.float32, device=device)
    if groups is not None:
        known["groups"] = torch.as_tensor(groups, device=device)
    if trusted is not None:
        known["trusted"] = torch.as_tensor(trusted, device=device)
    return {need: value for need, value in known.items() if need in needs}
