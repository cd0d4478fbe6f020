"""A suite that counts as finished without having been run: made-up records under the right names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.api import read_plan
from bench.outputs import manifest_text
from bench.records import SCHEMA, write_atomic, write_record


def made_up_record(cell: dict[str, Any], identity: str, suite: str, **changes: Any) -> dict[str, Any]:
    accuracy = int(identity[:4], 16) / 65536
    metrics = {
        f"{name}_{protocol}": value
        for name, value in (("test_acc", accuracy), ("val_acc", accuracy / 2), ("noise_auc", 0.75))
        for protocol in ("last", "last_k", "best_oracle", "selected")
    }
    epochs = cell["training"]["epochs"]
    record = {
        "schema": SCHEMA, "id": identity, "suite": suite, "cell": cell, "status": "done", "reason": None,
        "metrics": {**metrics, "epoch_best_oracle": 0, "epoch_selected": 0},
        "curve": {"epoch": list(range(epochs)), "test_acc": [accuracy] * epochs, "val_acc": [accuracy / 2] * epochs},
        "noise": {
            "rate": 0.45, "train_rate": 0.45, "nominal": cell["noise"].get("rate", 0.0), "sha256": "0" * 64,
            "definition": "made up", "matrix": [[0.5, 0.5], [0.5, 0.5]], "classes": ["a", "b"],
        },
        "data": {
            "fingerprint": "0" * 64, "canonical": True, "n_train": 10, "n_val": 2, "n_test": 5, "groups": None,
            "validation": "hold-out, noisy labels",
        },
        "cost": {
            "setup_seconds": 0.1, "train_seconds": 1.0, "eval_seconds": 0.1, "images_per_second": 10.0,
            "peak_memory_bytes": 1, "networks": 1, "forward_images": 10, "backward_images": 10, "device_memory": "cpu",
        },
        "provenance": {"bench": "0", "git_commit": None, "git_dirty": None, "code": "0" * 16, "device": "cpu: none"},
        "warnings": [],
    }  # fmt: skip
    return {**record, **changes}


def finish(suite: Path, results: Path) -> list[str]:
    """Write a done record for each cell of the suite, and its plan; returns the ids."""
    plan = read_plan(suite)
    folder = results / plan.suite.name
    for entry in plan.entries:
        write_record(folder, made_up_record(entry.cell, entry.id, plan.suite.name))
    write_atomic(folder / "plan.json", manifest_text(plan.manifest()).encode())
    return [entry.id for entry in plan.entries]
