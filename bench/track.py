"""The MLflow mirror: a run per suite, below it one per record, written by the driver alone. The only module that imports mlflow.

Records are the truth (law 2); the mirror can be thrown away and rebuilt from them. A tracking server that fails during
a run therefore costs a warning, never a cell.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench import track_files, track_rows
from bench.records import checksum, dumps, write_atomic
from bench.track_store import (
    ENVIRONMENT,
    creation_lock,
    find_experiment,
    is_server,
    plain_database,
    probe,
    relax_sync,
    scrubbed,
    sqlite_path,
    strip_credentials,
)  # fmt: skip

ARTIFACTS = "mlflow-artifacts"  # folder beside a SQLite store
MAX_PARAMS = 100  # per batch
MAX_METRICS = 1000  # per batch
PAUSE_AFTER, PAUSE_SECONDS = 3, 60.0  # failures in a row, and how long a dead server is left alone then
_COLUMNS = {
    "metrics": {"key", "value", "timestamp", "step", "is_nan", "run_uuid"},
    "params": {"key", "value", "run_uuid"},
}


class TrackError(Exception):
    """The tracking store cannot be used; the message says what to do and holds no credentials (exit code 3)."""


def default_uri(results: Path) -> str:
    return f"sqlite:///{Path(results).absolute() / 'mlflow.db'}"


def default_artifacts(results: Path) -> Path:
    return Path(results).absolute() / ARTIFACTS


def _unusable(uri: str, error: Exception) -> str:
    return (
        f"cannot use the MLflow store {strip_credentials(uri)}: {scrubbed(error, uri)}. Start the server or "
        "correct the address, or run with --tracking none: the mirror can be rebuilt from the records later."
    )


class Mirror:
    """An open tracking store. Use `Mirror.open`; `log` what finishes; `failures` counts what could not be written."""

    def __init__(self, client: Any, uri: str, experiment_id: str, index: Path | None, suite: str = "") -> None:
        self._client, self._uri, self._experiment_id, self._suite = client, uri, experiment_id, suite
        self._suite_run: tuple[str, str] | None = None  # (run, address of its artefacts)
        self._index_file = index
        self._index: dict[str, str] = {}  # checksum of a record -> run
        self._database = plain_database(uri)
        self._in_a_row, self._quiet_until = 0, 0.0
        self.failures = 0
        self.file_failures = 0
        self.last_error: str | None = None

    @classmethod
    def open(cls, uri: str, experiment: str, artifact_location: Path | str | None = None) -> Mirror:
        """Connect, and create database and experiment if needed: once, in the driver, before any worker exists.

        `artifact_location` is a folder below the results: a database stores artifacts there, and our index of what has
        been mirrored lies there. By default it is beside a SQLite file; without any, the store is asked instead of an
        index. Raises `TrackError` within seconds when the store cannot be used.
        """
        path = sqlite_path(uri)
        folder = Path(artifact_location).absolute() if artifact_location else path and path.parent / ARTIFACTS
        try:
            probe(uri)
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            client = _client(uri)
            with creation_lock(uri):
                found = find_experiment(client, experiment, None if is_server(uri) else folder)
        except Exception as error:  # mlflow, sqlalchemy, requests and the operating system have no common base
            raise TrackError(_unusable(uri, error)) from None
        index = f"index-{found.experiment_id}-{found.creation_time}.jsonl"  # a new database gets a new one
        mirror = cls(client, uri, found.experiment_id, folder / index if folder else None, experiment)
        mirror._read_index()
        return mirror

    def close(self) -> None:
        """Nothing is buffered; whatever was logged is in the store."""
        self._client = None

    def log(self, record: Mapping[str, Any], label: str = "") -> bool:
        """Mirror one record; False if it is there already or cannot be written now, which never raises."""
        seal = record.get("checksum") or checksum(record)
        if seal in self._index:
            return False
        if time.monotonic() < self._quiet_until:
            self.failures += 1
            return False
        try:
            run = self._write(record, seal, label)
        except Exception as error:
            self.failures += 1
            self.last_error = scrubbed(error, self._uri)
            self._in_a_row += 1
            if self._in_a_row >= PAUSE_AFTER:
                self._quiet_until = time.monotonic() + PAUSE_SECONDS
            return False
        self._in_a_row = 0
        self._remember(seal, run)
        return True

    def log_files(self, files: Iterable[tuple[Path, str]]) -> int:
        """Store files (path, folder among the artefacts) with the suite's run: tables, figures, noise artefacts.

        Returns how many; those it holds already are left out. Never raises: what cannot be stored is in `warning`.
        """
        try:
            run, address = self._parent()
            stored = track_files.put_files(self._client, run, address, files, self._index.__contains__)
        except Exception as error:
            self.file_failures += 1
            self.last_error = scrubbed(error, self._uri)
            return 0
        for key in stored:
            self._remember(key, run)
        return len(stored)

    def rebuild(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Mirror all records that the store lacks, whatever our index says; returns how many.

        Removes runs that a crash left half-written, so no other run may be writing to the experiment. Raises `TrackError`
        when the store stops answering before it has told what it holds.
        """
        try:
            self._index = self._search(sweep=True)
            self._write_index()
        except Exception as error:
            raise TrackError(_unusable(self._uri, error)) from None
        self._in_a_row, self._quiet_until = 0, 0.0
        return sum(self.log(record) for record in records)

    @property
    def warning(self) -> str | None:
        """What to tell the user at the end of a run, None if all is well."""
        if not self.failures:
            if self.file_failures:
                store = strip_credentials(self._uri)
                return f"some files could not be stored in {store} (last error: {self.last_error}); the numbers are there"
            return None
        return (
            f"{self.failures} records could not be mirrored to {strip_credentials(self._uri)} (last error: "
            f"{self.last_error}). No result is lost; `bench sync` completes the mirror when the store is back."
        )

    # -- writing ----------------------------------------------------------------------------------------------------
    def _write(self, record: Mapping[str, Any], seal: str, label: str) -> str:
        from mlflow.entities import Metric, Param

        begin, end = track_rows.times(record)
        tags = track_rows.tags(record, seal, label)
        tags[track_files.PARENT] = self._parent()[0]
        info = self._client.create_run(self._experiment_id, start_time=begin, tags=tags).info
        run = info.run_id
        try:
            params = track_rows.params(record["cell"])
            history, latest = track_rows.curve(record.get("curve") or {})
            final = [(name, 0, value) for name, value in track_rows.finals(record)] + latest
            if not self._bulk_insert(run, history, params, end):
                for start in range(0, len(params), MAX_PARAMS):
                    some = [Param(name, value) for name, value in params[start : start + MAX_PARAMS]]
                    self._client.log_batch(run, params=some)
                final += history
            for start in range(0, len(final), MAX_METRICS):
                rows = final[start : start + MAX_METRICS]
                self._client.log_batch(run, [Metric(name, value, end, step) for name, step, value in rows])
            self._client.set_terminated(run, "FINISHED" if record["status"] == "done" else "FAILED", end)
        except BaseException:
            with contextlib.suppress(Exception):
                self._client.delete_run(run)
            raise
        try:  # the numbers are there; a store that takes no files is no reason to lack them
            track_files.put_text(self._client, run, info.artifact_uri, "record.json", dumps(record))
        except Exception as error:
            self.file_failures += 1
            self.last_error = scrubbed(error, self._uri)
        return run

    def _parent(self) -> tuple[str, str]:
        """The run of the suite and the address of its artefacts."""
        if self._suite_run is None:
            with creation_lock(self._uri):
                self._suite_run = track_files.suite_run(self._client, self._experiment_id, self._suite)
        return self._suite_run

    def _bulk_insert(
        self, run: str, history: list[tuple[str, int, float]], params: list[tuple[str, str]], timestamp: int
    ) -> bool:
        """Parameters and curves straight into a SQLite store: 1 ms where MLflow's object mapper takes 25 to 60.

        Only where the tables look as expected. The last value of each metric goes through MLflow, which keeps a second
        table of latest values.
        """
        if self._database is None:
            return False
        with contextlib.closing(sqlite3.connect(self._database, timeout=20)) as connection, connection:
            for table, expected in _COLUMNS.items():
                if {row[1] for row in connection.execute(f"PRAGMA table_info({table})")} != expected:
                    self._database = None
                    return False
            connection.execute("PRAGMA synchronous=OFF")
            connection.executemany(
                "INSERT OR IGNORE INTO metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, 0, ?)",
                [(name, value, timestamp, step, run) for name, step, value in history],
            )
            connection.executemany(
                "INSERT OR IGNORE INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
                [(name, value, run) for name, value in params],
            )
        return True

    # -- index ------------------------------------------------------------------------------------------------------
    def _remember(self, key: str, run: str) -> None:
        self._index[key] = run
        if self._index_file is not None:
            with contextlib.suppress(OSError), self._index_file.open("a") as file:
                file.write(json.dumps([key, run]) + "\n")

    def _read_index(self) -> None:
        if self._index_file is None or not self._index_file.exists():  # e.g. the first run here against a shared server
            with contextlib.suppress(Exception):
                self._index = self._search()
                self._write_index()
            return
        for line in self._index_file.read_text().splitlines():
            with contextlib.suppress(ValueError):  # a line cut off by a crash: that record is mirrored again
                seal, run = json.loads(line)
                self._index[seal] = run

    def _write_index(self) -> None:
        if self._index_file is not None:
            self._index_file.write_text("".join(json.dumps([seal, run]) + "\n" for seal, run in self._index.items()))

    def _search(self, *, sweep: bool = False) -> dict[str, str]:
        """Checksum to run for all finished runs of ours in the store; `sweep` deletes unfinished ones and second ones."""
        found: dict[str, str] = {}
        token = None
        while True:
            page = self._client.search_runs([self._experiment_id], max_results=1000, page_token=token)
            for run in page:
                seal = run.data.tags.get("bench.checksum")
                if seal and run.info.status == "RUNNING":
                    if sweep:
                        self._client.delete_run(run.info.run_id)
                elif seal and sweep and seal in found:
                    self._client.delete_run(run.info.run_id)
                elif seal:
                    found[seal] = run.info.run_id
            token = page.token
            if not token:
                return found


# -- connecting ----------------------------------------------------------------------------------------------------


def _client(uri: str) -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    path = sqlite_path(uri)
    if path is not None:
        relax_sync(path)
    with creation_lock(uri):
        if path is not None and path.stat().st_size == 0:
            _create(path)
        return mlflow.MlflowClient(uri)


def _create(path: Path) -> None:
    """A new database at `path`, whole or not at all: MLflow cannot use one whose creation was cut off, nor complete it.

    It is made in the folder for temporary files: the connections of a failed attempt would hold on to the room of a full disk.
    """
    import mlflow

    with tempfile.TemporaryDirectory(prefix="bench-mlflow-") as folder:
        new = Path(folder) / "mlflow.db"
        relax_sync(new)
        mlflow.MlflowClient(f"sqlite:///{new}")._tracking_client.store.engine.dispose()
        write_atomic(path, new.read_bytes())
