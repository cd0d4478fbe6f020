"""Batched augmentation against Pillow's own results on the same parameters, and against hand-worked numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.ops import augment
from bench.ops.randaugment import OPS, apply_op, rand_augment

Image = pytest.importorskip("PIL.Image")
functional = pytest.importorskip("torchvision.transforms.functional")
from PIL import ImageDraw, ImageEnhance, ImageOps  # noqa: E402

SHAPES = [(1, 8, 8), (3, 16, 16), (3, 32, 32), (1, 20, 20), (3, 27, 19)]
GEOMETRIC = ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"]
BLENDS = ["Brightness", "Color", "Contrast", "Sharpness"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(batch: int, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (batch, *shape), generator=seeded(seed), dtype=torch.uint8)


def narrow_images(batch: int, shape: tuple[int, int, int]) -> Tensor:
    """Random images whose channels use a few neighbouring grey levels, at times one: hard for the histogram ops."""
    g = seeded(1)
    low = torch.randint(0, 200, (batch, shape[0], 1, 1), generator=g)
    width = torch.randint(1, 57, (batch, shape[0], 1, 1), generator=g)
    return (low + torch.rand(batch, *shape, generator=g) * width).to(torch.uint8)


@cache
def natural_images(batch: int, shape: tuple[int, int, int]) -> Tensor:
    """Cut-outs of scikit-learn's two photographs at several scales, or its digits for 1x8x8."""
    datasets = pytest.importorskip("sklearn.datasets")
    channels, height, width = shape
    if shape == (1, 8, 8):
        return torch.from_numpy(datasets.load_digits().images[:batch] * 15.9375).to(torch.uint8)[:, None]
    photos = [torch.from_numpy(photo.copy()).permute(2, 0, 1) for photo in datasets.load_sample_images().images]
    crops = []
    for i in range(batch):
        step, top, left = 1 + i % 6, (37 * i) % 200, (53 * i) % 400
        crops.append(photos[i % 2][:channels, top::step, left::step][:, :height, :width])
    return torch.stack(crops)


SOURCES: dict[str, Callable[[int, tuple[int, int, int]], Tensor]] = {
    "random": random_images,
    "narrow": narrow_images,
    "natural": natural_images,
}


def to_pil(image: Tensor):
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))


def from_pil(image) -> Tensor:
    array = torch.from_numpy(np.array(image))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1)


def pil_op(name: str, image, v: float):
    """Pillow's result for one image, with the arguments that the usual PyTorch code of FixMatch passes."""
    width, height = image.size

    def affine(*matrix: float):
        return image.transform(image.size, Image.Transform.AFFINE, matrix)

    match name:
        case "Identity":
            return image
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "Posterize":
            return ImageOps.posterize(image, int(v))
        case "Solarize":
            return ImageOps.solarize(image, v)  # type: ignore[arg-type]
        case "Rotate":
            return image.rotate(v)
        case "ShearX":
            return affine(1, v, 0, 0, 1, 0)
        case "ShearY":
            return affine(1, 0, 0, v, 1, 0)
        case "TranslateX":
            return affine(1, 0, v * width, 0, 1, 0)
        case "TranslateY":
            return affine(1, 0, 0, 0, 1, v * height)
    return getattr(ImageEnhance, name)(image).enhance(v)


def sweep(name: str, batch: int) -> Tensor:
    """Strengths over the whole range of an operation, both ends and the middle included, in mixed order."""
    low, high = OPS[name].low, OPS[name].high
    return torch.linspace(low, high, batch)[torch.randperm(batch, generator=seeded(2))]


# --- each operation alone ---------------------------------------------------------------------------------------------


