"""How a decoded picture becomes a square of fixed size: the geometric half of a data set's standard transforms.

Resizing is torch's bilinear kernel with antialiasing on uint8, the one that torchvision applies to tensors; it agrees with
Pillow's, which torchvision applies to images, within one grey level. Boxes are exactly torchvision's for the same
parameters. Random parameters are given as numbers in [0, 1), so that who draws them decides the result, not who decodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

#: (top, left, height, width) in pixels
Box = tuple[int, int, int, int]
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Geometry:
    """The evaluation transform and the training geometry of a data set; `crop` is the side that both deliver.

    Evaluation: `centre_first` (cut the central square of that side), `resize`, central crop. `resize` is the length of
    the shorter side, or (height, width) whatever the aspect. Training: `centre` is the evaluation transform;
    `random-crop` resizes alike and crops at random; `random-resized-crop` cuts a part with a share of the area in `scale`
    and an aspect in `ratio` out of the picture as it is (with `resize_first`, of the resized picture) and scales it.
    Raises `ValueError` for a crop that does not fit.
    """

    crop: int
    resize: int | tuple[int, int]
    train: Literal["centre", "random-crop", "random-resized-crop"] = "random-crop"
    centre_first: int | None = None
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    resize_first: bool = False

    def __post_init__(self) -> None:
        shorter = self.resize if isinstance(self.resize, int) else min(self.resize)
        if not 1 <= self.crop <= shorter:
            raise ValueError(f"crop {self.crop} must lie in 1..{shorter}, the side that resize leaves")
        if not 0 < self.scale[0] <= self.scale[1] or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"scale {self.scale} and ratio {self.ratio} must be positive and rising")

    def render(self, picture: Tensor, draws: Sequence[float] | None = None) -> Tensor:
        """uint8 [3, H, W] to uint8 [3, crop, crop]; `draws` None is evaluation, else four numbers in [0, 1).

        `random-crop` uses the first two (top, left), `random-resized-crop` all (see `resized_crop_box`).
        """
        if draws is not None and self.train == "random-resized-crop":
            if self.resize_first:
                picture = self.resized(picture)
            box = resized_crop_box(picture.shape[1], picture.shape[2], self.scale, self.ratio, draws)
            return resize(cut(picture, box), (self.crop, self.crop))
        picture = self.resized(picture)
        height, width = picture.shape[1:]
        if draws is not None and self.train == "random-crop":
            return cut(picture, random_crop_box(height, width, self.crop, draws))
        return cut(picture, centre_box(height, width, self.crop))

    def resized_crops(self, scale: tuple[float, float]) -> Geometry:
        """Training by random resized crops of these shares of the area and aspects of 3/4 to 4/3, whatever `train` is.

        They are cut out of what crops are cut out of now: the resized picture where `resizes_first`, else the picture as it is.
        """
        ratio = (3 / 4, 4 / 3)
        return replace(self, train="random-resized-crop", resize_first=self.resizes_first, scale=scale, ratio=ratio)

    @property
    def resizes_first(self) -> bool:
        """Do training and evaluation alike begin with `resized`? Else training cuts out of the picture as it is."""
        return self.train != "random-resized-crop" or self.resize_first

    def resized(self, picture: Tensor) -> Tensor:
        """The step without chance: `centre_first` and `resize` of uint8 [3, H, W]."""
        if self.centre_first is not None:
            picture = cut(picture, centre_box(picture.shape[1], picture.shape[2], self.centre_first))
        return resize(picture, self.resize)


def cut(picture: Tensor, box: Box) -> Tensor:
    """The part of [3, H, W] inside the box, a view."""
    top, left, height, width = box
    return picture[:, top : top + height, left : left + width]


def resize(picture: Tensor, size: int | tuple[int, int]) -> Tensor:
    """uint8 [3, H, W] with its shorter side scaled to `size`, or scaled to (height, width); itself if it has that size."""
    from torch.nn.functional import interpolate

    height, width = picture.shape[1:]
    if isinstance(size, int):
        longer = int(size * max(height, width) / min(height, width))
        size = (longer, size) if width <= height else (size, longer)
    if size == (height, width):
        return picture
    return interpolate(picture[None], size, mode="bilinear", antialias=True)[0]


def centre_box(height: int, width: int, side: int) -> Box:
    """The central square; cut at the border of a picture that is smaller. Odd margins round half to even, as torchvision."""
    tall, wide = min(side, height), min(side, width)
    return round((height - tall) / 2), round((width - wide) / 2), tall, wide


def random_crop_box(height: int, width: int, side: int, draws: Sequence[float]) -> Box:
    """A square at a uniformly random place: every one of the (height - side + 1) x (width - side + 1) is as likely."""
    return int(draws[0] * (height - side + 1)), int(draws[1] * (width - side + 1)), side, side


def resized_crop_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], draws: Sequence[float]
) -> Box:
    """The box of Inception-style cropping with the distribution of torchvision's RandomResizedCrop.

    A share of the area uniform in `scale` and a log-uniform aspect in `ratio` are tried up to ten times until the box
    fits, then the largest central box with a legal aspect is taken. `draws`: area, aspect (of the first try; the others
    come from a splitmix64 sequence seeded by these two numbers), top, left.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for area_draw, ratio_draw in _tries(draws[0], draws[1]):
        area = height * width * (scale[0] + area_draw * (scale[1] - scale[0]))
        aspect = math.exp(low + ratio_draw * (high - low))
        wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            return int(draws[2] * (height - tall + 1)), int(draws[3] * (width - wide + 1)), tall, wide
    wide, tall = width, height
    if width / height < ratio[0]:
        tall = round(width / ratio[0])
    elif width / height > ratio[1]:
        wide = round(height * ratio[1])
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def _tries(first: float, second: float, count: int = 10) -> Iterator[tuple[float, float]]:
    yield first, second
    state = (int(first * 2**53) << 11) ^ int(second * 2**53)
    for _ in range(count - 1):
        pair = []
        for _ in range(2):
            state = (state + 0x9E3779B97F4A7C15) & _MASK
            mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
            mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
            pair.append(((mixed ^ (mixed >> 31)) >> 11) / 2**53)
        yield pair[0], pair[1]
