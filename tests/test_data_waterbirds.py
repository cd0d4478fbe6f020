"""Waterbirds: splits, groups, the variant in circulation, corrupted label files; on a miniature and the real metadata."""

from __future__ import annotations

import lzma
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from miniature_trees import TinyWaterbirds, picture, shared_data, waterbirds, write
from PIL import Image
from torchvision import transforms

from bench.data import DataError, Loaded
from bench.data.waterbirds import Waterbirds, _read

FOLDER = "waterbird_complete95_forest2water2"


def edit(path: Path, change: Callable[[list[list[str]]], object]) -> None:
    """Change the rows (header first) of a CSV file in place."""
    rows = [line.split(",") for line in path.read_text().splitlines()]
    change(rows)
    write(path, [",".join(row) for row in rows])


def corrupt(source: Path, target: Path, flipped: int) -> list[int]:
    """What the authors' script does, for the first training rows; returns the labels of the training rows."""
    labels: list[int] = []

    def flip(rows: list[list[str]]) -> None:
        for row in rows[1:]:
            if row[3] == "0":
                row[2] = str(1 - int(row[2])) if len(labels) < flipped else row[2]
                labels.append(int(row[2]))

    target.write_bytes(source.read_bytes())
    edit(target, flip)
    return labels


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return waterbirds(tmp_path)().load(tmp_path)


def test_official_splits_and_groups(loaded: Loaded, tmp_path: Path) -> None:
    assert [len(split) for split in (loaded.train, loaded.val, loaded.test) if split] == [8, 4, 6]
    for split, counts in zip((loaded.train, loaded.val, loaded.test), TinyWaterbirds.OFFICIAL.values(), strict=True):
        assert split is not None and split.groups is not None and not split.resident
        assert np.bincount(split.groups, minlength=4).tolist() == list(counts)
        assert (split.labels == split.groups // 2).all() and split.labels.dtype == split.groups.dtype == np.int64
    assert loaded.class_names == ("landbird", "waterbird") and loaded.group_names is not None
    assert loaded.group_names[2] == "waterbird/land"
    assert loaded.train.images.path(3) == str(tmp_path / FOLDER / "002.Some_Bird/Some_Bird_0004_4.jpg")
    assert loaded.train.images.lines.tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert loaded.normalisation == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) and loaded.flip and loaded.pad == 0
    assert not loaded.canonical and "not those of the official file" in loaded.notes[0]


def test_evaluation_squeezes_to_256_and_cuts_224(loaded: Loaded) -> None:
    transform = transforms.Compose([transforms.Resize((256, 256)), transforms.CenterCrop(224)])
    got = loaded.test.images.fetch(np.arange(6))
    assert got.shape == (6, 3, 224, 224)
    for position in range(6):
        wanted = np.array(transform(Image.open(loaded.test.images.path(position)))).transpose(2, 0, 1)
        assert np.abs(got[position].astype(int) - wanted).max() <= 1


def test_training_views(tmp_path: Path) -> None:
    cls = waterbirds(tmp_path)
    draws = np.random.Generator(np.random.PCG64(0)).random((8, 4))
    everything = np.arange(8)
    for augmentation, flip, moves in (("centre", False, False), ("random-crop", True, True), ("random-resized-crop", True, True)):
        data = cls(augmentation=augmentation, resize=64, crop=56).load(tmp_path)
        same = (data.train.images.fetch(everything, draws) == data.train.images.fetch(everything)).all()
        assert data.flip is flip and same != moves and data.train.images.shape == (3, 56, 56)
    geometry = cls().load(tmp_path).train.images.geometry
    assert (geometry.scale, geometry.ratio, geometry.crop) == ((0.7, 1.0), (3 / 4, 4 / 3), 224)


@pytest.mark.parametrize("place", ["waterbirds_v1.0", "waterbirds", f"cub/data/{FOLDER}", ""])
def test_the_folders_that_others_use(place: str, tmp_path: Path, loaded: Loaded) -> None:
    target = tmp_path / "elsewhere" / place
    target.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / FOLDER).rename(target)
    assert TinyWaterbirds().load(tmp_path / "elsewhere").fingerprint == loaded.fingerprint


