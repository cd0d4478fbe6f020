"""Reaching an MLflow store within seconds, and creating it whole or not at all. Nothing here knows what a record is."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the defaults wait for many minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "GIT_PYTHON_REFRESH": "quiet",
}
CONNECT_SECONDS = 5.0


def strip_credentials(uri: str) -> str:
    """The URI without user, password and secret query values, fit to be stored and printed."""
    uri = re.sub(r"^([A-Za-z][\w+.-]*://)[^/?#]*@", r"\1", uri)
    if "?" not in uri:
        return uri
    parts = urlsplit(uri)
    secret = re.compile("pass|pwd|token|secret|key|user|credential", re.IGNORECASE)
    kept = [(name, value) for name, value in parse_qsl(parts.query) if not secret.search(name)]
    return urlunsplit(parts._replace(query=urlencode(kept)))


def scrubbed(error: BaseException | str, uri: str) -> str:
    """One line of an error, without what `strip_credentials` takes away."""
    text = str(error).replace(uri, strip_credentials(uri))
    text = re.sub(r"([A-Za-z][\w+.-]*://)[^\s/@]*@", r"\1", text)
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return (first or type(error).__name__)[:300]


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def sqlite_path(uri: str) -> Path | None:
    match = re.match(r"^sqlite(?:\+\w+)?:///([^?]+)", uri)
    return Path(match.group(1)) if match and match.group(1) != ":memory:" else None


def plain_database(uri: str) -> Path | None:
    path = sqlite_path(uri)
    return path if path is not None and path.is_file() else None


def store_port(parts: SplitResult) -> int | None:
    """The port of a store's address, by its scheme where none is given; raises `ValueError` for an impossible one."""
    ports = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
    return parts.port or ports.get(parts.scheme.split("+")[0])


def probe(uri: str) -> None:
    """Raise quickly if nothing answers; MLflow itself would try again for minutes."""
    path = sqlite_path(uri)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, timeout=20)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
            connection.execute("BEGIN IMMEDIATE").close()
        return
    parts = urlsplit(uri)
    if not parts.scheme or not parts.hostname:
        raise ValueError("not an address of a tracking store (valid: sqlite:///FILE, http://HOST:PORT, postgresql://...)")
    port = store_port(parts)
    if port is not None:
        socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS).close()


@functools.cache
def relax_sync(path: Path) -> None:
    """No flush to the disk per commit in this one database: three times as fast, and a power cut costs a rebuild."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def connected(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            file = connection.execute("PRAGMA database_list").fetchone()[2]
            if file and os.path.realpath(file) == os.path.realpath(path):
                connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", connected)


@contextlib.contextmanager
def creation_lock(uri: str) -> Iterator[None]:
    """Two processes that create one SQLite store at the same time can leave it unusable."""
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    from filelock import FileLock

    with FileLock(f"{path}.lock", timeout=60):
        yield


def find_experiment(client: Any, name: str, artifacts: Path | None) -> Any:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            client.create_experiment(name, artifact_location=artifacts.as_uri() if artifacts else None)
        except Exception:
            if client.get_experiment_by_name(name) is None:  # else another process was faster
                raise
        found = client.get_experiment_by_name(name)
    if found.lifecycle_stage != "active":
        raise ValueError(f"its experiment {name!r} was deleted; restore it (mlflow experiments restore) or purge it")
    return found
