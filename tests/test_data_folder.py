"""image-folder: lists and folders of one's own, their identity, sizes, splits, and every fault named with file and line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from resident_trees import image_folder, own_list, own_rows, picture

from bench.data import DataError, load
from bench.data.files import FileImages
from bench.data.image_folder import ImageFolder
from bench.fields import FieldError

OWN = {"folder": "own", "csv": "labels.csv", "size": 16}


def own(root: Path, rows: list[dict[str, str]], **params: Any) -> ImageFolder:
    own_list(root, rows)
    return ImageFolder(**{**OWN, **params})


def columns(*names: str) -> list[dict[str, str]]:
    return [{name: row[name] for name in ("image", *names)} for row in own_rows()]


def class_folders(root: Path, parts: tuple[str, ...] = ("",), count: int = 5) -> Path:
    for part in parts:
        for c, name in enumerate(("ant", "bee", "cow")):
            for i in range(count):
                picture(root / "own" / part / name / f"{i:02d}.png", 20, 20, seed=10 * c + i)
    return root / "own"


# --- lists


def test_a_list_with_all_columns(tmp_path: Path) -> None:
    data = image_folder(tmp_path).load(tmp_path)
    rows = own_rows()
    names = ("ant", "bee", "cow")
    assert data.class_names == names and data.group_names == ("a", "b") and data.notes == ()
    for split, part in (("train", data.train), ("val", data.val), ("test", data.test)):
        chosen = [row for row in rows if row["split"] == split]
        assert part is not None and part.images.shape == (len(chosen), 3, 16, 16) and part.images.dtype == np.uint8
        assert part.labels.tolist() == [names.index(row["clean_label"]) for row in chosen]  # the true ones
        assert part.groups is not None and part.groups.tolist() == ["ab".index(row["group"]) for row in chosen]
    assert data.given_labels is not None and data.true_labels_known
    assert data.given_labels.tolist() == [names.index(row["label"]) for row in rows if row["split"] == "train"]
    assert (data.given_labels != data.train.labels).sum() == 2


def test_pixels_are_those_of_the_files(tmp_path: Path) -> None:
    own_list(tmp_path, own_rows(), size=(16, 16))
    for size in (16, 0):  # as they are
        data = ImageFolder(**{**OWN, "size": size}).load(tmp_path)
        with Image.open(tmp_path / "own/images/012.png") as image:
            expected = np.asarray(image).transpose(2, 0, 1)
        assert (data.train.images[6] == expected).all()  # train rows are 0-5, 12-17


def test_other_sizes_are_resized_and_cropped(tmp_path: Path) -> None:
    rows = columns("label", "split")
    for i, row in enumerate(rows):
        picture(tmp_path / "own" / row["image"], 20 + i, 40, seed=i)
    data = own(tmp_path, rows, size=8).load(tmp_path)
    assert data.train.images.shape[1:] == (3, 8, 8) and data.train.resident


def test_large_images_stay_in_their_files(tmp_path: Path) -> None:
    data = own(tmp_path, columns("label", "group", "split"), size=100).load(tmp_path)
    images = data.train.images
    assert isinstance(images, FileImages) and images.shape == (3, 100, 100) and len(images) == 12 and not data.train.resident
    assert images.fetch(np.array([3, 0])).shape == (2, 3, 100, 100)
    draws = np.array([[0.0, 0.5, 0.2, 0.9]])
    assert images.fetch(np.array([0]), draws).shape == (1, 3, 100, 100)
    assert data.channel_statistics[0] == (0.485, 0.456, 0.406) and (data.pad, data.flip) == (0, True)
    assert own(tmp_path, columns("label", "split"), size=96).load(tmp_path).train.resident


def test_labels_alone_count_as_true_unless_said_otherwise(tmp_path: Path) -> None:
    data = own(tmp_path, columns("label", "split")).load(tmp_path)
    assert data.true_labels_known and data.given_labels is None and data.group_names is None and data.train.groups is None
    assert not own(tmp_path, columns("label", "split"), noisy=True).load(tmp_path).true_labels_known


def test_numbers_as_labels(tmp_path: Path) -> None:
    rows = [{**row, "label": str(["ant", "bee", "cow"].index(row["label"]))} for row in columns("label", "split")]
    data = own(tmp_path, rows).load(tmp_path)
    assert data.class_names == ("0", "1", "2")
    named = own(tmp_path, rows, classes=["cow", "bee", "ant", "dog"]).load(tmp_path)
    assert named.class_names == ("cow", "bee", "ant", "dog") and (named.train.labels == data.train.labels).all()


def test_names_and_order_of_classes(tmp_path: Path) -> None:
    rows = columns("label", "split")
    data = own(tmp_path, rows, classes=["cow", "ant", "bee"]).load(tmp_path)
    assert data.class_names == ("cow", "ant", "bee")
    assert data.train.labels.tolist() == [("cow", "ant", "bee").index(r["label"]) for r in rows if r["split"] == "train"]


def test_groups_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    rows = [{**row, "group": str(10 - i % 3)} for i, row in enumerate(columns("label", "group", "split"))]
    data = own(tmp_path, rows).load(tmp_path)
    assert data.group_names == ("8", "9", "10")
    assert data.train.groups is not None and data.train.groups[:3].tolist() == [2, 1, 0]


def test_a_test_set_is_drawn_where_none_is_named(tmp_path: Path) -> None:
    rows = columns("label")
    rows = rows * 1
    labels = [row["label"] for row in rows]
    for fraction in (0.2, 0.5):
        dataset = own(tmp_path, rows, test_fraction=fraction)
        data = dataset.load(tmp_path)
        counts = np.bincount(data.test.labels, minlength=3)
        assert counts.tolist() == [round(fraction * labels.count(name)) for name in ("ant", "bee", "cow")]
        assert len(data.train) + len(data.test) == 24 and data.val is None
        assert data.fingerprint == own(tmp_path, rows, test_fraction=fraction).load(tmp_path).fingerprint
        images = np.concatenate([data.train.images, data.test.images])
        assert len(np.unique(images.reshape(24, -1), axis=0)) == 24


# --- faults of lists


def edit(line: int, column: int, value: str) -> Any:
    """Replaces one entry of a list; lines count from 1, the header is the first."""

    def change(text: str) -> str:
        lines = text.splitlines()
        entries = lines[line - 1].split(",")
        entries[column] = value
        lines[line - 1] = ",".join(entries)
        return "\n".join(lines) + "\n"

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edit(5, 0, "images/nothing.png"), r"images/nothing.png: the picture is missing.*labels.csv:5"),
        (edit(5, 0, "../elsewhere.png"), "labels.csv:5: .*not a path below"),
        (edit(5, 0, "/etc/hosts"), "labels.csv:5: .*not a path below"),
        (edit(5, 0, "images/000.png"), "labels.csv:5: images/000.png is listed twice .also in line 2"),
        (edit(5, 0, "images/../images/./000.png"), "labels.csv:5: images/000.png is listed twice"),
        (edit(5, 1, "-1"), "labels.csv:5: label '-1' is a number, others are names"),
        (edit(5, 1, ""), "labels.csv:5: 'label' is empty"),
        (edit(5, 4, "dev"), "labels.csv:5: split 'dev' is unknown .train, val or test"),
        (edit(5, 4, "train,more"), "labels.csv:5: 6 entries .the header has 5"),
        (edit(1, 3, "grp"), "labels.csv:1: unknown column 'grp' .did you mean group"),
        (edit(1, 3, "label"), "labels.csv:1: column 'label' occurs twice"),
        (edit(1, 0, "label"), "labels.csv:1: column 'label' occurs twice"),
        (edit(1, 1, "split"), "labels.csv:1: column 'split' occurs twice"),
        (lambda text: text.replace("image,", ",", 1), "labels.csv:1: unknown column ''"),
        (lambda text: text.replace("\n", "\n\n", 3), "labels.csv:2: a blank line"),
        (lambda text: text.splitlines()[0] + "\n", "labels.csv: the list has no rows"),
        (lambda text: "", "labels.csv:1: there is no column 'image'"),
        (lambda text: text.replace("train", "val"), "labels.csv: no image is for train"),
        (lambda text: text.replace("test", "val"), "labels.csv: no image is for test"),
        (lambda text: text.replace("ant", '"ant'), "labels.csv:.*(not CSV|entries)"),
    ],
)
def test_faults_of_a_list_are_named_with_their_line(tmp_path: Path, change: Any, words: str) -> None:
    path = own_list(tmp_path, own_rows())
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=words):
        ImageFolder(**OWN).load(tmp_path)
    report = ImageFolder(**OWN).check(tmp_path)
    assert [finding.ok for finding in report] == [False] or not report[-1].ok


def test_a_list_without_labels(tmp_path: Path) -> None:
    own_list(tmp_path, columns("split"))
    with pytest.raises(DataError, match="labels.csv:1: there is no column 'label'"):
        ImageFolder(**OWN).load(tmp_path)


@pytest.mark.parametrize(
    ("labels", "params", "words"),
    [
        (["0", "1", "-1"], {}, "labels.csv:4: label '-1' is out of range"),
        (["0", "1", "01"], {}, "labels.csv:4: label '01' is out of range"),
        (["0", "1", "9"], {}, "labels.csv:4: label '9' occurs, but label 2 does not|label 9 occurs, but label 2 does not"),
        (["0", "1", "3"], {"classes": ["x", "y", "z"]}, "labels.csv:4: label '3' is out of range .valid: x, y, z"),
        (["x", "y", "zz"], {"classes": ["x", "y", "z"]}, "labels.csv:4: label 'zz' is out of range .did you mean z"),
        (["x", "y", "1"], {}, "labels.csv:4: label '1' is a number, others are names"),
    ],
)
def test_labels_out_of_range(tmp_path: Path, labels: list[str], params: dict[str, Any], words: str) -> None:
    rows = [{**row, "label": labels[i % 3]} for i, row in enumerate(columns("label", "split"))]
    with pytest.raises(DataError, match=words):
        own(tmp_path, rows, **params).load(tmp_path)


@pytest.mark.parametrize("size", [16, 100])
def test_unreadable_images_are_named(tmp_path: Path, size: int) -> None:
    dataset = own(tmp_path, own_rows(), size=size)
    (tmp_path / "own/images/013.png").write_bytes(b"no picture")
    words = "images/013.png: the picture cannot be read.*labels.csv:15"
    with pytest.raises(DataError, match=words):
        data = dataset.load(tmp_path)
        data.train.images.fetch(np.arange(12))
    bad = [finding.text for finding in dataset.check(tmp_path) if not finding.ok]
    assert len(bad) == 1 and "images/013.png" in bad[0]


def test_mixed_sizes_are_an_error_without_a_size(tmp_path: Path) -> None:
    rows = columns("label", "split")
    picture(tmp_path / "own" / rows[7]["image"], 18, 20)
    with pytest.raises(DataError, match="images/007.png: the picture is 18x20, not 20x20.*labels.csv:9"):
        own(tmp_path, rows, size=0).load(tmp_path)
    assert own(tmp_path, rows, size=12).load(tmp_path).train.images.shape[-1] == 12


@pytest.mark.parametrize("size", [(20, 18), (97, 97)])
def test_pictures_that_need_a_size(tmp_path: Path, size: tuple[int, int]) -> None:
    own_list(tmp_path, columns("label", "split"), size=size)
    with pytest.raises(DataError, match=f"the picture is {size[0]}x{size[1]} .give `size`"):
        ImageFolder(folder="own", csv="labels.csv").load(tmp_path)


def test_lists_that_are_no_text(tmp_path: Path) -> None:
    path = own_list(tmp_path, own_rows())
    path.write_bytes(b"image,label\nx\xff.png,ant\n")
    with pytest.raises(DataError, match="labels.csv: the list is not UTF-8"):
        ImageFolder(**OWN).load(tmp_path)
    with pytest.raises(DataError, match="other.csv: the list cannot be read"):
        ImageFolder(**{**OWN, "csv": "other.csv"}).load(tmp_path)


def test_lists_from_spreadsheets(tmp_path: Path) -> None:
    """A byte order mark, CR LF, blanks around entries and quotes do not matter."""
    path = own_list(tmp_path, own_rows())
    expected = ImageFolder(**OWN).load(tmp_path).fingerprint
    rows = path.read_text().splitlines()
    text = "\r\n".join(", ".join(f'"{entry}"' if i else entry for entry in row.split(",")) for i, row in enumerate(rows))
    path.write_bytes(b"\xef\xbb\xbf" + text.replace(', "', ',"').encode() + b"\r\n")
    assert ImageFolder(**OWN).load(tmp_path).fingerprint == expected


# --- folders


def test_a_folder_per_class(tmp_path: Path) -> None:
    class_folders(tmp_path)
    data = ImageFolder(folder="own", test_fraction=0.4).load(tmp_path)
    assert data.class_names == ("ant", "bee", "cow")
    assert np.bincount(data.train.labels).tolist() == [3, 3, 3] and np.bincount(data.test.labels).tolist() == [2, 2, 2]
    assert data.train.images.shape == (9, 3, 20, 20)


def test_folders_of_splits(tmp_path: Path) -> None:
    class_folders(tmp_path, ("train", "val", "test"))
    data = ImageFolder(folder="own").load(tmp_path)
    assert data.val is not None and [len(part) for part in (data.train, data.val, data.test)] == [15, 15, 15]
    assert data.train.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert len(ImageFolder(folder="own", classes=["bee", "ant", "cow", "dog"]).load(tmp_path).class_names) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: shutil.rmtree(folder / "test"), "there is a folder train, but none named test"),
        (lambda folder: (folder / "test/bee").rename(folder / "test/ben"), "test/ben: a class that has no training images .*bee"),
        (lambda folder: (folder / "train/dog").mkdir(), "train/dog: the folder of a class has no images"),
        (lambda folder: picture(folder / "train/x.png", 20, 20), "train/x.png: an image that is in no folder of a class"),
        (lambda folder: [shutil.rmtree(p) for p in (folder / "train").iterdir()], "train: there are no folders of classes"),
        (lambda folder: shutil.rmtree(folder), "own: the folder is missing"),
        (lambda folder: (folder / "val/ant/00.png").write_bytes(b""), "val/ant/00.png: the picture is an empty file"),
    ],
)
def test_faults_of_folders_are_named(tmp_path: Path, change: Any, words: str) -> None:
    change(class_folders(tmp_path, ("train", "val", "test")))
    with pytest.raises(DataError, match=words):
        ImageFolder(folder="own").load(tmp_path)


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_linked_folders_are_looked_into(tmp_path: Path, parts: tuple[str, ...]) -> None:
    folder = class_folders(tmp_path, parts)
    elsewhere = class_folders(tmp_path / "elsewhere") / "ant"
    linked = folder / parts[0] / "ant/more"
    picture(elsewhere / "deep/x.png", 20, 20, seed=77)
    before = len(ImageFolder(folder="own").load(tmp_path).train)
    linked.symlink_to(elsewhere)
    through_links = ImageFolder(folder="own").load(tmp_path)
    linked.unlink()
    shutil.copytree(elsewhere, linked)
    assert through_links.fingerprint == ImageFolder(folder="own").load(tmp_path).fingerprint
    assert len(through_links.train) == before + (6 if parts[0] else 5)


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_a_loop_of_links_ends(tmp_path: Path, parts: tuple[str, ...]) -> None:
    folder = class_folders(tmp_path, parts)
    before = ImageFolder(folder="own").load(tmp_path).fingerprint
    ant = folder / parts[0] / "ant"
    (ant / "itself").symlink_to(ant)
    (ant / "everything").symlink_to(folder)  # would make all pictures ants
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/back").symlink_to(ant)
    (ant / "more").symlink_to(tmp_path / "elsewhere")
    assert ImageFolder(folder="own").load(tmp_path).fingerprint == before


def test_what_is_not_used_is_said(tmp_path: Path) -> None:
    folder = class_folders(tmp_path, ("train", "test"))
    (folder / "train/ant/notes.txt").write_text("x")
    (folder / "train/ant/.hidden").write_text("x")
    (folder / "unlabelled").mkdir()
    data = ImageFolder(folder="own").load(tmp_path)
    assert len(data.train) == 15 and data.notes == (
        "the folder 'unlabelled' was not used",
        "1 files that are no images were not used, for example train/ant/notes.txt",
    )
    assert not any(str(tmp_path) in note for note in data.notes)  # notes go into records


# --- identity


def test_identity_has_no_path_and_pins_the_content(tmp_path: Path) -> None:
    for place in ("here", "there"):
        own_list(tmp_path / place, own_rows())
    here, there = (ImageFolder.planned(dict(OWN), tmp_path / place) for place in ("here", "there"))
    assert here == there and len(here["content"]) == 16
    identity = ImageFolder.identity(here)
    assert str(tmp_path) not in str(identity) and identity["folder"] == "own" and identity["content"] == here["content"]
    assert load({"name": "image-folder", "revision": "1", **identity}, tmp_path / "here").num_classes == 3


def test_a_pinned_content_is_kept_and_needs_no_files(tmp_path: Path) -> None:
    pinned = {**OWN, "content": "0123456789abcdef"}
    assert ImageFolder.planned(pinned, tmp_path) == pinned
    own_list(tmp_path, own_rows())
    with pytest.raises(DataError, match="own: the content is .* .the suite pins 0123456789abcdef"):
        ImageFolder(**pinned).load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("images/005.png,cow", "images/005.png,ant"),
        lambda text: text.replace(",b,", ",c,"),
        lambda text: text.replace("images/009.png,ant,ant,a,test", "images/009.png,ant,ant,a,val"),
        lambda text: text.replace("cow,ant", "bee,ant"),
        lambda text: "\n".join([text.splitlines()[0], *text.splitlines()[:0:-1]]) + "\n",
        lambda text: "\n".join(text.splitlines()[:-1]) + "\n",
        lambda text: text.replace("ant", "elk"),
    ],
)
def test_the_content_changes_with_the_list(tmp_path: Path, change: Any) -> None:
    path = own_list(tmp_path, own_rows())
    before = ImageFolder.planned(dict(OWN), tmp_path)
    text = path.read_text()
    path.write_text(change(text))
    assert path.read_text() != text
    after = ImageFolder.planned(dict(OWN), tmp_path)
    assert after["content"] != before["content"]
    with pytest.raises(DataError, match=f"the suite pins {before['content']}"):
        ImageFolder(**before).load(tmp_path)


def test_the_content_changes_with_the_files(tmp_path: Path) -> None:
    own_list(tmp_path, own_rows())
    before = ImageFolder.planned(dict(OWN), tmp_path)
    picture(tmp_path / "own/images/004.png", 30, 30, seed=99)
    assert ImageFolder.planned(dict(OWN), tmp_path) != before


@pytest.mark.parametrize("name", ["", "a/b", "/tmp", "..", "../x", ".", "a\\b", ".hidden"])
def test_paths_are_no_names(tmp_path: Path, name: str) -> None:
    for call in (lambda: ImageFolder.planned({"folder": name}, tmp_path), lambda: ImageFolder(folder=name).load(tmp_path)):
        with pytest.raises(FieldError, match="not a path"):
            call()
    if name:
        with pytest.raises(FieldError, match="csv: .*not a path"):
            ImageFolder.planned({"folder": "own", "csv": name}, tmp_path)
    assert not ImageFolder(folder=name).check(tmp_path)[0].ok


def test_planning_needs_the_files_or_a_pin(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="own: the folder is missing .*below the data folder"):
        ImageFolder.planned({"folder": "own"}, tmp_path)


def test_a_class_named_twice(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="classes: a class is named twice"):
        own(tmp_path, own_rows(), classes=["ant", "ant"]).load(tmp_path)


def test_check_tells_the_content(tmp_path: Path) -> None:
    findings = image_folder(tmp_path).check(tmp_path)
    assert all(finding.ok for finding in findings)
    assert findings[0].text == f"content: {ImageFolder.planned(dict(OWN), tmp_path)['content']}"
    assert findings[1].text == "train: 12 images 3x16x16; per class ant 4, bee 4, cow 4; per group a 6, b 6"
    assert any(finding.text == "given labels: 2 of 12 are wrong, 16.67%" for finding in findings)


def test_faults_end_with_the_command_that_examines_this_folder(tmp_path: Path) -> None:
    root = tmp_path / "my data"
    with pytest.raises(DataError) as caught:
        ImageFolder(folder="own").load(root)
    assert str(caught.value).endswith(f"; see: bench data check image-folder --root '{root}' --set folder=own")
    own_list(tmp_path, [{"image": "x.png"}])
    with pytest.raises(DataError) as caught:
        ImageFolder(**OWN).load(tmp_path)
    assert str(caught.value).endswith(f" --root {tmp_path} --set folder=own --set csv=labels.csv")
