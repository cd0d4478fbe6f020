"""The views of contrastive learning on whole batches: random resized crop, colour jitter, grey scale, Gaussian blur.

Sources: Chen et al., "SimCLR" (arXiv 2002.05709), appendix A; Chen et al., "MoCo v2" (arXiv 2003.04297), section 3; the values
in `CONTRAST` are those of the usual PyTorch code of MoCo v2 and, for small images, of SCAN, MOIT and TCL. Every operation
gives what torchvision gives for a Pillow image and the same parameters: bit for bit on an x86 CPU, a rare grey level more or
less where a compiler fuses multiplications or a GPU rounds quotients its own way. Like Pillow, each operation rounds to whole
grey levels before the next one.

Images are uint8 [B, C, H, W] with C = 1 or 3, on any device, and so are the results, which are new tensors. Parameters are
drawn per sample from `generator` and handled on the host, where a sample's order of operations is looked up, then moved
without waiting: with a CPU generator a GPU renders the views that a CPU does and never keeps the host waiting (a CUDA
generator costs small copies to the host). Functions ending in `_at` take explicit parameters, on the host. Every function
raises ValueError for other dtypes and shapes. Nothing here loops over samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from bench.ops.augment import crop_flip
from bench.ops.randaugment import apply_op, check_images, luma, mean_luma, mix, move

Range = tuple[float, float]
CACHED = 1 << 18  # values of images that a CPU works on at once: 1 MB as float32
WHOLE = 512  # images of a batch from which a CPU sorts them by the whole order of their jitter operations


def _uniform(shape: tuple[int, ...], generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    drawn = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64).cpu()
    return drawn.mul_(high - low).add_(low)


def _happens(images: Tensor, p: float, generator: torch.Generator) -> Tensor:
    return _uniform((len(images),), generator) < p


def _grouped(images: Tensor, key: Tensor, change: Callable[[Tensor, int, Tensor], Tensor]) -> Tensor:
    """`change(part, key, where)` for all images of equal key, others kept: a new tensor of the shape of `images`.

    `key` is int64 [B] on the host, negative for images to be kept. `change` gets the images of one key and their positions,
    int64 [n] on the device of `images`; on a CPU not more of them at a time than fit its cache.
    """
    key, order = key.sort(stable=True)
    keys, sizes = key.unique_consecutive(return_counts=True)
    there = move(torch.stack((order, order.argsort())), images.device)
    images = images.index_select(0, there[0])
    together = len(key) if images.device.type != "cpu" else max(1, CACHED // max(1, images[:1].numel()))
    groups = zip(keys.tolist(), images.split(sizes.tolist()), there[0].split(sizes.tolist()), strict=True)
    for each, group, where in groups:
        for part, positions in zip(group.split(together), where.split(together), strict=True) if each >= 0 else ():
            part.copy_(change(part, each, positions))
    return images.index_select(0, there[1])


# --- random resized crop: two small matrix products per image ---------------------------------------------------------


def resized_crop_boxes(
    count: int, height: int, width: int, *, scale: Range, ratio: Range = (3 / 4, 4 / 3), generator: torch.Generator
) -> Tensor:
    """Boxes of Inception-style cropping, int64 [4, count]: top, left, height, width in pixels, on the host.

    The law of torchvision's RandomResizedCrop: a share of the area uniform in `scale` and a log-uniform aspect (width by
    height) in `ratio`, tried up to ten times until the box fits, then placed uniformly; else the largest central box with
    a legal aspect. Raises ValueError for ranges that are not positive and rising.
    """
    if not 0 < scale[0] <= scale[1] or not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"scale {scale} and ratio {ratio} must be positive and rising")
    area = _uniform((10, count), generator, *scale).mul_(height * width)
    aspect = _uniform((10, count), generator, math.log(ratio[0]), math.log(ratio[1])).exp_()
    down, right = _uniform((2, count), generator)
    wide, tall = (area * aspect).sqrt_().round_(), (area / aspect).sqrt_().round_()
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    found, first = fits.any(0), fits.byte().argmax(0, keepdim=True)  # the first one that fits
    tallest = min(height, round(width / ratio[0])) if width / height < ratio[0] else height
    widest = min(width, round(height * ratio[1])) if width / height > ratio[1] else width
    tall = torch.where(found, tall.gather(0, first)[0], tallest)
    wide = torch.where(found, wide.gather(0, first)[0], widest)
    top = torch.where(found, down * (height - tall + 1), (height - tall) / 2)
    left = torch.where(found, right * (width - wide + 1), (width - wide) / 2)
    return torch.stack((top, left, tall, wide)).long()


def _stretch(first: Tensor, length: Tensor, mirrored: Tensor | None, size: int, dtype: torch.dtype) -> Tensor:
    """Weights of Pillow's bilinear filter, [B, size (out), size (in)], for `length` pixels from `first` on."""
    pixel = torch.arange(size, device=first.device, dtype=torch.float64) + 0.5
    first, length = first.double()[:, None], length.double()[:, None]
    centre = first + pixel * (length / size)
    centre = centre.maximum(first + 0.5).minimum(first + length - 0.5)  # nothing beyond the box counts
    if mirrored is not None:
        centre = torch.where(mirrored[:, None], centre.flip(1), centre)
    weights = (pixel.to(dtype) - centre.to(dtype)[..., None]).abs_().neg_().add_(1).relu_()
    return weights if dtype == torch.float32 else weights.mul_(2**22).round_().div_(2**22)


