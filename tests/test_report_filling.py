"""Layouts filled from records: cells, averages, published numbers beside, matching, and mistakes in the table section.

The golden files are `tests/golden/filled/*`; `BENCH_REGENERATE_GOLDEN=1 pytest tests/test_report_filling.py` writes them
anew.
"""

from __future__ import annotations

import copy
import csv
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report import NASTY, OUR_TAGS, Tables, make_entry, make_record, markdown_cells, row_widths
from test_report_papers import compile_tex

from bench.report import TableSpec, escape, render, table_data
from bench.report.reading import Place
from bench.report.schema import FOLDER, names, packaged, parse_layout
from bench.report.spec import FORMATS, SpecError
from bench.suite import load_suite
from bench.yaml_source import SuiteError

GOLDEN = Path(__file__).parent / "golden" / "filled"

INLINE = """
layout:
  rows: [erm, gce, ---, {label: Ours, method: llc-dro, venue: "2026"}]
  sub_rows: [{label: Best, metric: best}, {label: Last, metric: last}]
  marks: {best: true, second: true, margin: 1.0}
  columns:
    - label: Digits
      dataset: digits
      columns: [{label: clean, noise: none}, {label: sym. 50%, noise: symmetric@0.5}, {label: Avg, average: unrounded}]
    - {label: Groups, dataset: spurious-digits, noise: uniform-flip@0.3}
  values: {best: [test_acc, best_oracle], last: [test_acc, last]}
"""
PAPER = "{layout: scanmix-table1, published: true}"
TWIN = """
layout: llc-dro-table1
rows: {dividemix-improved: loss}
columns:
  - {match: {dataset: waterbirds, rate: 0.25}, take: {dataset: spurious-digits}}
  - {match: {dataset: waterbirds, rate: 0.4}, take: {dataset: spurious-digits, noise: uniform-flip@0.3}}
published: true
"""

Suite = tuple[dict[str, Any], dict[str, Any]]


def suite_of(values: dict[tuple[str, str, str], list[Any]]) -> Suite:
    """A plan and its records: (data set, noise, method) -> one value for each seed, as `make_record` takes them."""
    entries, records = [], {}
    for (dataset, noise, method), seeds in values.items():
        for seed, value in enumerate(seeds):
            entries.append(make_entry(dataset, noise, method, seed))
            if value == "skipped":
                entries[-1]["skip"] = "no need"
            elif value != "missing":
                records[entries[-1]["id"]] = make_record(entries[-1], value)
    return {"schema": 1, "suite": "filled", "entries": entries}, records


def inline_suite() -> Suite:
    noises = (("digits", "none"), ("digits", "symmetric@0.5"), ("spurious-digits", "uniform-flip@0.3"))
    values: dict[tuple[str, str, str], list[Any]] = {}
    for start, method in ((0.8, "erm"), (0.85, "gce"), (0.9, "llc-dro")):
        for step, (dataset, noise) in enumerate(noises):
            values[dataset, noise, method] = [(start - 0.05 * step,), (start - 0.05 * step + 0.01,)]
    values["digits", "symmetric@0.5", "gce"] = [(0.8,), "missing"]
    values["spurious-digits", "uniform-flip@0.3", "erm"] = ["diverged", "diverged"]
    return suite_of(values)


def paper_suite() -> Suite:
    """CIFAR-10 as ScanMix has it, two rates and asymmetric noise; DivideMix and ScanMix alone."""
    return suite_of({
        ("cifar10", "symmetric@0.2", "dividemix"): [(0.93,), (0.95,)],
        ("cifar10", "symmetric@0.5", "dividemix"): [(0.90,), "failed"],
        ("cifar10", "asymmetric@0.49", "dividemix"): [(0.80,), (0.80,)],
        ("cifar10", "symmetric@0.2", "scanmix"): [(0.931,), (0.951,)],
        ("cifar10", "symmetric@0.5", "scanmix"): [(0.94,), (0.94,)],
        ("cifar10", "asymmetric@0.49", "scanmix"): ["diverged", "diverged"],
    })  # fmt: skip


