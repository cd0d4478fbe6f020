"""A real MLflow server that is not there, goes away while cells run, and comes back; `bench sync` completes it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.records import load_records
from faults.commands import ENVIRONMENT, Command, mirrored_runs, outcomes, record_bytes, suite_text, until, write_suite

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="forks and kills groups")]

SUITE = suite_text("[{method: ./slow.py, params: {seconds: 0.2}}, erm]", seeds="4", epochs=2)
CELLS = 8


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`mlflow server` on this machine, with a database that outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--artifacts-destination",
            str(self.folder / "artifacts"),
        ]  # fmt: skip
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                words, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **ENVIRONMENT}, cwd=self.folder
            )
        until(self.answers, 240, 0.2)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    made = Server(tmp_path / "server")
    yield made
    made.kill()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_server_that_is_down_goes_away_and_comes_back(tmp_path: Path, server: Server) -> None:
    folder = write_suite(tmp_path / "suite", SUITE)
    results = folder / "results" / "tiny"
    words = ("run", "tiny.yaml", "--executor", "inline", "--tracking", server.uri)

    down = Command(folder, *words)
    assert down.finish() == 3, down.text
    assert down.lines[-1].startswith(f"error: cannot use the MLflow store {server.uri}") and "--tracking none" in down.lines[-1]
    assert not load_records(results), "asked for and not there: nothing is run"

    server.start()
    run = Command(folder, *words)
    until(lambda: "[3/8]" in run.text)
    server.kill()
    begin = time.monotonic()
    assert run.finish(240) == 0, run.text
    assert time.monotonic() - begin < 120, "a dead server is not waited for at every cell"
    assert run.lines[-1] == f"tiny: {CELLS} done; ran {CELLS} now" and "Traceback" not in run.text
    (warning,) = [line for line in run.lines if line.startswith("warning: ")]
    assert "records could not be mirrored to http://127.0.0.1" in warning and "`bench sync`" in warning
    before = record_bytes(results)
    assert len(outcomes(results)) == CELLS

    sync = Command(folder, "sync", "tiny.yaml", "--tracking", server.uri)
    assert sync.finish() == 3 and sync.lines[-1].startswith("error: cannot use the MLflow store"), sync.text

    server.start()
    sync = Command(folder, "sync", "tiny.yaml", "--tracking", server.uri)
    assert sync.finish() == 0, sync.text
    added, of, total, *_ = sync.text.split()
    assert 0 < int(added) <= CELLS - 2 and (of, total) == ("of", str(CELLS))
    assert mirrored_runs(server.folder / "server.db") == [("FINISHED", CELLS, CELLS)]
    again = Command(folder, "sync", "tiny.yaml", "--tracking", server.uri)
    assert again.finish() == 0 and again.text == f"0 of {CELLS} records added to the mirror\n"
    assert record_bytes(results) == before


def test_a_store_that_fails_while_it_is_searched_is_an_environment_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers when sync begins and dies before it is done."""
    from click.testing import CliRunner

    from bench import track
    from bench.cli import main

    folder = write_suite(tmp_path / "suite", suite_text("[erm]", seeds="1", epochs=1))

    def gone(*_: Any, **__: Any) -> None:
        raise OSError("connection to http://user:hunter2@host lost")

    monkeypatch.setattr(track.Mirror, "_search", gone)
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(main, ["sync", "tiny.yaml"])
    assert done.exit_code == 3 and done.output.startswith("error: cannot use the MLflow store") and "hunter2" not in done.output
