"""bench.data: the embedded data sets, their splits, groups and fingerprints."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data import Loaded, Split, dataset_class, datasets, load
from bench.data.digits import Digits, SpuriousDigits
from bench.fields import FieldError

#: fingerprints of the defaults. Records quote them: where one has to change, the data set's `revision` changes with it.
GOLDEN = {
    "digits": "d3b3f2912744deb54fa212a124bb9ea26f90f908940efa9d87acfb25b7fe3ae2",
    "spurious-digits": "4de1bc71322147ece8960b2d9f0f2d6cc3ac223e58710109dcc76c437d002b54",
    "tinted-digits": "ffe599b0307655f22700b9498cba8fff2eae73d7992e191fb0b67a12e046b30a",
    "web-digits": "8e2d732a078415ffe3058969912fb7bf9c82f245d7d72246104165dc790b3469",
}
LOOPS = (0, 6, 8, 9)


@pytest.fixture(scope="module")
def source() -> tuple[NDArray, NDArray]:
    """scikit-learn's images [1797, 8, 8] in 0..16 and digits [1797]; no two images are the same."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    assert len(np.unique(images, axis=0)) == len(images) == 1797
    return images.reshape(-1, 8, 8), digits


@pytest.fixture(scope="module")
def digits() -> Loaded:
    return Digits().load(None)


@pytest.fixture(scope="module")
def spurious() -> Loaded:
    return SpuriousDigits().load(None)


def splits(data: Loaded) -> list[Split]:
    return [split for split in (data.train, data.val, data.test) if split is not None]


embedded = pytest.mark.parametrize("name", [name for name, cls in datasets().items() if cls.embedded])


# --- all embedded data sets


@embedded
def test_arrays_keep_the_contract(name: str) -> None:
    cls, data = dataset_class(name), dataset_class(name)().load(None)
    assert data.num_classes == cls.num_classes == len(data.class_names)
    assert bool(data.confusions) == cls.confusable and (data.group_names is not None) == cls.grouped
    for source, target in data.confusions.items():
        assert source != target and {source, target} <= set(range(data.num_classes))
    for split in splits(data):
        assert split.images.dtype == np.uint8 and split.images.ndim == 4 and split.images.shape[1] in (1, 3)
        assert split.images.shape == (len(split), *data.train.images.shape[1:])
        assert split.images.min() == 0 and split.images.max() == 255  # the whole range is in use
        assert split.labels.dtype == np.int64 and split.labels.shape == (len(split),)
        assert set(split.labels) == set(range(data.num_classes))
        assert (split.groups is not None) == cls.grouped
        if split.groups is not None:
            assert split.groups.dtype == np.int64 and set(split.groups) == set(range(len(data.group_names or ())))


@embedded
def test_no_image_is_in_two_splits(name: str) -> None:
    data = dataset_class(name)().load(None)
    images = [image.tobytes() for split in splits(data) for image in split.images]
    assert len(set(images)) == len(images)


@embedded
def test_fingerprints_are_golden(name: str) -> None:
    assert dataset_class(name)().load(None).fingerprint == GOLDEN[name]


def test_other_processes_load_the_same() -> None:
    code = (
        "from bench.data import load; print(load({'name': 'digits'}).fingerprint, "
        "load({'name': 'spurious-digits', 'contrast': 0.3, 'copies': 1}).fingerprint)"
    )
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    here = SpuriousDigits(contrast=0.3, copies=1).load(None).fingerprint
    assert done.stdout.split() == [GOLDEN["digits"], here]


def test_global_generators_are_neither_read_nor_moved() -> None:
    found = set()
    for seed in (0, 1):
        np.random.seed(seed)
        before = np.random.get_state()[1].tolist(), np.random.get_state()[2]
        found.add(SpuriousDigits().load(None).fingerprint)
        assert before == (np.random.get_state()[1].tolist(), np.random.get_state()[2])
    assert len(found) == 1


# --- digits


def test_digits_is_every_fifth_image_of_each_class(digits: Loaded, source: tuple[NDArray, NDArray]) -> None:
    images, labels = source
    assert (len(digits.train), len(digits.test), digits.val) == (1442, 355, None)
    assert digits.train.images.shape == (1442, 1, 8, 8)
    test: list[int] = []
    for digit in range(10):
        test += np.flatnonzero(labels == digit)[4::5].tolist()
    for split, chosen in ((digits.test, sorted(test)), (digits.train, sorted(set(range(1797)) - set(test)))):
        assert (split.labels == labels[chosen]).all()
        assert (split.images[:, 0] == np.round(images[chosen] * 255 / 16)).all()


