"""Packs: equal to the files to the last bit, from one fetch to a whole trial; damaged, stale and interrupted ones are refused."""

from __future__ import annotations

import errno
import pickle
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from miniature_trees import picture, waterbirds, webvision
from PIL import Image
from small import TINY_CNN, make_cell

import bench.data
from bench.cli import main
from bench.data import DataError, Loaded, Split, _packing, files, packed
from bench.data.files import FileImages, Geometry, Paths, set_threads
from bench.data.image_folder import ImageFolder
from bench.data.packed import BLOCK, Pack, Place, attach, content_of, places
from bench.data.webvision import WebVision
from bench.method import method_class, methods
from bench.trial.runner import Options, run_cell

COUNT = 2 * BLOCK + 3  # three blocks, the last one not full

#: geometry -> what its raw pack holds
GEOMETRIES = {
    "random-crop": (Geometry(24, 28), "resized-28"),
    "square": (Geometry(24, (28, 31), "random-crop"), "resized-28x31"),
    "centre": (Geometry(44, (48, 48), "centre", 34), "centre-34-resized-48x48"),
    "resize-first": (Geometry(24, 28, "random-resized-crop", resize_first=True), "resized-28"),
    "as-it-is": (Geometry(24, 28, "random-resized-crop"), "pixels"),
    "as-it-is-centre-first": (Geometry(44, (48, 48), "random-resized-crop", 34), "pixels"),
}


@pytest.fixture(autouse=True)
def _default_threads() -> Iterator[None]:
    yield
    set_threads(None)


def index(root: Path, geometry: Geometry = GEOMETRIES["random-crop"][0], count: int = COUNT) -> FileImages:
    """JPEG and PNG pictures of different sizes, colour and grey."""
    names = [f"d{i % 3}/p{i:02d}.{'png' if i % 5 == 0 else 'jpg'}" for i in range(count)]
    for number, name in enumerate(names):
        if not (root / name).exists():
            picture(root / name, 40 + 3 * number, 140 - 2 * number, seed=number, mode="L" if number % 7 == 3 else "RGB")
    return FileImages(root, Paths.of(name.encode() for name in names), geometry, dataset="some-set")


def loaded(images: FileImages) -> Loaded:
    split = Split(images, np.zeros(len(images), np.int64))
    return Loaded(split, Split(images.take(np.arange(3)), np.zeros(3, np.int64)), ("a", "b"))


def place(images: FileImages, root: Path, form: str = "raw") -> Place:
    content = content_of(images.geometry, form)
    return next(place for place in next(places(loaded(images), root)) if place.content == content)


def packed_twin(root: Path, geometry: Geometry, form: str) -> tuple[FileImages, FileImages, Pack]:
    """(from files, from a pack, the pack)"""
    pack = _packing._write(place(index(root, geometry), root, form), lambda count: None)
    twin = index(root, geometry)
    attach(loaded(twin), root)
    assert twin.pack is not None
    return index(root, geometry), twin, pack


def draws(count: int, seed: int = 3) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).random((count, 4))


# --- equal to the last bit


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("form", ["raw", "encoded"])
def test_a_pack_delivers_what_the_files_do(name: str, form: str, tmp_path: Path) -> None:
    geometry, content = GEOMETRIES[name]
    plain, twin, pack = packed_twin(tmp_path, geometry, form)
    assert pack.content_kind == (content if form == "raw" else "encoded") and len(pack) == COUNT
    everything, numbers = np.arange(COUNT), draws(COUNT)
    assert (twin.fetch(everything) == plain.fetch(everything)).all()
    assert (twin.fetch(everything, numbers) == plain.fetch(everything, numbers)).all()
    order = np.random.Generator(np.random.PCG64(4)).permutation(COUNT)[:20]
    copied = pickle.loads(pickle.dumps(twin))
    for part in (twin.take(order), twin[order], copied.take(order), twin.take(order).take(np.arange(20))):
        assert part.pack is not None
        one, other = part.fetch_views(np.arange(20), (numbers[:20], None))
        assert (one == plain.fetch(order, numbers[:20])).all() and (other == plain.fetch(order)).all()
    assert (np.concatenate(list(twin.passes(7))) == plain.fetch(everything)).all()
    assert twin.digest() == plain.digest() and loaded(twin).fingerprint == loaded(plain).fingerprint
    assert twin.nbytes == plain.nbytes + (8 + 24) * COUNT + 3 * 32
    assert pack.damaged() == []


