"""What the MLflow mirror keeps beside numbers: the run of a suite, which holds the runs of its cells, and files as artefacts."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from bench.records import write_atomic

PARENT = "mlflow.parentRunId"
SUITE_TAG = "bench.kind"


def suite_run(client: Any, experiment_id: str, suite: str) -> tuple[str, str]:
    """(run, address of its artefacts) of the suite: the oldest that is there, else a new one.

    Several writers may make one at the same time; all then take the oldest, and each removes its own.
    """
    found = _oldest(client, experiment_id)
    if found is None:
        tags = {SUITE_TAG: "suite", "bench.suite": suite, "mlflow.runName": f"suite {suite}", "mlflow.source.name": "bench"}
        own = client.create_run(experiment_id, tags=tags).info
        client.set_terminated(own.run_id, "FINISHED")
        found = _oldest(client, experiment_id) or own
        if found.run_id != own.run_id:
            client.delete_run(own.run_id)
    return found.run_id, found.artifact_uri


def _oldest(client: Any, experiment_id: str) -> Any:
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    page = client.search_runs([experiment_id], f"tags.`{SUITE_TAG}` = 'suite'", max_results=1, order_by=order)
    return page[0].info if page else None


def put_text(client: Any, run: str, address: str, name: str, text: str) -> None:
    """Store `text` as the artefact `name` of a run; `address` is that of its artefacts. Raises what the store raises."""
    folder = local_folder(address)
    if folder is None:
        client.log_text(run, text, name)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def put_files(client: Any, run: str, address: str, files: Iterable[tuple[Path, str]], known: Callable[[str], bool]) -> list[str]:
    """Store files as artefacts, each in the folder given beside it, except what is `known`; returns the keys of the others.

    A key is the artefact's path with the hash of its content. Files that are gone are left out.
    """
    stored = []
    folder = local_folder(address)
    for path, place in files:
        with contextlib.suppress(FileNotFoundError):
            data = path.read_bytes()
            key = f"file {place}/{path.name} {hashlib.sha256(data).hexdigest()}"
            if known(key):
                continue
            if folder is None:
                client.log_artifact(run, str(path), place or None)
            else:
                write_atomic(folder / place / path.name, data)
            stored.append(key)
    return stored


def local_folder(address: str) -> Path | None:
    """The folder of artefacts that this process writes itself, None where a server takes them."""
    if address.startswith("file://"):
        return Path(unquote(urlsplit(address).path))
    return Path(address) if os.path.isabs(address) else None
