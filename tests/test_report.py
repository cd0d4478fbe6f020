"""Tables and figures: hand-worked aggregates, what is printed for absent cells, marks, captions, escaping, exact bytes.

The golden files `tests/golden/report.{md,tex,csv,html,text}` hold the tables of the small suite below. After an
intended change of the output, write them anew with `BENCH_REGENERATE_GOLDEN=1 pytest tests/test_report.py` and read the
diff.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.report import FORMATS, TABLE_FIELDS, TableSpec, accuracy_curves, escape, render, render_suite, table_data
from bench.report.aggregate import aggregate_cell, outcome_of, summarize
from bench.report.captions import noise_notes
from bench.report.layout import build_grids, rank_methods
from bench.report.tables import build_sheet, render_text

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"
SPEC = TableSpec()
METHODS = {"erm": ("ERM", [], 1), "co-teaching": ("Co-teaching", ["noise_rate"], 2), "dividemix": ("DivideMix", [], 2)}
DEFINITIONS = {
    "none": "labels as delivered",
    "symmetric@0.5": "each label redrawn with probability 0.5, its own class included",
    "uniform-flip@0.3": "each label flipped with probability 0.3",
}

# (data set, noise, method) -> value after the last epoch for seeds 0 and 1: accuracy, worst group, AUC; or a status.
VALUES: dict[tuple[str, str, str], list[Any]] = {
    ("digits", "none", "erm"): [(0.90,), (0.94,)],
    ("digits", "none", "co-teaching"): ["skipped", "skipped"],
    ("digits", "none", "dividemix"): [(0.95,), (0.97,)],
    ("digits", "symmetric@0.5", "erm"): [(0.50,), (0.54,)],
    ("digits", "symmetric@0.5", "co-teaching"): [(0.80,), "missing"],
    ("digits", "symmetric@0.5", "dividemix"): [(0.88, None, 0.91), "failed"],
    ("spurious-digits", "uniform-flip@0.3", "erm"): [(0.70, 0.40), (0.72, 0.44)],
    ("spurious-digits", "uniform-flip@0.3", "co-teaching"): ["diverged", "diverged"],
    ("spurious-digits", "uniform-flip@0.3", "dividemix"): [(0.85, 0.75, 0.90), (0.85, 0.79, 0.95)],
}
REASONS = {"failed": "RuntimeError: out of memory", "diverged": "the loss was not finite in epoch 3", "skipped": None}
SHIFTS = {"last": 0.0, "last_k": -0.01, "best_oracle": 0.03, "selected": 0.01}


def make_entry(dataset: str, noise: str, method: str, seed: int, **changes: Any) -> dict[str, Any]:
    title, needs, networks = METHODS.get(method, (method, [], 1))
    entry = {"id": f"{dataset}/{noise}/{method}/{seed}", "dataset": dataset, "noise": noise, "method": method}
    return entry | {"seed": seed, "title": title, "needs": needs, "networks": networks, "skip": None} | changes


def make_record(entry: dict[str, Any], value: Any, epochs: int = 4) -> dict[str, Any]:
    """A record as `bench.records` writes it, as far as reports read it. `value` as in VALUES."""
    record: dict[str, Any] = {"schema": 1, "id": entry["id"], "suite": "small", "reason": None}
    record |= {"metrics": {}, "curve": {}}
    record["cell"] = {
        "model": {"name": "tiny-cnn"}, "training": {"epochs": epochs}, "protocol": {"last_k": 3}, "seed": entry["seed"],
    }  # fmt: skip
    if isinstance(value, str):
        return record | {"status": value, "reason": REASONS[value], "noise": {}, "data": {}}
    names = ("test_acc", "worst_group_acc", "noise_auc")
    measured = {name: number for name, number in zip(names, value, strict=False) if number is not None}
    nominal = float(entry["noise"].partition("@")[2] or 0)
    grouped = "worst_group_acc" in measured
    record["metrics"] = {f"{m}_{p}": v + shift for m, v in measured.items() for p, shift in SHIFTS.items()}
    ramp = [0.25 * (epoch + 1) for epoch in range(epochs)]
    record["curve"] = {"epoch": list(range(epochs))} | {name: [v * r for r in ramp] for name, v in measured.items()}
    record["noise"] = {
        "rate": 0.9 * nominal + 0.002 * entry["seed"] if nominal else 0.0, "nominal": nominal,
        "sha256": f"{entry['dataset']} {entry['noise']} {entry['seed']}",
        "definition": DEFINITIONS.get(entry["noise"], "?"),
    }  # fmt: skip
    record["data"] = {"canonical": True, "n_test": 360, "groups": ["a", "b", "c", "d"] if grouped else None}
    record["data"]["validation"] = "official, true labels" if grouped else "hold-out, noisy labels"
    return record | {"status": "done"}


def small_suite() -> tuple[dict[str, Any], dict[str, Any]]:
    entries, records = [], {}
    for (dataset, noise, method), seeds in VALUES.items():
        for seed, value in enumerate(seeds):
            entry = make_entry(dataset, noise, method, seed)
            if value == "skipped":
                entry["skip"] = "without noise it is ERM"
            elif value != "missing":
                records[entry["id"]] = make_record(entry, value)
            entries.append(entry)
    return {"schema": 1, "suite": "small", "entries": entries}, records


def one_block(values: dict[str, list[Any]], noise: str = "symmetric@0.5") -> tuple[dict[str, Any], dict[str, Any]]:
    """A suite of one data set and one noise: method -> accuracy for each seed (or None for a seed that has not run)."""
    entries, records = [], {}
    for method, accuracies in values.items():
        for seed, accuracy in enumerate(accuracies):
            entries.append(make_entry("digits", noise, method, seed))
            if accuracy is not None:
                records[entries[-1]["id"]] = make_record(entries[-1], (accuracy,))
    return {"schema": 1, "suite": "one", "entries": entries}, records


def item(data: Any, block: int, method: str, noise: str, metric: str = "test_acc", protocol: str = "last") -> Any:
    return data.blocks[block].aggregates[method, noise, metric, protocol]


# -- the specification -------------------------------------------------------------------------------------------------
def test_field_names_are_plain_data_for_the_suite_validator() -> None:
    assert json.loads(json.dumps(TABLE_FIELDS)) == TABLE_FIELDS
    assert TABLE_FIELDS[:4] == ["title", "rows", "columns", "split_by"]
    assert TableSpec.from_dict(None) == TableSpec.from_dict({}) == TableSpec().validate()


def test_from_dict_takes_lists_and_bare_names() -> None:
    spec = TableSpec.from_dict({"metrics": "noise_auc", "protocols": ["selected", "last"], "digits": 2})
    assert (spec.metrics, spec.protocols, spec.digits) == (("noise_auc",), ("selected", "last"), 2)
    assert spec.primary_protocol == "selected"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"protocol": "last"}, ["table", "'protocol'", "did you mean 'protocols'", "split_by"]),
        ({"metrics": ["test_ac"]}, ["table.metrics", "'test_ac'", "did you mean 'test_acc'", "noise_auc"]),
        ({"metrics": []}, ["table.metrics", "test_acc"]),
        ({"metrics": ["test_acc", "test_acc"]}, ["table.metrics", "once"]),
        ({"metrics": [{"a": 1}]}, ["table.metrics", "unknown"]),
        ({"protocols": ["best"]}, ["table.protocols", "did you mean 'best_oracle'"]),
        ({"protocols": 3}, ["table.protocols", "expected a list"]),
        ({"rows": "methods"}, ["table.rows", "did you mean 'method'"]),
        ({"columns": "dataset"}, ["columns: dataset", "split_by: dataset", "once"]),
        ({"primary": "last_k"}, ["table.primary", "'last_k'", "last, best_oracle, selected"]),
        ({"spread": "sem"}, ["table.spread", "'sem'", "std, none"]),
        ({"digits": True}, ["table.digits", "True"]),
        ({"digits": 7}, ["table.digits", "0 to 6"]),
        ({"bold_best": "yes"}, ["table.bold_best", "'yes'"]),
        ({"tie_margin": -1}, ["table.tie_margin", "-1"]),
        ({"tie_margin": math.nan}, ["table.tie_margin", "nan"]),
        ({"title": 3}, ["table.title", "3"]),
        (["last"], ["table", "mapping"]),
    ],
)
def test_mistakes_in_the_table_section_are_named(section: Any, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        TableSpec.from_dict(section)
    assert [word for word in words if word not in str(error.value)] == []


def test_other_protocols_keep_a_primary_that_is_still_among_them() -> None:
    spec = TableSpec(primary="selected").validate()
    assert spec.with_protocols(["selected"]).primary == "selected"
    assert spec.with_protocols(["last_k"]).primary_protocol == "last_k"
    with pytest.raises(ValueError, match="did you mean 'last_k'"):
        spec.with_protocols(["last-k"])


# -- aggregates --------------------------------------------------------------------------------------------------------
def test_mean_and_sample_standard_deviation_by_hand() -> None:
    assert summarize([]) == (None, None)
    assert summarize([0.3]) == (0.3, None)
    mean, spread = summarize([0.2, 0.4, 0.9])
    # deviations -0.3, -0.1, 0.4; squares 0.09 + 0.01 + 0.16 = 0.26; 0.26 / 2 = 0.13
    assert mean == pytest.approx(0.5) and spread == pytest.approx(math.sqrt(0.13))


def test_aggregates_by_hand() -> None:
    data = table_data(*small_suite(), SPEC)
    assert [block.key for block in data.blocks] == ["digits", "spurious-digits"]
    erm = item(data, 0, "erm", "none")
    # 0.90 and 0.94: mean 0.92, sample deviation 0.04 / sqrt(2)
    assert (erm.mean, erm.spread) == (pytest.approx(0.92), pytest.approx(0.04 / math.sqrt(2)))
    assert (erm.status, erm.n, erm.n_planned, erm.reasons) == ("done", 2, 2, ())
    assert item(data, 0, "erm", "none", protocol="best_oracle").mean == pytest.approx(0.95)
    worst = item(data, 1, "dividemix", "uniform-flip@0.3", "worst_group_acc")
    assert (worst.mean, worst.spread) == (pytest.approx(0.77), pytest.approx(0.04 / math.sqrt(2)))
    assert item(data, 1, "dividemix", "uniform-flip@0.3", "noise_auc", "selected").mean == pytest.approx(0.935)


def test_every_kind_of_absence_is_told() -> None:
    data = table_data(*small_suite(), SPEC)

    def told(block: int, method: str, noise: str, metric: str = "test_acc") -> tuple[Any, ...]:
        found = item(data, block, method, noise, metric)
        return found.status, found.n, dict(found.counts), found.reasons

    assert told(0, "co-teaching", "none") == (
        "skipped", 0, {"skipped": 2}, ("skipped (2 of 2 seeds): without noise it is ERM",),
    )  # fmt: skip
    assert told(0, "co-teaching", "symmetric@0.5") == (
        "partial", 1, {"done": 1, "missing": 1}, ("not run (1 of 2 seeds)",),
    )  # fmt: skip
    assert told(0, "dividemix", "symmetric@0.5") == (
        "partial", 1, {"done": 1, "failed": 1}, ("failed (1 of 2 seeds): RuntimeError: out of memory",),
    )  # fmt: skip
    assert told(1, "co-teaching", "uniform-flip@0.3") == (
        "diverged", 0, {"diverged": 2}, ("not converged (2 of 2 seeds): the loss was not finite in epoch 3",),
    )  # fmt: skip
    assert told(1, "erm", "uniform-flip@0.3", "noise_auc")[:3] == ("unmeasured", 0, {"unmeasured": 2})
    assert item(data, 0, "co-teaching", "symmetric@0.5").spread is None


def test_a_diverged_seed_with_metrics_does_not_enter_the_mean() -> None:
    plan, records = one_block({"erm": [0.5, 0.7]})
    records["digits/symmetric@0.5/erm/1"] |= {"status": "diverged", "reason": "loss is nan"}
    found = item(table_data(plan, records, SPEC), 0, "erm", "symmetric@0.5")
    assert (found.mean, found.n, found.n_planned, found.status) == (0.5, 1, 2, "partial")


@pytest.mark.parametrize("value", [math.nan, math.inf, "0.5", True])
def test_a_value_that_is_not_a_finite_number_is_a_failure(value: Any) -> None:
    plan, records = one_block({"erm": [0.5, 0.7]})
    records["digits/symmetric@0.5/erm/1"]["metrics"]["test_acc_last"] = value
    found = item(table_data(plan, records, SPEC), 0, "erm", "symmetric@0.5")
    assert (found.mean, dict(found.counts)) == (0.5, {"done": 1, "failed": 1})
    assert "test_acc_last is" in found.reasons[0]


def test_without_records_everything_is_missing_and_every_format_says_so() -> None:
    plan, _ = small_suite()
    data = table_data(plan, {}, SPEC)
    assert {a.status for block in data.blocks for a in block.aggregates.values()} == {"missing", "skipped"}
    assert all(block.metrics[column] == ("test_acc",) for block in data.blocks for column in block.columns)
    for fmt in FORMATS:
        text = render(data, SPEC, fmt)
        assert "not run (2 of 2 seeds)" in text
        assert not re.search(r"\d\d\.\d", text.replace("45.10", ""))


@given(st.lists(st.sampled_from(["done", "failed", "diverged", "missing", "nan", "none"]), max_size=6))
def test_each_planned_seed_is_counted_once(kinds: list[str]) -> None:
    outcomes = []
    for seed, kind in enumerate(kinds):
        entry = make_entry("digits", "none", "erm", seed)
        values = {"done": 0.5, "nan": math.nan, "none": None}
        record = {"status": "done" if kind in values else kind, "metrics": {"test_acc_last": values.get(kind, 0.9)}}
        outcomes.append(outcome_of(entry, None if kind == "missing" else record))
    found = aggregate_cell(outcomes, "test_acc", "last")
    assert sum(found.counts.values()) == found.n_planned == len(kinds)
    assert found.n == kinds.count("done") and (found.mean == 0.5 if found.n else found.mean is None)
    assert (found.status == "done") == (0 < found.n == len(kinds))
    assert found.n == found.n_planned or found.reasons


def test_the_same_cell_twice_is_refused() -> None:
    plan, records = one_block({"erm": [0.5]})
    plan["entries"].append(plan["entries"][0] | {"id": "another"})
    with pytest.raises(ValueError, match=r"'erm'.*seed 0 twice.*digits/symmetric@0.5/erm/0 and another"):
        table_data(plan, records, SPEC)


def test_records_outside_the_plan_are_left_aside() -> None:
    plan, records = small_suite()
    assert render_suite(plan, records | {"stranger": make_record(make_entry("x", "y", "z", 0), (0.1,))}, SPEC) == (
        render_suite(plan, records, SPEC)
    )


# -- marks -------------------------------------------------------------------------------------------------------------
def ranks(values: dict[str, list[Any]], **fields: Any) -> dict[str, str]:
    spec = replace(SPEC, protocols=("last",), **fields)
    found = rank_methods(table_data(*one_block(values), spec).blocks[0], spec)
    return {method: rank for (method, *_), rank in found.items()}


def test_best_and_second_best() -> None:
    assert ranks({"a": [0.9], "b": [0.8], "c": [0.7]}) == {"a": "best", "b": "second"}
    assert ranks({"a": [0.9], "b": [0.8], "c": [0.7]}, bold_best=False) == {"b": "second"}
    assert ranks({"a": [0.9], "b": [0.8], "c": [0.7]}, underline_second=False) == {"a": "best"}


def test_ties_are_by_the_printed_value() -> None:
    values = {"a": [0.9001], "b": [0.9004], "c": [0.8], "d": [0.8004]}
    assert ranks(values) == {"a": "best", "b": "best", "c": "second", "d": "second"}
    assert ranks(values, digits=2) == {"b": "best", "a": "second"}


def test_all_within_the_margin_are_best() -> None:
    # the rule of the ScanMix tables: 94.1 is within 1 of 95.1, 94.0 is not
    found = ranks({"a": [0.951], "b": [0.941], "c": [0.940]}, tie_margin=1.0)
    assert found == {"a": "best", "b": "best", "c": "second"}


def test_marks_need_rivals_and_whole_cells() -> None:
    assert ranks({"a": [0.9]}) == {}
    assert ranks({"a": [0.9], "b": [0.8]}) == {"a": "best"}
    assert ranks({"a": [0.9, None], "b": [0.8, 0.8], "c": [0.7, 0.7]}) == {"b": "best"}


def test_methods_compete_within_a_column_also_when_they_are_the_columns() -> None:
    plan, records = one_block({"a": [0.9], "b": [0.8], "c": [0.7]})
    spec = TableSpec(rows="noise", columns="method", protocols=("last",)).validate()
    block = table_data(plan, records, spec).blocks[0]
    assert rank_methods(block, spec) == {
        ("symmetric@0.5", "a", "test_acc", "last"): "best", ("symmetric@0.5", "b", "test_acc", "last"): "second",
    }  # fmt: skip
    spec = TableSpec(rows="noise", columns="dataset", split_by="method").validate()
    assert rank_methods(table_data(plan, records, spec).blocks[0], spec) == {}


# -- what stands around the numbers ------------------------------------------------------------------------------------
def test_caption_says_statistic_protocols_and_conditions() -> None:
    text = " ".join(render(table_data(*small_suite(), SPEC), SPEC, "md").split())
    assert "mean ± sample standard deviation (ddof = 1) over 2 seeds" in text
    assert "best (oracle): at the epoch with the highest test accuracy, which only an oracle" in text
    assert "Test split of 360 images, labels not corrupted; 4 groups (a, b, c, d); backbone tiny-cnn; 4 epochs." in text
    assert "nominal rate 0.5, measured 0.450 to 0.452 over seeds" in text
    bare = replace(SPEC, spread="none", protocols=("last_k",), bold_best=False, underline_second=False)
    text = " ".join(render(table_data(*small_suite(), bare), bare, "md").split())
    assert "±" not in text and "Bold" not in text and "oracle" not in text
    assert "last 3: mean of the last 3 epochs" in text
    plan, records = small_suite()
    for record in records.values():
        record["cell"]["training"]["epochs"] = 2
    assert "last 2: mean of the last 2 epochs" in " ".join(render(table_data(plan, records, bare), bare, "md").split())


def test_footnotes_for_needs_and_networks() -> None:
    grid = build_grids(table_data(*small_suite(), SPEC), SPEC)[0]
    marks = {line.labels[0].text: line.labels[0].marks for line in grid.lines}
    assert marks == {"ERM": [], "Co-teaching": ["a", "b"], "DivideMix": ["b"]}
    assert grid.footnotes[:2] == [
        ("a", "is told the noise rate of the training labels (privileged information)"), ("b", "trains 2 networks"),
    ]  # fmt: skip


def test_unequal_seed_counts_show_n_in_every_cell() -> None:
    plan, records = one_block({"a": [0.9, 0.9, 0.9], "b": [0.8], "c": [0.7, None]})
    lines = build_grids(table_data(plan, records, SPEC), SPEC)[0].lines
    assert [line.cells[0].n for line in lines if line.labels[0].height] == ["n=3", "n=1", "n=1/2"]
    text = render(table_data(plan, records, SPEC), SPEC, "md")
    assert "over the seeds whose number n stands in each cell" in text and "90.0 ± 0.0 (n=3)" in text.replace("*", "")


def test_non_canonical_data_are_marked() -> None:
    plan, records = one_block({"a": [0.9, 0.9], "b": [0.8, 0.8]})
    records["digits/symmetric@0.5/a/1"]["data"]["canonical"] = False
    grid = build_grids(table_data(plan, records, SPEC), SPEC)[0]
    assert grid.heading_marks == [] and grid.footnotes == [("1", "non-canonical data (1 of 2 seeds)")]
    assert [line.cells[0].marks for line in grid.lines if line.labels[0].height] == [["1"], []]
    for record in records.values():
        record["data"]["canonical"] = False
    grid = build_grids(table_data(plan, records, SPEC), SPEC)[0]
    assert grid.heading_marks == ["†"] and grid.footnotes[0][1].startswith("non-canonical data")


def test_methods_that_saw_different_labels_are_reported() -> None:
    plan, records = one_block({"a": [0.9, 0.9], "b": [0.8, 0.8]})
    assert len(noise_notes(table_data(plan, records, SPEC).blocks[0])) == 1
    records["digits/symmetric@0.5/b/1"]["noise"]["sha256"] = "other labels"
    label, text = noise_notes(table_data(plan, records, SPEC).blocks[0])[-1]
    assert label == "" and text.startswith("Warning: methods saw different labels in symmetric@0.5, seed 1")


def test_methods_of_one_title_are_told_apart() -> None:
    plan, records = one_block({"erm": [0.9], "erm-long": [0.8]})
    plan["entries"][1]["title"] = "ERM"
    grid = build_grids(table_data(plan, records, SPEC), SPEC)[0]
    assert [line.labels[0].text for line in grid.lines if line.labels[0].height] == ["ERM (erm)", "ERM (erm-long)"]


def test_a_cell_outside_the_grid_of_the_plan_is_told() -> None:
    plan, records = one_block({"a": [0.9], "b": [0.8]})
    extra = make_entry("digits", "none", "a", 0)
    plan["entries"].append(extra)
    records[extra["id"]] = make_record(extra, (0.99,))
    grid = build_grids(table_data(plan, records, SPEC), SPEC)[0]
    assert ("1", "not in the suite") in grid.footnotes
    assert grid.lines[3].cells[1].value == "—"


def test_dense_shows_the_primary_protocol_alone() -> None:
    spec = TableSpec(dense=True, primary="selected").validate()
    grid = build_grids(table_data(*small_suite(), spec), spec)[0]
    assert [(line.labels[0].text, line.labels[1].text, line.labels[0].height) for line in grid.lines] == [
        ("ERM", "selected", 1), ("Co-teaching", "selected", 1), ("DivideMix", "selected", 1),
    ]  # fmt: skip


# -- formats -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fmt", FORMATS)
def test_golden(fmt: str) -> None:
    text = render(table_data(*small_suite(), SPEC), SPEC, fmt)
    path = GOLDEN / f"report.{fmt}"
    if os.environ.get("BENCH_REGENERATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
    assert path.read_bytes().decode() == text


def test_render_suite_gives_the_file_formats_and_ignores_the_order_of_records() -> None:
    plan, records = small_suite()
    texts = render_suite(plan, records, SPEC)
    assert list(texts) == ["md", "tex", "csv", "html"]
    assert texts == render_suite(plan, dict(reversed(records.items())), SPEC)


def test_unknown_format() -> None:
    with pytest.raises(ValueError, match="'latex'.*md, tex, csv, html, text"):
        render(table_data(*small_suite(), SPEC), SPEC, "latex")


def test_csv_holds_all_digits() -> None:
    plan, records = one_block({"a": [0.1, 0.2]})
    rows = list(csv.DictReader(io.StringIO(render(table_data(plan, records, SPEC), SPEC, "csv"))))
    assert len(rows) == 3 and rows[0] == {
        "dataset": "digits", "noise": "symmetric@0.5", "method": "a", "metric": "test_acc", "protocol": "last",
        "mean": repr(math.fsum([0.1, 0.2]) / 2), "spread": rows[0]["spread"], "n": "2", "n_planned": "2",
        "status": "done", "unit": "fraction", "reason": "",
    }  # fmt: skip
    assert float(rows[0]["spread"]) == pytest.approx(0.1 / math.sqrt(2))


@pytest.mark.parametrize("rows, columns, split_by", [("noise", "method", "dataset"), ("dataset", "noise", "method")])
def test_other_axes_render_and_hold_the_same_numbers(rows: str, columns: str, split_by: str) -> None:
    spec = TableSpec(rows=rows, columns=columns, split_by=split_by).validate()
    usual = csv.DictReader(io.StringIO(render_suite(*small_suite(), SPEC)["csv"]))
    other = csv.DictReader(io.StringIO(render_suite(*small_suite(), spec)["csv"]))

    def numbers(lines: Any) -> dict[tuple[str, ...], str]:
        keys = ("dataset", "noise", "method", "metric", "protocol")
        return {tuple(line[key] for key in keys): line["mean"] for line in lines if line["mean"]}

    assert numbers(usual) == numbers(other) != {}
    for fmt in FORMATS:
        assert render(table_data(*small_suite(), spec), spec, fmt)


def test_text_fits_the_terminal() -> None:
    plan, records = small_suite()
    for entry in list(plan["entries"][:6]):
        for number in range(4):
            more = entry | {"id": f"{entry['id']}/{number}", "noise": f"asymmetric@0.{number}"}
            plan["entries"].append(more)
            if entry["id"] in records:
                records[more["id"]] = records[entry["id"]]
    text = render_text(build_sheet(table_data(plan, records, SPEC), SPEC), max_width=90)
    assert max(map(len, text.splitlines())) <= 90
    heads = [line for line in text.splitlines() if line.startswith("Method")]
    assert len(heads) > 2  # the first block continues below itself, with its labels repeated
    assert all(f"asymmetric@0.{number}" in text for number in range(4))


# -- escaping ----------------------------------------------------------------------------------------------------------
NASTY = 'a|b & c_d 100% <script>alert("1")</script>\n$x^2$ {y} ~ \\end{table*} #1 [k] *s* `q` \x1b[31m λ 中 é “z” ‮'


def nasty_suite() -> tuple[dict[str, Any], dict[str, Any]]:
    """Nasty text wherever foreign text can enter: title, labels, needs, reasons, definitions, group names, backbone."""
    plan, records = small_suite()
    plan, records = copy.deepcopy(plan), copy.deepcopy(records)
    plan["suite"] = NASTY
    for entry in plan["entries"]:
        for axis in ("dataset", "noise", "method"):
            entry[axis] += NASTY
        entry["title"] += NASTY
        entry["needs"] = [NASTY]
        entry["skip"] = entry["skip"] and NASTY
    for record in records.values():
        record["reason"] = record["reason"] and NASTY
        record["cell"]["model"]["name"] = NASTY
        if record["status"] == "done":
            record["noise"]["definition"] = NASTY
            record["data"]["groups"] = record["data"]["groups"] and [NASTY, "b"]
    return plan, records


# fmt: off
OUR_TAGS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "section", "div", "table", "thead", "tbody", "tr",
    "th", "td", "p", "ul", "li", "code", "b", "u", "sup", "span",
}
# fmt: on


def rendered(suite: Callable[[], tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, str]:
    plan, records = suite()
    return render_suite(plan, records, SPEC)


class Tables(HTMLParser):
    """Collects, for each table, its rows as lists of (rowspan, colspan), and every tag that occurs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[tuple[int, int]]]] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        spans = dict(attrs)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append((int(spans.get("rowspan", 1)), int(spans.get("colspan", 1))))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def row_widths(table: list[list[tuple[int, int]]]) -> list[int]:
    widths = [0] * len(table)
    for number, row in enumerate(table):
        for rows, columns in row:
            for below in range(rows):
                widths[number + below] += columns
    return widths


