"""Ablations and sensitivity sweeps: rows made of a base row, the cells of a grid written by hand, and their errors."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench import api
from bench.cli import main
from bench.plan import Overrides, Plan, make_plan
from bench.suite import load_suite
from bench.yaml_source import SuiteError

HEAD = """\
datasets: digits
noises: [none, symmetric@0.5]
model: {name: mlp, widths: [8]}
training: {epochs: 1}
policy: none
"""
ABLATION = HEAD + """\
kind: ablation
methods: erm
base: {method: llc-dro, label: whole, params: {warmup: 1, k: 7}}
variants:
  without DRO: {dro: false}
  loss instead of LLC: {confidence: loss, training.lr: 0.2}
"""
SWEEP = HEAD + """\
kind: sensitivity
base: {method: gce, params: {q: 0.5}}
axes: {q: [0.3, 0.5, 0.9]}
"""


def plan(folder: Path, text: str, name: str = "suite.yaml", **overrides: Any) -> Plan:
    (folder / name).write_text(textwrap.dedent(text))
    return make_plan(*load_suite(folder / name), Overrides(**overrides))


def problem(folder: Path, text: str, **overrides: Any) -> str:
    with pytest.raises(SuiteError) as caught:
        plan(folder, text, **overrides)
    (only,) = caught.value.problems
    return str(only).replace(f"{folder}/", "")


def ids(found: Plan) -> dict[tuple[str, str], str]:
    return {(entry.noise, entry.method): entry.id for entry in found.entries}


# -- cells ---------------------------------------------------------------------------------------------------------
def test_an_ablation_has_the_cells_of_a_grid_written_by_hand(tmp_path: Path) -> None:
    by_hand = HEAD + """\
methods:
  - erm
  - {method: llc-dro, label: whole, params: {warmup: 1, k: 7}}
  - {method: llc-dro, label: without DRO, params: {warmup: 1, k: 7, dro: false}}
  - {method: llc-dro, label: loss instead of LLC, params: {warmup: 1, k: 7, confidence: loss}, training: {lr: 0.2}}
