"""Views of contrastive learning against torchvision and Pillow on the same parameters, and against their laws by counting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature_trees import waterbirds, webvision
from small import TINY_CNN, make_task, pixels
from test_augment import SHAPES, SOURCES, from_pil, one, random_images, seeded, to_pil
from torch import Tensor

from bench.data import files
from bench.data._geometry import Geometry, cut, resize, resized_crop_box
from bench.ops import augment, contrast_views
from bench.ops.contrast_views import CONTRAST, JITTER, ContrastView, contrast_view
from bench.ops.randaugment import rand_augment
from bench.training import Training
from bench.trial.images import VIEWS, ViewSettings, make_images
from bench.trial.task import Task

transforms = pytest.importorskip("torchvision.transforms")
from PIL import ImageFilter  # noqa: E402
from torchvision.transforms import functional  # noqa: E402

RANGES = {"brightness": (0.0, 2.0), "contrast": (0.0, 2.0), "saturation": (0.0, 2.0), "hue": (-0.5, 0.5)}


def sweep(low: float, high: float, count: int) -> Tensor:
    """Values over a whole range, both ends included, in mixed order."""
    return torch.linspace(low, high, count)[torch.randperm(count, generator=seeded(2))]


def each(images: Tensor, function: Callable[..., Any], *parameters: Any) -> Tensor:
    """What `function` makes of each Pillow image with its own parameters."""
    rows = zip(images, *parameters, strict=True)
    return torch.stack([from_pil(function(to_pil(image), *values)) for image, *values in rows])


def jittered(name: str, image: Any, factor: float) -> Any:
    return getattr(functional, f"adjust_{name}")(image, float(factor))


def agrees(ours: Tensor, theirs: Tensor, share: float) -> None:
    """Within one grey level everywhere, and different for at most `share` of the values."""
    assert ours.dtype == torch.uint8 and ours.shape == theirs.shape
    difference = (ours.int() - theirs.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() <= share


def alone(name: str, images: Tensor, factor: Tensor) -> Tensor:
    return contrast_views.color_jitter_at(images, {name: factor}, torch.zeros(1, len(images), dtype=torch.int64))


# --- each operation against torchvision and Pillow ---------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", JITTER)
def test_each_colour_operation_agrees_with_torchvision_over_its_range(name: str, shape: tuple[int, int, int], source: str):
    images, factors = SOURCES[source](101, shape), sweep(*RANGES[name], 101)
    before = images.clone()
    agrees(alone(name, images, factors), each(images, lambda x, v: jittered(name, x, v), factors), 1e-4)
    assert torch.equal(images, before)


def test_hue_agrees_for_every_kind_of_colour():
    """All pairs (max - min, max - middle) in all six orders of the channels: 8-bit hue is nowhere one off."""
    span, middle = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    sides = torch.stack((torch.full_like(span, 255), 255 - middle.minimum(span), 255 - span)).to(torch.uint8)
    images = torch.stack([sides[list(order)] for order in permutations(range(3))])
    for turn in (0.0, 1 / 3):
        factors = torch.full((6,), turn)
        agrees(alone("hue", images, factors), each(images, lambda x, v: jittered("hue", x, v), factors), 1e-4)


@pytest.mark.parametrize("whole", [0, 10**9], ids=["by order", "turn by turn"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8)], ids=str)
def test_every_order_of_jitter_agrees_with_torchvision(monkeypatch: pytest.MonkeyPatch, shape: Any, whole: int):
    monkeypatch.setattr(contrast_views, "WHOLE", whole)
    orders = torch.tensor(list(permutations(range(4)))).t().repeat(1, 4)  # 96 images
    images, chosen = random_images(96, shape), torch.rand(96, generator=seeded(5)) < 0.8
    factors = {name: sweep(*((-0.1, 0.1) if name == "hue" else (0.6, 1.4)), 96) for name in JITTER}
    ours = contrast_views.color_jitter_at(images, factors, orders, chosen)

    def theirs(image: Any, number: int) -> Any:
        for position in orders[:, number].tolist() if chosen[number] else ():
            name = list(JITTER)[position]
            image = jittered(name, image, factors[name][number])
        return image

    agrees(ours, each(images, theirs, range(96)), 1e-3)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_grey_scale_is_torchvisions(shape: tuple[int, int, int], source: str):
    images = SOURCES[source](50, shape)
    chosen = torch.arange(50) % 3 > 0
    ours = contrast_views.grayscale_at(images, chosen)
    agrees(ours[chosen], each(images[chosen], lambda x: functional.to_grayscale(x, shape[0])), 0)
    assert torch.equal(ours[~chosen], images[~chosen])


#: two shapes smaller than the blur's reach besides; there are no photographs of these
BLURRED = [(shape, source) for shape in [*SHAPES, (3, 3, 7), (1, 1, 1)] for source in SOURCES
           if shape in SHAPES or source != "natural"]  # fmt: skip


@pytest.mark.parametrize("widest", [2.0, 9.0])
@pytest.mark.parametrize(("shape", "source"), BLURRED, ids=str)
def test_blur_is_pillows(shape: tuple[int, int, int], source: str, widest: float):
    images, sigma = SOURCES[source](101, shape), sweep(0.1, widest, 101)
    ours = contrast_views.gaussian_blur_at(images, sigma)
    agrees(ours, each(images, lambda x, s: x.filter(ImageFilter.GaussianBlur(float(s))), sigma), 0)


def boxes(count: int, height: int, width: int) -> Tensor:
    """Random boxes of any size and place, the whole image and single pixels in the corners included."""
    u = torch.rand(4, count, generator=seeded(7))
    size = torch.tensor([[height], [width]])
    length = (u[:2] * size).long() + 1
    first = (u[2:] * (size - length + 1)).long()
    box = torch.cat((first, length))
    box[:, 0] = torch.tensor([0, 0, height, width])
    box[:, 1], box[:, 2] = torch.tensor([0, 0, 1, 1]), torch.tensor([height - 1, width - 1, 1, 1])
    return box


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_resized_crop_agrees_with_torchvision(shape: tuple[int, int, int], source: str):
    images, box = SOURCES[source](300, shape), boxes(300, *shape[1:])
    mirrored = torch.rand(300, generator=seeded(3)) < 0.5
    ours = contrast_views.resized_crop_at(images, box, mirrored)

    def theirs(image: Any, box: Tensor, flip: Tensor) -> Any:
        image = functional.resized_crop(image, *box.tolist(), list(shape[1:]))
        return functional.hflip(image) if flip else image

    agrees(ours, each(images, theirs, box.t(), mirrored), 0)
    assert torch.equal(contrast_views.resized_crop_at(images, box)[~mirrored], ours[~mirrored])


def test_parts_for_the_cache_do_not_show(monkeypatch: pytest.MonkeyPatch):
    images, view = random_images(70, (3, 16, 16)), CONTRAST["moco"]
    whole = contrast_view(images, view, flip=True, generator=seeded(1))
    monkeypatch.setattr(contrast_views, "CACHED", 4 * 768)
    assert torch.equal(contrast_view(images, view, flip=True, generator=seeded(1)), whole)


# --- hand-worked --------------------------------------------------------------------------------------------------------


def colour(*levels: int) -> Tensor:
    return torch.tensor(levels, dtype=torch.uint8).view(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("name", "factor", "image", "expected"),
    [
        ("brightness", 1.4, one([[0, 101, 200, 255]]), one([[0, 141, 255, 255]])),  # truncated, then cut off
        ("contrast", 1.5, one([[0, 0, 100, 102]]), one([[0, 0, 124, 127]])),  # mean 50.5 counts as 51; 51 + 1.5 * 49
        ("saturation", 1.4, colour(200, 0, 0), colour(255, 0, 0)),  # luma 60: 256 and -24
        ("saturation", 0.5, colour(200, 0, 0), colour(130, 30, 30)),
        ("hue", 1 / 3, colour(255, 0, 0), colour(0, 255, 0)),  # 85 of 255: red becomes green
        ("hue", -1 / 3, colour(255, 0, 0), colour(6, 0, 255)),  # -85 modulo 256 is 171 of 255: 4.02 sixths, just past blue
        ("hue", 0.3, colour(90, 90, 90), colour(90, 90, 90)),  # grey has no hue
        ("hue", 0.3, one([[7, 200]]), one([[7, 200]])),
    ],
)
def test_colour_operations_hand_worked(name: str, factor: float, image: Tensor, expected: Tensor):
    assert torch.equal(alone(name, image, torch.tensor([factor])), expected)


def test_resized_crop_hand_worked():
    image = one([[0, 100, 200, 40]])
    # pixels 1 and 2 scaled to four: centres at 1.25, 1.75, 2.25 and 2.75, the first and the last beyond those of 1 and 2
    box = torch.tensor([0, 1, 1, 2]).view(4, 1)
    assert contrast_views.resized_crop_at(image, box).flatten().tolist() == [100, 125, 175, 200]
    flipped = contrast_views.resized_crop_at(image, box, torch.tensor([True]))
    assert flipped.flatten().tolist() == [200, 175, 125, 100]


def test_blur_hand_worked():
    dot = torch.zeros(1, 1, 1, 9, dtype=torch.uint8)
    dot[..., 4] = 255
    # sigma sqrt(2): boxes of exactly three pixels, applied three times: 1 3 6 7 6 3 1 of 27, rounded after each
    out = contrast_views.gaussian_blur_at(dot, torch.tensor([2**0.5])).flatten().tolist()
    assert out[4] in (65, 66, 67) and out[:4] == out[:4:-1] and out[0] == 0
    assert np.abs(np.array(out[1:5]) - 255 * np.array([1, 3, 6, 7]) / 27).max() < 1.5
    flat = torch.full((1, 3, 5, 5), 77, dtype=torch.uint8)
    assert torch.equal(contrast_views.gaussian_blur_at(flat, torch.tensor([1.3])), flat)


# --- the laws of the draws ----------------------------------------------------------------------------------------------


def uniform(values: Tensor, low: float, high: float) -> None:
    """Kolmogorov-Smirnov distance from the uniform law, at odds of one in a million."""
    ordered = ((values.double() - low) / (high - low)).sort().values
    assert ordered[0] >= 0 and ordered[-1] <= 1
    steps = torch.arange(len(ordered) + 1, dtype=torch.float64) / len(ordered)
    assert max((ordered - steps[:-1]).max(), (steps[1:] - ordered).max()) < 2.7 / len(ordered) ** 0.5


def often(happened: Tensor, p: float) -> None:
    """About a share of `p`, within five standard deviations."""
    assert abs(happened.double().mean() - p) <= 5 * (p * (1 - p) / len(happened)) ** 0.5


def same_law(first: Counter[Any], second: Counter[Any]) -> None:
    """Two-sample chi-square of equally many counts, rare kinds pooled; five standard deviations above its mean at most."""
    kinds = [kind for kind in first | second if first[kind] + second[kind] >= 20]
    pairs = [(first[kind], second[kind]) for kind in kinds]
    pairs.append((first.total() - sum(a for a, _ in pairs), second.total() - sum(b for _, b in pairs)))
    pairs = [(a, b) for a, b in pairs if a + b]
    statistic, freedom = sum((a - b) ** 2 / (a + b) for a, b in pairs), len(pairs) - 1
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5 + 5, (statistic, freedom)


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (6, 6, (0.2, 1.0), (3 / 4, 4 / 3)),
        (7, 5, (0.08, 1.0), (3 / 4, 4 / 3)),
        (4, 14, (0.5, 1.0), (3 / 4, 4 / 3)),  # wide: nothing fits, the widest legal box in the middle
        (14, 3, (0.3, 0.9), (1.0, 4 / 3)),
        (5, 8, (0.4, 1.0), (3 / 4, 4 / 3)),  # both ways
    ],
)
def test_boxes_follow_torchvisions_law(height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]):
    count = 6000
    ours = contrast_views.resized_crop_boxes(count, height, width, scale=scale, ratio=ratio, generator=seeded(1))
    picture = torch.empty(1, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = [transforms.RandomResizedCrop.get_params(picture, list(scale), list(ratio)) for _ in range(count)]
    same_law(Counter(tuple(box) for box in ours.t().tolist()), Counter(theirs))


@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.08, 1.0), (0.1, 0.3)])
def test_shares_and_aspects_of_large_pictures(scale: tuple[float, float]):
    side = 100_000
    _, _, tall, wide = contrast_views.resized_crop_boxes(200_000, side, side, scale=scale, generator=seeded(2)).double()
    share = tall * wide / side**2
    all_fit = share < 0.5  # no aspect is refused, so the laws are those of the draws
    uniform(share[all_fit], scale[0] - 1e-4, min(0.5, scale[1]) + 1e-4)
    uniform((wide / tall)[all_fit].log(), np.log(3 / 4) - 1e-4, np.log(4 / 3) + 1e-4)


def captured(monkeypatch: pytest.MonkeyPatch, name: str) -> list[tuple[Any, ...]]:
    """The arguments, after the images, of every call of a function of the module, which still does its work."""
    calls, function = [], getattr(contrast_views, name)

    def called(images: Tensor, *arguments: Any) -> Tensor:
        calls.append(arguments)
        return function(images, *arguments)

    monkeypatch.setattr(contrast_views, name, called)
    return calls


@pytest.mark.parametrize("view", CONTRAST)
def test_how_often_and_how_strongly(monkeypatch: pytest.MonkeyPatch, view: str):
    count, recipe = 24_000, CONTRAST[view]
    images = torch.tensor([10, 100, 200], dtype=torch.uint8).view(1, 3, 1, 1).expand(count, 3, 1, 1)
    names = ("resized_crop_at", "color_jitter_at", "grayscale_at", "gaussian_blur_at")
    crop, jitter, grey, blur = (captured(monkeypatch, name) for name in names)
    scales, draw = [], contrast_views.resized_crop_boxes

    def drawn(*arguments: Any, **settings: Any) -> Tensor:
        scales.append((settings["scale"], settings["ratio"]))
        return draw(*arguments, **settings)

    monkeypatch.setattr(contrast_views, "resized_crop_boxes", drawn)
    out = contrast_view(images, recipe, flip=True, generator=seeded(3))
    assert scales == [(recipe.scale, (3 / 4, 4 / 3))]
    [(_, mirrored)], [(factors, order, chosen)], [(greyed,)] = crop, jitter, grey
    often(mirrored, 0.5)
    often(chosen, 0.8)
    often(greyed, 0.2)
    for name, factor in factors.items():
        uniform(factor, *((-0.1, 0.1) if name == "hue" else (0.6, 1.4)))
    assert list(factors) == list(JITTER)
    kinds = Counter(tuple(column) for column in order.t().tolist())
    assert set(kinds) == set(permutations(range(4)))
    assert max(abs(kind - 1000) for kind in kinds.values()) < 5 * 31
    often(greyed[chosen], 0.2)  # independent of each other
    often(mirrored[chosen & greyed], 0.5)
    assert len(blur) == (view == "moco")
    if blur:
        sigma, blurred = blur[0]
        uniform(sigma, 0.1, 2.0)
        often(blurred, 0.5)
        often(blurred[chosen], 0.5)
    untouched = ~chosen & ~greyed
    solarised = out[untouched, 2, 0, 0] == 55
    often(solarised, 0.5 if view == "tcl" else 0.0)
    assert ((out[untouched, 2, 0, 0] == 200) | solarised).all() and (out[untouched, 0, 0, 0] == 10).all()


def test_recipes_are_the_papers():
    # SimCLR's (0.8, 0.8, 0.8, 0.2) times 0.5 on CIFAR
    assert CONTRAST["simclr"].jitter == tuple(0.5 * s for s in (0.8, 0.8, 0.8, 0.2)) == CONTRAST["moco"].jitter
    assert CONTRAST["simclr"] == ContrastView((0.2, 1.0), (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, 0.0)
    assert CONTRAST["moco"] == replace(CONTRAST["simclr"], blur_p=0.5, blur_sigma=(0.1, 2.0))
    assert CONTRAST["moit"] == replace(CONTRAST["simclr"], scale=(0.08, 1.0))
    assert CONTRAST["tcl"] == replace(CONTRAST["simclr"], solarise_p=0.5)


@pytest.mark.parametrize("flip", [True, False])
def test_without_a_crop_half_are_mirrored(flip: bool):
    images = random_images(2000, (3, 2, 5))
    nothing = ContrastView(jitter_p=0.0, grey_p=0.0)
    out = contrast_view(images, nothing, flip=flip, crop=False, generator=seeded(1))
    mirrored = (out == images.flip(3)).flatten(1).all(1)
    assert (mirrored | (out == images).flatten(1).all(1)).all()
    often(mirrored, 0.5 if flip else 0.0)


def test_jitter_leaves_out_operations_without_strength(monkeypatch: pytest.MonkeyPatch):
    calls = captured(monkeypatch, "color_jitter_at")
    images = random_images(50, (3, 4, 4))
    contrast_views.color_jitter(images, brightness=1.5, hue=0.5, generator=seeded())
    factors, order, chosen = calls[0]
    assert list(factors) == ["brightness", "hue"] and order.shape == (2, 50) and chosen.all()
    assert factors["brightness"].min() >= 0 and factors["brightness"].max() > 2
    assert torch.equal(contrast_views.color_jitter(images, generator=seeded()), images)
    with pytest.raises(ValueError, match="hue at most"):
        contrast_views.color_jitter(images, hue=0.6, generator=seeded())
    with pytest.raises(ValueError, match="negative"):
        contrast_views.color_jitter(images, contrast=-0.1, generator=seeded())


# --- whole views --------------------------------------------------------------------------------------------------------


def test_a_whole_view_agrees_with_torchvision_per_image(monkeypatch: pytest.MonkeyPatch):
    names = ("resized_crop_at", "color_jitter_at", "grayscale_at", "gaussian_blur_at")
    crop, jitter, grey, blur = (captured(monkeypatch, name) for name in names)
    images = SOURCES["natural"](200, (3, 32, 32))
    ours = contrast_view(images, replace(CONTRAST["moco"]), flip=True, generator=seeded(4))
    [(box, mirrored)], [(factors, order, chosen)], [(greyed,)], [(sigma, blurred)] = crop, jitter, grey, blur

    def theirs(image: Any, number: int) -> Any:
        image = functional.resized_crop(image, *box[:, number].tolist(), [32, 32])
        image = functional.hflip(image) if mirrored[number] else image
        for position in order[:, number].tolist() if chosen[number] else ():
            image = jittered(name := list(JITTER)[position], image, factors[name][number])
        image = functional.to_grayscale(image, 3) if greyed[number] else image
        return image.filter(ImageFilter.GaussianBlur(float(sigma[number]))) if blurred[number] else image

    agrees(ours, each(images, theirs, range(200)), 1e-3)


@pytest.mark.parametrize("view", CONTRAST)
def test_views_repeat_and_leave_their_input_and_the_global_stream_alone(view: str):
    images = random_images(40, (3, 12, 10))
    before, state = images.clone(), torch.get_rng_state()
    first = contrast_view(images, CONTRAST[view], flip=True, generator=seeded(1))
    assert torch.equal(first, contrast_view(images, CONTRAST[view], flip=True, generator=seeded(1)))
    assert not torch.equal(first, contrast_view(images, CONTRAST[view], flip=True, generator=seeded(2)))
    last = images.to(memory_format=torch.channels_last)
    assert torch.equal(first, contrast_view(last, CONTRAST[view], flip=True, generator=seeded(1)))
    assert torch.equal(images, before) and torch.equal(torch.get_rng_state(), state)


def test_a_sample_does_not_see_its_batch():
    images, box = random_images(9, (3, 16, 16)), boxes(9, 16, 16)
    sigma, order = sweep(0.1, 3, 9), torch.rand(4, 9, generator=seeded(1)).argsort(0)
    factors = {name: sweep(*RANGES[name], 9) for name in JITTER}

    def three(part: slice) -> Tensor:
        out = contrast_views.resized_crop_at(images[part], box[:, part])
        own = {name: factor[part] for name, factor in factors.items()}
        return contrast_views.gaussian_blur_at(contrast_views.color_jitter_at(out, own, order[:, part]), sigma[part])

    assert torch.equal(three(slice(9)), torch.cat([three(slice(i, i + 1)) for i in range(9)]))


@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(0, 5), channels=st.sampled_from([1, 3]), height=st.integers(1, 12), width=st.integers(1, 12),
    seed=st.integers(0, 2**31), view=st.sampled_from(list(CONTRAST)), crop=st.booleans(),
)  # fmt: skip
def test_any_shape_gives_the_same_shape(
    batch: int, channels: int, height: int, width: int, seed: int, view: str, crop: bool
):
    images = random_images(batch, (channels, height, width), seed)
    out = contrast_view(images, CONTRAST[view], flip=True, crop=crop, generator=seeded(seed))
    assert out.shape == images.shape and out.dtype == torch.uint8


def test_wrong_input_is_refused():
    floats, two = torch.zeros(2, 3, 8, 8), random_images(2, (2, 8, 8))
    for wrong in (floats, two):
        for call in (
            lambda x: contrast_views.resized_crop_at(x, torch.ones(4, 2)),
            lambda x: contrast_views.color_jitter_at(x, {}, torch.zeros(0, 2, dtype=torch.int64)),
            lambda x: contrast_views.grayscale_at(x, torch.ones(2, dtype=torch.bool)),
            lambda x: contrast_views.gaussian_blur_at(x, torch.ones(2)),
        ):
            with pytest.raises(ValueError, match="uint8"):
                call(wrong)
    images = random_images(2, (3, 8, 8))
    with pytest.raises(ValueError, match="boxes"):
        contrast_views.resized_crop_at(images, torch.ones(4, 3))
    with pytest.raises(ValueError, match="orders"):
        contrast_views.color_jitter_at(images, {"hue": torch.zeros(2)}, torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(KeyError):
        contrast_views.color_jitter_at(images, {"gamma": torch.zeros(2)}, torch.zeros(1, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="sigma"):
        contrast_views.gaussian_blur_at(images, torch.ones(3))
    for scale, ratio in (((0.0, 1.0), (1.0, 2.0)), ((0.5, 0.4), (1.0, 2.0)), ((0.2, 1.0), (2.0, 1.0))):
        with pytest.raises(ValueError, match="rising"):
            contrast_views.resized_crop_boxes(3, 8, 8, scale=scale, ratio=ratio, generator=seeded())


# --- through a task: images in memory -----------------------------------------------------------------------------------

MEAN, STD = 0.5, 0.25


def levels(views: Tensor) -> Tensor:
    """Back to uint8."""
    return ((views * STD + MEAN) * 255).round().to(torch.uint8)


def test_a_method_gets_two_different_views_of_one_batch():
    images = pixels(3000, size=8)
    epochs = []
    for _ in range(2):
        task = make_task(torch.arange(3000) % 3, images=images, training={"batch_size": 512, "augment": "none"})
        task.start_epoch(1)
        epochs.append(list(task.batches(("simclr", "simclr", "plain"))))
    first, second, plain = (torch.cat([batch.views[n] for batch in epochs[0]]) for n in range(3))
    assert first.shape == second.shape == plain.shape == (3000, 1, 8, 8)
    differ = (first != second).flatten(1).any(1)
    assert differ.float().mean() > 0.99 and (first != plain).flatten(1).any(1).float().mean() > 0.99
    for batch, again in zip(*epochs, strict=True):
        assert torch.equal(batch.index, again.index)
        assert all(torch.equal(view, same) for view, same in zip(batch.views, again.views, strict=True))


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("view", CONTRAST)
def test_resident_views_are_those_of_the_ops(view: str, flip: bool):
    images = random_images(20, (3, 8, 8))
    source = make_images(images.numpy(), ViewSettings(2, flip, (MEAN,) * 3, (STD,) * 3), torch.device("cpu"))
    index = torch.tensor([4, 0, 19, 7])
    [[first, second]] = source.blocks([index], (view, view), lambda name: seeded(6))
    generator = seeded(6)
    for made in (first, second):
        assert torch.equal(levels(made), contrast_view(images[index], CONTRAST[view], flip=flip, generator=generator))


def test_the_views_of_scan_and_mtadcs():
    images = random_images(20, (3, 8, 8))
    source = make_images(images.numpy(), ViewSettings(2, True, (MEAN,) * 3, (STD,) * 3), torch.device("cpu"))
    [[scan, mtadcs]] = source.blocks([torch.arange(20)], ("scan", "mtadcs"), lambda name: seeded(6))
    g = seeded(6)
    settings = {"pad": 0, "flip": True, "n_ops": 4, "max_fraction": 0.5, "fill": (128, 128, 128)}
    assert torch.equal(levels(scan), augment.strong(images, **settings, generator=g))
    weak = augment.crop_flip(images, pad=2, flip=True, generator=g)
    assert torch.equal(levels(mtadcs), rand_augment(weak, n_ops=2, generator=g))


# --- and in files --------------------------------------------------------------------------------------------------------


@pytest.fixture
def threads() -> Iterator[Callable[[int | None], None]]:
    yield files.set_threads
    files.set_threads(None)


@pytest.mark.parametrize("train", ["centre", "random-crop", "random-resized-crop"])
def test_random_resized_crops_whatever_the_training_geometry(train: Any):
    picture = random_images(1, (3, 60, 50))[0]
    geometry = Geometry(16, 20, train, centre_first=48, scale=(0.9, 1.0), ratio=(1.0, 1.0))
    other, draws = geometry.resized_crops((0.2, 0.4)), (0.3, 0.6, 0.1, 0.9)
    assert other.resizes_first == geometry.resizes_first == (train != "random-resized-crop")  # packs stay what they are
    base = geometry.resized(picture) if geometry.resizes_first else picture
    box = resized_crop_box(*base.shape[1:], (0.2, 0.4), (3 / 4, 4 / 3), draws)
    assert torch.equal(other.render(picture, draws), resize(cut(base, box), (16, 16)))
    assert torch.equal(other.render(picture), geometry.render(picture))  # evaluation is the same
    if geometry.resizes_first:  # from a pack of resized pictures
        rest = replace(geometry, centre_first=None).resized_crops((0.2, 0.4))
        assert torch.equal(rest.render(base, draws), other.render(picture, draws))


@pytest.mark.parametrize("tree", [waterbirds, webvision])
def test_file_views_do_not_depend_on_the_number_of_threads(tmp_path: Path, threads: Any, tree: Any):
    data = tree(tmp_path)().load(tmp_path)
    pictures, view = data.train.images, "moco"
    settings = ViewSettings(0, True, (MEAN,) * 3, (STD,) * 3, crops=False)
    blocks = [torch.tensor([3, 0, 5]), torch.tensor([1, 1, 2, 4])]

    def streams(name: str) -> torch.Generator:
        return seeded({"geometry": 1, "augment": 2}[name])

    made = []
    for count in (1, 4):
        threads(count)
        source = make_images(pictures, settings, torch.device("cpu"))
        made.append([torch.stack(views) for views in source.blocks(blocks, (view, "weak", view), streams)])
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))
    geometry, augmented = streams("geometry"), streams("augment")
    for index, (first, weak, second) in zip(blocks, made[0], strict=True):
        draws = [torch.rand(len(index), 4, dtype=torch.float64, generator=geometry).numpy() for _ in range(2)]
        raw = pictures.fetch_views(index.numpy(), (draws[0], None, draws[1]), (CONTRAST[view].scale, None, CONTRAST[view].scale))
        for slot, position in enumerate(index.tolist()):  # what the threads cut
            picture = files.decode(Path(pictures.path(position)).read_bytes())
            cuts = pictures.geometry.resized_crops(CONTRAST[view].scale).render(picture, draws[0][slot].tolist())
            assert torch.equal(torch.from_numpy(raw[0][slot]), cuts)
        for got, array in ((first, raw[0]), (second, raw[2])):
            expected = contrast_view(torch.from_numpy(array), CONTRAST[view], flip=True, crop=False, generator=augmented)
            assert torch.equal(levels(got), expected)
        assert torch.equal(levels(weak), torch.from_numpy(raw[1]))  # without augmentation: the plain image
        assert not torch.equal(first, second)


def test_two_views_of_one_batch_of_files_through_a_task(tmp_path: Path, threads: Any):
    data = waterbirds(tmp_path)().load(tmp_path)
    settings = ViewSettings(0, True, (MEAN,) * 3, (STD,) * 3)

    def epoch(count: int) -> list[Any]:
        threads(count)
        task = Task(
            images=make_images(data.train.images, settings, torch.device("cpu")), labels=torch.as_tensor(data.train.labels),
            num_classes=2, training=Training(epochs=2, batch_size=3), model=TINY_CNN,
            axes={"dataset": {"name": "files"}, "seed": 0}, method_name="m", needs=frozenset(), granted={},
        )  # fmt: skip
        task.start_epoch(0)
        return list(task.batches(("simclr", "simclr")))

    one, other = epoch(1), epoch(3)
    assert sorted(int(i) for batch in one for i in batch.index) == list(range(len(data.train)))
    for batch, again in zip(one, other, strict=True):
        assert not torch.equal(*batch.views)
        assert torch.equal(batch.index, again.index)
        assert all(torch.equal(view, same) for view, same in zip(batch.views, again.views, strict=True))


def test_the_cutout_view_is_the_strong_one_without_its_operations():
    images = random_images(40, (3, 16, 16))
    settings = ViewSettings(pad=2, flip=True, mean=(0.5, 0.4, 0.3), std=(0.25,) * 3)
    source = make_images(images.numpy(), settings, torch.device("cpu"))
    ((view,),) = source.blocks([torch.arange(40)], ("cutout",), lambda name: seeded(3))
    generator = seeded(3)
    cut = augment.cutout(images, fill=settings.fill, generator=generator)
    assert torch.equal(view, source.normalise(augment.crop_flip(cut, pad=2, flip=True, generator=generator)))
    assert 0.01 < float((cut != images).float().mean()) < 0.25  # a square of up to half the side


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_can_be_asked_for(view: str):
    task = make_task(torch.arange(10) % 3)
    task.start_epoch(0)
    assert [batch.images.shape for batch in task.batches((view,), batch_size=5)] == [(5, 1, 6, 6)] * 2


# --- the same on a GPU ---------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("view", CONTRAST)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)], ids=str)
def test_views_on_a_gpu_are_the_views_on_the_cpu_and_never_wait(shape: tuple[int, int, int], view: str):
    images, recipe = random_images(600, shape), CONTRAST[view]
    there = images.cuda()
    contrast_view(there, recipe, flip=True, generator=seeded())  # tables
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = contrast_view(there, recipe, flip=True, generator=seeded(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    difference = (made.cpu().int() - contrast_view(images, recipe, flip=True, generator=seeded(1)).int()).abs()
    assert (difference > 0).float().mean() < 1e-3
    own = torch.Generator("cuda").manual_seed(0)
    assert contrast_view(there, recipe, flip=True, generator=own).shape == there.shape