def twin_suite() -> Suite:
    values: dict[tuple[str, str, str], list[Any]] = {}
    for method in ("erm", "loss", "llc-dro"):
        for noise, accuracy in (("uniform-flip@0.25", 0.8), ("uniform-flip@0.3", 0.7)):
            values["spurious-digits", noise, method] = [(accuracy, accuracy - 0.2), (accuracy + 0.02, accuracy - 0.1)]
    values["spurious-digits", "uniform-flip@0.3", "loss"] = ["diverged", "diverged"]
    return suite_of(values)


SUITES = {"inline": (INLINE, inline_suite), "paper": (PAPER, paper_suite), "twin": (TWIN, twin_suite)}


def spec_of(text: str, **more: Any) -> TableSpec:
    return TableSpec.from_dict({**yaml.safe_load(text), **more})


def filled(text: str, suite: Suite, fmt: str, **more: Any) -> str:
    spec = spec_of(text, **more)
    return render(table_data(*suite, spec), spec, fmt)


def lines_of(text: str, suite: Suite, **more: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(filled(text, suite, "csv", **more))))


def cells(text: str, suite: Suite, **more: Any) -> dict[tuple[str, str], list[str]]:
    """Cells of the Markdown table by the labels of their lines, without the marks of footnotes."""
    found, above = {}, ""
    for line in filled(text, suite, "md", **more).split("\n"):
        if line.startswith("|") and "---" not in line and "<br>" not in line:
            first, second, *rest = [re.sub(r"<su[bp]>.*?</su[bp]>", "", cell).strip() for cell in line.split("|")[1:-1]]
            above = first or above
            found[above, second] = rest
    return found


# -- what stands in a cell ---------------------------------------------------------------------------------------------
def test_the_example_of_the_documentation_has_at_most_twelve_lines_and_is_this_one() -> None:
    import bench.report.schema

    example = (bench.report.schema.__doc__ or "").split("\n\n")[1]
    assert len(example.strip().split("\n")) <= 12
    own = yaml.safe_load(INLINE)["layout"]
    documented = yaml.safe_load(example)["layout"]
    assert documented.keys() - {"decimals"} == own.keys() and parse_layout(documented, ())


def test_means_averages_and_marks_of_an_inline_layout_by_hand() -> None:
    found = cells(INLINE, inline_suite())
    # Ours, last: 0.90 and 0.91; 0.85 and 0.86; their means for each seed 0.875 and 0.885
    assert found["Ours", "Last"] == ["**90.5** ± 0.7", "**85.5** ± 0.7", "**88.0** ± 0.7", "**80.5** ± 0.7"]
    # best (oracle) is 3 points above in these records
    assert found["Ours", "Best"][0] == "**93.5** ± 0.7"
    assert found["ERM", "Last"] == ["80.5 ± 0.7", "75.5 ± 0.7", "78.0 ± 0.7", "not converged"]
    # an average with an absent seed is refused
    assert found["gce", "Last"] == ["<ins>85.5</ins> ± 0.7", "80.0 (n=1/2)", "—", "75.5 ± 0.7"]
    text = filled(INLINE, inline_suite(), "md")
    assert "an average needs all its columns" in text
    assert "Avg: mean of the unrounded values of the columns to its left below the same head." in text
    assert "Bold: best of a column (within 1 point of the best); underlined: second best, Best and Last apart" in text
    assert "Best: accuracy on the test split, at the epoch with the highest test accuracy" in text


def test_an_average_of_rounded_values_is_that_of_the_printed_ones() -> None:
    values: dict[tuple[str, str, str], list[Any]] = {
        ("digits", "none", "erm"): [(0.90049,)], ("digits", "symmetric@0.5", "erm"): [(0.80049,)],
        ("digits", "asymmetric@0.4", "erm"): [(0.70049,)],
    }  # fmt: skip
    section = "{layout: {decimals: 1, rows: [erm], columns: [%s, {label: Avg, average: KIND}]}, digits: 2}"
    heads = ", ".join(f"{{label: {n}, dataset: digits, noise: {n}}}" for _, n, _ in values)
    lines = {kind: lines_of((section % heads).replace("KIND", kind), suite_of(values)) for kind in ("rounded", "unrounded")}
    # 90.05, 80.05 and 70.05 are printed: their mean is 80.05; that of the values themselves is 80.049
    assert float(lines["rounded"][-1]["value"]) == pytest.approx(0.8005, abs=1e-12)
    assert float(lines["unrounded"][-1]["value"]) == pytest.approx(0.80049, abs=1e-12)


