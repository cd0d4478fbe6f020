"""The leaderboard: groups, ranks, absence, copies, published numbers, and pages that are the same every time."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import bench.records as records
from bench.cell import cell_id
from bench.cli_leaderboard import leaderboard
from bench.records import SCHEMA, write_record
from bench.report.leaderboard_files import pages, stale
from bench.report.leaderboard_read import read_board
from bench.report.leaderboard_text import as_json, render_board
from bench.report.published import VECTORS, quotes

ROOT = Path(__file__).resolve().parent.parent


def cell(method: str = "erm", seed: int = 0, *, epochs: int = 2, lr: float = 0.1, dataset: str = "digits", **params: Any) -> dict:
    return {
        "dataset": {"name": dataset, "revision": "1"},
        "noise": {"kind": "symmetric", "version": 1, "rate": 0.5, "touched": "exact", "own_class": True},
        "method": {"name": method, "version": 1, "params": params}, "model": {"name": "mlp"},
        "training": {"epochs": epochs, "lr": lr}, "protocol": {"version": 1, "val_fraction": 0.1, "last_k": 1}, "seed": seed,
    }  # fmt: skip


def put(
    folder: Path, made: dict, accuracy: float | dict = 0.5, *, status: str = "done", reason: str | None = None, title: str = "",
    needs: tuple[str, ...] = (), skip: str | None = None, write: bool = True, label: str | None = None, canonical: bool = True,
) -> str:  # fmt: skip
    """A record in the suite's folder, and its entry in the plan."""
    identity = cell_id(made)
    metrics = accuracy if isinstance(accuracy, dict) else {f"test_acc_{p}": accuracy for p in ("last", "best_oracle", "selected")}
    if write:
        record = {
            "schema": SCHEMA, "id": identity, "suite": folder.name, "cell": made, "status": status, "reason": reason,
            "metrics": metrics if status == "done" else {}, "curve": {"epoch": [0]}, "provenance": {"device": "cpu: test"},
            "warnings": [], "noise": {"definition": "half of them", "rate": 0.45, "nominal": 0.5, "sha256": f"{made['seed']}"},
            "data": {"n_train": 100, "n_test": 50, "canonical": canonical, "validation": "hold-out, noisy labels"},
            "cost": {"setup_seconds": 1, "train_seconds": 2, "eval_seconds": 3, "networks": 1, "forward_images": 200,
                     "backward_images": 200},
        }  # fmt: skip
        write_record(folder, record)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plan.json"
    plan = json.loads(path.read_text()) if path.exists() else {"schema": 1, "suite": folder.name, "sources": {}, "entries": []}
    name = made["method"]["name"]
    plan["entries"].append(
        {"id": identity, "dataset": made["dataset"]["name"], "noise": "symmetric@0.5", "method": label or name,
         "seed": made["seed"], "title": title or name.upper(), "needs": list(needs), "networks": 1, "skip": skip}
    )  # fmt: skip
    path.write_text(json.dumps(plan))
    return identity


def rows(text: str) -> dict[str, list[str]]:
    """Cells of each row of the tables of methods, by the method's cell."""
    found = [re.split(r" \| ", line.strip("| ")) for line in text.splitlines() if line.startswith("| ") and "](s/" in line]
    return {(line[0] if not line[0].isdigit() else line[1]): line for line in found}


def test_means_spreads_ranks_and_costs_by_hand(tmp_path):
    """0.6 and 0.8: mean 70, standard deviation 14.14. Forward 200 + 2 x backward 200 over 100 images and 2 epochs: FE 3."""
    put(tmp_path / "s", cell("erm", 0), 0.6)
    put(tmp_path / "s", cell("erm", 1), 0.8)
    put(tmp_path / "s", cell("gce", 0), 0.9)
    put(tmp_path / "s", cell("gce", 1), 0.9)
    text = render_board(read_board(tmp_path))
    found = rows(text)
    assert found["GCE"][:8] == ["1", "GCE", "90.0 ± 0.0", "90.0 ± 0.0", "90.0 ± 0.0", "2", "6.0", "3.0"]
    assert found["ERM"][:8] == ["2", "ERM", "70.0 ± 14.1", "70.0 ± 14.1", "70.0 ± 14.1", "2", "6.0", "3.0"]
    assert "half of them; nominal rate 0.5, measured 0.450" in text


def test_ranks_share_what_the_printed_digits_share(tmp_path):
    for method, value in (("a", 0.9004), ("b", 0.9001), ("c", 0.89), ("d", 0.95)):
        put(tmp_path / "s", cell(method), value)
    found = rows(render_board(read_board(tmp_path)))
    assert {name: line[0] for name, line in found.items()} == {"D": "1", "A": "2", "B": "2", "C": "4"}


