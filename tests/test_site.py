"""The static site: what its pages say, that nothing in a record can become markup, exact bytes, links, and a real browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from click.testing import CliRunner, Result
from finished import made_up_record
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cell import cell_id
from bench.cli_site import FILES, site
from bench.records import write_record
from bench.report.site import SiteSuite, site_files
from bench.report.site.charts import heat, line_chart, sparkline
from bench.report.site.names import file_name

STATIC = Path(__file__).parents[1] / "bench" / "report" / "site" / "static"
HOSTILE = '<script>alert(1)</script>"\'><img src=x onerror=alert(2)>{{ 7*7 }}</script>\u2028\u202e&amp;javascript:alert(3)'
PROTOCOLS = ("last", "last_k", "best_oracle", "selected")
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 8).decode()

# method -> accuracy after the last epoch of seeds 0 and 1, or a status
OUTCOMES: dict[str, list[Any]] = {"erm": [0.50, 0.54], "elr": [0.90, 0.94], "gce": ["failed", 0.70], "odd": ["diverged", None]}


def make_cell(method: str, seed: int, noise: str = "symmetric", rate: float = 0.5, dataset: str = "digits") -> dict[str, Any]:
    return {
        "dataset": {"name": dataset}, "noise": {"kind": noise, "rate": rate}, "model": {"name": "tiny-cnn"},
        "method": {"name": method, "params": {"lam": 3.0}}, "training": {"epochs": 4, "lr": 0.05},
        "protocol": {"last_k": 3}, "seed": seed,
    }  # fmt: skip


def make_record(cell: dict[str, Any], outcome: Any, suite: str = "small", **changes: Any) -> dict[str, Any]:
    """A record whose oracle value is 0.05 above the last one, or a failed one."""
    record = made_up_record(cell, cell_id(cell), suite)
    if isinstance(outcome, str):
        record |= {"status": outcome, "reason": f"{outcome} on purpose", "metrics": {}, "curve": {}, "noise": {}, "data": {}}
        return record | changes
    accuracy = {f"test_acc_{p}": outcome + 0.05 * (p == "best_oracle") for p in PROTOCOLS}
    record["metrics"] = accuracy | {f"noise_auc_{p}": 0.75 for p in PROTOCOLS} | {"epoch_best_oracle": 1, "epoch_selected": 3}
    record["curve"] = {"epoch": [0, 1, 2, 3], "test_acc": [0.1, outcome + 0.05, 0.3, outcome], "train_loss": [2.0, 1.0, 0.5, 0.4]}
    record["detail"] = {"confusion_last": [[7, 3], [0, 10]]}
    return record | changes


def make_entry(cell: dict[str, Any], **changes: Any) -> dict[str, Any]:
    noise, method = cell["noise"], cell["method"]["name"]
    entry = {"id": cell_id(cell), "dataset": cell["dataset"]["name"], "noise": f"{noise['kind']}@{noise['rate']:g}"}
    needs = ["noise_rate"] if method == "gce" else []
    return entry | {
        "method": method, "seed": cell["seed"], "title": method.upper(), "needs": needs, "networks": 1, "skip": None,
    } | changes  # fmt: skip


def small_suite(**changes: Any) -> SiteSuite:
    entries, records = [], {}
    for noise, rate in (("symmetric", 0.5), ("asymmetric", 0.4)):
        for method, outcomes in OUTCOMES.items():
            for seed, outcome in enumerate(outcomes):
                cell = make_cell(method, seed, noise, rate)
                entries.append(make_entry(cell))
                if outcome is not None:
                    records[cell_id(cell)] = make_record(cell, outcome)
    skipped = make_cell("odd", 2)
    entries.append(make_entry(skipped, skip="too large for this machine"))
    values: dict[str, Any] = {"title": "A small suite", "description": "Two noises."}
    values["commands"] = {key: f"run {key}" for key in records}
    values["raw"] = {key: json.dumps(record).encode() for key, record in records.items()}
    return SiteSuite("small", entries, records, **values | changes)


def build(*suites: SiteSuite) -> dict[str, str]:
    """Text of every file by its path; figures and records included."""
    found = [(name, data.decode()) for name, data in site_files(suites or (small_suite(),), "Results")]
    assert len({name.lower() for name, _ in found}) == len(found)
    return dict(found)


class Page(HTMLParser):
    """Tags with the names of their attributes, addresses, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "action", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def page_of(files: dict[str, str], method: str, seed: int = 0, **axes: Any) -> str:
    return files[f"small/{cell_id(make_cell(method, seed, **axes))}.html"]