def test_no_file_is_opened_once_the_pack_is(tmp_path: Path) -> None:
    for form in ("raw", "encoded"):
        plain, twin, _ = packed_twin(tmp_path / form, GEOMETRIES["random-crop"][0], form)
        wanted = plain.fetch(np.arange(COUNT))
        for position in range(COUNT):
            Path(plain.path(position)).unlink()
        assert (twin.fetch(np.arange(COUNT)) == wanted).all()


def test_any_number_of_threads_writes_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for threads in (1, 5):
        set_threads(threads)
        contents.append(packed_twin(tmp_path, Geometry(24, 28), "raw")[2].path.read_bytes())
    assert contents[0] == contents[1]


def test_the_faster_pack_is_read_and_a_slower_one_serves_other_geometries(tmp_path: Path) -> None:
    for form in ("encoded", "raw"):
        packed_twin(tmp_path, Geometry(24, 28), form)
    for geometry, wanted in ((Geometry(20, 28, "centre"), "resized-28"), (Geometry(24, 30), "encoded")):
        twin = index(tmp_path, geometry)
        attach(loaded(twin), tmp_path)
        assert twin.pack is not None and twin.pack.content_kind == wanted
        assert (twin.fetch(np.arange(COUNT)) == index(tmp_path, geometry).fetch(np.arange(COUNT))).all()


def test_a_pack_of_another_size_is_not_read_and_said(tmp_path: Path) -> None:
    packed_twin(tmp_path, Geometry(24, 28), "raw")
    twin = index(tmp_path, Geometry(24, 30))
    with pytest.warns(UserWarning, match=r"train-resized-28.*\(resized-30\): files are read; bench data pack some-set"):
        attach(loaded(twin), tmp_path)
    assert twin.pack is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(loaded(index(tmp_path, Geometry(24, 28), count=9)), tmp_path)  # other pictures: another list, no pack of it


# --- faults


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, FileImages, Path]:
    """(folder, pictures, their pack), the pictures smaller than a page."""
    images = index(tmp_path, Geometry(4, 4), BLOCK + 2)
    return tmp_path, images, _packing._write(place(images, tmp_path), lambda count: None).path


def read_everything(images: FileImages, root: Path) -> None:
    again = FileImages(images.root, images.paths, images.geometry, dataset="some-set")
    attach(loaded(again), root)
    assert again.pack is not None
    again.fetch(np.arange(len(again)))


def test_every_truncation_is_refused(small: tuple[Path, FileImages, Path]) -> None:
    root, images, path = small
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 37), len(whole) - 1, len(whole) - len(packed.MAGIC)]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"train-resized-4-.*cut short.*bench data pack some-set --root DIR"):
            read_everything(images, root)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DataError, match="cut short"):
        read_everything(images, root)
    path.write_bytes(whole[:200] + whole[201:])
    with pytest.raises(DataError, match=f"has {len(whole) - 1:,} bytes instead of {len(whole):,}"):
        read_everything(images, root)
    path.write_bytes(whole)
    read_everything(images, root)


def test_every_changed_byte_is_refused(small: tuple[Path, FileImages, Path]) -> None:
    root, images, path = small
    whole = path.read_bytes()
    seen = set()
    for at in range(0, len(whole), 11):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(DataError) as caught:
            read_everything(images, root)
        what, _, rest = str(caught.value).removeprefix(f"{path}: ").partition(" (")
        assert rest.startswith("delete this file: ")
        seen.add(next(word for word in ("table", "header", "cut short", "picture") if word in what))
    assert seen == {"picture", "table", "header", "cut short"}


