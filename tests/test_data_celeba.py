"""CelebA: both forms of the lists, partition and groups, strictness; on a miniature and on the real lists."""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

import numpy as np
import pytest
from miniature_trees import ATTRIBUTES, TinyCelebA, celeba, celeba_rows, picture, shared_data, write
from PIL import Image
from torchvision import transforms

from bench.data import DataError, Loaded
from bench.data.celeba import CelebA


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return celeba(tmp_path)().load(tmp_path)


def edit(path: Path, row: int, text: str | None) -> None:
    """Replace a line, or drop it."""
    lines = path.read_bytes().split(b"\n")
    lines[row : row + 1] = [] if text is None else [text.encode()]
    path.write_bytes(b"\n".join(lines))


def test_partition_and_groups(loaded: Loaded, tmp_path: Path) -> None:
    rows = celeba_rows()
    for number, split in enumerate((loaded.train, loaded.val, loaded.test)):
        mine = [(name, values) for name, values, part in rows if part == number]
        assert split is not None and split.groups is not None
        assert [Path(split.images.path(i)).name for i in range(len(split))] == [name for name, _ in mine]
        assert split.labels.tolist() == [int(values[2] == 1) for _, values in mine]
        assert (split.groups - 2 * split.labels).tolist() == [int(values[3] == 1) for _, values in mine]
        assert np.bincount(split.groups, minlength=4).tolist() == list(list(TinyCelebA.OFFICIAL.values())[number])
    assert loaded.class_names == ("not blond", "blond") and loaded.group_names is not None
    assert loaded.group_names[3] == "blond/male" and loaded.flip and loaded.pad == 0 and not loaded.canonical


def test_the_kaggle_edition_is_the_same_data(loaded: Loaded, tmp_path: Path) -> None:
    other = celeba(tmp_path / "kaggle", kaggle=True)().load(tmp_path / "kaggle")
    assert other.fingerprint == loaded.fingerprint
    assert "celebA/data/img_align_celeba/img_align_celeba/0000" in other.train.images.path(0)
    # the line of a picture is that in its own list, which has a header
    assert (other.train.images.lines == loaded.train.images.lines + 1).all()


def test_evaluation_is_the_central_178_resized(loaded: Loaded) -> None:
    transform = transforms.Compose([transforms.CenterCrop(178), transforms.Resize((224, 224))])
    got = loaded.val.images.fetch(np.arange(4))  # type: ignore[union-attr]
    for position in range(4):
        wanted = np.array(transform(Image.open(loaded.val.images.path(position)))).transpose(2, 0, 1)  # type: ignore[union-attr]
        assert np.abs(got[position].astype(int) - wanted).max() <= 1


def test_training_views(tmp_path: Path) -> None:
    cls = celeba(tmp_path)
    draws = np.random.Generator(np.random.PCG64(0)).random((8, 4))
    geometry = cls().load(tmp_path).train.images.geometry
    assert (geometry.train, geometry.scale, geometry.ratio) == ("random-resized-crop", (0.7, 1.0), (1.0, 4 / 3))
    data = cls(augmentation="centre", crop=64).load(tmp_path)
    assert not data.flip and data.train.images.shape == (3, 64, 64)
    assert (data.train.images.fetch(np.arange(8), draws) == data.train.images.fetch(np.arange(8))).all()


@pytest.mark.parametrize(
    ("file", "row", "text", "words"),
    [
        ("list_attr_celeba.txt", 4, "000003.jpg 1 -1 0 1 1", "txt:5: Blond_Hair is '0' .must be 1 or -1"),
        ("list_attr_celeba.txt", 4, "000004.jpg 1 -1 1 1 1", "txt:5: '000004.jpg' instead of 000003.jpg"),
        ("list_attr_celeba.txt", 4, "000003.jpg 1 -1 1 1", "txt:5: 5 values instead of 6"),
        ("list_attr_celeba.txt", 18, None, "list_attr_celeba.txt: 16 rows, truncated .official: 17"),
        ("list_attr_celeba.txt", 0, "16", "16 rows announced, truncated .official: 17"),
        ("list_attr_celeba.txt", 1, "a b c d e", "txt:2: no column 'Blond_Hair'"),
        ("list_eval_partition.txt", 2, "000003.jpg 3", "partition.txt:3: partition '3' is out of range"),
        ("list_eval_partition.txt", 16, None, "list_eval_partition.txt: 16 rows, truncated"),
        ("list_eval_partition.txt", 17, "000018.jpg 0", "18 rows, not the official list .official: 17"),
    ],
)
def test_lists_are_read_strictly(file: str, row: int, text: str | None, words: str, tmp_path: Path) -> None:
    cls = celeba(tmp_path)
    edit(tmp_path / "celeba" / file, row, text)
    with pytest.raises(DataError, match=words):
        cls().load(tmp_path)
    assert not cls().check(tmp_path)[-1].ok


def test_wrong_groups_are_refused(tmp_path: Path) -> None:
    cls = celeba(tmp_path)
    rows = celeba_rows()
    number = next(i for i, (_, values, part) in enumerate(rows) if part == 2 and values[3] == 1)
    values = " ".join(str(-x if i == 3 else x) for i, x in enumerate(rows[number][1]))
    edit(tmp_path / "celeba/list_attr_celeba.txt", number + 2, f"{rows[number][0]} {values}")
    with pytest.raises(DataError, match="group counts are not official: test .* instead of 2/1/1/1"):
        cls().load(tmp_path)


