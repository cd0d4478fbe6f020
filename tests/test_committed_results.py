"""The committed records regenerate the committed tables byte for byte, and belong to the committed suites."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from bench import api
from bench.outputs import TABLE_FILES, manifest_text
from bench.plan import scan
from bench.records import load_records
from bench.report import render_suite
from bench.suite import load_suite

ROOT = Path(__file__).resolve().parent.parent
SUITES = {load_suite(path)[0].name: path for path in sorted((ROOT / "suites").rglob("*.yaml"))}
FOLDERS = sorted(path.parent for path in (ROOT / "results").glob("*/plan.json"))


def test_quickstart_is_committed_and_complete():
    folder = ROOT / "results" / "quickstart"
    manifest = json.loads((folder / "plan.json").read_text())
    assert len(manifest["entries"]) == 60
    assert scan(manifest["entries"], folder).counts() == {"done": 60}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_tables_are_what_the_records_say(folder):
    suite, _ = load_suite(SUITES[folder.name])
    manifest = json.loads((folder / "plan.json").read_text())
    texts = render_suite(manifest, load_records(folder), suite.table_spec())
    for fmt, name in TABLE_FILES.items():
        assert (folder / name).read_text(encoding="utf-8") == texts[fmt], f"{name} is stale: run the suite again"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_plan_is_that_of_the_suite(folder):
    plan = api.read_plan(SUITES[folder.name], results=ROOT / "results")
    assert manifest_text(plan.manifest()) == (folder / "plan.json").read_text()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_records_name_clean_code(folder):
    """A committed number must be traceable: made by one known version of the code of each method."""
    for identity, record in load_records(folder).items():
        assert record["provenance"]["code"], identity
        assert record["provenance"]["git_commit"], identity
        assert record["provenance"]["git_dirty"] is False, f"{identity} was made by uncommitted code"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_latex_compiles(folder, tmp_path):
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"-output-directory={tmp_path}", folder / "table.tex"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("dataset", ["digits", "spurious-digits"])
def test_fixed_recipes_are_the_best_variants_of_the_tuning_records(dataset):
    """What `TUNED` claims: the recipe's values are those of a variant with the highest mean validation accuracy."""
    from bench.method import TUNED, methods

    accuracies: dict[tuple[str, str], list[float]] = {}
    for record in load_records(ROOT / "results" / f"tuning-{dataset}").values():
        method = record["cell"]["method"]
        key = (method["name"], json.dumps(method["params"], sort_keys=True))
        accuracies.setdefault(key, []).append(record["metrics"]["val_acc_last"])
    for slug in {name for name, _ in accuracies}:
        means = {params: sum(v) / len(v) for (name, params), v in accuracies.items() if name == slug}
        assert len(means) == 4
        best = [json.loads(params) for params, mean in means.items() if mean > max(means.values()) - 1e-12]
        (recipe,) = [r for r in methods()[slug].recipes if r.source == TUNED.format(dataset)]
        assert any(recipe.set.items() <= params.items() for params in best), f"{slug}: {recipe.set} is not the best variant"