def test_damage_behind_the_back_of_an_open_pack(small: tuple[Path, FileImages, Path]) -> None:
    root, images, path = small
    attach(loaded(images), root)
    with open(path, "r+b") as file:
        file.seek(len(packed.MAGIC) + 4 * 14 * 3)  # the first picture is 40 x 140
        file.write(b"\0\1\2")
    with pytest.raises(DataError, match="picture 1 of 18 is damaged"):
        images.fetch(np.arange(10))
    assert images.fetch(np.array([0, 2])).shape[0] == 2
    assert Pack(path).damaged() == [0]
    with open(path, "r+b") as file:
        file.truncate(100)
    with pytest.raises(DataError, match="cut short"):
        images.fetch(np.arange(10))


def test_another_version_is_refused(small: tuple[Path, FileImages, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root, images, _ = small
    monkeypatch.setattr(packed, "VERSION", 2)
    with pytest.raises(DataError, match="a pack of version 1, not 2"):
        read_everything(images, root)


def test_changed_files_make_a_pack_stale(small: tuple[Path, FileImages, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root, images, path = small
    first = Path(images.path(0))
    before = first.read_bytes()
    first.write_bytes(before + b"\0")
    with pytest.raises(DataError, match="files have changed since their pictures were packed"):
        read_everything(images, root)
    Image.new("RGB", (40, 140)).save(first, compress_level=0)
    smaller = first.read_bytes()
    first.write_bytes(smaller[: len(before)] if len(smaller) > len(before) else smaller.ljust(len(before), b"\0"))
    with pytest.raises(DataError):  # of the same number of bytes
        read_everything(images, root)
    first.write_bytes(before)
    read_everything(images, root)
    monkeypatch.setattr(files, "decode", lambda data, decode=files.decode: decode(data) ^ 1)  # another decoder
    with pytest.raises(DataError, match=r"picture 0 is not that of .*p00.png \("):
        read_everything(images, root)
    monkeypatch.setattr(packed, "made_with", lambda: {"pillow": "99.0", "torch": "99.1"})
    with pytest.raises(DataError, match=r"packed with pillow .*, torch .*, this is pillow 99.0, torch 99.1"):
        read_everything(images, root)


def test_a_renamed_pack_is_refused(small: tuple[Path, FileImages, Path]) -> None:
    root, images, path = small
    path.rename(path.with_name(path.name.replace("resized-4", "encoded")))
    with pytest.raises(DataError, match=r"holds 18 pictures \(resized-4\), not 18 \(encoded\)"):
        read_everything(images, root)


# --- writing


@pytest.mark.parametrize(
    ("fault", "seen", "words"),
    [(KeyboardInterrupt("^C"), KeyboardInterrupt, "C"), (OSError(errno.ENOSPC, "No space"), DataError, "written: No space")],
)
def test_an_interrupted_packing_leaves_nothing(fault: BaseException, seen: Any, words: str, tmp_path: Path) -> None:
    images, blocks = index(tmp_path), []

    def interrupted(count: int) -> None:
        blocks.append(count)
        if len(blocks) == 2:
            raise fault

    with pytest.raises(seen, match=words):
        _packing._write(place(images, tmp_path), interrupted)
    assert list((tmp_path / "packed").rglob("*.*")) == [] and blocks == [BLOCK, BLOCK]
    blocks.clear()
    pack = _packing._write(place(images, tmp_path), blocks.append)
    assert blocks == [BLOCK, BLOCK, 3] and list(pack.path.parent.iterdir()) == [pack.path]


def test_an_undecodable_picture_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    for form in ("raw", "encoded"):
        images = index(tmp_path)
        bad = Path(images.path(13))
        bad.write_bytes(bad.read_bytes()[:80])
        with pytest.raises(DataError, match="p13.jpg: the picture cannot be read"):
            _packing._write(place(images, tmp_path, form), lambda count: None)
    assert list((tmp_path / "packed").rglob("*.*")) == []


def test_sizes_are_estimated_before_anything_is_written(tmp_path: Path) -> None:
    for geometry, form in ((Geometry(24, (28, 31)), "raw"), (Geometry(24, 28), "encoded"), (Geometry(24, 28), "raw")):
        images = index(tmp_path, geometry)
        estimate = _packing._estimate(images, content_of(geometry, form))
        assert estimate <= _packing._write(place(images, tmp_path, form), lambda count: None).size <= estimate + 700


# --- the commands


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    known = bench.data.datasets() | {"waterbirds": waterbirds(tmp_path), "webvision50": webvision(tmp_path)}
    monkeypatch.setattr(bench.data, "datasets", lambda: known)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["data", *words])


def test_pack_and_check(birds: Path) -> None:
    crop = ("--set", "augmentation=random-crop", "--root", str(birds))
    done = run("pack", "waterbirds", *crop)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split(" pictures")[0] for line in lines] == ["train: 8", "val: 4", "test: 6"]
    assert all("(resized-256x256), 0.00 GiB" in line for line in lines) and "packing train" in done.stderr
    made = sorted((birds / "packed/waterbirds").iterdir())
    assert len(made) == 3 and all(str(path) in done.stdout for path in made)
    again = run("pack", "waterbirds", *crop)
    assert again.exit_code == 0 and again.stdout.count("is there already") == 3

    done = run("check", "waterbirds", *crop)
    assert done.exit_code == 0 and "train: packed (resized-256x256), 8 pictures" in done.output
    assert done.output.count("--deep verifies every block") == 3
    assert run("check", "waterbirds", "--deep", *crop).output.count("every block intact") == 3
    assert "packed" not in run("check", "waterbirds", "--root", str(birds)).output  # random-resized-crop needs other packs

    data = bytearray(made[1].read_bytes())  # damage where neither opening nor the first pictures tell
    assert made[1].name.startswith("train")
    data[len(packed.MAGIC) + 100] ^= 1
    made[1].write_bytes(data)
    done = run("check", "waterbirds", "--deep", *crop)
    assert done.exit_code == 3 and f"{made[1]}: picture 0 of 8 is damaged" in done.output
    done = run("pack", "waterbirds", *crop)
    assert done.exit_code == 0 and "replacing a pack that cannot be used" in done.stderr and "is damaged" in done.stderr
    assert run("check", "waterbirds", "--deep", *crop).exit_code == 0


def test_deep_finds_what_opening_does_not(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crop = ("--set", "augmentation=random-crop", "--root", str(birds))
    run("pack", "waterbirds", *crop)
    path = next((birds / "packed/waterbirds").glob("train-*"))
    data = bytearray(path.read_bytes())
    data[len(packed.MAGIC) + 256 * 256 * 3 * 4 + 5] ^= 1  # in the fifth picture
    path.write_bytes(data)
    monkeypatch.setattr(packed.np, "linspace", lambda start, stop, count: np.array([start, stop]))  # compare the ends alone
    assert run("check", "waterbirds", *crop).exit_code == 0
    done = run("check", "waterbirds", "--deep", *crop)
    assert done.exit_code == 3 and "1 blocks are damaged, the first holds the pictures from 0 on; delete" in done.output


def test_all_splits_of_webvision_are_packed(birds: Path) -> None:
    done = run("pack", "webvision50", "--format", "encoded", "--root", str(birds))
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == [
        "train: 9 pictures (encoded)", "test: 6 pictures (encoded)", "test2: 6 pictures (encoded)"
    ]  # fmt: skip
    left = birds / "packed/webvision50/.train-x.pack.abc.tmp"
    left.write_bytes(b"")
    assert f"{left} is being written now" in run("check", "webvision50", "--root", str(birds)).output
    (birds / "packed/image-folder").mkdir()
    done = run("check", "image-folder", "--root", str(birds))  # a fault of the fields is said once, as without packs
    assert done.exit_code == 3 and done.output.count("needs the name of a folder") == 1


def test_too_little_space_is_said_before_anything_is_written(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda where: shutil._ntuple_diskusage(10, 9, 1_000_000))  # type: ignore
    done = run("pack", "waterbirds", "--set", "augmentation=random-crop", "--root", str(birds))
    assert done.exit_code == 3 and "packing needs about 0.00 GiB, 0.00 GiB are free" in done.output
    assert "let" in done.output and "--format encoded needs 0.00 GiB" in done.output and not (birds / "packed").exists()
    assert run("pack", "waterbirds", "--format", "encoded", "--root", str(birds)).exit_code == 0


def test_there_is_nothing_to_pack_in_memory(tmp_path: Path) -> None:
    done = run("pack", "digits", "--root", str(tmp_path))
    assert done.exit_code == 2 and "the pictures of digits are kept in memory" in done.output
    done = run("pack", "waterbirds", "--root", str(tmp_path))
    assert done.exit_code == 3 and "waterbirds is not here" in done.output and list(tmp_path.iterdir()) == []


# --- whole trials


class Small(ImageFolder):
    _limit = 8


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lines = ["image,label,group"]
    for c, name in enumerate(("ant", "bee", "cow")):
        for i in range(20):
            picture(tmp_path / "own" / name / f"{i:02d}.jpg", 30 + i, 50 - i, seed=100 * c + i)
            lines.append(f"{name}/{i:02d}.jpg,{name},{'left' if i % 3 else 'right'}")
    (tmp_path / "own" / "groups.csv").write_text("\n".join(lines) + "\n")
    known = bench.data.datasets() | {"image-folder": Small}
    monkeypatch.setattr(bench.data, "datasets", lambda: known)
    return tmp_path


def trial(root: Path, method: str, params: dict[str, Any], threads: int) -> dict[str, Any]:
    """What two epochs of one cell come to, loaded anew, decoded by so many threads."""
    bench.data._load_cached.cache_clear()
    set_threads(threads)
    cell = make_cell(method, method_class(method).smoke, model=TINY_CNN, training={"epochs": 2, "batch_size": 8})
    fields = {"folder": "own", "size": 24, **params}
    cell["dataset"] = {"name": "image-folder", "revision": "1", **Small.identity(fields)}
    try:
        record = run_cell(cell, Options("suite", data_root=str(root)))
    finally:
        bench.data._load_cached.cache_clear()
    assert record["status"] == "done", record["reason"]
    return {key: record[key] for key in ("id", "status", "metrics", "curve", "detail", "noise", "data", "warnings")}


@pytest.mark.parametrize("method", sorted(methods()))
def test_one_thread_and_four_give_the_same_bits_to_every_method(method: str, folder: Path) -> None:
    once = trial(folder, method, {"csv": "groups.csv"}, threads=1)
    assert once == trial(folder, method, {"csv": "groups.csv"}, threads=4)


@pytest.mark.parametrize("method", ["erm", "dividemix"])
@pytest.mark.parametrize("params", [{"crop": "random-crop"}, {}, {"resize_first": True}], ids=str)
def test_threads_and_packs_change_nothing_in_a_trial(
    method: str, params: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = trial(folder, method, params, threads=1)
    assert once == trial(folder, method, params, threads=4)
    fields = {"folder": "own", "size": 24, **params}
    settings = [word for name, value in fields.items() for word in ("--set", f"{name}={value}")]
    reads: list[int] = []
    monkeypatch.setattr(Pack, "_content", lambda self, row, content=Pack._content: reads.append(row) or content(self, row))
    for form in ("encoded", "raw"):  # the raw one is preferred where both are there
        done = run("pack", "image-folder", "--format", form, *settings, "--root", str(folder))
        assert done.exit_code == 0, done.output
        reads.clear()
        assert once == trial(folder, method, params, threads=3)
        assert len(reads) > 2 * 36  # every training picture in each epoch, and the tests


def test_resizing_first_is_another_cell(folder: Path) -> None:
    assert "resize_first" not in Small.identity({"folder": "own"}) and "resize_first" not in WebVision.identity({})
    first = Small.identity({"folder": "own", "resize_first": True})
    assert first["resize_first"] is True and WebVision(resize_first=True)._geometry().resizes_first
    one, other = (Small(folder="own", size=24, resize_first=flag).load(folder).train.images for flag in (False, True))
    assert (one.fetch(np.arange(9), draws(9)) != other.fetch(np.arange(9), draws(9))).any()
    assert (one.fetch(np.arange(9)) == other.fetch(np.arange(9))).all()