def test_table_has_the_operations_and_ranges_of_fixmatch():
    ranges = {name: (op.low, op.high) for name, op in OPS.items()}
    assert ranges == {
        **dict.fromkeys(["AutoContrast", "Equalize", "Identity"], (0, 1)),
        **dict.fromkeys(BLENDS, (0.05, 0.95)),
        "Posterize": (4, 8),
        "Rotate": (-30, 30),
        **dict.fromkeys(["ShearX", "ShearY", "TranslateX", "TranslateY"], (-0.3, 0.3)),
        "Solarize": (0, 256),
    }


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", OPS)
def test_each_operation_agrees_with_pillow_over_its_range(name: str, shape: tuple[int, int, int], source: str):
    images, strengths = SOURCES[source](101, shape), sweep(name, 101)
    before = images.clone()
    ours = apply_op(name, images, strengths)
    theirs = torch.stack([from_pil(pil_op(name, to_pil(x), float(v))) for x, v in zip(images, strengths, strict=True)])
    assert ours.dtype == torch.uint8 and ours.shape == images.shape
    difference = (ours.int() - theirs.int()).abs()
    # only the float32 blends leave room for a compiler that fuses multiply and add
    assert difference.max() <= (1 if name in BLENDS else 0), f"{(difference > 0).float().mean():.2%} of pixels differ"
    assert (difference > 0).float().mean() < 0.01
    assert torch.equal(images, before)


def torchvision_op(name: str, image, v: float):
    """torchvision's result for one Pillow image, in its own units: degrees of shear, whole pixels to the right or down."""
    width, height = image.size
    degrees = math.degrees(math.atan(v))

    def affine(translate: tuple[int, int] = (0, 0), shear: tuple[float, float] = (0.0, 0.0)):
        return functional.affine(image, 0.0, list(translate), 1.0, list(shear), center=[0, 0])

    match name:
        case "Identity":
            return image
        case "AutoContrast" | "Equalize":
            return getattr(functional, name.lower())(image)
        case "Posterize":
            return functional.posterize(image, int(v))
        case "Solarize":
            return functional.solarize(image, v)
        case "Rotate":
            return functional.rotate(image, v)
        case "ShearX":
            return affine(shear=(degrees, 0.0))
        case "ShearY":
            return affine(shear=(0.0, degrees))
        case "TranslateX":
            return affine(translate=(-round(v * width), 0))
        case "TranslateY":
            return affine(translate=(0, -round(v * height)))
        case "Color":
            return functional.adjust_saturation(image, v)
    return getattr(functional, f"adjust_{name.lower()}")(image, v)


@pytest.mark.parametrize("source", ["random", "natural"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 20, 20), (3, 27, 19)], ids=str)
@pytest.mark.parametrize("name", OPS)
def test_each_operation_agrees_with_torchvision_over_its_range(name: str, shape: tuple[int, int, int], source: str):
    images, strengths = SOURCES[source](61, shape), sweep(name, 61).double()
    if name.startswith("Translate"):  # torchvision's are whole pixels
        side = shape[2 if name == "TranslateX" else 1]
        strengths = (strengths * side).round() / side
    ours = apply_op(name, images, strengths)
    pairs = zip(images, strengths, strict=True)
    theirs = torch.stack([from_pil(torchvision_op(name, to_pil(x), float(v))) for x, v in pairs])
    assert (ours.int() - theirs.int()).abs().max() <= (1 if name in BLENDS else 0)


@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometry_agrees_with_pillow_pixel_for_pixel_at_random_strengths(name: str):
    images = random_images(600, (1, 33, 24))
    op = OPS[name]
    strengths = op.low + (op.high - op.low) * torch.rand(600, generator=seeded(3), dtype=torch.float64)
    theirs = torch.stack([from_pil(pil_op(name, to_pil(x), float(v))) for x, v in zip(images, strengths, strict=True)])
    assert torch.equal(apply_op(name, images, strengths), theirs)


@pytest.mark.parametrize("name", OPS)
def test_a_sample_does_not_see_its_batch(name: str):
    images, strengths = random_images(9, (3, 16, 16)), sweep(name, 9)
    alone = torch.cat([apply_op(name, images[i : i + 1], strengths[i : i + 1]) for i in range(9)])
    assert torch.equal(apply_op(name, images, strengths), alone)