def test_published_numbers_and_differences_stand_beside_measured_ones() -> None:
    found = cells(PAPER, paper_suite())
    # last is the mean of the last epochs in this paper, one point below in these records: 92 and 94, published 95.7
    assert found["DivideMix", "Last"][0] == "**93.0** ± 1.4 (95.7, −2.7)"
    assert found["DivideMix", "Best"][0] == "**97.0** ± 1.4 (96.1, +0.9)"
    assert found["DivideMix", "Best"][1] == "93.0 (n=1/2) (94.6, −1.6)"
    assert found["DivideMix", "Best"][5] == "83.0 ± 0.0 (83.7\\*, −0.7)"
    assert found["ScanMix", "Best"][5] == "not converged (88.7)"
    # a method that the suite lacks has the published numbers, which are marked and do not compete
    assert found["MixUp", "Best"][0] == "*95.6*" and found["MixUp", "Best"][4] == "–"
    text = filled(PAPER, paper_suite(), "md")
    assert "published number (ScanMix, Table 1), not run here" in text and "measured minus published" in text
    own = [line for line in lines_of(PAPER, paper_suite()) if line["dataset"] == "cifar10"]
    lines = {(line["row"], line["metric"], line["noise"], line["rate"]): line for line in own}
    line = lines["scanmix", "last", "symmetric", "0.5"]
    assert (line["published"], line["difference"], line["protocol"]) == ("93.9", "-0.9", "last_k")
    assert lines["scanmix", "best", "asymmetric", "0.49"]["status"] == "diverged"
    assert lines["mixup", "best", "symmetric", "0.2"]["source"] == "published"


def test_without_published_there_is_no_number_of_the_paper_in_measured_rows() -> None:
    found = cells(PAPER, paper_suite(), published=False)
    assert found["DivideMix", "Last"][0] == "**93.0** ± 1.4" and "(" not in "".join(found["ScanMix", "Best"])


def test_a_twin_on_other_data_is_not_compared_and_says_so() -> None:
    text = filled(TWIN, twin_suite(), "md")
    assert "run on spurious-digits" in text and "not of spurious-digits: not to be compared" in text
    assert "run on spurious-digits, uniform-flip@0.3" in text and "difference" not in text
    # 0.80 and 0.82 at the epoch selected on validation data, one point above in these records
    assert "82.0 ± 1.4 (83.15)" in filled(TWIN, twin_suite(), "md", digits=1).replace("*", "")


def test_one_cell_says_not_converged_for_both_columns_unless_their_published_numbers_differ() -> None:
    plan, records = twin_suite()
    merged = '<td class="none" colspan="2">not converged'
    assert filled(TWIN, (plan, records), "html").count(merged) == 1  # as in the paper, which prints no number either
    for entry in plan["entries"]:
        if entry["noise"] == "uniform-flip@0.3":
            records[entry["id"]] = make_record(entry, "diverged")
    assert filled(TWIN, (plan, records), "html").count(merged) == 1
    assert filled(TWIN, (plan, records), "html", published=False).count(merged) == 3


def test_on_data_that_are_not_canonical_nothing_is_compared() -> None:
    plan, records = paper_suite()
    for record in records.values():
        record["data"] = {**record["data"], "canonical": False}
    assert cells(PAPER, (plan, records))["DivideMix", "Last"][0] == "**93.0** ± 1.4 (95.7)"
    assert "†" in filled(PAPER, (plan, records), "md")