def test_ranks_compare_equal_seeds(tmp_path):
    """Most rows have seeds 0 and 1. More has a third and leads by it alone; fewer has one, an easy draw."""
    for method, values in {"a": (0.5, 0.6), "b": (0.4, 0.6), "more": (0.4, 0.58, 0.9), "fewer": (0.7,)}.items():
        for seed, value in enumerate(values):
            put(tmp_path / "s", cell(method, seed), value)
    board = read_board(tmp_path)
    (group,) = board.groups.values()
    assert {group.rows[key].label: rank for key, rank in group.ranks.items()} == {"A": 1, "B": 2, "MORE": 3}
    text = render_board(board)
    found = rows(text)
    assert found["MORE"][2].startswith("62.7") and found["MORE"][5] == "3<sup>a</sup>"
    assert "- <sup>a</sup> ranked by its mean over the seeds 0, 1 of the other rows: 49.0" in text
    assert "|  | FEWER | 70.0 | 70.0 | 70.0 | 1<sup>b</sup> |" in text
    assert "- <sup>b</sup> not ranked: it has the seeds 0, ranks are over 0, 1" in text
    (told,) = as_json(board)["groups"]
    assert told["ranked_seeds"] == [0, 1]


def test_of_equally_frequent_seed_sets_the_larger_ranks(tmp_path):
    for method, seeds in {"a": (0, 1), "b": (0, 1), "c": (0, 1, 2), "d": (0, 1, 2), "failed": (0,)}.items():
        for seed in seeds:
            put(tmp_path / "s", cell(method, seed), 0.5)
    put(tmp_path / "s", cell("failed", 1), status="failed", reason="boom")
    (group,) = read_board(tmp_path).groups.values()
    assert group.shared == {0, 1, 2} and {group.rows[key].label for key in group.ranks} == {"C", "D"}


def test_selected_ranks_and_last_where_it_is_absent(tmp_path):
    put(tmp_path / "s", cell("a"), {"test_acc_last": 0.9, "test_acc_selected": 0.1, "test_acc_best_oracle": 0.9})
    put(tmp_path / "s", cell("b"), {"test_acc_last": 0.8, "test_acc_selected": 0.2, "test_acc_best_oracle": 0.8})
    (group,) = read_board(tmp_path).groups.values()
    assert group.ranking == ("test_acc", "selected")
    put(tmp_path / "s", cell("c"), {"test_acc_last": 0.7, "test_acc_best_oracle": 1.0})
    (group,) = read_board(tmp_path).groups.values()
    assert group.ranking == ("test_acc", "last")
    assert {group.rows[key].label: rank for key, rank in group.ranks.items()} == {"A": 1, "B": 2, "C": 3}


def test_worst_group_ranks_where_there_are_groups(tmp_path):
    put(tmp_path / "s", cell("a"), {"test_acc_last": 0.9, "worst_group_acc_last": 0.1})
    put(tmp_path / "s", cell("b"), {"test_acc_last": 0.8, "worst_group_acc_last": 0.2})
    (group,) = read_board(tmp_path).groups.values()
    assert group.ranking[0] == "worst_group_acc"
    assert "**worst last**" in render_board(read_board(tmp_path))


def test_budgets_are_never_in_one_table_and_own_settings_are_marked(tmp_path):
    put(tmp_path / "s", cell("a", epochs=2))
    put(tmp_path / "s", cell("b", epochs=3))
    put(tmp_path / "s", cell("c", epochs=3))
    put(tmp_path / "s", cell("d", epochs=3, lr=0.5))
    board = read_board(tmp_path)
    assert sorted(len(group.rows) for group in board.groups.values()) == [1, 3]
    assert "own settings of training: lr 0.5 (else 0.1)" in render_board(board)


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        ("failed", "out | of memory", "failed (1 of 2 seeds): out \\| of memory"),
        ("diverged", "nan", "not converged (1 of 2 seeds): nan"),
    ],
)
def test_absent_seeds_are_told_and_not_averaged(tmp_path, status, reason, told):
    put(tmp_path / "s", cell("a", 0), 0.6)
    put(tmp_path / "s", cell("a", 1), status=status, reason=reason)
    put(tmp_path / "s", cell("b", 0), 0.5)
    put(tmp_path / "s", cell("b", 1), 0.5)
    text = render_board(read_board(tmp_path))
    line = next(line for line in text.splitlines() if "| A |" in line)
    assert line.startswith("|  | A | 60.0 | 60.0 | 60.0<sup>a</sup> | 1 of 2 |")
    assert f"- <sup>a</sup> {told}" in text