@pytest.mark.parametrize("name", OPS)
def test_channels_last_images_give_the_same(name: str):
    images, strengths = random_images(5, (3, 18, 17)), sweep(name, 5)
    shuffled = images.to(memory_format=torch.channels_last)
    assert torch.equal(apply_op(name, shuffled, strengths), apply_op(name, images, strengths))


def one(values: list[list[int]]) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8)[None, None]


@pytest.mark.parametrize(
    ("name", "strength", "image", "expected"),
    [
        ("Brightness", 0.5, [[0, 1, 101, 255]], [[0, 0, 50, 127]]),  # truncated, not rounded
        ("Color", 0.05, [[0, 1, 101, 255]], [[0, 1, 101, 255]]),  # grey already
        ("Contrast", 0.5, [[0, 0, 100, 102]], [[25, 25, 75, 76]]),  # mean 50.5 counts as 51
        ("AutoContrast", 0.0, [[50, 60, 75, 101]], [[0, 50, 125, 255]]),
        ("AutoContrast", 0.0, [[50, 60, 75, 100]], [[0, 51, 127, 254]]),  # Pillow's float: 255 - 2^-46
        ("AutoContrast", 0.0, [[7, 7, 7, 7]], [[7, 7, 7, 7]]),
        ("Posterize", 4.9, [[15, 16, 200, 255]], [[0, 16, 192, 240]]),
        ("Posterize", 8.0, [[15, 16, 200, 255]], [[15, 16, 200, 255]]),
        ("Solarize", 128.0, [[0, 127, 128, 255]], [[0, 127, 127, 0]]),
        ("Solarize", 127.5, [[0, 127, 128, 255]], [[0, 127, 127, 0]]),
        ("Solarize", 0.0, [[0, 1, 128, 255]], [[255, 254, 127, 0]]),
        ("Solarize", 256.0, [[0, 127, 128, 255]], [[0, 127, 128, 255]]),
        ("TranslateX", 0.25, [[1, 2, 3, 4]], [[2, 3, 4, 0]]),
        ("TranslateX", -0.25, [[1, 2, 3, 4]], [[0, 1, 2, 3]]),
        ("TranslateX", 0.12, [[1, 2, 3, 4]], [[1, 2, 3, 4]]),  # 0.48 pixels
        ("TranslateY", 0.25, [[1], [2], [3], [4]], [[2], [3], [4], [0]]),
        ("Sharpness", 0.0, [[0, 0, 0], [0, 130, 0], [0, 0, 26]], [[0, 0, 0], [0, 52, 0], [0, 0, 26]]),  # 676 / 13
    ],
)
def test_hand_worked(name: str, strength: float, image: list[list[int]], expected: list[list[int]]):
    assert torch.equal(apply_op(name, one(image), torch.tensor([strength])), one(expected))