def resized_crop_at(images: Tensor, box: Tensor, mirrored: Tensor | None = None) -> Tensor:
    """Scale the part of each image inside its box to the size of the image, bilinear, then mirror it where `mirrored`.

    `box` is [4, B]: top, left, height, width, whole pixels inside the image; `mirrored` bool [B] or None. No box is larger
    than the image, so Pillow's antialiasing, which widens the filter when it makes pictures smaller, plays no part.
    """
    check_images(images)
    batch, channels, height, width = images.shape
    if box.shape != (4, batch):
        raise ValueError(f"need boxes [4, {batch}], got {list(box.shape)}")
    box = move(box.to(torch.int32), images.device)
    mirrored = None if mirrored is None else move(mirrored, images.device)
    # Weights are multiples of 1 / (2 * side): exact in float32 (and TensorFloat-32) for a power of two. For other sides as
    # Pillow, weights of 22 bits and exact sums, since those that end in one half are frequent.
    dtype = torch.float64 if height & (height - 1) or width & (width - 1) else torch.float32

    def scaled(part: Tensor, key: int, where: Tensor) -> Tensor:
        top, left, tall, wide = box.index_select(1, where)
        flipped = None if mirrored is None else mirrored.index_select(0, where)
        pixels = part.transpose(1, 2).contiguous().to(dtype)  # [B, H, C, W]: so both products need no copy in between
        across = pixels.view(-1, height * channels, width) @ _stretch(left, wide, flipped, width, dtype).mT
        across = across.add_(0.5).floor_().view(-1, height, channels * width)
        out = (_stretch(top, tall, None, height, dtype) @ across).add_(0.5).to(torch.uint8)
        return out.view(-1, height, channels, width).transpose(1, 2)

    return _grouped(images, torch.zeros(batch, dtype=torch.int64), scaled)


def resized_crop(
    images: Tensor, *, scale: Range, ratio: Range = (3 / 4, 4 / 3), flip: bool, generator: torch.Generator
) -> Tensor:
    """`resized_crop_at` with boxes from `resized_crop_boxes`, and a mirror image for half if `flip`."""
    batch, _, height, width = images.shape
    box = resized_crop_boxes(batch, height, width, scale=scale, ratio=ratio, generator=generator)
    return resized_crop_at(images, box, _happens(images, 0.5, generator) if flip else None)


# --- colour jitter: float32 pixels that hold whole grey levels, [B, C, H, W], with one factor per sample ---------------


def _whole(pixels: Tensor) -> Tensor:
    return pixels.clamp_(0, 255).floor_()


