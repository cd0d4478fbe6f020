"""What of a record the MLflow mirror shows: tags, parameters, metrics and curves, within MLflow's limits on names."""

from __future__ import annotations

import datetime
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

MAX_VALUE = 500  # of a parameter or tag; newer servers take more
MAX_KEY = 250


def times(record: Mapping[str, Any]) -> tuple[int, int]:
    """(start, end) in milliseconds; the time of mirroring where the record does not say."""

    def stamp(name: str) -> int:
        try:
            return int(datetime.datetime.fromisoformat(record["provenance"][name]).timestamp() * 1000)
        except (KeyError, TypeError, ValueError):
            return int(time.time() * 1000)

    begin = stamp("started")
    return begin, max(begin, stamp("finished"))


def tags(record: Mapping[str, Any], seal: str, label: str) -> dict[str, str]:
    cell = record["cell"]
    noise = cell["noise"]["kind"] + (f"@{cell['noise']['rate']:g}" if "rate" in cell["noise"] else "")
    label = label or str(cell["method"]["name"])
    tags = {
        "bench.id": record["id"],
        "bench.checksum": seal,
        "bench.suite": record["suite"],
        "bench.status": record["status"],
        "bench.dataset": cell["dataset"]["name"],
        "bench.noise": noise,
        "bench.method": cell["method"]["name"],
        "bench.model": cell["model"]["name"],
        "bench.seed": cell["seed"],
        "bench.label": label,
        "bench.kind": "cell",
        "bench.noise_sha256": (record.get("noise") or {}).get("sha256"),
        "bench.device": str(record["provenance"].get("device") or "").partition(":")[0],
        "mlflow.runName": f"{label} {cell['dataset']['name']} {noise} seed {cell['seed']}",
        "mlflow.source.name": "bench",
        "mlflow.source.git.commit": record["provenance"].get("git_commit"),
        "mlflow.note.content": record.get("reason"),
    }
    return {name: str(value)[:MAX_VALUE] for name, value in tags.items() if value not in (None, "")}


def params(cell: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The cell flattened to dotted keys."""

    def walk(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield from walk(f"{prefix}.{key}" if prefix else str(key), item)
        else:
            yield _key(prefix), (value if isinstance(value, str) else json.dumps(value))[:MAX_VALUE]

    return list(walk("", cell))


def finals(record: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Final metrics, costs and the measured noise rate; groups as `<metric>/<group>`."""
    found: list[tuple[str, Any]] = []
    for name, value in record["metrics"].items():
        found += [(f"{name}/{k}", v) for k, v in value.items()] if isinstance(value, Mapping) else [(name, value)]
    found += [(f"cost/{name}", value) for name, value in (record.get("cost") or {}).items()]
    found += [("noise/train_rate", (record.get("noise") or {}).get("train_rate"))]
    return [(_key(name), float(value)) for name, value in found if _is_number(value)]


def curve(curve: Mapping[str, Any]) -> tuple[list[tuple[str, int, float]], list[tuple[str, int, float]]]:
    """((name, epoch, value) of all epochs but each series' last, and of the last ones)."""
    series = {name: values for name, values in curve.items() if name not in ("epoch", "group_acc")}
    series |= {f"group_acc/{name}": values for name, values in curve.get("group_acc", {}).items()}
    history: list[tuple[str, int, float]] = []
    latest = []
    for name, values in series.items():
        rows = [(_key(name), e, float(v)) for e, v in zip(curve["epoch"], values, strict=True) if _is_number(v)]
        history += rows[:-1]
        latest += rows[-1:]
    return history, latest


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _key(name: str) -> str:
    """A name that MLflow accepts."""
    return re.sub(r"[^\w\-./ ]", "_", name)[:MAX_KEY]
