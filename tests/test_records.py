"""Records: atomic writes, checksums, and a loader that refuses what it cannot trust by name (law 2)."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.cell import cell_id
from bench.records import (
    SCHEMA,
    RecordError,
    checksum,
    dumps,
    first_line,
    load_record,
    load_records,
    record_files,
    record_path,
    write_atomic,
    write_record,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def make_cell(seed: int = 0, **params: Any) -> dict[str, Any]:
    return {
        "dataset": {"name": "digits", "revision": "1"},
        "noise": {"kind": "none", "version": 1},
        "method": {"name": "erm", "version": 1, "params": params},
        "model": {"name": "mlp"},
        "training": {"epochs": 1, "lr": 0.1},
        "protocol": {"version": 1},
        "seed": seed,
    }


def make_record(seed: int = 0, **changes: Any) -> dict[str, Any]:
    cell = changes.pop("cell", None) or make_cell(seed)
    record = {
        "schema": SCHEMA, "id": cell_id(cell), "suite": "small", "cell": cell, "status": "done", "reason": None,
        "metrics": {"test_acc_last": 0.125}, "curve": {"epoch": [0], "test_acc": [0.125]}, "provenance": {},
        "warnings": [],
    }  # fmt: skip
    return {**record, **changes}


# -- writing -------------------------------------------------------------------------------------------------------
def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = make_record()
    path = write_record(tmp_path, record)
    assert path == tmp_path / f"{record['id']}.json" == record_path(tmp_path, record["id"])
    loaded = load_record(path)
    assert loaded.pop("checksum") == checksum(record)
    assert loaded == record
    assert load_records(tmp_path).keys() == {record["id"]}


def test_a_record_is_one_line_per_key(tmp_path: Path) -> None:
    before, after = make_record(), make_record(metrics={"test_acc_last": 0.25})
    lines = dumps(before).splitlines()
    changed = [a for a, b in zip(lines, dumps(after).splitlines(), strict=True) if a != b]
    assert [line.split(":")[0] for line in changed] == ['"metrics"', '"checksum"']


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    metrics=st.dictionaries(st.text(max_size=8), JSON, max_size=4), params=st.dictionaries(st.text(), JSON, max_size=3)
)
def test_any_json_content_survives_the_round_trip(tmp_path: Path, metrics: Any, params: Any) -> None:
    record = make_record(cell=make_cell(**{f"p{name}": value for name, value in params.items()}), metrics=metrics)
    loaded = load_record(write_record(tmp_path, record))
    loaded.pop("checksum")
    assert loaded == record
    assert dumps(loaded) == dumps(record)


@pytest.mark.parametrize(
    "fault",
    [
        lambda record: record.pop("metrics"),
        lambda record: record.update(status="finished"),
        lambda record: record.update(id="0" * 16),
        lambda record: record["metrics"].update(test_acc_last=float("nan")),
    ],
)
def test_what_is_no_record_is_not_written(tmp_path: Path, fault: Callable[[dict[str, Any]], Any]) -> None:
    record = make_record()
    fault(record)
    with pytest.raises(ValueError):
        write_record(tmp_path, record)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_crash_before_the_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = write_record(tmp_path, make_record())
    old = path.read_bytes()

    def crash(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, crash)
    with pytest.raises(OSError, match="No space left"):
        write_record(tmp_path, make_record(metrics={"test_acc_last": 0.5}))
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == [path.name], "the temporary file is removed"


def test_an_interrupt_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_file_system_that_cannot_flush_folders_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = os.fsync

    def only_files(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(22, "Invalid argument")
        flush(handle)

    monkeypatch.setattr(os, "fsync", only_files)
    write_atomic(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_concurrent_writers_never_show_half_a_file(tmp_path: Path) -> None:
    records = [make_record(warnings=["x" * 5000 * n]) for n in range(6)]
    path = write_record(tmp_path, records[0])
    failures: list[BaseException] = []

    def work(record: dict[str, Any]) -> None:
        try:
            for _ in range(15):
                write_record(tmp_path, record)
                load_record(path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(record,)) for record in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    loaded = load_record(path)
    loaded.pop("checksum")
    assert loaded in records
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


# -- refusing ------------------------------------------------------------------------------------------------------
def edited(path: Path, **changes: Any) -> None:
    """Change keys and seal the record anew, as a tool would that knows about checksums."""
    record = {**json.loads(path.read_text()), **changes}
    path.write_text(dumps({key: value for key, value in record.items() if value is not ...}))


CORRUPTIONS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "not JSON"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:200]), "not JSON"),
    "one byte short": (lambda p: p.write_bytes(p.read_bytes()[:-2]), "not JSON"),
    "zeros, as after a power cut": (lambda p: p.write_bytes(b"\0" * 500), "not JSON"),
    "binary": (lambda p: p.write_bytes(b"\xff\xfe\x80"), "not JSON"),
    "deeply nested": (lambda p: p.write_bytes(b"[" * 100_000), "not JSON"),
    "a list": (lambda p: p.write_text("[]"), "not a JSON object"),
    "a number edited": (lambda p: p.write_text(p.read_text().replace("0.125", "0.925")), "checksum"),
    "a number made NaN": (lambda p: p.write_text(p.read_text().replace("0.125", "NaN")), "checksum"),
    "checksum removed": (lambda p: p.write_text(p.read_text().replace('"checksum"', '"x"')), "checksum"),
    "a key removed": (lambda p: edited(p, metrics=...), "keys missing: metrics"),
    "an unknown status": (lambda p: edited(p, status="fine"), "unknown status 'fine'"),
    "a cell that is not this one": (lambda p: edited(p, cell=make_cell(7)), "its cell hashes to"),
    "a cell with an axis too few": (lambda p: edited(p, cell={"seed": 0}), "a cell has the keys"),
    "a cell that is no mapping": (lambda p: edited(p, cell=5), "corrupt record"),
    "an old schema": (lambda p: edited(p, schema=0), "schema 0, this version of bench reads 1"),
    "a future schema": (lambda p: edited(p, schema=2), "schema 2, this version of bench reads 1"),
    "no schema": (lambda p: edited(p, schema=...), "schema None"),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupt_record_is_refused_by_name(tmp_path: Path, name: str) -> None:
    damage, fault = CORRUPTIONS[name]
    path = write_record(tmp_path, make_record())
    damage(path)
    with pytest.raises(RecordError) as caught:
        load_record(path)
    message = str(caught.value)
    assert str(path) in message and fault in message and "run the suite again" in message
    with pytest.raises(RecordError, match=path.name):
        load_records(tmp_path)


def test_a_record_that_cannot_be_read_is_not_called_corrupt(tmp_path: Path) -> None:
    """It may be sound: nobody must be told to delete it."""
    path = write_record(tmp_path, make_record())
    path.unlink()
    path.mkdir()  # what root cannot read either
    with pytest.raises(RecordError) as caught:
        load_record(path)
    assert str(caught.value) == f"record {path}: cannot be read: Is a directory. Make it readable; it may be sound."
    assert caught.value.unreadable and not RecordError(path, "not JSON").unreadable


def test_a_record_under_another_name_is_refused(tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record())
    other = path.rename(tmp_path / ("f" * 16 + ".json"))
    with pytest.raises(RecordError, match=f"it holds the record of cell {path.stem}"):
        load_record(other)


def test_other_files_are_not_taken_for_records(tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record())
    names = (
        "plan.json",
        "plan-0a1b2c3d.json",
        ".0123456789abcdef.json.x.tmp",
        "0123456789ABCDEF.json",
        "x" * 16 + ".json",
    )
    for name in names:
        (tmp_path / name).write_text("not a record")
    assert record_files(tmp_path) == [path]
    assert list(load_records(tmp_path)) == [path.stem]
    assert record_files(tmp_path / "nothing") == []


def test_asked_for_records_that_do_not_exist_are_left_out(tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record())
    assert list(load_records(tmp_path, ["0" * 16, path.stem])) == [path.stem]


@pytest.mark.parametrize(("reason", "line"), [("a\nb", "a"), ("", ""), (None, "None"), ("x" * 50, "x" * 10)])
def test_the_first_line_of_a_reason(reason: Any, line: str) -> None:
    assert first_line(reason, 10) == line