def rows_of(text: str) -> list[list[str]]:
    """The texts of the cells of every line of the result table."""
    body = text.split('<table class="results">')[1].split("<tbody>")[1].split("</tbody>")[0]
    return [[Page(cell).text for cell in re.findall(r"<t[hd][ >].*?</t[hd]>", row, re.S)] for row in body.split("<tr>")[1:]]


# -- content -----------------------------------------------------------------------------------------------------------
def test_the_index_counts_the_cells_of_a_suite_by_state() -> None:
    text = Page(build()["index.html"]).text
    assert "A small suite" in text and "Two noises." in text
    assert "10 done" in text and "2 failed" in text and "2 not converged" in text and "1 skipped" in text and "2 not run" in text


def test_a_row_shows_mean_spread_and_the_reason_of_what_is_absent() -> None:
    rows = {(row[0], row[2]): row for row in rows_of(build()["small/index.html"])}
    # sample standard deviation of 90 and 94 is 2.83
    assert rows["ELR", "symmetric@0.5"][3:7] == ["92.0 ± 2.8", "92.0 ± 2.8", "97.0 ± 2.8", "92.0 ± 2.8"]
    gce = rows["GCE a", "symmetric@0.5"]
    assert gce[3] == "70.0 (1/2)"
    assert any("partly done failed (1 of 2 seeds): failed on purpose" in cell for cell in gce)
    odd = rows["ODD", "symmetric@0.5"]
    assert odd[3] == "not converged"
    assert any("not converged (1 of 3 seeds)" in c and "not run (1 of 3 seeds)" in c and "too large for this" in c for c in odd)
    assert not any(re.search(r"\d\d\.\d", cell) for cell in odd)


def test_only_complete_rows_compete_for_the_best_mark() -> None:
    text = build()["small/index.html"]
    assert "<b>92.0 ± 2.8</b>" in text
    assert "<b>70.0" not in text and "<b>52.0" not in text


def test_needs_are_marked_and_explained() -> None:
    files = build()
    assert "a is told the noise rate of the training labels (privileged information)" in Page(files["small/index.html"]).text
    assert "is told the noise rate" in Page(files["methods/gce.html"]).text
    assert "Nothing beyond images and given labels" in Page(files["methods/elr.html"]).text


def test_the_published_number_stands_beside_the_papers_own_data_set_alone() -> None:
    def published(dataset: str, canonical: bool = True) -> str:
        cell = make_cell("dividemix", 0, dataset=dataset)
        record = make_record(cell, 0.9)
        record["data"]["canonical"] = canonical
        suite = SiteSuite("small", [make_entry(cell)], {cell_id(cell): record})
        return Page(build(suite)["small/index.html"]).text

    assert "94.6 best, 94.4 last (scanmix table1)" in published("cifar10")
    assert "scanmix table1" not in published("digits")
    marked = published("cifar10", canonical=False)
    assert "scanmix table1" in marked and "†" in marked and "†" not in published("cifar10")


def test_a_published_number_needs_no_record() -> None:
    suite = SiteSuite("small", [make_entry(make_cell("dividemix", 0, dataset="cifar10"))], {})
    text = Page(build(suite)["small/index.html"]).text
    assert "94.6 best, 94.4 last (scanmix table1)" in text and "not run" in text


def test_the_page_of_a_cell_holds_the_whole_record() -> None:
    files = build()
    text = Page(page_of(files, "elr")).text
    identity = cell_id(make_cell("elr", 0))
    assert f"run {identity}" in text
    assert "params.lam 3.0" in text and "last_k 3" in text and "lr 0.05" in text
    assert "acc. 90.00 90.00 95.00 90.00" in text and "epoch, counted from 1 2 4" in text
    assert "made up" in text and "rate 0.45" in text and "0 7 3" not in text and "a 7 3 b 0 10" in text
    assert "fingerprint" in text and "train 1 s" in text and "git_commit null" in text
    assert '<path class="line c0" d="M' in page_of(files, "elr")
    assert json.loads(files[f"small/{identity}.json"])["id"] == identity


def test_the_page_of_a_failed_cell_says_why() -> None:
    cell = make_cell("gce", 0)
    suite = SiteSuite("small", [make_entry(cell)], {cell_id(cell): make_record(cell, "failed", traceback="in f\n    g(<x>)")})
    page = page_of(build(suite), "gce")
    assert "failed on purpose" in Page(page).text
    assert "in f\n    g(&lt;x&gt;)" in page


