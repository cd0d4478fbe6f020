"""bench.data.files: the index, geometry against torchvision, decoding in threads, and faults in files."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature_trees import picture, write
from PIL import Image
from torchvision import transforms as tv
from torchvision.transforms import functional as tvf

from bench.data import DataError, Finding
from bench.data import _folder as common
from bench.data import files as module
from bench.data._geometry import centre_box, random_crop_box, resize, resized_crop_box
from bench.data.files import FileImages, Geometry, Paths, decode, set_threads


@pytest.fixture(autouse=True)
def _default_threads() -> Iterator[None]:
    yield
    set_threads(None)


def index(root: Path, count: int = 20, geometry: Geometry | None = None, **rest: Any) -> FileImages:
    """Pictures of different sizes and contents, listed in list.txt from line 3 on."""
    names = [f"d{i % 3}/p{i:02d}.jpg" for i in range(count)]
    for number, name in enumerate(names):
        picture(root / name, 40 + 3 * number, 70 - 2 * number, seed=number)
    lines = np.arange(3, count + 3, dtype=np.int32)
    return FileImages(
        root, Paths.of(name.encode() for name in names), geometry or Geometry(24, 28), dataset="some-set",
        listing=root / "list.txt", lines=lines, **rest,
    )  # fmt: skip


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def levels_apart(one: torch.Tensor, other: torch.Tensor) -> int:
    assert one.shape == other.shape and one.dtype == other.dtype == torch.uint8
    return int((one.int() - other.int()).abs().max())


# --- the index


@given(st.lists(st.binary(max_size=12)), st.data())
def test_paths_are_a_list_of_bytes(names: list[bytes], data: st.DataObject) -> None:
    paths = Paths.of(names)
    assert list(paths) == names and len(paths) == len(names)
    chosen = data.draw(st.lists(st.integers(0, len(names) - 1), max_size=20)) if names else []
    part = paths.take(np.array(chosen, dtype=np.int64))
    assert list(part) == [names[i] for i in chosen] == [part[i] for i in range(len(part))]
    assert paths.nbytes == sum(map(len, names)) + 10 * len(names)


def test_long_indexes_are_walked_in_parts() -> None:
    names = [b"%d" % i for i in range(140_000)]  # more than two parts
    assert list(Paths.of(names)) == names
    with pytest.raises(ValueError, match="70000 bytes"):
        Paths.of([b"x" * 70_000])


def test_the_index_costs_22_bytes_per_file_besides_its_path(tmp_path: Path) -> None:
    names = [b"images/0/00/%010d,%010d.jpg" % (i, i) for i in range(5000)]
    lines = np.arange(5000, dtype=np.int32)
    images = FileImages(tmp_path, Paths.of(names), Geometry(24, 28), lines=lines)
    assert images.nbytes == sum(map(len, names)) + 14 * 5000
    images._sizes = np.ones(5000, dtype=np.int64)
    assert images.nbytes == sum(map(len, names)) + 22 * 5000


def test_a_part_of_an_index(tmp_path: Path) -> None:
    images = index(tmp_path)
    chosen = np.array([7, 2, 2])
    for part in (images.take(chosen), images[chosen], pickle.loads(pickle.dumps(images)).take(chosen)):
        assert len(part) == 3 and part.shape == (3, 24, 24)
        assert part.path(0) == str(tmp_path / "d1/p07.jpg") and part.lines is not None and part.lines.tolist() == [10, 5, 5]
        assert (part.fetch(np.arange(3)) == images.fetch(chosen)).all()
    assert part.paths._buffer is not images.paths._buffer  # the pickled one
    assert images.take(chosen).paths._buffer is images.paths._buffer
    assert (images.sizes()[chosen] == images.take(chosen).sizes()).all()
    mask = np.arange(len(images)) == 4
    assert images[mask].path(0) == images.path(4)


def test_nothing_heavy_is_imported_with_the_module() -> None:
    code = "import sys, bench.data.files, bench.data.webvision; print([m for m in ('torch', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- geometry against torchvision


SIZES = [(341, 256), (256, 341), (500, 375), (375, 500), (256, 256), (178, 218), (90, 61), (61, 90), (257, 303)]


@pytest.mark.parametrize("size", SIZES)
def test_evaluation_is_torchvisions(size: tuple[int, int], tmp_path: Path) -> None:
    image = Image.open(picture(tmp_path / "a.png", *size, seed=size[0]))
    for geometry, transform in (
        (Geometry(224, 256), tv.Compose([tv.Resize(256), tv.CenterCrop(224)])),
        (Geometry(227, 256), tv.Compose([tv.Resize(256), tv.CenterCrop(227)])),
        (Geometry(299, 320), tv.Compose([tv.Resize(320), tv.CenterCrop(299)])),
        (Geometry(224, (256, 256)), tv.Compose([tv.Resize((256, 256)), tv.CenterCrop(224)])),
        (Geometry(120, (140, 200)), tv.Compose([tv.Resize((140, 200)), tv.CenterCrop(120)])),
    ):
        assert levels_apart(geometry.render(tensor(image)), tensor(transform(image))) <= 1
    if min(size) >= 178:
        transform = tv.Compose([tv.CenterCrop(178), tv.Resize((224, 224))])
        assert levels_apart(Geometry(224, (224, 224), centre_first=178).render(tensor(image)), tensor(transform(image))) <= 1


@pytest.mark.parametrize("size", SIZES)
def test_random_crops_are_torchvisions_at_the_same_place(size: tuple[int, int], tmp_path: Path) -> None:
    image = Image.open(picture(tmp_path / "a.png", *size, seed=size[1]))
    resized = tvf.resize(image, [256])
    for draws in ((0.0, 0.0), (0.999999, 0.999999), (0.3, 0.8)):
        height, width = resized.height, resized.width
        top, left = int(draws[0] * (height - 224 + 1)), int(draws[1] * (width - 224 + 1))
        wanted = tensor(tvf.crop(resized, top, left, 224, 224))
        assert levels_apart(Geometry(224, 256).render(tensor(image), (*draws, 0.5, 0.5)), wanted) <= 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("first", [False, True])
def test_random_resized_crops_are_torchvisions_at_the_same_box(size: tuple[int, int], first: bool, tmp_path: Path) -> None:
    image = Image.open(picture(tmp_path / "a.png", *size, seed=3))
    geometry = Geometry(96, 120, "random-resized-crop", scale=(0.2, 1.0), resize_first=first)
    source = tvf.resize(image, [120]) if first else image
    for draws in ((0.1, 0.4, 0.2, 0.9), (0.7, 0.5, 0.99, 0.0), (0.95, 0.99, 0.5, 0.5)):
        top, left, height, width = resized_crop_box(source.height, source.width, (0.2, 1.0), (3 / 4, 4 / 3), draws)
        wanted = tensor(tvf.resized_crop(source, top, left, height, width, [96, 96]))
        # Two resizes, each within one level.
        assert levels_apart(geometry.render(tensor(image), draws), wanted) <= (2 if first else 1)


def test_a_picture_of_the_right_size_is_not_resampled() -> None:
    pixels = torch.randint(0, 256, (3, 256, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert resize(pixels, 256) is pixels
    assert (Geometry(224, 256).render(pixels) == pixels[:, 16:240, 38:262]).all()


def test_boxes_by_hand() -> None:
    assert centre_box(10, 7, 4) == (3, 2, 4, 4)  # (7 - 4) / 2 = 1.5 rounds to the even 2, as in torchvision
    assert centre_box(3, 9, 5) == (0, 2, 3, 5)
    assert random_crop_box(10, 6, 4, (0.999, 0.5)) == (6, 1, 4, 4)
    # half of the area of 100 x 200 at aspect 1: 100 x 100; anywhere in 101 columns
    assert resized_crop_box(100, 200, (0.5, 0.5), (1.0, 1.0), (0.3, 0.3, 0.9, 0.999)) == (0, 100, 100, 100)
    # no box of aspect 2 and the whole area fits a square: the fallback is the central one of the nearest aspect
    assert resized_crop_box(100, 100, (1.0, 1.0), (2.0, 2.0), (0.1, 0.2, 0.9, 0.9)) == (25, 0, 50, 100)
    assert resized_crop_box(50, 300, (1.0, 1.0), (0.5, 2.0), (0.1, 0.2, 0.9, 0.9)) == (0, 100, 50, 100)


@given(st.integers(1, 400), st.integers(1, 400), st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4))
def test_boxes_lie_inside_the_picture(height: int, width: int, draws: tuple[float, ...]) -> None:
    top, left, tall, wide = resized_crop_box(height, width, (0.08, 1.0), (3 / 4, 4 / 3), draws)
    assert 0 <= top <= top + tall <= height and 0 <= left <= left + wide <= width and tall > 0 and wide > 0
    side = min(height, width)
    top, left, tall, wide = random_crop_box(height, width, side, draws)
    assert 0 <= top <= height - side and 0 <= left <= width - side


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [((218, 178), (0.7, 1.0), (1.0, 4 / 3)), ((375, 500), (0.08, 1.0), (3 / 4, 4 / 3)), ((90, 400), (0.2, 1.0), (3 / 4, 4 / 3))],
)
def test_boxes_have_the_distribution_of_torchvision(size: tuple[int, int], scale: Any, ratio: Any) -> None:
    """On CelebA's pictures nine of ten first tries do not fit, so that the later ones decide."""
    height, width = size
    draws = np.random.Generator(np.random.PCG64(0)).random((6000, 4))
    ours = np.array([resized_crop_box(height, width, scale, ratio, row) for row in draws.tolist()])
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        blank = torch.zeros(3, height, width)
        theirs = np.array([tv.RandomResizedCrop.get_params(blank, list(scale), list(ratio)) for _ in range(6000)])
    for column in range(4):
        mine, other = np.sort(ours[:, column]), np.sort(theirs[:, column])
        points = np.unique(np.concatenate([mine, other]))
        gap = np.abs(np.searchsorted(mine, points, "right") - np.searchsorted(other, points, "right")).max() / 6000
        assert gap < 0.035  # Kolmogorov-Smirnov; 0.0297 is the one-in-a-hundred point
    area = ours[:, 2] * ours[:, 3] / (height * width)
    assert abs(area.mean() - (theirs[:, 2] * theirs[:, 3] / (height * width)).mean()) < 0.01


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((257, 256), "crop 257"), ((200, (256, 199)), "1..199"), ((0, 10), "crop 0")],
)
def test_a_geometry_that_does_not_fit(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Geometry(*arguments)
    with pytest.raises(ValueError, match="scale"):
        Geometry(10, 10, scale=(0.0, 1.0))


# --- decoding


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_every_format_decodes_to_what_pillow_sees(tmp_path: Path) -> None:
    image = Image.open(picture(tmp_path / "a.png", 133, 97, seed=5)).convert("RGB")
    cases = [
        encoded(image, "JPEG", quality=75), encoded(image, "JPEG", quality=90, subsampling=0, progressive=True),
        encoded(image.convert("L"), "JPEG"), encoded(image.convert("CMYK"), "JPEG"), encoded(image, "PNG"),
        encoded(image.convert("L"), "PNG"), encoded(image.convert("P"), "PNG"), encoded(image.convert("RGBA"), "PNG"),
        encoded(image, "BMP"), encoded(image, "GIF"),
    ]  # fmt: skip
    for data in cases:
        assert levels_apart(decode(data), tensor(Image.open(io.BytesIO(data)).convert("RGB"))) == 0


def test_fetch_delivers_in_the_order_asked_for(tmp_path: Path) -> None:
    images = index(tmp_path)
    wanted = np.array([3, 0, 19, 3, 11])
    got = images.fetch(wanted)
    assert got.shape == (5, 3, 24, 24) and got.dtype == np.uint8 and (got[0] == got[3]).all()
    for slot, position in enumerate(wanted):
        whole = decode(Path(images.path(position)).read_bytes())
        assert (got[slot] == images.geometry.render(whole).numpy()).all()
    assert images.fetch(np.zeros(0, np.int64)).shape == (0, 3, 24, 24)


def test_draws_belong_to_their_picture_and_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    images = index(tmp_path, geometry=Geometry(24, 28, "random-resized-crop"))
    draws = np.random.Generator(np.random.PCG64(3)).random((20, 4))
    everything = images.fetch(np.arange(20), draws)
    order = np.random.Generator(np.random.PCG64(4)).permutation(20)
    assert (images.fetch(order, draws[order]) == everything[order]).all()
    assert (everything != images.fetch(np.arange(20))).any(axis=(1, 2, 3)).all()  # not the evaluation view
    centred = index(tmp_path, geometry=Geometry(24, 28, "centre"))
    assert (centred.fetch(np.arange(20), draws) == centred.fetch(np.arange(20))).all()


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    images = index(tmp_path, geometry=Geometry(24, 28, "random-resized-crop"))
    draws = np.random.Generator(np.random.PCG64(3)).random((60, 4))
    wanted = np.tile(np.arange(20), 3)
    results = []
    for threads in (1, 2, 7):
        set_threads(threads)
        results.append((images.fetch(wanted, draws), images.digest()))
    assert all((pixels == results[0][0]).all() and digest == results[0][1] for pixels, digest in results)
    with pytest.raises(ValueError, match="at least one thread"):
        set_threads(0)


def test_views_of_a_picture_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = index(tmp_path, 10)
    draws = np.random.Generator(np.random.PCG64(3)).random((2, 10, 4))
    wanted = [images.fetch(np.arange(10)), images.fetch(np.arange(10), draws[0]), images.fetch(np.arange(10), draws[1])]
    calls: list[int] = []
    monkeypatch.setattr(module, "decode", lambda data: calls.append(len(data)) or decode(data))
    got = images.fetch_views(np.arange(10), (None, draws[0], draws[1]))
    assert len(calls) == 10 and len(got) == 3
    for one, other in zip(got, wanted, strict=True):
        assert (one == other).all()


def test_streams_deliver_what_fetch_does(tmp_path: Path) -> None:
    images = index(tmp_path)
    draws = np.random.Generator(np.random.PCG64(3)).random((20, 4))
    parts = [np.arange(start, min(start + 6, 20)) for start in range(0, 20, 6)]
    for ahead in (0, 1, 3, 9):
        got = list(images.stream(((part, (draws[part], None)) for part in parts), ahead=ahead))
        assert [len(views[0]) for views in got] == [6, 6, 6, 2]
        assert (np.concatenate([views[0] for views in got]) == images.fetch(np.arange(20), draws)).all()
        assert (np.concatenate([views[1] for views in got]) == images.fetch(np.arange(20))).all()
    assert (np.concatenate(list(images.passes(7))) == images.fetch(np.arange(20))).all()
    assert list(images.take(np.zeros(0, np.int64)).passes()) == []


def test_a_stream_works_ahead_of_its_consumer_and_stops_with_it(tmp_path: Path) -> None:
    images, asked = index(tmp_path), []

    def blocks() -> Iterator[tuple[np.ndarray, tuple[None]]]:
        for number in range(10):
            asked.append(number)
            yield np.array([number]), (None,)

    stream = images.stream(blocks(), ahead=2)
    next(stream)
    assert asked == [0, 1, 2]
    next(stream)
    assert asked == [0, 1, 2, 3]
    stream.close()
    assert asked == [0, 1, 2, 3]


# --- faults


def break_file(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
        return
    png = encoded(Image.open(io.BytesIO(data)), "PNG")
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"<html>", "png": png[:-30]}[how])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", "truncated"), ("empty", "the file is empty"), ("text", "it is not an image"),
        ("missing", "the picture is missing"), ("png", "cannot be read"),
    ],
)  # fmt: skip
def test_an_unreadable_picture_is_named_with_its_line(how: str, words: str, tmp_path: Path) -> None:
    images = index(tmp_path)
    break_file(Path(images.path(13)), how)
    with pytest.raises(DataError) as caught:
        images.fetch(np.arange(20))
    message = str(caught.value)
    assert words in message and images.path(13) in message and f"{tmp_path / 'list.txt'}:16" in message
    assert "bench data check some-set" in message and "0x" not in message
    assert images.fetch(np.arange(12)).shape[0] == 12  # the others can be read


