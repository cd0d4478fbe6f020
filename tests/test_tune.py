"""Searches (kind: tune): spaces, proposals, budget, choice on validation data, completion, and the errors of the suite."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import api
from bench.outputs import write_search
from bench.plan import Overrides, make_plan
from bench.records import load_records, write_record
from bench.suite import load_suite
from bench.tune import searchers
from bench.tune.searchers import next_settings
from bench.tune.space import Domain, parse_space, random_settings, size
from bench.yaml_source import SuiteError

TUNE = """\
kind: tune
datasets: digits
noises: [none, symmetric@0.5]
methods: [erm, gce, {method: elr, label: mine}]
search:
  gce: {q: {choice: [0.3, 0.6, 0.9]}, training.lr: {loguniform: [0.01, 0.2]}}
  mine: {lam: {uniform: [0.5, 5]}}
budget: 3
tune_seeds: [10]
seeds: [0]
model: {name: mlp, widths: [8]}
training: {epochs: 2}
policy: none
"""
BAYES = TUNE + "searcher: bayesian\nbatch: 2\n"


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tune.yaml").write_text(TUNE)
    return tmp_path / "tune.yaml"


def run(suite: Path, **options: Any) -> api.RunReport:
    return api.run(suite, executor="inline", tracking="none", say=None, **options)


def search_of(suite: Path, suffix: str = "") -> dict[str, Any]:
    return json.loads((suite.parent / "results" / "tune" / f"search{suffix}.json").read_text())


# -- spaces --------------------------------------------------------------------------------------------------------
def test_shares_of_a_domain_are_equally_probable() -> None:
    assert [Domain("choice", ("a", "b")).at(share) for share in (0.0, 0.49, 0.5, 0.99)] == ["a", "a", "b", "b"]
    assert [Domain("int", (3, 5)).at(share) for share in (0.0, 0.34, 0.99)] == [3, 4, 5]
    assert Domain("uniform", (0, 2)).at(0.25) == 0.5
    assert Domain("loguniform", (0.01, 1)).at(0.5) == 0.1


@given(st.floats(0, 1, exclude_max=True), st.floats(1e-6, 1e3), st.floats(1.0001, 1e4))
def test_draws_stay_in_their_bounds(share: float, low: float, ratio: float) -> None:
    for kind in ("uniform", "loguniform"):
        assert low <= Domain(kind, (low, low * ratio)).at(share) <= low * ratio


def test_draws_are_distinct_seeded_and_fewer_come_first() -> None:
    space = parse_space({"k": {"int": [1, 50]}, "lr": {"loguniform": [0.01, 0.2]}})
    found = random_settings(space, 0, 20)
    assert len({json.dumps(setting) for setting in found}) == 20 and random_settings(space, 0, 5) == found[:5]
    assert random_settings(space, 1, 20) != found
    assert found[0] == {"k": 6, "lr": 0.09716}, "a search of the same suite proposes the same everywhere"
    # half of the mass of a logarithmic space lies below its geometric mean
    many = random_settings(space, 0, 1000)
    below = sum(setting["lr"] < math.sqrt(0.01 * 0.2) for setting in many)
    assert 440 < below < 560


def test_a_space_that_the_budget_exhausts_is_tried_whole() -> None:
    space = parse_space({"q": {"choice": [1, 2]}, "k": {"int": [1, 3]}})
    assert size(space) == 6 and len(random_settings(space, 0, 6)) == len(random_settings(space, 0, 99)) == 6
    assert next_settings("bayesian", space, 0, 99, 2, []) == random_settings(space, 0, 99)
    assert next_settings("bayesian", space, 0, 99, 2, [(s, 0.1) for s in random_settings(space, 0, 99)]) == []


def test_a_narrow_space_ends() -> None:
    assert len(random_settings(parse_space({"lr": {"uniform": [0.1, 0.1001]}}), 0, 5)) == 2


# -- Bayesian ------------------------------------------------------------------------------------------------------
def climb(seed: int, budget: int = 24) -> list[tuple[dict[str, Any], float | None]]:
    space = parse_space({"u": {"uniform": [0, 1]}, "k": {"choice": ["a", "b"]}})
    history: list[tuple[dict[str, Any], float | None]] = []
    while batch := next_settings("bayesian", space, seed, budget, 4, history):
        history += [(s, None if s["k"] == "b" else 1 - abs(s["u"] - 0.3)) for s in batch]
    return history


def test_bayesian_search_is_reproducible_spends_its_budget_and_learns() -> None:
    pytest.importorskip("optuna")
    history = climb(0)
    assert history == climb(0) and len(history) == 24 and len({json.dumps(s) for s, _ in history}) == 24
    late = [setting["k"] for setting, _ in history[12:]]
    assert late.count("a") > late.count("b"), "what fails is proposed less"


def test_a_missing_package_is_an_environment_problem(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite.write_text(BAYES)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(api.EnvironmentProblem, match="needs Ray and Optuna"):
        run(suite)


def test_random_search_needs_neither_ray_nor_optuna(suite: Path) -> None:
    code = (
        "import sys; sys.modules['ray'] = sys.modules['optuna'] = None\n"
        "from bench import api; sys.exit(api.run('tune.yaml', executor='inline', tracking='none', say=None).exit_code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=suite.parent, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


# -- a search, from its plan to its report ---------------------------------------------------------------------------
def test_the_plan_says_the_budget_before_anything_has_run(suite: Path) -> None:
    plan = api.read_plan(suite)
    text = "search on digits: 2 methods x 3 settings x 2 noises x 1 tune seeds = 12 cells (0 of 6 settings known)"
    assert plan.notes[0] == text + "; then 6 cells of the chosen settings on fresh seeds"
    assert plan.notes[1] == "erm: nothing is searched, it runs as given"
    assert sum(entry.is_trial for entry in plan.entries) == 12


def test_a_search_tries_chooses_and_reports_on_fresh_seeds(suite: Path) -> None:
    report = run(suite)
    assert report.exit_code == 0 and report.ran == 18
    records = load_records(suite.parent / "results" / "tune")
    search = search_of(suite)
    assert search["spent"] | {"seconds": 0} == {
        "settings": 6, "cells": 12, "done": 6, "failed": 0, "diverged": 0, "missing": 0, "seconds": 0
    }  # fmt: skip
    for study in search["studies"][1:]:
        means = [
            sum(records[cell]["metrics"]["val_acc_last"] for cell in trial["cells"]) / 2 for trial in study["trials"]
        ]
        assert [trial["value"] for trial in study["trials"]] == pytest.approx(means)
        assert study["chosen"] == 1 + means.index(max(means)) and study["validation"] == "hold-out, noisy labels"
        assert all(records[cell]["cell"]["seed"] == 10 for trial in study["trials"] for cell in trial["cells"])
    manifest = json.loads((suite.parent / "results" / "tune" / "plan.json").read_text())
    assert len(manifest["trials"]) == 12 and {entry["seed"] for entry in manifest["entries"]} == {0}
    assert [entry["title"] for entry in manifest["entries"][:3]] == ["Cross-Entropy", "GCE", "mine"]
    chosen = search["studies"][1]["setting"]
    final = records[manifest["entries"][1]["id"]]["cell"]
    assert (final["method"]["params"]["q"], final["training"]["lr"]) == (chosen["q"], chosen["training.lr"])
    assert "Did you tune the baselines? random search, 3 settings" in report.text and "not searched" in report.text


def test_running_again_does_nothing_and_an_interrupted_search_goes_on(suite: Path) -> None:
    run(suite)
    folder = suite.parent / "results" / "tune"
    content = (folder / "search.json").read_bytes()
    assert run(suite).ran == 0
    search = search_of(suite)
    for identity in (search["studies"][1]["trials"][2]["cells"][0], search["studies"][2]["trials"][0]["cells"][1]):
        (folder / f"{identity}.json").unlink()
    again = run(suite)
    assert again.ran == 2 and again.exit_code == 0
    assert [s["setting"] for s in search_of(suite)["studies"]] == [s["setting"] for s in json.loads(content)["studies"]]


def test_test_accuracy_has_no_say(suite: Path) -> None:
    """The chosen setting stays when every test number is turned upside down."""
    run(suite)
    folder, before = suite.parent / "results" / "tune", search_of(suite)
    for record in load_records(folder).values():
        for name in [name for name in record["metrics"] if name.startswith("test_acc")]:
            record["metrics"][name] = 1 - record["metrics"][name]
        write_record(folder, record)
    assert run(suite).ran == 0
    assert search_of(suite)["studies"] == before["studies"]


def test_failed_settings_count_as_worst_and_are_reported(suite: Path) -> None:
    run(suite)
    folder, search = suite.parent / "results" / "tune", search_of(suite)
    records = load_records(folder)
    best = search["studies"][1]["trials"][search["studies"][1]["chosen"] - 1]
    broken = [best["cells"][1], *(cell for trial in search["studies"][2]["trials"] for cell in trial["cells"])]
    for identity in broken:
        write_record(folder, {**records[identity], "status": "diverged", "reason": "loss is nan", "metrics": {}})
    report = run(suite)
    gce, mine = search_of(suite)["studies"][1:]
    trial = gce["trials"][best["number"] - 1]
    assert (trial["state"], trial["value"], trial["reason"]) == ("diverged", None, "loss is nan")
    assert gce["state"] == "chosen" and gce["chosen"] != best["number"]
    assert mine["state"] == "failed" and mine["setting"] is None
    skipped = [entry for entry in report.plan.entries if entry.skip]
    assert {entry.method for entry in skipped} == {"mine"} and len(skipped) == 2
    assert "none of the 3 settings" in str(skipped[0].skip) and "no setting finished" in report.text
    assert report.exit_code == 1


def test_a_setting_may_be_chosen_for_each_noise(suite: Path) -> None:
    suite.write_text(TUNE + "per: cell\n")
    run(suite)
    studies = [study for study in search_of(suite)["studies"] if study["method"] == "gce"]
    assert [study["noises"] for study in studies] == [["none"], ["symmetric@0.5"]]
    assert all(len(trial["cells"]) == 1 for study in studies for trial in study["trials"])


def test_bayesian_proposals_are_kept_and_need_no_searcher_again(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    suite.write_text(BAYES)
    report = run(suite)
    assert report.exit_code == 0 and report.ran == 18
    before = search_of(suite)
    assert [trial["batch"] for trial in before["studies"][1]["trials"]] == [1, 1, 2]

    def refuse(*_: Any) -> Any:
        raise AssertionError("asked again")

    monkeypatch.setattr(searchers, "_optuna", refuse)
    assert run(suite).ran == 0 and search_of(suite) == before
    suite.write_text(BAYES.replace("[erm, gce, {method: elr, label: mine}]", "[{method: elr, label: mine}, gce]"))
    assert run(suite).ran == 0 and search_of(suite)["studies"] == before["studies"][:0:-1], "rows found by what they are"
    suite.write_text(BAYES)
    assert run(suite).ran == 0 and search_of(suite) == before
    (suite.parent / "results" / "tune" / "search.json").unlink()
    monkeypatch.undo()
    monkeypatch.chdir(suite.parent)
    assert run(suite).ran == 0 and search_of(suite) == before, "the same proposals from the records alone"


@pytest.mark.parametrize("rows", ["[erm, MINE, gce]", "[MINE, gce, erm]", "[mixup, erm, gce, MINE]"])
def test_no_row_is_given_what_was_proposed_to_another(suite: Path, tmp_path: Path, rows: str) -> None:
    """Another order of the rows, and a row in front of them; both spaces are of the same field."""
    text = BAYES.replace("q: {choice: [0.3, 0.6, 0.9]}, ", "").replace("lam: {uniform: [0.5, 5]}", "training.lr: {int: [1, 9]}")
    suite.write_text(text)
    folder = tmp_path / "results" / "tune"
    folder.mkdir(parents=True)
    write_search(api.read_plan(suite), folder)
    mine = "{method: elr, label: mine}"
    suite.write_text(text.replace(f"[erm, gce, {mine}]", rows.replace("MINE", mine)))

    def proposed(results: Path) -> dict[str, list[Any]]:
        studies = (api.read_plan(suite, results=results).search or {})["studies"]
        return {study["method"]: [trial["setting"] for trial in study["trials"]] for study in studies}

    found = proposed(tmp_path / "results")
    assert found == proposed(tmp_path / "fresh") and len(found["gce"]) == len(found["mine"]) == 2
    assert all(0.01 <= setting["training.lr"] <= 0.2 for setting in found["gce"])
    assert all(1 <= setting["training.lr"] <= 9 for setting in found["mine"])


def test_overrides_make_another_search_beside_it(suite: Path) -> None:
    report = run(suite, set={"training.epochs": 1}, only={"method": "mine"})
    assert report.ran == 6 + 2
    digest = Overrides(set={"training.epochs": 1}).digest()
    assert search_of(suite, f"-{digest}")["studies"][2]["state"] == "chosen"


def test_rules_on_the_label_of_a_row_hold_for_its_trials(suite: Path) -> None:
    suite.write_text(TUNE + "where: [{match: {method: mine}, set: {elr.beta: 0.5}}]\n")
    trials = [entry for entry in api.read_plan(suite).entries if entry.method.startswith("mine")]
    assert len(trials) == 6 and {entry.cell["method"]["params"]["beta"] for entry in trials} == {0.5}


# -- errors --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  mine: {lam", "  mein: {lam", "tune.yaml:7: search.mein: no row is called 'mein' (did you mean mine"),
        ("q: {choice", "p: {choice", "tune.yaml:6: search.gce.p: gce has no field 'p'"),
        ("training.lr", "training.rl", "tune.yaml:6: search.gce.training.rl: training has no field 'rl' (did you mean lr"),
        ("uniform: [0.5, 5]", "unifrm: [0.5, 5]", "tune.yaml:7: search.mine.lam.unifrm: unknown space 'unifrm' (did"),
        ("uniform: [0.5, 5]", "uniform: [5, 0.5]", "the lowest value has to be below the highest"),
        ("uniform: [0.5, 5]", "loguniform: [0, 5]", "a logarithmic space begins above 0"),
        ("uniform: [0.5, 5]", "int: [0.5, 5]", "expected [lowest, highest], whole numbers"),
        ("0.9]", "1.9]", "tune.yaml:6: search.gce.q.choice[2]: 1.9 is out of range"),
        ("budget: 3", "budgt: 3", "tune.yaml:8: budgt: unknown key 'budgt' (did you mean budget?)"),
        ("budget: 3\n", "", "a suite of kind tune needs the key 'budget'"),
        ("seeds: [0]", "seeds: [0, 10]", "tune.yaml:10: seeds[1]: seed 10 is in tune_seeds too"),
        ("policy: none", "select: test_acc_last", "tune.yaml:13: select: 'test_acc_last'"),
        ("policy: none", "searcher: bayes", "tune.yaml:13: searcher: 'bayes'"),
    ],
)  # fmt: skip
def test_errors_name_file_line_key_and_the_nearest(suite: Path, old: str, new: str, message: str) -> None:
    suite.write_text(TUNE.replace(old, new, 1) if not old.startswith("seeds") else TUNE.replace("\nseeds: [0]", f"\n{new}"))
    with pytest.raises(SuiteError) as caught:
        make_plan(*load_suite(suite))
    assert message in str(caught.value).replace(f"{suite.parent}/", "")


def test_seeds_of_the_command_line_must_be_fresh_too(suite: Path) -> None:
    with pytest.raises(SuiteError, match="--seeds: seed 10 is in tune_seeds too"):
        api.read_plan(suite, Overrides(seeds=[10]))


def test_without_a_validation_split_nothing_can_choose(suite: Path) -> None:
    suite.write_text(TUNE + "protocol: {val_fraction: 0}\n")
    with pytest.raises(SuiteError, match="have no validation split"):
        run(suite)
