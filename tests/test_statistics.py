"""Statistics of a suite: Demšar's published example, scipy and statsmodels as oracles, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats as scipy_stats

from bench.report.statistics import average_ranks, critical_difference, groups, holm, paired_t, signed_rank, statistics
from bench.report.statistics_text import as_json, critical_difference_diagram, render_statistics

# Demšar, JMLR 7 (2006), table 6: AUC of C4.5, C4.5+m, C4.5+cf, C4.5+m+cf on 14 data sets. Of voting, last row but one, he prints
# 0.975 twice and ranks the first of them before the second.
DEMSAR = np.array([
    [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967], [0.628, 0.661, 0.654, 0.657],
    [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931], [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625],
    [0.775, 0.838, 0.866, 0.875], [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.975, 0.9749], [0.957, 0.978, 0.946, 0.970],
])  # fmt: skip
NAMES = ("a", "b", "c", "d")


def suite(values: Any, names: tuple[str, ...] = NAMES, seeds: int = 1, noises: tuple[str, ...] = ("none",)) -> tuple[dict, dict]:
    """A plan and records with `values` [data sets x noises x seeds, methods]; data set changes slowest, seed fastest."""
    entries, records = [], {}
    for i, row in enumerate(values):
        rest, seed = divmod(i, seeds)
        dataset, noise = divmod(rest, len(noises))
        for name, value in zip(names, row, strict=True):
            identity = f"{i:08x}{names.index(name):08x}"
            entries.append({"id": identity, "dataset": f"d{dataset}", "noise": noises[noise], "method": name, "seed": seed,
                            "title": name.upper(), "needs": [], "networks": 1, "skip": None})  # fmt: skip
            records[identity] = {"id": identity, "status": "done", "reason": None, "metrics": {"test_acc_last": float(value)},
                                 "noise": {"sha256": f"{i}"}}  # fmt: skip
    return {"suite": "s", "entries": entries}, records


def test_ranks_and_critical_difference_are_those_that_demsar_prints():
    assert average_ranks(DEMSAR).round(3).tolist() == [3.143, 2.000, 2.893, 1.964]
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, 0.1) == pytest.approx(1.12, abs=0.005)


def test_friedman_is_demsars_divided_by_the_correction_for_ties():
    """He prints 9.28 from the ranks alone. Three ties of two and one of four: the correction is 1 - (3 x 6 + 60) / (14 x 60)."""
    found = statistics(*suite(DEMSAR)).overall
    assert found.friedman is not None
    assert found.friedman["chi2"] * (1 - 78 / 840) == pytest.approx(9.28, abs=0.005)
    assert found.friedman["F"] == pytest.approx(13 * 10.22835 / (42 - 10.22835), abs=1e-4)


def test_nemenyi_finds_what_demsar_finds():
    """P. 12: nothing at 5 %; at 10 % C4.5 (3.143) is worse than C4.5+m (2.000) and C4.5+m+cf (1.964) by more than 1.12."""
    assert [sorted(group) for group in statistics(*suite(DEMSAR)).overall.nemenyi["groups"]] == [["a", "b", "c", "d"]]
    found = statistics(*suite(DEMSAR), alpha=0.1).overall
    assert [sorted(group) for group in found.nemenyi["groups"]] == [["b", "c", "d"], ["a", "c"]]
    p = np.array(found.nemenyi["p"])
    ranks = average_ranks(DEMSAR)
    for i in range(4):
        for j in range(4):
            if i != j:
                assert (p[i, j] < 0.1) == (abs(ranks[i] - ranks[j]) > found.nemenyi["cd"])


def test_signed_ranks_are_demsars():
    """C4.5+m against C4.5 (p. 8): 93 and 12 with the ranks of the two zero differences divided, significant at 5 %."""
    d = np.round(DEMSAR[:, 1] - DEMSAR[:, 0], 12)
    assert scipy_stats.wilcoxon(d, zero_method="zsplit").statistic == 12
    assert signed_rank(d) == scipy_stats.wilcoxon(d, zero_method="zsplit").pvalue < 0.05
    assert signed_rank(d) != scipy_stats.wilcoxon(d, zero_method="wilcox").pvalue
    assert signed_rank(np.zeros(6)) == 1.0


def test_signed_rank_by_hand():
    assert signed_rank(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])) == pytest.approx(2 / 64)
    assert signed_rank(np.array([-0.1, 0.2, 0.3, 0.4, 0.5, 0.6])) == pytest.approx(4 / 64)


def test_paired_t_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt 3, t = 3.4641 with two degrees of freedom."""
    assert paired_t(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 * scipy_stats.t.sf(12**0.5, 2))
    assert paired_t(np.array([0.5, 0.5])) is None
    assert paired_t(np.array([0.5])) is None


def test_holm_by_hand_and_without_refused_values():
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([None]) == [None]


def test_groups_are_the_largest_ones():
    assert groups({"a": 1.0, "b": 2.0, "c": 3.0, "d": 5.0}, 1.0) == [["a", "b"], ["b", "c"]]
    assert groups({"a": 1.0, "b": 5.0}, 1.0) == []


def test_wins_ties_and_losses_respect_the_margin():
    """Differences in points: 1.0, 0.1 (a tie at the margin), 0.11, -0.5."""
    values = [[0.51, 0.50], [0.501, 0.500], [0.5011, 0.500], [0.495, 0.500]]
    pair = statistics(*suite(values, ("x", "y")), margin=0.1).overall.pairs[0]
    assert (pair.wins, pair.ties, pair.losses) == (2, 1, 1)
    assert pair.difference == pytest.approx(0.1775)
    assert statistics(*suite(values, ("x", "y")), margin=1.0).overall.pairs[0].ties == 4