def _brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    return _whole(mix(0.0, pixels, factor))


def _contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    return _whole(mix(mean_luma(pixels), pixels, factor))


def _saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    return pixels if pixels.shape[1] == 1 else _whole(mix(luma(pixels), pixels, factor))


@cache
def _hue_table(device: torch.device) -> Tensor:
    """Pillow's 8-bit hue, uint8 [8 * 256 * 256], by which channels exceed the next, by max - min, and by middle - min."""
    span = torch.arange(256, dtype=torch.float32)[:, None].clamp(min=1)
    share = ((span - torch.arange(256)) / span).double()  # (max - middle) / (max - min), in float32 as Pillow's
    hue = torch.zeros(8, 256, 256, dtype=torch.float64)
    # bits of the first index: red > green, green > blue, blue > red; hue in sixths of the circle, from -1
    hue[3], hue[1], hue[2] = 1 - share, share - 1, 1 + share
    hue[6], hue[4], hue[5] = 3 - share, 3 + share, 5 - share
    turn = (hue.float().double() / 6 + 1).remainder(1).float().double()  # Pillow's mixture of precisions
    return move((turn * 255).to(torch.uint8).view(-1), device)


@cache
def _hexagon(device: torch.device) -> tuple[Tensor, ...]:
    """Per channel, float32 [1, 3, 1, 1]: centre, sign and offset of `faded` below, in sixths of the circle times 255."""
    values = [765.0, 510.0, 1020.0], [-1.0, 1.0, 1.0], [510.0, -255.0, -255.0]
    return tuple(move(torch.tensor(each).view(1, 3, 1, 1), device) for each in values)