def test_under_another_noise_or_on_a_part_of_the_images_nothing_is_compared() -> None:
    rule = "{match: {dataset: cifar10, rate: 0.2}, take: {noise: asymmetric@0.49}}"
    swap = f"{{layout: scanmix-table1, published: true, columns: [{rule}]}}"
    found = cells(swap, paper_suite())
    # the columns that are the paper's own keep their differences
    assert found["DivideMix", "Best"][:2] == ["83.0 ± 0.0 (96.1)", "93.0 (n=1/2) (94.6, −1.6)"]
    text = filled(swap, paper_suite(), "md")
    assert "Published numbers are of the paper's noise, not of asymmetric@0.49: not to be compared." in text
    assert "measured minus published" in text
    plan, records = paper_suite()
    for record in records.values():
        record["cell"]["protocol"]["train_fraction"] = 0.1
    assert cells(PAPER, (plan, records))["DivideMix", "Last"][0] == "**93.0** ± 1.4 (95.7)"
    assert not any(line["difference"] for line in lines_of(PAPER, (plan, records)))
    text = filled(PAPER, (plan, records), "md")
    assert "Published numbers are of the paper's training images, not of a part of them: not to be compared." in text
    assert "measured minus published" not in text


def test_the_average_of_a_part_of_the_images_is_not_compared() -> None:
    noises = ("symmetric@0.2", "symmetric@0.5", "symmetric@0.8", "symmetric@0.9", "asymmetric@0.4")
    plan, records = suite_of({("cifar10", noise, "erm"): [(0.8,)] for noise in noises})
    section = "{layout: mtadcs-table1, published: true}"

    def average() -> dict[str, str]:
        lines = lines_of(section, (plan, records))
        return next(x for x in lines if (x["suite_method"], x["metric"], x["status"]) == ("erm", "avg", "done"))

    assert average()["difference"]
    next(iter(records.values()))["cell"]["protocol"]["train_fraction"] = 0.1
    assert average()["published"] and not average()["difference"]


def webvision_suite() -> Suite:
    """Four accuracies that all differ: top-1 and top-5 on two test sets."""
    names = ("webvision", "webvision50")
    plan, records = suite_of({(name, "none", method): [(0.8,)] for name in names for method in ("erm", "elr")})
    for step, record in enumerate(records.values()):
        for place, metric in enumerate(("test_acc", "test_top5_acc", "test2_acc", "test2_top5_acc")):
            record["metrics"].update({f"{metric}_{p}": 0.5 + 0.1 * place + 0.01 * step for p in ("last", "best_oracle")})
    return plan, records


def test_each_column_has_its_own_number_in_parentheses() -> None:
    suite = webvision_suite()
    text = filled("{layout: odd-table4}", suite, "md")
    assert "50.0 (60.0)" in text and "70.0 (80.0)" in text
    (top1, top5) = [x for x in lines_of("{layout: odd-table4}", suite) if (x["row"], x["dataset"]) == ("erm", "imagenet-val")]
    assert (top1["suite_metric"], top5["suite_metric"], top5["value"]) == ("test2_acc", "test2_top5_acc", "0.8")
    # the mark is that of top-1, which alone competes
    plan, records = suite
    plan["entries"].append(make_entry("webvision", "none", "odd", 0))
    records["webvision/none/odd/0"] = records["webvision50/none/elr/0"]
    assert [x["mark"] for x in lines_of("{layout: odd-table4}", suite) if x["row"] == "odd"] == ["best", "", "best", ""]


@pytest.mark.parametrize("layout", ["odd-table4", "mtadcs-table2b", "llc-dro-table3"])
def test_the_caption_names_each_value_once(layout: str) -> None:
    section = f"{{layout: {layout}, rows: {{co-teaching: erm}}}}" if layout == "llc-dro-table3" else f"{{layout: {layout}}}"
    (caption,) = [line for line in filled(section, webvision_suite(), "md").split("\n") if line.startswith("Percent")]
    names = re.findall(r"(?<=\. )([^:.]+): (?:accuracy on|share of|top-5 accuracy on)", caption)
    assert len(names) == len(set(names)) == 4, names


