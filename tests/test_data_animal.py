"""ANIMAL-10N: labels in file names, order, both editions, faults; on miniatures in the real layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from resident_trees import TinyAnimal10n, animal10n, animal10n_binary, animal_names, picture, rng

from bench.data import DataError
from bench.data.animal10n import CLASSES, CONFUSIONS, Animal10n


def test_labels_are_in_the_file_names_and_order_is_theirs(tmp_path: Path) -> None:
    data = animal10n(tmp_path)().load(tmp_path)
    names = sorted(animal_names(20))
    assert names != animal_names(20)  # else the order says nothing
    assert data.train.labels.tolist() == [int(name[0]) for name in names] and data.train.labels.dtype == np.int64
    assert data.train.images.shape == (20, 3, 64, 64) and data.train.images.dtype == np.uint8 and len(data.test) == 10
    for place in (0, 7, 19):
        with Image.open(tmp_path / "raw_image/training" / names[place]) as image:
            expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1).astype(int)
        assert np.abs(data.train.images[place].astype(int) - expected).max() <= 1


def test_classes_and_pairs() -> None:
    assert CLASSES[4] == "cheetah" and CLASSES[5] == "jaguar" and CLASSES[9] == "guinea pig"
    pairs = {frozenset((CLASSES[a], CLASSES[b])) for a, b in CONFUSIONS.items()}
    assert len(pairs) == 5 and frozenset(("wolf", "coyote")) in pairs and frozenset(("hamster", "guinea pig")) in pairs
    assert all(CONFUSIONS[CONFUSIONS[c]] == c for c in range(10))
    assert sum(Animal10n._per_class) == 50_000 and Animal10n._per_class[0] == 5466


def test_the_true_labels_are_not_known(tmp_path: Path) -> None:
    data = animal10n(tmp_path)().load(tmp_path)
    assert not data.true_labels_known and data.given_labels is None and data.val is None and data.confusions == CONFUSIONS


@pytest.mark.parametrize(
    ("params", "pad", "flip", "mean"),
    [
        ({}, 4, True, 0.485),
        ({"augmentation": "flip", "normalisation": "disc"}, 0, True, 0.6959),
        ({"augmentation": "none", "normalisation": "none"}, 0, False, 0.0),
    ],
)
def test_preprocessing(tmp_path: Path, params: dict[str, str], pad: int, flip: bool, mean: float) -> None:
    data = animal10n(tmp_path)(**params).load(tmp_path)
    assert (data.pad, data.flip, data.channel_statistics[0][0]) == (pad, flip, mean)


def test_mirrors_give_the_same(tmp_path: Path) -> None:
    """Folders named train and test, no folder above them, or one folder per class: the same arrays."""
    cls = animal10n(tmp_path / "a")
    first = cls().load(tmp_path / "a").fingerprint
    for folder, count in (("training", 20), ("testing", 10)):
        short = folder.removesuffix("ing")
        for name in animal_names(count):
            named = CLASSES[int(name[0])]
            for place in (f"b/{short}/{name}", f"c/animal10n/{folder}/{named}/{name}", f"d/{short}/{name[0]}/{name}"):
                (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(tmp_path / "a/raw_image" / folder / name, tmp_path / place)
    assert {cls().load(tmp_path / root).fingerprint for root in "bcd"} == {first}


def test_linked_folders_are_looked_into(tmp_path: Path) -> None:
    """A mirror with linked folders of classes, and with loops, gives the same arrays."""
    cls = animal10n(tmp_path / "a")
    before = cls().load(tmp_path / "a").fingerprint
    for folder, count in (("training", 20), ("testing", 10)):
        top = tmp_path / "b/raw_image" / folder
        top.mkdir(parents=True)
        for name in animal_names(count):
            kept = tmp_path / "kept" / folder / name[0]
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "a/raw_image" / folder / name, kept / name)
            if not (top / name[0]).exists():
                (top / name[0]).symlink_to(kept)
                (kept / "back").symlink_to(top)
        (top / "all").symlink_to(tmp_path / "b")
    assert cls().load(tmp_path / "b").fingerprint == before


def test_the_binary_edition(tmp_path: Path) -> None:
    data = animal10n_binary(tmp_path)(edition="binary").load(tmp_path)
    assert data.train.labels.tolist() == [*range(10)] * 2 and data.test.labels.tolist() == [*range(10)]
    assert (data.train.images == rng(20).integers(0, 256, (20, 3, 64, 64))).all()
    assert data.train.images.flags["C_CONTIGUOUS"] and type(data.train.images) is np.ndarray
    assert data.train.labels.dtype == np.int64
    path = tmp_path / "animal10n/data_batch_1.bin"
    raw = path.read_bytes()
    assert len(raw) == 20 * 12_296 and raw[4:8] == b"\0\0\0\0" and raw[12_296 + 4 : 12_296 + 8] == b"\0\0\0\x01"  # big-endian


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda raw: raw[:-1], "data_batch_1.bin: 245,919 bytes are no whole number of records .a record has 12,296 bytes"),
        (lambda raw: raw[:-12_296], "data_batch_1.bin: 19 training images, officially 20"),
        (lambda raw: raw[:7] + b"\x0a" + raw[8:], "data_batch_1.bin: label 10 in record 0 is out of range"),
        (lambda raw: raw[: 12_296 + 4] + b"\xff" + raw[12_296 + 5 :], "label .* in record 1 is out of range"),
    ],
)
def test_faults_of_the_binary_edition(tmp_path: Path, data: object, words: str) -> None:
    cls = animal10n_binary(tmp_path)
    path = tmp_path / "animal10n/data_batch_1.bin"
    path.write_bytes(data(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=words):
        cls(edition="binary").load(tmp_path)


def first(root: Path) -> Path:
    return root / "raw_image/training" / sorted(animal_names(20))[0]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda path: path.unlink(), "training: 19 training images, officially 20"),
        (lambda path: shutil.copy(path, path.with_name("3_x.jpg")), "training: 21 training images, officially 20"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "0_.*jpg: the picture cannot be read"),
        (lambda path: path.write_bytes(b""), "0_.*jpg: the picture cannot be read: the file is empty"),
        (lambda path: path.write_bytes(b"no jpeg"), "0_.*jpg: the picture cannot be read"),
        (lambda path: picture(path, 64, 63), "0_.*jpg: the picture is 64x63, not 64x64"),
        (lambda path: path.rename(path.with_name("10_1.jpg")), "10_1.jpg: the label in the file name is out of range"),
        (lambda path: path.rename(path.with_name("cat_1.jpg")), "cat_1.jpg: the label in the file name is out of range"),
        (lambda path: path.rename(path.with_name("1.jpg")), "/1.jpg: the label in the file name is out of range"),
        (lambda path: path.with_name("list.txt").write_text("x"), "list.txt: the file is no image .move it away."),
        (lambda path: shutil.copytree(path.parent, path.parent / "3"), "the name says label ., its folder '3'"),
    ],
)
def test_faults_are_named(tmp_path: Path, fault: object, words: str) -> None:
    cls = animal10n(tmp_path)
    fault(first(tmp_path))  # type: ignore[operator]
    with pytest.raises(DataError, match=words):
        cls().load(tmp_path)
    assert not all(finding.ok for finding in cls().check(tmp_path))


def test_a_missing_folder(tmp_path: Path) -> None:
    cls = animal10n(tmp_path)
    shutil.rmtree(tmp_path / "raw_image/testing")
    with pytest.raises(DataError, match="animal10n is not here.*raw_image/testing"):
        cls().load(tmp_path)
    with pytest.raises(DataError, match="animal10n is not here"):
        cls(edition="binary").load(tmp_path)


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    cls = animal10n(tmp_path)
    (first(tmp_path).parent / ".DS_Store").write_text("x")
    assert len(cls().load(tmp_path).train) == 20


def test_check(tmp_path: Path) -> None:
    texts = [finding.text for finding in animal10n(tmp_path)().check(tmp_path)]
    assert texts[0].startswith("train: 20 images 3x64x64; per class cat 2, lynx 2")
    assert "official: 20 training and 10 test images" in texts
    assert "guinea pig 4,809" in texts[-1]


def test_the_real_class_refuses_the_miniature(tmp_path: Path) -> None:
    assert animal10n(tmp_path) is TinyAnimal10n
    with pytest.raises(DataError, match="20 training images, officially 50,000"):
        Animal10n().load(tmp_path)