def test_colour_moves_towards_luma():
    red = torch.tensor([200, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    # luma of (200, 0, 0) is 200 * 0.299 = 59.8, rounded to 60; half-way: 130, 30, 30
    assert apply_op("Color", red, torch.tensor([0.5])).flatten().tolist() == [130, 30, 30]


def test_equalize_spreads_a_two_level_image():
    image = torch.full((1, 1, 16, 32), 10, dtype=torch.uint8)
    image[..., 16:] = 20
    # 256 pixels of each level: step 256 // 255 = 1, so level 20 maps to 0 + 256, cut to 255
    out = apply_op("Equalize", image, torch.zeros(1))
    assert out[..., :16].unique().tolist() == [0] and out[..., 16:].unique().tolist() == [255]


def test_rotation_is_counter_clockwise():
    image = torch.zeros(1, 1, 21, 21, dtype=torch.uint8)
    image[0, 0, 10, 18] = 255  # right of the centre; a wide enough dot to survive nearest neighbour
    image[0, 0, 9:12, 17:20] = 255
    rows = apply_op("Rotate", image, torch.tensor([30.0]))[0, 0].nonzero()[:, 0]
    assert rows.max() < 10  # above it afterwards


def test_operations_refuse_wrong_input():
    with pytest.raises(ValueError, match="uint8"):
        apply_op("Rotate", torch.zeros(2, 3, 8, 8), torch.zeros(2))
    with pytest.raises(ValueError, match="uint8"):
        apply_op("Rotate", random_images(2, (2, 8, 8)), torch.zeros(2))
    with pytest.raises(ValueError, match="one magnitude"):
        apply_op("Rotate", random_images(2, (3, 8, 8)), torch.zeros(3))
    with pytest.raises(ValueError, match="2\\^30"):  # positions are int32; expand, so that no memory is taken
        apply_op("Rotate", torch.empty(1, dtype=torch.uint8).expand(1024, 1, 1024, 1024), torch.zeros(1024))
    with pytest.raises(KeyError):
        apply_op("Invert", random_images(2, (3, 8, 8)), torch.zeros(2))


# --- RandAugment ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 24, 20)], ids=str)
@pytest.mark.parametrize("n_ops", [1, 2, 3])
def test_rand_augment_is_its_operations_one_after_the_other(shape: tuple[int, int, int], n_ops: int):
    images = random_images(200, shape)
    out = rand_augment(images, n_ops=n_ops, generator=seeded(5))
    g = seeded(5)
    ops = torch.randint(len(OPS), (n_ops, 200), generator=g)
    uniform = torch.rand((n_ops, 200), generator=g)
    names = list(OPS)
    assert {names[i] for i in ops.flatten().tolist()} == set(names)
    for i in range(200):
        expected = images[i : i + 1]
        for turn in range(n_ops):
            op = OPS[names[int(ops[turn, i])]]
            strength = torch.lerp(torch.tensor(op.low), torch.tensor(op.high), uniform[turn, i])
            expected = apply_op(names[int(ops[turn, i])], expected, strength[None])
        assert torch.equal(out[i : i + 1], expected), [names[int(o)] for o in ops[:, i]]


def test_rand_augment_repeats_leaves_its_input_and_the_global_stream_alone():
    images = random_images(64, (3, 32, 32))
    before, state = images.clone(), torch.get_rng_state()
    first = rand_augment(images, generator=seeded(1))
    assert torch.equal(first, rand_augment(images, generator=seeded(1)))
    assert not torch.equal(first, rand_augment(images, generator=seeded(2)))
    assert torch.equal(images, before) and torch.equal(torch.get_rng_state(), state)


def test_rand_augment_fills_with_the_given_colour():
    images = torch.full((400, 3, 16, 16), 200, dtype=torch.uint8)
    out = rand_augment(images, n_ops=1, generator=seeded(), fill=(7, 8, 9))
    filled = (out == torch.tensor([7, 8, 9], dtype=torch.uint8).view(1, 3, 1, 1)).all(1).flatten(1).any(1)
    ops = torch.randint(len(OPS), (1, 400), generator=seeded())[0]
    assert filled.any() and (ops[filled] < len(GEOMETRIC)).all()
    with pytest.raises(ValueError, match="grey levels"):
        rand_augment(images, generator=seeded(), fill=(1, 2))
    with pytest.raises(ValueError, match="n_ops"):
        rand_augment(images, generator=seeded(), n_ops=0)


@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(0, 5),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
def test_any_shape_gives_the_same_shape(batch: int, channels: int, height: int, width: int, seed: int):
    images = random_images(batch, (channels, height, width), seed)
    for view in (augment.weak(images, pad=2, generator=seeded(seed)), augment.strong(images, generator=seeded(seed))):
        assert view.shape == images.shape and view.dtype == torch.uint8


# --- crop and flip ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 9)], ids=str)
def test_crop_flip_agrees_with_pillow_at_every_offset(shape: tuple[int, int, int]):
    pad, (_, height, width) = 2, shape
    top, left, mirrored = torch.meshgrid(torch.arange(5), torch.arange(5), torch.arange(2), indexing="ij")
    top, left, mirrored = top.flatten(), left.flatten(), mirrored.flatten() == 1
    images = random_images(50, shape)
    ours = augment.crop_flip_at(images, top, left, mirrored, pad=pad)
    for i in range(50):
        x, y = int(left[i]), int(top[i])
        theirs = ImageOps.expand(to_pil(images[i]), pad).crop((x, y, x + width, y + height))
        theirs = ImageOps.mirror(theirs) if mirrored[i] else theirs
        assert torch.equal(ours[i], from_pil(theirs)), (y, x, bool(mirrored[i]))
    unmirrored = augment.crop_flip_at(images, top, left, None, pad=pad)
    assert torch.equal(unmirrored[~mirrored], ours[~mirrored])


def test_crop_flip_agrees_with_torchvision_at_every_offset():
    pad, (channels, height, width) = 4, (3, 32, 32)
    top, left, mirrored = torch.meshgrid(torch.arange(9), torch.arange(9), torch.arange(2), indexing="ij")
    top, left, mirrored = top.flatten(), left.flatten(), mirrored.flatten() == 1
    images = random_images(162, (channels, height, width))
    ours = augment.crop_flip_at(images, top, left, mirrored, pad=pad)
    for i in range(162):
        theirs = functional.crop(functional.pad(to_pil(images[i]), [pad]), int(top[i]), int(left[i]), height, width)
        theirs = functional.hflip(theirs) if mirrored[i] else theirs
        assert torch.equal(ours[i], from_pil(theirs)), (top[i], left[i], bool(mirrored[i]))


def test_crop_flip_draws_every_offset_and_direction_equally_often():
    n, pad = 20_000, 1
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    out = augment.crop_flip(image.expand(n, 1, 3, 3), pad=pad, flip=True, generator=seeded())
    # the nine crops of 1..9 and their mirror images all differ; each has probability 1/18: 1111 +- 32
    kinds, counts = out.flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 18
    assert (counts - n / 18).abs().max() < 5 * 32.4
    unflipped = augment.crop_flip(image.expand(n, 1, 3, 3), pad=pad, flip=False, generator=seeded())
    assert len(unflipped.flatten(1).unique(dim=0)) == 9


def test_crop_flip_without_padding_is_the_image_or_its_mirror_image():
    images = random_images(40, (3, 8, 8))
    assert torch.equal(augment.crop_flip(images, pad=0, flip=False, generator=seeded()), images)
    out = augment.crop_flip(images, pad=0, flip=True, generator=seeded())
    same, mirror = (out == images).flatten(1).all(1), (out == images.flip(3)).flatten(1).all(1)
    assert (same ^ mirror).all() and same.any() and mirror.any()
    with pytest.raises(ValueError, match="pad"):
        augment.crop_flip_at(images, torch.zeros(40).long(), torch.zeros(40).long(), None, pad=-1)


# --- cutout -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.5, 1.0])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 10, 21)], ids=str)
def test_cutout_paints_the_rectangle_that_pillow_draws_and_torchvision_erases(shape: tuple[int, int, int], fraction: float):
    channels, height, width = shape
    images = random_images(300, shape)
    x, y, side = torch.rand(3, 300, generator=seeded(4), dtype=torch.float64)
    x, y, side = x * width, y * height, side * fraction * width
    fill = augment.default_fill(channels)
    ours = augment.cutout_at(images, torch.stack((x, y)), side)
    for i in range(300):
        left, top = int(max(0, x[i] - side[i] / 2)), int(max(0, y[i] - side[i] / 2))
        box = (left, top, min(width, left + float(side[i])), min(height, top + float(side[i])))
        picture = to_pil(images[i])
        ImageDraw.Draw(picture).rectangle(box, fill if channels == 3 else fill[0])
        assert torch.equal(ours[i], from_pil(picture)), box
        tall, wide = int(box[3]) - top + 1, int(box[2]) - left + 1
        colour = torch.tensor(fill, dtype=torch.uint8).view(-1, 1, 1)
        assert torch.equal(ours[i], functional.erase(images[i], top, left, tall, wide, colour)), box


def test_cutout_hand_worked():
    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    centre = torch.tensor([[2.5, 0.2, 1.0], [1.5, 3.9, 1.0]])  # x, y
    out = augment.cutout_at(images, centre, torch.tensor([1.0, 1.9, 0.0]), fill=9)
    expected = torch.zeros(3, 4, 4, dtype=torch.uint8)
    expected[0, 1:3, 2:4] = 9  # first corner (2, 1), last pixel one further
    expected[1, 2:4, 0:2] = 9  # from (0, 2.95 -> 2), cut at the lower border; a side of 0 paints nothing
    assert torch.equal(out[:, 0], expected)


def test_cutout_squares_stay_within_the_largest_side_and_vary():
    images = torch.zeros(2000, 3, 32, 32, dtype=torch.uint8)
    out = augment.cutout(images, generator=seeded())
    painted = (out == torch.tensor(augment.FILL, dtype=torch.uint8).view(1, 3, 1, 1)).all(1)
    assert torch.equal(painted, (out != 0).any(1))
    across, down = painted.any(1).sum(1), painted.any(2).sum(1)
    assert across.max() == 16 and down.max() == 16 and across.min() == 1  # sides up to, but never quite, 16 pixels
    assert torch.equal(painted.flatten(1).sum(1), across * down)  # one full rectangle each
    assert (painted.float().mean(0) > 0.01).all()  # everywhere in the image
    assert torch.equal(augment.cutout(images, max_fraction=0.0, generator=seeded()), images)
    with pytest.raises(ValueError, match="max_fraction"):
        augment.cutout(images, max_fraction=1.5, generator=seeded())


# --- views and normalisation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)], ids=str)
def test_strong_view_is_rand_augment_then_cutout_then_the_weak_view(shape: tuple[int, int, int]):
    images, g = random_images(30, shape), seeded(8)
    expected = rand_augment(images, n_ops=3, generator=g)
    expected = augment.cutout(expected, max_fraction=0.5, generator=g)
    expected = augment.crop_flip(expected, pad=4, flip=True, generator=g)
    assert torch.equal(augment.strong(images, generator=seeded(8)), expected)
    assert torch.equal(
        augment.weak(images, generator=seeded(9)), augment.crop_flip(images, pad=4, flip=True, generator=seeded(9))
    )


def test_normalise_against_the_definition():
    images = random_images(6, (3, 5, 4))
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    mean, std = mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)
    exact = (images.double() / 255 - mean.double()) / std.double()
    out = augment.normalise(images, mean, std)
    assert out.dtype == torch.float32 and (out - exact).abs().max() < 1e-6
    half = augment.normalise(images, mean, std, torch.bfloat16)
    assert half.dtype == torch.bfloat16 and torch.equal(half, out.to(torch.bfloat16))


# --- the same on a GPU ------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)], ids=str)
def test_views_on_a_gpu_are_the_views_on_the_cpu_and_never_wait(shape: tuple[int, int, int]):
    images = random_images(256, shape)
    there = images.cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        strong = augment.strong(there, generator=seeded(1))
        weak = augment.weak(there, generator=seeded(2))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(weak.cpu(), augment.weak(images, generator=seeded(2)))
    difference = (strong.cpu().int() - augment.strong(images, generator=seeded(1)).int()).abs()
    assert (difference > 0).float().mean() < 1e-3
    own = torch.Generator("cuda").manual_seed(0)
    assert augment.strong(there, generator=own).shape == there.shape
