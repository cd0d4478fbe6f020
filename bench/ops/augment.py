"""Batched augmentation of uint8 images: crop, flip, cutout, normalisation, and the weak and strong views made of them.

Every view function takes `images`, uint8 [B, C, H, W] with C = 1 or 3, on any device, and draws separate parameters for
each sample from `generator`. They are drawn on the generator's device and moved without waiting: a CPU generator gives
the same views on the CPU and on a GPU, and nothing here makes the host wait for the GPU. Functions ending in `_at` take
explicit parameters instead. The RandAugment operations are in `bench.ops.randaugment`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.ops.randaugment import channel_values, check_images, move, rand_augment, select_bits

FILL = (125, 123, 114)
"""Cutout colour in the usual PyTorch code of FixMatch, RGB."""


def default_fill(channels: int) -> tuple[int, ...]:
    """`FILL` for three channels, its luma for one."""
    return FILL if channels == 3 else (123,)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def crop_flip_at(images: Tensor, top: Tensor, left: Tensor, mirrored: Tensor | None, *, pad: int) -> Tensor:
    """Crop each image, zero-padded by `pad` on all sides, at (`top`, `left`), then mirror it where `mirrored`.

    `top` and `left` are int64 [B] in 0..2*pad, `mirrored` bool [B] or None; all on one device. Returns a new uint8
    tensor of the shape of `images`. Raises ValueError for other dtypes and shapes, or a negative `pad`.
    """
    check_images(images)
    if pad < 0:
        raise ValueError(f"pad must not be negative, got {pad}")
    batch, channels, height, width = images.shape
    if batch == 0:
        return images.clone()
    if mirrored is not None:  # mirror first, so crop from the other side
        left = torch.where(mirrored, 2 * pad - left, left)
        mask = move(mirrored.to(torch.uint8).mul_(255), images.device)
        images = select_bits(mask.view(-1, 1, 1, 1), images.flip(3), images)
    rows, columns = height + 2 * pad, width + 2 * pad
    padded = images.new_zeros(batch, channels, rows, columns)
    padded[..., pad : pad + height, pad : pad + width] = images
    # every possible crop is a strided window of the padded buffer: pick B of them by the position of their first pixel
    sample = channels * rows * columns
    windows = padded.as_strided(
        ((batch - 1) * sample + 2 * pad * (columns + 1) + 1, channels, height, width),
        (1, rows * columns, columns, 1),
    )
    first = torch.arange(batch, device=top.device) * sample + top * columns + left
    return windows.index_select(0, move(first, images.device))


def crop_flip(images: Tensor, *, pad: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Random crop of the zero-padded images, offsets uniform in 0..2*pad, and a mirror image for half if `flip`.

    Returns a new uint8 tensor of the shape of `images`. Raises ValueError as `crop_flip_at`.
    """
    batch, device = len(images), generator.device
    top, left = torch.randint(2 * pad + 1, (2, batch), generator=generator, device=device)
    mirrored = _uniform((batch,), generator) < 0.5 if flip else None
    return crop_flip_at(images, top, left, mirrored, pad=pad)


def cutout_at(images: Tensor, centre: Tensor, side: Tensor, *, fill: int | Sequence[int] | None = None) -> Tensor:
    """Paint one square per image: `centre` is [2, B] (x, y) and `side` [B], in pixels; `fill` grey levels per channel.

    The pixels painted are those of the rectangle that the PyTorch code of FixMatch draws: its first corner is
    centre - side/2, not below 0, truncated; its last pixel lies `side` further, inside the image. A side of 0 paints
    nothing. Returns a new uint8 tensor. Raises ValueError for other dtypes and shapes, or a wrong number of levels.
    """
    check_images(images)
    fill = default_fill(images.shape[1]) if fill is None else fill
    centre, side = centre.double()[..., None], side.double()[:, None]

    def inside(centre: Tensor, size: int) -> Tensor:  # [B, size], 255 inside
        pixel = torch.arange(size, device=centre.device)
        first = (centre - side / 2).clamp_(min=0).floor_()
        covered = (pixel >= first) & (pixel <= first + side) & (side > 0)
        return move(covered.to(torch.uint8).mul_(255), images.device)

    columns, rows = inside(centre[0], images.shape[3]), inside(centre[1], images.shape[2])
    return select_bits(rows[:, None, :, None] & columns[:, None, None, :], channel_values(fill, images), images)


def cutout(
    images: Tensor,
    *,
    max_fraction: float = 0.5,
    fill: int | Sequence[int] | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Paint a square of side uniform in [0, max_fraction * W), its centre uniform over the image, with `fill`.

    `fill` is one grey level or one per channel; None is `default_fill`. DeVries & Taylor (arXiv 1708.04552) with the
    random side of FixMatch's code; see `cutout_at` for the exact pixels. Returns a new uint8 tensor. Raises ValueError
    for other dtypes and shapes, a fraction outside [0, 1] or a wrong number of grey levels.
    """
    check_images(images)
    if not 0 <= max_fraction <= 1:
        raise ValueError(f"max_fraction must lie in [0, 1], got {max_fraction}")
    height, width = images.shape[2:]
    x, y, side = _uniform((3, len(images)), generator)
    return cutout_at(images, torch.stack((x * width, y * height)), side * (max_fraction * width), fill=fill)


def normalise(images: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(images / 255 - mean) / std as one multiply-add, in float32, then cast to `dtype`.

    `images` is uint8 [B, C, H, W]; `mean` and `std` are float32 [1, C, 1, 1] on its device, in units of the 0..1 range.
    """
    scale = 1 / (255 * std)
    return images.to(torch.float32).mul_(scale).sub_(mean / std).to(dtype)


def weak(images: Tensor, *, pad: int = 4, flip: bool = True, generator: torch.Generator) -> Tensor:
    """The weak view: `crop_flip`. uint8 in, uint8 out."""
    return crop_flip(images, pad=pad, flip=flip, generator=generator)


def strong(
    images: Tensor,
    *,
    pad: int = 4,
    flip: bool = True,
    n_ops: int = 3,
    max_fraction: float = 0.5,
    fill: int | Sequence[int] | None = None,
    generator: torch.Generator,
) -> Tensor:
    """The strong view of LLC-DRO and FixMatch: `rand_augment`, then `cutout` (with `fill`), then the weak view."""
    images = rand_augment(images, n_ops=n_ops, generator=generator)
    images = cutout(images, max_fraction=max_fraction, fill=fill, generator=generator)
    return weak(images, pad=pad, flip=flip, generator=generator)
