"""The numbers that figures are drawn from: hand-worked, without matplotlib."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plot_records import CLASSES, GROUPS, suite

from bench.report.plots import kinds, module_of
from bench.report.plots.confusion import chosen_classes, partners
from bench.report.plots.counts import binned
from bench.report.plots.losses import components, height, heights
from bench.report.plots.pareto import front, spread
from bench.report.plots.scatter import Panel as ScatterPanel
from bench.report.plots.scatter import centre
from bench.report.plots.sensitivity import ordered
from bench.report.plots.source import Absent, Band, Source, band, series, shares, watching
from bench.report.plots.spec import FigureSpec

FLIP = ("data", "flip@0.25")


def sheets(kind: str, source: Source | None = None, **options: Any) -> list[Any]:
    source = source or Source.of(*suite())
    spec = FigureSpec(kind, options)
    return module_of(kind).sheets(source, spec.filled())


def altered(change: Any) -> Source:
    plan, records = suite()
    change(plan, records)
    return Source.of(plan, records)


# -- bands -------------------------------------------------------------------------------------------------------------
def test_a_band_is_the_mean_and_range_of_what_is_there() -> None:
    assert band([1.0, None, 4.0], 3) == Band(2.5, 1.0, 4.0, 2, 3)
    assert band([None], 1) is None


def test_a_series_keeps_the_places_that_every_seed_has() -> None:
    found = series([{1: 2.0, 2: 4.0, 3: 0.0}, {2: 8.0, 1: 0.0}, {}], 3)
    assert found is not None
    assert (found.x, found.mean, found.low, found.high, found.n, found.n_planned) == (
        [1, 2],
        [1.0, 6.0],
        [0.0, 4.0],
        [2.0, 8.0],
        2,
        3,
    )


def test_names_are_shared_out_with_the_first_in_every_part() -> None:
    assert shares(list("abcdefg"), 4) == [list("abcd"), list("aefg")]
    assert shares(list("abcd"), 4) == [list("abcd")]


# -- what is drawn -----------------------------------------------------------------------------------------------------
def test_curves_count_epochs_from_1() -> None:
    (sheet,) = sheets("curves")
    curve = sheet.curves["data", "none", "test_acc"]["erm"]
    assert (curve.x, curve.n) == ([1, 2], 2) and curve.mean == pytest.approx([50, 85])
    assert [panel[1:] for row in sheet.rows for panel in row] == [
        (noise, key) for key in ("test_acc", "worst_group_acc") for noise in ("none", "flip@0.25")
    ]


def test_curves_of_another_quantity() -> None:
    def scored(plan: Any, records: Any) -> None:
        for record in records.values():
            record["curve"]["noise_auc"] = [None, 0.75]

    (sheet,) = sheets("curves", altered(scored), metric="noise_auc")
    assert [panel[1:] for row in sheet.rows for panel in row] == [("none", "noise_auc"), ("flip@0.25", "noise_auc")]
    curve = sheet.curves["data", "flip@0.25", "noise_auc"]["erm"]
    assert curve.x == [2] and curve.mean == pytest.approx([75])
    with pytest.raises(Absent, match="no finished record of .* has test_top5_acc"):
        sheets("curves", metric="test_top5_acc")


def test_the_foot_of_another_quantity_tells_who_lacks_it() -> None:
    def scored(plan: Any, records: Any) -> None:
        for identity, record in records.items():
            if identity not in ("erm/none/1", "mtadcs/none/0", "mtadcs/none/1"):
                record["curve"]["noise_auc"] = [None, 0.75]

    (sheet,) = sheets("curves", altered(scored), metric="noise_auc")
    assert sheet.foot[1:] == [
        "Absent in data, none: ERM (1 of 2 seeds without noise_auc); MTaDCS (2 of 2 seeds without noise_auc)."
    ]


def test_groups_and_their_worst() -> None:
    (sheet,) = sheets("groups")
    clean, noisy = sheet.rows
    assert sheet.reference == "erm" and len(clean) == 1  # without wrong labels there is no AUC
    accuracy, auc = noisy
    assert accuracy.groups == [*GROUPS, "worst group"]
    assert accuracy.bars["mtadcs"]["b/2"].mean == pytest.approx(55)
    assert accuracy.bars["mtadcs"]["worst group"].high == pytest.approx(60)
    assert auc.bars["erm"]["a/1"].mean == pytest.approx(75)


def test_confusion_in_per_cent_with_partners_adjacent() -> None:
    sheet = sheets("confusion")[1]
    assert (sheet.classes, sheet.pairs) == (["cat", "dog", "ship"], [("cat", "dog")])
    rows = sheet.matrices["erm"]  # rows and columns cat, dog, ship; the seeds have 1 and 2 dogs called cats
    assert rows[0] == pytest.approx([80, 0, 20]) and rows[1] == pytest.approx([15, 85, 0])
    bar = sheet.bars["erm"]["dog"]
    assert (bar.mean, bar.low, bar.high) == pytest.approx((85, 80, 90))


def test_a_class_without_test_images_has_no_shares() -> None:
    def change(plan: Any, records: Any) -> None:
        for record in records.values():
            record["detail"]["confusion_last"][1] = [0, 0, 0]

    sheet = sheets("confusion", altered(change))[0]
    assert sheet.matrices["erm"][sheet.classes.index("ship")] == [None] * 3


def test_partners_come_from_the_noise_where_it_has_any() -> None:
    names = list("abcd")
    asymmetric = [[0.6, 0.0, 0.0, 0.4], [0, 1, 0, 0], [0, 0.3, 0.7, 0], [0, 0, 0, 1]]
    assert partners(names, asymmetric) == [("a", "d"), ("b", "c")]
    symmetric = [[0.7 if i == j else 0.1 for j in range(4)] for i in range(4)]
    assert partners(names, symmetric) == []
    assert chosen_classes(names, [("a", "d")], [asymmetric], None) == ["a", "d", "b", "c"]
    assert chosen_classes(names, [], [asymmetric], ["c", "a"]) == ["c", "a"]
    with pytest.raises(ValueError, match="no class 'x'"):
        chosen_classes(names, [], [asymmetric], ["x"])


def test_of_many_classes_the_most_confused_are_shown() -> None:
    names = [str(i) for i in range(30)]
    matrix = [[0.0] * 30 for _ in names]
    matrix[29][7] = 9.0
    matrix[4][12] = 3.0
    assert chosen_classes(names, [], [matrix], None)[:4] == ["29", "7", "12", "4"]


def test_transitions_leave_out_what_has_no_wrong_label() -> None:
    (sheet,) = sheets("transitions")
    (panel,) = sheet.panels
    assert (panel.at, panel.n, panel.rate) == (FLIP, 2, 25.0)  # two label vectors, though eight cells
    assert panel.matrix[0] == pytest.approx([75, 0, 25]) and panel.classes == CLASSES
    assert any("not drawn: data, none" in line for line in sheet.foot)


def test_sensitivity_takes_rows_that_differ_in_one_field() -> None:
    (sheet,) = sheets("sensitivity")
    panel = sheet.panels[0]
    assert (sheet.slug, panel.field, panel.values, panel.base) == ("llc-dro", "k", [5, 10], None)
    assert [b.mean for b in panel.lines["none"]] == pytest.approx([85, 85]) and panel.lines["none"][0].n == 2
    assert [p.metric for p in sheet.panels] == ["test_acc", "worst_group_acc"]
    marked = sheets("sensitivity", base={"k": 10})[0].panels[0]
    assert marked.base == 1


def test_the_base_of_several_axes_is_where_they_cross() -> None:
    def change(plan: Any, records: Any) -> None:
        for record in records.values():
            if record["id"].startswith("mtadcs"):
                record["cell"]["method"] = {"name": "llc-dro", "params": {"k": 10, "tau": 0.9}}

    source = altered(change)
    (sheet,) = sheets("sensitivity", source)
    assert [(p.field, p.values, p.base) for p in sheet.panels[:2]] == [("k", [5, 10], 1), ("tau", [0.7, 0.9], 0)]
    (maps,) = sheets("sensitivity", source, map=True, fields=("k", "tau"), metric=("test_acc",))
    first = maps.panels[0]
    assert (first.rows, first.columns, first.base) == ([5, 10], [0.7, 0.9], (1, 0))
    assert [[cell is not None for cell in row] for row in first.values] == [[True, False], [True, True]]


def test_the_base_row_of_a_sensitivity_suite_is_marked_and_training_fields_count() -> None:
    def change(plan: Any, records: Any) -> None:
        for entry in plan["entries"]:
            if entry["method"] == "k=5":
                entry["variant"] = {"base": True, "changes": {}}
        for record in records.values():
            if record["id"].startswith("mtadcs"):
                record["cell"]["method"] = {"name": "llc-dro", "params": {"k": 5, "tau": 0.7}}
            record["cell"]["training"] = {"lr": 0.1 if record["id"].startswith("mtadcs") else 0.02}

    (sheet,) = sheets("sensitivity", altered(change))
    found = [(p.field, p.values, p.base) for p in sheet.panels[:2]]
    assert found == [("k", [5, 10], 0), ("training.lr", [0.02, 0.1], 0)]


def test_values_are_ordered_by_size_only_if_they_are_numbers() -> None:
    assert ordered([3, 1, 2.5, 1]) == [1, 2.5, 3]
    assert ordered(["loss", None, "llc", "loss"]) == ["loss", None, "llc"]


def test_sets_and_what_could_be_in_them() -> None:
    panel = sheets("sets")[0].panels[1]
    size, precision = panel.size["mtadcs"], panel.precision["mtadcs"]
    assert (size.x, size.mean, size.low, size.high) == ([1, 2], [40, 65], [40, 60], [40, 70])
    assert precision.mean == [50, 75] and panel.right == 75  # 100 samples, a quarter wrong


def test_counts_of_right_and_wrong_labels_together() -> None:
    (sheet,) = sheets("counts")
    assert [panel.epoch for panel in sheet.rows[0]] == [1, 2]
    assert sheet.rows[0][1].bars["mtadcs"].mean == [30, 23, 47]
    (noisy,) = sheets("counts", part="noisy", epochs=(2,))
    assert noisy.rows[0][0].bars["mtadcs"].mean == [20, 3, 2]
    assert binned([1, 2, 3, 4, 5], 2) == {0: 3, 2: 7, 4: 5}
    with pytest.raises(
        Absent, match=r"nothing of epoch 7 for 'confidence_set': they have 1, 2; put `watch: \{confidence_set: \[7\]\}`"
    ):
        sheets("counts", epochs=(7,))


def test_counts_where_nobody_knows_the_truth() -> None:
    def change(plan: Any, records: Any) -> None:
        for record in records.values():
            if "watched" in record:
                record["watched"]["confidence_set"]["counts"] = {"0": {"clean": None, "noisy": None, "all": [60, 40]}}

    assert sheets("counts", altered(change))[0].rows[0][0].bars["mtadcs"].mean == [60, 40]


def test_types_and_their_distances() -> None:
    row = sheets("types")[0].rows[0]
    assert row.sizes["clean_hard"].mean == [10, 20] and row.distances["mislabelled_easy"].mean == [0.5, 0.25]


def test_losses_as_density_beside_a_simulated_loss() -> None:
    panel = sheets("losses")[0].rows[0][0]
    assert (panel.method, panel.epoch, panel.seed, panel.density) == ("mtadcs", 2, 0, True)
    assert panel.bars == {"clean": [1.5, 0.5], "noisy": [0.5, 1.5]}  # 30 of 40 samples in a bin of 0.5
    assert panel.simulated == [0.5, 1.5] and panel.threshold == 0.6
    counted = sheets("losses", scale="count")[0].rows[0][0]
    assert counted.bars["clean"] == [30, 10] and counted.simulated == [15, 45]  # scaled to 60 samples


@pytest.mark.parametrize("family", ["gaussian", "beta"])
def test_the_area_under_a_mixture(family: str) -> None:
    mixture = {"family": family, "weights": [0.6, 0.4], "means": [0.2, 0.7], "variances": [0.002, 0.003]}
    lines = components(mixture, 0.0, 1.0, 50.0)
    assert [sum(y) / len(y) for _, y in lines] == pytest.approx([30, 20], rel=1e-3)
    assert [sum(y) / len(y) for _, y in components(mixture, 0.0, 1.0, None)] == pytest.approx([1, 1], rel=1e-3)
    assert all(x[y.index(max(y))] == pytest.approx(mean, abs=0.02) for (x, y), mean in zip(lines, (0.2, 0.7), strict=True))
    assert components(None, 0, 1, 1.0) == []


def test_a_high_bar_does_not_squeeze_the_others() -> None:
    panel = sheets("losses", scale="count")[0].rows[0][0]
    tall = type(panel)(**{**vars(panel), "bars": {"clean": [900, 1], "noisy": [10, 20]}, "simulated": None})
    assert height(panel) == 45 and height(tall) == 100
    assert heights([1, 3], 0.5, True) == [0.5, 1.5]


def test_scatter_knows_wrong_labels_and_where_a_class_lies() -> None:
    panel = sheets("scatter")[0].rows[0][1]
    assert (panel.epoch, panel.label, panel.wrong) == (2, [0, 0, 2], [False, True, False])
    points = ScatterPanel("m", 1, 0, [0, 1, 9, 9], [0, 0, 0, 5], [3, 3, 3, 1], [False] * 4)
    assert centre(points, 3) == (1, 0)


def test_gallery_names_classes() -> None:
    tiles = sheets("gallery")[0].tiles["mtadcs"]
    assert [(t.given, t.true, t.score, t.wrong) for t in tiles] == [("cat", "dog", 0.125, True), ("ship", "ship", 0.25, False)]
    assert len(sheets("gallery", given="cat")[0].tiles["mtadcs"]) == 1


def test_pareto_costs() -> None:
    (sheet,) = sheets("pareto")
    point = sheet.panels[0].points["erm"]
    assert (point.cost.mean, point.cost.low, point.value.mean) == pytest.approx((3.5, 3.0, 85))  # stages count
    (passes,) = sheets("pareto", cost="forward_equivalents")
    assert passes.panels[0].points["erm"].cost.mean == pytest.approx(5)  # 3 + 2 x 1 millions


def test_the_pareto_front() -> None:
    assert front([(1, 50), (2, 40), (2, 60), (3, 60), (1, 50), (1, 45)]) == [True, False, True, False, True, False]


@given(st.lists(st.tuples(st.floats(0.3, 2.7), st.floats(0.3, 2.7)), max_size=12))
def test_discs_are_spread_within_their_box(points: list[tuple[float, float]]) -> None:
    named = {str(i): point for i, point in enumerate(points)}
    moved = spread(named, 0.1, (3.0, 3.0))
    assert all(0.05 <= value <= 2.95 for point in moved.values() for value in point)
    assert moved == spread(named, 0.1, (3.0, 3.0))


def test_coinciding_discs_end_beside_each_other() -> None:
    moved = list(spread({name: (1.0, 1.0) for name in "abcd"}, 0.2, (2.0, 2.0)).values())
    distances = [math.dist(a, b) for i, a in enumerate(moved) for b in moved[:i]]
    assert min(distances) > 0.19


# -- what is absent ----------------------------------------------------------------------------------------------------
def test_absent_seeds_are_told_and_never_averaged_over() -> None:
    def change(plan: Any, records: Any) -> None:
        del records["mtadcs/none/1"]
        records["mtadcs/flip@0.25/1"].update(status="diverged", reason="the loss was not finite")
        del records["mtadcs/flip@0.25/0"]["watched"]["gallery"]

    source = altered(change)
    for kind in ("sets", "counts", "types", "scatter", "losses"):
        foot = " ".join(sheets(kind, source)[0].foot)
        assert "data, none: MTaDCS (1 of 2 seeds not run)" in foot, kind
    assert sheets("sets", source)[0].panels[0].size["mtadcs"].n == 1
    assert "MTaDCS (1 of 2 seeds not converged)" in " ".join(sheets("pareto", source)[0].foot)
    assert len(sheets("gallery", source)) == 1


@pytest.mark.parametrize(("kind", "word"), [("sets", "confidence_set"), ("counts", "confidence_set"), ("types", "confidence_set"),
                                           ("losses", "losses"), ("scatter", "features"), ("gallery", "gallery")])  # fmt: skip
def test_what_was_not_watched_is_named_with_the_command(kind: str, word: str) -> None:
    source = Source.of(*suite(), path="my suites/x.yaml").only(None, None, ["erm"])
    with pytest.raises(Absent) as error:
        sheets(kind, source)
    assert f"put `watch: [{word}]`" in str(error.value)
    assert "`bench run 'my suites/x.yaml' --force --only method=erm`" in str(error.value)


def test_a_wanted_name_is_asked_for() -> None:
    with pytest.raises(Absent, match=r"watched quantity 'other': put `watch: \[other\]`"):
        watching(Source.of(*suite()), "values", "other")


def test_every_kind_says_what_it_cannot_draw() -> None:
    plan, _ = suite()
    source = Source.of(plan, {})
    for kind in kinds():
        if kind != "curves":  # draws empty panels, with the reasons below
            with pytest.raises(Absent):
                sheets(kind, source)


def test_names_that_are_not_in_the_plan() -> None:
    with pytest.raises(ValueError, match="methods: plots has no 'mtadc'; did you mean 'mtadcs'"):
        Source.of(*suite()).only(None, None, ["mtadc"])
    with pytest.raises(ValueError, match="'plots' has no planned cells"):
        Source.of({"suite": "plots", "entries": []}, {})