def test_what_is_said_of_a_published_number_is_not_said_of_a_measured_one() -> None:
    noise = "semantic-densenet"
    suite = suite_of({("cifar10", noise, "dividemix"): [(0.9,)], ("cifar10", noise, "scanmix"): [(0.8,)]})
    public = "from a run of the public code"
    assert public not in filled("{layout: scanmix-table2}", suite, "md")
    beside = filled("{layout: scanmix-table2, published: true}", suite, "md")
    assert "93.00 (84.57\\*, +8.43)" in beside.replace("**", "") and public in beside and "DivideMix<sup>\\*" not in beside
    quoted = suite_of({("cifar10", noise, "scanmix"): [(0.8,)]})
    assert "DivideMix<sup>\\*," in filled("{layout: scanmix-table2}", quoted, "md")
    # a mark about the method stays
    assert "not the original DivideMix" in filled(TWIN, twin_suite(), "md", published=False)


@pytest.mark.parametrize(
    ("short", "name", "value"), [("best", "best_oracle", "97.1"), ("last10", "last_k", "93.1"), ("last", "last", "94.1")]
)
def test_another_protocol_holds_for_all_values(short: str, name: str, value: str) -> None:
    spec = spec_of("{layout: scanmix-table1}").with_protocols([short])
    data = table_data(*paper_suite(), spec)
    lines = [x for x in csv.DictReader(io.StringIO(render(data, spec, "csv"))) if x["row"] == "scanmix" and x["protocol"]]
    assert {x["protocol"] for x in lines} == {name}
    assert re.sub(r"\*", "", render(data, spec, "md")).count(f"{value} ± 1.4") == 2  # Best and Last alike


def test_published_needs_the_layout_of_a_paper() -> None:
    assert spec_of("{layout: scanmix-table1}").with_published().filling == spec_of(PAPER).filling
    for spec in (TableSpec(), spec_of(INLINE)):
        with pytest.raises(SpecError, match="need the layout of a paper"):
            spec.with_published()


def test_a_method_under_another_label_is_found_by_its_record_when_it_is_the_only_one() -> None:
    plan, records = suite_of({("cifar10", "symmetric@0.2", "my own"): [(0.9,)], ("cifar10", "symmetric@0.2", "erm"): [(0.8,)]})
    for identity, record in records.items():
        record["cell"]["method"] = {"name": "scanmix" if "my own" in identity else "erm"}
    found = lines_of("{layout: scanmix-table1}", (plan, records))
    assert {line["row"] for line in found if line["source"] == "measured"} == {"scanmix", "erm"}


def test_conventions_behind_a_noise_label_do_not_hide_it() -> None:
    plan, records = suite_of({("cifar10", "symmetric@0.2", "erm"): [(0.9,)]})
    plan["entries"][0]["noise"] += " (own_class=False)"
    suite = plan, records
    lines = lines_of("{layout: scanmix-table1}", suite)
    assert [line["value"] for line in lines if line["row"] == "erm" and line["value"]] == ["0.93", "0.89"]


def test_a_noise_of_one_rate_may_be_called_by_its_kind_and_a_data_set_may_have_an_option() -> None:
    plan, records = suite_of({("clothing1m", "none", "erm"): [(0.7,)], ("cifar10", "none", "scanmix"): [(0.9,)]})
    plan["entries"][0]["dataset"] = "clothing1m (train=clean)"
    plan["entries"][1]["noise"] = "semantic-densenet"
    lines = [x for x in lines_of("{layout: scanmix-table2}", (plan, records)) if x["suite_noise"] == "semantic-densenet"]
    assert [(x["row"], x["rate"]) for x in lines if x["value"]] == [("scanmix", "0.32")]
    section = """
    layout: odd-table5
    rows: {erm clean: erm}
    columns: [{match: {setting: clean}, take: {dataset: clothing1m (train=clean)}}]
    published: true
    """
    assert "run on" not in filled(section, (plan, records), "md")
    assert cells(section, (plan, records))["ERM", "clean"] == ["70.0 (75.2, −5.2)"]


