"""Every method gives the same bits under Ray Tune and inline.

That it repeats them, and resumes in them from the file of every epoch, with each value of its fields, is held by the battery
(`test_conformance.py`: deterministic, resume, options), and so is a plain process with another hash seed (worker).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bench.api import load_records, run
from bench.check.subject import difference
from bench.method import methods


def suite_of_all_methods() -> str:
    """Two short epochs of each, in which every stage begins; on data with groups, which some methods need."""
    rows = [{"method": slug, "params": dict(cls.smoke), "recipe": None} for slug, cls in methods().items()]
    suite: dict[str, Any] = {
        "datasets": {"name": "spurious-digits", "copies": 1}, "noises": "symmetric@0.4", "methods": rows, "policy": "none",
        "model": {"name": "tiny-cnn", "widths": [4]}, "training": {"epochs": 2, "batch_size": 512},
        "protocol": {"last_k": 2}, "resources": {"checkpoint_seconds": 0},
    }  # fmt: skip
    return yaml.safe_dump(suite)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_every_method_gives_the_same_bits_under_ray_and_inline(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(suite_of_all_methods())
    found = {}
    for seed, executor in enumerate(("inline", "ray")):
        torch.manual_seed(seed)
        options: dict[str, Any] = {"executor": executor, "tracking": "none", "say": None}
        report = run(tmp_path / "all.yaml", results=tmp_path / executor, **options)
        found[executor] = load_records(tmp_path / executor)
        failed = [(r["cell"]["method"]["name"], r["reason"]) for r in found[executor].values() if r["status"] != "done"]
        assert report.exit_code == 0, failed
    assert {record["provenance"]["executor"] for record in found["ray"].values()} == {"ray"}
    assert {record["cell"]["method"]["name"] for record in found["ray"].values()} == set(methods())
    assert found["ray"].keys() == found["inline"].keys()
    different = {}
    for identity, there in found["ray"].items():
        here = found["inline"][identity]
        for key in ("metrics", "curve", "detail", "noise", "data", "warnings"):
            if place := difference(here[key], there[key], key):
                different[there["cell"]["method"]["name"]] = place
        for key in ("forward_images", "backward_images", "networks"):
            assert here["cost"][key] == there["cost"][key]
    assert different == {}
