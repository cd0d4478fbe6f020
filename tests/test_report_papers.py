"""The published tables: every number of `published.csv` stands in its cell, in every format, and no other number does.

What a table prints above and beside a number is written down here by hand, apart from the layouts. The golden files
`tests/golden/papers/*` hold tables of every kind; `BENCH_REGENERATE_GOLDEN=1 pytest tests/test_report_papers.py` writes
them anew.
"""

from __future__ import annotations

import csv
import html
import io
import os
import re
import shutil
import subprocess
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.report.papers import paper_sheet, render_paper
from bench.report.published import Published, published
from bench.report.schema import names
from bench.report.spec import FORMATS

GOLDEN = Path(__file__).parent / "golden" / "papers"
TABLES = [
    "llc-dro-table1", "llc-dro-table2", "llc-dro-table3", "llc-dro-table4", "mtadcs-table1", "mtadcs-table2a", "mtadcs-table2b",
    "mtadcs-table3", "odd-table1", "odd-table4", "odd-table5", "scanmix-table1", "scanmix-table2", "scanmix-table3",
    "scanmix-table4",
]  # fmt: skip
#: one table of each kind: stacked blocks with a merged cell; venues, averages, second best; check marks; two numbers in a
#: cell; groups of rows; sub-rows, ties and starred cells
KINDS = ["llc-dro-table1", "mtadcs-table1", "mtadcs-table3", "odd-table4", "odd-table5", "scanmix-table1"]
DATA = {
    "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "celeba": "CelebA", "waterbirds": "Waterbirds", "webvision": "WebVision",
    "ilsvrc12-val": "ILSVRC12", "imagenet-val": "ImageNet",
}  # fmt: skip
NETWORKS = {"semantic-densenet": "DenseNet", "semantic-resnet": "ResNet", "semantic-vgg": "VGG"}
#: text by the labels beside a cell and the heads above it
Cells = dict[tuple[tuple[str, ...], tuple[str, ...]], str]
LABELS = {"Ours": "LLC + refurbish-DRO", "Coteaching+": "Co-teaching+"}


def rows_of(table: str) -> list[Published]:
    return [item for item in published() if f"{item.paper}-{item.table}" == table]


def path_of(table: str, item: Published) -> tuple[str, ...]:
    """The heads above a number, from the widest to its own."""
    data = DATA.get(item.dataset, "")
    rate = f"{100 * float(item.rate):g}" if item.rate else ""
    group = {"avg": "Avg.", "worst": "Worst"}.get(item.metric, "")
    kind = "Sym" if item.noise == "symmetric" else "Asym"
    if table == "llc-dro-table1":
        return data, f"{rate}%", group
    if table == "llc-dro-table2":
        return data, f"{kind}.", f"{rate}%"
    if table == "llc-dro-table3":
        return data or "Mini-WebVision", item.metric.replace("top", "top-")
    if table == "llc-dro-table4":
        return f"{rate}% noise rate", group
    if table == "mtadcs-table1" and item.metric == "avg":
        return data, "", "Avg"
    if table in ("mtadcs-table1", "mtadcs-table2a", "mtadcs-table3"):
        return data, kind, f"{rate}%"
    if table == "mtadcs-table2b":
        return data or "WebVision", item.metric
    if table == "scanmix-table2":
        return data, f"{NETWORKS[item.noise]} ({rate}%)"
    if table == "scanmix-table3":
        return ("Test accuracy",)
    if table.startswith("scanmix"):
        return data, f"{kind.lower()}.", f"{rate}%"
    return {"odd-table1": (data, rate), "odd-table4": (data,), "odd-table5": ("Accuracy",)}[table]


def labels_of(table: str, item: Published) -> tuple[str, ...]:
    """The labels beside a number."""
    if table in ("llc-dro-table4", "mtadcs-table3"):
        marks = ["✓" * int(part[-1]) for part in item.setting.split()[1:]]
        if "uncertain row" in item.note:
            marks[max(i for i, mark in enumerate(marks) if mark)] += "?"
        return tuple(marks)
    label = LABELS.get(item.method, item.method).replace(" (Ours)", "").replace(" ★", "★")
    if table == "odd-table5":
        return label, item.setting.replace("+", " + ")
    return (label, item.metric.capitalize()) if item.metric in ("best", "last") else (label,)