@pytest.mark.parametrize(
    ("text", "md", "latex", "web"),
    [
        ("a|b", r"a\|b", r"a\textbar{}b", "a|b"),
        ("R&D", "R&amp;D", r"R\&D", "R&amp;D"),
        ("noise_rate", r"noise\_rate", r"noise\_rate", "noise_rate"),
        ("50%", "50%", r"50\%", "50%"),
        ("<b>", "&lt;b&gt;", r"\textless{}b\textgreater{}", "&lt;b&gt;"),
        ("two\n lines\x1b", "two lines", "two lines", "two lines"),
        ("[*]", r"\[\*\]", "{[}{*}{]}", "[*]"),
        ("\\x{y}", r"\\x{y}", r"\textbackslash{}x\{y\}", r"\x{y}"),
        ('"$τ$"', r'"\$τ\$"', r"''\$$\tau$\$''", "&quot;$τ$&quot;"),
        ("中", "中", "{[}U+4E2D{]}", "中"),
    ],
)
def test_escaping(text: str, md: str, latex: str, web: str) -> None:
    assert (escape.markdown(text), escape.tex(text), escape.web(text)) == (md, latex, web)


def test_at_signs_in_markdown_labels_do_not_become_mail_links() -> None:
    assert escape.markdown_label("symmetric@0.5") == "`symmetric@0.5`"
    assert escape.markdown_label("a`b@0.5") == r"a\`b@0.5"


