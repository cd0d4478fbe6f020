"""`load_summary`: what `load_record` says, without the bulk, and the same refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_records import JSON, make_cell, make_record

import bench.records as records
from bench.cell import cell_id
from bench.records import BULK, RecordError, dumps, load_record, load_summaries, load_summary, record_files, write_record

ROOT = Path(__file__).resolve().parent.parent
LONG = [round(i / 7, 6) for i in range(60)]


def bare(record):
    kept = {key: None if key in BULK else value for key, value in record.items() if key != "checksum"}
    if isinstance(kept.get("noise"), dict):
        kept["noise"] = {key: value for key, value in kept["noise"].items() if key != "matrix"}
    return kept


def full_record(seed: int = 0):
    return make_record(
        seed, curve={"test_acc": LONG, "epoch": list(range(60)), "groups": {"b, \"c": LONG, "a": [None] * 60}},
        noise={"rate": 1e-05, "matrix": [LONG, LONG], "definition": "x, \"y\": z"},
        cost={"b": 1e-7, "a": "p, ", "stages": []}, provenance={"d": "q,", "c": 1},
        metrics={"test_acc_last": 0.1, "group_acc_last": {"b": 0.5, "a": 1}},
    )  # fmt: skip


def test_every_committed_record_takes_the_short_way(monkeypatch):
    expected = {path: bare(load_record(path)) for path in record_files(ROOT / "results" / "quickstart")}
    monkeypatch.setattr(records, "load_record", None)
    assert {path: load_summary(path) for path in expected} == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["metrics", "curve", "noise", "cost", "provenance", "watched", "own"]), JSON))
def test_any_record_is_the_same(tmp_path, changes):
    path = write_record(tmp_path, {**make_record(), **changes})
    assert load_summary(path) == bare(load_record(path))


def test_long_lists_and_awkward_strings(tmp_path):
    path = write_record(tmp_path, full_record())
    assert load_summary(path) == bare(load_record(path))


@pytest.mark.parametrize(
    ("find", "put"),
    [
        ('"test_acc_last": 0.1,', '"test_acc_last": 0.2,'), ("0.142857", "0.142858"), ('"status": "done"', '"status": "failed"'),
        ('"p, "', '"p,"'), ('"q,"', '"q, "'), ('"seed": 0', '"seed": 1'), ("1e-05", "1e-06"),
        ('"lr": 0.1', '"lr": 0.2'), ("}\n", ""),
        ('"schema": 1', '"schema": 2'), ('"warnings": [],\n', ""), ("0.142857,", "0.142857, NaN,"),
    ],
)  # fmt: skip
def test_any_damage_is_refused_with_the_same_message(tmp_path, find, put):
    path = write_record(tmp_path, full_record())
    text = path.read_text()
    assert find in text
    path.write_text(text.replace(find, put, 1))
    with pytest.raises(RecordError) as slow:
        load_record(path)
    with pytest.raises(RecordError, match=re.escape(str(slow.value))):
        load_summary(path)


def test_names_identities_and_absence_are_checked(tmp_path):
    path = write_record(tmp_path, full_record())
    other = tmp_path / f"{'0' * 16}.json"
    other.write_bytes(path.read_bytes())
    with pytest.raises(RecordError, match="holds the record of cell"):
        load_summary(other)
    forged = {**full_record(), "cell": make_cell(5)}
    path.write_text(dumps(forged))
    with pytest.raises(RecordError, match="its cell hashes to"):
        load_summary(path)
    with pytest.raises(RecordError, match="cannot be read"):
        load_summary(tmp_path / "none.json")


def test_another_layout_is_read_the_long_way(tmp_path):
    path = write_record(tmp_path, full_record())
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=2))
    assert load_summary(path) == bare(load_record(path))


def identity(record):
    return record["id"]


@pytest.mark.parametrize("many", [10**9, 2])
def test_many_are_read_in_order_with_faults_in_their_places(tmp_path, monkeypatch, many):
    monkeypatch.setattr(records, "_MANY", many)
    monkeypatch.setattr(records, "_CHUNK", 2)
    paths = [write_record(tmp_path, make_record(seed)) for seed in range(31)]
    paths[7].write_text("{}")
    found = list(load_summaries(paths, identity))
    assert [path for path, _, _ in found] == paths
    assert [kept for _, kept, _ in found] == [None if i == 7 else cell_id(make_cell(i)) for i in range(31)]
    assert [i for i, (_, _, fault) in enumerate(found) if fault] == [7]
