"""RandAugment as FixMatch uses it, on whole batches: 14 operations, every sample with its own operations and strengths.

Sources: Cubuk et al., "RandAugment" (arXiv 1909.13719); Sohn et al., "FixMatch" (arXiv 2001.07685), appendix, for the
list of operations and ranges. Results are those of the Pillow calls in the usual PyTorch code of FixMatch (nearest
neighbour, black outside the image): bit for bit, or within one grey level where Pillow's compiler fused multiply-adds.

Images are uint8 [B, C, H, W] with C = 1 or 3; strengths are [B], one per sample. Nothing here loops over samples.
Operations and strengths are drawn on the generator's device and sorted on the host. With a CPU generator, images on a
GPU are therefore augmented without the host ever waiting for the GPU, and get the same operations as on the CPU. A CUDA
generator costs two small copies to the host per call of `rand_augment`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

ONE = 1 << 16  # Pillow's affine transform is 16.16 fixed point


def check_images(images: Tensor) -> None:
    """Raise ValueError unless `images` is uint8 [B, 1 or 3, H, W], of less than 2^30 bytes (int32 positions)."""
    if images.numel() >= 1 << 30:
        raise ValueError(f"need less than 2^30 bytes of images at once, got {list(images.shape)}")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"need uint8 images [B, 1 or 3, H, W], got {images.dtype} {list(images.shape)}")


def move(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; the host does not wait for a copy to a GPU."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def channel_values(values: int | Sequence[int], images: Tensor) -> Tensor:
    """Grey levels as uint8 [1, C, 1, 1] on the device of `images`; one value counts for every channel.

    Raises ValueError unless there are 1 or C values, each in 0..255.
    """
    levels = [values] if isinstance(values, int) else list(values)
    channels = images.shape[1]
    if len(levels) not in (1, channels) or not all(0 <= level <= 255 for level in levels):
        raise ValueError(f"need 1 or {channels} grey levels in 0..255, got {values}")
    return move(torch.tensor(levels, dtype=torch.uint8).expand(channels).reshape(1, channels, 1, 1), images.device)


def select_bits(mask: Tensor, chosen: Tensor, other: Tensor) -> Tensor:
    """`chosen` where `mask` is 255, `other` where it is 0; uint8, broadcast to the shape of `other`.

    Bit operations, because torch.where on uint8 takes 15 times as long on a CPU.
    """
    return (chosen ^ other).bitwise_and_(mask).bitwise_xor_(other)


# --- geometry: one fixed-point 2x3 matrix per sample, one gather for all of them ------------------------------------


def affine_matrices(op: Tensor, strength: Tensor, height: int, width: int) -> Tensor:
    """The matrices of geometric operations for `affine_nearest`: int32 [N, 6], on the device of `strength`.

    `op` is int64 [N], positions in OPS (any other operation gives the identity), and `strength` [N].
    """
    strength = strength.double()

    def only(name: str, value: Tensor) -> Tensor:
        return value.masked_fill(op != POSITION[name], 0.0)

    angle = only("Rotate", -torch.remainder(strength, 360.0) * (math.pi / 180))
    cos, sin = angle.cos().round(decimals=15), angle.sin().round(decimals=15)
    x, y = width / 2, height / 2
    # translations by whole pixels: Pillow's are in floating point, not fixed point, so they round differently
    right = only("TranslateX", (strength * width + 0.5).floor()) + (x - cos * x - sin * y)
    down = only("TranslateY", (strength * height + 0.5).floor()) + (y + sin * x - cos * y)
    a, b, d, e = cos, sin + only("ShearX", strength), only("ShearY", strength) - sin, cos
    # the half-pixel shift to pixel centres is rounded together with the offset, as in Pillow
    coefficients = torch.stack((a, b, right + a * 0.5 + b * 0.5, d, e, down + d * 0.5 + e * 0.5), 1)
    return coefficients.mul_(ONE).add_(0.5).floor_().to(torch.int32)


def affine_nearest(images: Tensor, matrix: Tensor, fill: int | Sequence[int] = 0) -> Tensor:
    """Resample each image by its own matrix, nearest neighbour; `fill` (grey level, one or per channel) outside.

    `matrix` is int32 [B, 6] from output pixel to input pixel in 16.16 fixed point, half-pixel shift included. Valid up
    to 8192 pixels a side for the matrices of OPS; int32 overflows beyond.
    """
    batch, channels, height, width = images.shape
    framed = images.new_empty(batch, channels, height + 2, width + 2)
    framed.copy_(channel_values(fill, images))
    framed[:, :, 1:-1, 1:-1] = images  # a frame of fill, so that clamping replaces a mask
    a, b, c, d, e, f = move(matrix, images.device).t()[:, :, None, None]
    x = torch.arange(width, dtype=torch.int32, device=images.device)
    y = torch.arange(height, dtype=torch.int32, device=images.device)[:, None]
    column = (x * a + (y * b + (c + ONE))).bitwise_right_shift_(16).clamp_(0, width + 1)
    row = (x * d + (y * e + (f + ONE))).bitwise_right_shift_(16).clamp_(0, height + 1)
    index = row.mul_(width + 2).add_(column).view(batch, 1, -1).long().expand(-1, channels, -1)
    return framed.view(batch, channels, -1).gather(2, index).view(images.shape)


def _geometric(name: str, images: Tensor, strength: Tensor) -> Tensor:
    op = torch.full((len(images),), POSITION[name], device=strength.device)
    return affine_nearest(images, affine_matrices(op, strength, *images.shape[2:]))


# --- blends of the image and a degenerate version of it -------------------------------------------------------------


def mix(degenerate: Tensor | float, pixels: Tensor, factor: Tensor) -> Tensor:
    """degenerate + factor [B] * (pixels - degenerate), rounded as in Pillow. Overwrites `pixels` (float32 grey levels)."""
    # multiply and add stay separate roundings, as in Pillow: no lerp, no addcmul
    return pixels.sub_(degenerate).mul_(factor.float().view(-1, 1, 1, 1)).add_(degenerate)


def _blend(degenerate: Tensor | float, pixels: Tensor, factor: Tensor) -> Tensor:
    """`mix` for factors in [0, 1], truncated to uint8. Overwrites `pixels`."""
    return mix(degenerate, pixels, factor).to(torch.uint8)


def luma(pixels: Tensor) -> Tensor:
    """ITU-R 601 luma of float32 [B, 3, H, W], rounded as Pillow's 16-bit integers: [B, 1, H, W]. Grey stays itself."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = pixels.split(1, dim=1)
    total = (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471)  # below 2^24: exact in float32
    return total.add_(32768).mul_(1 / 65536).floor_()