def test_pictures_missing_extra_and_of_a_wrong_size(tmp_path: Path) -> None:
    cls = celeba(tmp_path)
    pictures = tmp_path / "celeba/img_align_celeba"
    extra = picture(pictures / "000018.jpg", 178, 218)
    small = picture(pictures / "000005.jpg", 178, 217)
    wrong = [finding.text for finding in cls().check(tmp_path) if not finding.ok]
    assert len(wrong) == 2 and f"{small}: the picture is 178x217, not 178x218" in wrong[0] and str(extra) in wrong[1]
    small.unlink()
    with pytest.raises(DataError, match="000005.jpg: the picture is missing .*list_eval_partition.txt:5"):
        cls().load(tmp_path)
    pictures.rename(tmp_path / "gone")
    (tmp_path / "celeba/img_align_celeba.zip").write_bytes(b"")
    with pytest.raises(DataError, match="the folder of pictures is missing .unpack img_align_celeba.zip"):
        cls().load(tmp_path)
    with pytest.raises(DataError, match="celeba is not here"):
        cls().load(tmp_path / "celeba/none")
    assert [finding.ok for finding in cls().check(tmp_path / "none")] == [False, False]


def test_corrupted_label_files(tmp_path: Path) -> None:
    cls = celeba(tmp_path, kaggle=True)
    folder, rows = tmp_path / "celebA/data", celeba_rows()
    flipped = [number for number, row in enumerate(rows) if row[2] == 0][:2]

    def corrupted(change: list[int]) -> None:
        lines = ["image_id," + ",".join(ATTRIBUTES)]
        for number, (name, values, _) in enumerate(rows):
            values = [-x if i == 2 and number in change else x for i, x in enumerate(values)]
            lines.append(f"{name},{','.join(map(str, values))}")
        write(folder / "list_attr_celeba_0.3r.csv", lines)

    corrupted(flipped)
    clean, data = cls().load(tmp_path), cls(corrupted_rate=0.3).load(tmp_path)
    assert data.given_labels is not None and (data.train.labels == clean.train.labels).all()
    assert np.flatnonzero(data.given_labels != data.train.labels).tolist() == [0, 1]
    assert data.notes[-1] == "list_attr_celeba_0.3r.csv: 2 training labels are flipped, the authors' script flips 2"
    held_out = next(number for number, row in enumerate(rows) if row[2] == 1)
    corrupted([*flipped, held_out])
    with pytest.raises(DataError, match=f"0.3r.csv:{held_out + 2}: a label of val or test was changed"):
        cls(corrupted_rate=0.3).load(tmp_path)


# --- the real lists


def test_a_truncated_download_of_the_real_list(tmp_path: Path) -> None:
    packed = shared_data("celeba")
    for name in ("list_attr_celeba.first20000.txt", "list_eval_partition.txt"):
        target = tmp_path / "celeba" / name.replace(".first20000", "")
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(lzma.decompress((packed / f"{name}.xz").read_bytes()))
    with pytest.raises(DataError, match="list_attr_celeba.txt: 20,000 rows, truncated .official: 202,599"):
        CelebA().load(tmp_path)


def test_the_real_attributes_of_the_first_20_000(tmp_path: Path) -> None:
    class First20000(CelebA):
        OFFICIAL = {"train": (8778, 8245, 2791, 186)}  # counted in README.md beside the file

    packed = shared_data("celeba") / "list_attr_celeba.first20000.txt.xz"
    content = lzma.decompress(packed.read_bytes()).replace(b"202599", b"20000", 1)
    (tmp_path / "list.txt").write_bytes(content)
    blond, male = First20000()._attributes(tmp_path / "list.txt", ("Blond_Hair", "Male"))
    assert np.bincount(2 * blond + male).tolist() == [8778, 8245, 2791, 186]


def test_the_real_partition_and_gender(tmp_path: Path) -> None:
    """The complete attribute list is not at hand: Blond_Hair is stood in for by Attractive where it is unknown."""
    source = shared_data("celeba")
    columns = np.load(source / "celeba-columns.npz")
    (tmp_path / "list_eval_partition.txt").write_bytes(
        lzma.decompress((source / "list_eval_partition.txt.xz").read_bytes())
    )
    pairs = zip((2 * columns["attractive"].astype(int) - 1).tolist(), (2 * columns["male"].astype(int) - 1).tolist(), strict=True)
    rows = (f"{number:06d}.jpg,{one},{other}" for number, (one, other) in enumerate(pairs, 1))
    write(tmp_path / "list_attr_celeba.csv", ["image_id,Blond_Hair,Male", *rows])
    stand_in, male, partition = CelebA().read(tmp_path)
    assert (stand_in == columns["attractive"]).all() and (male == columns["male"]).all()
    assert (partition == columns["partition"]).all()
    for number, (split, counts) in enumerate(CelebA.OFFICIAL.items()):
        chosen = partition == number
        assert sum(counts) == chosen.sum() and counts[1] + counts[3] == male[chosen].sum(), split
    assert hashlib.sha256(partition.astype(np.uint8).tobytes() + male.astype(np.uint8).tobytes()).hexdigest() == CelebA.CONTENT
    with pytest.raises(DataError, match="group counts are not official: train "):
        CelebA().load(tmp_path)
