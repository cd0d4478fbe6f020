"""The mirror with eight writers at once: a real MLflow server on SQLite and on PostgreSQL, and PostgreSQL itself, on loopback."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_track import make_record

from bench.records import checksum
from bench.track import Mirror

pytestmark = [
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed"),
]
WRITERS, EACH = 8, 5
WRITER = """
import sys
from test_track import make_record
from bench.track import Mirror
uri, number, each, place = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
mirror = Mirror.open(uri, "shared", place)
print("ready", flush=True)
sys.stdin.readline()
logged = [mirror.log(make_record(number * each + i, epochs=50)) for i in range(each)]
assert all(logged) and mirror.warning is None, (logged, mirror.warning)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def mlflow_server(folder: Path, store: str) -> Iterator[str]:
    """A server with its artefacts in `folder`; yields its address."""
    port = free_port()
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artefacts")]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()[-2000:]
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def find_postgres() -> Path | None:
    """The folder of PostgreSQL's programs; Debian keeps them off the path."""
    for program in [*sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True), shutil.which("initdb")]:
        if program:
            return Path(program).resolve().parent
    return None


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A database of its own, on loopback, that is gone afterwards; yields its address."""
    programs = find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    driver = next((name for name in ("psycopg", "psycopg2") if importlib.util.find_spec(name)), None)
    if driver is None:
        pytest.skip("no driver for PostgreSQL is installed (pip install 'psycopg[binary]')")
    run: dict[str, Any] = {"check": True, "capture_output": True, "cwd": "/"}
    if os.getuid() == 0:  # it refuses to run as root
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no account `postgres`")
        run |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(folder, account.pw_uid, account.pw_gid)
        for parent in folder.parents:
            if parent.stat().st_uid == 0 and parent != Path("/") and not parent.stat().st_mode & 0o001:
                pytest.skip(f"the account `postgres` may not enter {parent}; choose another with --basetemp")
    data, port = folder / "data", free_port()
    (folder / "password").write_text("hunter2\n")
    os.chmod(folder / "password", 0o644)
    words = ["-U", "bench", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "-E", "UTF8", "--no-locale"]
    subprocess.run([programs / "initdb", "-D", data, *words], **run)
    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
    subprocess.run([programs / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start"], **run)
    try:
        yield f"postgresql+{driver}://bench:hunter2@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **run)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that another account may enter, with a short path: PostgreSQL's socket lies in it."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def eight_writers(uri: str, place: Path) -> None:
    """Eight processes that mirror different records of one suite at the same moment."""
    path = os.pathsep.join([str(Path(__file__).parent.parent), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, uri, str(number), str(EACH), str(place / str(number))], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for number in range(WRITERS)
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n", writer.communicate()[1]
    outputs = [writer.communicate("go\n", timeout=300)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * WRITERS, outputs
    assert "hunter2" not in "".join(outputs)


def check_store(uri: str, place: Path) -> None:
    """All is there, once, below one run of the suite; a second look finds nothing to do."""
    import mlflow

    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("shared")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`bench.kind` = 'suite'")
    cells = client.search_runs([experiment.experiment_id], "tags.`bench.kind` = 'cell'", max_results=1000)
    assert len(cells) == WRITERS * EACH
    assert {cell.data.params["seed"] for cell in cells} == {str(seed) for seed in range(WRITERS * EACH)}
    assert {cell.info.status for cell in cells} == {"FINISHED"}
    assert {cell.data.tags["mlflow.parentRunId"] for cell in cells} == {parent.info.run_id}
    one = cells[0]
    assert len(client.get_metric_history(one.info.run_id, "test_acc")) == 50
    record = make_record(int(one.data.params["seed"]), epochs=50)
    assert one.data.tags["bench.checksum"] == checksum(record)
    assert [item.path for item in client.list_artifacts(one.info.run_id)] == ["record.json"]
    mirror = Mirror.open(uri, "shared", place)
    (place / "figure.png").write_bytes(b"a picture")
    assert mirror.log_files([(place / "figure.png", "figures")]) == 1, mirror.warning
    assert [item.path for item in client.list_artifacts(parent.info.run_id, "figures")] == ["figures/figure.png"]
    assert mirror.rebuild([make_record(seed, epochs=50) for seed in range(WRITERS * EACH)]) == 0


def test_eight_writers_on_a_server_with_sqlite(folder: Path, tmp_path: Path) -> None:
    with mlflow_server(folder, f"sqlite:///{folder / 'server.db'}") as address:
        eight_writers(address, tmp_path)
        check_store(address, tmp_path)


def test_eight_writers_on_a_server_with_postgresql(folder: Path, tmp_path: Path) -> None:
    database = folder / "database"
    database.mkdir()
    with postgres(database) as store, mlflow_server(folder, store) as address:
        eight_writers(address, tmp_path)
        check_store(address, tmp_path)


def test_eight_writers_on_postgresql_itself(folder: Path, tmp_path: Path) -> None:
    database = folder / "database"
    database.mkdir()
    with postgres(database) as store:
        Mirror.open(store, "shared", tmp_path / "artefacts").close()  # creates the tables before the writers come
        eight_writers(store, tmp_path)
        check_store(store, tmp_path)
