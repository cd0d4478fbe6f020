"""What an `erm` epoch on digits costs against a hand-written loop, side by side in one process, one thread.

Three loops train the same network on the same images, batch size and shift augmentation: ours; a plain loop over a resident
tensor, as a careful researcher would write it; and the usual DataLoader over PIL images with torchvision transforms. Epochs
of the three are interleaved and the medians compared. Run: python tests/benchmarks/epoch.py
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
import torchvision.transforms as T
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import bench.data
from bench.method import method_class
from bench.models import build
from bench.ops import augment
from bench.training import Training
from bench.trial.images import ViewSettings, make_images
from bench.trial.task import Task

MODELS = {
    "MLP 64-64": {"name": "mlp", "widths": [64, 64]},
    "CNN 8-16-32": {"name": "tiny-cnn", "widths": [8, 16, 32]},
}
TARGETS = {"MLP 64-64": 4.0, "CNN 8-16-32": 1.4}
BATCH = 64


class PILDigits(Dataset):
    def __init__(self, images, labels, mean, std):
        self.images = [Image.fromarray(image[0]) for image in images]
        self.labels = labels.tolist()
        self.transform = T.Compose([T.RandomCrop(8, padding=1), T.ToTensor(), T.Normalize(mean, std)])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(self.images[index]), self.labels[index]


def optimiser(network, training):
    return torch.optim.SGD(network.parameters(), training.lr, training.momentum, weight_decay=training.weight_decay, fused=True)


def plain_loop(images, labels, model, training, mean, std, generator):
    """A resident uint8 tensor, one augmentation call per batch, cross-entropy, one step."""
    network = build(model, tuple(images.shape[1:]), 10)
    optimizer = optimiser(network, training)
    shape = (1, -1, 1, 1)
    mean, std = torch.tensor(mean).view(shape), torch.tensor(std).view(shape)

    def epoch():
        network.train()
        order = torch.randperm(len(images), generator=generator)
        for index in order.split(BATCH):
            batch = augment.normalise(augment.crop_flip(images[index], pad=1, flip=False, generator=generator), mean, std)
            loss = F.cross_entropy(network(batch), labels[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return epoch


def dataloader_loop(data, model, training, mean, std):
    network = build(model, data.train.images.shape[1:], 10)
    optimizer = optimiser(network, training)
    loader = DataLoader(PILDigits(data.train.images, data.train.labels, mean, std), batch_size=BATCH, shuffle=True)

    def epoch():
        network.train()
        for batch, labels in loader:
            loss = F.cross_entropy(network(batch), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return epoch


def our_loop(images, labels, model, training, mean, std):
    task = Task(
        images=make_images(images.numpy(), ViewSettings(1, False, mean, std), images.device),
        labels=labels, num_classes=10, training=training, model=model,
        axes={"dataset": "digits", "seed": 0}, method_name="erm", needs=frozenset(), granted={},
    )  # fmt: skip
    method = method_class("erm")()
    method.task = task
    method.setup(task)
    number = iter(range(10**9))

    def epoch():
        task.start_epoch(next(number))
        method.epoch(0)
        task.epoch_log()

    return epoch


def measure(loops: dict, rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in loops}
    for epoch in loops.values():
        epoch()
    for _ in range(rounds):
        for name, epoch in loops.items():
            begin = time.perf_counter()
            epoch()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    data = bench.data.load({"name": "digits", "revision": "1"})
    images, labels = torch.as_tensor(data.train.images), torch.as_tensor(data.train.labels)
    mean, std = data.channel_statistics
    training = Training(lr=0.05, batch_size=BATCH)
    print(f"digits, {len(images)} images, batch {BATCH}, one thread, median of {rounds} interleaved epochs")
    for name, model in MODELS.items():
        loops = {
            "ours": our_loop(images, labels, model, training, mean, std),
            "plain": plain_loop(images, labels, model, training, mean, std, torch.Generator().manual_seed(0)),
            "loader": dataloader_loop(data, model, training, mean, std),
        }
        medians = measure(loops, rounds)
        times = ", ".join(f"{key} {1000 * value:.1f} ms" for key, value in medians.items())
        print(f"{name}: {times}")
        print(f"  ours / plain resident loop   {medians['ours'] / medians['plain']:.2f}   (target <= 1.10)")
        print(f"  DataLoader + PIL / ours      {medians['loader'] / medians['ours']:.2f}   (target >= {TARGETS[name]:g})")


if __name__ == "__main__":
    main()
