"""A made-up suite whose records hold everything that figures are drawn from, with numbers that are easy to follow."""

from __future__ import annotations

import base64
import io
from typing import Any

GROUPS = ["a/1", "a/2", "b/1", "b/2"]
METHODS = {"erm": "ERM", "llc-dro": "LLC-DRO", "k=5": "LLC-DRO, k=5", "mtadcs": "MTaDCS"}
CLASSES = ["cat", "ship", "dog"]


def entry(method: str, noise: str, seed: int) -> dict[str, Any]:
    identity = f"{method}/{noise}/{seed}"
    at = {"id": identity, "dataset": "data", "noise": noise, "method": method, "seed": seed}
    return at | {"title": METHODS[method], "needs": [], "networks": 1, "skip": None}


def record(method: str, noise: str, seed: int) -> dict[str, Any]:
    """Accuracy 0.8 with seed 0 and 0.9 with seed 1; three classes; four groups; ten epochs' curve of two."""
    accuracy = 0.8 + 0.1 * seed
    groups = dict(zip(GROUPS, (1.0, 0.9, 0.8, 0.5 + 0.1 * seed), strict=True))
    slug = {"k=5": "llc-dro"}.get(method, method)
    params = {"k": 5 if method == "k=5" else 10, "tau": 0.7} if slug == "llc-dro" else {}
    rate = 0.25 if noise != "none" else 0.0
    found = {
        "schema": 1, "id": f"{method}/{noise}/{seed}", "suite": "plots", "status": "done", "reason": None,
        "cell": {"method": {"name": slug, "params": params, "version": 1}, "seed": seed},
        "metrics": {
            "test_acc_last": accuracy, "worst_group_acc_last": 0.5 + 0.1 * seed, "group_acc_last": groups,
        },
        "detail": {
            "confusion_last": [[8, 2, 0], [0, 5, 5], [1 + seed, 0, 9 - seed]], "class_acc_last": [0.8, 0.5, 0.9 - 0.1 * seed],
            "group_noise_auc_last": dict.fromkeys(GROUPS, 0.75 if noise != "none" else None),
        },
        "curve": {"epoch": [0, 1], "test_acc": [0.5, accuracy], "worst_group_acc": [0.2, 0.5]},
        "noise": {
            "classes": CLASSES, "matrix": [[1 - rate, 0.0, rate], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], "rate": rate,
            "train_rate": rate, "sha256": f"{noise} {seed}",
        },
        "data": {"n_train": 100, "groups": GROUPS},
        "cost": {"train_seconds": 2.0 + seed, "stage_seconds": 1.0, "forward_images": 3_000_000, "backward_images": 1_000_000},
        "provenance": {"device": "cpu"},
    }  # fmt: skip
    return found | ({"watched": watched(seed)} if method == "mtadcs" else {})


def watched(seed: int) -> dict[str, Any]:
    types = {name: [10, 20] for name in ("clean_easy", "clean_hard", "mislabelled_easy", "mislabelled_hard")}
    return {
        "confidence_set": {
            "kind": "members", "epoch": [0, 1], "size": [40, 60 + 10 * seed], "precision": [0.5, 0.75], "recall": [0.2, 0.4],
            "counts": {"0": {"clean": [30, 45], "noisy": [20, 5]}, "1": {"clean": [10, 20, 45], "noisy": [20, 3, 2]}},
            "types": {"epoch": [0, 1], "sizes": types, "correct": {name: [0.5, 0.5] for name in types}},
        },
        "loss": {
            "kind": "values",
            "at": {"1": {
                "edges": [0.0, 0.5, 1.0], "clean": [30, 10], "noisy": [5, 15],
                "mixture": {"weights": [0.6, 0.4], "means": [0.2, 0.7], "variances": [0.01, 0.02]},
                "simulated": [250, 750], "threshold": 0.6,
            }},
        },
        "features": {
            "kind": "points", "distance": {"epoch": [0, 1], **{name: [0.5, 0.25] for name in types}},
            "at": {epoch: {"x": [0.0, 1.0, 5.0], "y": [0.0, 1.0, 5.0], "given": [0, 1, 2], "true": [0, 0, 2]} for epoch in "01"},
        },
        "gallery": {
            "kind": "gallery", "classes": CLASSES,
            "at": {"1": [
                {"index": 7, "given": 0, "true": 2, "score": 0.125, "png": png()},
                {"index": 3, "given": 1, "true": 1, "score": 0.25, "png": png()},
            ]},
        },
    }  # fmt: skip


def png() -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 30, 30)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def suite(seeds: int = 2, noises: tuple[str, ...] = ("none", "flip@0.25")) -> tuple[dict[str, Any], dict[str, Any]]:
    """Plan and records by id."""
    entries = [entry(method, noise, seed) for noise in noises for method in METHODS for seed in range(seeds)]
    records = {e["id"]: record(e["method"], e["noise"], e["seed"]) for e in entries}
    return {"schema": 1, "suite": "plots", "entries": entries}, records
