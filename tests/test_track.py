"""The MLflow mirror against a real SQLite store."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.cell import cell_id
from bench.records import checksum
from bench.track import Mirror, TrackError, default_artifacts, default_uri
from bench.track_store import strip_credentials

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed")


def make_record(seed: int = 0, *, status: str = "done", epochs: int = 3, **fields: Any) -> dict[str, Any]:
    cell = {
        "dataset": {"name": "digits", "revision": "1"},
        "noise": {"kind": "symmetric", "version": 1, "rate": 0.5, "include_self": False},
        "method": {"name": "gce", "version": 1, "params": {"q": 0.7, "note": "x" * 9000}},
        "model": {"name": "mlp", "widths": [64, 64]},
        "training": {"epochs": epochs, "clip_norm": None},
        "protocol": {"version": 1},
        "seed": seed,
    }
    curve = {
        "epoch": list(range(epochs)),
        "test_acc": [e / 100 for e in range(epochs)],
        "noise_auc": [None] + [0.5] * (epochs - 1),
        "group_acc": {"no loop/rows": [0.25] * epochs},
    }
    record = {
        "schema": 1, "id": cell_id(cell), "suite": "quickstart", "cell": cell, "status": status, "reason": None,
        "metrics": {"test_acc_last": 0.75, "group_acc_last": {"no loop/rows": 0.25}, "epoch_selected": 2},
        "curve": curve, "noise": {"train_rate": 0.45}, "cost": {"train_seconds": 1.5, "images_per_second": None},
        "provenance": {
            "git_commit": "abc", "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:00:10+00:00",
        },
        "warnings": [],
    }  # fmt: skip
    return {**record, **fields}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


def open_mirror(results: Path, experiment: str) -> Mirror:
    return Mirror.open(default_uri(results), experiment, default_artifacts(results))


def runs(results: Path, experiment: str) -> list[Any]:
    import mlflow

    client = mlflow.MlflowClient(default_uri(results))
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], "tags.`bench.kind` = 'cell'", max_results=1000))


def test_a_record_becomes_one_complete_run(results: Path) -> None:
    import mlflow

    record = make_record(seed=7)
    mirror = open_mirror(results, "complete")
    assert mirror.log(record, label="GCE")
    (run,) = runs(results, "complete")
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 10_000
    assert run.data.params["method.params.q"] == "0.7" and run.data.params["seed"] == "7"
    assert run.data.params["training.clip_norm"] == "null" and run.data.params["model.widths"] == "[64, 64]"
    assert run.data.params["method.params.note"] == "x" * 500
    tags = run.data.tags
    assert tags["bench.id"] == record["id"] and tags["bench.checksum"] == checksum(record)
    assert tags["bench.noise"] == "symmetric@0.5" and tags["bench.label"] == "GCE" and tags["bench.status"] == "done"
    assert tags["mlflow.source.git.commit"] == "abc" and tags["mlflow.runName"] == "GCE digits symmetric@0.5 seed 7"
    expected = {
        "test_acc_last": 0.75, "group_acc_last/no loop/rows": 0.25, "epoch_selected": 2.0, "noise/train_rate": 0.45,
        "cost/train_seconds": 1.5, "test_acc": 0.02, "noise_auc": 0.5, "group_acc/no loop/rows": 0.25,
    }  # fmt: skip
    assert run.data.metrics == pytest.approx(expected)
    client = mlflow.MlflowClient(default_uri(results))
    history = client.get_metric_history(run.info.run_id, "test_acc")
    assert sorted((point.step, point.value) for point in history) == [(0, 0.0), (1, 0.01), (2, 0.02)]
    assert [point.step for point in client.get_metric_history(run.info.run_id, "noise_auc")] == [1, 2]


def test_cells_are_children_of_the_suite_and_their_records_are_artefacts(results: Path, tmp_path: Path) -> None:
    import mlflow

    records = [make_record(seed, noise={"train_rate": 0.5, "sha256": "ab" * 32}) for seed in range(2)]
    mirror = open_mirror(results, "family")
    assert all(mirror.log(record) for record in records)
    (figure := tmp_path / "accuracy.png").write_bytes(b"a picture")
    (noise := tmp_path / "digits-symmetric-0123.npz").write_bytes(b"labels")
    assert mirror.log_files([(figure, "figures"), (noise, "noise"), (tmp_path / "gone.png", "figures")]) == 2
    again = open_mirror(results, "family")
    assert again.log(make_record(5)) and again.log_files([(figure, "figures"), (noise, "noise")]) == 0
    figure.write_bytes(b"another picture")
    assert again.log_files([(figure, "figures"), (noise, "noise")]) == 1
    assert mirror.warning is None and again.warning is None
    client = mlflow.MlflowClient(default_uri(results))
    experiment = client.get_experiment_by_name("family")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`bench.kind` = 'suite'")
    assert parent.info.status == "FINISHED" and parent.data.tags["mlflow.runName"] == "suite family"
    children = runs(results, "family")
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id} and len(children) == 3
    child = next(child for child in children if child.data.tags["bench.seed"] == "1")
    assert child.data.tags["bench.noise_sha256"] == "ab" * 32
    kept = Path(child.info.artifact_uri.removeprefix("file://")) / "record.json"
    assert json.loads(kept.read_text())["checksum"] == checksum(records[1])
    stored = Path(parent.info.artifact_uri.removeprefix("file://"))
    assert (stored / "figures" / "accuracy.png").read_bytes() == b"another picture"
    assert (stored / "noise" / noise.name).read_bytes() == b"labels"


def test_a_store_that_takes_no_files_keeps_the_numbers(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import track_files

    def fail(*_: Any) -> None:
        raise OSError("no room for user:hunter2@host")

    mirror = open_mirror(results, "no files")
    monkeypatch.setattr(track_files, "put_text", fail)
    assert mirror.log(make_record(0)) and mirror.failures == 0
    assert mirror.warning is not None and "the numbers are there" in mirror.warning
    (run,) = runs(results, "no files")
    assert run.info.status == "FINISHED" and run.data.metrics["test_acc"] == 0.02


def test_long_curves_go_in_batches_also_where_the_short_cut_is_closed(results: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(default_uri(results))
    mirror = open_mirror(results, "long")
    mirror.log(make_record(0, epochs=700))
    mirror._database = None
    mirror.log(make_record(1, epochs=700))
    assert mirror.failures == 0
    found = runs(results, "long")
    by_seed = {run.data.params.pop("seed"): run for run in found}
    assert by_seed["0"].data.params == by_seed["1"].data.params != {}
    for run in found:
        assert len(client.get_metric_history(run.info.run_id, "test_acc")) == 700
        assert len(client.get_metric_history(run.info.run_id, "group_acc/no loop/rows")) == 700
        assert run.data.metrics["test_acc"] == 6.99


def test_status_of_failed_cells(results: Path) -> None:
    mirror = open_mirror(results, "status")
    mirror.log(make_record(0, status="failed", reason="it broke", metrics={}, curve={}, noise=None, cost=None))
    mirror.log(make_record(1, status="diverged", reason="not finite"))
    by_seed = {run.data.tags["bench.seed"]: run for run in runs(results, "status")}
    assert {run.info.status for run in by_seed.values()} == {"FAILED"}
    assert by_seed["0"].data.tags["mlflow.note.content"] == "it broke"
    assert by_seed["1"].data.tags["bench.status"] == "diverged"


def test_a_record_is_mirrored_once(results: Path) -> None:
    first = open_mirror(results, "once")
    assert first.log(make_record(0)) and not first.log(make_record(0))
    again = open_mirror(results, "once")  # knows from its index
    assert not again.log(make_record(0)) and again.log(make_record(1))
    assert again.log(make_record(0, reason="another outcome of the same cell"))
    assert len(runs(results, "once")) == 3
    for index in default_artifacts(results).glob("index-*"):
        index.unlink()
    assert not open_mirror(results, "once").log(make_record(0)), "without an index the store is asked"
    assert len(runs(results, "once")) == 3


def test_rebuild_completes_and_repairs(results: Path) -> None:
    records = [make_record(seed) for seed in range(4)]
    mirror = open_mirror(results, "rebuild")
    mirror.log(records[0])
    mirror.log(records[1])
    cut_off = next(run for run in runs(results, "rebuild") if run.data.tags["bench.seed"] == "1")
    mirror._client.update_run(cut_off.info.run_id, status="RUNNING")  # as a crash would leave it
    assert mirror.rebuild(records) == 3
    assert mirror.rebuild(records) == 0
    found = runs(results, "rebuild")
    assert sorted(run.data.tags["bench.seed"] for run in found) == ["0", "1", "2", "3"]
    assert {run.info.status for run in found} == {"FINISHED"}


def test_a_store_that_fails_costs_a_warning_and_leaves_nothing_half_written(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = open_mirror(results, "failing")
    calls = []

    def fail(*_: Any, **__: Any) -> None:
        calls.append(1)
        raise OSError("connection to http://user:hunter2@host lost")

    assert mirror.warning is None
    with monkeypatch.context() as patched:
        patched.setattr(mirror._client, "log_batch", fail)
        assert not any(mirror.log(make_record(seed)) for seed in range(5))
    assert mirror.failures == 5 and len(calls) == 3, "a dead store is not asked for every record"
    assert mirror.warning is not None and "bench sync" in mirror.warning and "hunter2" not in mirror.warning
    assert runs(results, "failing") == []
    assert mirror.rebuild([make_record(seed) for seed in range(5)]) == 5


def test_nothing_is_written_outside_the_results(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from bench.track import *; from test_track import make_record\n"
        "r = Path(sys.argv[1]); m = Mirror.open(default_uri(r), 'x', default_artifacts(r)); assert m.log(make_record())"
    )
    (tmp_path / "cwd").mkdir()
    path = os.pathsep.join([str(Path(__file__).parent.parent), str(Path(__file__).parent)])
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "results")], cwd=tmp_path / "cwd", env=environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cwd", "results"]
    assert list((tmp_path / "cwd").iterdir()) == []


# -- opening -------------------------------------------------------------------------------------------------------
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_an_unreachable_store_says_what_to_do_and_no_password(tmp_path: Path, scheme: str) -> None:
    uri = f"{scheme}://user:hunter2@127.0.0.1:{closed_port()}/path"
    with pytest.raises(TrackError) as caught:
        Mirror.open(uri, "x", tmp_path)
    message = str(caught.value)
    assert "--tracking none" in message and "127.0.0.1" in message and "refused" in message
    assert "hunter2" not in message and "user" not in message


@pytest.mark.parametrize("uri", ["mlruns", "ftp:", "sqlite:////proc/no/such.db"])
def test_an_impossible_store_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(TrackError, match="cannot use the MLflow store"):
        Mirror.open(uri, "x", tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is not a database" * 100)
    with pytest.raises(TrackError, match="not a database"):
        Mirror.open(default_uri(tmp_path), "x", default_artifacts(tmp_path))


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:////a/b@c/mlflow.db", "sqlite:////a/b@c/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
        ("https://user:pa@ss@host:5000/x", "https://host:5000/x"),
        (
            "postgresql+psycopg2://u:p@db/mlflow?sslmode=require&password=x",
            "postgresql+psycopg2://db/mlflow?sslmode=require",
        ),
        ("http://token@host?api_key=1", "http://host"),
        ("results/mlruns", "results/mlruns"),
    ],
)
def test_credentials_are_stripped(uri: str, expected: str) -> None:
    assert strip_credentials(uri) == expected


def test_the_sync_command_completes_the_mirror(tmp_path: Path) -> None:
    from click.testing import CliRunner
    from finished import finish

    from bench.cli import main

    suite = tmp_path / "small.yaml"
    suite.write_text("datasets: [digits]\nnoises: [none]\nmethods: [erm, gce]\nseeds: 2\n")
    results = tmp_path / "results"
    ids = finish(suite, results)
    words = ["sync", str(suite), "--results", str(results)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0 and done.output == f"{len(ids)} of {len(ids)} records added to the mirror\n", done.output
    assert CliRunner().invoke(main, words).output == f"0 of {len(ids)} records added to the mirror\n"
    unreachable = CliRunner().invoke(main, [*words, "--tracking", "http://127.0.0.1:9"])
    assert unreachable.exit_code == 3 and "127.0.0.1:9" in unreachable.output
