"""Clothing1M: settings, layouts, the subset protocols, strictness; on a miniature and on the real clean lists."""

from __future__ import annotations

import lzma
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from miniature_trees import TinyClothing1M, clothing1m, picture, shared_data, write

from bench.data import DataError, Loaded
from bench.data.clothing1m import Clothing1M, epoch_subset

LISTS = "clothing1m/annotations"


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return clothing1m(tmp_path)().load(tmp_path)


def replace_line(path: Path, row: int, text: str | None) -> None:
    lines = path.read_text().splitlines()
    lines[row : row + 1] = [] if text is None else [text]
    write(path, lines)


def test_the_noisy_setting(loaded: Loaded, tmp_path: Path) -> None:
    assert [len(split) for split in (loaded.train, loaded.val, loaded.test) if split] == [30, 14, 16]
    assert loaded.train.labels.tolist() == [i % 14 for i in range(30)] and not loaded.true_labels_known
    assert loaded.val is not None and loaded.val.labels.tolist() == list(range(14))
    assert loaded.test.labels.tolist() == [i % 14 for i in range(16)]
    assert loaded.train.images.path(11) == str(tmp_path / "clothing1m/images/1/04/407,1111.jpg")  # a comma is no separator
    assert loaded.train.images.lines[11] == 12 and loaded.given_labels is None and loaded.trusted is None
    assert loaded.class_names[0] == "T-Shirt" and loaded.class_names[4] == "Sweater" and len(loaded.class_names) == 14
    assert loaded.normalisation == ((0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214)) and loaded.flip
    assert loaded.train.images.shape == (3, 224, 224) and not loaded.canonical and loaded.epoch_size == 0


def test_settings_with_clean_labels(loaded: Loaded, tmp_path: Path) -> None:
    clean = TinyClothing1M(train="clean").load(tmp_path)
    assert clean.train.labels.tolist() == [i % 14 for i in range(15)] and clean.true_labels_known
    mixed = TinyClothing1M(train="noisy+clean").load(tmp_path)
    assert len(mixed.train) == 45 and mixed.trusted is not None and mixed.trusted.tolist() == list(range(30, 45))
    assert mixed.train.labels.tolist() == loaded.train.labels.tolist() + clean.train.labels.tolist()
    assert [mixed.train.images.path(i) for i in (29, 30)] == [loaded.train.images.path(29), clean.train.images.path(0)]
    both = TinyClothing1M(train="both").load(tmp_path)
    assert both.train.labels.tolist() == list(range(3, 12)) and both.true_labels_known and both.given_labels is not None
    assert both.given_labels.tolist() == [3, 6, 9, 6, 9, 12, 9, 12, 1]
    assert both.train.images.path(0) == clean.train.images.path(3)
    assert len({data.fingerprint for data in (loaded, clean, mixed, both)}) == 4
    imagenet = TinyClothing1M(normalisation="imagenet").load(tmp_path)
    assert imagenet.normalisation is not None and imagenet.normalisation[0] == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(("lists", "images"), [("", False), ("label", True), ("annotations", False)])
def test_the_layouts_that_others_use(lists: str, images: bool, loaded: Loaded, tmp_path: Path) -> None:
    other = clothing1m(tmp_path / "other", lists=lists, images=images)().load(tmp_path / "other")
    assert other.fingerprint == loaded.fingerprint
    assert ("images" in other.train.images.path(0)) == images
    assert (other.test.images.fetch(np.arange(3)) == loaded.test.images.fetch(np.arange(3))).all()


def test_lists_that_a_setting_does_not_read_may_be_absent(tmp_path: Path) -> None:
    cls = clothing1m(tmp_path)
    for name in ("clean_train_key_list.txt", "noisy_label_kv.txt"):
        (tmp_path / LISTS / name).rename(tmp_path / name)
        with pytest.raises(DataError, match=f"{name}: the list is missing"):
            cls(train="both").load(tmp_path)
        setting = "noisy" if name.startswith("clean") else "clean"
        assert all(finding.ok for finding in cls(train=setting).check(tmp_path))
        assert not all(finding.ok for finding in cls(train="both").check(tmp_path))
        (tmp_path / name).rename(tmp_path / LISTS / name)


# --- subsets


def walk(order: list[int], labels: list[int], size: int, classes: int) -> list[int]:
    """The protocol as it is told: visit in order, keep while the class and the whole are not full."""
    kept: list[int] = []
    counts = [0] * classes
    for sample in order:
        if counts[labels[sample]] < size / classes and len(kept) < size:
            kept.append(sample)
            counts[labels[sample]] += 1
    return kept


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 70), st.integers(0, 2**32))
def test_epoch_subsets_follow_the_walk(labels: list[int], size: int, seed: int) -> None:
    got = epoch_subset(np.array(labels, dtype=np.int64), size, 4, np.random.Generator(np.random.PCG64(seed)))
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(labels)).tolist()
    assert got.dtype == np.int64 and got.tolist() == walk(order, labels, size, 4)


