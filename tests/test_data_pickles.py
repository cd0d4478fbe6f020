"""bench.data._pickles: what may be opened, and that nothing of a hostile or damaged file is run or swallowed."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resident_trees import batch, human_file, py2, ten_humans, ten_labels

from bench.data import DataError
from bench.data._pickles import read_npy, read_pickle, read_pickle_into, read_pt

PLAIN = {"a": [1, -2, 10**30], "b": ("text", b"bytes", None, True, 1.5), 3: {"nested": [[], {}]}}


def put(folder: Path, data: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def plain(value: Any) -> Any:
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


# --- what may be opened


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_objects_come_back(tmp_path: Path, protocol: int) -> None:
    value = PLAIN if protocol > 2 else {**PLAIN, "b": ("text", None, True)}
    assert read_pickle(put(tmp_path, pickle.dumps(value, protocol)), encoding="latin1") == value


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i4", "<f8", "?", "<U3", "S2", "<u2"])
def test_arrays_come_back(tmp_path: Path, protocol: int, dtype: str) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    for array in (values, np.asfortranarray(values), values[:0], values[0, 0]):
        back = read_pickle(put(tmp_path, pickle.dumps({"x": array}, protocol)), encoding="latin1")["x"]
        assert np.array_equal(back, array)
        if isinstance(array, np.ndarray):
            assert back.dtype == array.dtype and back.shape == array.shape


def test_what_is_shared_stays_shared(tmp_path: Path) -> None:
    """Ten lists of ten references each: ten billion numbers if every reference were followed."""
    nested: list[Any] = [1, "x", None]
    for _ in range(10):
        nested = [nested] * 10
    back = read_pickle(put(tmp_path, pickle.dumps(nested)))
    for _ in range(10):
        assert len(back) == 10 and back[0] is back[9]
        back = back[4]
    assert back == [1, "x", None]


def test_text_of_python_2_is_bytes_or_latin1(tmp_path: Path) -> None:
    path = put(tmp_path, py2({"data": "caf\x00"}))
    assert read_pickle(path) == {b"data": b"caf\x00"} and read_pickle(path, encoding="latin1") == {"data": "caf\x00"}


def test_arrays_of_the_real_opcodes(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    back = read_pickle(put(tmp_path, py2({"data": values, "labels": [1, 2]})))
    assert np.array_equal(back[b"data"], values) and back[b"data"].dtype == np.uint8 and back[b"labels"] == [1, 2]
    assert np.array_equal(pickle.loads(py2(values), encoding="bytes"), values)  # the writer is right


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_of_arrays_and_lists(tmp_path: Path, legacy: bool) -> None:
    found = read_pt(human_file(tmp_path, legacy=legacy))
    assert list(found) == list(ten_humans())
    assert all(np.array_equal(found[key], values) and found[key].dtype == np.int64 for key, values in ten_humans().items())


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_of_tensors(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save(OrderedDict(labels=torch.arange(5)), path, _use_new_zipfile_serialization=not legacy)
    assert read_pt(path)["labels"].tolist() == [0, 1, 2, 3, 4]


def test_npy_files(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.arange(5))
    assert read_npy(path).tolist() == [0, 1, 2, 3, 4]
    np.save(path, np.array({"clean_label": np.arange(3), "worse_label": [2, 1, 0]}, dtype=object), allow_pickle=True)
    found = read_npy(path)
    assert found["clean_label"].tolist() == [0, 1, 2] and found["worse_label"] == [2, 1, 0]


# --- what may not


class _Calls:
    """Pickles as a call of `function` on `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def hostile(mark: Path) -> dict[str, bytes]:
    """Pickles that create the file `mark` when they are opened by Python's own unpickler."""
    command = f"touch {mark}"
    raw = command.encode()
    system = b"cos\nsystem\n"
    return {
        "reduce": pickle.dumps(_Calls(os.system, command)),
        "protocol 0": pickle.dumps(_Calls(os.system, command), 0),
        "stack global": pickle.dumps(_Calls(os.system, command), 4),
        "eval": pickle.dumps(_Calls(eval, f"__import__('os').system('{command}')")),
        "open": pickle.dumps(_Calls(open, str(mark), "w")),
        "inst": b"(S'" + raw + b"'\nios\nsystem\n.",
        "obj": b"(" + system + b"S'" + raw + b"'\no.",
        "inside a dict": b"}(U\x04data" + system + b"(S'" + raw + b"'\ntRu.",
        "after an array": py2(np.zeros(2, np.uint8))[:-1] + b"0" + system + b"(S'" + raw + b"'\ntR.",
        "as the array's type": b"cnumpy.core.multiarray\n_reconstruct\n" + system + b"\x85R.",
        "numpy's own": b"cnumpy.testing._private.utils\nrunstring\n(S'import os; os.system(\"" + raw + b"\")'\n}tR.",
        "getattr": b"cbuiltins\ngetattr\n(cos\n__dict__\nS'x'\ntR.",
    }


@pytest.mark.parametrize("name", sorted(hostile(Path("x"))))
def test_hostile_pickles_do_nothing(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "mark"
    data = hostile(mark)[name]
    with pytest.raises(DataError, match="wants to build|damaged") as caught:
        read_pickle(put(tmp_path, data))
    assert not mark.exists() and str(tmp_path / "file") in str(caught.value)
    with pytest.raises(DataError):
        read_pickle_into(put(tmp_path, data), b"data", np.empty((1, 1), np.uint8))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/version", "3\n")
    with pytest.raises(DataError):
        read_pt(put(tmp_path, archive.getvalue(), "x.pt"))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"shape": (), "fortran_order": False, "descr": "|O"})
    with pytest.raises(DataError):
        read_npy(put(tmp_path, header.getvalue() + data, "x.npy"))
    assert not mark.exists()


def test_the_hostile_pickles_are_hostile(tmp_path: Path) -> None:
    """Otherwise the test above says nothing."""
    for name in ("reduce", "eval", "inst", "inside a dict", "after an array"):
        mark = tmp_path / name.replace(" ", "-")
        pickle.loads(hostile(mark)[name], encoding="bytes")
        assert mark.exists(), name


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"cos\nsystem\n.", "os.system"),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"cnumpy\ndtype\n.", "wants to build"),  # a function is no data
        (b"cnumpy\ndtype\n(K\x01U\x01xd}U\x01yK\x02sb.", "change|damaged"),  # nor can it be changed
        (b"cnumpy\ndtype\nN}U\x05_functionK\x02s\x86b.", "change|damaged"),
        (b"U\x01xQ.", "tensor"),
        (pickle.dumps({1, 2}), "set"),
        (pickle.dumps(np.dtype("u1")), "_Type"),
        (pickle.dumps(np.zeros(2, [("a", "i4")])), "data type"),
        (pickle.dumps(np.zeros(2, "M8[s]")), "data type|damaged"),
        (pickle.dumps(complex(1, 2)), "complex"),
        (pickle.dumps(Path("x")), "pathlib"),
        (b"]q\x00h\x00a.", "without end"),  # a list in itself
        (b"\x80\x02]r\xff\xff\xff\x7f.", "in order"),  # would reserve 32 GB
        (b"]p2147483647\n.", "in order"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged"),
        (b"", "damaged"), (b"\x80", "damaged"), (b"\xff.", "no opcode"), (b"N", "damaged"),
        (b"N.N", "1 bytes follow its end"),
    ],
)  # fmt: skip
def test_odd_pickles_are_refused_by_name(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_pickle(put(tmp_path, data))
    assert str(caught.value).startswith(str(tmp_path / "file"))


@pytest.mark.parametrize(("shape", "raw"), [((3, 3), b"12345678"), ((10**9, 10**9), b"1"), ((2,), b"")])
def test_an_array_has_as_many_bytes_as_its_shape_says(tmp_path: Path, shape: tuple[int, ...], raw: bytes) -> None:
    numbers = b"".join(b"J" + struct.pack("<i", n) for n in shape) + {1: b"\x85", 2: b"\x86"}[len(shape)]
    good = py2(np.zeros(4, np.uint8))
    data = good.replace(b"J\x04\x00\x00\x00\x85", numbers)
    data = data.replace(b"T\x04\x00\x00\x00" + bytes(4), b"U" + bytes([len(raw)]) + raw)
    assert data != good
    with pytest.raises(DataError, match="array of shape"):
        read_pickle(put(tmp_path, data))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for reader in (read_pickle, read_pt, read_npy):
        with pytest.raises(DataError, match="nothing.*is missing"):
            reader(tmp_path / "nothing")
        with pytest.raises(DataError, match="cannot be read"):
            reader(tmp_path)


def test_other_archives_are_no_torch_files(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme", "no labels here")
    with pytest.raises(DataError, match="no data.pkl"):
        read_pt(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4), cut=st.integers(0, 400))
def test_damage_is_a_data_error_or_harmless(tmp_path: Path, changes: list[tuple[int, int]], cut: int) -> None:
    """Bytes of a small batch are overwritten and its end is cut off: a `DataError`, or plain data, and nothing else."""
    whole = bytearray(py2({"labels": [1, 2, 3], "data": np.arange(12, dtype=np.uint8).reshape(3, 4), "filenames": ["a", "b"]}))
    for place, value in changes:
        whole[place % len(whole)] = value
    path = put(tmp_path, bytes(whole[: max(1, len(whole) - cut)]))
    for read in (lambda: read_pickle(path), lambda: read_pickle_into(path, b"data", np.empty((3, 4), np.uint8))[0]):
        try:
            value = read()
        except DataError as error:
            assert str(path) in str(error)
        else:
            assert isinstance(value, (dict, list, tuple, str, bytes, int, float, bool, type(None), np.ndarray))


# --- pixels straight into an array


def test_pixels_go_into_the_given_array(tmp_path: Path) -> None:
    held = batch(ten_labels()[0][:20], 3)
    path, target = put(tmp_path, py2(held)), np.zeros((20, 3072), np.uint8)
    found, buffers = read_pickle_into(path, b"data", target)
    assert np.array_equal(target, held["data"])
    assert found == {b"batch_label": b"a batch", b"labels": held["labels"], b"filenames": [n.encode() for n in held["filenames"]]}
    assert len(buffers) == 3 and b"".join(map(bytes, buffers)) == path.read_bytes()
    assert np.shares_memory(np.frombuffer(buffers[1], np.uint8), target)  # cut out, not copied


def test_other_pickles_of_the_same_content_are_read_too(tmp_path: Path) -> None:
    """Saved again by Python 3: bytes elsewhere or in Fortran order, or an array in two steps."""
    held = batch(ten_labels()[0][:20], 3)
    for protocol in range(2, 6):
        for data in (held["data"], np.asfortranarray(held["data"])):
            target = np.zeros((20, 3072), np.uint8)
            again = {key.encode(): value for key, value in {**held, "data": data}.items()}
            path = put(tmp_path, pickle.dumps(again, protocol))
            found, buffers = read_pickle_into(path, b"data", target)
            assert np.array_equal(target, held["data"]) and found[b"labels"] == held["labels"]
            assert b"".join(map(bytes, buffers)) == path.read_bytes()


def test_what_looks_like_pixels_before_the_pixels(tmp_path: Path) -> None:
    held = batch(ten_labels()[0][:20], 3)
    decoy = {"note": "T" + struct.pack("<I", 20 * 3072).decode("latin1") + "x", **held}
    target = np.zeros((20, 3072), np.uint8)
    found, _ = read_pickle_into(put(tmp_path, py2(decoy)), b"data", target)
    assert np.array_equal(target, held["data"]) and found[b"note"].startswith(b"T")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": np.zeros((19, 3072), np.uint8)}, r"shape \(19, 3072\).*expected uint8 of shape \(20, 3072\)"),
        ({"data": np.zeros((20, 3071), np.uint8)}, r"shape \(20, 3071\)"),
        ({"data": np.zeros((3072, 20), np.uint8)}, r"shape \(3072, 20\)"),
        ({"data": [1, 2]}, "no array 'data'"),
    ],
)
def test_pixels_of_another_shape_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    held = {**batch(ten_labels()[0][:20], 3), **change}
    with pytest.raises(DataError, match=words):
        read_pickle_into(put(tmp_path, py2(held)), b"data", np.zeros((20, 3072), np.uint8))


@pytest.mark.parametrize("length", [0, 10, 500, 30_000, -1, -2000])
def test_truncated_batches(tmp_path: Path, length: int) -> None:
    whole = py2(batch(ten_labels()[0][:20], 3))
    with pytest.raises(DataError, match="file: .*(damaged|truncated)"):
        read_pickle_into(put(tmp_path, whole[:length]), b"data", np.zeros((20, 3072), np.uint8))


def test_bytes_after_a_batch(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="7 bytes follow its end"):
        read_pickle_into(put(tmp_path, py2(batch(ten_labels()[0][:20], 3)) + b"garbage"), b"data", np.zeros((20, 3072), np.uint8))