def _hue(pixels: Tensor, factor: Tensor) -> Tensor:
    """To 8-bit HSV, turned by `factor` of the circle, and back, with Pillow's roundings."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = pixels.split(1, dim=1)
    value, low = torch.maximum(red, green).maximum(blue), torch.minimum(red, green).minimum(blue)
    # 65536 * bits + 256 * (max - min) + (middle - min), below 2^24: exact in float32
    index = (red - green).clamp_(0, 1).add_((green - blue).clamp_(0, 1), alpha=2).add_((blue - red).clamp_(0, 1), alpha=4)
    index = index.mul_(65536).add_(red).add_(green).add_(blue).add_(value, alpha=255).sub_(low, alpha=258).int()
    hue = _hue_table(pixels.device).index_select(0, index.view(-1)).view(index.shape)
    shift = (factor.double() * 255).int().to(torch.uint8).view(-1, 1, 1, 1)  # towards zero, then modulo 256
    chroma = low.neg().add_(value).mul_(255).div_(value.clamp(min=1)).floor_().mul_(value)  # 8-bit saturation times value
    centre, sign, offset = _hexagon(pixels.device)
    faded = (hue.add_(shift).float().mul_(6) - centre).abs_().mul_(sign).add_(offset).clamp_(0, 255)  # 255: opposite hue
    # value - chroma * faded / 255^2, rounded; products are below 2^24, and none ends in one half
    return faded.mul_(chroma).add_(32512).div_(65025).floor_().neg_().add_(value)


JITTER: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": _brightness,  # factor: weight of the image against black
    "contrast": _contrast,  # against its mean grey
    "saturation": _saturation,  # against its grey version
    "hue": _hue,  # share of a turn, -0.5 to 0.5
}


def color_jitter_at(
    images: Tensor, factors: Mapping[str, Tensor], order: Tensor, chosen: Tensor | None = None
) -> Tensor:
    """Change the colours of each image, or of those `chosen` (bool [B]), by its own factors in its own order.

    `factors`: float [B] for each of some operations of `JITTER`, not negative, that of hue in [-0.5, 0.5]. `order`: int64
    [operations, B]; column i lists what is done to image i, first to last, as positions in `factors`. Raises KeyError for an
    unknown operation.
    """
    check_images(images)
    count = len(factors)
    if order.shape != (count, len(images)):
        raise ValueError(f"need orders [{count}, {len(images)}], got {list(order.shape)}")
    operations = [(JITTER[name], move(factor, images.device)) for name, factor in factors.items()]

    def changed(part: Tensor, key: int, where: Tensor) -> Tensor:
        pixels = part.float()
        while key > 0:  # its digits are operations, counted from 1
            key, digit = divmod(key, count + 1)
            function, factor = operations[digit - 1]
            pixels = function(pixels, factor.index_select(0, where))
        return pixels.to(torch.uint8)

    # Many images on a CPU: together those of one whole order, whose pixels then stay in its cache. Else those of one
    # operation, turn by turn, which takes a fifth of the calls.
    whole = images.device.type == "cpu" and len(images) >= WHOLE
    for turns in [order + 1] if whole else (order + 1).split(1):
        key = (turns * (count + 1) ** torch.arange(len(turns))[:, None]).sum(0)
        images = _grouped(images, key if chosen is None else key.masked_fill(~chosen, -1), changed)
    return images


def color_jitter(
    images: Tensor, *, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0,
    p: float = 1.0, generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """torchvision's ColorJitter with probability `p`: factors uniform in 1 +- strength (not below 0), hue in +- strength.

    The operations follow each other in random order; one of strength 0 is left out. Raises ValueError for a negative
    strength or a hue above 0.5.
    """
    strengths = dict(zip(JITTER, (brightness, contrast, saturation, hue), strict=True))
    if min(strengths.values()) < 0 or hue > 0.5:
        raise ValueError(f"strengths must not be negative, hue at most 0.5, got {strengths}")
    chosen, factors = _happens(images, p, generator), {}
    for name, strength in strengths.items():
        low, high = (-strength, strength) if name == "hue" else (max(0.0, 1 - strength), 1 + strength)
        factor = _uniform((len(images),), generator, low, high).float()
        if strength > 0:
            factors[name] = factor
    order = _uniform((len(JITTER), len(images)), generator)[: len(factors)].argsort(0)
    return color_jitter_at(images, factors, order, chosen)


# --- grey scale, blur -------------------------------------------------------------------------------------------------


def grayscale_at(images: Tensor, chosen: Tensor) -> Tensor:
    """Every channel of the images `chosen` (bool [B]) becomes their ITU-R 601 luma."""
    check_images(images)
    if images.shape[1] == 1:
        return images.clone()

    return _grouped(images, chosen.long() - 1, lambda part, key, where: luma(part.float()).to(torch.uint8))


def random_grayscale(images: Tensor, *, p: float, generator: torch.Generator) -> Tensor:
    """`grayscale_at` for each image with probability `p`."""
    return grayscale_at(images, _happens(images, p, generator))


def _boxes(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Pillow's box that, applied three times, stands for a Gaussian of width `sigma` [B].

    Whole radius, int64 [B]; int32 [3, B] in 2^-24: weight inside, weight of both ends, and what is added before rounding
    down. Gwosdek et al. (SSVM 2011), equations 7 to 14, in float32.
    """
    variance = sigma.float().square() / 3
    radius = (((12 * variance.double() + 1).sqrt().float() - 1) / 2).floor()
    ends = (2 * radius + 1) * (radius * (radius + 1) - 3 * variance) / (6 * (variance - (radius + 1).square()))
    inside = (2**24 / ((radius + ends) * 2 + 1)).int()
    radius = radius.int()
    ends = (2**24 - (2 * radius + 1) * inside) // 2
    lost = 2**24 - (2 * radius + 1) * inside - 2 * ends  # weights may add up to one unit less than 1; levels are from -128
    return radius.long(), torch.stack((inside, ends, 2**23 - 128 * lost))