def test_a_record_outside_of_the_plan_is_listed_and_enters_no_number() -> None:
    extra = make_cell("elr", 7)
    whole = small_suite()
    files = build(small_suite(), SiteSuite("more", whole.entries, {**whole.records, cell_id(extra): make_record(extra, 0.1)}))
    assert rows_of(files["small/index.html"]) == rows_of(files["more/index.html"])
    assert "seed 7" in files["more/index.html"].split("Records outside of the plan")[1]
    assert "does not name this record" in files[f"more/{cell_id(extra)}.html"]


def test_watched_pictures_are_shown_and_what_is_no_picture_is_not() -> None:
    samples = [
        {"index": 5, "given": 0, "true": 1, "score": 0.01, "png": PNG},
        {"index": 6, "given": 0, "true": 1, "score": 0.02, "png": "javascript:alert(1)"},
        {"index": 7, "given": 1, "true": 1, "score": 0.03, "png": PNG},
        {"index": 8, "given": 1, "true": None, "score": 0.04, "png": PNG},
    ]
    watched = {"gallery": {"kind": "gallery", "classes": ["cat", "dog"], "at": {"3": samples}}, "loss": {"kind": "values"}}
    cell = make_cell("elr", 0)
    text = page_of(build(SiteSuite("small", [make_entry(cell)], {cell_id(cell): make_record(cell, 0.9, watched=watched)})), "elr")
    assert f"data:image/png;base64,{PNG}" in text and text.count("<img") == 3 and "javascript" not in text
    assert re.findall('<li class="(right|wrong|unknown)"><img', text) == ["wrong", "right", "unknown"]
    assert "given cat true dog" in Page(text).text and "epoch 4" in text and "Also watched, in the record: loss" in text


def test_one_method_of_two_suites_has_one_page() -> None:
    whole = small_suite()
    text = Page(build(whole, SiteSuite("other", whole.entries, whole.records))["methods/elr.html"]).text
    assert "4 of" not in text and text.count("92.0 ± 2.8") == 3 * 4  # 3 protocols with that value, 2 noises, 2 suites


# -- charts ------------------------------------------------------------------------------------------------------------
def test_a_large_matrix_is_a_picture_of_few_bytes() -> None:
    size = 100
    found = heat([[1 / size] * size for _ in range(size)], [str(i) for i in range(size)])
    assert found is not None and found.rows == [] and len(found.image) < 4000
    assert base64.b64decode(found.image.partition(",")[2]).startswith(b"\x89PNG")


NO_MATRIX = [None, "x", [], [[1, 2]], [[1, None], [0, 1]], [[0.5, float("nan")], [0, 1]], [["a", "b"], [1, 2]]]


@pytest.mark.parametrize("matrix", NO_MATRIX)
def test_what_is_no_matrix_is_not_drawn(matrix: Any) -> None:
    assert heat(matrix, ["a", "b"]) is None


def test_a_matrix_is_shaded_by_its_rows() -> None:
    found = heat([[7, 3], [0, 10]], ["a", "b"], counts=True)
    assert found is not None and found.rows == [[("7", 6), ("3", 3)], [("0", 0), ("10", 9)]]


def test_charts_without_numbers_are_empty() -> None:
    assert line_chart({"a": []}, "label", "unit") == "" and sparkline([(1, 2.0)], 0, 1, "label") == ""


def test_a_line_passes_through_its_corners() -> None:
    svg = line_chart({"a": [(1, 0.0), (5, 100.0)]}, "label", "per cent")
    assert 'd="M44.0 206.0L628.0 10.0"' in svg
    assert [text for text in re.findall(r'text-anchor="end">(\d+)<', svg)] == ["0", "20", "40", "60", "80", "100"]