@pytest.mark.parametrize(
    ("row", "column", "value", "words"),
    [
        (3, 2, "2", "metadata.csv:4: y '2' is out of range"), (3, 4, "x", "metadata.csv:4: place 'x'"),
        (18, 3, "3", "metadata.csv:19: split '3' is out of range .must be in 0..2"),
        (5, 1, "002.Some_Bird/Some_Bird_0004_4.jpg", "metadata.csv:6: .*listed twice"),
        (5, 1, "../x.jpg", "metadata.csv:6: '../x.jpg' is not a path"), (0, 2, "label", "metadata.csv:1: no column 'y'"),
        (2, 2, "1,1", "metadata.csv:3: 7 values instead of 6"),
        (1, 2, "1", "group counts are not official: train 3/1/2/2 instead of 4/1/1/2 .are these corrupted .*metadata_0.3r.csv"),
        (1, 3, "2", "train 3/1/1/2 instead of 4/1/1/2, test 3/2/1/1 instead of 2/2/1/1"),
    ],
)  # fmt: skip
def test_wrong_rows_are_named(row: int, column: int, value: str, words: str, tmp_path: Path) -> None:
    cls = waterbirds(tmp_path)
    edit(tmp_path / FOLDER / "metadata.csv", lambda rows: rows[row].__setitem__(column, value))
    with pytest.raises(DataError, match=words):
        cls().load(tmp_path)


def test_missing_extra_truncated_pictures(tmp_path: Path) -> None:
    cls = waterbirds(tmp_path)
    folder = tmp_path / FOLDER
    data = cls().load(tmp_path)
    extra = picture(folder / "001.Some_Bird/copy.jpg", 30, 30)
    broken = Path(data.train.images.path(2))
    broken.write_bytes(broken.read_bytes()[:-200])
    findings = cls().check(tmp_path)
    wrong = [finding.text for finding in findings if not finding.ok]
    assert len(wrong) == 2 and "1 damaged" in wrong[0] and broken.name in wrong[0] and str(extra) in wrong[1]
    with pytest.raises(DataError, match=f"{broken.name}: the picture cannot be read: .*metadata.csv:4"):
        data.train.images.fetch(np.arange(8))
    Path(data.test.images.path(1)).unlink()
    with pytest.raises(DataError, match="the picture is missing .1 of 6 .*metadata.csv:15"):
        cls().load(tmp_path)
    assert not cls().check(tmp_path)[-1].ok
    (folder / "metadata.csv").unlink()
    with pytest.raises(DataError, match=f"waterbirds is not here .expected {FOLDER}/metadata.csv below it"):
        cls().load(tmp_path)
    assert [finding.ok for finding in cls().check(tmp_path)] == [False, False]


def test_corrupted_label_files(tmp_path: Path) -> None:
    cls = waterbirds(tmp_path)
    clean = cls().load(tmp_path)
    metadata, corrupted = tmp_path / FOLDER / "metadata.csv", tmp_path / FOLDER / "metadata_0.25r.csv"
    with pytest.raises(DataError, match="metadata_0.25r.csv: the label file is missing"):
        cls(corrupted_rate=0.25).load(tmp_path)
    labels = corrupt(metadata, corrupted, 2)
    data = cls(corrupted_rate=0.25).load(tmp_path)
    assert data.given_labels is not None and data.given_labels.tolist() == labels
    assert (data.train.labels == clean.train.labels).all() and (data.given_labels != data.train.labels).sum() == 2
    assert (data.train.groups == clean.train.groups).all()  # groups stay those of the true labels
    assert data.fingerprint != clean.fingerprint and clean.given_labels is None
    assert data.notes[-1] == "metadata_0.25r.csv: 2 training labels are flipped, the authors' script flips 2"
    assert any("2 of 8 are wrong" in finding.text for finding in cls(corrupted_rate=0.25).check(tmp_path))