@cache
def expected(table: str) -> Cells:
    """Text of each cell with a number, by labels and heads."""
    found: Cells = {}
    for item in rows_of(table):
        at = labels_of(table, item), path_of(table, item)
        text = item.value or "Not converged"
        if table == "scanmix-table1" or table == "scanmix-table4":
            text += "*" * (item.method_slug == "dividemix" and item.rate == "0.49")
        found[at] = f"{found[at]} ({text})" if table == "odd-table4" and at in found else text
    return found


def without_dashes(cells: Cells) -> Cells:
    return {at: text for at, text in cells.items() if text != "–"}


class Rows(HTMLParser):
    """Rows of each table, cells repeated over the columns and lines that they span; `heads`: how many rows are heads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[dict[int, str]]] = []
        self.heads: list[int] = []
        self.cell: list[str] | None = None
        self.small = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        spans = {name: int(value) for name, value in attrs if value and name in ("rowspan", "colspan")}
        if tag == "table":
            self.tables.append([])
            self.line = -1
        elif tag == "tr":
            self.line += 1
        elif tag in ("td", "th"):
            self.cell, self.spans = [], spans
        self.small = self.small or tag == "sub"

    def handle_data(self, data: str) -> None:
        if self.cell is not None and not self.small:
            self.cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "sub":
            self.small = False
        elif tag == "thead":
            self.heads.append(self.line + 1)
        elif tag in ("td", "th") and self.cell is not None:
            rows = self.tables[-1]
            text = "".join(self.cell).strip()
            while len(rows) < self.line + self.spans.get("rowspan", 1):
                rows.append({})
            start = next(i for i in range(100) if i not in rows[self.line])
            for line in range(self.line, self.line + self.spans.get("rowspan", 1)):
                rows[line].update({start + i: text for i in range(self.spans.get("colspan", 1))})
            self.cell = None

    def matrices(self) -> list[list[list[str]]]:
        return [[[row[i] for i in sorted(row)] for row in rows] for rows in self.tables]


def keyed(matrix: list[list[str]], heads: int, stub: int) -> Cells:
    paths = list(zip(*(row[stub:] for row in matrix[:heads]), strict=True))
    cells = {}
    for row in matrix[heads:]:
        for path, text in zip(paths, row[stub:], strict=True):
            assert (tuple(row[:stub]), path) not in cells
            cells[tuple(row[:stub]), path] = text
    return cells


def stub_of(table: str) -> int:
    return {"llc-dro-table4": 2, "mtadcs-table3": 6, "odd-table5": 2, "llc-dro-table2": 2, "scanmix-table1": 2}.get(table, 1)


def test_there_is_a_layout_for_every_published_table() -> None:
    assert sorted(TABLES) == list(names())
    assert {f"{item.paper}-{item.table}" for item in published() if item.table != "prose"} == set(TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_html_holds_every_number_in_its_cell_and_no_other(table: str) -> None:
    found = Rows(render_paper(table, "html"))
    cells: Cells = {}
    for matrix, heads in zip(found.matrices(), found.heads, strict=True):
        cells.update(keyed(matrix, heads, stub_of(table)))
    assert without_dashes(cells) == expected(table)


def markdown_matrix(lines: list[str]) -> list[list[str]]:
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [[plain_markdown(cell) for cell in row] for row in rows]


def plain_markdown(cell: str) -> str:
    cell = re.sub(r" <sub>.*?</sub>", "", cell)
    cell = re.sub(r"</?(sup|ins)>", "", cell)
    cell = re.sub(r"(?<!\\)\*", "", cell)
    return html.unescape(re.sub(r"\\(.)", r"\1", cell))


@pytest.mark.parametrize("table", TABLES)
def test_markdown_holds_every_number_in_its_cell_and_no_other(table: str) -> None:
    stub = stub_of(table)
    cells: Cells = {}
    for block in re.findall(r"(?:^\|.*\n)+", render_paper(table, "md"), flags=re.M):
        head, _, *body = markdown_matrix(block.strip().split("\n"))
        above: list[str] = [""] * stub
        for row in body:
            if table in ("llc-dro-table2", "scanmix-table1"):  # the method spans two lines: the second is empty
                above = [row[0] or above[0], row[1]]
            labels = above if any(above) else row[:stub]
            for path, text in zip(head[stub:], row[stub:], strict=True):
                cells[tuple(labels), tuple(path.split("<br>"))] = text
    bare = {(labels, tuple(filter(None, path))): text for (labels, path), text in expected(table).items()}
    assert without_dashes(cells) == bare


def tex_matrix(text: str) -> list[list[str]]:
    """The lines of the tabular, cells repeated over the columns that they span, without any command."""
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    body = re.sub(r"\\(toprule|midrule|addlinespace|cmidrule\(lr\)\{[\d-]+\})", "", body)
    rows = []
    for line in filter(str.strip, body.split(r"\\")):
        row: list[str] = []
        for cell in re.split(r"(?<!\\)&", line):
            span = re.match(r"\s*\\multicolumn\{(\d+)\}\{c\}\{(.*)\}\s*$", cell, flags=re.S)
            row += [plain_tex(span[2] if span else cell)] * (int(span[1]) if span else 1)
        rows.append(row)
    return rows


def plain_tex(cell: str) -> str:
    cell = re.sub(r" \\textsubscript\{[^}]*\}", "", cell)
    cell = cell.replace(r"\checkmark", "✓").replace(r"$\star$", "★").replace("{*}", "*").replace("~", " ").replace(r"\%", "%")
    cell = re.sub(r"\\multirow\{\d\}\*", "", cell)
    cell = re.sub(r"\\(textbf|underline|textit|textsuperscript)", "", cell)
    return re.sub(r"[{}]", "", cell).replace("--", "–").strip()


@pytest.mark.parametrize("table", TABLES)
def test_latex_holds_the_lines_of_the_html_table(table: str) -> None:
    found = Rows(render_paper(table, "html"))
    lines = [row for matrix in found.matrices() for row in matrix]
    rows = tex_matrix(render_paper(table, "tex"))
    stub = stub_of(table)
    for row, line in zip(rows, lines, strict=True):
        assert row[stub:] == line[stub:]
        assert all(own in ("", other) for own, other in zip(row[:stub], line[:stub], strict=True))


@pytest.mark.parametrize("table", TABLES)
def test_csv_holds_every_number_under_its_key_and_no_other(table: str) -> None:
    keys = ("dataset", "noise", "rate", "setting", "metric")
    lines = list(csv.DictReader(io.StringIO(render_paper(table, "csv"))))
    found = {(line["method"], *(line[key] for key in keys)): line["value"] for line in lines if line["status"] != "absent"}
    assert found == {(item.method_slug, *(getattr(item, key) for key in keys)): item.value for item in rows_of(table)}
    assert {line["unit"] for line in lines if line["value"]} == {"%"}


@pytest.mark.parametrize("table", TABLES)
def test_text_holds_the_numbers_line_by_line(table: str) -> None:
    body = "\n".join(part for part in render_paper(table, "text").split("\n\n") if "───" in part)
    numbers = re.findall(r"\b\d+\.\d+\b", body)
    assert sorted(numbers) == sorted(item.value for item in rows_of(table) if item.value)


# -- marks -------------------------------------------------------------------------------------------------------------
def marked(table: str, tag: str) -> dict[tuple[str, ...], list[str]]:
    """Values within a tag of the HTML, by the labels of their line."""
    found: dict[tuple[str, ...], list[str]] = {}
    for line in re.findall(r"<tr>(.*?)</tr>", render_paper(table, "html")):
        labels = re.findall(r"<th scope=\"row(?:group)?\"[^>]*>([^<]*)", line)
        values = re.findall(rf"<{tag}>([^<]*)</{tag}>", line)
        if values:
            found[tuple(label.strip() for label in labels)] = values
    return found


def test_second_best_of_mtadcs_are_those_that_the_paper_underlines() -> None:
    assert marked("mtadcs-table1", "u") == {
        ("RRL",): ["95.8", "94.3"], ("Sel-CL+",): ["93.4"],
        ("TCL",): ["92.5", "89.4", "92.7", "78.0", "65.0", "54.5", "67.7"], ("MTaDCS",): ["74.1"],
    }  # fmt: skip


def test_scanmix_bold_is_within_one_point_best_and_last_apart() -> None:
    bold = marked("scanmix-table1", "b")
    assert bold["MixUp", "Best"] == ["95.6"]  # 96.1 - 95.6
    assert bold["DivideMix", "Best"] == ["96.1", "94.6", "93.2", "93.4", "77.3"]
    assert bold["Last",] == ["95.7", "93.9", "92.6", "90.3", "93.4", "87.1", "76.0", "75.4", "65.0", "58.2"]
    assert marked("scanmix-table2", "b")["DivideMix",] == ["68.40", "66.84"]


def test_bold_of_the_slides_is_as_printed() -> None:
    assert marked("odd-table1", "b") == {("LUO",): ["96.2"], ("ODD + mixup",): ["97.2", "95.6", "95.5", "82.5", "79.1", "76.5"]}
    assert [*marked("odd-table5", "b").items()] == [
        (("ODD", "noisy"), ["73.5"]), (("Loss Correction", "noisy + clean"), ["80.4"]), (("ODD", "noisy + clean"), ["80.3"]),
    ]  # fmt: skip


def test_an_unknown_table_or_format_is_named() -> None:
    with pytest.raises(ValueError, match="unknown published table 'llc-dro-table9'; did you mean 'llc-dro-table"):
        render_paper("llc-dro-table9", "md")
    with pytest.raises(ValueError, match="unknown table format 'doc'"):
        render_paper("llc-dro-table1", "doc")


# -- exact bytes and LaTeX ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("table", KINDS)
def test_golden(table: str, fmt: str) -> None:
    text = render_paper(table, fmt)
    path = GOLDEN / f"{table}.{fmt}"
    if os.environ.get("BENCH_REGENERATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
    assert path.read_bytes().decode() == text


def compile_tex(folder: Path, name: str) -> str:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-extra)")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, env=os.environ | {"max_print_line": "999"})
    log = (folder / f"{name}.log").read_text(errors="replace")
    assert done.returncode == 0, log[-2000:]
    return log


@pytest.mark.parametrize("table", TABLES)
def test_every_table_compiles_alone(table: str, tmp_path: Path) -> None:
    (tmp_path / f"{table}.tex").write_text(render_paper(table, "tex"))
    assert "Overfull \\hbox" not in compile_tex(tmp_path, table)


@pytest.mark.parametrize("packages", ["amssymb,booktabs,multirow,graphicx", "booktabs,multirow,graphicx"])
def test_all_tables_compile_by_input_in_one_paper(packages: str, tmp_path: Path) -> None:
    for table in TABLES:
        (tmp_path / f"{table}.tex").write_text(render_paper(table, "tex"))
    inputs = "\n".join(rf"\input{{{table}}}" for table in TABLES)
    head = rf"\documentclass[twocolumn]{{article}}\usepackage[T1]{{fontenc}}\usepackage{{{packages}}}"
    (tmp_path / "paper.tex").write_text(rf"{head}\begin{{document}}{inputs}\end{{document}}")
    log = compile_tex(tmp_path, "paper")
    assert "Overfull \\hbox" not in log and "multiply defined" not in log


def test_tables_have_the_names_of_their_files() -> None:
    assert all(rf"\label{{tab:{table}}}" in render_paper(table, "tex") for table in TABLES)
    assert all(paper_sheet(table).name == table for table in TABLES)