def _box_blur(pixels: Tensor, radius: int, weights: Tensor, dim: int) -> Tensor:
    """One pass along `dim` over int32 [B, C, H, W] in -128..127; the outermost pixels go on beyond the border."""
    inside, ends, half = weights
    size = pixels.shape[dim]
    out = (pixels * inside).add_(half)
    for step in range(1, radius + 2):
        weight, reach = inside if step <= radius else ends, min(step, size)
        for border, first, shifted in ((0, 0, reach), (size - 1, size - reach, 0)):
            out.narrow(dim, shifted, size - reach).addcmul_(pixels.narrow(dim, reach - shifted, size - reach), weight)
            out.narrow(dim, first, reach).addcmul_(pixels.narrow(dim, border, 1), weight)
    return out.bitwise_right_shift_(24)


def gaussian_blur_at(images: Tensor, sigma: Tensor, chosen: Tensor | None = None) -> Tensor:
    """Blur each image, or those `chosen` (bool [B]), with its own `sigma` [B] in pixels, as Pillow's GaussianBlur does.

    That is the blur of MoCo v2. It has no kernel size: three box filters along each axis, rounded after each.
    """
    check_images(images)
    if sigma.shape != images.shape[:1]:
        raise ValueError(f"need one sigma per image, got {list(sigma.shape)} for {len(images)} images")
    radius, weights = _boxes(sigma)
    weights = move(weights, images.device)

    def blurred(part: Tensor, radius: int, where: Tensor) -> Tensor:
        pixels, own = part.int().sub_(128), weights.index_select(1, where).view(3, -1, 1, 1, 1)
        for dim in (3, 3, 3, 2, 2, 2):
            pixels = _box_blur(pixels, radius, own, dim)
        return pixels.add_(128).to(torch.uint8)

    return _grouped(images, radius if chosen is None else radius.masked_fill(~chosen, -1), blurred)


def gaussian_blur(images: Tensor, *, sigma: Range = (0.1, 2.0), p: float, generator: torch.Generator) -> Tensor:
    """`gaussian_blur_at` for each image with probability `p`, sigma uniform in the range."""
    chosen = _happens(images, p, generator)
    return gaussian_blur_at(images, _uniform((len(images),), generator, *sigma), chosen)


def _solarise(part: Tensor, level: int, where: Tensor) -> Tensor:
    return apply_op("Solarize", part, torch.full((len(part),), float(level), device=part.device))


# --- views ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ContrastView:
    """What is done to make a view, in this order; a mirror image for half comes with the crop."""

    scale: Range = (0.2, 1.0)  # share of the area that is cut out and scaled up
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)  # brightness, contrast, saturation, hue
    jitter_p: float = 0.8
    grey_p: float = 0.2
    blur_p: float = 0.0
    blur_sigma: Range = (0.1, 2.0)
    solarise_p: float = 0.0  # invert grey levels from 128 on


#: SimCLR's strengths (0.8, 0.8, 0.8, 0.2) are halved for CIFAR, which makes them MoCo's
CONTRAST: dict[str, ContrastView] = {
    "simclr": ContrastView(),  # SCAN's and ScanMix's pretraining: no blur
    "moco": ContrastView(blur_p=0.5),
    "moit": ContrastView(scale=(0.08, 1.0)),  # torchvision's default scale; Sel-CL and MoCo's CIFAR demonstration as well
    "tcl": ContrastView(solarise_p=0.5),
}


def contrast_view(
    images: Tensor, view: ContrastView, *, flip: bool, crop: bool = True, generator: torch.Generator
) -> Tensor:
    """One view of each image, uint8 in and out. `crop` False: the images are random resized crops already."""
    if crop:
        images = resized_crop(images, scale=view.scale, flip=flip, generator=generator)
    else:
        images = crop_flip(images, pad=0, flip=flip, generator=generator)
    names = dict(zip(JITTER, view.jitter, strict=True))
    images = color_jitter(images, **names, p=view.jitter_p, generator=generator)
    images = random_grayscale(images, p=view.grey_p, generator=generator)
    if view.blur_p:
        images = gaussian_blur(images, sigma=view.blur_sigma, p=view.blur_p, generator=generator)
    if view.solarise_p:
        key = torch.where(_happens(images, view.solarise_p, generator), 128, -1)
        images = _grouped(images, key, _solarise)
    return images