@pytest.mark.parametrize("suite", [small_suite, nasty_suite])
def test_html_tables_are_rectangular_and_hold_no_foreign_tags(suite: Any) -> None:
    page = Tables(rendered(suite)["html"])
    assert [set(row_widths(table)) for table in page.tables] == [{5}, {5}]
    assert page.tags <= OUR_TAGS


def markdown_cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line)) - 1


@pytest.mark.parametrize("suite", [small_suite, nasty_suite])
def test_markdown_tables_are_rectangular_and_hold_no_foreign_tags(suite: Any) -> None:
    text = rendered(suite)["md"]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 * (2 + 9) and {markdown_cells(row) for row in rows} == {5}
    assert set(re.findall(r"</?(\w+)", text)) <= {"br", "sup", "ins"}
    assert "\x1b" not in text and "\u202e" not in text


def test_csv_survives_nasty_text() -> None:
    rows = list(csv.DictReader(io.StringIO(render_suite(*nasty_suite(), SPEC)["csv"])))
    assert len(rows) == len(list(csv.DictReader(io.StringIO(render_suite(*small_suite(), SPEC)["csv"]))))
    assert all(None not in row and "\n" not in "".join(row.values()) for row in rows)


def test_terminal_text_holds_no_control_characters() -> None:
    plan, records = nasty_suite()
    text = render(table_data(plan, records, SPEC), SPEC, "text")
    assert all(character.isprintable() or character == "\n" for character in text)