def test_epoch_subsets_are_balanced_and_new() -> None:
    labels = np.arange(7000, dtype=np.int64) % 7 % 5  # classes 0 and 1 are twice as frequent
    rng = np.random.Generator(np.random.PCG64(0))
    one, two = epoch_subset(labels, 1000, 5, rng), epoch_subset(labels, 1000, 5, rng)
    for chosen in (one, two):
        assert len(set(chosen.tolist())) == 1000 and np.bincount(labels[chosen]).tolist() == [200] * 5
    assert 0 < len(set(one.tolist()) & set(two.tolist())) < 400
    # 64 000 is no multiple of 14: some classes have 4 572, the last to be visited fewer
    many = np.random.Generator(np.random.PCG64(1)).integers(0, 14, 100_000)
    counts = np.bincount(many[epoch_subset(many, 64_000, 14, rng)])
    assert counts.sum() == 64_000 and counts.max() == 4572 and counts.min() >= 4500
    # a class with too few samples is not filled up
    assert np.bincount(labels[:21][epoch_subset(labels[:21], 20, 5, rng)]).tolist() == [4, 4, 3, 3, 3]


def test_subset_protocols(tmp_path: Path) -> None:
    cls = clothing1m(tmp_path)
    assert cls(epoch_size=28).load(tmp_path).epoch_size == 28
    data = cls(per_class=2).load(tmp_path)
    assert len(data.train) == 28 and (np.bincount(data.train.labels) == 2).all() and data.epoch_size == 0
    assert data.notes[-1] == "fixed subset of at most 2 pictures per given label, seed 123"
    again, other = cls(per_class=1).load(tmp_path), cls(per_class=1, subset_seed=321).load(tmp_path)
    assert again.fingerprint == cls(per_class=1).load(tmp_path).fingerprint != other.fingerprint
    lines = again.train.images.lines
    assert (np.diff(lines) > 0).all() and again.train.labels.tolist() == [(line - 1) % 14 for line in lines]  # file order
    mixed = cls(train="noisy+clean", per_class=3).load(tmp_path)
    assert mixed.trusted is not None and len(mixed.train) == 42 and (np.diff(mixed.trusted) > 0).all()
    full = cls(train="noisy+clean").load(tmp_path)
    hand = {full.train.images.path(i) for i in range(30, 45)}
    chosen = set(mixed.trusted.tolist())
    assert all((mixed.train.images.path(i) in hand) == (i in chosen) for i in range(42)) and chosen
    both = cls(train="both", per_class=1).load(tmp_path)
    assert both.given_labels is not None and sorted(both.given_labels.tolist()) == [1, 3, 6, 9, 12]  # balanced by given label
    pairs = {(3, 3), (4, 6), (5, 9), (6, 6), (7, 9), (8, 12), (9, 9), (10, 12), (11, 1)}
    assert set(zip(both.train.labels.tolist(), both.given_labels.tolist(), strict=True)) < pairs
    with pytest.raises(DataError, match="two protocols"):
        cls(epoch_size=28, per_class=2).load(tmp_path)


# --- faults


@pytest.mark.parametrize(
    ("file", "row", "text", "words"),
    [
        ("noisy_label_kv.txt", 2, "images/0/00/1,2.jpg 14", "noisy_label_kv.txt:3: label '14' is out of range .must be in 0..13"),
        ("noisy_label_kv.txt", 2, "images/0/00/1,2.jpg", "noisy_label_kv.txt:3: .* is not `<file> <label>`"),
        ("noisy_label_kv.txt", 40, None, "noisy_label_kv.txt: 40 lines, truncated .official: 41"),
        ("noisy_label_kv.txt", 20, "images/9/09/9,9.jpg 3", "noisy_train_key_list.txt:10: images/9/02/333,909.jpg has no label"),
        ("noisy_label_kv.txt", 40, "images/0/00/0,0.jpg 3", "noisy_label_kv.txt:41: .*listed twice .also in line 12"),
        ("clean_label_kv.txt", 4, "0/00/1,2.jpg 3", "clean_label_kv.txt:5: '0/00/1,2.jpg' does not begin with images/"),
        ("noisy_train_key_list.txt", 29, None, "noisy_train_key_list.txt: 29 lines, truncated .official: 30"),
        ("noisy_train_key_list.txt", 1, "images/0/00/0,0.jpg", "key_list.txt:2: images/0/00/0,0.jpg is listed twice"),
        ("noisy_train_key_list.txt", 3, "images/0/00/8,8.jpg", "key_list.txt:4: .* has no label in noisy_label_kv.txt"),
        ("clean_test_key_list.txt", 3, "images/../../8.jpg", "clean_test_key_list.txt:4: .* is not a path below"),
    ],
)
def test_lists_are_read_strictly(file: str, row: int, text: str | None, words: str, tmp_path: Path) -> None:
    cls = clothing1m(tmp_path)
    replace_line(tmp_path / LISTS / file, row, text)
    with pytest.raises(DataError, match=words):
        cls().load(tmp_path)
    assert not cls().check(tmp_path)[-1].ok