def mean_luma(pixels: Tensor) -> Tensor:
    """The mean of `luma` over each image, rounded half up: float32 [B, 1, 1, 1]."""
    total = luma(pixels).sum(3).sum((1, 2), dtype=torch.float64)
    return (total / (pixels.shape[2] * pixels.shape[3]) + 0.5).floor().float().view(-1, 1, 1, 1)


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(0.0, images.float(), factor)


def _color(images: Tensor, factor: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    pixels = images.float()
    return _blend(luma(pixels), pixels, factor)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    pixels = images.float()
    return _blend(mean_luma(pixels), pixels, factor)


def _sharpness(images: Tensor, factor: Tensor) -> Tensor:
    pixels = images.float()
    rows = pixels[..., :-2] + pixels[..., 1:-1]
    rows += pixels[..., 2:]
    smooth = rows[..., :-2, :] + rows[..., 1:-1, :]
    smooth += rows[..., 2:, :]
    smooth.add_(pixels[..., 1:-1, 1:-1], alpha=4).mul_(1 / 13).add_(0.5).floor_()
    degenerate = pixels.clone()  # Pillow leaves the outermost pixels unfiltered
    degenerate[..., 1:-1, 1:-1] = smooth
    return _blend(degenerate, pixels, factor)


# --- tables and bits ------------------------------------------------------------------------------------------------


def _table_index(images: Tensor) -> Tensor:
    """Position of each pixel's grey level in a flat [B * C * 256] table, int32 [B, C, H, W]."""
    tables = images.shape[0] * images.shape[1]
    first = torch.arange(0, tables * 256, 256, dtype=torch.int32, device=images.device)
    return images.int().add_(first.view(*images.shape[:2], 1, 1))


def _autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    low, high = images.amin((2, 3)).double()[..., None], images.amax((2, 3)).double()[..., None]
    flat = high <= low
    # float64 with Pillow's order of roundings: its table is at times one below the exact quotient. A tensor of 255s,
    # because number / tensor multiplies by the reciprocal
    scale = (torch.full_like(low, 255.0) / (high - low)).masked_fill_(flat, 1.0)
    offset = low.neg().masked_fill_(flat, 0.0) * scale
    table = torch.arange(256, dtype=torch.float64, device=images.device) * scale
    table = table.add_(offset).clamp_(0, 255).to(torch.uint8)
    return table.view(-1).index_select(0, _table_index(images).view(-1)).view(images.shape)


def _equalize(images: Tensor, strength: Tensor) -> Tensor:
    batch, channels, height, width = images.shape
    if height * width < 256:
        return images  # fewer pixels than grey levels: Pillow's step is 0 and its table the identity
    index = _table_index(images).view(-1)
    one = torch.ones((), dtype=torch.int32, device=images.device).expand(index.shape)
    count = torch.zeros(batch * channels * 256, dtype=torch.int32, device=images.device).index_add_(0, index, one)
    count = count.view(batch, channels, 256)
    brightest = count.gather(2, images.amax((2, 3)).long()[..., None])
    step = (height * width - brightest) // 255
    below = count.cumsum(2, dtype=torch.int32) - count
    level = torch.arange(256, dtype=torch.int32, device=images.device)
    table = torch.where(step > 0, (below + step // 2) // step.clamp(min=1), level).clamp_(max=255).to(torch.uint8)
    return table.view(-1).index_select(0, index).view(images.shape)


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    dropped = 8 - bits.floor().clamp(1, 8).to(torch.int32)
    mask = torch.full_like(dropped, 255).bitwise_left_shift_(dropped).bitwise_and_(255).to(torch.uint8)
    return images & mask.view(-1, 1, 1, 1)


def _solarize(images: Tensor, threshold: Tensor) -> Tensor:
    last_kept = threshold.ceil() - 1  # -1 (invert everything) does not fit uint8
    invert = (images > last_kept.clamp(0, 255).to(torch.uint8).view(-1, 1, 1, 1)).view(torch.uint8).mul_(255)
    invert |= (last_kept < 0).to(torch.uint8).mul_(255).view(-1, 1, 1, 1)
    return invert.bitwise_xor_(images)  # 255 - x is x with every bit flipped


def _identity(images: Tensor, strength: Tensor) -> Tensor:
    return images


# --- the table and the draw -----------------------------------------------------------------------------------------


class Op(NamedTuple):
    """An operation: `function(images, strength [B]) -> images`, and the range that strengths are drawn from."""

    function: Callable[[Tensor, Tensor], Tensor]
    low: float
    high: float


OPS: dict[str, Op] = {
    # the geometric ones come first and together, so that one gather serves them all
    "Rotate": Op(partial(_geometric, "Rotate"), -30.0, 30.0),  # degrees
    "ShearX": Op(partial(_geometric, "ShearX"), -0.3, 0.3),  # pixels per pixel
    "ShearY": Op(partial(_geometric, "ShearY"), -0.3, 0.3),
    "TranslateX": Op(partial(_geometric, "TranslateX"), -0.3, 0.3),  # fraction of the width
    "TranslateY": Op(partial(_geometric, "TranslateY"), -0.3, 0.3),  # fraction of the height
    "Brightness": Op(_brightness, 0.05, 0.95),  # weight of the image against black
    "Color": Op(_color, 0.05, 0.95),  # against its grey version
    "Contrast": Op(_contrast, 0.05, 0.95),  # against its mean grey
    "Sharpness": Op(_sharpness, 0.05, 0.95),  # against its smoothed version
    "AutoContrast": Op(_autocontrast, 0.0, 1.0),  # strength unused
    "Equalize": Op(_equalize, 0.0, 1.0),  # strength unused
    "Posterize": Op(_posterize, 4.0, 8.0),  # bits kept, truncated to a whole number
    "Solarize": Op(_solarize, 0.0, 256.0),  # invert grey levels from this one on
    "Identity": Op(_identity, 0.0, 1.0),  # strength unused
}


POSITION = {name: position for position, name in enumerate(OPS)}
GEOMETRIC = 5  # so many operations of OPS are geometric, the first ones


def apply_op(name: str, images: Tensor, magnitude: Tensor) -> Tensor:
    """One operation of `OPS` on uint8 [B, C, H, W] with one strength per sample, [B]; black outside the image.

    Does not change `images`, but may return them. Raises KeyError for an unknown name, ValueError for other shapes.
    """
    check_images(images)
    if magnitude.shape != images.shape[:1]:
        raise ValueError(f"need one magnitude per image, got {list(magnitude.shape)} for {len(images)} images")
    return OPS[name].function(images.contiguous(), magnitude)


def _apply_sorted(
    images: Tensor, sizes: list[int], strength: Tensor, matrices: Tensor, fill: int | Sequence[int]
) -> None:
    """Apply the operations of OPS, in order, to consecutive groups of `sizes` images, in place."""
    start = sum(sizes[:GEOMETRIC])
    if start:
        images[:start] = affine_nearest(images[:start], matrices[:start], fill)
    for op, size in list(zip(OPS.values(), sizes, strict=True))[GEOMETRIC:-1]:  # the last is Identity
        if size:
            group = slice(start, start + size)
            images[group] = op.function(images[group], strength[group])
            start += size


def rand_augment(
    images: Tensor, *, n_ops: int = 3, generator: torch.Generator, fill: int | Sequence[int] = 0
) -> Tensor:
    """RandAugment: each sample gets `n_ops` operations of `OPS`, drawn with replacement, with uniform strengths.

    `images` is uint8 [B, C, H, W]; `fill` is the grey level (one, or one per channel) that geometric operations put
    outside the image. Returns a new uint8 tensor of the same shape. The draws take 2 * n_ops * B numbers from
    `generator` whatever the images are. Raises ValueError for other dtypes and shapes, or n_ops < 1.
    """
    check_images(images)
    if n_ops < 1:
        raise ValueError(f"n_ops must be at least 1, got {n_ops}")
    device, shape = generator.device, (n_ops, len(images))
    op = torch.randint(len(OPS), shape, generator=generator, device=device).cpu()
    uniform = torch.rand(shape, generator=generator, device=device).cpu()
    low, high = torch.tensor([[each.low, each.high] for each in OPS.values()]).t()
    order = op.argsort(dim=1, stable=True)  # [n_ops, B]: in each round, samples sorted by operation
    row = order.argsort(dim=1)  # where each sample is in that order
    op = op.gather(1, order)
    strength = torch.lerp(low[op], high[op], uniform.gather(1, order))
    matrices = affine_matrices(op.view(-1), strength.view(-1), *images.shape[2:]).view(*shape, 6)
    sizes = (op[..., None] == torch.arange(len(OPS))).sum(1).tolist()
    moves = torch.cat((order[:1], row[:-1].gather(1, order[1:]), row[-1:]))  # into each order, and back at the end
    strength, matrices, moves = (move(each, images.device) for each in (strength, matrices, moves))
    for turn in range(n_ops):
        images = images.index_select(0, moves[turn])
        _apply_sorted(images, sizes[turn], strength[turn], matrices[turn], fill)
    return images.index_select(0, moves[-1])