@given(label=st.text(max_size=20))
@settings(max_examples=50, deadline=None)
def test_any_label_leaves_the_tables_in_shape(label: str) -> None:
    plan, records = one_block({"a": [0.9], "b": [0.8]})
    for entry in plan["entries"][:1]:
        entry["title"] = label
    texts = render_suite(plan, records, SPEC)
    rows = [line for line in texts["md"].split("\n") if line.startswith("|")]
    assert {markdown_cells(row.replace("\\\\", "")) for row in rows} == {3}
    assert [set(row_widths(table)) for table in Tables(texts["html"]).tables] == [{3}]
    assert len(list(csv.reader(io.StringIO(texts["csv"])))) == 7
    assert texts["tex"].count("{") == texts["tex"].count("}") or "{" in label or "}" in label


# -- LaTeX, really compiled --------------------------------------------------------------------------------------------
def compile_tex(folder: Path, name: str) -> str:
    """Compile with pdflatex and return its log; skips where the tools are absent."""
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-extra)")
    for needed in ("booktabs.sty", "multirow.sty"):
        if subprocess.run(["kpsewhich", needed], capture_output=True).returncode:
            pytest.skip(f"LaTeX package {needed} is not installed (Debian: texlive-latex-extra)")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
    environment = os.environ | {"max_print_line": "999"}
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, env=environment)
    log = (folder / f"{name}.log").read_text(errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert (folder / f"{name}.pdf").exists()
    return log


@pytest.mark.parametrize("suite", [small_suite, nasty_suite])
def test_latex_compiles_alone(suite: Any, tmp_path: Path) -> None:
    (tmp_path / "table.tex").write_text(rendered(suite)["tex"])
    assert "Overfull \\hbox" not in compile_tex(tmp_path, "table")


def test_latex_compiles_by_input_and_a_wide_table_is_shrunk(tmp_path: Path) -> None:
    plan, records = small_suite()
    for entry in list(plan["entries"][:6]):
        for number in range(8):
            more = entry | {"id": f"{entry['id']}/{number}", "noise": f"asymmetric@0.{number}"}
            plan["entries"].append(more)
            if entry["id"] in records:
                records[more["id"]] = records[entry["id"]]
    (tmp_path / "table.tex").write_text(render_suite(plan, records, SPEC)["tex"])
    (tmp_path / "nasty.tex").write_text(render_suite(*nasty_suite(), SPEC)["tex"])
    (tmp_path / "paper.tex").write_text(
        r"\documentclass[twocolumn]{article}\usepackage{booktabs,multirow,graphicx}\begin{document}Before."
        r"\input{table}\clearpage\input{nasty}After, Table~\ref{tab:small-digits}.\end{document}"
    )
    log = compile_tex(tmp_path, "paper")
    assert "Overfull \\hbox" not in log and "multiply defined" not in log


# -- purity ------------------------------------------------------------------------------------------------------------
SCRIPT = """
import sys, hashlib
sys.path[:0] = [{root!r}, {tests!r}]
import bench.report
assert not [m for m in sys.modules if m.startswith("bench.report.")], "importing bench.report loads its modules"
from bench.report import TableSpec, render_suite, render, table_data
{suite}
texts = render_suite(plan, records, TableSpec())
texts["text"] = render(table_data(plan, records, TableSpec()), TableSpec(), "text")
heavy = {{"torch", "ray", "mlflow", "numpy", "pandas", "matplotlib", "faiss", "sklearn", "pydantic"}} & set(sys.modules)
assert not heavy, heavy
print(hashlib.sha256("".join(texts.values()).encode()).hexdigest())
"""


def test_tables_load_nothing_heavy_and_do_not_depend_on_hash_seeds() -> None:
    plan, records = small_suite()
    suite = f"import json\nplan = json.loads({json.dumps(plan)!r})\nrecords = json.loads({json.dumps(records)!r})"
    code = SCRIPT.format(root=str(ROOT), tests=str(Path(__file__).parent), suite=suite)
    digests = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


# -- figures -----------------------------------------------------------------------------------------------------------
def test_accuracy_curves_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    before = dict(matplotlib.rcParams)
    plan, records = small_suite()
    first = accuracy_curves(records, plan, tmp_path / "curves.v1")
    second = accuracy_curves(dict(reversed(records.items())), plan, tmp_path / "again")
    assert [path.name for path in first] == ["curves.v1.png", "curves.v1.svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert first[0].read_bytes().startswith(b"\x89PNG") and b"<svg" in first[1].read_bytes()
    assert b"dc:date" not in first[1].read_bytes()
    assert dict(matplotlib.rcParams) == before


def curves_figure(records: Any, plan: Any) -> Any:
    from bench.report.plots.curves import draw, sheets
    from bench.report.plots.source import Source

    return draw(sheets(Source.of(plan, records), {})[0])


def test_curves_are_the_mean_and_range_of_finished_seeds() -> None:
    pytest.importorskip("matplotlib")
    plan, records = small_suite()
    figure: Any = curves_figure(records, plan)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["digits, none", "digits, symmetric@0.5", *["spurious-digits, uniform-flip@0.3"] * 2]
    names = [axes.get_ylabel() for axes in figure.axes]
    assert names == ["test accuracy (%)", "", "test accuracy (%)", "worst group (%)"]
    erm = figure.axes[0].lines[0]
    # 90 and 94 after the last epoch, rising in quarters over the four epochs: mean 92
    assert list(erm.get_xdata()) == [1, 2, 3, 4]
    assert list(erm.get_ydata()) == pytest.approx([23, 46, 69, 92])
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert (min(band[:, 1]), max(band[:, 1])) == pytest.approx((22.5, 94))
    assert list(figure.axes[3].lines[0].get_ydata()) == pytest.approx([10.5, 21, 31.5, 42])
    assert [len(axes.lines) for axes in figure.axes] == [2, 3, 2, 2]  # skipped and diverged methods are not drawn


def test_the_figure_tells_what_is_absent_and_prints_labels_as_they_stand() -> None:
    pytest.importorskip("matplotlib")
    plan, records = small_suite()
    foot = curves_figure(records, plan).texts[0].get_text()
    assert "bands: smallest to largest seed" in foot
    assert "Absent in digits, none: Co-teaching (2 of 2 seeds skipped)." in foot
    assert "Co-teaching (1 of 2 seeds not run); DivideMix (1 of 2 seeds failed)." in foot
    assert "Co-teaching (2 of 2 seeds not converged)." in foot
    nasty = curves_figure(*reversed(nasty_suite()))
    labels = [text.get_text() for text in nasty.legends[0].get_texts()]
    assert len(labels) == 3 and all(r"\$x^2\$" in label and "\n" not in label for label in labels)
    plan["entries"][0]["title"] = "_ERM"
    assert [text.get_text() for text in curves_figure(records, plan).legends[0].get_texts()][0] == " _ERM"


def test_curves_of_diverged_cells_are_not_drawn() -> None:
    pytest.importorskip("matplotlib")
    plan, records = small_suite()
    records["digits/none/erm/1"]["status"] = "diverged"
    figure: Any = curves_figure(records, plan)
    assert list(figure.axes[0].lines[0].get_ydata()) == pytest.approx([22.5, 45, 67.5, 90])


def test_figures_of_suites_that_have_not_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plan, _ = small_suite()
    assert all(path.stat().st_size for path in accuracy_curves({}, plan, tmp_path / "none"))
    with pytest.raises(ValueError, match="'small' has no planned cells"):
        accuracy_curves({}, plan | {"entries": []}, tmp_path / "empty")
    assert not list(tmp_path.glob("empty*"))


def test_many_methods_are_spread_over_figures_with_the_first_in_each(tmp_path: Path) -> None:
    from bench.report.plots.curves import sheets
    from bench.report.plots.source import LINES, Source

    names = [f"m{i:02d}" for i in range(2 * LINES)]
    entries = [{"id": str(i), "dataset": "d", "noise": "n", "method": name, "title": name, "seed": 0, "skip": None,
                "needs": [], "networks": 1} for i, name in enumerate(names)]  # fmt: skip
    plan = {"suite": "s", "entries": entries}
    parts = [list(sheet.methods) for sheet in sheets(Source.of(plan, {}), {})]
    assert all(part[0] == "m00" and len(part) <= LINES for part in parts)
    assert sorted({name for part in parts for name in part}) == names and sum(map(len, parts)) == len(names) + len(parts) - 1
    (alone,) = sheets(Source.of({"suite": "s", "entries": entries[:LINES]}, {}), {})
    assert list(alone.methods) == names[:LINES]