def test_clean_labels_are_counted(tmp_path: Path) -> None:
    cls = clothing1m(tmp_path)
    path = tmp_path / LISTS / "clean_label_kv.txt"
    rows = path.read_text().splitlines()
    at = next(i for i, row in enumerate(rows) if row.startswith("images/0/04/7400,20200.jpg"))  # the first of val
    replace_line(path, at, "images/0/04/7400,20200.jpg 1")
    with pytest.raises(DataError, match="the clean val labels have .0, 2, 1, .* pictures per class .official: .1, 1"):
        cls().load(tmp_path)


def test_missing_and_truncated_pictures(tmp_path: Path) -> None:
    cls = clothing1m(tmp_path)
    data = cls().load(tmp_path)
    broken = Path(data.train.images.path(6))
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{broken.name}: the picture cannot be read: .*noisy_train_key_list.txt:7"):
        data.train.images.fetch(np.arange(30))
    assert [f.text for f in cls().check(tmp_path) if not f.ok][0].startswith("train: 30 picture files, 0.00 GiB, 1 damaged")
    broken.unlink()
    with pytest.raises(DataError, match="the picture is missing .1 of 30 .*noisy_train_key_list.txt:7"):
        cls().load(tmp_path)
    shutil.rmtree(tmp_path / LISTS)
    with pytest.raises(DataError, match="clothing1m is not here .expected clothing1m/annotations/clean_label_kv.txt"):
        cls().load(tmp_path)
    assert [finding.ok for finding in cls().check(tmp_path)] == [False, False]


# --- the real clean lists


def test_the_real_lists_with_both_labels(tmp_path: Path) -> None:
    """24 637 training pictures with both labels, the official val and test lists; each picture is a link to one file."""

    class Partial(Clothing1M):
        LINES = {
            **Clothing1M.LINES, "clean_train_key_list.txt": 24_637, "noisy_label_kv.txt": 24_637,
            "clean_label_kv.txt": 49_476,
        }  # fmt: skip

    source = shared_data("clothing1m")
    lists = tmp_path / LISTS
    lists.mkdir(parents=True)
    for packed, name in (
        ("clean_val_key_list.txt.xz", "clean_val_key_list.txt"), ("clean_test_key_list.txt.xz", "clean_test_key_list.txt"),
        ("both_labels_train_key_list.txt.xz", "clean_train_key_list.txt"),
        ("clean_label_kv.partial.txt.xz", "clean_label_kv.txt"), ("noisy_label_kv.partial.txt.xz", "noisy_label_kv.txt"),
    ):  # fmt: skip
        (lists / name).write_bytes(lzma.decompress((source / packed).read_bytes()))
    with pytest.raises(DataError, match="clean_label_kv.txt: 49,476 lines, truncated .official: 72,409"):
        Clothing1M(train="both").load(tmp_path)
    tiny, made = picture(tmp_path / "tiny.jpg", 40, 40), set()
    for key in (line.rsplit(" ", 1)[0] for line in (lists / "clean_label_kv.txt").read_text().splitlines()):
        target = tmp_path / "clothing1m" / key
        if target.parent not in made:
            target.parent.mkdir(parents=True)
            made.add(target.parent)
        os.link(tiny, target)
    data = Partial(train="both").load(tmp_path)
    assert data.canonical and data.given_labels is not None
    assert (data.given_labels != data.train.labels).sum() == 9427 and len(data.train) == 24_637  # 38.26 %
    counts = "1845 1949 956 2580 1334 1867 1426 749 2039 2212 1815 1902 1763 2200"
    assert np.bincount(data.train.labels).tolist() == [int(count) for count in counts.split()]
    sweater = data.train.labels == 4
    assert round(float((data.given_labels[sweater] == 2).mean()), 2) == 0.63  # called knitwear
    assert data.val is not None and np.bincount(data.val.labels).tolist() == list(Clothing1M.OFFICIAL["val"])
    subset = epoch_subset(data.given_labels, 14_000, 14, np.random.Generator(np.random.PCG64(0)))
    assert np.bincount(data.given_labels[subset]).max() == 1000