# -- safety ------------------------------------------------------------------------------------------------------------
def suite_with(text: str) -> SiteSuite:
    """A suite all of whose words are `text`: labels, reasons, classes, groups, warnings, commands, names of values."""
    cell = make_cell(text, 0)
    cell["dataset"] |= {"name": text, f"k{text}": text}
    failed = make_cell(f"{text}2", 1, dataset=text)
    record = make_record(cell, 0.9, warnings=[text], provenance={text: text, "nested": {text: [text]}})
    record["noise"] |= {"definition": text, "classes": [text, text], text: text}
    record["data"] |= {"groups": [text], "validation": text, "notes": [text]}
    record["metrics"] |= {f"group_acc_{p}": {text: 0.5} for p in PROTOCOLS}
    sample = {"index": text, "given": text, "true": text, "score": 0.5, "png": PNG}
    record["watched"] = {text: {"kind": "gallery", "classes": [text], "at": {f"e{text}": [sample]}}, f"o{text}": {"kind": text}}
    bad = make_record(failed, "failed", reason=text, traceback=text)
    noise = f"n{text}"
    entries = [
        make_entry(cell, noise=noise, title=text, needs=[f"need{text}"]), make_entry(failed, noise=noise, title=text, skip=None),
        make_entry(make_cell("erm", 3), dataset=text, noise=noise, skip=text),
    ]  # fmt: skip
    outside = make_cell("gce", 9, noise=text)
    return SiteSuite(
        f"s{text}", entries, {r["id"]: r for r in (record, bad, make_record(outside, 0.5))}, {},
        {cell_id(cell): text}, text, text, {f"{text}.svg": b"<svg/>"},
    )  # fmt: skip


def shapes(text: str) -> list[list[tuple[str, tuple[str, ...]]]]:
    return [Page(data.decode()).tags for name, data in site_files([suite_with(text)], text) if name.endswith(".html")]


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet="<>\"'&/=!-;abs{}%# \u2028\n\0é", max_size=30).map(lambda text: f"a{text}z"))
def test_no_text_changes_the_tags_of_a_page(text: str) -> None:
    assert shapes(text) == shapes("abcz")


@pytest.mark.parametrize("text", [HOSTILE, "</script><!--", "]]>", "<svg/onload=alert(1)>", "${a(1)}", "\ud800\x00", "../../etc"])
def test_hostile_text_stays_text(text: str) -> None:
    assert shapes(f"a{text}z") == shapes("abcz")
    for name, data in site_files([suite_with(text)], text):
        assert re.fullmatch(r"[a-z0-9_.-]+(/[a-z0-9_.-]+){0,2}", name) and ".." not in name
        if name.endswith(".html"):
            page = data.decode()
            assert not re.search("[\x00-\x09\x0b-\x1f\u2028\u2029\u202a-\u202e\u2066-\u2069]", page)
            assert {tag for tag, _ in Page(page).tags if tag in ("script", "iframe", "object")} == {"script"}


def test_markup_has_no_handlers_and_no_inline_code() -> None:
    for text in build(suite_with(HOSTILE), small_suite()).values():
        if not text.startswith("<!DOCTYPE"):
            continue
        tags = Page(text).tags
        assert not [name for _, names in tags for name in names if name.startswith("on") or name in ("style", "srcdoc")]
        assert [names for tag, names in tags if tag == "script"] == [("src", "defer")]
        assert "Content-Security-Policy" in text


def test_names_of_files_are_plain_and_differ() -> None:
    assert file_name("learning-baselines") == "learning-baselines"
    assert len({file_name(name) for name in ("a+b", "a b", "A-b", "a-b", "", "..", "a-b-")}) == 7
    assert re.fullmatch("[a-z0-9-]+", file_name("../é" * 99))


def test_no_file_names_another_host() -> None:
    for name, text in build(small_suite(), suite_with("x")).items():
        if name.endswith((".html", ".css", ".js")):
            assert not re.search(r"(https?:)?//[a-z0-9]|@import|url\(", re.sub(r"^\s*//.*$", "", text, flags=re.M)), name


def test_links_lead_to_files_of_the_site() -> None:
    files = build(small_suite(figures={"accuracy.svg": b"<svg/>"}), suite_with(HOSTILE))
    seen = set()
    for name, text in files.items():
        if name.endswith(".html"):
            for address in Page(text).addresses:
                if address.startswith(("data:image/png;base64,", "data:,", "#")):
                    continue
                assert not urlsplit(address).scheme, address
                seen.add(urljoin(f"/{name}", address)[1:])
    assert seen <= set(files)
    assert set(files) - seen <= {"index.html"}  # and every file is reached


# -- the command -------------------------------------------------------------------------------------------------------
def on_disk(folder: Path) -> Path:
    """A results folder with the small suite, and one with records alone."""
    suite = small_suite()
    for record in suite.records.values():
        write_record(folder / "results" / "small", record)
    manifest = {"schema": 1, "suite": "small", "sources": {"small.yaml": "0"}, "entries": suite.entries}
    (folder / "results" / "small" / "plan.json").write_text(json.dumps(manifest))
    for lam in (1.0, 2.0):
        cell = make_cell("elr", 0)
        cell["method"]["params"]["lam"] = lam
        write_record(folder / "results" / "loose", make_record(cell, lam / 4, suite="loose"))
    return folder / "results"


