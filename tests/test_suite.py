"""Suites: schema, lines of errors, includes, grids, rules, policies, and the identity of the cells they make (law 1).

`tests/golden/identity.json` holds the ids of hand-written cells and of a small suite. They may change only together
with a version (of a method, a noise, a data set); a new field is listed in `neutral` instead. After an intended change
write the file anew with `BENCH_REGENERATE_GOLDEN=1 pytest tests/test_suite.py`.
"""

from __future__ import annotations

import copy
import json
import os
import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cell import AXES, canonical_json, cell_id, stream_seed
from bench.fields import Configurable, FieldError, Range
from bench.plan import Entry, Overrides, Plan, make_plan, scan
from bench.suite import load_suite
from bench.yaml_source import SuiteError, read

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).parent / "golden" / "identity.json"
SMALL = """\
datasets: digits
noises: [none, symmetric@0.5]
methods: [erm, gce]
seeds: [0, 1]
training: {epochs: 2}
"""


def plan(folder: Path, text: str = SMALL, *, name: str = "suite.yaml", **overrides: Any) -> Plan:
    (folder / name).write_text(textwrap.dedent(text))
    return make_plan(*load_suite(folder / name), Overrides(**overrides))


def problems(folder: Path, text: str, **overrides: Any) -> list[str]:
    """The problems as printed, with the folder cut off."""
    with pytest.raises(SuiteError) as caught:
        plan(folder, text, **overrides)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def only(entries: list[Entry], **axes: Any) -> Entry:
    found = [entry for entry in entries if all(getattr(entry, axis) == value for axis, value in axes.items())]
    assert len(found) == 1, found
    return found[0]


# -- the product ---------------------------------------------------------------------------------------------------
def test_a_suite_is_the_product_of_its_axes_in_its_order(tmp_path: Path) -> None:
    entries = plan(tmp_path).entries
    assert [(e.noise, e.method, e.seed) for e in entries] == [
        (noise, method, seed) for noise in ("none", "symmetric@0.5") for method in ("erm", "gce") for seed in (0, 1)
    ]
    assert len({entry.id for entry in entries}) == 8
    assert all(set(entry.cell) == set(AXES) and entry.id == cell_id(entry.cell) for entry in entries)


def test_a_scalar_is_a_list_of_one(tmp_path: Path) -> None:
    entries = plan(tmp_path, "datasets: digits\nnoises: none\nmethods: erm\nmodel: mlp\n").entries
    assert [(e.dataset, e.noise, e.method, e.seed, e.cell["model"]["name"]) for e in entries] == [
        ("digits", "none", "erm", 0, "mlp")
    ]


def test_a_number_of_seeds_is_the_first_so_many(tmp_path: Path) -> None:
    text = SMALL.replace("[0, 1]", "3")
    assert sorted({entry.seed for entry in plan(tmp_path, text).entries}) == [0, 1, 2]
    assert "suite.yaml:4: seeds" in problems(tmp_path, SMALL.replace("[0, 1]", "0"))[0]


def test_grids_are_several_products_and_take_from_above_what_they_leave_out(tmp_path: Path) -> None:
    entries = plan(
        tmp_path,
        """\
        noises: [none]
        methods: [erm]
        training: {epochs: 2, lr: 0.1}
        grids:
          - {datasets: digits, methods: [erm, gce], training: {epochs: 3}}
          - {datasets: spurious-digits, noises: uniform-flip@0.3, seeds: [4], model: mlp}
        """,
    ).entries
    first, last = only(entries, method="gce"), only(entries, dataset="spurious-digits")
    assert len(entries) == 3
    assert (first.cell["training"]["epochs"], first.cell["training"]["lr"]) == (3, 0.1)
    assert (last.noise, last.seed, last.cell["model"]["name"]) == ("uniform-flip@0.3", 4, "mlp")
    assert last.cell["training"]["epochs"] == 2


