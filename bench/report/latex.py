"""LaTeX: one file that compiles alone and that a paper can `\\input`."""

from __future__ import annotations

from bench.report.escape import slug, tex
from bench.report.layout import Cell, Grid, Label, Part, Sheet, caption_text

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


# Check marks come from amssymb; a paper that does not load it gets a sign that looks alike.
CHECK = "\\providecommand\\checkmark{\\ensuremath{\\surd}}\n"
RULES = {"gap": r"\addlinespace", "rule": r"\midrule"}


def render_tex(sheet: Sheet) -> str:
    """A `table*` float for each block, each with its whole caption and notes, so that one can be taken by itself."""
    labels: list[str] = []
    floats = []
    for grid in sheet.grids:
        label = "-".join(slug(text) for text in (sheet.name, grid.key) if text)
        labels.append(label)
        number = labels.count(label)
        floats.append(_float(sheet, grid, label if number == 1 else f"{label}-{number}"))
    checks = any(r"\checkmark" in text for text in floats)
    head = HEAD.replace("{booktabs", "{amssymb,booktabs") + CHECK if checks else HEAD
    return "\n".join([head, *floats, "\\benchtableend\n"])


def _float(sheet: Sheet, grid: Grid, label: str) -> str:
    heading = tex(sheet.title) + (f": {tex(grid.heading)}" if grid.heading else "") + _marks(grid.heading_marks)
    lines = [
        r"\begin{table*}[!htbp]",
        r"\centering\small",
        rf"\caption{{{heading}. {tex(caption_text(grid))}}}",
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
    first = grid.parts[0]
    stub = "".join("c" if _checks(grid, i) else "l" for i in range(len(first.stub[0])))
    lines = [rf"\begin{{tabular}}{{@{{}}{stub}{'c' * first.size}@{{}}}}", r"\toprule"]
    for part in grid.parts:
        lines += [r"\midrule"] if part is not first else []
        lines += [*_header(part), r"\midrule"]
        for index, line in enumerate(part.lines):
            lines += [RULES[line.above]] if line.above and index else []
            lines.append(" & ".join([*map(_label, line.labels), *map(_cell, line.cells)]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}%"]


def _checks(grid: Grid, column: int) -> bool:
    return all(isinstance(line.labels[column].text, bool) for line in grid.lines)


def _header(part: Part) -> list[str]:
    lines = []
    if part.heading:
        lines.append(rf"\multicolumn{{{len(part.stub[0]) + part.size}}}{{l}}{{\textit{{{tex(part.heading)}}}}} \\")
    rows = part.shown
    for stub, heads in rows[:-1]:
        cells = [rf"\multicolumn{{{head.span}}}{{c}}{{{tex(head.text)}{_marks(head.marks)}}}" for head in heads]
        lines.append(" & ".join([*map(tex, stub), *cells]) + r" \\")
        rules, start = [], len(stub) + 1
        for head in heads:
            rules += [rf"\cmidrule(lr){{{start}-{start + head.span - 1}}}"] if head.text else []
            start += head.span
        lines.append(" ".join(rules))
    stub, heads = rows[-1]
    return [*lines, " & ".join([*map(tex, stub), *(f"{tex(h.text)}{_marks(h.marks)}" for h in heads)]) + r" \\"]


def _label(label: Label) -> str:
    if not label.height:
        return ""
    if isinstance(label.text, bool):
        return rf"\checkmark{_marks(label.marks)}" if label.text is True else _marks(label.marks)
    text = tex(label.text) + (rf" \textsubscript{{{tex(label.subscript)}}}" if label.subscript else "") + _marks(label.marks)
    return rf"\multirow{{{label.height}}}{{*}}{{{text}}}" if label.height > 1 else text


def _cell(cell: Cell) -> str:
    value = tex(cell.value)
    value = rf"\textit{{{value}}}" if cell.quoted else value
    value = {"best": rf"\textbf{{{value}}}", "second": rf"\underline{{{value}}}"}.get(cell.rank, value)
    if cell.spread:
        value += rf"\,{{\scriptsize$\pm$\,{cell.spread}}}"
    if cell.n:
        value += rf"\,{{\scriptsize({tex(cell.n)})}}"
    value += f"~{tex(cell.after)}" if cell.after else ""
    value += rf"\,{{\scriptsize({tex(cell.note)})}}" if cell.note else ""
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