def test_missing_and_skipped_cells_have_their_places(tmp_path):
    put(tmp_path / "s", cell("a", 0), 0.6)
    put(tmp_path / "s", cell("a", 1), write=False)
    put(tmp_path / "s", cell("b", 0), write=False, skip="too <slow>")
    put(tmp_path / "s", cell("c", 0, dataset="other"), write=False)
    text = render_board(read_board(tmp_path))
    assert "60.0<sup>a</sup> | 1 of 2 |" in text
    assert "not run (1 of 2 seeds)" in text
    assert "| B | - | - | skipped<sup>b</sup> | 0 of 1 |" in text
    assert "skipped: too &lt;slow&gt;" in text
    assert "s: other, symmetric@0.5: 1 cells not run" in text


def test_a_cell_in_several_suites_counts_once(tmp_path):
    put(tmp_path / "s", cell("a"), 0.6)
    put(tmp_path / "t", cell("a"), 0.6)
    board = read_board(tmp_path)
    assert (board.records, board.copies, board.conflicts) == (1, 1, [])
    put(tmp_path / "u", cell("a"), 0.7)
    board = read_board(tmp_path)
    assert len(board.conflicts) == 1 and "s and u hold different results" in board.conflicts[0]
    assert "60.0" in render_board(board) and "70.0" not in render_board(board)


def test_a_finished_copy_wins_over_a_failed_one(tmp_path):
    put(tmp_path / "s", cell("a"), status="failed", reason="boom")
    put(tmp_path / "t", cell("a"), 0.6)
    (group,) = read_board(tmp_path).groups.values()
    (row,) = group.rows.values()
    assert row.runs[0].suite == "t"


def test_rows_of_one_label_are_told_apart(tmp_path):
    put(tmp_path / "s", cell("gce", q=0.3))
    put(tmp_path / "s", cell("gce", q=0.7))
    assert set(rows(render_board(read_board(tmp_path)))) == {"GCE (q 0.3)", "GCE (q 0.7)"}


def test_needs_are_noted(tmp_path):
    put(tmp_path / "s", cell("a"), needs=("noise_rate",))
    assert "is told the noise rate of the training labels (privileged information)" in render_board(read_board(tmp_path))


def test_tuning_is_left_out_unless_asked(tmp_path):
    put(tmp_path / "tuning-x", cell("a"))
    put(tmp_path / "y", cell("b"))
    plan = json.loads((tmp_path / "y" / "plan.json").read_text())
    (tmp_path / "y" / "plan.json").write_text(json.dumps({**plan, "kind": "tune"}))
    board = read_board(tmp_path)
    assert board.records == 0 and set(board.aside) == {"tuning-x", "y"}
    assert board.states["tuning-x"]["done"] == 1
    assert read_board(tmp_path, tuning=True).records == 2


def test_published_numbers_stand_beside_the_methods_they_are_about(tmp_path):
    """What the papers print for CIFAR-10 under symmetric noise of 0.5, ablations left out."""
    put(tmp_path / "s", cell("dividemix", dataset="cifar10"))
    put(tmp_path / "s", cell("mtadcs", dataset="cifar10"))
    put(tmp_path / "s", cell("dividemix", dataset="cifar10", variant=1), label="dividemix without co-refinement")
    put(tmp_path / "t", cell("dividemix", dataset="digits"))
    put(tmp_path / "u", cell("elr", dataset="cifar10"), canonical=False)
    groups = as_json(read_board(tmp_path))["groups"]
    quoted = {(row["label"], group["dataset"]["name"]): row["published"] for group in groups for row in group["rows"]}
    assert {key: text for key, text in quoted.items() if text} == {
        ("DIVIDEMIX", "cifar10"): "94.6 best, 94.4 last (llc-dro table2); 93.7 accuracy (mtadcs table1); "
                                  "93.7 accuracy (mtadcs table2a); 94.6 best, 94.4 last (scanmix table1)",
        ("MTADCS", "cifar10"): "95.4 accuracy (mtadcs table1)",
        ("ELR", "cifar10"): "92.6 accuracy (mtadcs table1)",
    }  # fmt: skip
    assert "non-canonical data, unlike the papers'" in render_board(read_board(tmp_path))


def test_a_published_label_vector_is_known_by_its_sha256():
    sym50 = {"kind": "file", "sha256": "4907f219e04606b478670112973d04f47b5096a283490a7a264fb12834844a95"}
    assert quotes("cifar10", sym50, "erm") == ["57.9 accuracy (mtadcs table1)", "79.4 best, 57.9 last (scanmix table1)"]
    densenet = {"kind": "file", "sha256": "c792e3909e62c71fe2d0cdb5a1910e324b1c1ccc8a3a5220ea1deb36c98b828a"}
    assert quotes("cifar10", densenet, "dividemix") == ["84.57 accuracy (scanmix table2)"]
    assert quotes("cifar100", densenet, "dividemix") == quotes("cifar10", {"kind": "file", "sha256": "0"}, "erm") == []