"""
    made, grid = plan(tmp_path, ABLATION), plan(tmp_path, by_hand, "grid.yaml")
    assert ids(made) == ids(grid) and len(set(ids(made).values())) == 8
    assert [entry.title for entry in made.entries[:4]] == [entry.title for entry in grid.entries[:4]]


def test_a_variant_without_changes_says_where_the_base_stands(tmp_path: Path) -> None:
    found = plan(tmp_path, ABLATION + "  all parts: {}\n")
    assert [entry.method for entry in found.entries[:4]] == ["erm", "without DRO", "loss instead of LLC", "all parts"]
    assert found.entries[3].id == plan(tmp_path, ABLATION).entries[1].id


def test_a_sweep_has_the_cells_of_a_grid_and_marks_the_base(tmp_path: Path) -> None:
    listed = ", ".join(f"{{method: gce, label: q={q}, params: {{q: {q}}}}}" for q in (0.3, 0.5, 0.9))
    by_hand = HEAD + f"methods: [{listed}]\n"
    made = plan(tmp_path, SWEEP)
    assert ids(made) == ids(plan(tmp_path, by_hand, "grid.yaml"))
    assert [(entry.title, entry.variant and entry.variant["base"]) for entry in made.entries[:3]] == [
        ("q=0.3", False), ("q=0.5 (base)", True), ("q=0.9", False)
    ]  # fmt: skip


def test_a_base_value_that_no_axis_names_is_a_row_of_its_own(tmp_path: Path) -> None:
    found = plan(tmp_path, SWEEP.replace("q: 0.5}", "q: 0.6}"))
    assert [entry.method for entry in found.entries[:4]] == ["gce (q=0.6)", "q=0.3", "q=0.5", "q=0.9"]
    assert [entry.variant["settings"] for entry in found.entries[:2] if entry.variant] == [{"q": 0.6}, {"q": 0.3}]


def test_the_base_value_may_come_from_the_class(tmp_path: Path) -> None:
    found = plan(tmp_path, SWEEP.replace("base: {method: gce, params: {q: 0.5}}", "base: gce").replace("0.3,", "0.3, 0.7,"))
    assert [entry.method for entry in found.entries if entry.variant and entry.variant["base"]] == ["q=0.7"] * 2


def test_two_axes_are_a_product_and_each_is_one_at_a_time(tmp_path: Path) -> None:
    text = SWEEP.replace("axes: {q: [0.3, 0.5, 0.9]}", "axes: {q: [0.3, 0.5], training.lr: [0.1, 0.2]}")
    labels = [entry.method for entry in plan(tmp_path, text).entries if entry.noise == "none"]
    assert labels == ["gce (q=0.5)", "q=0.3, lr=0.1", "q=0.3, lr=0.2", "q=0.5, lr=0.1", "q=0.5, lr=0.2"]
    labels = [entry.method for entry in plan(tmp_path, text + "each: true\n").entries if entry.noise == "none"]
    assert labels == ["q=0.3", "q=0.5", "lr=0.1", "lr=0.2"]


# -- the manifest --------------------------------------------------------------------------------------------------
def test_the_manifest_says_what_varies_and_a_grids_is_as_it_was(tmp_path: Path) -> None:
    manifest = plan(tmp_path, ABLATION).manifest()
    assert manifest["kind"] == "ablation" and manifest["fields"] == ["dro", "confidence", "training.lr"]
    rows = {entry["method"]: entry.get("variant") for entry in manifest["entries"]}
    assert rows["erm"] is None
    assert rows["whole"]["base"] and rows["whole"]["settings"]["dro"] is True and rows["whole"]["settings"]["confidence"] == "llc"
    assert rows["without DRO"]["changes"] == {"dro": False} and rows["without DRO"]["settings"]["dro"] is False
    sweep = plan(tmp_path, SWEEP).manifest()
    assert (sweep["kind"], sweep["axes"], sweep["each"]) == ("sensitivity", {"q": [0.3, 0.5, 0.9]}, False)
    grid = plan(tmp_path, HEAD + "methods: erm\n").manifest()
    assert set(grid) == {"schema", "suite", "sources", "entries"} and "variant" not in grid["entries"][0]


# -- errors --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ABLATION.replace("dro: false", "dor: false"), ":10: variants.without DRO.dor: llc-dro has no field 'dor' (did"),
        (ABLATION.replace("training.lr", "trainig.lr"), ".trainig.lr: unknown section 'trainig' (did you mean training?"),
        (ABLATION.replace("method: llc-dro", "metod: llc-dro"), ":8: base.metod: unknown key 'metod' (did you mean method?)"),
        (ABLATION.replace("kind: ablation", "kind: abltion"), "suite.yaml:6: kind: 'abltion'"),
        (ABLATION.replace("variants:", "varants:"), ":9: varants: unknown key 'varants' (did you mean variants"),
        (ABLATION.replace("kind: ablation\n", ""), ":7: base: 'base' means nothing in a suite of kind grid"),
        (SWEEP.replace("axes: {q: [0.3, 0.5, 0.9]}", ""), "a suite of kind sensitivity needs the key 'axes'"),
        (SWEEP.replace("0.9]", "7]"), "suite.yaml:8: axes.q[2]: 7 is out of range"),
        (SWEEP.replace("0.9]", "0.3]"), "suite.yaml:8: axes.q[2]: the value 0.3 stands here twice (keep one)"),
        (SWEEP.replace("0.9]", "0.9], training.lr: [1], training.epochs: [2]"), ":8: axes: 3 axes are more than"),
        (SWEEP + "where: [{match: {method: gce}, set: {gce.q: 0.2}}]\n", ":9: where[0].set.gce.q: replaces a value of q"),
        (SWEEP + "figures: [{kind: curvs}]\n", "suite.yaml:9: figures[0].kind: unknown kind of figure 'curvs'"),
    ],
)  # fmt: skip
def test_errors_name_file_line_key_and_the_nearest(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SuiteError) as caught:
        plan(tmp_path, text)
    assert message in str(caught.value).replace(f"{tmp_path}/", "")


def test_set_may_not_replace_what_the_suite_varies(tmp_path: Path) -> None:
    message = "--set: params.q: replaces a value of q, which this suite varies (remove one of them)"
    assert problem(tmp_path, SWEEP, set={"gce.q": 0.2}) == message
    assert plan(tmp_path, SWEEP, set={"training.epochs": 3}).entries[0].cell["training"]["epochs"] == 3


# -- running -------------------------------------------------------------------------------------------------------
def test_an_ablation_after_the_grid_runs_nothing_that_the_grid_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    grid = HEAD + "methods: [{method: gce, params: {q: 0.5}}, {method: gce, params: {q: 0.9}}]\n"
    (tmp_path / "grid.yaml").write_text(grid)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    common = ["--executor", "inline", "--tracking", "none", "--json"]
    first = CliRunner().invoke(main, ["run", "grid.yaml", *common])
    assert first.exit_code == 0 and json.loads(first.stdout)["ran"] == 4, first.output
    second = CliRunner().invoke(main, ["run", "sweep.yaml", *common])
    assert second.exit_code == 0 and json.loads(second.stdout)["ran"] == 2, second.output
    manifest = api.read_manifest(tmp_path / "results" / "sweep" / "plan.json")
    assert manifest is not None and manifest["kind"] == "sensitivity"
    assert "q=0.5 (base)" in (tmp_path / "results" / "sweep" / "table.md").read_text()