def test_twenty_thousand_cells_look_up_each_name_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning is linear: names are looked up per row, values resolved and put into canonical form per row and noise."""
    import bench.method
    from bench.plan import match, planner

    calls = {"method_class": 0, "resolve_model": 0, "resolve": 0, "cell_ids": 0, "same": 0}

    def counted(name: str, function: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            calls[name] += 1
            return function(*arguments, **keywords)

        return call

    monkeypatch.setattr(bench.method, "method_class", counted("method_class", bench.method.method_class))
    for module, name in ((planner, "resolve_model"), (planner, "cell_ids"), (match, "same"), (planner.Planner, "resolve")):
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    rates = ", ".join(f"symmetric@{rate / 100}" for rate in range(1, 51))
    text = f"datasets: digits\nnoises: [{rates}]\nmethods: [erm, {{method: gce, label: a, b}}]\nseeds: 200\n"
    found = plan(tmp_path, text.replace("a, b", '"a, b"'), only={"method": ["erm", "gce"], "seed": list(range(200))})
    assert len({entry.id for entry in found.entries}) == 20_000 and all(e.id == cell_id(e.cell) for e in found.entries[::997])
    assert (
        calls["method_class"] == 2 and calls["resolve_model"] == 1 and calls["resolve"] == 100 and calls["cell_ids"] == 100
    )
    assert calls["same"] < 200 * 200 * 3, "--only compares names, not cells"


# -- labels --------------------------------------------------------------------------------------------------------
def test_labels_say_what_differs_from_the_default(tmp_path: Path) -> None:
    entries = plan(
        tmp_path,
        """\
        datasets: {name: spurious-digits, contrast: 0.5}
        noises: [{kind: symmetric, rate: 0.5, own_class: false}]
        methods: [{method: elr, params: {lam: 1}}, {method: elr, label: mine, params: {lam: 2}}]
        """,
    ).entries
    assert [entry.method for entry in entries] == ["elr (lam=1)", "mine"]
    assert {entry.noise for entry in entries} == {"symmetric@0.5 (own_class=False)"}
    assert {entry.dataset for entry in entries} == {"spurious-digits (contrast=0.5)"}
    assert entries[0].title == "ELR (lam=1)" and entries[1].title == "mine"


def test_rows_with_the_same_cell_are_run_once_and_said_so(tmp_path: Path) -> None:
    text = SMALL.replace("[erm, gce]", "[erm, {method: erm, label: again}]")
    found = plan(tmp_path, text)
    assert len(found.entries) == 8 and len({entry.id for entry in found.entries}) == 4
    assert found.notes == ["4 rows share a cell with another row and are run once"]


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("[erm, gce]", "[erm, gce, erm]", "suite.yaml:3: methods[2]", "the same cell stands here twice"),
        (
            "[none, symmetric@0.5]",
            "\n- none\n- symmetric@0.5\n- symmetric@0.50",
            "suite.yaml:5: noises[2]",
            "suite.yaml:4",
        ),
        ("digits", "[digits, digits]", "suite.yaml:1: datasets[1]", "the same cell"),
        ("[0, 1]", "[0, 1, 0]", "suite.yaml:4: seeds[2]", "the same cell"),
        (
            "[erm, gce]",
            "[erm, {method: erm, label: erm, params: {}, training: {lr: 0.3}}]",
            "suite.yaml:3",
            "same label",
        ),
    ],
)
def test_the_same_cell_twice_is_an_error_at_the_second_place(
    tmp_path: Path, old: str, new: str, line: str, what: str
) -> None:
    found = problems(tmp_path, SMALL.replace(old, new))
    assert len(found) == 1, "one problem, however many cells it makes"
    assert found[0].startswith(line) and what in found[0]


# -- schema and lines ----------------------------------------------------------------------------------------------
BASE = "datasets: digits\nnoises: none\nmethods: erm\n"


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        (BASE + "trainig: {}\n", "suite.yaml:4: trainig", "did you mean training"),
        (BASE + "grids:\n- datasets: digits\n  noise: none\n", "suite.yaml:6: grids[0].noise", "noises"),
        (BASE + "resources: {cpus: 1}\n", "suite.yaml:4: resources.cpus", "did you mean cpu"),
        (BASE + "resources:\n  cpu: 0\n", "suite.yaml:5: resources.cpu", "greater than 0"),
        (BASE + "seeds: [0, -1]\n", "suite.yaml:4: seeds[1]", "greater than or equal to 0"),
        (BASE + "seeds: [1.5]\n", "suite.yaml:4: seeds[0]", "integer"),
        (BASE + "policy: papers\n", "suite.yaml:4: policy", "'paper', 'fixed', 'matched' or 'none'"),
        (BASE + "name: ../elsewhere\n", "suite.yaml:4: name", "folder of results"),
        (BASE + "where: [{match: {metod: erm}, set: {}}]\n", "suite.yaml:4: where[0].match.metod", "mean method"),
        (BASE + "exclude: [{match: {need: x}, reason: y}]\n", "suite.yaml:4: exclude[0].match.need", "seed"),
        (BASE + "exclude: [{match: {method: erm}}]\n", "suite.yaml:4: exclude[0].reason", "missing"),
        (BASE + "table: {protocolls: last}\n", "suite.yaml:4: table", "did you mean 'protocols'"),
        (BASE + "table: {digits: many}\n", "suite.yaml:4: table.digits", "integer from 0 to 6"),
        (BASE + "forbid_needs: [noise_rates]\n", "suite.yaml:4: forbid_needs[0]", "did you mean noise_rate"),
        (BASE.replace("none", "[1]"), "suite.yaml:2: noises[0]", "neither a name nor a mapping"),
        (BASE.replace("none", "[none, null]"), "suite.yaml:2: noises[1]", "neither a name nor a mapping"),
        (BASE.replace("none", "symetric@0.5"), "suite.yaml:2: noises[0]", "did you mean symmetric"),
        (BASE.replace("none", "symmetric@much"), "suite.yaml:2", "expected a number"),
        (BASE.replace("none", "none@0.5"), "suite.yaml:2", "takes no value"),
        (BASE.replace("none", "{rate: 0.5}"), "suite.yaml:2", "needs a kind"),
        (BASE.replace("none", "{kind: symmetric, version: 7}"), "suite.yaml:2", "cannot be chosen"),
        (BASE.replace("none", "\n- kind: symmetric\n  rate: 1.5\n"), "suite.yaml:4: noises[0].rate", "out of range"),
        (BASE.replace("none", "\n- kind: symmetric\n  rat: 1\n"), "suite.yaml:4: noises[0].rat", "did you mean rate"),
        (BASE.replace("digits", "{name: digits, contrast: 1}"), "suite.yaml:1: datasets[0].contrast", "no field"),
        (BASE.replace("erm", "\n- method: elr\n  params:\n    lamm: 1\n"), "suite.yaml:6: methods[0].params", "lam?"),
        (BASE.replace("erm", "\n- method: elr\n  training:\n    lr: 0\n"), "suite.yaml:6: methods[0].training", ">"),
        (BASE.replace("erm", "[{method: elr, recipe: papper}]"), "suite.yaml:3: methods[0].recipe", "mean paper"),
        (BASE + "training:\n  epochs: 1\n  schedule: cosin\n", "suite.yaml:6: training.schedule", "cosine"),
        (BASE + "training: {lr: .inf}\n", "suite.yaml:4: training.lr", "inf is not a valid value"),
        (BASE + f"training: {{lr: 1{'0' * 400}}}\n", "suite.yaml:4: training.lr", "is not a valid value"),
        (BASE + "training: {epochs: true}\n", "suite.yaml:4: training.epochs", "a whole number"),
        (BASE + "protocol: {last_k: 0}\n", "suite.yaml:4: protocol.last_k", ">= 1"),
        (BASE + "model: tinycnn\n", "suite.yaml:4: model", "did you mean tiny-cnn"),
        (BASE + "model:\n  name: mlp\n  width: [1]\n", "suite.yaml:6: model.width", "did you mean widths"),
        (BASE + "where:\n- match: {}\n  set:\n    training.lrr: 1\n", "suite.yaml:7: where[0].set.training.lrr", "lr?"),
    ],
)  # fmt: skip
def test_a_fault_is_reported_with_file_line_key_and_what_is_valid(
    tmp_path: Path, text: str, place: str, says: str
) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1, found
    assert found[0].startswith(place + ":") or found[0].startswith(place + "."), found[0]
    assert says in found[0]


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "datasets: [digit]\nnoises: [none]\nmethods: [ermm, elr]\ntraining: {epochs: 0}\n")
    assert [problem.split(":")[1] for problem in found] == ["1"]
    found = problems(tmp_path, "datasets: digits\nnoises: [nonee, none]\nmethods: [ermm, elr]\ntraining: {epochs: 0}\n")
    assert sorted(problem.split(":")[1] for problem in found) == ["2", "3", "4"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("methods: erm\nnoises: none\n", "it has no datasets"),
        (BASE.replace("none", "[]"), "suite.yaml:2: noises: the grid is empty"),
        (BASE + "grids: [{methods: []}]\n", "suite.yaml:4: grids[0].methods: the grid is empty"),
        ("datasets: digits\ngrids:\n- noises: none\n- noises: none\n  methods: erm\n", "suite.yaml:3: grids[0]"),
    ],
)
def test_an_empty_grid_is_an_error(tmp_path: Path, text: str, says: str) -> None:
    assert says in problems(tmp_path, text)[0]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "the file is empty"),
        (b"# nothing\n", "the file is empty"),
        (b"- erm\n", "a suite is a mapping"),
        (b"methods: [erm\nnoises: none\n", "suite.yaml:2: is not YAML"),
        (b"methods: erm\ntraining:\n\tepochs: 1\n", "suite.yaml:3: is not YAML: found character '\\t'"),
        (b"title: \xff\n", "is not UTF-8 text"),
        (b"title: x\ndescription: a\x00b\n", "suite.yaml:2: is not YAML: the character U+0000"),
        (b"title: a\ntitle: b\n", "suite.yaml:2: title: this key stands here twice"),
        (b"training: {lr: 1, lr: 2}\n", "suite.yaml:1: training.lr: this key stands here twice"),
        (b"a: &a [*a]\n", "too many or too deeply nested"),
        (b"a: " + b"[" * 5000, "is nested too deeply"),
        (b"<<: {a: 1}\n", "merge keys (<<) are not supported"),
        (b"1: x\n", "keys must be text"),
        (b"title: !thing x\n", "suite.yaml:1: value not understood"),
        (b"title: 2024-13-45\n", "suite.yaml:1: value not understood: month"),
        (b"title: a\n---\ntitle: b\n", "suite.yaml:2: is not YAML"),
        (b"include: 5\n", "suite.yaml:1: include: must be a file name"),
        (b"include: [nothing.yaml]\n", "suite.yaml:1: include[0]: no such file"),
        (b"include: suite.yaml\n", "suite.yaml:1: include[0]: includes form a cycle: suite.yaml -> suite.yaml"),
    ],
)
def test_a_file_that_is_no_suite_says_why(tmp_path: Path, raw: bytes, says: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_bytes(raw)
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    assert says in str(caught.value).replace(f"{tmp_path}/", "").replace(str(tmp_path), "")


def test_python_tags_run_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    text = f"title: !!python/object/apply:os.system ['touch {marker}']\n" + BASE
    assert "title" in problems(tmp_path, text)[0]
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("training: 2", "training: 2 is not a mapping (a mapping such as {epochs: 60})"),
        ("training:", "training: it is empty (a mapping such as {epochs: 60})"),
        ("model: [mlp]", "model: ['mlp'] is not a mapping (a mapping such as {name: tiny-cnn}, or its name)"),
        ("seeds: a", "seeds: 'a' is neither a number nor a list (3 is the first three, [4, 7] are these two)"),
        ("seeds: -1", "seeds: -1: a number of seeds is 1 to 10000, and a seed is 0 or more"),
        ("seeds: 0", "seeds: 0: a number of seeds is 1 to 10000; the seed 0 alone is [0]"),
        ("grids: [{methods: [5]}]", "grids[0].methods[0]: 5 is neither a name nor a mapping"),
        ("grids: [{methods: {method: elr, lam: 1}}]", "unknown key 'lam' (write it in params: {lam: 1})"),
        ("grids: [{methods: [{method: elr, lr: 0.1}]}]", "unknown key 'lr' (write it in training: {lr: 0.1})"),
        ("grids: [{methods: [{method: elr, lable: x}]}]", "unknown key 'lable' (did you mean label"),
        ("grids: [{methods: [{method: erlr, lam: 1}]}]", "unknown key 'lam'"),
    ],
)
def test_a_value_of_another_kind_is_told_what_would_be_right(tmp_path: Path, text: str, says: str) -> None:
    (found,) = problems(tmp_path, BASE + text + "\n")
    assert found.startswith("suite.yaml:4: ") and says in found and "dictionary" not in found


def test_a_suite_that_is_not_there_is_told_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "suites" / "small").mkdir(parents=True)
    for name in ("aaa", "bbb", "quickstart", "small/twin"):
        (tmp_path / "suites" / f"{name}.yaml").write_text(BASE)
    monkeypatch.chdir(tmp_path)
    for wanted, says in (
        ("suites/quickstrat.yaml", "did you mean suites/quickstart.yaml?"),
        ("quickstart", "did you mean suites/quickstart.yaml?"),
        ("twin.yaml", "did you mean suites/small/twin.yaml?"),
        ("suites/zzzz.yaml", "in that folder: suites/aaa.yaml, suites/bbb.yaml, suites/quickstart.yaml"),
        ("elsewhere/zzzz.yaml", "`bench ls suites` lists the suites it knows"),
    ):
        with pytest.raises(SuiteError) as caught:
            load_suite(Path(wanted))
        assert str(caught.value) == f"{wanted}: no such file ({says})"


def test_a_name_that_cannot_be_a_folder_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="give one with `name:` or rename the file"):
        plan(tmp_path, BASE, name="my suite.yaml")
    assert plan(tmp_path, BASE + "name: my-suite\n", name="my suite.yaml").suite.name == "my-suite"


# -- includes ------------------------------------------------------------------------------------------------------
def test_includes_merge_settings_and_replace_the_rest(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "base.yaml").write_text(
        "name: base\ntitle: Base\ninclude: deeper.yaml\nmethods: [erm, gce]\ntraining: {epochs: 2, lr: 0.1}\n"
    )
    (tmp_path / "parts" / "deeper.yaml").write_text(
        "datasets: digits\nnoises: none\ntraining: {batch_size: 32, lr: 9}\n"
    )
    found = plan(tmp_path, "include: parts/base.yaml\nmethods: [elr]\ntraining: {epochs: 3}\n")
    (cell,) = [entry.cell for entry in found.entries]
    assert found.suite.name == "suite", "the name is never inherited: two suites would share a folder of results"
    assert found.suite.title == "Base"
    assert cell["method"]["name"] == "elr"
    assert [cell["training"][key] for key in ("epochs", "lr", "batch_size")] == [3, 0.1, 32]
    origins = found.entries[0].origins
    assert origins["training.epochs"] == "suite.yaml:3"
    assert origins["training.lr"] == "base.yaml:5"
    assert origins["training.batch_size"] == "deeper.yaml:3"
    assert set(found.sources) == {"suite.yaml", "parts/base.yaml", "parts/deeper.yaml"}


def test_a_fault_in_an_included_file_is_reported_there(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("datasets: digits\nnoises: none\nmethods:\n- erm\ntraining:\n  epocs: 1\n")
    assert problems(tmp_path, "include: base.yaml\n")[0].startswith("base.yaml:6: training.epocs")
    (tmp_path / "base.yaml").write_text(BASE + "where:\n- match: {}\n  set: {training.lrr: 1}\n")
    assert problems(tmp_path, "include: base.yaml\n")[0].startswith("base.yaml:6: where[0].set.training.lrr")


def test_files_that_include_each_other_in_many_ways_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "level0.yaml").write_text(BASE)
    for level in range(1, 30):
        (tmp_path / f"level{level}.yaml").write_text(f"include: [level{level - 1}.yaml, level{level - 1}.yaml]\n")
    assert read(tmp_path / "level29.yaml").data == {"datasets": "digits", "noises": "none", "methods": "erm"}


def test_an_include_cycle_names_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("include: b.yaml\n")
    (tmp_path / "b.yaml").write_text("title: b\ninclude: a.yaml\n")
    with pytest.raises(SuiteError, match=r"b.yaml:2: include\[0\]: includes form a cycle: a.yaml -> b.yaml -> a.yaml"):
        read(tmp_path / "a.yaml")


# -- rules ---------------------------------------------------------------------------------------------------------
def test_the_last_matching_rule_wins(tmp_path: Path) -> None:
    rules = """\