def test_the_published_vectors_are_those_that_were_given_away():
    """Needs the shared data."""
    import numpy as np
    from resident_trees import shared

    from bench.noise import sha256_of

    vectors = np.load(shared("noise-labels") / "noise-labels.npz")
    digests = {sha256_of(vectors[key].astype(np.int64)): key for key in vectors.files}
    with VECTORS.open(newline="") as lines:
        for row in csv.DictReader(lines):
            dataset, source, name = digests[row["sha256"]].split("__")
            short = {"symmetric": "sym", "asymmetric": "asym"}.get(row["noise"])
            assert dataset == row["dataset"] and source in row["source"].lower()
            assert name == (f"{short}{100 * float(row['rate']):.0f}" if short else row["noise"])


def test_hostile_words_are_harmless(tmp_path):
    put(tmp_path / "s", cell("a"), title="x | <script>alert(1)</script>\n# y [z](http://q)")
    text = render_board(read_board(tmp_path))
    assert "x \\| &lt;script&gt;alert(1)&lt;/script&gt; # y \\[z\\](http://q)" in text
    assert "<script>" not in text


def test_corrupt_records_are_named_and_the_others_shown(tmp_path):
    results = tmp_path / "results"
    put(results / "s", cell("a"), 0.6)
    broken = put(results / "s", cell("b"), 0.7)
    path = results / "s" / f"{broken}.json"
    path.write_text(path.read_text().replace("0.7", "0.8"))
    done = CliRunner().invoke(leaderboard, ["--results", str(results)])
    assert done.exit_code == 1
    assert f"{broken}.json" in done.output and "checksum" in done.output
    text = (results / "LEADERBOARD.md").read_text()
    assert "60.0" in text and "80.0" not in text and f"s/{broken}.json" in text
    assert "failed: its record is corrupt" in text
    assert "1 corrupt" in (results / "s" / "README.md").read_text()


def test_twice_is_the_same_and_check_sees_a_stale_page(tmp_path):
    results = tmp_path / "results"
    put(results / "s", cell("a"), 0.6)
    run = CliRunner().invoke
    assert run(leaderboard, ["--results", str(results), "--check"]).exit_code == 1
    assert not (results / "LEADERBOARD.md").exists()
    assert run(leaderboard, ["--results", str(results)]).exit_code == 0
    before = (results / "LEADERBOARD.md").read_bytes()
    assert run(leaderboard, ["--results", str(results), "--check"]).exit_code == 0
    again = run(leaderboard, ["--results", str(results), "--json"])
    assert json.loads(again.output)["written"] == []
    assert (results / "LEADERBOARD.md").read_bytes() == before
    put(results / "s", cell("b"), 0.7)
    late = run(leaderboard, ["--results", str(results), "--check"])
    assert late.exit_code == 1 and "LEADERBOARD.md" in late.output
    assert (results / "LEADERBOARD.md").read_bytes() == before


def test_several_processes_write_the_same_page(tmp_path, monkeypatch):
    for method in "abc":
        for seed in range(3):
            put(tmp_path / "s", cell(method, seed), 0.5 + seed / 10)
    one = render_board(read_board(tmp_path))
    monkeypatch.setattr(records, "_MANY", 2)
    monkeypatch.setattr(records, "_CHUNK", 2)
    assert render_board(read_board(tmp_path)) == one


def test_readme_of_a_suite(tmp_path):
    folder = tmp_path / "results" / "s"
    put(folder, cell("a"))
    put(folder, cell("b"), write=False)
    (folder / "table.md").write_text("# A title\n")
    (folder / "accuracy.png").write_bytes(b"")
    (tmp_path / "suites" / "deep").mkdir(parents=True)
    (tmp_path / "suites" / "deep" / "other.yaml").write_text("name: s\n")
    text = pages(tmp_path / "results")[1][folder / "README.md"]
    assert text.startswith("# A title\n\n2 cells: 1 done, 1 not run.\n")
    assert "[Markdown](table.md)" in text and "![accuracy](accuracy.png)" in text
    assert "bench run suites/deep/other.yaml" in text


def test_no_results_folder_is_said(tmp_path):
    done = CliRunner().invoke(leaderboard, ["--results", str(tmp_path / "none")])
    assert done.exit_code == 3 and "there is no results folder" in done.output


@pytest.mark.skipif(not (ROOT / "results" / "LEADERBOARD.md").exists(), reason="no leaderboard is committed")
def test_committed_pages_are_fresh():
    board, texts = pages(ROOT / "results")
    assert not board.corrupt and not board.conflicts
    assert stale(texts) == [], "run `bench leaderboard` and commit what it writes"
