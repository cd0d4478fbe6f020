"""LaTeX: one file that compiles alone and that a paper can `\\input`."""

from __future__ import annotations

from bench.report.aggregate import TableData
from bench.report.escape import slug, tex
from bench.report.layout import Cell, Grid, build_grids, caption_text
from bench.report.spec import TableSpec

# \@nodocument is an error macro before \begin{document} and \relax after it: it tells whether this file is being read
# inside a document (then it is only the tables) or compiled by itself (then it brings its own document).
HEAD = r"""% Compiles alone, and by \input in a document with \usepackage{booktabs,multirow,graphicx}.
\expandafter\ifx\csname @nodocument\endcsname\relax
  \def\benchtableend{}%
\else
  \documentclass{article}
  \usepackage[a4paper,landscape,margin=15mm]{geometry}
  \usepackage[T1]{fontenc}
  \usepackage[utf8]{inputenc}
  \IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
  \usepackage{booktabs,multirow,graphicx}
  \begin{document}\pagestyle{empty}%
  \def\benchtableend{\end{document}}%
\fi
"""


def render_tex(data: TableData, spec: TableSpec) -> str:
    """A `table*` float for each block, each with its whole caption and notes, so that one can be taken by itself."""
    labels: list[str] = []
    floats = []
    for grid in build_grids(data, spec):
        label = f"{slug(data.suite)}-{slug(grid.key)}"
        labels.append(label)
        number = labels.count(label)
        floats.append(_float(data, grid, spec, label if number == 1 else f"{label}-{number}"))
    return "\n".join([HEAD, *floats, "\\benchtableend\n"])


def _float(data: TableData, grid: Grid, spec: TableSpec, label: str) -> str:
    heading = f"{tex(data.title)}: {tex(grid.heading)}{_marks(grid.heading_marks)}"
    lines = [
        r"\begin{table*}[!htbp]",
        r"\centering\small",
        rf"\caption{{{heading}. {tex(caption_text(grid, spec))}}}",
        rf"\label{{tab:{label}}}",
        r"\vspace{\medskipamount}",
        r"\setbox0=\hbox{%",
        *_tabular(grid),
        r"}%",
        r"\leavevmode\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\box0}\else\box0\fi",
        *_notes(grid),
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _tabular(grid: Grid) -> list[str]:
    columns = "ll" + "".join("c" * len(subs) for _, _, subs in grid.groups)
    lines = [rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}", r"\toprule", *_header(grid), r"\midrule"]
    for index, line in enumerate(grid.lines):
        if index and line.height:
            lines.append(r"\addlinespace")
        name = f"{tex(line.label)}{_marks(line.marks)}" if line.height else ""
        if line.height > 1:
            name = rf"\multirow{{{line.height}}}{{*}}{{{name}}}"
        cells = [_cell(cell) for group in line.groups for cell in group]
        lines.append(" & ".join([name, tex(line.sub_label), *cells]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}%"]


def _header(grid: Grid) -> list[str]:
    stub = [tex(text) for text in grid.stub]
    if grid.single_header:
        return [" & ".join([*stub, *(f"{tex(label)}{_marks(marks)}" for label, marks, _ in grid.groups)]) + r" \\"]
    upper = [rf"\multicolumn{{{len(subs)}}}{{c}}{{{tex(label)}{_marks(marks)}}}" for label, marks, subs in grid.groups]
    lower = [tex(sub) for _, _, subs in grid.groups for sub in subs]
    rules, start = [], 3
    for _, _, subs in grid.groups:
        rules.append(rf"\cmidrule(lr){{{start}-{start + len(subs) - 1}}}")
        start += len(subs)
    return [" & ".join(["", "", *upper]) + r" \\", " ".join(rules), " & ".join([*stub, *lower]) + r" \\"]


def _cell(cell: Cell) -> str:
    value = tex(cell.value)
    value = {"best": rf"\textbf{{{value}}}", "second": rf"\underline{{{value}}}"}.get(cell.rank, value)
    if cell.spread:
        value += rf"\,{{\scriptsize$\pm$\,{cell.spread}}}"
    if cell.n:
        value += rf"\,{{\scriptsize({tex(cell.n)})}}"
    value += _marks(cell.marks)
    return rf"\multicolumn{{{cell.span}}}{{c}}{{{value}}}" if cell.span > 1 else value


def _notes(grid: Grid) -> list[str]:
    notes = [f"{_marks([mark])}~{tex(text)}" for mark, text in grid.footnotes]
    notes += [tex(f"{label}: {text}" if label else text) for label, text in grid.noise]
    if not notes:
        return []
    begin = r"\begin{minipage}{\linewidth}\footnotesize\raggedright\sloppy"
    return [r"\par\smallskip", begin, "\\par\n".join(notes), r"\end{minipage}"]


def _marks(marks: list[str]) -> str:
    return rf"\textsuperscript{{{','.join(tex(mark) for mark in marks)}}}" if marks else ""