def test_seeds_are_averaged_first_unless_asked():
    """Two data sets, three seeds: 2 blocks with the means 0.2 and 0.8, or 6 blocks."""
    values = [[0.1, 0.5], [0.2, 0.5], [0.3, 0.5], [0.7, 0.5], [0.8, 0.5], [0.9, 0.5]]
    found = statistics(*suite(values, ("x", "y"), seeds=3)).overall
    assert np.allclose(found.values, [[0.2, 0.5], [0.8, 0.5]])
    assert len(statistics(*suite(values, ("x", "y"), seeds=3), blocks="seeds").overall.values) == 6
    assert "not independent" in statistics(*suite(values, ("x", "y"), seeds=3), blocks="seeds").overall.notes[0]
    noisy = statistics(*suite(values, ("x", "y"), noises=("none", "n1", "n2")), blocks="datasets").overall
    assert np.allclose(noisy.values, [[0.2, 0.5], [0.8, 0.5]])


def test_three_seeds_can_show_nothing_by_ranks():
    section = statistics(*suite([[0.1, 0.5], [0.2, 0.5], [0.3, 0.5]], ("x", "y"), seeds=3)).sections[0]
    assert "with 3 blocks (seed) the smallest p is 0.25, nothing can be significant at 0.05; 6 are needed" in section.refused[0]
    assert section.pairs[0].wilcoxon is None
    assert section.pairs[0].t is not None


@pytest.mark.parametrize("status", ["missing", "failed", "diverged", "skipped", "unmeasured"])
def test_nothing_is_computed_over_absent_cells(status):
    plan, records = suite(DEMSAR)
    identity = plan["entries"][5]["id"]
    if status == "missing":
        del records[identity]
    elif status == "skipped":
        plan["entries"][5]["skip"] = "no | reason"
    elif status == "unmeasured":
        records[identity]["metrics"] = {}
    else:
        records[identity] |= {"status": status, "reason": "boom"}
    found = statistics(plan, records)
    assert [cell["status"] for cell in found.overall.missing] == [status]
    assert not found.overall.ranks and not found.overall.pairs
    assert not found.sections[1].ranks and found.sections[0].ranks
    text = render_statistics(found, "text", lambda entry: f"bench run it {entry['seed']}")
    assert "Refused: 1 cells have no value" in text
    assert ("bench run it 0" in text) == (status != "skipped")
    with pytest.raises(ValueError, match="d1, none, b, seed 0"):
        critical_difference_diagram(found, "nowhere")


def test_unpaired_draws_are_refused():
    plan, records = suite(DEMSAR)
    records[plan["entries"][0]["id"]]["noise"]["sha256"] = "another"
    found = statistics(plan, records)
    assert "different labels for seed 0" in found.sections[0].refused[0]
    assert not found.overall.ranks


def test_methods_that_the_suite_does_not_run_everywhere_are_left_out_of_the_whole():
    plan, records = suite(DEMSAR)
    plan["entries"] = [entry for entry in plan["entries"] if entry["method"] != "c" or entry["dataset"] == "d0"]
    found = statistics(plan, records)
    assert found.overall.methods == ["a", "b", "d"]
    assert found.sections[0].methods == list(NAMES)
    assert found.overall.ranks["b"] == pytest.approx(average_ranks(DEMSAR[:, [0, 1, 3]])[1])


def test_baseline_compares_with_it_alone():
    found = statistics(*suite(DEMSAR), baseline="a").overall
    assert [(pair.first, pair.second) for pair in found.pairs] == [("b", "a"), ("c", "a"), ("d", "a")]
    with pytest.raises(ValueError, match="unknown baseline 'z'; valid: a, b, c, d"):
        statistics(*suite(DEMSAR), baseline="z")


def test_hostile_labels_are_harmless_in_every_format():
    plan, records = suite(DEMSAR)
    for entry in plan["entries"]:
        if entry["method"] == "a":
            entry["title"] = "A|<b>$x_1$\n\x1b[31m"
    found = statistics(plan, records)
    assert "A\\|&lt;b&gt;\\$x\\_1\\$ \\[31m" in render_statistics(found, "md")
    assert r"A\textbar{}\textless{}b\textgreater{}\$x\_1\$" in render_statistics(found, "tex")
    assert "\x1b" not in render_statistics(found, "text")
    json.dumps(as_json(found), allow_nan=False)
    with pytest.raises(ValueError, match="unknown format"):
        render_statistics(found, "doc")


def test_csv_holds_every_pair():
    lines = render_statistics(statistics(*suite(DEMSAR)), "csv").splitlines()
    assert sum(line.startswith("all data sets and noises,14,") and ",wilcoxon_holm," in line for line in lines) == 6


def test_diagram_is_the_same_every_time(tmp_path):
    found = statistics(*suite(DEMSAR))
    first = [path.read_bytes() for path in critical_difference_diagram(found, tmp_path / "one")]
    second = [path.read_bytes() for path in critical_difference_diagram(found, tmp_path / "two")]
    assert first == second
    assert first[0].startswith(b"\x89PNG") and b"<svg" in first[1]


def test_command_says_what_it_cannot_do():
    from bench.cli_stats import stats

    done = CliRunner().invoke(stats, ["suites/quickstart.yaml", "--metric", "test_ac"])
    assert done.exit_code == 2
    assert "test_acc" in done.output