# -- mistakes ----------------------------------------------------------------------------------------------------------
FULL = """
layout:
  title: All words
  paper: scanmix
  table: table1
  caption: [one, two]
  decimals: 2
  values: {best: [test_acc, best], last: [test_acc, last10], top5: test_top5_acc}
  noises: {symmetric: [uniform-flip]}
  marks: {best: true, second: false, margin: 0.5, within: group, printed: [{method: erm, rate: 0.2}]}
  footnotes: {"*": starred}
  starred: [{mark: "*", method: erm, dataset: cifar10, noise: symmetric, rate: 0.2, setting: x, metric: best}]
  sub_rows: [{label: Best, metric: best}, {label: Last, metric: last}]
  blocks:
    - heading: first
      stub: [[Data set, Method], ""]
      rows:
        - {label: ERM, name: one, method: erm, setting: x, venue: here, mark: "*", published_mark: "*", note: text, ranked: true}
        - ---
        - gce
      columns:
        - label: CIFAR-10
          dataset: cifar10
          take: {dataset: digits, noise: none}
          columns:
            - {label: 20%, name: low, noise: symmetric, rate: 0.2, beside: top5, beside_value: test_acc, value: [test_acc, last]}
            - {label: Avg, average: {mean: rounded, of: [low]}}
title: heading
rows: {one: erm}
columns:
  - match: {dataset: cifar10, noise: symmetric, rate: 0.2, method: gce, metric: best}
    take: {dataset: d, noise: n, value: test_acc}
values: {best: [test_acc, last]}
published: true
protocols: last
spread: none
digits: 2
"""


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Every key of every mapping in plain data."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*at, key)
            yield from places(inner, (*at, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from places(inner, (*at, i))


def renamed(value: Any, at: Place) -> Any:
    """A copy with an x behind one key."""
    top = copy.deepcopy(value)
    inner = top
    for part in at[:-1]:
        inner = inner[part]
    items = [(f"{key}x" if key == at[-1] else key, item) for key, item in inner.items()]
    inner.clear()
    inner.update(items)
    return top


def test_the_section_with_every_word_is_understood() -> None:
    spec = spec_of(FULL)
    assert spec.filling is not None and spec.filling.protocol == "last" and spec.digits == 2
    words = {str(place[-1]) for place in places(yaml.safe_load(FULL))}
    from bench.report.schema import BLOCK, COLUMN, ROW, SUB_ROW, TOP
    from bench.report.spec import FILLING_FIELDS

    assert {*TOP, *BLOCK, *COLUMN, *ROW, *SUB_ROW, *FILLING_FIELDS} <= words


@pytest.mark.parametrize("place", list(places(yaml.safe_load(FULL))), ids=lambda place: ".".join(map(str, place)))
def test_a_typo_in_any_field_is_named_with_its_place_and_the_nearest_word(place: Place) -> None:
    wrong = renamed(yaml.safe_load(FULL), place)
    if place == ("layout",):  # without a layout this is a table by axes
        with pytest.raises(ValueError, match="table.layoutx: unknown key 'layoutx'; did you mean 'layout'"):
            TableSpec.from_dict(wrong)
        return
    with pytest.raises(SpecError) as error:
        TableSpec.from_dict(wrong)
    key = str(place[-1])
    if place == ("layout", "footnotes", "*"):
        assert "the mark '*' is not explained; did you mean '*x'" in str(error.value)
        return
    assert error.value.path[-1] == f"{key}x" and error.value.path[:-1] == ("table", *place[:-1])
    assert f"{key}x'; did you mean " in str(error.value) and f"'{key}'" in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("layout: scanmix-table1", "layout: scanmix-tabel1", ["table.layout", "did you mean 'scanmix-table1'"]),
        ("layout: scanmix-table1", "layout: 3", ["table.layout", "expected the name of a layout or a mapping"]),
        ("published: true", "published: yes!", ["table.published", "expected true or false"]),
        ("published: true", "dense: true", ["table.dense", "does not go with a layout"]),
        ("published: true", "digits: two", ["table.digits", "'two'"]),
        ("published: true", "title: 3", ["table.title", "3"]),
        ("published: true", "spread: sem", ["table.spread", "std, none"]),
        ("published: true", "protocols: bets", ["table.protocols", "did you mean 'best'"]),
        ("published: true", "protocols: [last, best]", ["table.protocols", "expected one protocol"]),
        ("published: true", "rows: {scanmx: scanmix}", ["table.rows.scanmx", "did you mean 'scanmix'"]),
        ("published: true", "rows: [scanmix]", ["table.rows", "expected a mapping"]),
        ("published: true", "values: {last: [test_ac, last]}", ["table.values.last", "did you mean 'test_acc'"]),
        ("published: true", "values: {last: [test_acc, lst]}", ["table.values.last", "did you mean 'last'"]),
        ("published: true", "values: {last: []}", ["table.values.last", "expected [metric, protocol]"]),
        ("published: true", "columns: [{match: {dataset: cifar10}}]", ["table.columns[0]", "expected match"]),
        ("published: true", "columns: [{match: {dataset: cifar1O}, take: {}}]", ["columns[0].match", "did you mean 'cifar10'"]),
        ("published: true", "columns: [{match: {noise: asymmetric, rate: 0.9}, take: {}}]", ["all of them nowhere"]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_place_and_the_choices(old: str, new: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        spec_of(PAPER.replace(old, new))
    assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[erm, gce, ---", "[erm, erm, ---", ["layout.rows[1]", "two rows are called 'erm'"]),
        ("method: llc-dro", "ranked: 1, method: llc-dro", ["layout.rows[3].ranked", "true or false"]),
        ("label: Ours, method", "label: [a, b], method", ["layout.rows[3].label", "expected text"]),
        ("rows: [erm, gce", "rows: [{label: x}, gce", ["layout.rows[0]", "needs a method or a name"]),
        ("average: unrounded", "average: runded", ["columns[2].average", "did you mean 'rounded'"]),
        ("average: unrounded", "average: {of: [low]}", ["'low'", "unknown column"]),
        ("margin: 1.0", "margin: -1", ["layout.marks.margin", "-1"]),
        ("margin: 1.0", "within: row", ["layout.marks.within", "column, group"]),
        ("best: true,", "best: bold,", ["layout.marks.best", "'bold'"]),
        ("noise: none", "noise: [none]", ["columns[0].noise", "expected text"]),
        ("noise: none", "rate: true", ["columns[0].rate", "expected a fraction"]),
        ("{label: Best, metric: best}", "{metric: best}", ["layout.sub_rows[0]", "expected text for label"]),
        ("metric: best}", "metric: bset}", ["metric 'bset' needs a line", "did you mean 'best'"]),
        ("best: [test_acc, best_oracle]", "mean: test_acc", ["layout.values.mean", "no cell has the metric"]),
        ("  marks:", "  decimals: 9\n  marks:", ["layout.decimals", "0 to 6"]),
        ("  marks:", "  stub: [[a, b, c], d]\n  marks:", ["layout.stub[0]", "3 texts for 2 header rows"]),
        ("  marks:", "  blocks: []\n  marks:", ["layout.blocks", "not both"]),
        ("  columns:\n", "  colums:\n", ["layout.colums", "did you mean 'columns'"]),
        ("      columns: [{", "      beside: top5\n      columns: [{", ["columns[0].beside", "columns below"]),
        ("noise: none}", "noise: none, beside_value: test_acc}", ["columns[0].beside_value", "`beside`"]),
    ],
)  # fmt: skip
def test_a_wrong_layout_is_named_with_its_place(old: str, new: str, words: list[str]) -> None:
    assert old in INLINE
    with pytest.raises(SpecError) as error:
        spec_of(INLINE.replace(old, new))
    assert [word for word in words if word not in str(error.value)] == []


def test_blocks_of_unequal_width_are_refused() -> None:
    column = {"label": "a", "dataset": "digits"}
    with pytest.raises(SpecError, match="the same number of columns"):
        parse_layout({"rows": ["erm"], "blocks": [{"columns": [column]}, {"columns": [column, column]}]}, ())
    with pytest.raises(SpecError, match="needs columns"):
        parse_layout({"rows": ["erm"]}, ())


def test_a_label_that_the_suite_lacks_is_named_when_the_table_is_made() -> None:
    for section, words in (
        ("{layout: scanmix-table1, rows: {scanmix: scnmix}}", "table.rows.scanmix: the suite has no method 'scnmix'; did you"),
        (
            "{layout: scanmix-table1, columns: [{match: {dataset: cifar10}, take: {dataset: cifar-10}}]}",
            "table.columns[0].take.dataset: the suite has no dataset 'cifar-10'; did you mean 'cifar10'",
        ),
    ):
        with pytest.raises(SpecError) as error:
            filled(section, paper_suite(), "md")
        assert words in str(error.value)


def test_a_typo_in_a_suite_is_told_with_file_and_key(tmp_path: Path) -> None:
    suite = tmp_path / "small.yaml"
    suite.write_text("datasets: digits\nnoises: none\nmethods: [erm]\ntable:\n  layout: scanmix-table1\n  publishd: true\n")
    with pytest.raises(SuiteError) as error:
        load_suite(suite)
    assert "small.yaml:6: table.publishd: unknown key 'publishd'; did you mean 'published'" in str(error.value)


def test_packaged_layouts_name_their_file_in_errors() -> None:
    for name in names():
        value = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
        with pytest.raises(SpecError, match=f"{name}.yaml.titel: unknown key 'titel'; did you mean 'title'"):
            parse_layout({**value, "titel": "x"}, (f"{name}.yaml",))
        assert packaged(name).paper + "-" + packaged(name).table == name


# -- formats -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("name", SUITES)
def test_golden(name: str, fmt: str) -> None:
    section, suite = SUITES[name]
    text = filled(section, suite(), fmt)
    path = GOLDEN / f"{name}.{fmt}"
    if os.environ.get("BENCH_REGENERATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
    assert path.read_bytes().decode() == text


def test_filled_tables_compile(tmp_path: Path) -> None:
    for name, (section, suite) in SUITES.items():
        (tmp_path / f"{name}.tex").write_text(filled(section, suite(), "tex"))
        assert "Overfull \\hbox" not in compile_tex(tmp_path, name)


def nasty(value: str) -> dict[str, Any]:
    """A layout with a text wherever one can stand."""
    row = {"label": value, "name": "one", "method": "erm", "venue": value, "mark": value, "note": value}
    column = {"label": value, "dataset": "digits", "noise": "none"}
    return {
        "layout": {
            "rows": [row], "stub": [[value, value]], "footnotes": {value: value},
            "blocks": [
                {"heading": value, "columns": [{"label": value, "columns": [column, {"label": value, "average": "rounded"}]}]}
            ],
        },
        "title": value,
    }  # fmt: skip


def check_shape(value: str) -> dict[str, str]:
    spec = TableSpec.from_dict(nasty(value))
    data = table_data(*suite_of({("digits", "none", "erm"): [(0.9,)]}), spec)
    texts = {fmt: render(data, spec, fmt) for fmt in FORMATS}
    rows = [line for line in texts["md"].split("\n") if line.startswith("|")]
    assert {markdown_cells(row.replace("\\\\", "")) for row in rows} == {3}
    page = Tables(texts["html"])
    assert [set(row_widths(table)) for table in page.tables] == [{3}] and page.tags <= OUR_TAGS | {"sub", "h3"}
    assert all(character.isprintable() or character == "\n" for character in texts["text"])
    return texts


@given(value=st.text(min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_any_text_of_a_layout_leaves_the_tables_in_shape(value: str) -> None:
    check_shape(value)


def test_nasty_text_of_a_layout_compiles(tmp_path: Path) -> None:
    (tmp_path / "nasty.tex").write_text(check_shape(NASTY)["tex"])
    compile_tex(tmp_path, "nasty")


@pytest.mark.parametrize("title", ["Ours ✓", "".join(escape._TEX)], ids=["check mark", "all"])
def test_every_sign_with_a_command_of_its_own_compiles(title: str, tmp_path: Path) -> None:
    text = filled(INLINE, inline_suite(), "tex", title=title)
    assert "amssymb" in text and r"\providecommand\checkmark" in text
    assert "amssymb" not in filled(INLINE, inline_suite(), "tex")
    (tmp_path / "signs.tex").write_text(text)
    compile_tex(tmp_path, "signs")