where:
- {match: {}, set: {training.lr: 0.1}}
- {match: {noise: symmetric}, set: {training.lr: 0.2}}
- {match: {noise: symmetric, method: [gce, erm], seed: 1}, set: {training.lr: 0.3, params.q: 0.5}}
"""
    entries = plan(tmp_path, SMALL + rules).entries
    rates = {(e.noise, e.method, e.seed): e.cell["training"]["lr"] for e in entries}
    assert rates["none", "erm", 1] == 0.1
    assert rates["symmetric@0.5", "gce", 0] == 0.2
    assert rates["symmetric@0.5", "gce", 1] == rates["symmetric@0.5", "erm", 1] == 0.3
    touched = only(entries, noise="symmetric@0.5", method="gce", seed=1)
    assert touched.cell["method"]["params"]["q"] == 0.5 and touched.origins["params.q"] == "suite.yaml:9"
    assert only(entries, noise="symmetric@0.5", method="gce", seed=0).cell["method"]["params"]["q"] == 0.7


@pytest.mark.parametrize(
    "match",
    [
        "noise: symmetric",
        "noise: symmetric@0.5",
        "rate: 0.5",
        "rate: '0.50'",
        "rate: [0.5, 0.8]",
        "noise: [x, symmetric]",
    ],
)
def test_rules_match_names_labels_numbers_and_lists(tmp_path: Path, match: str) -> None:
    entries = plan(tmp_path, SMALL + f"where: [{{match: {{{match}}}, set: {{gce.q: 0.2}}}}]\n").entries
    changed = [(e.noise, e.method) for e in entries if e.cell["method"]["params"].get("q") == 0.2]
    assert changed == [("symmetric@0.5", "gce")] * 2


@pytest.mark.parametrize(
    ("rule", "place"),
    [
        ("where: [{match: {method: elr}, set: {training.lr: 1}}]", "suite.yaml:6: where[0].set.training.lr"),
        ("where: [{match: {rate: 0.51}, set: {training.lr: 1}}]", "suite.yaml:6: where[0].set.training.lr"),
        ("where: [{match: {}, set: {}}]", "suite.yaml:6: where[0].set"),
        ("where:\n- match: {}\n  set:\n    gce.q: 0.5\n    elr.lam: 1", "suite.yaml:10: where[0].set.elr.lam"),
        ("where: [{match: {}, set: {params.lamm: 1}}]", "suite.yaml:6: where[0].set.params.lamm"),
        ("exclude: [{match: {method: elr}, reason: r}]", "suite.yaml:6: exclude[0]"),
    ],
)
def test_a_rule_that_does_nothing_is_an_error(tmp_path: Path, rule: str, place: str) -> None:
    (found,) = problems(tmp_path, SMALL + rule + "\n")
    assert found.startswith(place + ":"), found
    assert "on no cell" in found or "matches no cell" in found


def test_a_rule_on_what_the_command_line_replaced_is_no_error(tmp_path: Path) -> None:
    text = (
        SMALL
        + "where: [{match: {seed: 1}, set: {training.lr: 1}}]\nexclude: [{match: {model: tiny-cnn}, reason: r}]\n"
    )
    assert len(plan(tmp_path, text, seeds=[7]).entries) == 4
    assert len(plan(tmp_path, text, set={"model.name": "mlp"}).entries) == 8


def test_excluded_cells_are_skipped_with_the_last_reason(tmp_path: Path) -> None:
    rules = "exclude:\n- {match: {method: gce}, reason: first}\n- {match: {method: gce, seed: 1}, reason: second}\n"
    found = plan(tmp_path, SMALL + rules)
    assert {(e.method, e.seed): e.skip for e in found.entries} == {
        ("erm", 0): None, ("erm", 1): None, ("gce", 0): "first", ("gce", 1): "second",
    }  # fmt: skip
    assert scan([e.shown() for e in found.entries], tmp_path / "none").counts() == {"missing": 4, "skipped": 4}


def test_a_need_that_the_suite_forbids_is_an_error_at_the_method(tmp_path: Path) -> None:
    text = SMALL.replace("[erm, gce]", "\n- erm\n- co-teaching\n") + "forbid_needs: [noise_rate]\n"
    (found,) = problems(tmp_path, text)
    assert found.startswith("suite.yaml:5: methods[1]: co-teaching needs noise_rate, which this suite forbids")


def test_a_need_that_a_data_set_cannot_meet_is_an_error_at_the_method(tmp_path: Path) -> None:
    text = SMALL.replace("[erm, gce]", "\n- erm\n- co-teaching\n- group-dro\n")
    (found,) = problems(tmp_path, text)
    assert found.startswith("suite.yaml:6: methods[2]: group-dro needs groups, but digits has no groups (exclude: [{match: ")
    text = text.replace("digits", "web-digits")
    blind, _ = problems(tmp_path, text)
    assert "co-teaching needs noise_rate, but the true labels of web-digits are not known" in blind
    rule = "exclude:\n- {match: {method: group-dro}, reason: no groups}\n"
    told = text.replace("co-teaching", "{method: co-teaching, params: {forget_rate: 0.2}}")
    counts = scan([entry.shown() for entry in plan(tmp_path, told + rule).entries], tmp_path / "none").counts()
    assert counts == {"missing": 8, "skipped": 4}


def test_noise_that_a_data_set_cannot_have_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.data.digits import Digits

    monkeypatch.setattr(Digits, "confusable", False)
    (found,) = problems(tmp_path, BASE.replace("none", "asymmetric@0.4"))
    assert found.startswith("suite.yaml:2: noises[0]: asymmetric noise does not fit: digits has no map")


# -- overrides -----------------------------------------------------------------------------------------------------
def test_precedence_is_command_line_suite_recipe_class_default(tmp_path: Path) -> None:
    method = tmp_path / "mine.py"
    method.write_text(
        textwrap.dedent("""\
        from bench.method import LossMethod, Recipe
        from bench.ops.losses import cross_entropy

        class Mine(LossMethod):
            slug = "mine"
            recipes = (Recipe("paper", "Table 1", {k: "recipe" for k in ("b", "c", "d")} | {"training.lr": 0.2}),
                       Recipe("paper", "Table 2", {"b": "per cell"}, {"noise": "symmetric", "rate": 0.5}),
                       Recipe("fixed", "Table 3", {"b": "fixed", "training.lr": 0.3}),
                       Recipe("other", "Table 4", {"b": "other", "training.lr": 0.4}, {"dataset": "digits"}))
            a: str = "default"
            b: str = "default"
            c: str = "default"
            d: str = "default"

            def loss(self, logits, batch):
                return cross_entropy(logits, batch.labels)
        """)
    )
    text = """\
