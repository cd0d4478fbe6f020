"""The embedded counterparts of CIFAR-100 and WebVision-50."""

from __future__ import annotations

import numpy as np

from bench.data.digit_twins import TintedDigits, WebDigits, _hues
from bench.data.digits import Digits


def test_tinted_digits_show_every_digit_in_its_tint() -> None:
    data, plain = TintedDigits().load(None), Digits().load(None)
    assert (data.train.labels // 10 == plain.train.labels).all() and len(data.test) == 2 * len(plain.test) == 710
    counts = np.bincount(data.train.labels, minlength=100)
    assert counts.sum() == 1442 and counts.min() >= 13 and counts.max() <= 16
    assert (data.test.labels[:355] // 10 == data.test.labels[355:] // 10).all()
    assert ((data.test.labels[:355] - data.test.labels[355:]) % 10 == 5).all()
    assert data.confusions[19] == 10 and data.confusions[10] == 11


def test_a_tint_is_a_hue_within_a_third_of_its_neighbours_distance() -> None:
    data = TintedDigits().load(None)
    pixels = data.train.images.astype(float)
    colours = pixels.reshape(len(pixels), 3, -1).max(axis=2) / 255.0
    span = colours.max(axis=1) - colours.min(axis=1)
    red, green, blue = colours.T
    sector = np.where(red == colours.max(axis=1), (green - blue) / span % 6,
                      np.where(green == colours.max(axis=1), 2 + (blue - red) / span, 4 + (red - green) / span))  # fmt: skip
    distance = (sector / 6 * 10 - data.train.labels % 10 + 5) % 10 - 5
    assert np.abs(distance).max() < 0.4  # a third, and rounding to bytes


def test_hues_run_from_red_over_green_and_blue() -> None:
    assert np.allclose(_hues(np.array([0.0, 1 / 3, 2 / 3, 1 / 6])), [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])


def test_web_digits_confuse_a_fifth_of_the_training_images_and_no_test_image() -> None:
    data, plain = WebDigits().load(None), Digits().load(None)
    wrong = data.train.labels != plain.train.labels
    assert wrong.sum() == round(0.2 * 1442) and (data.train.images == plain.train.images).all()
    assert (data.test.labels == plain.test.labels).all() and data.test2 is not None
    assert (data.test2.labels == data.test.labels).all() and (data.test2.images != data.test.images).any()
    assert not data.true_labels_known and data.top_k == (1, 5)
    # instance-dependent: wrong labels are concentrated on some classes, and most common between digits that look alike
    share = [wrong[plain.train.labels == digit].mean() for digit in range(10)]
    assert max(share) > 2 * min(share)
