"""Views per second of batched augmentation against the usual transforms per image, side by side in one process, one thread.

Random images 3x32x32, normalised float32 out on both sides. Ours: the views of a task, from images in memory. Theirs:
torchvision's transforms on Pillow images, through a DataLoader without workers where that is said, else in a plain loop. The
two take turns; medians are compared. Run: python tests/benchmarks/augment_speed.py [--rounds N]
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
import torchvision.transforms as T
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.trial.images import ViewSettings, make_images

COUNT, BATCH = 8192, 128
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Pictures(Dataset):
    def __init__(self, images: Tensor, transform: Callable) -> None:
        self.images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.images[index])


def blurred(picture):
    return picture.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


def theirs() -> dict[str, Callable]:
    end = [T.ToTensor(), T.Normalize(MEAN, STD)]
    cropped = [T.RandomCrop(32, padding=4), T.RandomHorizontalFlip()]
    jitter = [T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8), T.RandomGrayscale(0.2)]
    crop = [T.RandomResizedCrop(32, (0.2, 1.0)), T.RandomHorizontalFlip()]
    return {
        "weak": T.Compose([*cropped, *end]),
        "strong": T.Compose([*cropped, T.RandAugment(3), *end, T.RandomErasing(1.0, (0.001, 0.25), (1.0, 1.0))]),
        "simclr": T.Compose([*crop, *jitter, *end]),
        "moco": T.Compose([*crop, *jitter, T.RandomApply([T.Lambda(blurred)], 0.5), *end]),
    }


WHAT = {"weak": "crop, flip", "strong": "RandAugment (3), cutout, crop, flip", "simclr": "simclr", "moco": "moco"}
TARGETS = {"weak": 8.0, "strong": 4.0}


def resident(images: Tensor, view: str) -> Callable[[], int]:
    source = make_images(images.numpy(), ViewSettings(4, True, MEAN, STD), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)

    def once() -> int:
        blocks = torch.randperm(len(images), generator=generator).split(source.block)
        return sum(len(views[0]) for views in source.blocks(blocks, (view,), lambda name: generator))

    return once


def per_image(pictures: Pictures, loader: bool, count: int) -> Callable[[], int]:
    batches = DataLoader(pictures, batch_size=BATCH, shuffle=True)

    def once() -> int:
        if loader:
            return sum(len(batch) for batch in batches)
        for index in range(count):
            pictures[index]
        return count

    return once


def rate(call: Callable[[], int]) -> float:
    begin = time.perf_counter()
    return call() / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (COUNT, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    print(f"views/s of 3x32x32 images, one thread, medians of {rounds} turns")
    for name, transform in theirs().items():
        loader = name == "weak"
        pair = resident(images, name), per_image(Pictures(images[:2048], transform), loader, 1024)
        for call in pair:
            call()
        rates = [[rate(call) for call in pair] for _ in range(rounds)]
        mine, usual = (statistics.median(column) for column in zip(*rates, strict=True))
        kind, ratio = "DataLoader + Pillow" if loader else "torchvision per image", mine / usual
        target = f", target >= {TARGETS[name]:g}: {'met' if ratio >= TARGETS[name] else 'MISSED'}" if name in TARGETS else ""
        print(f"{WHAT[name]:36} {mine:9,.0f}   {kind:22} {usual:7,.0f}   ratio {ratio:5.1f}{target}")


if __name__ == "__main__":
    main()