datasets: digits
noises: [none, symmetric@0.5]
methods: [{method: ./mine.py, params: {c: suite, d: suite}}]
policy: POLICY
"""

    def values(policy: str, noise: str = "none", old: str = "", new: str = "", **overrides: Any) -> dict[str, Any]:
        entry = only(plan(tmp_path, text.replace("POLICY", policy).replace(old, new), **overrides).entries, noise=noise)
        origin = {key: entry.origins[f"params.{key}"] for key in "abcd"} | {"lr": entry.origins["training.lr"]}
        found = {**entry.cell["method"]["params"], "lr": entry.cell["training"]["lr"]}
        return {key: (found[key], origin[key]) for key in origin}

    one, two = "recipe paper: Table 1", "recipe paper: Table 2"
    assert values("paper", set={"params.d": "line"}) == {
        "a": ("default", "class default"), "b": ("recipe", one), "c": ("suite", "suite.yaml:3"),
        "d": ("line", "command line"), "lr": (0.2, one),
    }  # fmt: skip
    assert values("paper", "symmetric@0.5")["b"] == ("per cell", two)
    assert values("paper", set={"mine.b": "line", "training.lr": 1})["b"] == ("line", "command line")
    fixed = values("fixed", "symmetric@0.5")
    assert (fixed["b"], fixed["lr"]) == (("fixed", "recipe fixed: Table 3"), (0.3, "recipe fixed: Table 3"))
    matched = values("matched", "symmetric@0.5")
    assert (matched["b"], matched["lr"]) == (("fixed", "recipe fixed: Table 3"), (0.05, "class default"))
    none = values("none")
    assert (none["b"], none["lr"]) == (("default", "class default"), (0.05, "class default"))
    named = values("matched", old="params: {", new="recipe: other, params: {")
    assert (named["b"], named["lr"]) == (("other", "recipe other: Table 4"), (0.4, "recipe other: Table 4"))


def test_within_a_suite_the_more_specific_place_wins(tmp_path: Path) -> None:
    text = """\
