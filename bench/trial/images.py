"""Where a task's training images come from: one resident tensor on the device, or files decoded block by block.

Both hand out blocks of normalised views; a method cannot tell them apart. Parameters of augmentation are drawn here, per
sample, from the generators given, so the result never depends on the number of decoding threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.ops import augment
from bench.ops.contrast_views import CONTRAST, contrast_view
from bench.ops.randaugment import rand_augment

#: images per block of a pass: resident ones amortise the fixed cost of tensor operations over many small batches; of files
#: three blocks are in memory at a time (about 40 MB each at 224 pixels and one view)
RESIDENT_BLOCK, FILE_BLOCK = 2048, 256
#: normalised images are kept from one full pass to the next up to this size: CIFAR's 600 MB are not worth what they save
KEPT_BYTES = 64 * 2**20
#: "scan": four operations of RandAugment, cutout and a mirror image for half (SCAN, ScanMix); "mtadcs": the weak view and two
#: operations of RandAugment, each of a strength drawn uniformly over FixMatch's range, not the one strength of the original
#: RandAugment (MTaDCS, which names none); "cutout": the strong view without RandAugment (LLC-DRO's ablation); the others in
#: `bench.ops.contrast_views` and `bench.ops.augment`
VIEWS = ("plain", "weak", "strong", *CONTRAST, "scan", "mtadcs", "cutout")

Views = tuple[str, ...]
Stream = Callable[[str], torch.Generator]


@dataclass(frozen=True)
class ViewSettings:
    """What weak and strong mean on this data set; `crops` False makes the weak view the plain image.

    The views of contrastive learning are random resized crops in any case, and mirrored for half where `flip`.
    """

    pad: int
    flip: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crops: bool = True

    @property
    def fill(self) -> tuple[int, ...]:
        """Grey level per channel of a cut-out square: the mean picture's."""
        return tuple(round(255 * m) for m in self.mean)


class Images:
    """What the two sources share. `shape` is (C, H, W)."""

    block: int
    shape: tuple[int, int, int]
    cut = False  #: are random crops made where pictures are decoded?

    def __init__(self, settings: ViewSettings, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self._mean = torch.tensor(settings.mean, device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(settings.std, device=device).view(1, -1, 1, 1)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] to float32, zero mean and unit deviation per channel by the data set's statistics."""
        return augment.normalise(images, self._mean, self._std)

    def blocks(self, indices: Sequence[Tensor], views: Views, stream: Stream) -> Iterator[list[Tensor]]:
        """For each index tensor int64 [B] one normalised tensor [B, C, H, W] per view."""
        raise NotImplementedError

    def plain(self) -> Iterator[Tensor]:
        """All images in index order, normalised, not augmented, in parts."""
        raise NotImplementedError

    def _finish(self, raw: Tensor, view: str, pad: int, flip: bool, generator: torch.Generator) -> Tensor:
        fill = self.settings.fill
        if view in CONTRAST:
            flip = self.settings.flip
            raw = contrast_view(raw, CONTRAST[view], flip=flip, crop=not self.cut, generator=generator)
        elif view in ("weak", "mtadcs") and (pad or flip):
            raw = augment.crop_flip(raw, pad=pad, flip=flip, generator=generator)
        elif view == "strong":
            raw = augment.strong(raw, pad=pad, flip=flip, fill=fill, generator=generator)
        elif view == "cutout":
            raw = augment.cutout(raw, fill=fill, generator=generator)
            raw = augment.weak(raw, pad=pad, flip=flip, generator=generator)
        elif view == "scan":
            share = 1 / 3 if self.cut else 1 / 2  # largest side of the square: 75 of 224 pixels, 16 of 32
            raw = augment.strong(raw, pad=0, flip=flip, n_ops=4, max_fraction=share, fill=fill, generator=generator)
        if view == "mtadcs":
            raw = rand_augment(raw, n_ops=2, generator=generator)
        return self.normalise(raw)


class ResidentImages(Images):
    """One uint8 tensor [N, C, H, W] on the device."""

    block = RESIDENT_BLOCK

    def __init__(self, images: Tensor, settings: ViewSettings) -> None:
        super().__init__(settings, images.device)
        self._images = images
        self.shape = (images.shape[1], images.shape[2], images.shape[3])
        self._plain: Tensor | None = None

    def blocks(self, indices: Sequence[Tensor], views: Views, stream: Stream) -> Iterator[list[Tensor]]:
        generator = stream("augment")
        crops = self.settings.crops
        pad, flip = (self.settings.pad, self.settings.flip) if crops else (0, False)
        for index in indices:
            raw = self._images.index_select(0, index.to(self.device))  # on a CPU seven times as fast as indexing
            yield [self._finish(raw, view, pad, flip, generator) for view in views]

    def plain(self) -> Iterator[Tensor]:
        if 4 * self._images.numel() > KEPT_BYTES:
            yield from map(self.normalise, self._images.split(self.block))
            return
        if self._plain is None:
            self._plain = self.normalise(self._images)
        yield self._plain


class FileImagesOnDevice(Images):
    """`bench.data.files.FileImages`: decoded in threads, one block ahead, moved to the device as uint8."""

    block = FILE_BLOCK
    cut = True

    def __init__(self, files: Any, settings: ViewSettings, device: torch.device) -> None:
        super().__init__(settings, device)
        self._files = files
        self.shape = files.shape

    def blocks(self, indices: Sequence[Tensor], views: Views, stream: Stream) -> Iterator[list[Tensor]]:
        # The next block's geometry is drawn while this one is trained on, so it has a generator of its own.
        geometry, generator = stream("geometry"), stream("augment")
        crops = self.settings.crops
        scales = [CONTRAST[view].scale if view in CONTRAST else None for view in views]

        def wanted() -> Iterator[tuple[np.ndarray, list[np.ndarray | None]]]:
            for index in indices:
                cut = [view in CONTRAST or (view != "plain" and crops) for view in views]
                draws = [torch.rand(len(index), 4, dtype=torch.float64, generator=geometry).numpy() if c else None for c in cut]
                yield index.cpu().numpy(), draws

        for arrays in self._files.stream(wanted(), scales):
            made = []
            for view, array in zip(views, arrays, strict=True):
                made.append(self._finish(self._to_device(array), view, 0, self.settings.flip and crops, generator))
            yield made

    def plain(self) -> Iterator[Tensor]:
        for array in self._files.passes(self.block):
            yield self.normalise(self._to_device(array))

    def _to_device(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def make_images(images: Any, settings: ViewSettings, device: torch.device) -> Images:
    """The source for a split's `images`: a uint8 array, or an index of files."""
    if isinstance(images, np.ndarray):
        return ResidentImages(torch.as_tensor(images).to(device), settings)
    return FileImagesOnDevice(images, settings, device)