def run(results: Path, out: Path, *more: str) -> Result:
    places = ["--results", str(results), "--out", str(out), "--suites", str(results.parent / "suites")]
    return CliRunner().invoke(site, [*places, *more])


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_command_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    results = on_disk(tmp_path)
    for name in ("one", "two"):
        done = run(results, tmp_path / name)
        assert done.exit_code == 0, done.output
    first = bytes_below(tmp_path / "one")
    assert first == bytes_below(tmp_path / "two")
    assert run(results, tmp_path / "one").exit_code == 0 and bytes_below(tmp_path / "one") == first
    identity = cell_id(make_cell("elr", 0))
    assert first[f"small/{identity}.json"] == (results / "small" / f"{identity}.json").read_bytes()
    text = Page(first[f"small/{identity}.html"].decode()).text
    assert "/small.yaml --only dataset=digits --only noise=symmetric@0.5 --only method=elr --only seed=0 --force" in text


def test_a_folder_without_plan_shows_each_setting_as_a_row(tmp_path: Path) -> None:
    assert run(on_disk(tmp_path), tmp_path / "out").exit_code == 0
    rows = rows_of((tmp_path / "out" / "loose" / "index.html").read_text())
    assert sorted(row[3] for row in rows) == ["25.0", "50.0"]


def test_pages_of_records_that_are_gone_are_removed_and_other_files_are_not_touched(tmp_path: Path) -> None:
    results, out = on_disk(tmp_path), tmp_path / "out"
    assert run(results, out).exit_code == 0
    (out / "mine.txt").write_text("mine")
    shutil.rmtree(results / "loose")
    assert run(results, out).exit_code == 0
    assert not list((out / "loose").glob("*")) and (out / "mine.txt").read_text() == "mine"
    assert set((out / FILES).read_text().split()) == set(bytes_below(out)) - {FILES, "mine.txt"}


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    results = on_disk(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("mine")
    done = run(results, tmp_path / "out")
    assert done.exit_code == 2 and "other files" in done.output
    assert (tmp_path / "out" / "index.html").read_text() == "mine"
    assert run(tmp_path / "nowhere", tmp_path / "new").exit_code == 3


def test_a_corrupt_record_is_named(tmp_path: Path) -> None:
    results = on_disk(tmp_path)
    path = results / "small" / f"{cell_id(make_cell('elr', 0))}.json"
    path.write_text(path.read_text().replace("0.9", "0.99", 1))
    done = run(results, tmp_path / "out")
    assert done.exit_code == 1 and path.name in done.output


# -- a real browser ----------------------------------------------------------------------------------------------------
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    for name, data in site_files([small_suite(), suite_with(HOSTILE)], "Results"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def _chromium(javascript: bool) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (pip install selenium)")
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("no Chromium with chromedriver on the path (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if not javascript:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from _chromium(javascript=True)


@pytest.fixture(scope="module")
def plain_browser() -> Iterator[Any]:
    yield from _chromium(javascript=False)


def visit(driver: Any, path: Path, state: str = "") -> None:
    """Load a page from the start; a change of the part after '#' alone would not."""
    driver.get("about:blank")
    driver.get(path.as_uri() + state)


def visible(driver: Any, selector: str) -> list[str]:
    return [item.text for item in driver.find_elements("css selector", selector) if item.is_displayed()]


def methods_shown(driver: Any) -> list[str]:
    return visible(driver, "table.results tbody th a")


def choose(driver: Any, name: str, value: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(driver.find_element("css selector", f"select[name={name}]")).select_by_value(value)


def head(driver: Any, text: str) -> Any:
    return next(item for item in driver.find_elements("css selector", ".results thead button") if item.text.startswith(text))


def test_browser_sorts_by_a_column(browser: Any, pages: Path) -> None:
    visit(browser, pages / "small" / "index.html")
    assert methods_shown(browser) == ["ERM", "ELR", "GCE", "ODD"] * 2
    head(browser, "acc. last").click()
    assert methods_shown(browser) == ["ELR", "ELR", "GCE", "GCE", "ERM", "ERM", "ODD", "ODD"]
    assert [h.get_attribute("aria-sort") for h in browser.find_elements("css selector", "th[aria-sort]")] == ["descending"]
    from selenium.webdriver.common.keys import Keys

    head(browser, "acc. last").send_keys(Keys.ENTER)  # the keyboard sorts too; rows without a number stay last
    assert methods_shown(browser) == ["ERM", "ERM", "GCE", "GCE", "ELR", "ELR", "ODD", "ODD"]
    head(browser, "Method").click()
    assert methods_shown(browser) == ["ELR", "ELR", "ERM", "ERM", "GCE", "GCE", "ODD", "ODD"]


def test_browser_filters_and_keeps_the_view_in_the_address(browser: Any, pages: Path) -> None:
    visit(browser, pages / "small" / "index.html")
    choose(browser, "method", "ELR")
    assert methods_shown(browser) == ["ELR", "ELR"] and visible(browser, "output") == ["2 of 8 rows"]
    choose(browser, "noise", "asymmetric@0.4")
    assert methods_shown(browser) == ["ELR"]
    browser.refresh()
    assert methods_shown(browser) == ["ELR"]
    browser.find_element("css selector", "button[type=reset]").click()
    assert len(methods_shown(browser)) == 8 and browser.current_url.endswith("#")
    browser.find_element("name", "q").send_keys("on purpose gce")
    assert methods_shown(browser) == ["GCE", "GCE"]
    choose(browser, "state", "done")
    assert methods_shown(browser) == [] and visible(browser, "output") == ["0 of 8 rows"]


def test_browser_switches_protocol_and_metric(browser: Any, pages: Path) -> None:
    visit(browser, pages / "small" / "index.html", "#sort=3d&metric=__proto__&noise=%3Cscript%3E")
    assert visible(browser, "th.num") == ["acc. last ↕"] or visible(browser, "th.num") == ["acc. last"]
    choose(browser, "protocol", "best_oracle")
    assert [text.removesuffix(" ↓") for text in visible(browser, "th.num")] == ["acc. best (oracle)"]
    assert visible(browser, "td.num")[:2] == ["97.0 ± 2.8", "97.0 ± 2.8"]  # still sorted, now by this column
    assert browser.find_element("css selector", "th[aria-sort=descending]").is_displayed()
    choose(browser, "metric", "all")
    choose(browser, "protocol", "all")
    assert len(visible(browser, "th.num")) == 8


def test_browser_opens_a_cell(browser: Any, pages: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    visit(browser, pages / "index.html")
    browser.find_element("link text", "A small suite").click()
    WebDriverWait(browser, 20).until(lambda driver: driver.title.startswith("A small suite"))
    browser.find_element("css selector", '[aria-label="ELR, digits, symmetric@0.5, seed 1"]').click()
    WebDriverWait(browser, 20).until(lambda driver: driver.title.startswith("elr, digits"))
    assert visible(browser, "h1") == ["ELR"]
    assert visible(browser, "pre.command") == [f"run {cell_id(make_cell('elr', 1))}"]
    assert browser.find_element("css selector", "svg.chart .line").size["width"] > 100
    heated = browser.find_element("css selector", "td.h9").value_of_css_property("background-color")
    assert heated != browser.find_element("css selector", "td.h0").value_of_css_property("background-color")


def test_browser_asks_nobody_else_and_runs_no_foreign_code(browser: Any, pages: Path) -> None:
    browser.get_log("performance")
    browser.get_log("browser")
    for path in sorted(pages.rglob("*.html")):
        browser.get(path.as_uri())  # an alert would raise here or below
        assert browser.execute_script("return document.scripts.length") == 1
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert any(address.endswith("site.js") for address in asked)
    assert [address for address in asked if not address.startswith((pages.as_uri(), "data:"))] == []
    assert browser.get_log("browser") == []  # no error, and nothing that the policy of the page had to refuse


@pytest.mark.parametrize("name", ["index.html", "small/index.html", "methods/elr.html", "small/CELL.html"])
def test_browser_fits_a_phone_and_follows_the_dark_setting(browser: Any, pages: Path, name: str) -> None:
    backgrounds = []
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        browser.get((pages / name.replace("CELL", cell_id(make_cell("elr", 0)))).as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        backgrounds.append(browser.execute_script("return getComputedStyle(document.documentElement).backgroundColor"))
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert backgrounds[0] == "rgb(255, 255, 255)" != backgrounds[1]


def test_browser_without_javascript_shows_the_whole_table(plain_browser: Any, pages: Path) -> None:
    visit(plain_browser, pages / "small" / "index.html")
    assert methods_shown(plain_browser) == ["ERM", "ELR", "GCE", "ODD"] * 2
    assert len(visible(plain_browser, "th.num")) == 8
    assert visible(plain_browser, "form.controls") == []
