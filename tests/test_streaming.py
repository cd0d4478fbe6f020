"""Pictures in files through a whole trial: streamed batches, second test set, top-5, subsets per epoch, delivered labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from miniature_trees import clothing1m, waterbirds, webvision
from small import TINY_CNN, make_cell

import bench.data
from bench.data import DataError, files
from bench.trial.runner import Options, run_cell


def trial(monkeypatch: pytest.MonkeyPatch, root: Path, cls: Any, threads: int = 2, **axes: Any) -> dict[str, Any]:
    """The record of one cell on a miniature data set; loaded anew, decoded by so many threads."""
    known = bench.data.datasets() | {cls.slug: cls}
    monkeypatch.setattr(bench.data, "datasets", lambda: known)
    bench.data._load_cached.cache_clear()
    files.set_threads(threads)
    try:
        cell = make_cell(dataset="digits", noise="none", model=TINY_CNN, **axes)
        cell["dataset"] = {"name": cls.slug, "revision": cls.revision, **cls.identity({})}
        return run_cell(cell, Options("suite", data_root=str(root)))
    finally:
        files.set_threads(None)
        bench.data._load_cached.cache_clear()


def without_costs(record: dict[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in ("status", "reason", "metrics", "curve", "detail", "noise", "data")}


@pytest.mark.parametrize("method", ["erm", "llc-dro"])
def test_waterbirds_trains_from_files_with_any_number_of_threads(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = waterbirds(tmp_path)
    params = {"warmup": 1, "k": 3} if method == "llc-dro" else {}
    axes = {"method": method, "params": params, "training": {"epochs": 2, "batch_size": 3}}
    one = trial(monkeypatch, tmp_path, cls, threads=1, **axes)
    assert one["status"] == "done", one["reason"]
    assert one["data"]["validation"] == "official, true labels" and one["data"]["n_test"] == 6
    assert {"worst_group_acc_last", "adjusted_acc_last"} <= set(one["metrics"])
    assert without_costs(one) == without_costs(trial(monkeypatch, tmp_path, cls, threads=4, **axes))


def test_webvision_reports_two_test_sets_and_top_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = trial(monkeypatch, tmp_path, webvision(tmp_path), method="erm", training={"epochs": 1, "batch_size": 8})
    assert record["status"] == "done", record["reason"]
    metrics = record["metrics"]
    for name in ("test", "test2"):
        assert 0 <= metrics[f"{name}_acc_last"] <= metrics[f"{name}_top5_acc_last"] <= 1
    # nobody knows which web labels are wrong: no rate, no matrix, no noise AUC
    assert record["noise"]["rate"] is None and record["noise"]["matrix"] is None and "noise_auc_last" not in metrics
    assert record["data"]["test2"] and record["data"]["n_test2"] > 0


def test_clothing1m_trains_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = trial(monkeypatch, tmp_path, clothing1m(tmp_path), method="erm", training={"epochs": 1, "batch_size": 8})
    assert record["status"] == "done", record["reason"]
    assert record["noise"]["train_rate"] is None and record["data"]["n_val"] > 0


def test_an_unreadable_picture_ends_the_cell_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = waterbirds(tmp_path)
    broken = sorted(tmp_path.rglob("*.jpg"))[0]
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DataError, match=broken.name):  # no result of the cell: it runs when the picture is there again
        trial(monkeypatch, tmp_path, cls, method="erm", training={"epochs": 1, "batch_size": 3})