def test_the_first_fault_of_a_batch_is_reported_whatever_the_threads(tmp_path: Path) -> None:
    images = index(tmp_path)
    for position in (4, 5, 17):
        break_file(Path(images.path(position)), "truncated")
    healthy = [1, 2, 3] * 10  # faults lie in different jobs
    for threads in (1, 4):
        set_threads(threads)
        with pytest.raises(DataError, match="p17.jpg"):
            images.fetch(np.array([*healthy, 17, *healthy, 5, *healthy, 4]))


def test_a_stream_delivers_the_blocks_before_a_fault(tmp_path: Path) -> None:
    images = index(tmp_path)
    break_file(Path(images.path(13)), "truncated")
    stream, got = images.passes(5, ahead=2), []
    with pytest.raises(DataError, match="p13.jpg"):
        for block in stream:
            got.append(block)
    assert [len(block) for block in got] == [5, 5]


def test_pictures_of_a_wrong_size_are_faults_where_one_size_is_promised(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / f"{number}.jpg", 40, 50 + number // 2, seed=number)
    paths = Paths.of(b"%d.jpg" % number for number in range(3))
    images = FileImages(tmp_path, paths, Geometry(24, 28), picture_size=(50, 40))
    assert images.fetch(np.arange(2)).shape == (2, 3, 24, 24)
    with pytest.raises(DataError, match=r"2\.jpg: the picture is 40x51, not 40x50"):
        images.fetch(np.arange(3))
    assert [position for position, _ in images.damaged()] == [2]


def test_missing_and_empty_files_are_found_without_decoding(tmp_path: Path) -> None:
    images = index(tmp_path)
    assert (images.sizes() == [Path(images.path(i)).stat().st_size for i in range(20)]).all()
    for how, words in (("empty", "is an empty file"), ("missing", "is missing")):
        images = index(tmp_path)
        break_file(Path(images.path(4)), how)
        break_file(Path(images.path(9)), "missing")
        with pytest.raises(DataError, match=f"p04.jpg: the picture {words} .2 of 20 .*list.txt:7"):
            images.sizes()


def test_damaged_files_are_found_by_their_ends(tmp_path: Path) -> None:
    images = index(tmp_path)
    assert images.damaged() == []
    padded = Path(images.path(2))
    padded.write_bytes(padded.read_bytes() + b"\0" * 9)  # trailing bytes are no fault: the file is decoded to tell
    for position, how in ((3, "truncated"), (7, "text"), (12, "png"), (15, "empty"), (16, "missing")):
        break_file(Path(images.path(position)), how)
    assert [position for position, _ in images.damaged()] == [3, 7, 12, 15, 16]


@pytest.mark.parametrize(
    ("wanted", "draws", "error"),
    [
        (np.array([20]), None, IndexError), (np.array([-1]), None, IndexError),
        (np.array([0], np.int32), None, ValueError), (np.array([[0]]), None, ValueError),
        (np.array([0]), np.zeros((2, 4)), ValueError), (np.array([0]), np.zeros((1, 2)), ValueError),
        (np.array([0]), np.ones((1, 4)), ValueError), (np.array([0]), np.full((1, 4), -0.1), ValueError),
        (np.array([0]), np.full((1, 4), np.nan), ValueError),
    ],
)  # fmt: skip
def test_wrong_arguments(wanted: Any, draws: Any, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        index(tmp_path).fetch(wanted, draws)


def test_the_digest_sees_paths_sizes_and_order_but_not_the_place(tmp_path: Path) -> None:
    one, other = index(tmp_path / "a"), index(tmp_path / "b")
    assert one.digest() == other.digest()
    assert one.digest() != one.take(np.arange(20)[::-1]).digest() != one.take(np.arange(19)).digest()
    path = Path(other.path(3))
    path.write_bytes(path.read_bytes() + b"\0")
    assert index_of(other).digest() != one.digest()
    renamed = FileImages(one.root, Paths.of(b"x" + path for path in one.paths), one.geometry, skip=1)
    assert (renamed.fetch(np.arange(3)) == one.fetch(np.arange(3))).all() and renamed.digest() != one.digest()


def index_of(images: FileImages) -> FileImages:
    """The same index with nothing remembered."""
    return FileImages(images.root, images.paths, images.geometry)


# --- lists


@settings(max_examples=50)
@given(st.lists(st.integers(0, 60), unique=True), st.lists(st.integers(0, 60), unique=True))
def test_positions_are_those_of_a_dictionary(wanted: list[int], table: list[int]) -> None:
    where = {number: at for at, number in enumerate(table)}
    found = common.positions(Paths.of(b"k%d" % n for n in wanted), Paths.of(b"k%d" % n for n in table))
    assert found.tolist() == [where.get(number, -1) for number in wanted]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a.jpg 0", "b.jpg 3"], "list.txt:2: label '3' is out of range .must be in 0..2"),
        (["a.jpg 0", "b.jpg -1"], "list.txt:2: label '-1'"), (["a.jpg x"], "list.txt:1: label 'x'"),
        (["a.jpg"], "list.txt:1: 'a.jpg' is not `<file> <label>`"), (["a.jpg 0", "", "b.jpg 1"], "list.txt:2: a blank line"),
        (["../a.jpg 0"], "list.txt:1: '../a.jpg' is not a path below"), (["/etc/a.jpg 0"], "is not a path below"),
    ],
)  # fmt: skip
def test_lists_are_read_strictly(lines: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        common.read_labelled(write(tmp_path / "list.txt", lines), dataset="x", classes=3)


def test_lists_keep_names_labels_and_lines(tmp_path: Path) -> None:
    rows = ["d/a b.jpg 2", "d/a,b..c.jpg 0", "d/a+b.jpg 1", "d/c.jpg 0", "", ""]
    for end in ("\n", "\r\n"):
        path = write(tmp_path / "list.txt", rows, end=end)
        listed = common.read_labelled(path, dataset="x", classes=3, below=2)
        assert list(listed.paths) == [b"d/a,b..c.jpg", b"d/a+b.jpg", b"d/c.jpg"] and listed.total == 4
        assert listed.labels.tolist() == [0, 1, 0] and listed.lines.tolist() == [2, 3, 4]
    common.refuse_duplicates(listed, "x")
    twice = common.read_keys(write(tmp_path / "keys.txt", ["a", "b", "a"]), dataset="x")
    with pytest.raises(DataError, match=r"keys.txt:3: a is listed twice .also in line 1"):
        common.refuse_duplicates(twice, "x")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        common.read_keys(tmp_path / "none.txt", dataset="x")


def test_findings_of_a_check_say_what_failed(tmp_path: Path) -> None:
    def missing() -> Path:
        return common.first_existing([tmp_path / "a", tmp_path / "b"], "the list", "x", "look around")

    assert common.part(lambda: tmp_path, "folder") == Finding(True, f"folder: {tmp_path}")
    finding = common.part(missing, "list")
    assert not finding.ok and f"{tmp_path / 'a'}: the list is missing (or {tmp_path / 'b'}; look around)" in finding.text
    with pytest.raises(DataError, match=f"{tmp_path}: some-set is not here .expected c/list.txt below it"):
        common.find(tmp_path, ["c", ""], ["list.txt"], "some-set")