def test_digits_is_stratified(digits: Loaded) -> None:
    counts = np.stack([np.bincount(split.labels, minlength=10) for split in (digits.train, digits.test)])
    assert (counts[1] == counts.sum(axis=0) // 5).all()


def test_digits_look_alikes(digits: Loaded) -> None:
    assert digits.confusions == {7: 1, 2: 7, 3: 8, 5: 6, 6: 5} and not digits.flip
    assert digits.class_names[3] == "3"


# --- spurious-digits


def waves_run_across_rows(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Does the frame of an image change faster down its sides than along its top and bottom? bool [N]."""
    pixels = images.astype(np.float64).mean(axis=1)
    down = np.abs(np.diff(pixels[:, :, [0, -1]], axis=1)).sum(axis=(1, 2))
    along = np.abs(np.diff(pixels[:, [0, -1], :], axis=2)).sum(axis=(1, 2))
    return down > along


def test_spurious_sizes(spurious: Loaded) -> None:
    assert spurious.val is not None
    assert [len(split) for split in splits(spurious)] == [2170, 714, 710]
    assert spurious.train.images.shape[1:] == (3, 16, 16)
    assert spurious.group_names == ("no loop/rows", "no loop/columns", "loop/rows", "loop/columns")


def test_groups_are_label_and_background(spurious: Loaded) -> None:
    for split in splits(spurious):
        assert split.groups is not None
        assert (split.groups // 2 == split.labels).all()
        background = split.groups % 2
        assert (waves_run_across_rows(split.images) == (background == 0)).all()


def test_a_source_digit_is_on_one_side_only(source: tuple[NDArray, NDArray]) -> None:
    """Without texture only the digit is left, and tells where it came from: fold 0-2 train, 3 val, 4 test."""
    images, digits = source
    large = SpuriousDigits(contrast=0.0, copies=1).load(None)
    parts = []
    for split in splits(large):
        assert (split.images == split.images[:, :1]).all()  # grey
        _, first, back = np.unique(split.images[:, 0], axis=0, return_index=True, return_inverse=True)
        parts.append(split.images[np.sort(first), 0])
        assert len(back) == len(split)
    folds = np.empty(1797, dtype=int)
    for digit in range(10):
        members = np.flatnonzero(digits == digit)
        folds[members] = np.arange(len(members)) % 5
    for part, members in zip(parts, (folds < 3, folds == 3, folds == 4), strict=True):
        assert len(part) == members.sum()
        # corners of the 14 x 14 digit are those of the 8 x 8 one
        corners = np.round(images[members][:, [0, 0, -1, -1], [0, -1, 0, -1]] / 16 * 255)
        assert (part[:, [1, 1, 14, 14], [1, 14, 1, 14]] == corners).all()
    whole = [image.tobytes() for part in parts for image in part]
    assert len(set(whole)) == len(whole) == 1797


def test_labels_say_whether_there_is_a_loop(source: tuple[NDArray, NDArray]) -> None:
    _, digits = source
    data = SpuriousDigits(copies=1).load(None)
    of_rank = np.concatenate([np.arange(n) % 5 for n in np.bincount(digits)])
    folds = of_rank[np.argsort(np.argsort(digits, kind="stable"))]
    assert (data.train.labels == np.isin(digits[folds < 3], LOOPS)).all()


@pytest.mark.parametrize(("correlation", "copies"), [(0.95, 1), (0.95, 2), (0.5, 1), (0.8, 3), (1.0, 1)])
def test_the_share_of_agreeing_backgrounds_is_exact_in_each_class(correlation: float, copies: int) -> None:
    data = SpuriousDigits(correlation=correlation, copies=copies).load(None)
    groups, labels = data.train.groups, data.train.labels
    assert groups is not None and len(data.train) == 1085 * copies
    for label in (0, 1):
        of_class = groups[labels == label] % 2
        assert (of_class == label).sum() == round(correlation * len(of_class))


def test_validation_and_test_show_each_digit_on_both_backgrounds(spurious: Loaded) -> None:
    for split in splits(spurious)[1:]:
        assert split.groups is not None
        sizes = np.bincount(split.groups, minlength=4)
        assert sizes[0] == sizes[1] and sizes[2] == sizes[3]
        pairs = split.groups.reshape(-1, 2)
        assert (pairs[:, 1] == pairs[:, 0] + 1).all()


def test_copies_of_a_digit_have_textures_of_their_own() -> None:
    data = SpuriousDigits(copies=3).load(None)
    triples = data.train.images.reshape(-1, 3, 3 * 16 * 16)
    assert (triples[:, 0] != triples[:, 1]).any(axis=1).all() and (triples[:, 1] != triples[:, 2]).any(axis=1).all()
    assert (data.train.labels.reshape(-1, 3) == data.train.labels[::3, None]).all()


def test_contrast_is_the_brightness_of_the_background() -> None:
    frames = []
    for contrast in (0.0, 0.2, 0.8):
        frame = SpuriousDigits(contrast=contrast).load(None).train.images[:, :, 0]
        frames.append(int(frame.max()))
    assert frames[0] == 0 and frames[1] == pytest.approx(0.2 * 255, abs=2) and frames[2] == pytest.approx(204, abs=3)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"contrast": 1.5}, "contrast: 1.5 is out of range"), ({"contrast": -0.1}, "contrast"),
        ({"correlation": 0.4}, "correlation: 0.4 is out of range"), ({"correlation": "all"}, "a number"),
        ({"copies": 0}, "copies: 0 is out of range"), ({"copies": 1.5}, "a whole number"),
        ({"contrasts": 0.1}, "did you mean contrast"),
    ],
)  # fmt: skip
def test_options_are_checked(params: dict[str, Any], words: str) -> None:
    with pytest.raises(FieldError, match=words):
        SpuriousDigits(**params)


# --- loading


def test_load_takes_the_identity_of_a_cell() -> None:
    identity = {"name": "spurious-digits", "revision": "x", **SpuriousDigits.identity({"copies": 1})}
    data = load(identity)
    assert load(dict(identity)) is data and len(data.train) == 1085
    assert len(load({**identity, "copies": 2}).train) == 2170


def test_unknown_names_are_errors() -> None:
    with pytest.raises(FieldError, match="unknown dataset 'digit'.*did you mean digits"):
        load({"name": "digit"})
    with pytest.raises(FieldError, match="digits has no field 'contrast'"):
        load({"name": "digits", "contrast": 0.5})


def test_fingerprints_see_pixels_labels_groups_and_order() -> None:
    def made(seed: int = 0, **changes: Any) -> str:
        images = np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (4, 1, 2, 2)).astype(np.uint8)
        parts = {"images": images, "labels": np.array([0, 1, 0, 1]), "groups": np.array([0, 0, 1, 1]), **changes}
        split = Split(parts["images"], parts["labels"], parts["groups"])
        return Loaded(train=split, test=split, class_names=("a", "b")).fingerprint

    images = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (4, 1, 2, 2)).astype(np.uint8)
    found = [
        made(), made(1), made(labels=np.array([1, 1, 0, 1])), made(groups=None), made(groups=np.array([0, 1, 1, 1])),
        made(images=images[::-1]), made(images=images.reshape(4, 1, 1, 4)),
    ]  # fmt: skip
    assert len(set(found)) == len(found) and found[0] == made()


def test_channel_statistics_are_those_of_the_training_images() -> None:
    images = np.zeros((2, 3, 1, 2), dtype=np.uint8)
    images[:, 0] = 255
    images[0, 1] = 51
    split = Split(images, np.array([0, 1]))
    mean, std = Loaded(train=split, test=split, class_names=("a", "b")).channel_statistics
    assert mean == pytest.approx((1.0, 0.1, 0.0))
    assert std == pytest.approx((1e-3, 0.1, 1e-3))  # a constant channel does not divide by zero


def test_channel_statistics_of_many_images_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (5600, 3, 32, 32)).astype(np.uint8)
    images[:, 1] //= 7
    images[:, 2] = 51

    def statistics() -> Any:
        split = Split(images, np.zeros(len(images), dtype=np.int64))
        return Loaded(train=split, test=split, class_names=("a",)).channel_statistics

    tracemalloc.start()
    counted = statistics()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20  # the images are 17 MB, as floats 275
    monkeypatch.setattr("bench.data._DIRECT", images.size)
    for found, direct in zip(counted, statistics(), strict=True):
        assert np.abs(np.array(found) - direct).max() < 1e-12