methods:
- erm
- {method: gce, training: {epochs: 3}}
training: {epochs: 1, lr: 0.1}
grids:
- {datasets: digits, noises: none, training: {epochs: 2}}
where:
- {match: {method: gce}, set: {training.lr: 0.4}}
"""
    found = plan(tmp_path, text).entries
    got = {e.cell["method"]["name"]: (e.cell["training"]["epochs"], e.cell["training"]["lr"]) for e in found}
    assert got == {"erm": (2, 0.1), "gce": (3, 0.4)}
    assert only(found, method="erm").origins["training.epochs"] == "suite.yaml:6"


SAME_NOISE = """\
datasets: {datasets}
noises:
  - {{kind: {kind}, rate: {rate}}}
  - {{kind: dividemix-seed, mode: {mode}, rate: {rate}}}
  - {{kind: file, name: published, sha256: {sha256}, rate: {rate}, like: {kind}}}
methods: [erm, dividemix, elr, elr-plus, jocor, joint-opt, m-correction, mixup, pencil, selc]
model: preact-resnet18
policy: paper
"""
SYMMETRIC = {"datasets": "cifar10", "kind": "symmetric", "mode": "sym", "rate": 0.9, "sha256": "ab" * 32}
ASYMMETRIC = {**SYMMETRIC, "kind": "asymmetric", "mode": "asym", "rate": 0.4}


@pytest.mark.parametrize(
    "noise", [ASYMMETRIC, *({**SYMMETRIC, "datasets": "[cifar10, cifar100]", "rate": rate} for rate in (0.2, 0.5, 0.8, 0.9))]
)
def test_recipes_know_a_noise_by_what_it_is(tmp_path: Path, noise: dict[str, Any]) -> None:
    """Not only by the name of the generator that drew it."""
    values: dict[tuple[str, str], list[Any]] = {}
    for entry in plan(tmp_path, SAME_NOISE.format(**noise)).entries:
        values.setdefault((entry.dataset, entry.method), []).append((entry.cell["method"]["params"], entry.cell["training"]))
    for axes, (one, *others) in values.items():
        assert others == [one, one], axes
    params, _ = values["cifar10", "dividemix"][1]
    assert params.get("confidence_penalty", False) == (noise["kind"] == "asymmetric")
    assert params["lambda_u"] == {0.2: 0, 0.4: 0, 0.5: 25, 0.8: 25, 0.9: 50}[noise["rate"]]


def test_rules_mean_the_kind_of_a_noise_itself(tmp_path: Path) -> None:
    text = SAME_NOISE.format(**SYMMETRIC)
    rules = (
        "where:\n  - {match: {noise: symmetric}, set: {dividemix.warmup: 3}}\n"
        "  - {match: {noise: dividemix-seed}, set: {dividemix.warmup: 4}}\n"
        "exclude:\n  - {match: {noise: file, method: erm}, reason: none}\n"
    )
    entries = plan(tmp_path, text + rules).entries
    warmups = {e.cell["noise"]["kind"]: e.cell["method"]["params"]["warmup"] for e in entries if e.method == "dividemix"}
    assert warmups == {"symmetric": 3, "dividemix-seed": 4, "file": 10}
    assert [(e.noise, e.method) for e in entries if e.skip] == [("published", "erm")]
    assert {e.noise for e in plan(tmp_path, text, only={"noise": "symmetric"}).entries} == {"symmetric@0.9"}


def test_what_a_file_is_like_is_no_part_of_a_cell(tmp_path: Path) -> None:
    text = SAME_NOISE.format(**SYMMETRIC).replace("policy: paper", "policy: none")
    ids = {entry.id for entry in plan(tmp_path, text).entries}
    assert ids == {entry.id for entry in plan(tmp_path, text.replace(", like: symmetric", "")).entries}
    (problem,) = problems(tmp_path, text.replace("like: symmetric", "like: symetric"))
    assert "suite.yaml:5: noises[2].like" in problem and "did you mean symmetric" in problem


def test_a_recipe_that_matches_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(
        "from bench.method import LossMethod, Recipe\nfrom bench.ops.losses import cross_entropy\n"
        "class M(LossMethod):\n    slug = 'other'\n"
        "    recipes = (Recipe('paper', 's', {'training.lr': 1.0}, {'dataset': 'cifar10'}),)\n"
        "    def loss(self, logits, batch):\n        return cross_entropy(logits, batch.labels)\n"
    )
    text = BASE.replace("erm", "[./other.py]")
    note = ["other on digits: no recipe 'paper' matches, class defaults are used"]
    assert plan(tmp_path, text + "policy: paper\n").notes == note
    assert (
        plan(tmp_path, text.replace("[./other.py]", "[{method: ./other.py, recipe: paper, label: other}]")).notes
        == note
    )
    assert plan(tmp_path, text).notes == []


def test_overrides_replace_seeds_fields_and_model(tmp_path: Path) -> None:
    changes = {"training.lr": "1e-2", "params.q": 0.5, "protocol.last_k": 3, "model.name": "mlp", "model.widths": [8]}
    found = plan(tmp_path, seeds=[5], set=changes)
    cell = only(found.entries, noise="none", method="gce").cell
    assert cell["seed"] == 5 and cell["training"]["lr"] == 0.01 and cell["method"]["params"]["q"] == 0.5
    assert cell["protocol"]["last_k"] == 3 and cell["model"] == {"name": "mlp", "widths": [8]}
    assert "q" not in only(found.entries, noise="none", method="erm").cell["method"]["params"]
    assert found.manifest()["overrides"] == {"set": changes, "seeds": [5]}
    assert "overrides" not in plan(tmp_path, only={"method": "erm"}).manifest(), "a filter changes no cell"


def test_only_keeps_cells_by_name_label_or_number(tmp_path: Path) -> None:
    text = SMALL.replace("gce]", "{method: gce, label: mine}]")

    def kept(**axes: Any) -> list[tuple[str, str, int]]:
        return [(e.noise, e.method, e.seed) for e in plan(tmp_path, text, only=axes).entries]

    assert kept(method=["mine"]) == kept(method="gce") == kept(method=["gce", "mine"])
    assert kept(noise="symmetric", seed=0, method="erm") == [("symmetric@0.5", "erm", 0)]
    assert kept(rate="0.50", seed=["1"], method=["erm"]) == [("symmetric@0.5", "erm", 1)]
    assert kept(rate=0, seed=1, method="erm") == [("none", "erm", 1)]
    assert len(kept(dataset="digits", model="tiny-cnn")) == 8


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"only": {"metod": ["erm"]}}, "--only: metod: unknown axis (did you mean method"),
        ({"only": {"method": ["elr"]}}, "--only: method: no cell has method 'elr' (did you mean erm"),
        ({"only": {"rate": ["x"]}}, "--only: rate: no cell has rate 'x'"),
        ({"only": {"noise": ["none"], "rate": [0.5]}}, "no cell has rate '0.5' of those that --only keeps before it"),
        ({"set": {"gce.qq": 1}}, "--set: gce.qq: gce has no field 'qq' (did you mean q?)"),
        ({"set": {"gcee.q": 1}}, "--set: gcee.q: sets nothing in this suite (did you mean gce.q"),
        ({"set": {"epochs": 1}}, "--set: epochs: sets nothing in this suite (did you mean training.epochs"),
        ({"set": {"params.qq": 1}}, "--set: params.qq: sets nothing in this suite (did you mean params.q"),
        ({"set": {"training.epochs": 0}}, "--set: training.epochs: 0 is out of range"),
        ({"set": {"gce.q": 2}}, "--set: gce.q: 2 is out of range"),
        ({"set": {"model.name": "mlpp"}}, "--set: model.name: unknown model 'mlpp' (did you mean mlp?)"),
        ({"set": {"model.width": 2}}, "--set: model.width: tiny-cnn has no field 'width'"),
    ],
)
def test_faults_of_the_command_line_name_the_option(tmp_path: Path, overrides: dict[str, Any], says: str) -> None:
    (found,) = problems(tmp_path, SMALL, **overrides)
    assert found.startswith(says) or says in found, found


# -- methods of the user -------------------------------------------------------------------------------------------
MINE = "from bench.method import LossMethod\nclass M(LossMethod):\n    slug = 'mine'\n    {field}\n"


def test_a_method_by_path_stands_relative_to_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE.format(field="x: float = 1"))
    monkeypatch.chdir(tmp_path)
    (entry,) = plan(folder, BASE.replace("erm", "[{method: ./mine.py, params: {x: 2}}]")).entries
    assert entry.method == "mine (x=2)" and entry.method_path == str(folder / "mine.py")
    assert entry.cell["method"] == {"name": "mine", "version": 1, "params": {"x": 2.0}}
    assert str(tmp_path) not in canonical_json(entry.cell)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (None, "no file"),
        ("def f(:\n", "does not import: SyntaxError"),
        ("import nothing_of_that_name\n", "does not import: ModuleNotFoundError"),
        ("x = 1\n", "must define exactly one method class with a slug, found none"),
        (
            "from __future__ import annotations\n" + MINE.format(field="x: Foo = 1"),
            "an annotation of M cannot be evaluated: name 'Foo' is not defined",
        ),
        (MINE.format(field="x: Foo = 1"), "does not import: NameError"),
        (MINE.format(field="x: list[int] = [1]"), "M.x has the type list[int], which a field cannot have"),
        (MINE.format(field="x: int = 1.5"), "(class default): 1.5 is not a valid value"),
        (MINE.format(field="needs = 'noise_rate'"), "mine declares needs = 'noise_rate'"),
        (MINE.format(field="needs = {'clean_labels'}"), "mine declares needs = {'clean_labels'}"),
        (MINE.format(field="slug = 'erm'"), "uses the slug 'erm' of a built-in method"),
        (
            MINE.format(field="def __init__(self, x=1): self.x = x"),
            "M defines __init__; a method has none, put it into setup(task)",
        ),
    ],
)
def test_a_broken_method_file_is_a_fault_of_the_suite(tmp_path: Path, source: str | None, says: str) -> None:
    if source is not None:
        (tmp_path / "mine.py").write_text(source)
    (found,) = problems(tmp_path, BASE.replace("erm", "./mine.py"))
    assert found.startswith("suite.yaml:3: methods[0]") and says in found


# -- committed suites ----------------------------------------------------------------------------------------------
FILES = sorted((ROOT / "suites").rglob("*.yaml"))
INCLUDED = {Path(name).resolve() for path in FILES for name in read(path).files if Path(name).resolve() != path}
COMMITTED = [path for path in FILES if path not in INCLUDED]


@pytest.mark.parametrize("path", COMMITTED, ids=[str(path.relative_to(ROOT)) for path in COMMITTED])
def test_every_committed_suite_loads_and_plans(path: Path) -> None:
    suite, source = load_suite(path)
    assert suite.title, "a committed suite has a title"
    entries = make_plan(suite, source).entries
    assert len(entries) == len({(e.dataset, e.noise, e.method, e.seed) for e in entries}) > 0


def test_there_is_a_quickstart_suite() -> None:
    assert ROOT / "suites" / "quickstart.yaml" in COMMITTED


# -- identity ------------------------------------------------------------------------------------------------------
def cells() -> dict[str, dict[str, Any]]:
    base = {
        "dataset": {"name": "digits", "revision": "1"},
        "noise": {"kind": "symmetric", "version": 1, "rate": 0.5, "touched": "exact", "own_class": True},
        "method": {"name": "gce", "version": 1, "params": {"q": 0.7, "truncated": False, "k": 0.5}},
        "model": {"name": "tiny-cnn", "widths": [8, 16, 32]},
        "training": {"epochs": 60, "lr": 0.05, "milestones": [], "clip_norm": None},
        "protocol": {"version": 1, "val_fraction": 0.1},
        "seed": 0,
    }

    def changed(axis: str, key: str, value: Any) -> dict[str, Any]:
        cell = copy.deepcopy(base)
        if key:
            cell[axis][key] = value  # type: ignore[index]
        else:
            cell[axis] = value
        return cell

    return {
        "base": base,
        "dataset": changed("dataset", "revision", "2"),
        "noise": changed("noise", "own_class", False),
        "method version": changed("method", "version", 2),
        "method field": changed("method", "params", {"q": 0.7, "truncated": False, "k": 0.25}),
        "model": changed("model", "widths", [8, 16]),
        "training": changed("training", "clip_norm", 5.0),
        "protocol": changed("protocol", "val_fraction", 0.2),
        "seed": changed("seed", "", 1),
        "text": changed("dataset", "name", "Zürich \u2603 \U0001f600"),
        "numbers": changed("training", "lr", 1e-07),
    }


def test_identities_are_those_of_the_golden_file(tmp_path: Path) -> None:
    suite = {f"{e.noise} {e.method} {e.seed}": e.id for e in plan(tmp_path).entries}
    found = {
        "cells": {name: cell_id(cell) for name, cell in cells().items()},
        "suite": suite,
        "streams": {"noise": stream_seed("noise", {"name": "digits"}, 0), "init": stream_seed("init", 1.5, None)},
    }
    if os.environ.get("BENCH_REGENERATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_every_axis_moves_the_identity() -> None:
    identities = {name: cell_id(cell) for name, cell in cells().items()}
    assert len(set(identities.values())) == len(identities)
    assert all(len(identity) == 16 and int(identity, 16) >= 0 for identity in identities.values())


def test_the_order_of_keys_does_not_matter() -> None:
    base = cells()["base"]
    assert cell_id(dict(reversed(base.items()))) == cell_id(base)


@pytest.mark.parametrize("fault", ["missing", "extra", "nan"])
def test_what_is_no_cell_has_no_identity(fault: str) -> None:
    cell = cells()["base"]
    if fault == "missing":
        del cell["seed"]
    elif fault == "extra":
        cell["device"] = "cpu"
    else:
        cell["training"]["lr"] = float("nan")
    with pytest.raises(ValueError):
        cell_id(cell)


def test_identity_is_semantic(tmp_path: Path) -> None:
    """Labels, places, names of recipes, resources and ways of writing a value do not enter (law 1)."""

    def ids(text: str, name: str = "suite.yaml", folder: Path = tmp_path, **overrides: Any) -> list[str]:
        return [entry.id for entry in plan(folder, text, name=name, **overrides).entries]

    (tmp_path / "deep").mkdir()
    base = ids(SMALL)
    assert ids(SMALL, folder=tmp_path / "deep", name="other.yaml") == base
    assert ids(SMALL + "title: x\nname: other\nresources: {cpu: 2, time_limit: 5}\ntable: {digits: 2}\n") == base
    assert ids(SMALL.replace("gce]", "{method: gce, label: something else}]")) == base
    assert ids(SMALL.replace("gce]", "{method: gce, params: {q: 0.7}}]")) == base, "a default written out"
    assert ids(SMALL.replace("gce]", "{method: gce, recipe: fixed}]")) == base, (
        "a recipe with the values of the default"
    )
    assert ids(SMALL + "forbid_needs: [groups]\nexclude: [{match: {method: gce}, reason: r}]\n") == base
    assert ids(SMALL.replace("symmetric@0.5", "{kind: symmetric, rate: 0.5, own_class: true}")) == base
    assert ids(SMALL.replace("symmetric@0.5", "symmetric@0.50")) == base
    assert ids(SMALL, set={"training.epochs": 2}) == base
    assert ids(SMALL, set={"training.epochs": 3}) != base


class Thing(Configurable):
    slug = "thing"
    ratio: Annotated[float, Range(ge=0)] = 1.0
    count: int = 3
    steps: tuple[int, ...] = (1, 2)
    limit: float | None = None
    kind: Literal["a", "b"] = "a"
    flag: bool = False


@pytest.mark.parametrize(
    ("key", "values", "stored"),
    [
        ("ratio", [1, 1.0, "1e0", "1"], 1.0),
        ("ratio", [0.0, -0.0, 0, "-0"], 0.0),
        ("ratio", [1e-4, "1e-4", "0.0001"], 0.0001),
        ("count", [4, 4.0, "4"], 4),
        ("steps", [[3, 4], (3, 4), [3.0, "4"]], [3, 4]),
        ("steps", [[], ()], []),
        ("limit", [None], None),
        ("limit", [2, 2.0, "2"], 2.0),
    ],
)
def test_a_value_has_one_identity_however_it_is_written(key: str, values: list[Any], stored: Any) -> None:
    texts = {canonical_json(Thing.identity({key: value})) for value in values}
    assert len(texts) == 1
    found = json.loads(texts.pop())[key]
    assert found == stored and type(found) is type(stored)
    assert "-0" not in canonical_json(Thing.identity({key: values[0]}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ratio", True), ("ratio", None), ("ratio", "x"), ("ratio", float("nan")), ("ratio", float("inf")),
        ("ratio", 10**400), ("ratio", [1.0]), ("count", 1.5), ("count", True), ("count", "1.5"), ("count", None),
        ("ratio", -1), ("limit", "x"),
        ("count", float("inf")), ("steps", 3), ("steps", "34"), ("steps", {"3": 4}), ("steps", [1, None]),
        ("kind", "c"), ("kind", ["a"]), ("flag", 1), ("flag", "true"), ("flag", None), ("colour", 1),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(FieldError) as caught:
        Thing.identity({key: value})
    assert caught.value.key == key and caught.value.hint


@given(
    st.floats(min_value=0, allow_nan=False, allow_infinity=False), st.integers(), st.lists(st.integers(), max_size=3)
)
def test_identity_is_a_fixed_point(ratio: float, count: int, steps: list[int]) -> None:
    once = Thing.identity({"ratio": ratio, "count": count, "steps": steps})
    assert Thing.identity(json.loads(canonical_json(once))) == once
    assert canonical_json(
        Thing.identity({"ratio": repr(ratio), "count": str(count), "steps": tuple(steps)})
    ) == canonical_json(once)


def test_a_neutral_field_does_not_move_the_identity() -> None:
    class Grown(Thing):
        neutral = {"extra": 0.0, "names": ()}
        extra: float = 0.0
        names: tuple[str, ...] = ()

    assert Grown.identity({}) == Thing.identity({}) == Grown.identity({"extra": -0.0, "names": []})
    assert Grown.identity({"extra": 1}) == {**Thing.identity({}), "extra": 1.0}
    assert Grown().extra == 0.0, "it is left out of the cell, not of the object"


def test_a_method_that_grows_a_neutral_field_keeps_its_cells(tmp_path: Path) -> None:
    text = BASE.replace("erm", "./mine.py")
    ids = []
    for extra in ("", "; y: int = 0; neutral = {'y': 0}", "; y: int = 5; neutral = {'y': 0}"):
        (tmp_path / "mine.py").write_text(MINE.format(field="x: float = 1.0" + extra))
        ids.append(plan(tmp_path, text).entries[0].id)
    assert ids[0] == ids[1] != ids[2], "a default that is not the neutral value is another cell"