def test_the_plan_pins_corrupted_labels(tmp_path: Path) -> None:
    cls = waterbirds(tmp_path)
    assert cls.planned({"crop": 100}, tmp_path) == {"crop": 100}
    metadata, corrupted = tmp_path / FOLDER / "metadata.csv", tmp_path / FOLDER / "metadata_0.25r.csv"
    corrupt(metadata, corrupted, 2)
    planned = cls.planned({"corrupted_rate": 0.25}, tmp_path)
    assert len(planned["corrupted_sha256"]) == 64 and cls.planned(planned, tmp_path) == planned
    assert cls(**planned).load(tmp_path).given_labels is not None
    corrupt(metadata, corrupted, 3)
    with pytest.raises(DataError, match="not those that the suite was planned with"):
        cls(**planned).load(tmp_path)


@pytest.mark.parametrize(
    ("row", "column", "value", "words"),
    [
        (9, 2, "1", "metadata_0.25r.csv:10: this row does not belong"),  # a validation label
        (2, 4, "1", "metadata_0.25r.csv:3: this row does not belong"), (1, 1, "x.jpg", "metadata_0.25r.csv:2"),
    ],
)  # fmt: skip
def test_only_training_labels_may_be_corrupted(row: int, column: int, value: str, words: str, tmp_path: Path) -> None:
    cls = waterbirds(tmp_path)
    metadata, corrupted = tmp_path / FOLDER / "metadata.csv", tmp_path / FOLDER / "metadata_0.25r.csv"
    corrupt(metadata, corrupted, 2)
    edit(corrupted, lambda rows: rows[row].__setitem__(column, value))
    with pytest.raises(DataError, match=words):
        cls(corrupted_rate=0.25).load(tmp_path)


def test_corrupted_files_that_are_not(tmp_path: Path) -> None:
    cls = waterbirds(tmp_path)
    metadata, corrupted = tmp_path / FOLDER / "metadata.csv", tmp_path / FOLDER / "metadata_0.25r.csv"
    corrupted.write_bytes(metadata.read_bytes())
    with pytest.raises(DataError, match="metadata_0.25r.csv: no training label differs .under pandas 3"):
        cls(corrupted_rate=0.25).load(tmp_path)
    edit(corrupted, lambda rows: rows.pop())
    with pytest.raises(DataError, match="17 rows, but metadata.csv has 18"):
        cls(corrupted_rate=0.25).load(tmp_path)


# --- the real metadata


def test_the_official_metadata(tmp_path: Path) -> None:
    """All 11 788 rows, each picture a link to one file."""
    real = shared_data("waterbirds") / "metadata.csv"
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "metadata.csv").write_bytes(real.read_bytes())
    tiny = picture(tmp_path / "tiny.jpg", 50, 40)
    for path in _read(real, "waterbirds").paths:
        target = folder / os.fsdecode(path)
        target.parent.mkdir(exist_ok=True)
        os.link(tiny, target)
    data = Waterbirds().load(tmp_path)
    assert data.canonical and not data.notes
    counts = [np.bincount(split.groups).tolist() for split in (data.train, data.val, data.test)]  # type: ignore[union-attr, arg-type]
    assert counts == [[3498, 184, 56, 1057], [467, 466, 133, 133], [2255, 2255, 642, 642]]
    assert data.test.images.path(0).endswith("001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg")
    assert (data.test.labels[0], data.test.groups[0]) == (1, 3)  # type: ignore[index]
    labels = corrupt(folder / "metadata.csv", folder / "metadata_0.3r.csv", int(0.3 * 4795))
    noisy = Waterbirds(corrupted_rate=0.3).load(tmp_path)
    assert noisy.given_labels is not None and noisy.given_labels.tolist() == labels and noisy.canonical
    assert (noisy.given_labels != data.train.labels).sum() == 1438  # the count of the card
    assert "1,438 training labels are flipped, the authors' script flips 1,438" in noisy.notes[0]


def test_the_variant_in_circulation_is_refused_by_name(tmp_path: Path) -> None:
    packed = shared_data("waterbirds") / "metadata-variant-3525.csv.xz"
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "metadata.csv").write_bytes(lzma.decompress(packed.read_bytes()))
    with pytest.raises(DataError, match="this is the regenerated variant 3525/186/54/1030, not the official Waterbirds"):
        Waterbirds().load(tmp_path)
    assert "variant 3525/186/54/1030" in Waterbirds().check(tmp_path)[-1].text
