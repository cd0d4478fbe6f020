"""WebVision: the subset and the full set, both test sets, the arrangements of ILSVRC12; miniature and real class lists."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniature_trees import (
    GOOGLE,
    ILSVRC,
    WNIDS,
    TinyImageNetVal,
    TinyWebVision,
    TinyWebVision50,
    ilsvrc_validation,
    picture,
    shared_data,
    webvision,
    write,
)
from PIL import Image
from torchvision import transforms

from bench.data import DataError, Loaded
from bench.data.webvision import ImageNetVal, WebVision, WebVision50, _sha256


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return webvision(tmp_path)().load(tmp_path)


def names(images: Any) -> list[str]:
    return [Path(images.path(i)).name for i in range(len(images))]


def replace_line(path: Path, row: int, text: str | None) -> None:
    lines = path.read_text().splitlines()
    lines[row : row + 1] = [] if text is None else [text]
    write(path, lines)


def test_the_subset(loaded: Loaded, tmp_path: Path) -> None:
    kept = [i for i, label in enumerate(GOOGLE) if label < 3]
    assert loaded.train.labels.tolist() == [GOOGLE[i] for i in kept]
    assert loaded.train.images.path(3) == str(tmp_path / f"webvision/google/q0003/a+b-{kept[3]}_x.jpg")
    assert loaded.train.images.lines.tolist() == [i + 1 for i in kept]
    assert names(loaded.test.images) == [f"val{i + 1:06d}.jpg" for i in range(12) if i % 6 < 3]
    assert loaded.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert loaded.class_names == ("tench", "goldfish", "crane (n01484850)")  # two classes are called crane
    assert loaded.top_k == (1, 5) and loaded.flip and loaded.pad == 0 and not loaded.true_labels_known
    assert loaded.val is None and loaded.given_labels is None
    assert loaded.normalisation == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert not loaded.canonical and loaded.notes == ("the wnids of synsets.txt are not the official ones",)
    assert loaded.train.images.shape == (3, 227, 227)


def test_the_full_set(tmp_path: Path) -> None:
    webvision(tmp_path)
    data = TinyWebVision().load(tmp_path)
    assert (len(data.train), len(data.test)) == (20, 12) and data.test2 is not None and len(data.test2) == 12
    assert data.train.labels.tolist() == GOOGLE + list(range(6)) and data.train.images.shape == (3, 224, 224)
    assert len(TinyWebVision(source="flickr").load(tmp_path).train) == 6
    assert len(TinyWebVision(source="google").load(tmp_path).train) == 14
    geometry = data.train.images.geometry
    assert (geometry.train, geometry.scale, geometry.resize) == ("random-resized-crop", (0.08, 1.0), 256)


@pytest.mark.parametrize("arrangement", [1, 2, 3, 4])
def test_every_arrangement_of_ilsvrc_is_read_alike(arrangement: int, tmp_path: Path) -> None:
    data = webvision(tmp_path, ilsvrc=arrangement)().load(tmp_path)
    kept = [i for i, label in enumerate(ILSVRC) if label < 3]
    assert data.test2 is not None and data.test2_name == "ILSVRC12"
    assert names(data.test2.images) == [f"ILSVRC2012_val_{i + 1:08d}.JPEG" for i in kept]
    assert data.test2.labels.tolist() == [ILSVRC[i] for i in kept] == [1, 2, 0, 2, 1, 0]
    assert (data.test2.images.lines is None) == (arrangement in (1, 3))
    full = TinyImageNetVal()
    (tmp_path / "webvision/imagenet").rename(tmp_path / "imagenet")  # beside WebVision's folder
    split = full.test_split(tmp_path)
    assert split.labels.tolist() == ILSVRC and len(names(split.images)) == 12
    assert all(finding.ok for finding in full.check(tmp_path))
    again = TinyWebVision50().load(tmp_path).test2
    assert again is not None and again.labels.tolist() == data.test2.labels.tolist()


def test_the_trap_of_the_development_kit(tmp_path: Path) -> None:
    cls = webvision(tmp_path, ilsvrc=4)
    base = tmp_path / "webvision/imagenet"
    kit = base / "data/ILSVRC2012_validation_ground_truth.txt"
    (base / "data/ILSVRC2012_validation_to_webvision_labels_ground_truth.txt").rename(kit)
    with pytest.raises(DataError, match="ILSVRC2012_validation_ground_truth.txt: this file .* in its own order"):
        cls().load(tmp_path)
    kit.unlink()
    with pytest.raises(DataError, match="imagenet: pictures without labels .sort them into folders named by wnid"):
        cls().load(tmp_path)


@pytest.mark.parametrize(
    ("arrangement", "fault", "words"),
    [
        (1, "remove", "1 of 3 classes do not have 2 pictures: label 1 has 1"),
        (3, "remove", "label 1 has 1 .read as folders named by wnid"), (2, "label", "imagenet_val.txt:2: label '6' is out of"),
        (4, "label", "ground_truth.txt:2: label '6' is out of range .must be in 0..5"),
        (4, "remove", "12 labels for 11 pictures"), (3, "folder", "1 of 3 class folders are missing, the first is n01443537"),
        (2, "remove", "ILSVRC2012_val_00000002.JPEG: the picture is missing .*imagenet_val.txt:2"),
        (1, "extra", "label 0 has 3"),
    ],
)  # fmt: skip
def test_faults_of_ilsvrc_are_named(arrangement: int, fault: str, words: str, tmp_path: Path) -> None:
    cls, base = webvision(tmp_path, ilsvrc=arrangement), tmp_path / "webvision/imagenet"
    below = {1: "val/1/", 2: "val/", 3: f"val/{WNIDS[1]}/", 4: ""}[arrangement]
    second = base / f"{below}ILSVRC2012_val_00000002.JPEG"
    if fault == "remove":
        second.unlink()
    elif fault == "folder":
        shutil.rmtree(second.parent)
    elif fault == "extra":
        picture(base / "val/0/ILSVRC2012_val_00000099.JPEG", 300, 300)
    elif arrangement == 2:
        replace_line(base / "imagenet_val.txt", 1, f"{second.name} 6")
    else:
        replace_line(base / "data/ILSVRC2012_validation_to_webvision_labels_ground_truth.txt", 1, "6")
    with pytest.raises(DataError, match=words):
        cls().load(tmp_path)
    assert not all(finding.ok for finding in cls().check(tmp_path))


def test_ilsvrc_may_be_left_out_by_saying_so(tmp_path: Path) -> None:
    cls = webvision(tmp_path, ilsvrc=None)
    with pytest.raises(DataError, match="webvision/imagenet: the ILSVRC12 validation pictures are not here"):
        cls().load(tmp_path)
    data = cls(ilsvrc=False).load(tmp_path)
    assert data.test2 is None and data.test2_name is None and len(data.test) == 6


def test_nothing_is_trained_on_imagenet_val(tmp_path: Path) -> None:
    ilsvrc_validation(tmp_path / "imagenet", 3)
    assert ImageNetVal.evaluation_only and not WebVision.evaluation_only
    with pytest.raises(DataError, match="imagenet-val is a test set only .it is delivered as second test set of webvision"):
        TinyImageNetVal().load(tmp_path)
    shutil.rmtree(tmp_path / f"imagenet/val/{WNIDS[0]}")
    with pytest.raises(DataError, match="5 folders named by wnid .6 are needed to tell their labels"):
        TinyImageNetVal().test_split(tmp_path)
    assert [finding.ok for finding in TinyImageNetVal().check(tmp_path)] == [False]


@pytest.mark.parametrize(
    ("file", "row", "text", "words"),
    [
        ("train_filelist_google.txt", 4, "google/q0003/a+b-4_x.jpg 6", "google.txt:5: label '6' is out of range"),
        ("train_filelist_google.txt", 4, "google/q0003/a+b-4_x.jpg", "google.txt:5: .* is not `<file> <label>`"),
        ("train_filelist_google.txt", 13, None, "train_filelist_google.txt: 13 lines, truncated .official: 14"),
        ("train_filelist_google.txt", 2, "google/q0001/a+b-0_x.jpg 1", "google.txt:3: google/q0001/a.b-0_x.jpg is listed twice"),
        ("val_filelist.txt", 11, None, "val_filelist.txt: 11 lines, truncated .official: 12"),
        ("val_filelist.txt", 0, "val000001.jpg 1", "label 0 has 1 pictures instead of 2"),
        ("val_filelist.txt", 1, "val000099.jpg 1", "val000099.jpg: the picture is missing .1 of 6 .*val_filelist.txt:2"),
        ("synsets.txt", 5, None, "synsets.txt: 5 classes, truncated .official: 6"),
        ("synsets.txt", 1, "n01440000 a", "synsets.txt:2: n01440000 is out of order"),
    ],
)
def test_lists_are_read_strictly(file: str, row: int, text: str | None, words: str, tmp_path: Path) -> None:
    cls = webvision(tmp_path)
    replace_line(tmp_path / "webvision/info" / file, row, text)
    with pytest.raises(DataError, match=words):
        cls().load(tmp_path)
    assert not all(finding.ok for finding in cls().check(tmp_path))


def test_missing_lists_and_folders(tmp_path: Path) -> None:
    cls = webvision(tmp_path)
    (tmp_path / "webvision/val_images_256").rename(tmp_path / "webvision/val_images")  # RRL reads the full-size pictures
    assert len(cls().load(tmp_path).test) == 6
    (tmp_path / "webvision/info/train_filelist_google.txt").unlink()
    with pytest.raises(DataError, match="train_filelist_google.txt: the training list is missing"):
        cls().load(tmp_path)
    with pytest.raises(DataError, match="webvision50 is not here .expected webvision/info/val_filelist.txt"):
        cls().load(tmp_path / "none")
    assert not any(finding.ok for finding in cls().check(tmp_path / "none"))


def test_labels_are_compared_with_queries(tmp_path: Path) -> None:
    cls = webvision(tmp_path)
    assert any(finding.text == "9 of 9 labels agree with their query" for finding in cls().check(tmp_path))
    replace_line(tmp_path / "webvision/info/train_filelist_google.txt", 0, "google/q0001/a+b-0_x.jpg 1")
    assert [f.text for f in cls().check(tmp_path) if not f.ok] == ["8 of 9 labels agree with their query"]


def test_the_size_that_papers_quote_is_remarked(tmp_path: Path) -> None:
    class Quoted(webvision(tmp_path)):  # type: ignore[misc]
        QUOTED = 10

    assert Quoted().load(tmp_path).notes[-1] == "9 training pictures; papers quote 10"


def test_the_transforms_of_the_papers(tmp_path: Path) -> None:
    cls = webvision(tmp_path)
    draws = np.random.Generator(np.random.PCG64(0)).random((9, 4))
    papers = {
        "DivideMix": ({}, [256], 227), "RRL": ({"resize": 320, "crop": 299, "scale_min": 0.4}, [320], 299),
        "Sel-CL": ({"crop": 224, "augmentation": "random-resized-crop", "scale_min": 0.2, "resize_first": True}, [256], 224),
    }  # fmt: skip
    for params, resize, crop in papers.values():
        data = cls(**params).load(tmp_path)
        transform = transforms.Compose([transforms.Resize(resize[0]), transforms.CenterCrop(crop)])
        for split in (data.test, data.test2):
            assert split is not None
            wanted = np.array(transform(Image.open(split.images.path(4)))).transpose(2, 0, 1)
            assert np.abs(split.images.fetch(np.array([4]))[0].astype(int) - wanted).max() <= 1
        assert data.train.images.fetch(np.arange(9), draws).shape == (9, 3, crop, crop)
        assert (data.train.images.fetch(np.arange(9), draws) != data.train.images.fetch(np.arange(9))).any()
    geometry = cls(**papers["Sel-CL"][0]).load(tmp_path).train.images.geometry
    assert geometry.scale == (0.2, 1.0) and geometry.resize_first


# --- the real class lists


def test_the_real_synsets(tmp_path: Path) -> None:
    (tmp_path / "info").symlink_to(shared_data("webvision"))
    wnids, names = WebVision50()._synsets(tmp_path)
    assert _sha256(wnids) == WebVision50.WNIDS and len(set(wnids)) == 1000
    assert len(names) == 50 and (names[0], names[7], names[21], names[49]) == ("tench", "cock", "kite", "African crocodile")
    assert (wnids[0], wnids[21], wnids[49]) == ("n01440764", "n01608432", "n01697457")
    everything = WebVision()._synsets(tmp_path)[1]
    assert len(set(everything)) == 1000  # crane and maillot stand for two classes each


def test_the_real_class_lists_in_a_tree(tmp_path: Path) -> None:
    """The real synsets and queries with a picture per query and class: labels 0..49 have queries 1..103."""

    class OnePerClass(WebVision50):
        PER_CLASS = 1
        LINES = {"google": 1631}  # queries are numbered to 1632; 587 is not in the map

    info = shared_data("webvision")
    folder = tmp_path / "webvision"
    (folder / "info").mkdir(parents=True)
    for name in ("synsets.txt", "queries_synsets_map.txt"):
        shutil.copy(info / name, folder / "info" / name)
    pairs = [line.split() for line in (info / "queries_synsets_map.txt").read_text().splitlines()]
    train = [f"google/q{int(query):04d}/x+{query}.jpg {int(synset) - 1}" for query, synset in pairs]
    write(folder / "info/train_filelist_google.txt", train)
    write(folder / "info/val_filelist.txt", [f"val{i + 1:06d}.jpg {i}" for i in range(1000)])
    wnids = [line.split()[0] for line in (info / "synsets.txt").read_text().splitlines()[:50]]
    for line in train[:103]:
        picture(folder / line.split()[0], 60, 40)
    for label, wnid in enumerate(wnids):
        picture(folder / f"val_images_256/val{label + 1:06d}.jpg", 40, 60)
        picture(folder / f"imagenet/val/{wnid}/ILSVRC2012_val_{1000 - label:08d}.JPEG", 40, 60)
    data = OnePerClass(resize=32, crop=28).load(tmp_path)
    assert data.canonical and len(data.train) == 103 and data.notes == ("103 training pictures; papers quote 65,944",)
    assert data.train.labels.tolist() == sorted(data.train.labels.tolist()) and set(data.train.labels) == set(range(50))
    assert data.test2 is not None and data.test2.labels.tolist() == list(range(49, -1, -1))
    findings = OnePerClass(resize=32, crop=28).check(tmp_path)
    assert all(finding.ok for finding in findings)
    assert "103 of 103 labels agree with their query" in [finding.text for finding in findings]
