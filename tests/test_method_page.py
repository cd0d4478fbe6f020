"""The generated pages of methods: nothing on them is typed by hand, and the committed ones are what would be written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from finished import finish

from bench import method_page
from bench.cli import main
from bench.method import methods
from bench.report.published import published
from methods.co_teaching import CoTeaching

ROOT = Path(__file__).resolve().parent.parent
PARITY = ROOT / "tests" / "parity"


def test_the_committed_pages_are_up_to_date() -> None:
    stale = [path.name for path in method_page.stale(ROOT / "docs" / "methods")]
    assert not stale, f"run `bench pages` and commit: {', '.join(stale)}"


def test_a_page_quotes_class_records_parity_and_published_numbers(tmp_path: Path) -> None:
    suite = tmp_path / "learning-x.yaml"
    suite.write_text("datasets: digits\nnoises: symmetric@0.5\nmethods: [co-teaching]\nseeds: 2\ntraining: {epochs: 1}\n")
    finish(suite, tmp_path / "results")
    (tmp_path / "tests" / "parity").mkdir(parents=True)
    found = {
        "slug": "co-teaching", "reference": "someone/code @abc", "setting": "tiny", "notes": "CPU.", "torch": "9",
        "compared": [{"what": "losses", "max_abs_difference": 2e-7}, {"what": "a|b", "max_abs_difference": 3e-8}],
    }  # fmt: skip
    (tmp_path / "tests" / "parity" / "co-teaching.json").write_text(json.dumps(found))
    page = method_page.page(CoTeaching, tmp_path)
    assert "**Largest difference 2.0e-07**, against someone/code @abc (`tests/parity/co_teaching.py`, torch 9)." in page
    assert "| a\\|b | 3.0e-08 |" in page
    assert "`noise_rate`: is told the noise rate of the training labels" in page
    assert "| `ramp_epochs` | a whole number, >= 1 | 10 |" in page
    assert "| llc-dro table3 | webvision50 | real | Co-teaching | top1 | 63.58 |" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| digits | symmetric 0.5 | fixed recipe | accuracy |")]
    assert row.count("±") == 3 and row.endswith("| 2 |")
    assert "(mean of 2 records)" in page


def test_a_page_quotes_settings_that_are_the_method_itself_and_no_others() -> None:
    tuned = method_page.page(methods()["mtadcs-plus"])
    assert [f"| {value} |" in tuned for value in ("96.2", "95.5", "94.4", "74.8")] == [True] * 4
    llc_dro = method_page.page(methods()["llc-dro"])
    assert "llc-dro table1" in llc_dro and "llc-dro table4" not in llc_dro  # whose rows lack parts of it


def test_a_page_says_what_is_missing(tmp_path: Path) -> None:
    page = method_page.page(CoTeaching, tmp_path)
    assert "No records yet." in page and "Not compared" in page


def test_writing_changes_only_what_is_stale_and_removes_what_has_no_method(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    first = method_page.write(folder)
    assert len(first) == len(methods()) + 1
    assert method_page.write(folder) == []
    (folder / "erm.md").write_text("old")
    (folder / "gone.md").write_text("of a method that was removed")
    runner = CliRunner()
    checked = runner.invoke(main, ["pages", "--out", str(folder), "--check"])
    assert checked.exit_code == 1 and "stale: " + str(folder / "erm.md") in checked.output
    assert (folder / "gone.md").exists()
    done = runner.invoke(main, ["pages", "--out", str(folder)])
    assert done.exit_code == 0 and "2 pages written" in done.output
    assert not (folder / "gone.md").exists()
    assert runner.invoke(main, ["pages", "--out", str(folder), "--check"]).exit_code == 0


def test_every_published_row_is_complete_and_unique() -> None:
    keys = [(r.paper, r.table, r.dataset, r.noise, r.rate, r.method_slug, r.setting, r.metric) for r in published()]
    assert len(keys) == 756 and len(set(keys)) == len(keys)
    for row in published():
        assert row.value == "" or float(row.value) >= 0, row


@pytest.mark.parametrize("slug", sorted(methods()))
def test_every_method_states_its_cost_and_where_it_comes_from(slug: str) -> None:
    cls = methods()[slug]
    assert cls.cost and cls.paper and cls.__doc__, f"{slug} needs `cost`, `paper` and a docstring"


@pytest.mark.parametrize("slug", sorted(slug for slug, cls in methods().items() if cls.code))
def test_every_method_with_released_code_agrees_with_it(slug: str) -> None:
    """Figures of the committed comparison; where there are none the page says why."""
    path = PARITY / f"{slug}.json"
    assert path.is_file(), f"run tests/parity/{method_page._module(slug)}.py with the released code"
    found = json.loads(path.read_text())
    assert found["slug"] == slug and found["reference"] == methods()[slug].code
    if found["compared"]:
        assert (PARITY / f"{method_page._module(slug)}.py").is_file()
        assert max(item["max_abs_difference"] for item in found["compared"]) <= 1e-5
    else:
        assert found["notes"]
